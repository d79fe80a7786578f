"""Region similarity by counting, and its degenerate cases."""

import numpy as np
import pytest

from retrace.metrics.regions import jaccard, sequence_mean


def test_jaccard_by_counting():
    """Two rectangles of 6 and 9 pixels that share 4."""
    a, b = np.zeros((5, 7), bool), np.zeros((5, 7), bool)
    a[0:2, 0:3] = True
    b[0:3, 1:4] = True
    assert jaccard(a, b) == 4 / 11
    assert jaccard(a, a) == 1


def test_jaccard_of_empty_masks():
    """Both empty is right, one empty is wrong."""
    empty, full = np.zeros((2, 3), bool), np.ones((2, 3), bool)
    assert jaccard(empty, empty) == 1
    assert jaccard(empty, full) == 0
    with pytest.raises(ValueError, match="equal shapes"):
        jaccard(empty, full.T)


def test_sequence_mean_leaves_out_first_and_last():
    """DAVIS does not score the labelled frame, nor the last."""
    assert sequence_mean(np.array([1.0, 0.5, 0.25, 0.0])) == 0.375
    with pytest.raises(ValueError, match="at least 3"):
        sequence_mean(np.array([1.0, 0.5]))
