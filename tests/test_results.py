"""The page of results says what the measurements wrote."""

from types import ModuleType

import pytest

from benchmarks import knobs, learning, limits, pages, quality, unseen, viewpoint


@pytest.mark.parametrize(
    ("measurements", "page"),
    [
        (quality, "results.md"),
        (learning, "results.md"),
        (viewpoint, "results.md"),
        (limits, "results.md"),
        (knobs, "protocols.md"),
        (unseen, "protocols.md"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_table_is_that_of_the_file(measurements: ModuleType, page: str) -> None:
    """The pages hold the tables of benchmarks/*.json, to the digit."""
    name = measurements.__name__.removeprefix("benchmarks.")
    assert pages.shown(name, page) == measurements.table(pages.load(name))
