"""J and F of a video, as DAVIS-2017, DAVIS-2016 and vos-benchmark count objects and frames.

Label maps in, frame by frame, numbers out: a video may be any length, no more than a few frames are held. Equal to the
released davis2017-evaluation, davis (2016) and vos-benchmark to the last bit (tests/reference).
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from retrace.metrics.contours import TOLERANCE, f_inside, tolerance_pixels, union_window
from retrace.metrics.regions import same_shape, statistics

Labels = NDArray[np.integer]
VOID = 255
"""Truth that is neither object nor background. DAVIS's semi-supervised task counts it as background."""

GLOBAL_NAMES = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
"""The columns of the official global table."""


class SequenceScores(NamedTuple):
    """Per object and scored frame."""

    objects: tuple[int, ...]
    """Ids, in the order of the rows."""
    j: NDArray[np.float64]
    """(objects, frames) region similarity, 0 to 1."""
    f: NDArray[np.float64]
    """(objects, frames) contour accuracy, 0 to 1."""


def object_ids(first: Labels) -> tuple[int, ...]:
    """The objects that DAVIS-2017 scores: 1 to the largest id in the truth of frame 0, gaps included.

    Args:
        first: (H, W) truth of frame 0; 255 is no object.
    """
    largest = int(np.where(first == VOID, 0, first).max(initial=0))
    return tuple(range(1, largest + 1))


def frame_scores(
    prediction: Labels,
    truth: Labels,
    objects: Sequence[int],
    *,
    tolerance: float = TOLERANCE,
) -> NDArray[np.float64]:
    """J and F of every object in one frame.

    Args:
        prediction: (H, W) ids.
        truth: (H, W) ids; 255 counts as background unless `objects` names it.
        objects: ids to score; an id that neither map holds scores 1 and 1, one that a single map holds 0 and 0.
        tolerance: of the contours, see `contours.f_measure`.

    Returns: (objects, 2) J and F.

    Errors: ValueError when the sizes differ.
    """
    same_shape(prediction, truth)
    radius = tolerance_pixels(truth.shape, tolerance)
    scores = np.ones((len(objects), 2))
    for row, number in enumerate(objects):
        masks = [(labels == number).view(np.uint8) for labels in (prediction, truth)]
        window = union_window([cv2.boundingRect(mask) for mask in masks], truth.shape)
        if window is None:
            continue  # both empty
        own, other = masks[0][window], masks[1][window]
        scores[row, 0] = np.count_nonzero(own & other) / np.count_nonzero(own | other)
        scores[row, 1] = f_inside(own, other, radius)
    return scores


def davis2017(
    predictions: Iterable[Labels],
    truths: Iterable[Labels],
    *,
    unknown: Literal["refuse", "ignore"] = "refuse",
    tolerance: float = TOLERANCE,
    threads: int | None = None,
) -> SequenceScores:
    """J and F of one video by the rules of DAVIS-2017, semi-supervised: frame 0 and the last frame are not scored.

    Args:
        predictions: (H, W) ids per frame, frame 0 included (it is not looked at).
        truths: (H, W) ids per frame; 255 counts as background.
        unknown: what a predicted id above the largest of frame 0's truth means in a scored frame. The official program
            ends there; "refuse" raises, "ignore" scores the others.
        tolerance: of the contours, see `contours.f_measure`.
        threads: frames scored at a time; None: as many as there are cores, 2 at most.

    Returns: objects by `object_ids`; ids that first appear later are never scored.

    Errors: ValueError for fewer than three frames, for series of different lengths, sizes that differ (naming the
        frame), an unknown id.
    """
    pairs = _numbered(predictions, truths)
    _, _, first = next(pairs, (0, None, None))
    if first is None:
        raise ValueError("no frames; expected at least 3, the first and the last are not scored")
    objects = object_ids(first)

    def score(index: int, prediction: Labels, truth: Labels) -> NDArray[np.float64]:
        if unknown == "refuse" and (top := int(prediction.max(initial=0))) > len(objects):
            raise ValueError(
                f"frame {index}: the prediction holds id {top}, the truth of frame 0 holds ids up to {len(objects)}"
            )
        return _frame(index, prediction, truth, objects, tolerance)

    return _stack(objects, list(_in_threads(score, _without_last(pairs), threads)))


def davis2016(
    predictions: Iterable[Labels],
    truths: Iterable[Labels],
    *,
    tolerance: float = TOLERANCE,
    threads: int | None = None,
) -> SequenceScores:
    """J and F of one video by the rules of DAVIS-2016: everything that is not 0 is the one object.

    Args:
        predictions: (H, W) ids or masks per frame, frame 0 included.
        truths: (H, W) ids or masks per frame; 255 is object, as in DAVIS-2016's files.
        tolerance: of the contours, see `contours.f_measure`.
        threads: frames scored at a time; None: as many as there are cores, 2 at most.

    Returns: one object, 1; frame 0 and the last frame are not scored.

    Errors: ValueError as in `davis2017`.
    """
    one = ((labels != 0).view(np.uint8) for labels in predictions)
    other = ((labels != 0).view(np.uint8) for labels in truths)
    pairs = _numbered(one, other)
    next(pairs, None)

    def score(index: int, prediction: Labels, truth: Labels) -> NDArray[np.float64]:
        return _frame(index, prediction, truth, (1,), tolerance)

    return _stack((1,), list(_in_threads(score, _without_last(pairs), threads)))


