"""Feature maps and nodes: two views of the same numbers."""

import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-12


def to_nodes(feature_map: Tensor) -> Tensor:
    """Turn a map (..., C, h, w) into nodes (..., N, C), N = h * w, row by row (node i = row i // w, column i % w)."""
    return feature_map.flatten(-2).transpose(-2, -1)  # (..., N, C)


def to_map(nodes: Tensor, h: int, w: int) -> Tensor:
    """Turn nodes (..., N, C) into a map (..., C, h, w), N = h * w; the inverse of `to_nodes`."""
    return nodes.transpose(-2, -1).reshape(*nodes.shape[:-2], nodes.shape[-1], h, w)  # (..., C, h, w)


def normalise(features: Tensor, dim: int) -> Tensor:
    """L2-normalise along the channel dimension `dim`; a zero vector stays zero."""
    return F.normalize(features, dim=dim, eps=EPSILON)
