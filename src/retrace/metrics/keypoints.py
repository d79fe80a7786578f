"""Keypoints: PCK, the share that lies near enough, in every dialect of the field by name.

Published PCK numbers differ by rules that the papers do not print: which joints count, whether frame 0 does, where and
from how many cells the prediction was read. `DIALECTS` names them; a report prints the one it used.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrace.metrics.ratios import mean_of_numbers, share


def correct(
    prediction: NDArray[np.floating],
    truth: NDArray[np.floating],
    visible: NDArray[np.bool_],
    alpha: float,
    scale: NDArray[np.floating],
) -> NDArray[np.bool_]:
    """Which of the visible keypoints lie within `alpha * scale`; average them for PCK@alpha.

    Args:
        prediction: (T, K, 2) x, y in pixels; NaN where not found, which is wrong.
        truth: (T, K, 2) x, y in pixels.
        visible: (T, K), from the truth.
        alpha: share of the scale.
        scale: (T,) pixels, the size of the object in each frame.

    Returns: (n,) bool, one entry per visible keypoint; empty when none is visible.
    """
    distance = np.linalg.norm(prediction - truth, axis=-1)  # (T, K), NaN where not found
    right: NDArray[np.bool_] = distance <= alpha * scale[:, None]
    return right[visible]


def longer_box_side(points: NDArray[np.floating], visible: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Longer side of the box round the visible keypoints of every frame.

    Args:
        points: (T, K, 2) x, y in pixels.
        visible: (T, K).

    Returns: (T,) pixels; 0 where fewer than two keypoints are visible.
    """
    sides = np.zeros(len(points))
    for frame, (places, seen) in enumerate(zip(points, visible, strict=True)):
        if np.count_nonzero(seen) > 1:
            sides[frame] = np.ptp(places[seen], axis=0).max()
    return sides


@dataclass(frozen=True)
class Dialect:
    """The rules of one evaluator of JHMDB's poses."""

    counted: Literal["truth", "prediction", "first_frame"]
    """Which joints of a frame count and span its box: those visible in the truth, those that were found (so that the
    tracker chooses), or those visible in frame 0, in every frame."""
    first_frame_scored: bool
    """Whether the labelled frame counts."""
    left_column_found: bool
    """Whether a joint at the centre of the first column counts as found; VFS's test, x > 0 from 0, says no."""
    top: int | None
    """Positions are read from so many best cells of a map; None: the evaluator is handed positions."""
    read_at: Literal["grid", "image"] | None
    """The resolution of that map."""
    source: str
    """Whose rules they are."""


DIALECTS: dict[str, Dialect] = {
    "truth": Dialect("truth", False, True, None, None, "ours: visibility from the truth, frame 0 left out"),
    "crw": Dialect("prediction", False, True, 3, "grid", "CRW, UVC and STFC3 as released"),
    "vfs": Dialect("prediction", True, False, 5, "image", "VFS and Spatial-then-Temporal as released"),
    "tapnet": Dialect("first_frame", True, True, None, None, "TAP-Net as released"),
}
"""How PCK on JHMDB is counted, by name; the first is the default. mmpose's is `pck_mmpose`."""


def normalised_distances(
    prediction: NDArray[np.floating],
    truth: NDArray[np.floating],
    visible: NDArray[np.bool_],
    dialect: Dialect = DIALECTS["truth"],
) -> NDArray[np.float64]:
    """Distance of every joint of one video that counts, in units of 0.6 times the diagonal of the person's box.

    The box of a frame is that of the true positions of the joints that count in it.

    Args:
        prediction: (T, K, 2) x, y in pixels, the centre of the first pixel at 0.5; NaN where not found.
        truth: (T, K, 2) the same.
        visible: (T, K), from the truth.
        dialect: what counts.

    Returns: (T, K); NaN where a joint does not count, inf where one counts that was not found, or whose box has no size
        (a lone joint).

    Errors: ValueError when the shapes differ.
    """
    if not prediction.shape == truth.shape == (*visible.shape, 2):
        raise ValueError(
            f"prediction {prediction.shape}, truth {truth.shape}, visible {visible.shape}; expected (T, K, 2) twice "
            "and (T, K)"
        )
    found = np.isfinite(prediction).all(-1)
    if dialect.counted == "prediction":
        counted = found if dialect.left_column_found else found & (prediction[..., 0] > 0.5)
    elif dialect.counted == "truth":
        counted = visible.astype(np.bool_)
    else:
        counted = np.broadcast_to(visible[:1], visible.shape)
    distances = np.full(visible.shape, np.nan)
    distances[counted] = np.inf
    for frame in range(0 if dialect.first_frame_scored else 1, len(truth)):
        here = counted[frame]
        if not here.any():
            continue
        box = 0.6 * np.linalg.norm(np.ptp(truth[frame, here], axis=0))
        if box > 0:
            here = here & found[frame]
            distances[frame, here] = (
                np.linalg.norm(prediction[frame, here] - truth[frame, here], axis=-1) / box
            )
    if not dialect.first_frame_scored:
        distances[:1] = np.nan
    return distances


