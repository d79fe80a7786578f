"""Masks to the grid and back, as the released code does it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from retrace.propagation.codecs import Geometry, MaskCodec


def test_masks_reach_the_grid_and_come_back(reference: Callable[[str], dict[str, Any]]) -> None:
    """One-hot planes down, soft labels up: ids are equal, planes to 1e-5."""
    data = reference("stfc3_voslabels.npz")
    assert int(data["num_cases"]) > 0
    for case in range(int(data["num_cases"])):
        ids = data[f"ids_{case}"]
        small = data[f"onehot_small_{case}"]  # (h, w, L)
        channel_to_id = data[f"channel_to_id_{case}"]
        soft = data[f"soft_{case}"]
        grid = small.shape[:2]
        stride = -(-ids.shape[0] // grid[0])
        codec = MaskCodec(
            [int(i) for i in channel_to_id if i],
            Geometry(ids.shape, ids.shape, grid, stride),
            seed="bilinear",
        )
        np.testing.assert_array_equal(codec.channel_to_id, channel_to_id)
        np.testing.assert_allclose(codec.encode(ids).numpy(), small.transpose(2, 0, 1), atol=1e-5)
        labels = torch.from_numpy(soft.transpose(2, 0, 1).copy())
        decoded = codec.decode(labels, torch.ones(soft.shape[:2]))
        np.testing.assert_array_equal(decoded.masks, data[f"hard_{case}"])
