"""Colours of optical flow."""

import numpy as np

from retrace.viz.flow import error_colours, flow_colours, longest


def test_directions_have_their_own_colours() -> None:
    """Still is white, unknown black; opposite ways are opposite hues; half the length is half as saturated."""
    uv = np.array([[[0, 0], [4, 0], [-4, 0], [2, 0], [9, 9]]], np.float32)
    counted = np.array([[True, True, True, True, False]])
    still, right, left, slow, unknown = flow_colours(uv, 4.0, counted)[0].tolist()
    assert still == [255, 255, 255]
    assert unknown == [0, 0, 0]
    assert right == [255, 0, 0]
    assert left == [0, 255, 255]
    assert slow[0] == 255
    assert abs(slow[1] - 127) <= 1
    assert longest(uv, counted) <= 4
    assert longest(uv, np.zeros_like(counted)) == 1


def test_errors_get_lighter() -> None:
    """From black on; what does not count is grey."""
    image = error_colours(np.array([[0.0, 1, 2, 9]]), 4.0, np.array([[True, True, True, False]]))[0]
    sums = image.astype(int).sum(-1)
    assert (np.diff(sums[:3]) > 0).all()
    assert image[3].tolist() == [128, 128, 128]
