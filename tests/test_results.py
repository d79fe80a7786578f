"""The page of results says what the measurements wrote."""

import json
from types import ModuleType

import pytest

from benchmarks import learning, quality, viewpoint


@pytest.mark.parametrize("measurements", [quality, learning, viewpoint], ids=lambda module: module.__name__)
def test_the_table_is_that_of_the_file(measurements: ModuleType) -> None:
    """docs/results.md holds the tables of benchmarks/quality.json and benchmarks/learning.json, to the digit."""
    text = measurements.DOCS.read_text()
    begin, end = measurements.BEGIN, measurements.END
    shown = text[text.index(begin) + len(begin) : text.index(end)].strip()
    assert shown == measurements.table(json.loads(measurements.RESULTS.read_text()))
