"""The page of results says what the measurements wrote."""

from types import ModuleType

import pytest

from benchmarks import learning, pages, quality, viewpoint


@pytest.mark.parametrize("measurements", [quality, learning, viewpoint], ids=lambda module: module.__name__)
def test_the_table_is_that_of_the_file(measurements: ModuleType) -> None:
    """docs/results.md holds the tables of benchmarks/*.json, to the digit."""
    name = measurements.__name__.removeprefix("benchmarks.")
    assert pages.shown(name, "results.md") == measurements.table(pages.load(name))
