"""Which nodes are near which: the only place where a radius gets its meaning. Distances are in cells (nodes)."""

import torch
from torch import Tensor


def disc(h: int, w: int, radius: float) -> Tensor:
    """Nodes at Euclidean distance **strictly below** `radius` (CRW, STFC3, VFS).

    Returns: bool (h * w, h * w), symmetric.
    """
    return window("disc", radius, *_offsets(h, w))


def square(h: int, w: int, radius: int) -> Tensor:
    """Nodes with |dy| <= radius and |dx| <= radius (StT, DINO).

    Returns: bool (h * w, h * w), symmetric.
    """
    return window("square", radius, *_offsets(h, w))


def neighbours(h: int, w: int, radius: float, p: float = 1.0) -> Tensor:
    """Nodes at p-norm distance **at most** `radius`: the targets of the released STFC3 code.

    Radius 0 (and every radius below 1) is the identity; radius 1 with p = 1 is the five-cell cross.

    Returns: bool (h * w, h * w), symmetric, True on the diagonal.
    """
    dy, dx = _offsets(h, w)
    distance: Tensor = torch.linalg.vector_norm(torch.stack([dy, dx]), ord=p, dim=0)
    return distance <= radius + 1e-6


def window(shape: str, radius: float, rows: Tensor, columns: Tensor) -> Tensor:
    """Membership of offsets in the window that `disc` or `square` describes.

    Args:
        shape: "disc" or "square".
        radius: in cells.
        rows: row offsets dy, any shape.
        columns: column offsets dx, broadcastable to `rows`.

    Returns: bool of the broadcast shape.

    Errors: ValueError for another shape.
    """
    if shape == "disc":
        return rows.square() + columns.square() < radius**2
    if shape == "square":
        return (rows.abs() <= radius) & (columns.abs() <= radius)
    raise ValueError(f"window shape {shape!r}; expected 'disc' or 'square'")


def reach(shape: str, radius: float) -> int:
    """Largest row or column offset, in cells, that the window admits; 0 or more."""
    if shape == "disc":
        whole = int(radius)
        return max(whole - 1 if whole == radius else whole, 0)
    return int(radius)


def _offsets(h: int, w: int) -> tuple[Tensor, Tensor]:
    """Row and column differences between all pairs of nodes, each float32 (N, N)."""
    y = torch.arange(h, dtype=torch.float32).repeat_interleave(w)  # (N,)
    x = torch.arange(w, dtype=torch.float32).repeat(h)  # (N,)
    return y[:, None] - y[None, :], x[:, None] - x[None, :]
