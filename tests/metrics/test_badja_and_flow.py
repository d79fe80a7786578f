"""Animals' joints and optical flow by hand."""

import numpy as np
import pytest

from retrace.metrics import badja, flow


def test_badja_by_hand():
    """A mask of 100 pixels: less than 2 pixels off is right. Frame 0 and invisible joints do not count."""
    masks = np.zeros((3, 20, 30), np.uint8)
    masks[:, 5:15, 5:15] = 128
    truth = np.full((3, 3, 2), 8.0)
    prediction = truth + np.array([[1.9, 0], [2, 0], [np.nan, 0]])
    visible = np.ones((3, 3), bool)
    visible[2, 1] = False
    right = badja.correct(prediction, truth, visible, masks, size=None)
    assert right.tolist() == [True, False, False, True, False]
    # scaled to 40 x 30: rows count double, the mask grows to 200 pixels, 2.83 pixels
    vertical = truth + np.array([[0, 1.4], [0, 1.5], [2.8, 0]])
    right = badja.correct(vertical, truth, np.ones((3, 3), bool), masks, size=(40, 30))
    assert right.tolist() == [True, False, True] * 2
    with pytest.raises(ValueError, match="2 masks"):
        badja.correct(prediction, truth, visible, masks[:2])


def test_flow_by_hand():
    """Errors of 4 and 2 pixels at lengths 10 and 100; an invalid pixel."""
    truth = np.zeros((2, 1, 4))
    truth[0] = [10, 100, 100, 0]
    prediction = truth.copy()
    prediction[1] = [4, 4, 2, 50]
    valid = np.array([[True, True, True, False]])
    found = flow.errors(prediction, truth, valid)
    np.testing.assert_allclose(found.epe, [4, 4, 2])
    assert found.outlier.tolist() == [True, False, False]  # 4 px are 4 % of 100
    other = flow.errors(truth, truth)
    both = [flow.tally(found), flow.tally(other)]
    kitti = flow.kitti(both)
    assert kitti["epe"] == pytest.approx((10 / 3 + 0) / 2)
    assert kitti["fl_all"] == 1 / 7
    assert kitti["over_3px"] == 2 / 7
    sintel = flow.sintel(both)
    assert sintel["epe"] == pytest.approx(10 / 7)
    assert sintel["below_3px"] == 5 / 7
    assert np.isnan(flow.kitti([])["epe"])
    assert np.isnan(flow.sintel([])["below_1px"])
    with pytest.raises(ValueError, match=r"\(2, H, W\)"):
        flow.errors(truth[:1], truth[:1])


def test_angles_by_hand():
    """45 degrees between standing still and one pixel; opposite ways; exact where both agree; small angles stay."""
    truth = np.array([[[0.0, 0, 3, 5]], [[0.0, 1, 4, 12]]])
    prediction = np.array([[[1.0, 0, 3, -5]], [[0.0, 0, 4, -12]]])
    valid = np.array([[True, True, True, True]])
    expected = [45, 45, 0, 180 - 2 * np.degrees(np.arctan(1 / 13))]
    np.testing.assert_allclose(flow.angles(prediction, truth, valid), expected, atol=1e-12)
    assert flow.angles(prediction, truth, ~valid).shape == (0,)
    near = flow.angles(np.full((2, 1, 1), 1e-9), np.zeros((2, 1, 1)))
    np.testing.assert_allclose(near, np.degrees(np.sqrt(2) * 1e-9))
