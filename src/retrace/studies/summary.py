"""From the rows of a study to tables: mean and spread over seeds, and what became of claims."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrace.studies import COLUMNS, Claim, Study

Rows = Sequence[Mapping[str, Any]]
"""Each with arm, seed (None for what has no seeds) and scores."""


def values(rows: Rows, arm: str, measure: str) -> list[float]:
    """A number of an arm, seed by seed; rows without it are left out."""
    own = [row["scores"] for row in rows if row["arm"] == arm]
    return [float(scores[measure]) for scores in own if scores.get(measure) is not None]


def spread(numbers: Sequence[float]) -> float:
    """Standard deviation over seeds (n - 1); NaN for fewer than two."""
    return float(np.std(numbers, ddof=1)) if len(numbers) > 1 else float("nan")


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Attributes:
        claim: that was tested.
        difference: mean of `more` minus mean of `less`; NaN while one of them has no number.
        deviations: the same in standard deviations over seeds (root mean square of the two arms'); NaN where there are
            none, of fewer than two seeds.
        word: "agrees" (above one deviation), "disagrees" (below minus one), "undecided", or "not run".
    """

    claim: Claim
    difference: float
    deviations: float
    word: str


def verdict(rows: Rows, claim: Claim) -> Verdict:
    """Compare two arms."""
    more, less = (values(rows, arm, claim.measure) for arm in (claim.more, claim.less))
    if not more or not less:
        return Verdict(claim, float("nan"), float("nan"), "not run")
    difference = float(np.mean(more) - np.mean(less))
    seeded = {row["arm"] for row in rows if row["seed"] is not None}  # a baseline has no seeds and no spread
    pairs = ((claim.more, more), (claim.less, less))
    spreads = [
        spread(numbers) for arm, numbers in pairs if arm in seeded
    ]  # NaN as long as an arm has one seed
    scale = float(np.sqrt(np.mean(np.square(spreads)))) if spreads else float("nan")
    deviations = difference / scale if scale > 0 else float("nan")
    word = "agrees" if deviations > 1 else "disagrees" if deviations < -1 else "undecided"
    return Verdict(claim, difference, deviations, word)


def table(study: Study, rows: Rows) -> str:
    """Markdown: a line per arm, mean ± standard deviation over seeds; what is missing says so."""
    shown = [key for key in study.columns if any(values(rows, arm.name, key) for arm in study.arms)]
    lines = ["| " + " | ".join(["", "seeds", *(COLUMNS[key].label for key in shown)]) + " |"]
    lines.append("|---|" + "---|" * (len(shown) + 1))
    for arm in study.arms:
        count = sum(row["arm"] == arm.name for row in rows)
        seeds = "-" if arm.model and count else str(count)
        cells = [_cell(values(rows, arm.name, key), COLUMNS[key].digits) for key in shown]
        lines.append("| " + " | ".join([arm.label, seeds, *cells]) + " |")
    return "\n".join(lines)


def claims_table(study: Study, rows: Rows) -> str:
    """Markdown: a line per claim, and whether the results agree; empty where the study makes none."""
    if not study.claims:
        return ""
    lines = [
        "| claim | measured by | difference | in standard deviations | |",
        "|---|---|---|---|---|",
    ]
    for found in (verdict(rows, claim) for claim in study.claims):
        claim, digits = found.claim, COLUMNS[found.claim.measure].digits
        numbers = [
            f"{found.difference:+.{digits}f}" if np.isfinite(found.difference) else "-",
            f"{found.deviations:+.1f}" if np.isfinite(found.deviations) else "-",
        ]
        cells = [claim.says, COLUMNS[claim.measure].label, *numbers, found.word]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_csv(rows: Rows) -> str:
    """One line per arm, seed and number: arm, seed, measure, value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", "measure", "value"])
    for row in rows:
        seed = "" if row["seed"] is None else row["seed"]
        writer.writerows(
            [row["arm"], seed, key, "" if value is None else repr(float(value))]
            for key, value in row["scores"].items()
        )
    return text.getvalue()


def _cell(numbers: Sequence[float], digits: int) -> str:
    if not numbers:
        return "-"
    deviation = f" ± {spread(numbers):.{digits}f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.{digits}f}{deviation}"
