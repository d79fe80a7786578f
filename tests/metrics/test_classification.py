"""Ranks of the true class against sorting by hand."""

import numpy as np
import pytest

from retrace.metrics.classification import ranks


def test_ranks_are_places_in_a_stable_sort() -> None:
    """Of equal logits the first class stands first."""
    generator = np.random.default_rng(0)
    logits = generator.integers(0, 5, (50, 7)).astype(np.float32)  # many ties
    labels = generator.integers(0, 7, 50)
    expected = [
        sorted(range(7), key=lambda k, row=row: (-row[k], k)).index(label)
        for row, label in zip(logits.tolist(), labels, strict=True)
    ]
    np.testing.assert_array_equal(ranks(logits, labels), expected)


def test_a_classifier_that_says_nothing_is_no_better_than_chance() -> None:
    """All logits equal: one class of four is right; a NaN is wrong and stands before the others."""
    assert (ranks(np.zeros((4, 4)), np.arange(4)) < 1).mean() == 0.25
    logits = np.array([[np.nan, 1.0, 2.0], [np.nan, 1.0, 2.0]])
    np.testing.assert_array_equal(ranks(logits, np.array([0, 2])), [3, 1])
    with pytest.raises(ValueError, match=r"expected \(n, classes\)"):
        ranks(np.zeros((4, 4)), np.zeros(3, int))
