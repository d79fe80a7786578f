"""Points: TAP-Vid's query sampling and its three measures.

Source: Doersch et al., "TAP-Vid: A Benchmark for Tracking Any Point in a Video", NeurIPS 2022, and the released
evaluation; pixels are those of a 256 x 256 frame.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrace.metrics.ratios import share

THRESHOLDS = (1, 2, 4, 8, 16)
"""Pixels, at 256 x 256."""

SIZE = 256
"""Side of the frame that TAP-Vid scores in, pixels."""

Mode = Literal["first", "strided"]

METRIC_NAMES = (
    "average_jaccard",
    "average_pts_within_thresh",
    "occlusion_accuracy",
    *(f"jaccard_{t}" for t in THRESHOLDS),
    *(f"pts_within_{t}" for t in THRESHOLDS),
)


class Queries(NamedTuple):
    """What a tracker is asked, and the truth of it."""

    frame: NDArray[np.int64]
    """(n,) query frame of each track."""
    xy: NDArray[np.floating]
    """(n, 2) where the point is there."""
    tracks: NDArray[np.floating]
    """(n, T, 2) x, y of the truth."""
    occluded: NDArray[np.bool_]
    """(n, T) of the truth."""
    track: NDArray[np.int64]
    """(n,) row of the annotated track; several queries share one in strided mode."""


def sample_queries(
    points: NDArray[np.floating], occluded: NDArray[np.bool_], mode: Mode = "first", stride: int = 5
) -> Queries:
    """Queries of one video.

    Args:
        points: (N, T, 2) x, y in pixels at 256 x 256.
        occluded: (N, T).
        mode: "first" asks for every track from its first visible frame; "strided" for every point that is visible in
            frames 0, stride, 2 stride, ..., frame by frame.
        stride: frames, strided mode only.

    Returns: tracks that are never visible are left out.
    """
    visible = ~occluded.astype(np.bool_)
    if mode == "first":
        rows = np.flatnonzero(visible.any(1))
        frames = visible[rows].argmax(1)
    else:
        asked = visible[:, ::stride].T  # (frames, N)
        steps, rows = np.nonzero(asked)
        frames = steps * stride
    return Queries(frames, points[rows, frames], points[rows], ~visible[rows], rows)


def tapvid(
    queries: NDArray[np.integer],
    true_tracks: NDArray[np.floating],
    true_occluded: NDArray[np.bool_],
    tracks: NDArray[np.floating],
    occluded: NDArray[np.bool_],
    mode: Mode = "first",
    *,
    per_track: bool = False,
) -> dict[str, NDArray[np.float64]]:
    """TAP-Vid's measures of one video.

    Occlusion accuracy: share of frames in which the prediction is right about occlusion. Points within x: share of the
    visible points that were placed less than x pixels off, whatever was said about occlusion. Jaccard x: hits, points
    that are visible, said to be and less than x pixels off, over hits and misses; a miss is a visible point that is no
    hit, and a point said to be visible that is occluded or too far off (a visible one misses twice then). "average" is
    over `THRESHOLDS`.

    Args:
        queries: (n,) query frame of each track.
        true_tracks: (n, T, 2) pixels at 256 x 256.
        true_occluded: (n, T).
        tracks: (n, T, 2) predicted.
        occluded: (n, T) predicted.
        mode: "first" scores the frames after the query frame, "strided" all but it.
        per_track: one number per track instead of one per video.

    Returns: `METRIC_NAMES` -> fraction, a scalar array, or (n,) per track. NaN where nothing is scored: no visible
        point (for occlusion accuracy, no point at all) outside the query frames. `summary.dataset_mean` leaves such
        videos out and says so; the official mean is NaN.
    """
    times = np.arange(true_occluded.shape[1])
    scored = times > queries[:, None] if mode == "first" else times != queries[:, None]  # (n, T)
    axis: int | None = 1 if per_track else None
    visible = ~true_occluded & scored
    claimed = ~occluded & scored
    off = np.square(tracks - true_tracks).sum(-1)
    result: dict[str, NDArray[np.float64]] = {}
    result["occlusion_accuracy"] = share(((occluded == true_occluded) & scored).sum(axis), scored.sum(axis))
    positives = visible.sum(axis)
    for threshold in THRESHOLDS:
        near = off < threshold**2
        result[f"pts_within_{threshold}"] = share((near & visible).sum(axis), positives)
        hits = (near & visible & claimed).sum(axis)
        false = (claimed & ~(near & visible)).sum(axis)
        result[f"jaccard_{threshold}"] = share(hits, positives + false)
    for average, single in (("average_jaccard", "jaccard"), ("average_pts_within_thresh", "pts_within")):
        result[average] = np.mean([result[f"{single}_{threshold}"] for threshold in THRESHOLDS], axis=0)
    return {name: result[name] for name in METRIC_NAMES}
