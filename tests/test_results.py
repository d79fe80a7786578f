"""The page of results says what the measurements wrote."""

import json

from benchmarks.quality import BEGIN, DOCS, END, RESULTS, table


def test_the_table_is_that_of_the_file() -> None:
    """docs/results.md holds the table of benchmarks/quality.json, to the digit."""
    text = DOCS.read_text()
    shown = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()
    assert shown == table(json.loads(RESULTS.read_text()))
