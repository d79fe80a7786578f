"""The distance of two pictures by hand."""

import numpy as np
import pytest

from retrace.metrics.reconstruction import colour_distance


def test_channels_are_summed_and_pixels_averaged() -> None:
    """Two pixels, 3 + 4 + 5 and 255 levels off, either way; unsigned levels do not wrap round."""
    truth = np.array([[[10, 20, 30], [0, 0, 255]]], np.uint8)
    prediction = np.array([[[13, 16, 35], [0, 0, 0]]], np.uint8)
    assert colour_distance(prediction, truth) == colour_distance(truth, prediction) == (12 + 255) / 2
    assert colour_distance(truth, truth) == 0
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) twice"):
        colour_distance(truth, truth[:, :1])
