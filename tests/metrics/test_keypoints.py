"""PCK by hand."""

import numpy as np
import pytest

from retrace.metrics.keypoints import (
    DIALECTS,
    correct,
    longer_box_side,
    normalised_distances,
    pck,
    pck_mmpose,
)


def test_correct_counts_visible_points_only_and_missing_ones_as_wrong():
    """Distances 3, 5, missing; one invisible point is left out."""
    truth = np.zeros((1, 4, 2))
    prediction = np.array([[[3.0, 0.0], [3.0, 4.0], [np.nan, np.nan], [0.0, 0.0]]])
    visible = np.array([[True, True, True, False]])
    right = correct(prediction, truth, visible, 0.1, np.array([40.0]))
    assert right.tolist() == [True, False, False]


def test_longer_box_side():
    """The box is that of the visible points; a single point has none."""
    points = np.array([[[1.0, 2.0], [4.0, 9.0], [100.0, 100.0]]] * 2)
    visible = np.array([[True, True, False], [True, False, False]])
    assert longer_box_side(points, visible).tolist() == [7.0, 0.0]


def pose(frames: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Four joints whose box is 30 x 40 (0.6 of its diagonal is 30), all visible."""
    truth = np.tile(np.array([[10.0, 10], [40, 50], [20, 30], [30, 20]]), (frames, 1, 1))
    return truth, np.ones((frames, 4), bool)


def test_dialects_differ_as_they_say():
    """A joint that is not found: wrong by the truth, left out by the prediction; frame 0; the left column."""
    truth, visible = pose()
    prediction = truth + [3, 0]
    prediction[1, 3] = np.nan
    by = {name: normalised_distances(prediction, truth, visible, d) for name, d in DIALECTS.items()}
    assert np.isnan(by["truth"][0]).all()
    assert np.isnan(by["crw"][0]).all()
    np.testing.assert_allclose(by["vfs"][0], 0.1)
    assert by["truth"][1, 3] == np.inf
    assert np.isnan(by["crw"][1, 3])
    assert pck([by["truth"]], (0.11,)).mean[0] == 1 - 1 / 8
    assert pck([by["crw"]], (0.11,)).mean[0] == 1
    prediction[2, 0, 0] = 0.5
    assert np.isnan(normalised_distances(prediction, truth, visible, DIALECTS["vfs"])[2, 0])
    assert np.isfinite(normalised_distances(prediction, truth, visible, DIALECTS["crw"])[2, 0])
    visible[0, 2] = False
    late = normalised_distances(truth, truth, visible, DIALECTS["tapnet"])
    assert np.isnan(late[:, 2]).all()
    assert (late[:, :2] == 0).all()


def test_a_lone_joint_has_no_box():
    """Its box has no size, so it is wrong, as in the released evaluators."""
    truth, visible = pose()
    visible[1, 1:] = False
    assert normalised_distances(truth, truth, visible)[1, 0] == np.inf


def test_pck_pools_frames_then_averages_joints():
    """Joint 0: 1 of 2; joint 1: 1 of 1; joint 2 never counts."""
    scores = pck([np.array([[0.05, 0.1, np.nan], [0.3, np.nan, np.nan]])], (0.1,))
    np.testing.assert_array_equal(scores.per_joint, [[0.5, 1, np.nan]])
    assert scores.mean.tolist() == [0.75]
    with pytest.raises(ValueError, match="expected"):
        normalised_distances(np.zeros((2, 3, 2)), np.zeros((2, 3, 2)), np.ones((3, 2), bool))


def test_mmpose_by_hand():
    """15 joints, all 5 pixels off; the box's longer side is 60, the torso 20."""
    truth = np.zeros((1, 15, 2), np.float32)
    truth[0, 4] = [20, 0]
    boxes = np.array([[0, 0, 30, 60]])
    visible = np.ones((1, 15), bool)
    visible[0, 2] = False
    found = pck_mmpose(truth + [3, 4], truth, visible, boxes, 0.1)
    assert found["PCK"] == 1
    assert found["tPCK"] == 0  # a quarter of the torso
    assert found["Head PCK"] == -1
