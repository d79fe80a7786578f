"""Confusion by counting, and average precision by hand."""

import itertools

import numpy as np
import pytest

from retrace.metrics.parts import PartFrame, average_precision, class_scores, confusion


def test_confusion_by_counting():
    """Every pixel, ignored ones aside."""
    generator = np.random.default_rng(0)
    truth, prediction = generator.integers(0, 4, (2, 7, 9))
    truth[0, :3] = 255
    expected = np.zeros((4, 4), int)
    for y, x in itertools.product(range(7), range(9)):
        if truth[y, x] < 4:
            expected[truth[y, x], prediction[y, x]] += 1
    np.testing.assert_array_equal(confusion(prediction, truth, 4), expected)


def test_prediction_of_another_size_is_resized():
    """Twice and half the size, by nearest neighbour."""
    truth = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(
        confusion(truth.repeat(2, 0).repeat(2, 1), truth), np.eye(20, dtype=int) * (np.arange(20) < 12)
    )
    small = np.array([[1, 2]])
    matrix = confusion(small, np.array([[1, 1, 2, 2], [1, 1, 2, 2]]))
    assert matrix[1, 1] == matrix[2, 2] == 4


def test_unknown_classes_are_refused():
    """They would be booked as other classes."""
    with pytest.raises(ValueError, match="class 5; expected 0 to 3"):
        confusion(np.array([[5]]), np.array([[1]]), 4)
    assert confusion(np.array([[5]]), np.array([[255]]), 4).sum() == 0


def test_class_scores_by_hand():
    """Absent from both: NaN and not counted; predicted only: 0 and counted."""
    scores = class_scores(np.array([[6, 2, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    np.testing.assert_allclose(scores.iou, [6 / 9, 1 / 4, np.nan, np.nan])
    assert scores.mean_iou == pytest.approx((6 / 9 + 1 / 4) / 2)
    assert scores.overall_accuracy == 0.7
    spurious = class_scores(np.array([[6, 0, 2], [0, 0, 0], [0, 0, 0]]))
    assert spurious.iou[2] == 0
    assert spurious.mean_iou == pytest.approx(6 / 8 / 2)
    assert np.isnan(class_scores(np.zeros((3, 3), int)).mean_iou)


def strip(*lengths: int) -> np.ndarray:
    """One row with instance 1, 2, ... side by side."""
    return np.repeat(np.arange(1, len(lengths) + 1), lengths)[None]


def test_average_precision_by_hand():
    """Two instances; the better scored prediction is wrong, so precision is 1/2 where recall becomes 1/2."""
    truth = PartFrame(strip(4, 4), np.array([[1, 3], [2, 3]]))
    prediction = PartFrame(strip(4, 3, 1), np.array([[1, 3], [2, 5], [3, 3]]), np.array([0.5, 0.9, 0.8]))
    found = average_precision([prediction], [truth], (3,), (0.5,))
    assert found[0, 0] == pytest.approx(0.25)
    assert average_precision([truth], [truth], (3,), (0.9,))[0, 0] == 1


def test_classes_that_one_side_lacks():
    """Neither: 0. Truth only: 0. Prediction only: 0, officially NaN."""
    some = PartFrame(strip(2, 2), np.array([[1, 1], [2, 2]]))
    other = PartFrame(strip(2, 2), np.array([[1, 1], [2, 4]]))
    found = average_precision([other], [some], (1, 2, 3, 4), (0.5,))[:, 0]
    assert found.tolist() == [1, 0, 0, 0]
    official = average_precision([other], [some], (1, 2, 3, 4), (0.5,), official=True)[:, 0]
    np.testing.assert_array_equal(official, [1, 0, 0, np.nan])


def test_parts_refuse_what_cannot_be_compared():
    """Sizes, scores, lengths."""
    frame = PartFrame(strip(2, 2), np.array([[1, 1], [2, 2]]))
    with pytest.raises(ValueError, match="equal shapes"):
        average_precision([frame._replace(ids=strip(3))], [frame])
    with pytest.raises(ValueError, match="3 scores for 2 instances"):
        average_precision([frame._replace(scores=np.ones(3))], [frame])
    with pytest.raises(ValueError, match="longer"):
        average_precision([frame], [frame, frame])
