"""Keypoints: the share that lies near enough."""

import numpy as np
from numpy.typing import NDArray


def correct(
    prediction: NDArray[np.floating],
    truth: NDArray[np.floating],
    visible: NDArray[np.bool_],
    alpha: float,
    scale: NDArray[np.floating],
) -> NDArray[np.bool_]:
    """Which of the visible keypoints lie within `alpha * scale`; average them for PCK@alpha.

    Args:
        prediction: (T, K, 2) x, y in pixels; NaN where not found, which is wrong.
        truth: (T, K, 2) x, y in pixels.
        visible: (T, K), from the truth.
        alpha: share of the scale.
        scale: (T,) pixels, the size of the object in each frame.

    Returns: (n,) bool, one entry per visible keypoint; empty when none is visible.
    """
    distance = np.linalg.norm(prediction - truth, axis=-1)  # (T, K), NaN where not found
    right: NDArray[np.bool_] = distance <= alpha * scale[:, None]
    return right[visible]


def longer_box_side(points: NDArray[np.floating], visible: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Longer side of the box round the visible keypoints of every frame.

    Args:
        points: (T, K, 2) x, y in pixels.
        visible: (T, K).

    Returns: (T,) pixels; 0 where fewer than two keypoints are visible.
    """
    sides = np.zeros(len(points))
    for frame, (places, seen) in enumerate(zip(points, visible, strict=True)):
        if np.count_nonzero(seen) > 1:
            sides[frame] = np.ptp(places[seen], axis=0).max()
    return sides
