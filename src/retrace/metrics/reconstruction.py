"""How far a reconstructed frame is from the true one (TimeCycle, section 4.6)."""

import numpy as np
from numpy.typing import NDArray


def colour_distance(prediction: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """L1 distance of two pictures: absolute differences summed over red, green and blue, mean over pixels.

    The paper says "L1 distance in RGB space" and no more. Its errors of 60 to 98 fit levels of 0 to 255 with the
    channels summed; whether that is what it did is open.

    Args:
        prediction: (H, W, 3) levels, 0 to 255.
        truth: likewise.

    Returns: 0 to 765.

    Errors: ValueError when the shapes differ.
    """
    if prediction.shape != truth.shape or truth.ndim != 3:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape}; expected (H, W, 3) twice")
    difference = np.abs(prediction.astype(np.float64) - truth.astype(np.float64))
    return float(difference.sum(-1).mean())
