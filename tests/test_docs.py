"""The documentation says what the code does: links lead somewhere, equations stand where named, protocols agree."""

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import pytest

from retrace.datasets import READERS
from retrace.propagation.protocols import PROTOCOLS, Protocol
from retrace.tracking import siamfc as tracking
from retrace.verbs.train import load_config

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
METHODS = REPOSITORY / "docs" / "methods"


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


@pytest.mark.parametrize(
    ("page", "equations"),
    [
        ("stfc3", range(3, 14)),
        ("crw", (1, 2)),
        ("timecycle", (1,)),
        ("vfs", range(1, 6)),
        ("moco", (1, 2)),
        ("stt", range(2, 11)),
        ("retrace", range(1, 6)),
    ],
)
def test_equations_stand_on_their_lines(page: str, equations: Iterable[int]) -> None:
    """A method's page names a line per equation; that line carries its number, or the symbol where it has none."""
    text = (METHODS / f"{page}.md").read_text()
    rows = re.findall(r"^\| (\(\d+\)|`[^`]+`) \|.*\(\.\./\.\./(\S+)#L(\d+)\) \|$", text, re.MULTILINE)
    assert [int(name[1:-1]) for name, _, _ in rows if name[0] == "("] == list(equations)
    for name, file, line in rows:
        lines = (REPOSITORY / file).read_text().splitlines()
        here = lines[int(line) - 1] if 0 < int(line) <= len(lines) else ""

        def says(text: str, name: str = name) -> bool:
            return mentions(text, int(name[1:-1])) if name[0] == "(" else name[1:-1] in text

        now = [number for number, text in enumerate(lines, 1) if says(text)]
        assert says(here), f"{name} is not on line {line} of {file} but on {now}"


@pytest.mark.parametrize("page", sorted(METHODS.glob("*.md")), ids=lambda page: page.stem)
def test_rows_of_the_papers_tables_are_flags(page: Path) -> None:
    """Every cell of flags under "From row to flags" is taken by the recipe that the section starts from."""
    _, _, section = page.read_text().partition("## From row to flags")
    recipe = re.search(r"All start from `retrace train (\S+)", section)
    if recipe is None:
        pytest.skip("the page starts its rows from no single recipe")
    table = section.split("\n## ")[0]
    last = re.findall(r"^\|.*\|([^|]*)\|$", table, re.MULTILINE)
    flags = [code for cell in last for code in re.findall(r"`(--[^`]+)`", cell)]
    assert flags
    for code in flags:
        load_config(recipe[1], *shlex.split(code))


TRACKING_SECTION = "## Tracking boxes"


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
    ) + (", read again" if protocol.reread_first else "")
    seed = protocol.seed + (" at input size" if protocol.seed_at == "network" else "")
    smallest = f", {protocol.min_pixels} pixels at least" if protocol.min_pixels else ""
    cells = (
        f"`{protocol.name}`",
        str(protocol.num_context),
        first,
        window,
        top_k,
        f"{rules.temperature:.4g}",
        seed + smallest,
        protocol.output + (" at input size" if protocol.read_at == "network" else ""),
        protocol.keypoints,
        size,
        protocol.source,
    )
    return "| " + " | ".join(cells) + " |"


def test_protocols_are_documented_as_they_are() -> None:
    """docs/protocols.md holds the very numbers of the code."""
    text = (REPOSITORY / "docs" / "protocols.md").read_text().split(TRACKING_SECTION)[0]
    missing = [row for row in map(protocol_row, PROTOCOLS.values()) if row not in text]
    assert not missing, "docs/protocols.md needs these rows:\n" + "\n".join(missing)
    named = set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE))
    assert named == set(PROTOCOLS)


def test_tracking_protocols_are_documented_as_they_are() -> None:
    """The same for those of boxes."""
    text = (REPOSITORY / "docs" / "protocols.md").read_text().split(TRACKING_SECTION)[1]
    rows = {}
    for name, config in tracking.PROTOCOLS.items():
        ours = config.centred and config.normalise and config.target_only
        factor = "" if config.response_size is None else f", x {config.out_scale:.10f}".rstrip("0")
        features = "mean taken off, unit length, cells on the target only" if ours else f"as they are{factor}"
        cells = (
            f"`{name}`",
            f"{config.exemplar_size}, {config.search_size}",
            f"{config.num_scales}, {config.scale_step}",
            f"{config.scale_rate}, {config.scale_penalty}",
            f"{config.window_influence}",
            features,
            config.rounding,
        )
        rows[name] = "| " + " | ".join(cells) + " | "
    missing = [row for row in rows.values() if row not in text]
    assert not missing, "docs/protocols.md needs these rows:\n" + "\n".join(missing)
    assert set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)) == set(rows)


def test_data_sets_are_documented_as_they_are() -> None:
    """docs/datasets.md lists every benchmark with its parts and its layout."""
    text = (REPOSITORY / "docs" / "datasets.md").read_text()
    for name, reader in READERS.items():
        parts = ", ".join(f"`{part}`" for part in reader.SPLITS)
        row = f"| `{name}` | {parts} | `{reader.LAYOUT}` |"
        assert row in text, f"docs/datasets.md needs this row:\n{row}"