def vos_benchmark(
    predictions: Iterable[Labels],
    truths: Iterable[Labels],
    *,
    tolerance: float = TOLERANCE,
) -> dict[int, tuple[float, float]]:
    """J and F of one video by the rules of vos-benchmark: for data whose objects may start in any frame.

    An object counts if the truth of a scored frame holds it, whatever its id (255 too); its mean starts at the first
    scored frame in which truth or prediction holds it. Frame 0 and the last frame are not scored.

    Args:
        predictions: (H, W) ids per frame, frame 0 included.
        truths: (H, W) ids per frame.
        tolerance: of the contours, see `contours.f_measure`.

    Returns: id -> mean J and mean F, 0 to 1, in ascending order of ids.

    Errors: ValueError for fewer than three frames, series of different lengths, sizes that differ.
    """
    pairs = _numbered(predictions, truths)
    next(pairs, None)
    in_truth: set[int] = set()
    values: dict[int, list[NDArray[np.float64]]] = {}
    for _, prediction, truth in _without_last(pairs):
        held = set(np.unique(truth).tolist()) - {0}
        in_truth |= held
        for number in held | (set(np.unique(prediction).tolist()) - {0}):
            values.setdefault(number, [])
        known = sorted(values)
        for number, scores in zip(
            known, frame_scores(prediction, truth, known, tolerance=tolerance), strict=True
        ):
            values[number].append(scores)
    means = {number: np.mean(values[number], axis=0) for number in sorted(in_truth)}
    return {number: (float(j), float(f)) for number, (j, f) in means.items()}


def global_scores(
    sequences: Iterable[SequenceScores], *, official: Literal["numpy1", "numpy2"] | None = None
) -> dict[str, float]:
    """The official global table: the mean over all objects of all videos, every object counting once.

    Args:
        sequences: what `davis2017` or `davis2016` gave.
        official: see `regions.statistics`.

    Returns: name -> value, `GLOBAL_NAMES`; J&F is the mean of the two means. All NaN without objects.
    """
    rows = [
        (*statistics(j, official=official), *statistics(f, official=official))
        for scores in sequences
        for j, f in zip(scores.j, scores.f, strict=True)
    ]
    # Column by column: NumPy adds a column of its own in another order, and the last bit would tell.
    means = [float(np.mean(column)) for column in zip(*rows, strict=True)] if rows else [np.nan] * 6
    return dict(zip(GLOBAL_NAMES, [(means[0] + means[3]) / 2, *means], strict=True))


def _frame(
    index: int, prediction: Labels, truth: Labels, objects: Sequence[int], tolerance: float
) -> NDArray[np.float64]:
    """`frame_scores`; a refusal names the frame."""
    try:
        return frame_scores(prediction, truth, objects, tolerance=tolerance)
    except ValueError as error:
        raise ValueError(f"frame {index}: {error}") from error


def _numbered(
    predictions: Iterable[Labels], truths: Iterable[Labels]
) -> Iterator[tuple[int, Labels, Labels]]:
    """(frame, prediction, truth); refuses series of different lengths when the shorter one ends."""
    own, other = iter(predictions), iter(truths)
    index = 0
    while True:
        prediction, truth = next(own, None), next(other, None)
        if prediction is None and truth is None:
            return
        if prediction is None or truth is None:
            short = "predictions" if prediction is None else "truths"
            raise ValueError(f"{short} end after {index} frames; expected as many predictions as truths")
        yield index, prediction, truth
        index += 1


def _without_last(pairs: Iterator[tuple[int, Labels, Labels]]) -> Iterator[tuple[int, Labels, Labels]]:
    """All but the last pair; refuses when that leaves nothing."""
    held: tuple[int, Labels, Labels] | None = None
    count = 0
    for pair in pairs:
        if held is not None:
            count += 1
            yield held
        held = pair
    if count == 0:
        frames = 1 if held is None else 2
        raise ValueError(f"{frames} frames; expected at least 3, the first and the last are not scored")


def _in_threads(
    score: Callable[[int, Labels, Labels], NDArray[np.float64]],
    frames: Iterator[tuple[int, Labels, Labels]],
    threads: int | None,
) -> Iterator[NDArray[np.float64]]:
    """`score` of every frame, in order; never holds more than two frames per thread."""
    count = min(os.cpu_count() or 1, 2) if threads is None else threads
    if count < 2:
        yield from (score(*frame) for frame in frames)
        return
    with ThreadPoolExecutor(count) as pool:
        waiting: deque[Future[NDArray[np.float64]]] = deque()
        for frame in frames:
            waiting.append(pool.submit(score, *frame))
            if len(waiting) >= 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _stack(objects: tuple[int, ...], frames: list[NDArray[np.float64]]) -> SequenceScores:
    """Frames of (objects, 2) to (objects, frames) twice."""
    table = np.stack(frames, axis=-1)  # (objects, 2, frames)
    return SequenceScores(objects, np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1]))