class PCK(NamedTuple):
    """Share of right joints."""

    per_joint: NDArray[np.float64]
    """(thresholds, K) 0 to 1, over all frames of all videos; NaN for a joint that never counts."""
    mean: NDArray[np.float64]
    """(thresholds,) plain mean over the joints that count somewhere."""


def pck(
    videos: Iterable[NDArray[np.floating]], thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5)
) -> PCK:
    """PCK of a data set: joints pooled over frames and videos, then averaged.

    Args:
        videos: `normalised_distances` of each, (T, K).
        thresholds: a joint is right at a distance <= threshold.

    Returns: fractions; all NaN when nothing counts.
    """
    distances = np.concatenate(list(videos))  # (frames of all videos, K)
    counted = ~np.isnan(distances)
    counts = counted.sum(0)
    right = np.stack([((distances <= threshold) & counted).sum(0) for threshold in thresholds])
    per_joint = share(right, counts)
    return PCK(per_joint, np.array([mean_of_numbers(row) for row in per_joint]))


MMPOSE_GROUPS: dict[str, tuple[int, ...]] = {
    "Head": (2,),
    "Sho": (3, 4),
    "Elb": (7, 8),
    "Wri": (11, 12),
    "Hip": (5, 6),
    "Knee": (9, 10),
    "Ank": (13, 14),
}
"""Joints of JHMDB (from 0) that mmpose reports together."""


def pck_mmpose(
    prediction: NDArray[np.floating],
    truth: NDArray[np.floating],
    visible: NDArray[np.bool_],
    boxes: NDArray[np.floating],
    threshold: float,
) -> dict[str, float]:
    """JHMDB's PCK as mmpose counts it: by the longer side of a given box, and (tPCK) by the length of the torso.

    The torso is the distance of joints 4 and 5; where it is shorter than a pixel, that of their predictions. A joint is
    right at a distance strictly below the threshold. All instances are pooled; float32 throughout, as in mmpose.

    Args:
        prediction: (N, 15, 2) x, y in pixels, N instances.
        truth: (N, 15, 2).
        visible: (N, 15).
        boxes: (N, 4) left, top, right, bottom.
        threshold: share of the box or torso.

    Returns: "Head PCK" ... "Ank PCK", "PCK" and the same as "tPCK": fractions. A joint that is visible nowhere counts
        -1 in its group, as in mmpose, and not at all in the mean.
    """
    own, other = prediction.astype(np.float32), truth.astype(np.float32)
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float32).max(1)
    torsos = np.linalg.norm(other[:, 4] - other[:, 5], axis=-1)
    short = torsos < 1
    torsos[short] = np.linalg.norm(own[:, 4] - own[:, 5], axis=-1)[short]
    result: dict[str, float] = {}
    for suffix, sizes in (("PCK", sides), ("tPCK", torsos)):
        counted = visible.astype(np.bool_) & (sizes > 0)[:, None]
        units = np.where(sizes > 0, sizes, 1)[:, None, None]
        right = (np.linalg.norm((own - other) / units, axis=-1) < threshold) & counted
        counts = counted.sum(0)
        shares = np.nan_to_num(share(right.sum(0), counts), nan=-1.0)
        for name, joints in MMPOSE_GROUPS.items():
            result[f"{name} {suffix}"] = float(shares[list(joints)].mean())
        result[suffix] = float(shares[counts > 0].mean()) if counts.any() else 0.0
    return result
