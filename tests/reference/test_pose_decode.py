"""Keypoints to the grid and back, as the released code does it. PCK: test_metrics.py."""

from collections.abc import Callable
from typing import Any

import numpy as np

from retrace.propagation.codecs import Geometry, KeypointCodec, best_cells


def test_coordinates(reference: Callable[[str], dict[str, Any]]) -> None:
    """Mean of the three best cells, -1 where the map is empty."""
    data = reference("stfc3_pose.npz")
    for maps, expected in zip(data["pose_pred"], data["pose_coords"], strict=True):
        found = best_cells(maps[..., 1:].transpose(2, 0, 1))
        np.testing.assert_allclose(found.T, expected, atol=1e-5)


def test_first_frame_labels(reference: Callable[[str], dict[str, Any]]) -> None:
    """Stamps at truncated cells, background where nothing is drawn; the annotation counts the first pixel as 1."""
    data = reference("stfc3_pose.npz")
    height, width = (int(v) for v in data["jh_image_hw"])
    expected = data["jh_label0"].transpose(2, 0, 1)
    grid = expected.shape[1:]
    network = tuple(int(v) for v in data["jh_input_hw"])
    names = [str(k) for k in range(len(expected) - 1)]
    codec = KeypointCodec(
        names, Geometry((height, width), network, grid, network[0] // grid[0]), dialect="crw"
    )
    labels = codec.encode(data["jh_pos_img"].T - 0.5).numpy()
    np.testing.assert_allclose(labels, expected, atol=1e-6)
