"""Face landmarks (300VW): errors normalised by the distance of the eyes, AUC, and the readings of "RMSE".

Sources: Shen et al., "The First Facial Landmark Tracking in-the-Wild Challenge", ICCV workshops 2015; the released
evaluation of supervision-by-registration (the same formula as the 300-W script). Published "RMSE" on 300VW does not say
its unit; `rmse_readings` gives what it may mean.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OUTER_EYES = (36, 45)
"""Outer corners of the eyes among the 68 points, from 0."""

LEFT_EYE, RIGHT_EYE = tuple(range(36, 42)), tuple(range(42, 48))
"""Points round each eye, from 0; their means are the pupils of "interpupil"."""

INNER_49 = tuple(k for k in range(17, 68) if k not in (60, 64))
"""The 49 points inside the face, from 0: without the jaw and the inner corners of the mouth."""


INTERVALS = 2000
"""Thresholds, 0 and the limit included, that the area under the error curve is taken over."""


def frame_errors(
    prediction: NDArray[np.floating],
    truth: NDArray[np.floating],
    visible: NDArray[np.bool_] | None = None,
    points: Sequence[int] | None = None,
) -> NDArray[np.float64]:
    """Mean distance of the points of each frame, over the distance of the outer eye corners.

    Args:
        prediction: (T, 68, 2) x, y in pixels.
        truth: (T, 68, 2).
        visible: (T, 68), the mean is over visible points; None: all are.
        points: which of the 68 (`INNER_49`); None: all.

    Returns: (T,) fractions; NaN for a frame without a visible point, not finite where the eyes coincide.

    Errors: ValueError when the shapes differ or are not of 68 points.
    """
    _check(prediction, truth)
    distance = np.linalg.norm(prediction - truth, axis=-1)  # (T, 68)
    counted = np.ones(distance.shape, np.bool_) if visible is None else visible.astype(np.bool_)
    if points is not None:
        distance, counted = distance[:, list(points)], counted[:, list(points)]
    number = counted.sum(1)
    total = np.where(counted, distance, 0).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(number > 0, total / number, np.nan) / eye_distance(truth)


class LandmarkScores(NamedTuple):
    """Of all frames of all videos, each frame counting once."""

    nme: float
    """Normalised mean error: the mean of `frame_errors`, a fraction."""
    auc: float
    """Area under the curve "share of frames with an error < x" from 0 to the limit, over the limit: 0 to 1."""
    accuracy: float
    """Share of frames with an error < limit. One minus this is the failure rate."""


def landmark_scores(errors: NDArray[np.floating], limit: float = 0.08) -> LandmarkScores:
    """Mean error, AUC and accuracy.

    Args:
        errors: (n,) `frame_errors`; NaN frames are left out.
        limit: fraction; published as AUC@0.08.

    Returns: fractions; all NaN without a frame.
    """
    known = errors[~np.isnan(errors)]
    if not len(known):
        return LandmarkScores(np.nan, np.nan, np.nan)
    curve = error_curve(known, limit)
    area = float(np.sum((curve[1:, 0] - curve[:-1, 0]) * (curve[1:, 1] + curve[:-1, 1])) / 2)
    return LandmarkScores(float(known.mean()), area / limit, float((known < limit).mean()))


def error_curve(
    errors: NDArray[np.floating], limit: float, thresholds: int = INTERVALS
) -> NDArray[np.float64]:
    """Share of frames with an error strictly below each of evenly spaced thresholds.

    Args:
        errors: (n,) fractions.
        limit: largest threshold.
        thresholds: how many, 0 and the limit included.

    Returns: (thresholds, 2) threshold and share.
    """
    x = np.linspace(0, limit, thresholds)
    below = np.searchsorted(np.sort(errors), x, side="left")
    return np.stack([x, below / len(errors)], axis=1)


def pooled_error(
    prediction: NDArray[np.floating],
    truth: NDArray[np.floating],
    visible: NDArray[np.bool_] | None = None,
    boxes: NDArray[np.floating] | None = None,
) -> float:
    """Mean normalised distance as mmpose takes it: all visible points of all frames in one pool, in float32.

    Args:
        prediction: (T, 68, 2) pixels.
        truth: (T, 68, 2) pixels.
        visible: (T, 68); None: all are.
        boxes: (T, 4) left, top, right, bottom; given, the unit is their longer side, else the outer eye corners.

    Returns: fraction; NaN when nothing is visible.
    """
    _check(prediction, truth)
    unit = eye_distance(truth) if boxes is None else (boxes[:, 2:] - boxes[:, :2]).max(1)
    difference = prediction.astype(np.float32) - truth.astype(np.float32)
    distance = np.linalg.norm(difference / unit.astype(np.float32)[:, None, None], axis=-1)
    pool = distance if visible is None else distance[visible.astype(np.bool_)]
    return float(pool.mean()) if pool.size else np.nan


def rmse_readings(prediction: NDArray[np.floating], truth: NDArray[np.floating]) -> dict[str, float]:
    """What a published "RMSE" on 300VW may mean; no source settles it, so a report shows them all.

    Args:
        prediction: (T, 68, 2) pixels.
        truth: (T, 68, 2) pixels.

    Returns: name -> value: percent of a distance in the face, or pixels.
    """
    _check(prediction, truth)
    distance = np.linalg.norm(prediction - truth, axis=-1)  # (T, 68)
    eyes = eye_distance(truth)[:, None]
    pupils = np.linalg.norm(
        truth[:, list(LEFT_EYE)].mean(1) - truth[:, list(RIGHT_EYE)].mean(1), axis=-1, keepdims=True
    )
    diagonal = np.linalg.norm(np.ptp(truth, axis=1), axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "percent_outer_eyes_mean": float(100 * (distance / eyes).mean()),
            "percent_outer_eyes_frame_rms": float(100 * (np.sqrt((distance**2).mean(1)) / eyes[:, 0]).mean()),
            "percent_outer_eyes_rms": float(100 * np.sqrt(((distance / eyes) ** 2).mean())),
            "percent_pupils_mean": float(100 * (distance / pupils).mean()),
            "percent_box_diagonal_mean": float(100 * (distance / diagonal).mean()),
            "pixels_mean": float(distance.mean()),
            "pixels_rms": float(np.sqrt((distance**2).mean())),
        }


def eye_distance(truth: NDArray[np.floating]) -> NDArray[np.float64]:
    """(T,) distance of the outer eye corners, pixels."""
    first, second = OUTER_EYES
    return np.asarray(np.linalg.norm(truth[:, first] - truth[:, second], axis=-1), dtype=np.float64)


def _check(prediction: NDArray[np.floating], truth: NDArray[np.floating]) -> None:
    if prediction.shape != truth.shape or truth.shape[1:] != (68, 2):
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape}; expected (T, 68, 2) twice")
