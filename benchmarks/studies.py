"""The studies of docs/studies.md. `python -m benchmarks.studies [FOLDER ...]`.

Takes the results of `retrace study` over from each FOLDER into docs/studies/NAME, draws their figure again, and fills
the page: what the paper found, the settings, the table, what became of the paper's claims, the figure, and what it was
made with. Without a FOLDER it fills the page from what is there. What is concluded is written by hand below each part.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from benchmarks import pages
from retrace import studies
from retrace.studies import Study, summary
from retrace.verbs.study import FIGURES, RESULTS, in_order, read, write

PAGE = "studies.md"
HOME = pages.DOCS / "studies"


def name_of(study: str) -> str:
    """Of a study's part of the page."""
    return f"studies.{study}"


def part(name: str) -> str:
    """Markdown of a study, from its YAML and `docs/studies/NAME/results.json` alone."""
    path = HOME / name / RESULTS
    results = read(path) if path.exists() else None
    study = studies.load(name, results["size"] if results else "small")
    lines = [
        f"**{study.where}.** {study.found}",
        f"**Here.** {study.setting}",
        f"    retrace study {name} --out studies/{name}"
        + ("" if study.size == "small" else f" --size {study.size}"),
    ]
    return "\n\n".join([*lines, *(_measured(study, results) if results else ["Not run yet here."])])


def _measured(study: Study, results: dict[str, Any]) -> list[str]:
    rows = in_order(study, results["rows"])
    figure, vector = f"studies/{study.name}/{FIGURES[1]}", f"studies/{study.name}/{FIGURES[0]}"
    parts = [
        f"![{study.title}]({figure})",
        summary.table(study, rows),
        summary.claims_table(study, rows),
        f"{_made(results)} [Numbers](studies/{study.name}/{RESULTS}), [figure as vectors]({vector}).",
    ]
    return [text for text in parts if text]


def _made(results: dict[str, Any]) -> str:
    """What it was made with, in a sentence."""
    rows = results["rows"]
    commits = sorted({str(row["commit"] or "unknown")[:7] for row in rows})
    hours = sum(sum(row["seconds"].values()) for row in rows) / 3600
    machines = sorted({row["machine"] for row in rows})
    return (
        f"Mean ± standard deviation over seeds. Commit {', '.join(commits)}; torch {results['torch']}; "
        f"{'; '.join(machines)}; {hours:.1f} hours of runs summed up, beside other work."
    )


def main() -> None:
    """Take results over, and fill the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, help="that `retrace study` wrote")
    for folder in parser.parse_args().folders:
        results = read(folder / RESULTS)
        study = studies.load(results["study"], results["size"])
        home = HOME / study.name
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / RESULTS, home / RESULTS)
        write(study, results, home)
    for name in studies.names():
        pages.show(name_of(name), PAGE, part(name))


if __name__ == "__main__":
    main()
