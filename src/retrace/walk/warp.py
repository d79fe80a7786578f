"""Affine maps between crops of one frame, and reading feature maps through them (STFC3 Eq. 9 and 11).

Normalised coordinates (x, y) are -1 / +1 at the **centres** of the first / last column or row ("align corners").
A matrix is (..., 3, 3) and acts on (x, y, 1).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_matrix(boxes: Tensor, flips: Tensor, height: int, width: int) -> Tensor:
    """Matrix frame -> crop in normalised coordinates.

    Maps the centre of pixel (x0, y0) to -1 and that of (x0 + w - 1, y0 + h - 1) to +1; a flip then mirrors x.

    Args:
        boxes: (..., 4) x0, y0, w, h in pixels; w, h > 1.
        flips: (...,) bool; True where the crop is mirrored left to right.
        height: of the frame, pixels.
        width: of the frame, pixels.

    Returns: (..., 3, 3) of the dtype of `boxes` (float64 if that is integral).
    """
    boxes = boxes if boxes.is_floating_point() else boxes.double()
    x0, y0, w, h = boxes.unbind(-1)
    sign = torch.where(flips.bool(), -1.0, 1.0).to(boxes.dtype)
    # pixel = (n + 1) / 2 * (size - 1); crop coordinate = 2 * (pixel - x0) / (w - 1) - 1
    scale_x, scale_y = (width - 1) / (w - 1), (height - 1) / (h - 1)
    matrix = torch.zeros(*boxes.shape[:-1], 3, 3, dtype=boxes.dtype, device=boxes.device)
    matrix[..., 0, 0] = sign * scale_x
    matrix[..., 0, 2] = sign * (scale_x - 2 * x0 / (w - 1) - 1)
    matrix[..., 1, 1] = scale_y
    matrix[..., 1, 2] = scale_y - 2 * y0 / (h - 1) - 1
    matrix[..., 2, 2] = 1
    return matrix


def reading_matrix(source: Tensor, target: Tensor) -> Tensor:
    """Where the nodes of the target crop lie in the source crop: `source @ inverse(target)`.

    Args:
        source: (..., 3, 3) frame -> source crop.
        target: (..., 3, 3) frame -> target crop.

    Returns: (..., 2, 3), ready for `read`.
    """
    inverse: Tensor = torch.linalg.inv(target)
    return (source @ inverse)[..., :2, :]


def on_nodes(matrix: Tensor, height: int, width: int, stride: int, h: int, w: int) -> Tensor:
    """Turn a reading matrix between crops of H x W pixels into one between their h x w node maps.

    Node (0, 0) of a strided convolutional encoder with padding sits on pixel (0, 0), node j on pixel `j * stride`: the
    last node is not on the last pixel. A matrix made in pixel coordinates and applied to nodes as it is (as the
    released code does) therefore reads up to one node off when the two crops differ in scale. This makes it exact.

    Args:
        matrix: (..., 2, 3) between two crops of the same size, from `reading_matrix`.
        height: H of the crops, pixels.
        width: W of the crops, pixels.
        stride: pixels from node to node.
        h: rows of the node map, at least 2.
        w: columns of the node map, at least 2.

    Returns: (..., 2, 3).
    """
    # normalised node -> normalised pixel coordinate: p = a * n + (a - 1), a = (cells - 1) * stride / (size - 1)
    ax, ay = (w - 1) * stride / (width - 1), (h - 1) * stride / (height - 1)
    to_pixels = matrix.new_tensor([[ax, 0, ax - 1], [0, ay, ay - 1], [0, 0, 1]])
    full = torch.cat([matrix, matrix.new_tensor([0.0, 0.0, 1.0]).expand(*matrix.shape[:-2], 1, 3)], dim=-2)
    from_pixels: Tensor = torch.linalg.inv(to_pixels)
    return (from_pixels @ full @ to_pixels)[..., :2, :]


def read(feature_map: Tensor, matrix: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Sample a map at affinely moved positions: bilinear, zeros outside, align-corners (STFC3's T_B, Eq. 9).

    Args:
        feature_map: (B, C, h, w).
        matrix: (B, 2, 3); for each output position (x, y, 1) the normalised position to read.
        size: output (h', w'); None is the size of the map.

    Returns: (B, C, h', w').
    """
    h, w = size or feature_map.shape[-2:]
    grid = F.affine_grid(matrix.to(feature_map.dtype), [feature_map.shape[0], 1, h, w], align_corners=True)
    return F.grid_sample(feature_map, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def inside_mask(matrix: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Nodes whose reading position lies inside the source: warped ones, strictly above `threshold` (STFC3 Eq. 11).

    Args:
        matrix: (B, 2, 3).
        size: (h, w) of source and target maps.
        threshold: in [0, 1).

    Returns: (B, h * w), 0 or 1, in the dtype of `matrix`.
    """
    ones = torch.ones(matrix.shape[0], 1, *size, dtype=matrix.dtype, device=matrix.device)
    return (read(ones, matrix) > threshold).to(matrix.dtype).flatten(1)  # (B, N)
