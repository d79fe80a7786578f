"""docs/studies.md says what the studies and their results say."""

import csv
import statistics

import pytest

from benchmarks import pages
from benchmarks.studies import HOME, PAGE, name_of, part
from retrace import studies
from retrace.verbs.study import FIGURES, RESULTS, read


@pytest.mark.parametrize("name", sorted(studies.names()))
def test_a_part_of_the_page_is_that_of_the_files(name: str) -> None:
    """To the digit; a study without results says so."""
    assert pages.shown(name_of(name), PAGE) == part(name).strip()


def test_results_that_are_kept_belong_to_a_study_and_have_their_figure() -> None:
    """A folder of docs/studies is named after its study."""
    for path in HOME.glob("*/"):
        if not (path / RESULTS).exists():
            assert any(path.glob("tried*.csv"))
            continue
        assert read(path / RESULTS)["study"] == path.name
        assert all((path / name).exists() for name in FIGURES)


def test_what_was_tried_first_is_that_of_its_file() -> None:
    """The numbers that the text gives of the shortcut's first settings."""
    with (HOME / "shortcut" / "tried.csv").open() as file:
        rows = list(csv.DictReader(file))

    def mean(arm: str, measure: str) -> float:
        return statistics.mean(
            float(row["value"]) for row in rows if (row["arm"], row["measure"]) == (arm, measure)
        )

    text = (pages.DOCS / PAGE).read_text()
    told = text[text.index("**What was tried first**") : text.index("So the settings above")]
    for arm, measure, digits in (
        ("fc3-zeros", "loss", 2),
        ("stfc3", "loss", 2),
        ("fc3-zeros", "J", 3),
        ("stfc3", "J", 3),
        ("random-zeros", "J", 3),
        ("random-reflect", "J", 3),
        ("copy", "J", 3),
        ("fc3-zeros", "position_r2", 3),
        ("random-zeros", "position_r2", 3),
        ("fc3-zeros", "stays_unrelated", 3),
        ("random-zeros", "stays_unrelated", 3),
    ):
        assert f"{mean(arm, measure):.{digits}f}" in told, (arm, measure)
    with (HOME / "shortcut" / "tried-without-dropout.csv").open() as file:
        loss = {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file)}
    assert f"at {loss[180]:.4f} after 180 steps" in told


def test_what_was_tried_for_our_own_recipe_is_that_of_its_file() -> None:
    """Every row of the page's table, to the digit."""
    page = (HOME.parent / "methods" / "retrace.md").read_text()
    with (HOME / "retrace" / "tried.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    table = [line for line in page.splitlines() if line.startswith("| ") and line.count("|") == 13]
    assert table[1:] == ["| " + " | ".join(row) + " |" for row in rows]
