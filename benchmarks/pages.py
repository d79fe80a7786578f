"""What measurements leave: a JSON file that is whole or not there, and a table on a page of the documentation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"


def load(name: str) -> dict[str, Any]:
    """What `benchmarks/<name>.json` holds; nothing where it is not there."""
    path = HERE / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def save(name: str, results: Mapping[str, Any]) -> None:
    """Write `benchmarks/<name>.json`, whole."""
    temporary = HERE / f"{name}.partial"
    temporary.write_text(json.dumps(results, indent=2) + "\n")
    temporary.replace(HERE / f"{name}.json")


def shown(name: str, page: str) -> str:
    """The table of benchmarks.<name> as `docs/<page>` has it."""
    text = (DOCS / page).read_text()
    start, end = _place(name, text)
    return text[start:end].strip()


def show(name: str, page: str, table: str) -> None:
    """Put the table of benchmarks.<name> into `docs/<page>`, and print it."""
    text = (DOCS / page).read_text()
    start, end = _place(name, text)
    (DOCS / page).write_text(f"{text[:start]}\n{table}\n{text[end:]}")
    print(table)


def _place(name: str, text: str) -> tuple[int, int]:
    begin, end = f"<!-- made by benchmarks.{name} -->", f"<!-- end of benchmarks.{name} -->"
    return text.index(begin) + len(begin), text.index(end)
