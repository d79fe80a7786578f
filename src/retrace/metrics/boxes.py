"""Boxes: success and precision of OTB, as got10k's toolkit and the two pysot toolkits count them.

Sources: Wu et al., "Online Object Tracking: A Benchmark", CVPR 2013; the released got10k toolkit
(ExperimentOTB, what VFS reports) and pysot toolkits. A box is left, top, width, height in pixels.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating]

OVERLAPS = np.linspace(0, 1, 21)
"""Thresholds of the success curve; a frame succeeds with an IoU strictly above."""

DISTANCES = np.arange(51)
"""Thresholds of the precision curve, pixels; a frame is precise at a distance of at most that."""

NORMALISED_DISTANCES = np.arange(51) / 100
"""Thresholds of the normalised precision curve, shares of the true box's sides."""


def iou(boxes: Boxes, others: Boxes) -> NDArray[np.float64]:
    """Intersection over union, row by row.

    Args:
        boxes: (T, 4) left, top, width, height.
        others: (T, 4).

    Returns: (T,) in [0, 1], of the areas as they are: continuous, no pixel added. A box without area has 0, a box
        that holds NaN has NaN.
    """
    both, union = _areas(boxes, others)
    with np.errstate(invalid="ignore"):
        # got10k adds this to every union, so it is part of the number.
        return np.asarray(np.clip(both / (union + np.finfo(np.float64).eps), 0.0, 1.0), dtype=np.float64)


def centres(boxes: Boxes) -> NDArray[np.float64]:
    """(T, 2) x, y of the middle pixel: left + (width - 1) / 2, as all three toolkits have it."""
    return np.asarray(boxes[:, :2] + (boxes[:, 2:] - 1) / 2, dtype=np.float64)


def centre_error(boxes: Boxes, others: Boxes) -> NDArray[np.float64]:
    """(T,) distance of the centres, pixels; NaN where a box holds NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.linalg.norm(centres(boxes) - centres(others), axis=1), dtype=np.float64)


def normalised_centre_error(boxes: Boxes, truth: Boxes) -> NDArray[np.float64]:
    """(T,) distance of the centres in units of the true sides, each at least one pixel (got10k)."""
    with np.errstate(invalid="ignore", over="ignore"):
        sides = np.maximum(1.0, truth[:, 2:])
        off = (centres(boxes) - centres(truth)) / sides
        return np.asarray(np.linalg.norm(off, axis=1), dtype=np.float64)


class TrackingScores(NamedTuple):
    """Curves of one video; average the curves over videos, then read the numbers off with `headline`."""

    success: NDArray[np.float64]
    """(21,) share of frames with IoU > each of `OVERLAPS`."""
    precision: NDArray[np.float64]
    """(51,) share of frames with a centre error <= each of `DISTANCES`."""
    normalised_precision: NDArray[np.float64]
    """(51,) share of frames with a normalised centre error <= each of `NORMALISED_DISTANCES`."""


class Headline(NamedTuple):
    """What is printed."""

    success: float
    """Mean of the success curve. A perfect tracker has 20/21, since no IoU is above 1."""
    precision: float
    """At 20 pixels."""
    normalised_precision: float
    """At 0.20."""
    success_rate: float
    """At an IoU above 0.5."""


def as_written(boxes: Boxes, truth: Boxes) -> NDArray[np.float64]:
    """What got10k's toolkit scores: boxes as its text files hold them, 3 decimals, the first replaced by the truth.

    Args:
        boxes: (T, 4) predicted.
        truth: (T, 4).

    Returns: (T, 4), new.
    """
    written = np.array([[float(f"{value:.3f}") for value in box] for box in boxes]).reshape(-1, 4)
    written[:1] = truth[:1]
    return written


def otb_got10k(boxes: Boxes, truth: Boxes) -> TrackingScores:
    """Curves of one video as got10k's ExperimentOTB has them; frame 0 is set to the truth and counted.

    Args:
        boxes: (T, 4) predicted, frame 0 included; NaN is a miss.
        truth: (T, 4).

    Errors: ValueError when the lengths differ.
    """
    _same_length(boxes, truth)
    scored = as_written(boxes, truth)
    return TrackingScores(
        (iou(scored, truth)[:, None] > OVERLAPS).mean(0),
        (centre_error(scored, truth)[:, None] <= DISTANCES).mean(0),
        (normalised_centre_error(scored, truth)[:, None] <= NORMALISED_DISTANCES).mean(0),
    )


def otb_pysot(
    boxes: Boxes, truth: Boxes, toolkit: Literal["pysot-toolkit", "stvir"] = "pysot-toolkit"
) -> TrackingScores:
    """Curves of one video as the pysot toolkits have them, on boxes as they are.

    A frame whose truth is not valid fails at every overlap; one whose true centre is not positive passes at every
    distance (both toolkits keep -1 there).

    Args:
        boxes: (T, 4) predicted, frame 0 included; NaN is a miss.
        truth: (T, 4).
        toolkit: which truth is valid for success: all four numbers > 0 ("pysot-toolkit"), or width and height
            ("stvir").

    Errors: ValueError when the lengths differ.
    """
    _same_length(boxes, truth)
    valid = (truth > 0).all(1) if toolkit == "pysot-toolkit" else (truth[:, 2:] > 0).all(1)
    both, union = _areas(boxes, truth)
    with np.errstate(invalid="ignore", divide="ignore"):
        overlap = np.where(valid, np.clip(both / union, 0.0, 1.0), -1.0)  # without got10k's epsilon
    own, other = centres(boxes), centres(truth)
    # thresholds as that toolkit makes them, 0.15000000000000002 and all
    success = (overlap[:, None] > np.arange(0, 1.05, 0.05)).mean(0)
    curves = []
    for sides, thresholds in (
        (np.ones_like(truth[:, 2:]), DISTANCES),
        (truth[:, 2:] + 1e-16, NORMALISED_DISTANCES),
    ):
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            a, b = own / sides, other / sides
            error = np.where((b > 0).all(1), np.sqrt(np.square(b - a).sum(1)), -1.0)
        curves.append((error[:, None] <= thresholds).mean(0))
    return TrackingScores(success, *curves)


def mean_curves(videos: Sequence[TrackingScores]) -> TrackingScores:
    """Curves averaged over videos, each counting once."""
    return TrackingScores(*(np.mean(curves, axis=0) for curves in zip(*videos, strict=True)))


def headline(scores: TrackingScores) -> Headline:
    """The numbers of a curve, or of averaged curves."""
    return Headline(
        float(scores.success.mean()),
        float(scores.precision[20]),
        float(scores.normalised_precision[20]),
        float(scores.success[10]),
    )


def _areas(boxes: Boxes, others: Boxes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(T,) intersection and union; inf - inf in a tracker's output is NaN and scores as such."""
    with np.errstate(invalid="ignore", over="ignore"):
        low = np.maximum(boxes[:, :2], others[:, :2])
        high = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
        both = np.maximum(high - low, 0).prod(1)
        return both, boxes[:, 2:].prod(1) + others[:, 2:].prod(1) - both


def _same_length(boxes: Boxes, truth: Boxes) -> None:
    if boxes.shape != truth.shape or truth.ndim != 2 or truth.shape[1] != 4:
        raise ValueError(f"boxes {boxes.shape} and truth {truth.shape}; expected (T, 4) twice")
