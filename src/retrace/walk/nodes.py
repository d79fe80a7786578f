"""Feature maps, patch grids and nodes: views of the same numbers."""

from dataclasses import dataclass

import torch
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
    if features.dtype == torch.float16:  # which holds no number as small as EPSILON
        return F.normalize(features.float(), dim=dim, eps=EPSILON).half()
    return F.normalize(features, dim=dim, eps=EPSILON)


def patch_corners(height: int, width: int, size: int, stride: int) -> Tensor:
    """Upper left pixels of a grid of overlapping patches: the nodes of CRW in training.

    Patches start at 0, stride, 2 * stride, ... while they fit; node i is patch i // columns, i % columns.

    Args:
        height: of the frame, pixels.
        width: of the frame, pixels.
        size: side of a patch, pixels, at most `height` and `width`.
        stride: from one patch to the next, pixels.

    Returns: int64 (N, 2), x and y.
    """
    ys = torch.arange(0, height - size + 1, stride)
    xs = torch.arange(0, width - size + 1, stride)
    return torch.stack([xs.repeat(len(ys)), ys.repeat_interleave(len(xs))], dim=1)  # (N, 2)


@dataclass(frozen=True)
class Whitening:
    """A change of coordinates after which the directions that nodes share count less.

    Attributes:
        mean: (C,) float32.
        matrix: (C, C) float32, symmetric.
    """

    mean: Tensor
    matrix: Tensor

    def __call__(self, nodes: Tensor) -> Tensor:
        """Nodes (..., C) -> (..., C) of the same dtype, centred and scaled."""
        return ((nodes.float() - self.mean) @ self.matrix).to(nodes.dtype)


def whitening(nodes: Tensor, power: float, floor: float = 1e-2) -> Whitening:
    """Centre nodes and divide each principal direction by its standard deviation to a power.

    `matrix = (covariance + floor * largest eigenvalue * I) ** (-power / 2)`, the covariance that of the nodes given.

    Args:
        nodes: (N, C), of one frame.
        power: 0 only centres; 1 gives every direction (above the floor) the same variance.
        floor: share of the largest variance that every direction is given, so that those without any do not explode.

    Returns: Whitening; with nodes that are all alike it only centres.
    """
    wide = nodes.double()
    mean = wide.mean(0)
    centred = wide - mean
    variances, directions = torch.linalg.eigh(centred.t() @ centred / len(wide))
    largest = variances[-1].clamp_min(0)
    if largest == 0:
        return Whitening(mean.float(), torch.eye(len(mean), device=nodes.device))
    scales = (variances.clamp_min(0) + floor * largest) ** (-power / 2)
    return Whitening(mean.float(), ((directions * scales) @ directions.t()).float())
