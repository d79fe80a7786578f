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
    height, width = masks.shape[1:]
    scale = np.ones(2) if size is None else np.array([size[1] / width, size[0] / height])
    right = np.zeros(visible.shape, np.bool_)
    for frame in range(1, len(truth)):
        mask = (masks[frame] != 0).astype(np.uint8)
        if size is not None:
            mask = cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
        distance = np.linalg.norm((prediction[frame] - truth[frame]) * scale, axis=-1)
        right[frame] = distance < share * np.sqrt(np.count_nonzero(mask))
    return right[1:][visible[1:].astype(np.bool_)]
