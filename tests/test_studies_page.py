"""docs/studies.md says what the studies and their results say."""

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
        assert read(path / RESULTS)["study"] == path.name
        assert all((path / name).exists() for name in FIGURES)
