"""Boxes by hand, and what is not a number."""

import numpy as np
import pytest

from retrace.metrics.boxes import (
    as_written,
    centre_error,
    headline,
    iou,
    mean_curves,
    otb_got10k,
    otb_pysot,
)

TRUTH = np.array([[10.0, 20, 40, 30], [12, 20, 40, 30], [14, 20, 40, 30], [16, 20, 40, 30]])


def test_iou_and_centres_by_hand():
    """Half overlapping; apart; the distance of 3, 4, 5."""
    a = np.array([[0.0, 0, 4, 2], [0, 0, 4, 2]])
    b = np.array([[2.0, 0, 4, 2], [9, 9, 1, 1]])
    np.testing.assert_allclose(iou(a, b), [4 / 12, 0])
    assert centre_error(a[:1], a[:1] + [3, 4, 0, 0])[0] == 5


def test_a_perfect_tracker_has_20_of_21():
    """No IoU is above 1."""
    for scores in (otb_got10k(TRUTH, TRUTH), otb_pysot(TRUTH, TRUTH)):
        line = headline(scores)
        assert line.success == pytest.approx(20 / 21)
        assert line.precision == line.normalised_precision == line.success_rate == 1


def test_misses():
    """NaN fails everywhere, but got10k sets frame 0 to the truth."""
    nothing = np.full_like(TRUTH, np.nan)
    line = headline(otb_got10k(nothing, TRUTH))
    assert (line.precision, line.success_rate) == (0.25, 0.25)
    assert headline(otb_pysot(nothing, TRUTH)).precision == 0
    infinite = np.full_like(TRUTH, np.inf)
    assert headline(otb_got10k(infinite, TRUTH)).success_rate == 0.25


def test_written_boxes_are_decimal():
    """Three decimals as printed; the argument stays."""
    box = np.array([[1.0, 1, 1, 1], [0.0005, 2.6785, np.nan, -1]])
    written = as_written(box, TRUTH[:2])
    assert written[1, :2].tolist() == [float("0.001"), float(f"{2.6785:.3f}")]
    assert written[0].tolist() == TRUTH[0].tolist()
    assert box[0].tolist() == [1, 1, 1, 1]


def test_invalid_truth():
    """The pysot toolkits differ in one rule."""
    truth = TRUTH.copy()
    truth[2, 0] = -5
    assert headline(otb_pysot(truth, truth, "pysot-toolkit")).success_rate == 0.75
    assert headline(otb_pysot(truth, truth, "stvir")).success_rate == 1


def test_mean_of_curves_weighs_videos_alike():
    """One of 4 frames, one of 2."""
    mean = mean_curves([otb_got10k(TRUTH, TRUTH), otb_pysot(TRUTH[:2] + 1000, TRUTH[:2])])
    assert headline(mean).precision == 0.5
    with pytest.raises(ValueError, match=r"expected \(T, 4\)"):
        otb_got10k(TRUTH[:2], TRUTH)
