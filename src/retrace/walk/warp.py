"""Affine maps between crops of one frame, and reading feature maps through them (STFC3 Eq. 9 and 11; TimeCycle 3.2.2).

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


def on_nodes(matrix: Tensor, height: int, width: int, stride: int, h: int, w: int, origin: int = 0) -> Tensor:
    """Turn a reading matrix between crops of H x W pixels into one between their h x w node maps.

    Node j of a strided convolutional encoder sits on pixel `origin + j * stride`, with padding on `j * stride`: the
    last node is not on the last pixel. A matrix made in pixel coordinates and applied to nodes as it is (as the
    released code does) therefore reads up to one node off when the two crops differ in scale. This makes it exact.

    Args:
        matrix: (..., 2, 3) between two crops of the same size, from `reading_matrix`.
        height: H of the crops, pixels.
        width: W of the crops, pixels.
        stride: pixels from node to node.
        h: rows of the node map, at least 2.
        w: columns of the node map, at least 2.
        origin: pixel of node 0, on both axes.

    Returns: (..., 2, 3).
    """
    # normalised node n -> normalised pixel a * n + b, because pixel = origin + stride * (n + 1) / 2 * (cells - 1)
    ax, ay = (w - 1) * stride / (width - 1), (h - 1) * stride / (height - 1)
    bx, by = ax - 1 + 2 * origin / (width - 1), ay - 1 + 2 * origin / (height - 1)
    to_pixels = matrix.new_tensor([[ax, 0, bx], [0, ay, by], [0, 0, 1]])
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


def read_many(feature_maps: Tensor, matrices: Tensor, size: tuple[int, int]) -> Tensor:
    """Sample each map through several matrices at once, as `read` does, without a copy of the map for each.

    Args:
        feature_maps: (B, C, h, w).
        matrices: (B, Q, 2, 3).
        size: output (h', w').

    Returns: (B, Q, C, h', w').
    """
    batch, count = matrices.shape[:2]
    grid = F.affine_grid(
        matrices.to(feature_maps.dtype).flatten(0, 1), [batch * count, 1, *size], align_corners=True
    )
    grid = grid.reshape(
        batch, count * size[0], size[1], 2
    )  # (B, Q * h', w', 2): the readings below each other
    out = F.grid_sample(feature_maps, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return out.reshape(*out.shape[:2], count, *size).transpose(1, 2)  # (B, Q, C, h', w')


def placement(parameters: Tensor, scale: float) -> Tensor:
    """Reading matrix of a patch of fixed size from where it lies and how it is turned (TimeCycle section 3.2.2).

    Args:
        parameters: (..., 3) tx, ty in normalised coordinates and an angle in radians; unbounded.
        scale: side of the patch, as a share of the image's.

    Returns: (..., 2, 3).
    """
    x, y, angle = parameters.unbind(-1)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    return torch.stack([torch.stack([cos, -sin, x], -1), torch.stack([sin, cos, y], -1)], -2)


def alignment_error(one: Tensor, other: Tensor, points: int = 20) -> Tensor:
    """Mean squared distance between the images of a grid of points under two matrices (TimeCycle's l_theta).

    The grid has `points` x `points` points from -1 to 1. It is symmetric, so no term mixes x, y and 1, and the mean
    needs no grid: the columns of x and y count with the mean square of a coordinate, the translation with 1.

    Args:
        one: (..., 2, 3).
        other: (..., 2, 3), broadcastable to `one`.
        points: on a side of the grid, at least 2.

    Returns: (...) squared normalised coordinates, at least 0.
    """
    mean_square = (points + 1) / (3 * (points - 1))  # of `points` numbers evenly spaced from -1 to 1
    weight = one.new_tensor([mean_square, mean_square, 1.0])
    return ((one - other).square() * weight).sum((-2, -1))


def soft_inliers(walk: Tensor, matrices: Tensor, source: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """How far a walk from a patch to an image goes where a matrix puts the patch (Rocco et al.'s score).

    Each cell of the patch has one position in the image under the matrix, so one mask over image nodes: the bilinear
    weights of its four neighbours. The score is the share of all masks that the walk covers. Reading the walk of a cell
    as an image, at the cell's own position, gives the same number without the masks.

    Args:
        walk: (B, n, N) probabilities from the n = h' w' cells of the patch to the N = h w nodes of the image.
        matrices: (B, 2, 3), for each position of the patch the position in the image.
        source: (h, w) of the image.
        size: (h', w') of the patch.

    Returns: (B,) from 0 to 1; 1e-5 for every cell and node is added to the masks' mass, as in the released code.
    """
    batch, cells, nodes = walk.shape
    grid = F.affine_grid(matrices.to(walk.dtype), [batch, 1, *size], align_corners=True)  # (B, h', w', 2)
    covered = F.grid_sample(
        walk.reshape(batch * cells, 1, *source), grid.reshape(batch * cells, 1, 1, 2), align_corners=True
    )
    ones = torch.ones(1, 1, *source, dtype=walk.dtype, device=walk.device).expand(batch, 1, *source)
    mass = F.grid_sample(ones, grid, align_corners=True).flatten(1).sum(1) + 1e-5 * cells * nodes
    return covered.reshape(batch, cells).sum(1) / mass
