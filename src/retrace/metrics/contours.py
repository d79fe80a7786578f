"""Contour accuracy of masks (DAVIS's F): the share of boundary pixels that lie near the other boundary.

Source: Perazzi et al., CVPR 2016, and the released davis2017-evaluation. All that is divided are counts of pixels, so
equality with the official tool is equality to the last bit.
"""

import functools
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from retrace.metrics.regions import same_shape

Mask = NDArray[np.uint8]

TOLERANCE = 0.008
"""DAVIS's distance, as a share of the frame's diagonal."""


def boundary_map(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the boundary, one pixel wide: those that differ from the one right of, below, or right below them.

    In the last column only the pixel below counts, in the last row only the one on the right; the last pixel of
    all is never boundary.

    Args:
        mask: (H, W) bool.

    Returns: (H, W) bool.
    """
    found: NDArray[np.bool_] = _boundary(np.ascontiguousarray(mask).view(np.uint8)).view(np.bool_)
    return found


def tolerance_pixels(shape: tuple[int, ...], tolerance: float = TOLERANCE) -> int:
    """How many pixels a boundary may be off: `tolerance` of the diagonal, rounded up; from 1 on, `tolerance` itself.

    Args:
        shape: (H, W) of the frame.
        tolerance: below 1 a share of the diagonal, else pixels.
    """
    if tolerance >= 1:
        return int(tolerance)
    return int(np.ceil(tolerance * np.linalg.norm(shape)))


def f_measure(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    void: NDArray[np.bool_] | None = None,
    tolerance: float = TOLERANCE,
) -> float:
    """Harmonic mean of boundary precision and recall, DAVIS's F.

    A boundary pixel is right when a boundary pixel of the other mask lies within `tolerance_pixels` of it, as the crow
    flies. Works inside the box round both masks only.

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        void: (H, W) bool, pixels that are taken out of both masks first; None: none.
        tolerance: below 1 a share of the frame's diagonal, else pixels.

    Returns: in [0, 1]; 1 when neither mask has a boundary, 0 when one of them has none. A mask that fills the frame
        has no boundary.

    Errors: ValueError when the shapes differ.
    """
    same_shape(prediction, truth, void)
    if void is not None:
        prediction, truth = prediction & ~void, truth & ~void
    masks = [np.ascontiguousarray(mask, dtype=np.bool_).view(np.uint8) for mask in (prediction, truth)]
    window = union_window([cv2.boundingRect(mask) for mask in masks], prediction.shape)
    if window is None:
        return 1.0
    return f_inside(masks[0][window], masks[1][window], tolerance_pixels(truth.shape, tolerance))


def union_window(boxes: Sequence[Sequence[int]], shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """Rows and columns of the box round several boxes and one pixel more, which holds every boundary pixel.

    That pixel is background, so the rule for the last row and column of a frame may be applied to the window: it finds
    nothing there unless the window ends where the frame does.

    Args:
        boxes: left, top, width, height each; empty boxes (width 0) are left out.
        shape: (H, W) of the frame.

    Returns: slices, or None when all boxes are empty.
    """
    real = [box for box in boxes if box[2]]
    if not real:
        return None
    top = max(min(y for _, y, _, _ in real) - 1, 0)
    left = max(min(x for x, _, _, _ in real) - 1, 0)
    bottom = min(max(y + h for _, y, _, h in real) + 1, shape[0])
    right = min(max(x + w for x, _, w, _ in real) + 1, shape[1])
    return slice(top, bottom), slice(left, right)


def f_inside(prediction: Mask, truth: Mask, radius: int) -> float:
    """F of two masks that are cut to a window of `union_window`, 0 and 1 as uint8; `radius` in pixels."""
    own, other = _boundary(prediction), _boundary(truth)
    own_count, other_count = np.count_nonzero(own), np.count_nonzero(other)
    if own_count == 0 or other_count == 0:
        return float(own_count == other_count)
    precision = np.count_nonzero(own & _dilated(other, radius)) / own_count
    recall = np.count_nonzero(other & _dilated(own, radius)) / other_count
    if precision + recall == 0:
        return 0.0
    return float(2 * precision * recall / (precision + recall))


def _boundary(mask: Mask) -> Mask:
    """`boundary_map` of 0 and 1 as uint8."""
    found = np.zeros_like(mask)
    here = mask[:-1, :-1]
    found[:-1, :-1] = (here ^ mask[:-1, 1:]) | (here ^ mask[1:, :-1]) | (here ^ mask[1:, 1:])
    found[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    found[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return found


def _dilated(mask: Mask, radius: int) -> Mask:
    """1 at a distance <= radius of a 1."""
    return np.asarray(cv2.dilate(mask, _disc(radius)), dtype=np.uint8)


@functools.lru_cache(maxsize=16)
def _disc(radius: int) -> Mask:
    """(2 radius + 1, 2 radius + 1) uint8, 1 at a Euclidean distance <= radius of the middle."""
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc: Mask = (rows**2 + columns**2 <= radius**2).astype(np.uint8)
    disc.setflags(write=False)
    return disc
