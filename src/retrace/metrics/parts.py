"""Human parts: pooled mean IoU of classes, and the average precision of part instances (AP^r_vol).

Sources: Zhou et al., "Adaptive Temporal Encoding Network for Video Instance-level Human Parsing", ACM MM 2018 (VIP and
its evaluators), and the released code of CRW and VFS, which read the same masks.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrace.metrics.ratios import mean_of_numbers, share

CLASSES = 20
"""VIP's part classes, background (0) included."""

THRESHOLDS = tuple(np.arange(1, 10) / 10)
"""IoU thresholds of AP^r_vol."""

HUMAN_THRESHOLDS = tuple(np.arange(10, 20) / 20)
"""IoU thresholds of the average precision of whole humans."""


def confusion(
    prediction: NDArray[np.integer], truth: NDArray[np.integer], classes: int = CLASSES
) -> NDArray[np.int64]:
    """How often each class of the truth was given each class. Add the matrices of all frames before any ratio is taken.

    Args:
        prediction: (H, W) classes; of another size it is resized to the truth by nearest neighbour (half-pixel
            centres), as the released evaluators do.
        truth: (H, W) classes; pixels >= classes (255) are ignored.
        classes: C.

    Returns: (C, C), rows are the truth.

    Errors: ValueError where a counted pixel is predicted outside 0 .. C-1, for the official tools would book it as
        another class.
    """
    if prediction.shape != truth.shape:
        rows, columns = (
            ((np.arange(out) + 0.5) * (size / out)).astype(np.int64).clip(0, size - 1)
            for out, size in zip(truth.shape, prediction.shape, strict=True)
        )
        prediction = prediction[rows[:, None], columns]
    counted = (truth >= 0) & (truth < classes)
    own = prediction[counted].astype(np.int64)
    if own.size and (own.min() < 0 or own.max() >= classes):
        wrong = own.min() if own.min() < 0 else own.max()
        raise ValueError(f"the prediction holds class {wrong}; expected 0 to {classes - 1}")
    cells = np.bincount(classes * truth[counted].astype(np.int64) + own, minlength=classes * classes)
    return cells.reshape(classes, classes)


class ClassScores(NamedTuple):
    """What a confusion matrix says."""

    iou: NDArray[np.float64]
    """(C,) NaN for a class that neither truth nor prediction holds."""
    accuracy: NDArray[np.float64]
    """(C,) share of the class's true pixels that are right; NaN for a class that the truth does not hold."""
    mean_iou: float
    """Over the classes that occur; a class that is predicted only counts 0."""
    mean_accuracy: float
    """Over the classes that the truth holds."""
    overall_accuracy: float
    """Share of right pixels."""
    frequency_weighted_iou: float
    """Weighted by the class's share of the true pixels."""


def class_scores(matrix: NDArray[np.integer]) -> ClassScores:
    """IoU and accuracy from a pooled confusion matrix.

    Args:
        matrix: (C, C), rows are the truth, from `confusion`.

    Returns: fractions; all NaN for an empty matrix.
    """
    table = np.asarray(matrix, dtype=np.float64)
    right, true, given = np.diag(table), table.sum(1), table.sum(0)
    union = true + given - right
    iou, accuracy = share(right, union), share(right, true)
    there = true > 0
    weighted = (true / table.sum())[there] * iou[there] if there.any() else np.array([np.nan])
    return ClassScores(
        iou,
        accuracy,
        mean_of_numbers(iou),
        mean_of_numbers(accuracy),
        float(share(right.sum(), table.sum())),
        float(weighted.sum()),
    )


class PartFrame(NamedTuple):
    """Instances of one frame: the truth's or a prediction's."""

    ids: NDArray[np.integer]
    """(H, W) instance of every pixel, 0 = none."""
    table: NDArray[np.integer]
    """(m, 2) id and class of every instance. An id without pixels is an instance all the same."""
    scores: NDArray[np.floating] | None = None
    """(m,) confidence, predictions only; None: all alike."""


class Matches(NamedTuple):
    """What one frame contributes to the average precision of one class."""

    overlap: tuple[float, ...]
    """Best IoU of every predicted instance with a true one of its class; 0 without any."""
    score: tuple[float, ...]
    """Its confidence."""
    true: int
    """True instances."""


