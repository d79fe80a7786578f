"""Means that say what they leave out; paired differences."""

import numpy as np
import pytest

from retrace.metrics.summary import dataset_mean, paired_difference


def test_means_say_what_they_leave_out():
    """29 of 30; the official mean is NaN."""
    values = [0.5] * 29 + [np.nan]
    assert dataset_mean(values) == (0.5, 29, 30)
    assert np.isnan(dataset_mean(values, official=True).value)
    assert np.isnan(dataset_mean([]).value)


def test_paired_differences():
    """A constant gain has an interval of no width; missing and NaN items are left out."""
    a = {f"s{k}": k / 10 for k in range(8)} | {"only a": 1.0, "nan": np.nan}
    b = {name: value + 0.05 for name, value in a.items() if name != "only a"}
    found = paired_difference(a, b, np.random.default_rng(0))
    assert (found.mean, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))
    assert (found.better, found.worse, len(found.items)) == (8, 0, 8)
    assert np.isnan(paired_difference({}, b, np.random.default_rng(0)).mean)


def test_interval_covers_the_truth():
    """Of 200 made comparisons of 25 sequences, nearly 95 % cover the true difference."""
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        gains = generator.normal(0.1, 0.2, 25)
        a = {str(k): 0.0 for k in range(25)}
        b = {str(k): float(gain) for k, gain in enumerate(gains)}
        found = paired_difference(a, b, generator, draws=400)
        covered += found.low <= 0.1 <= found.high
    assert 0.88 <= covered / 200 <= 0.98
