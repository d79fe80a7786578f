"""Optical flow: end-point error and outliers, as KITTI and Sintel are scored (RAFT's released validation)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OUTLIER_PIXELS, OUTLIER_SHARE = 3.0, 0.05
"""A KITTI outlier is off by more than 3 pixels and by more than 5 % of the true length."""

SINTEL_PIXELS = (1, 3, 5)
"""Shares of pixels with an error below these are reported on Sintel."""


class FlowErrors(NamedTuple):
    """The counted pixels of one frame."""

    epe: NDArray[np.floating]
    """(n,) end-point error, pixels."""
    outlier: NDArray[np.bool_]
    """(n,) by KITTI's rule."""


def errors(
    prediction: NDArray[np.floating], truth: NDArray[np.floating], valid: NDArray[np.bool_] | None = None
) -> FlowErrors:
    """End-point errors of one frame.

    Args:
        prediction: (2, H, W) u, v in pixels.
        truth: (2, H, W).
        valid: (H, W), pixels that count; None: all.

    Returns: of the valid pixels, row by row, in the precision of the input. A true length of 0 makes every error
        above 3 pixels an outlier.

    Errors: ValueError when the shapes differ.
    """
    if prediction.shape != truth.shape or truth.shape[0] != 2:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape}; expected (2, H, W) twice")
    counted = np.ones(truth.shape[1:], np.bool_) if valid is None else valid.astype(np.bool_)
    epe = np.sqrt(np.square(prediction - truth).sum(0))[counted]
    length = np.sqrt(np.square(truth).sum(0))[counted]
    return FlowErrors(epe, (epe > OUTLIER_PIXELS) & (epe > OUTLIER_SHARE * length))


def kitti(frames: list[FlowErrors]) -> dict[str, float]:
    """KITTI's numbers: EPE (pixels) is the mean of the frames' means, Fl-all (0 to 1) pools the pixels of all frames.

    Frames without a valid pixel are left out; NaN when none is left.
    """
    there = [frame for frame in frames if frame.epe.size]
    if not there:
        return {"epe": np.nan, "fl_all": np.nan}
    outliers, pixels = (
        sum(int(frame.outlier.sum()) for frame in there),
        sum(frame.epe.size for frame in there),
    )
    return {"epe": float(np.mean([frame.epe.mean() for frame in there])), "fl_all": outliers / pixels}


def sintel(frames: list[FlowErrors]) -> dict[str, float]:
    """Sintel's numbers: EPE (pixels) over the pixels of all frames, and the shares of pixels below 1, 3 and 5 pixels.

    NaN when no frame has a pixel.
    """
    pixels = sum(frame.epe.size for frame in frames)
    if not pixels:
        return {"epe": np.nan, **{f"below_{limit}px": np.nan for limit in SINTEL_PIXELS}}
    result = {"epe": sum(float(frame.epe.sum(dtype=np.float64)) for frame in frames) / pixels}
    for limit in SINTEL_PIXELS:
        result[f"below_{limit}px"] = sum(int((frame.epe < limit).sum()) for frame in frames) / pixels
    return result
