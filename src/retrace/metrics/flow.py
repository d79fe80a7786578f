"""Optical flow: end-point and angular error and outliers, as KITTI, Sintel and Middlebury are scored.

Sources: RAFT's released validation for KITTI and Sintel; Barron, Fleet, Beauchemin, "Performance of Optical Flow
Techniques", IJCV 1994, and Baker et al., IJCV 2011, for the angular error.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OUTLIER_PIXELS, OUTLIER_SHARE = 3.0, 0.05
"""A KITTI outlier is off by more than 3 pixels and by more than 5 % of the true length."""

SINTEL_PIXELS = (1, 3, 5)
"""Shares of pixels with an error below these are reported on Sintel."""
SINTEL_SPEEDS = (0.0, 10.0, 40.0, np.inf)
"""Sintel's s0-10, s10-40 and s40+: errors of pixels by their true length, lower end included."""


class FlowErrors(NamedTuple):
    """The counted pixels of one frame."""

    epe: NDArray[np.floating]
    """(n,) end-point error, pixels."""
    outlier: NDArray[np.bool_]
    """(n,) by KITTI's rule."""


class Tally(NamedTuple):
    """What the numbers of a data set need of one frame; plain numbers."""

    pixels: int
    """Counted."""
    mean: float
    """Of their end-point errors, in the precision of the input; NaN without pixels."""
    total: float
    """Sum of their end-point errors."""
    outliers: int
    """By KITTI's rule."""
    over: int
    """Errors above 3 pixels, whatever the length (KITTI 2012)."""
    below: tuple[int, ...]
    """Errors below 1, 3 and 5 pixels."""


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
    counted = _counted(prediction, truth, valid)
    epe = np.sqrt(np.square(prediction - truth).sum(0))[counted]
    length = np.sqrt(np.square(truth).sum(0))[counted]
    return FlowErrors(epe, (epe > OUTLIER_PIXELS) & (epe > OUTLIER_SHARE * length))


def angles(
    prediction: NDArray[np.floating], truth: NDArray[np.floating], valid: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Angular errors (n,) in degrees, 0 to 180: between (u, v, 1) as predicted and as true, at the pixels that count.

    Args:
        prediction: (2, H, W) u, v in pixels.
        truth: (2, H, W).
        valid: (H, W), pixels that count; None: all.

    Errors: ValueError when the shapes differ.
    """
    counted = _counted(prediction, truth, valid)
    (u, v), (x, y) = (field[:, counted].astype(np.float64) for field in (prediction, truth))
    # the arc tangent of |a x b| / a.b keeps small angles, which the arc cosine of a cosine near 1 loses
    across = np.sqrt((v - y) ** 2 + (x - u) ** 2 + (u * y - v * x) ** 2)
    return np.asarray(np.degrees(np.arctan2(across, u * x + v * y + 1)), dtype=np.float64)


def tally(frame: FlowErrors) -> Tally:
    """The errors of a frame, counted and summed."""
    epe = frame.epe
    return Tally(
        int(epe.size),
        float(epe.mean()) if epe.size else float("nan"),
        float(epe.sum(dtype=np.float64)),
        int(frame.outlier.sum()),
        int((epe > OUTLIER_PIXELS).sum()),
        tuple(int((epe < limit).sum()) for limit in SINTEL_PIXELS),
    )


def kitti(frames: Sequence[Tally]) -> dict[str, float]:
    """KITTI's numbers: EPE (pixels) is the mean of the frames' means; pixels of all frames are pooled for the shares.

    Returns: "epe"; "fl_all", the outliers of KITTI 2015, and "over_3px", those of KITTI 2012, 0 to 1. Frames without
        a valid pixel are left out; NaN when none is left.
    """
    there = [frame for frame in frames if frame.pixels]
    if not there:
        return {"epe": np.nan, "fl_all": np.nan, "over_3px": np.nan}
    pixels = sum(frame.pixels for frame in there)
    return {
        "epe": float(np.mean([frame.mean for frame in there])),
        "fl_all": sum(frame.outliers for frame in there) / pixels,
        "over_3px": sum(frame.over for frame in there) / pixels,
    }


def sintel(frames: Sequence[Tally]) -> dict[str, float]:
    """Sintel's numbers: EPE (pixels) over the pixels of all frames, and the shares of pixels below 1, 3 and 5 pixels.

    NaN when no frame has a pixel.
    """
    pixels = sum(frame.pixels for frame in frames)
    if not pixels:
        return {"epe": np.nan, **{f"below_{limit}px": np.nan for limit in SINTEL_PIXELS}}
    result = {"epe": sum(frame.total for frame in frames) / pixels}
    for k, limit in enumerate(SINTEL_PIXELS):
        result[f"below_{limit}px"] = sum(frame.below[k] for frame in frames) / pixels
    return result


def _counted(
    prediction: NDArray[np.floating], truth: NDArray[np.floating], valid: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    if prediction.shape != truth.shape or truth.shape[0] != 2:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape}; expected (2, H, W) twice")
    return np.ones(truth.shape[1:], np.bool_) if valid is None else valid.astype(np.bool_)
