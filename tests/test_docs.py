"""The documentation says what the code does: links lead somewhere, equations stand where named, protocols agree."""

import re
from pathlib import Path

import pytest

from retrace.propagation.protocols import PROTOCOLS, Protocol

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
STFC3 = REPOSITORY / "docs" / "methods" / "stfc3.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture is a file of the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for target in targets:
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.split("#")[0]).exists(), f"{page.name} links to {target}"


def mentions(line: str, equation: int) -> bool:
    """Whether a line of code names an equation: "Eq. (7)", "Eq. 7", "Eq. 6-13", "Eq. (12), (13)"."""
    for match in re.finditer(r"Eq\. ([\d(), -]+)", line):
        for first, last in re.findall(r"(\d+)(?:\)?-\(?(\d+))?", match[1]):
            if int(first) <= equation <= int(last or first):
                return True
    return False


def test_equations_stand_on_their_lines() -> None:
    """docs/methods/stfc3.md names a line per equation; that line carries its number."""
    rows = re.findall(r"^\| \((\d+)\) \|.*\(\.\./\.\./(\S+)#L(\d+)\) \|$", STFC3.read_text(), re.MULTILINE)
    assert [int(equation) for equation, _, _ in rows] == list(range(3, 14))
    for equation, file, line in rows:
        lines = (REPOSITORY / file).read_text().splitlines()
        here = lines[int(line) - 1] if 0 < int(line) <= len(lines) else ""
        now = [number for number, text in enumerate(lines, 1) if mentions(text, int(equation))]
        assert mentions(here, int(equation)), f"Eq. {equation} is not on line {line} of {file} but on {now}"


def protocol_row(protocol: Protocol) -> str:
    """One line of the table in docs/protocols.md."""
    rules = protocol.rules
    window = "none" if rules.radius is None else f"{rules.shape} {rules.radius:g}"
    top_k = "all" if rules.top_k is None else f"{rules.top_k}{'' if rules.joint else ' per frame'}"
    if protocol.size is None:
        size = "native"
    elif isinstance(protocol.size, int):
        size = f"short side {protocol.size}"
    else:
        size = f"{protocol.size[0]} x {protocol.size[1]}"
    first = (
        "no" if not protocol.add_first else "yes, windowed" if protocol.window_first else "yes, everywhere"
    )
    cells = (
        f"`{protocol.name}`",
        str(protocol.num_context),
        first,
        window,
        top_k,
        f"{rules.temperature:.4g}",
        protocol.seed,
        protocol.output,
        size,
        protocol.source,
    )
    return "| " + " | ".join(cells) + " |"


def test_protocols_are_documented_as_they_are() -> None:
    """docs/protocols.md holds the very numbers of the code."""
    text = (REPOSITORY / "docs" / "protocols.md").read_text()
    missing = [row for row in map(protocol_row, PROTOCOLS.values()) if row not in text]
    assert not missing, "docs/protocols.md needs these rows:\n" + "\n".join(missing)
    named = set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE))
    assert named == set(PROTOCOLS)
