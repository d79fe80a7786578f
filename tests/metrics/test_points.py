"""TAP-Vid: a perfect and a silent tracker, sampling and counting by hand."""

import numpy as np
import pytest

from retrace.metrics.points import METRIC_NAMES, sample_queries, tapvid


def tracks(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Six tracks of 13 frames; the last is never visible."""
    generator = np.random.default_rng(seed)
    xy = generator.uniform(0, 256, (6, 13, 2))
    occluded = generator.random((6, 13)) < 0.3
    occluded[5] = True
    return xy, occluded


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_a_perfect_tracker_scores_one(mode):
    """On every measure; a copied metric of the field gave it a half."""
    queries = sample_queries(*tracks(), mode)
    found = tapvid(queries.frame, queries.tracks, queries.occluded, queries.tracks, queries.occluded, mode)
    assert set(found) == set(METRIC_NAMES)
    assert all(value == 1 for value in found.values())


def test_sampling():
    """First visible frames; every fifth frame where visible."""
    xy, occluded = tracks()
    first = sample_queries(xy, occluded, "first")
    assert first.track.tolist() == [0, 1, 2, 3, 4]
    for frame, track in zip(first.frame, first.track, strict=True):
        assert not occluded[track, frame]
        assert occluded[track, :frame].all()
    strided = sample_queries(xy, occluded, "strided", stride=5)
    expected = [(t, k) for t in (0, 5, 10) for k in range(6) if not occluded[k, t]]
    assert list(zip(strided.frame, strided.track, strict=True)) == expected
    np.testing.assert_array_equal(strided.xy, [xy[k, t] for t, k in expected])


def test_counting_by_hand():
    """Four scored frames: right; 3 px off; said to be occluded; occluded but claimed."""
    true = np.zeros((1, 5, 2))
    predicted = np.array([[[9, 9], [0, 0], [3, 0], [0, 0], [0, 0]]], float)
    occluded = np.array([[False, False, False, False, True]])
    claimed = np.array([[False, False, False, True, False]])
    found = tapvid(np.array([0]), true, occluded, predicted, claimed)
    assert found["occlusion_accuracy"] == 2 / 4
    assert found["pts_within_2"] == 2 / 3
    assert found["pts_within_4"] == 1
    assert found["jaccard_2"] == 1 / (3 + 2)  # one hit; three visible; one too far off, one occluded
    assert found["jaccard_4"] == 2 / (3 + 1)
    exact = tapvid(np.array([0]), true, occluded, predicted + [1, 0], claimed)
    assert exact["pts_within_1"] == 0  # strictly below


def test_strided_scores_frames_before_the_query():
    """First mode leaves them out."""
    true = np.zeros((1, 4, 2))
    predicted = true.copy()
    predicted[0, 0] = 50
    seen = np.zeros((1, 4), bool)
    at = np.array([2])
    assert tapvid(at, true, seen, predicted, seen, "first")["pts_within_16"] == 1
    assert tapvid(at, true, seen, predicted, seen, "strided")["pts_within_16"] == 2 / 3
    assert np.isnan(tapvid(np.array([3]), true, seen, predicted, seen, "first")["average_jaccard"])
