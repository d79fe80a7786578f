"""From numbers per sequence to what is said of a data set: means that tell what they leave out, and comparisons."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrace.metrics.ratios import mean_of_numbers


class Mean(NamedTuple):
    """A mean and what went into it."""

    value: float
    """NaN when nothing was left."""
    counted: int
    """Items with a number."""
    total: int
    """Items that were asked for: "29 of 30"."""


def dataset_mean(values: Sequence[float] | NDArray[np.floating], *, official: bool = False) -> Mean:
    """Plain mean over items, each counting once.

    Args:
        values: one per item; NaN is an item for which the metric is not defined (or that failed).
        official: NaN makes the mean NaN, as in the tools that do not look.

    Returns: without `official`, the mean of the numbers, and how many they were.
    """
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean()) if official and len(array) else mean_of_numbers(array)
    return Mean(mean, int(np.count_nonzero(~np.isnan(array))), len(array))


class Difference(NamedTuple):
    """How much better B is than A on the same items."""

    mean: float
    """Mean of B - A over the shared items."""
    low: float
    """Lower end of the bootstrap interval of that mean."""
    high: float
    """Upper end."""
    level: float
    """Share of the resampled means inside, 0 to 1."""
    better: int
    """Items on which B is higher."""
    worse: int
    """Items on which B is lower."""
    items: tuple[str, ...]
    """The shared items, sorted."""


def paired_difference(
    a: Mapping[str, float],
    b: Mapping[str, float],
    generator: np.random.Generator,
    *,
    level: float = 0.95,
    draws: int = 10_000,
) -> Difference:
    """Mean of the paired differences B - A and its percentile bootstrap interval over items.

    Whole items (sequences) are drawn with replacement, because frames of one video are not independent.

    Args:
        a: item -> value.
        b: item -> value; items that only one of them has, or that are NaN in one, are left out.
        generator: randomness.
        level: of the interval, 0 to 1.
        draws: resamples.

    Returns: all numbers NaN without a shared item; an interval of no width with a single one.
    """
    items = tuple(sorted(k for k in a.keys() & b.keys() if not (np.isnan(a[k]) or np.isnan(b[k]))))
    if not items:
        return Difference(np.nan, np.nan, np.nan, level, 0, 0, ())
    difference = np.array([b[k] - a[k] for k in items], dtype=np.float64)
    picks = generator.integers(0, len(items), (draws, len(items)))
    low, high = np.quantile(difference[picks].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return Difference(
        float(difference.mean()),
        float(low),
        float(high),
        level,
        int((difference > 0).sum()),
        int((difference < 0).sum()),
        items,
    )
