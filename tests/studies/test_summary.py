"""Mean, spread and verdicts against numbers worked out by hand."""

import math

import pytest

from retrace.studies import Arm, Claim, Figure, Study, summary


def row(arm: str, seed: int | None, **scores: float | None) -> dict[str, object]:
    """A row of results."""
    return {"arm": arm, "seed": seed, "scores": scores}


ROWS = [
    row("a", 0, J=0.5, EPE=2.0),
    row("a", 1, J=0.7, EPE=None),
    row("b", 0, J=0.1, EPE=1.0),
    row("b", 1, J=0.3, EPE=1.5),
    row("copy", None, J=0.2),
]
STUDY = Study(
    "s",
    "title",
    "where",
    "found",
    "setting",
    "small",
    (Arm("a", "A"), Arm("b", "B"), Arm("c", "C"), Arm("copy", "Copy", model="copy")),
    ("scenes",),
    ("J", "EPE", "F"),
    (Claim("a is better", "J", "a", "b"),),
    Figure("dots", ("J",)),
)


def test_mean_and_spread_over_seeds() -> None:
    """Of a sample (n - 1); numbers that are missing are left out; a column that nobody has is not shown."""
    assert summary.values(ROWS, "a", "EPE") == [2.0]
    assert summary.spread([0.5, 0.7]) == pytest.approx(0.1414214, abs=1e-6)
    assert math.isnan(summary.spread([0.5]))
    lines = summary.table(STUDY, ROWS).splitlines()
    assert lines[0] == "|  | seeds | J, masks | EPE, flow (pixels) |"
    assert lines[2:] == [
        "| A | 2 | 0.600 ± 0.141 | 2.00 |",
        "| B | 2 | 0.200 ± 0.141 | 1.25 ± 0.35 |",
        "| C | 0 | - | - |",
        "| Copy | - | 0.200 | - |",
    ]


@pytest.mark.parametrize(
    ("more", "less", "word", "deviations"),
    [("a", "b", "agrees", 2.828), ("b", "a", "disagrees", -2.828), ("b", "copy", "undecided", 0.0)],
)
def test_a_claim_is_judged_by_the_spread(more: str, less: str, word: str, deviations: float) -> None:
    """Difference of the means over the root mean square of the deviations; a baseline has none."""
    found = summary.verdict(ROWS, Claim("x", "J", more, less))
    assert found.word == word
    assert found.deviations == pytest.approx(deviations, abs=1e-3)


def test_a_claim_without_numbers_says_so() -> None:
    """It is not judged; one seed each gives a difference and no verdict."""
    assert summary.verdict(ROWS, Claim("x", "J", "c", "a")).word == "not run"
    single = summary.verdict(ROWS[::2], Claim("x", "J", "a", "b"))
    assert single.difference == pytest.approx(0.4)
    assert math.isnan(single.deviations)
    assert single.word == "undecided"
    assert "| a is better | J, masks | +0.400 | +2.8 | agrees |" in summary.claims_table(STUDY, ROWS)


def test_the_csv_has_a_line_per_number() -> None:
    """What has no number has no value; a baseline has no seed."""
    lines = summary.as_csv(ROWS).splitlines()
    assert lines[0] == "arm,seed,measure,value"
    assert "a,1,EPE," in lines
    assert lines[-1] == "copy,,J,0.2"
    assert len(lines) == 1 + 9
