"""BADJA: joints of animals, right when they lie within a share of the animal's size.

Source: Biggs et al., "Creatures Great and SMAL", ACCV 2018 (PCK within 0.2 of the root of the mask's area), and the
released evaluation of PIPs, which scales every video to 320 x 512 first.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = (320, 512)
"""Height and width that PIPs scores in."""

SHARE = 0.2
"""Of the square root of the mask's area."""


def correct(
    prediction: NDArray[np.floating],
    truth: NDArray[np.floating],
    visible: NDArray[np.bool_],
    masks: NDArray[np.integer] | NDArray[np.bool_],
    *,
    size: tuple[int, int] | None = SIZE,
    share: float = SHARE,
) -> NDArray[np.bool_]:
    """Which of the visible joints of one video are near enough; their mean is the video's PCK.

    Args:
        prediction: (T, K, 2) x, y in pixels of the masks; NaN is wrong.
        truth: (T, K, 2) the same.
        visible: (T, K).
        masks: (T, H, W), not 0 on the animal.
        size: height, width that everything is scaled to first; None: as it is. It matters where the sides are not
            scaled alike.
        share: of the root of the mask's area (strictly below).

    Returns: (n,) one per visible joint outside frame 0; empty when there is none. A frame without mask has no right
        joint.

    Errors: ValueError when the lengths differ.
    """
    if not (len(prediction) == len(truth) == len(visible) == len(masks)):
        raise ValueError(
            f"{len(prediction)} frames predicted, {len(truth)} true, {len(visible)} with visibility and "
            f"{len(masks)} masks; expected as many of each"
        )
    lengths = np.array([length(mask, size=size) for mask in masks])
    return near(prediction, truth, visible, lengths, masks.shape[1:], size=size, share=share)


def length(mask: NDArray[np.integer] | NDArray[np.bool_], *, size: tuple[int, int] | None = SIZE) -> float:
    """Root of the area of a mask (H, W), not 0 on the animal, scaled to `size` (height, width) before it is counted."""
    there = (mask != 0).astype(np.uint8)
    if size is not None:
        there = np.asarray(
            cv2.resize(there, (size[1], size[0]), interpolation=cv2.INTER_NEAREST), dtype=np.uint8
        )
    return float(np.sqrt(np.count_nonzero(there)))


def near(
    prediction: NDArray[np.floating],
    truth: NDArray[np.floating],
    visible: NDArray[np.bool_],
    lengths: NDArray[np.floating],
    shape: tuple[int, ...],
    *,
    size: tuple[int, int] | None = SIZE,
    share: float = SHARE,
) -> NDArray[np.bool_]:
    """`correct`, from what `length` says of every mask, so that the masks need not be held together.

    Args:
        prediction: (T, K, 2) x, y in pixels of the masks; NaN is wrong.
        truth: (T, K, 2) the same.
        visible: (T, K).
        lengths: (T,) of `length` with the same `size`.
        shape: (H, W) of the masks.
        size: as in `correct`.
        share: as in `correct`.

    Returns: as `correct`.
    """
    scale = np.ones(2) if size is None else np.array([size[1] / shape[1], size[0] / shape[0]])
    distance = np.linalg.norm((prediction - truth) * scale, axis=-1)  # (T, K)
    right: NDArray[np.bool_] = distance < share * lengths[:, None]
    return right[1:][visible[1:].astype(np.bool_)]
