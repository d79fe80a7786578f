"""Region similarity of masks."""

import numpy as np
from numpy.typing import NDArray


def jaccard(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks, DAVIS's J.

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.

    Returns: in [0, 1]; 1 when both masks are empty.

    Errors: ValueError when the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape}; expected equal shapes")
    union = np.count_nonzero(prediction | truth)
    if union == 0:
        return 1.0
    return float(np.count_nonzero(prediction & truth) / union)


def sequence_mean(per_frame: NDArray[np.float64]) -> float:
    """Mean over the frames that DAVIS scores: all but the first and the last.

    Args:
        per_frame: (T,) one value per frame, T >= 3.

    Errors: ValueError for fewer than three frames: nothing would be scored.
    """
    if len(per_frame) < 3:
        raise ValueError(
            f"{len(per_frame)} frames; expected at least 3, the first and the last are not scored"
        )
    return float(np.mean(per_frame[1:-1]))
