"""PCK by hand."""

import numpy as np

from retrace.metrics.keypoints import correct, longer_box_side


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
