"""TAP-Vid: any point of a frame is carried through the video, at 256 x 256.

A carrier says where a point is, not whether it is hidden; a point counts as said to be hidden where the carrier lost
it, and its position is then the last one.
"""

import json
from collections.abc import Iterator, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from retrace.benchmarks.carrying import carry, read_frames
from retrace.benchmarks.masks import reader
from retrace.benchmarks.poses import PATH, mean_over_sequences, plain
from retrace.benchmarks.records import Benchmark, Metric, SequenceResult, Submission
from retrace.benchmarks.sizes import count_points, points_table, spans
from retrace.datasets.records import Points, Sequence
from retrace.errors import RetraceError
from retrace.metrics.points import SIZE, Mode, Queries, sample_queries, tapvid
from retrace.propagation.carriers import Carrier

Places = NDArray[np.float64]
REACH = 8
"""Pixels at 256 x 256 within which a point is right over time and by size."""
SIZES = points_table("diagonal of the box round the visible points", f"{REACH} pixels at 256 x 256")
METRICS = (
    Metric("average_jaccard", "average Jaccard"),
    Metric("average_pts_within_thresh", "points within, mean"),
    Metric("occlusion_accuracy", "occlusion accuracy"),
    *(Metric(f"jaccard_{t}", f"Jaccard {t} px") for t in (1, 2, 4, 8, 16)),
    *(Metric(f"pts_within_{t}", f"within {t} px") for t in (1, 2, 4, 8, 16)),
)


def _small(sequence: Sequence[Points]) -> Iterator[NDArray[np.uint8]]:
    for image in read_frames(sequence):
        if image.shape[:2] == (SIZE, SIZE):
            yield image
        else:
            small = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
            yield np.asarray(small, dtype=np.uint8)


def carried_queries(
    frames: Iterator[NDArray[np.uint8]], queries: Queries, carrier: Carrier, mode: Mode, name: str
) -> Places:
    """(n, T, 2) pixels at 256 x 256; NaN where not found. Strided queries are carried backwards, too."""
    count, length = queries.occluded.shape
    found = np.full((length, count, 2), np.nan)

    def given(reverse: bool) -> dict[int, NDArray[np.float32]]:
        asked: dict[int, NDArray[np.float32]] = {}
        for frame in np.unique(queries.frame):
            rows = queries.frame == frame
            places = np.full((count, 2), np.nan, np.float32)
            places[rows] = queries.xy[rows]
            asked[int(length - 1 - frame if reverse else frame)] = places
        return asked

    def ahead(frame: int, places: NDArray[np.float32]) -> None:
        if frame < length:
            found[frame] = places

    def back(step: int, places: NDArray[np.float32]) -> None:
        frame = length - 1 - step
        before = frame < queries.frame
        found[frame, before] = places[before]

    if mode == "first":
        carry(carrier.points(frames, given(False), (SIZE, SIZE)), ahead, length, name)
        return found.transpose(1, 0, 2)
    held = list(frames)  # both ways: 256 x 256 is small
    if len(held) != length:
        raise RetraceError(f"{name} has {len(held)} frames that can be read; expected {length}.")
    carry(carrier.points(held, given(False), (SIZE, SIZE)), ahead, length, name)
    carry(carrier.points(held[::-1], given(True), (SIZE, SIZE)), back, length, name)
    return found.transpose(1, 0, 2)


def _tapvid(
    sequence: Sequence[Points], carrier: Carrier, submission: Submission, options: Mapping[str, str]
) -> SequenceResult:
    mode: Mode = "strided" if options["queries"] == "strided" else "first"
    truths = [truth for frame in sequence.annotated if (truth := sequence.truth(frame)) is not None]
    if sequence.size is None or len(truths) != sequence.num_frames:
        raise RetraceError(f"{sequence.name} has points in {len(truths)} of {sequence.num_frames} frames.")
    scale = SIZE / np.array(sequence.size[::-1], dtype=np.float64)
    xy = np.stack([truth.xy for truth in truths], 1) * scale  # (N, T, 2)
    occluded = ~np.stack([truth.visible for truth in truths], 1)  # (N, T)
    queries = sample_queries(xy, occluded, mode)
    tracks = carried_queries(_small(sequence), queries, carrier, mode, sequence.name)
    lost = np.asarray(np.isnan(tracks).any(-1), dtype=np.bool_)
    filled = _filled(tracks, queries)
    arguments = (queries.frame, queries.tracks, queries.occluded, filled, lost, mode)
    scores = {name: float(value) for name, value in tapvid(*arguments).items()}
    first: dict[int, int] = {}
    for row, track in enumerate(queries.track):
        first.setdefault(int(track), row)
    written = np.full((sequence.num_frames, len(xy), 2), np.nan)
    for track, row in first.items():
        written[:, track] = tracks[row] / scale
    submission.text(PATH.format(sequence=sequence.name), json.dumps({"points": plain(np.round(written, 3))}))
    near = np.linalg.norm(filled - queries.tracks, axis=-1) < REACH
    times = np.arange(sequence.num_frames)
    counted = ~queries.occluded & (
        times > queries.frame[:, None] if mode == "first" else times != queries.frame[:, None]
    )
    there = [t for t in range(sequence.num_frames) if counted[:, t].any()]
    seen = xy.transpose(1, 0, 2)  # (T, N, 2)
    by_size = count_points(
        SIZES,
        tracks.transpose(1, 0, 2),
        queries.tracks.transpose(1, 0, 2),
        near.T,
        counted.T,
        np.full(sequence.num_frames, float(REACH)),
        spans(seen, ~occluded.T) / np.hypot(SIZE, SIZE),
        queries.track,
    )
    return SequenceResult(
        sequence.name,
        sequence.num_frames,
        len(there),
        scores,
        frames={
            "frame": [float(t) for t in there],
            "pts_within_8": [float(near[counted[:, t], t].mean()) for t in there],
        },
        raw={"confusion_by_size": by_size.tolist()},
    )


def _filled(tracks: Places, queries: Queries) -> Places:
    """A lost point stays where it was last seen, going away from its query frame both ways."""
    filled = tracks.copy()
    for row, start in enumerate(queries.frame):
        for t in range(start + 1, filled.shape[1]):
            if not np.isfinite(filled[row, t]).all():
                filled[row, t] = filled[row, t - 1]
        for t in range(start - 1, -1, -1):
            if not np.isfinite(filled[row, t]).all():
                filled[row, t] = filled[row, t + 1]
    return filled


TAPVID = Benchmark(
    "tapvid",
    "TAP-Vid",
    "points",
    "default",
    METRICS,
    reader("tapvid"),
    _tapvid,
    lambda results, options: mean_over_sequences(results, METRICS),
    PATH,
    options={"queries": ("first", "strided")},
    sizes=SIZES,
)
