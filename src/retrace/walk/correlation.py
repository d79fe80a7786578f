"""Local correlation volumes: every node of a target frame compared with a window of a reference frame (StT Eq. 4-5).

A volume is (B, h, w, K, K), K = 2 * radius + 1: entry [b, y, x, i, j] belongs to target node (y, x) and reference node
(y + i - radius, x + j - radius), |dy| and |dx| at most the radius (`neighborhood.square`). Reference nodes outside the
map do not exist: their entry is 0. So h * w * K^2 numbers stand for the (h * w)^2 of the dense matrix, most of them 0.

Scores are computed in tiles of target nodes: a tile and the part of the reference that its windows cover are one matrix
product, and the windows are a strided view into it. Nothing of the size of the dense matrix is ever made, neither
forward nor backward.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

TILE = 8  # rows and columns of a tile; larger ones compute more that no window holds, smaller ones multiply slower


def local_correlation(target: Tensor, reference: Tensor, radius: int, temperature: float = 1.0) -> Tensor:
    """Transition of each target node over its window: softmax of dot products / temperature (StT Eq. 4).

    Args:
        target: (B, C, h, w) float32 or float64.
        reference: (B, C, h, w) of the same dtype.
        radius: in cells, 0 or more.
        temperature: > 0.

    Returns: (B, h, w, K, K), each node's window sums to 1; once differentiable in both maps.

    Errors: ValueError for maps of other shapes or a negative radius.
    """
    _check(target, reference, radius)
    return pair_correlation(torch.stack([reference, target], dim=1), radius, temperature)


def pair_correlation(pair: Tensor, radius: int, temperature: float = 1.0) -> Tensor:
    """As `local_correlation`, of maps that lie in one tensor: nothing of their size is copied if channels come last.

    Args:
        pair: (B, 2, C, h, w) float32 or float64, reference and target.
        radius: in cells, 0 or more.
        temperature: > 0.

    Returns: (B, h, w, K, K); once differentiable.

    Errors: ValueError for another shape or a negative radius.
    """
    if pair.dim() != 5 or pair.shape[1] != 2:
        raise ValueError(f"maps of {tuple(pair.shape)}; expected (B, 2, C, h, w)")
    _check(pair[:, 1], pair[:, 0], radius)
    volume: Tensor = _LocalCorrelation.apply(pair, radius, temperature)  # type: ignore[no-untyped-call]
    return volume


@torch.no_grad()
def window_scores(target: Tensor, reference: Tensor, radius: int) -> Tensor:
    """Dot products of each target node with its window, without softmax and without gradient.

    Args and errors: as `local_correlation`.

    Returns: (B, h, w, K, K), 0 where the reference node does not exist.
    """
    _check(target, reference, radius)
    q, k = _nodes(target), _nodes(reference)
    volume = q.new_empty(*q.shape[:3], 2 * radius + 1, 2 * radius + 1)
    for band in _bands(q.shape[1]):
        _score(q, k, band, radius, outside=0.0, out=volume[:, band])
    return volume


def reconstruct(volume: Tensor, values: Tensor) -> Tensor:
    """Each target node as the mean of the reference's values over its window, weighted by a volume (StT Eq. 5).

    Args:
        volume: (B, h, w, K, K).
        values: (B, L, h, w) of the reference frame, such as a colour channel.

    Returns: (B, L, h, w); differentiable in both.
    """
    size = volume.shape[-1]
    around = F.pad(values, (size // 2,) * 4)  # (B, L, h + 2r, w + 2r)
    windows = around.unfold(2, size, 1).unfold(3, size, 1)  # (B, L, h, w, K, K), a view
    # One channel at a time: a product of all of them at once would be L volumes.
    return torch.stack([(volume * window).sum((-2, -1)) for window in windows.unbind(1)], dim=1)


def pool_volume(volume: Tensor, radius: int) -> Tensor:
    """Correlation down-sampling by 2: the mean over 2 x 2 target nodes and 2 x 2 reference nodes.

    What `F.avg_pool2d` by 2 over both sides of the dense matrix gives. Both means together divide by 16 where a row
    sums over four times fewer keys, so the rows of a transition sum to 1/4.

    Args:
        volume: (B, h, w, K, K) with even h and w.
        radius: of the result, in coarse cells; at least (K // 2 + 1) // 2, so that nothing is cut off.

    Returns: (B, h / 2, w / 2, 2 * radius + 1, 2 * radius + 1).

    Errors: ValueError for odd maps or too small a radius.
    """
    _, h, w, size, _ = volume.shape
    fine = size // 2
    if h % 2 or w % 2:
        raise ValueError(f"a map of {h} x {w} cells; expected even sizes, to be halved")
    if radius < (fine + 1) // 2:
        raise ValueError(f"radius {radius} of the halved map; expected at least {(fine + 1) // 2}")
    # Target row 2 I + a and reference row 2 J + b are dy = 2 (J - I) + b - a apart: the pairs of dy that are averaged
    # begin at an even offset for a = 0 and one earlier for a = 1.
    margin = 2 * radius - fine
    total = volume.new_zeros(())
    for a in (0, 1):
        for b in (0, 1):
            part = volume[:, a::2, b::2]  # (B, h / 2, w / 2, K, K)
            pads = (margin + b, margin + 1 - b, margin + a, margin + 1 - a)
            pooled = F.avg_pool2d(F.pad(part.flatten(1, 2), pads), 2)
            total = total + pooled.view(*part.shape[:3], *pooled.shape[-2:])
    return total / 4


class _LocalCorrelation(Function):
    """Softmax over windows, keeping the volume and the maps for the way back and nothing else."""

    @staticmethod
    def forward(ctx: Any, pair: Tensor, radius: int, temperature: float) -> Tensor:
        k, q = (_nodes(one) for one in pair.unbind(1))
        volume = q.new_empty(*q.shape[:3], 2 * radius + 1, 2 * radius + 1)
        for band in _bands(q.shape[1]):
            logits = torch.empty_like(volume[:, band])
            _score(q, k, band, radius, outside=-torch.inf, scale=1 / temperature, out=logits)
            volume[:, band] = logits.flatten(-2).softmax(-1).view_as(logits)
        ctx.save_for_backward(pair, volume)
        ctx.radius, ctx.temperature = radius, temperature
        return volume

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        pair, volume = ctx.saved_tensors
        radius: int = ctx.radius
        k, q = (_nodes(one) for one in pair.unbind(1))
        batch, h, w, channels = q.shape
        to_pair = q.new_zeros(batch, 2, h, w, channels)
        to_k, to_q = to_pair.unbind(1)
        for band in _bands(h):
            change = volume[:, band] * gradient[:, band]
            change -= volume[:, band] * change.sum((-2, -1), keepdim=True)  # of the softmax
            change /= ctx.temperature
            rows, above, below = _reach(band, radius, h)
            for columns in _bands(w):
                there, left, right = _reach(columns, radius, w)
                sizes = _length(band), _length(columns), _length(rows), _length(there)
                scores = q.new_zeros(batch, *sizes[:2], above + sizes[2] + below, left + sizes[3] + right)
                _windows(scores, radius).copy_(change[:, :, columns])
                scores = scores[..., above : above + sizes[2], left : left + sizes[3]]
                scores = scores.reshape(batch, sizes[0] * sizes[1], sizes[2] * sizes[3])  # (B, n, m)
                queries, keys = q[:, band, columns], k[:, rows, there]
                to_q[:, band, columns] = (scores @ keys.flatten(1, 2)).view(queries.shape)
                to_k[:, rows, there] += (scores.transpose(1, 2) @ queries.flatten(1, 2)).view(keys.shape)
        return to_pair.permute(0, 1, 4, 2, 3), None, None


def _score(
    q: Tensor, k: Tensor, band: slice, radius: int, *, outside: float, out: Tensor, scale: float = 1.0
) -> None:
    """Write the windows of a band of rows of q, times `scale`, into `out` (B, rows, w, K, K).

    `outside` stands where no node of k is.
    """
    _, h, w, _ = k.shape
    rows, above, below = _reach(band, radius, h)
    for columns in _bands(w):
        there, left, right = _reach(columns, radius, w)
        queries, keys = q[:, band, columns].flatten(1, 2), k[:, rows, there].flatten(1, 2)
        product = torch.baddbmm(q.new_zeros(()), queries, keys.transpose(1, 2), beta=0, alpha=scale)
        scores = product.view(len(q), *map(_length, (band, columns, rows, there)))
        if above or below or left or right:
            scores = F.pad(scores, (left, right, above, below), value=outside)
        out[:, :, columns] = _windows(scores, radius)


def _windows(scores: Tensor, radius: int) -> Tensor:
    """The windows in a tile's scores (B, rows, columns, key rows, key columns): a view (B, rows, columns, K, K).

    No two of its entries share a place.
    """
    batch, rows, columns, _, _ = scores.shape
    size = 2 * radius + 1
    b, qy, qx, ky, kx = scores.stride()
    return scores.as_strided((batch, rows, columns, size, size), (b, qy + ky, qx + kx, ky, kx))


def _bands(length: int) -> list[slice]:
    """Cover an axis with pieces of TILE."""
    return [slice(start, min(start + TILE, length)) for start in range(0, length, TILE)]


def _reach(piece: slice, radius: int, length: int) -> tuple[slice, int, int]:
    """What the windows of a piece of an axis cover of it, and how far they stand out before and behind it."""
    start, stop = piece.start - radius, piece.stop + radius
    return slice(max(start, 0), min(stop, length)), max(-start, 0), max(stop - length, 0)


def _length(piece: slice) -> int:
    length: int = piece.stop - piece.start
    return length


def _nodes(feature_map: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h, w, C) contiguous; free for channels-last maps."""
    return feature_map.permute(0, 2, 3, 1).contiguous()


def _check(target: Tensor, reference: Tensor, radius: int) -> None:
    if target.shape != reference.shape or target.dim() != 4:
        raise ValueError(
            f"maps of {tuple(target.shape)} and {tuple(reference.shape)}; expected twice the same (B, C, h, w)"
        )
    if radius < 0:
        raise ValueError(f"radius is {radius}; expected 0 or more cells")
