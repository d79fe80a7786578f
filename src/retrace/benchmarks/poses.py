"""JHMDB, BADJA and 300VW: points of the first annotated frame are carried to all the others."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrace.benchmarks.carrying import carry, read_frames
from retrace.benchmarks.masks import reader
from retrace.benchmarks.records import Benchmark, Metric, SequenceResult, Submission
from retrace.benchmarks.sizes import count_points, points_table, spans
from retrace.datasets.records import Points, Sequence
from retrace.errors import RetraceError
from retrace.metrics import badja, landmarks
from retrace.metrics.keypoints import DIALECTS, correct, longer_box_side, normalised_distances, pck
from retrace.metrics.ratios import mean_of_numbers
from retrace.propagation.carriers import Carrier

Places = NDArray[np.float64]
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
PATH = "{sequence}.json"
"""Of the predictions: {"points": frames x points x (x, y), null where not found}, pixels, first centre at 0.5."""


FACE = 2.5
"""Side of the crop of 300VW, in longer sides of the box round the first landmarks."""


def carried_points(
    sequence: Sequence[Points], carrier: Carrier, submission: Submission, *, crop: float | None = None
) -> tuple[Places, float]:
    """Carry the points of a sequence.

    Args:
        sequence: its `objects` say in which frame each point is handed out.
        carrier: carries.
        submission: receives the positions.
        crop: show the carrier a square of so many longer sides of the box round the first points, round their middle,
            the same in every frame and inside the frame; None: the whole frame.

    Returns: (T, K, 2) pixels of a picture of the sequence's size, NaN where not found; and that picture's diagonal.

    Errors: RetraceError when no point is handed out.
    """
    frames: Iterable[NDArray[np.uint8]] = read_frames(sequence)
    size = sequence.size
    if size is None:
        reading = iter(frames)
        first = next(reading, None)
        if first is None:
            raise RetraceError(f"{sequence.name} has no frame that can be read.")
        size, frames = first.shape[:2], _and_first(first, reading)
    diagonal = float(np.hypot(*size))
    given: dict[int, NDArray[np.float32]] = {}
    count = max(sequence.objects, default=-1) + 1
    for frame in sorted(set(sequence.objects.values())):
        truth = sequence.truth(frame)
        if truth is None:
            continue
        count = len(truth.xy)
        rows = [row for row, at in sequence.objects.items() if at == frame]
        places = np.full((count, 2), np.nan, np.float32)
        places[rows] = truth.xy[rows]
        if np.isfinite(places).any():
            given[frame] = places
    if not given:
        raise RetraceError(f"{sequence.name}: no point has a position in the frame where it begins.")
    corner = np.zeros(2)
    if crop is not None:
        left, top, side = _square(next(iter(given.values())), size, crop)
        corner, size = np.array([left, top]), (side, side)
        frames = (image[top : top + side, left : left + side] for image in frames)
        given = {frame: (places - corner).astype(np.float32) for frame, places in given.items()}
    found = np.full((sequence.num_frames, count, 2), np.nan)

    def one(frame: int, places: NDArray[np.float32]) -> None:
        if frame < len(found):  # a longer video is refused when it has been read
            found[frame] = places + corner

    carry(carrier.points(frames, given, size), one, sequence.num_frames, sequence.name)
    points = [
        [[round(float(v), 3) for v in xy] if np.isfinite(xy).all() else [None, None] for xy in frame]
        for frame in found
    ]
    submission.text(PATH.format(sequence=sequence.name), json.dumps({"points": points}))
    return found, diagonal


def _square(places: NDArray[np.float32], size: tuple[int, int], factor: float) -> tuple[int, int, int]:
    """Left, top and side of the crop, whole pixels."""
    known = places[np.isfinite(places[:, 0])]
    side = max(16, min(round(factor * float(np.ptp(known, axis=0).max())), *size))
    middle = (known.min(0) + known.max(0)) / 2
    left, top = (
        int(np.clip(round(float(m) - side / 2), 0, whole - side))
        for m, whole in zip(middle, (size[1], size[0]), strict=True)
    )
    return left, top, side


def truth_of(sequence: Sequence[Points]) -> tuple[list[int], list[Points]]:
    """Annotated frames and their truth, all of which have as many points."""
    frames = list(sequence.annotated)
    truths = []
    for frame in frames:
        truth = sequence.truth(frame)
        assert truth is not None
        truths.append(truth)
    return frames, truths


def plain(table: NDArray[np.floating]) -> list[Any]:
    """Nested lists for a file; NaN becomes null, because JSON has none."""
    return [plain(row) if np.ndim(row) else None if np.isnan(row) else float(row) for row in table]


def _and_first(first: NDArray[np.uint8], rest: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    yield first
    yield from rest


# ---- JHMDB

JHMDB_SIZES = points_table("0.6 x the diagonal of the joints' box", f"{THRESHOLDS[0]} of that length")
JHMDB_METRICS = tuple(Metric(f"PCK@{threshold}", f"PCK@{threshold}") for threshold in THRESHOLDS)


def _jhmdb(
    sequence: Sequence[Points], carrier: Carrier, submission: Submission, options: Mapping[str, str]
) -> SequenceResult:
    found, diagonal = carried_points(sequence, carrier, submission)
    frames, truths = truth_of(sequence)
    truth, visible = np.stack([t.xy for t in truths]), np.stack([t.visible for t in truths])
    dialect = DIALECTS[options["dialect"]]
    distances = normalised_distances(found[frames], truth.astype(np.float64), visible, dialect)
    counted = ~np.isnan(distances)
    times = [k for k in range(len(frames)) if counted[k].any()]
    scores = pck([distances], THRESHOLDS)
    unit = 0.6 * spans(truth, counted)
    return SequenceResult(
        sequence.name,
        sequence.num_frames,
        len(times),
        {m.key: float(v) for m, v in zip(JHMDB_METRICS, scores.mean, strict=True)},
        frames={
            "frame": [float(frames[k]) for k in times],
            **{
                metric.key: [float((distances[k, counted[k]] <= threshold).mean()) for k in times]
                for metric, threshold in zip(JHMDB_METRICS[:2], THRESHOLDS, strict=False)
            },
        },
        raw={
            "distances": plain(distances),
            "confusion_by_size": count_points(
                JHMDB_SIZES,
                found[frames],
                truth,
                distances <= THRESHOLDS[0],
                counted,
                THRESHOLDS[0] * unit,
                unit / diagonal,
            ).tolist(),
        },
    )


def _summarise_jhmdb(results: list[SequenceResult], options: Mapping[str, str]) -> dict[str, float]:
    videos = [np.array(result.raw["distances"], dtype=np.float64) for result in results]
    return {m.key: float(v) for m, v in zip(JHMDB_METRICS, pck(videos, THRESHOLDS).mean, strict=True)}


JHMDB = Benchmark(
    "jhmdb",
    "JHMDB",
    "keypoints",
    "crw-jhmdb",
    JHMDB_METRICS,
    reader("jhmdb"),
    _jhmdb,
    _summarise_jhmdb,
    PATH,
    options={"dialect": tuple(DIALECTS)},
    sizes=JHMDB_SIZES,
    official=268,
)

# ---- BADJA

BADJA_SIZES = points_table(
    "root of the mask's area, or without masks the longer side of the joints' box",
    "0.2 of the one or 0.1 of the other",
)
BADJA_METRICS = (
    Metric("PCK", "PCK, 0.2 of the root of the mask's area"),
    Metric("PCK_box@0.1", "PCK, 0.1 of the longer side of the joints' box"),
)


def _badja(
    sequence: Sequence[Points], carrier: Carrier, submission: Submission, options: Mapping[str, str]
) -> SequenceResult:
    found, diagonal = carried_points(sequence, carrier, submission)
    frames = list(sequence.annotated)
    truths: list[Points] = []
    masks: list[tuple[float, int, tuple[int, ...]]] = []  # length, area and shape of each: they are not held
    for frame in frames:
        point = sequence.read(frame)
        if point.mask is not None:
            masks.append((badja.length(point.mask), int(point.mask.sum()), point.mask.shape))
        truths.append(replace(point, mask=None))
    followed = sorted(sequence.objects)
    all_true, all_visible = np.stack([t.xy for t in truths]), np.stack([t.visible for t in truths])
    truth, visible = all_true[:, followed].astype(np.float64), all_visible[:, followed]
    own = found[frames][:, followed]
    by_mask = np.zeros(0, np.bool_)
    side = longer_box_side(all_true, all_visible)
    unit, reach = side, 0.1 * side
    if len(masks) == len(truths):
        assert sequence.size is not None
        lengths, areas, shapes = zip(*masks, strict=True)
        if len(set(shapes)) > 1:
            raise RetraceError(
                f"The masks of {sequence.name} have several sizes: {sorted(set(shapes))}. Download them again."
            )
        scale = np.array([shapes[0][1] / sequence.size[1], shapes[0][0] / sequence.size[0]])
        by_mask = badja.near(own * scale, truth * scale, visible, np.array(lengths), shapes[0])
        unit = np.sqrt(np.array(areas) / scale.prod())
        reach = badja.SHARE * unit
    per_frame = [
        correct(own[k : k + 1], truth[k : k + 1], visible[k : k + 1], 0.1, side[k : k + 1])
        for k in range(len(frames))
    ]
    times = [k for k in range(1, len(frames)) if len(per_frame[k])]
    by_box = np.concatenate([per_frame[k] for k in times]) if times else np.zeros(0, np.bool_)
    counted = visible.copy()
    counted[0] = False
    right = np.zeros(visible.shape, np.bool_)
    right[counted] = by_mask if len(masks) == len(truths) else by_box
    by_size = count_points(BADJA_SIZES, own, truth, right, counted, reach, unit / diagonal)
    return SequenceResult(
        sequence.name,
        sequence.num_frames,
        len(times),
        {
            "PCK": float(by_mask.mean()) if len(by_mask) else float("nan"),
            "PCK_box@0.1": float(by_box.mean()) if len(by_box) else float("nan"),
        },
        frames={
            "frame": [float(frames[k]) for k in times],
            "PCK_box@0.1": [float(per_frame[k].mean()) for k in times],
        },
        raw={"confusion_by_size": by_size.tolist()},
    )


def mean_over_sequences(results: list[SequenceResult], metrics: tuple[Metric, ...]) -> dict[str, float]:
    """Plain mean of every metric; sequences without a number are left out."""
    return {m.key: mean_of_numbers([result.scores[m.key] for result in results]) for m in metrics}


BADJA = Benchmark(
    "badja",
    "BADJA",
    "keypoints",
    "default",
    BADJA_METRICS,
    reader("badja"),
    _badja,
    lambda results, options: mean_over_sequences(results, BADJA_METRICS),
    PATH,
    sizes=BADJA_SIZES,
)

# ---- 300VW

VW300_SIZES = points_table("distance of the outer eye corners", "0.08 of that length")
VW300_METRICS = (
    Metric("NME", "mean error, percent of the eyes' distance", "percent", higher_is_better=False),
    Metric("AUC@0.08", "AUC up to 8 %"),
    Metric("accuracy@0.08", "frames with an error below 8 %"),
    Metric("RMSE_pixels", "root mean square error", "pixels", higher_is_better=False),
    Metric("error_pixels", "mean error", "pixels", higher_is_better=False),
    Metric(
        "RMSE_percent",
        "root mean square error, percent of the eyes' distance",
        "percent",
        higher_is_better=False,
    ),
)


def _300vw(
    sequence: Sequence[Points], carrier: Carrier, submission: Submission, options: Mapping[str, str]
) -> SequenceResult:
    crop = FACE if options["crop"] == "face" else None
    found, diagonal = carried_points(sequence, carrier, submission, crop=crop)
    carried = np.asarray(np.isfinite(found).all(-1), dtype=np.bool_)
    for frame in range(1, len(found)):  # a point that is lost stays where it was, for every frame has 68
        lost = ~np.isfinite(found[frame])
        found[frame][lost] = found[frame - 1][lost]
    frames, truths = truth_of(sequence)
    scored = [k for k, frame in enumerate(frames) if frame > min(sequence.objects.values())]
    if not scored:
        raise RetraceError(f"{sequence.name} has no annotated frame after the first.")
    truth = np.stack([truths[k].xy for k in scored]).astype(np.float64)
    own = found[[frames[k] for k in scored]]
    errors = landmarks.frame_errors(own, truth)
    squares = np.square(own - truth).sum(-1)
    distances = np.sqrt(squares)
    eyes = landmarks.eye_distance(truth)
    relative = squares / np.square(eyes)[:, None]
    limit = 0.08 * eyes
    where = np.where(carried[[frames[k] for k in scored]][..., None], own, np.nan)
    by_size = count_points(
        VW300_SIZES,
        where,
        truth,
        np.less(distances, limit[:, None]),
        np.ones(distances.shape, np.bool_),
        limit,
        eyes / diagonal,
    )
    raw = {
        "errors": errors.tolist(),
        "squares": float(squares.sum()),
        "distances": float(distances.sum()),
        "relative_squares": float(relative.sum()),
        "points": int(squares.size),
        "confusion_by_size": by_size.tolist(),
    }
    result = SequenceResult(
        sequence.name,
        sequence.num_frames,
        len(scored),
        {},
        frames={"frame": [float(frames[k]) for k in scored], "NME": (100 * errors).tolist()},
        raw=raw,
    )
    result.scores.update(_summarise_300vw([result], options))
    return result


def _summarise_300vw(results: list[SequenceResult], options: Mapping[str, str]) -> dict[str, float]:
    """All frames of all videos in one pool, as 300-W's script has it."""
    errors = np.concatenate([np.array(result.raw["errors"]) for result in results])
    points = sum(result.raw["points"] for result in results)
    scores = landmarks.landmark_scores(errors)

    def root_mean(key: str) -> float:
        return float(np.sqrt(sum(result.raw[key] for result in results) / points))

    return {
        "NME": 100 * scores.nme,
        "AUC@0.08": scores.auc,
        "accuracy@0.08": scores.accuracy,
        "RMSE_pixels": root_mean("squares"),
        "error_pixels": float(sum(result.raw["distances"] for result in results) / points),
        "RMSE_percent": 100 * root_mean("relative_squares"),
    }


VW300 = Benchmark(
    "300vw",
    "300VW",
    "keypoints",
    "stfc3-300vw",
    VW300_METRICS,
    reader("300vw"),
    _300vw,
    _summarise_300vw,
    PATH,
    options={"crop": ("face", "none")},
    sizes=VW300_SIZES,
)