def match_instances(prediction: PartFrame, truth: PartFrame, classes: Sequence[int]) -> dict[int, Matches]:
    """Predicted instances of one frame against its true ones, class by class.

    Errors: ValueError when the sizes differ or the scores are not one per instance.
    """
    if prediction.ids.shape != truth.ids.shape:
        raise ValueError(
            f"prediction {prediction.ids.shape} and truth {truth.ids.shape}; expected equal shapes"
        )
    count = len(prediction.table)
    scores = np.ones(count) if prediction.scores is None else np.asarray(prediction.scores)
    if len(scores) != count:
        raise ValueError(f"{len(scores)} scores for {count} instances; expected one each")
    iou = _instance_iou(prediction, truth)
    found = {}
    for number in classes:
        rows, columns = prediction.table[:, 1] == number, truth.table[:, 1] == number
        best = iou[rows][:, columns].max(1, initial=0.0)
        found[number] = Matches(
            tuple(best.tolist()), tuple(scores[rows].tolist()), int(np.count_nonzero(columns))
        )
    return found


def average_precision(
    predictions: Iterable[PartFrame],
    truths: Iterable[PartFrame],
    classes: Sequence[int] = tuple(range(1, CLASSES)),
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    official: bool = False,
) -> NDArray[np.float64]:
    """Average precision of instances, per class and IoU threshold; the mean of all is AP^r_vol.

    Predictions of a class are ranked over all frames by score, the later one first among equals (the official tool
    reverses an ascending sort). A prediction is right when its best IoU with an instance of its class in its frame is
    above the threshold, strictly. Several predictions may be right by the same instance, so that recall may pass 1. The
    result is the area under precision made monotone. Whole humans are instances of one class
    (`classes=(1,)`, `HUMAN_THRESHOLDS`).

    Args:
        predictions: per frame.
        truths: per frame, in the same order.
        classes: which; rows of the result.
        thresholds: columns of the result.
        official: a class that is predicted but that the truth never holds is NaN, which makes the official total NaN;
            else it is 0.

    Returns: (classes, thresholds), 0 to 1; 0 for a class that neither holds, and for one that is never predicted.

    Errors: ValueError for series of different lengths, and as `match_instances`.
    """
    frames = [match_instances(own, other, classes) for own, other in zip(predictions, truths, strict=True)]
    return precision_of_matches(frames, classes, thresholds, official=official)


def precision_of_matches(
    frames: Sequence[Mapping[int, Matches]],
    classes: Sequence[int] = tuple(range(1, CLASSES)),
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    official: bool = False,
) -> NDArray[np.float64]:
    """`average_precision` from what `match_instances` gave for every frame."""
    result = np.zeros((len(classes), len(thresholds)))
    for row, number in enumerate(classes):
        overlap = np.array([value for frame in frames for value in frame[number].overlap])
        score = np.array([value for frame in frames for value in frame[number].score])
        true = sum(frame[number].true for frame in frames)
        if not len(overlap):
            continue
        if not true:
            result[row] = np.nan if official else 0.0
            continue
        ranked = overlap[np.argsort(score, kind="stable")[::-1]]
        for column, threshold in enumerate(thresholds):
            result[row, column] = _area(ranked > threshold, true)
    return result


def _instance_iou(own: PartFrame, other: PartFrame) -> NDArray[np.float64]:
    """(predicted, true) IoU of the instances of one frame, from one pass over the pixels."""
    ids = [np.unique(frame.ids, return_inverse=True) for frame in (own, other)]
    (own_ids, own_places), (other_ids, other_places) = ids
    shared = np.bincount(
        own_places.ravel() * len(other_ids) + other_places.ravel(), minlength=len(own_ids) * len(other_ids)
    ).reshape(len(own_ids), len(other_ids))
    rows, columns = (
        {int(number): place for place, number in enumerate(held)} for held in (own_ids, other_ids)
    )
    sizes = shared.sum(1), shared.sum(0)
    iou = np.zeros((len(own.table), len(other.table)))
    for i, predicted in enumerate(own.table[:, 0]):
        for j, true in enumerate(other.table[:, 0]):
            a, b = rows.get(int(predicted)), columns.get(int(true))
            if a is not None and b is not None and own.table[i, 1] == other.table[j, 1]:
                both = shared[a, b]
                iou[i, j] = both / (sizes[0][a] + sizes[1][b] - both)
    return iou


def _area(right: NDArray[np.bool_], true: int) -> float:
    """Area under precision made monotone, over recall; `right` by falling score."""
    hits = np.cumsum(right)
    recall = np.concatenate([[0.0], hits / true, [1.0]])
    precision = np.concatenate([[0.0], hits / np.arange(1, len(right) + 1), [0.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(np.sum((recall[steps + 1] - recall[steps]) * precision[steps + 1]))
