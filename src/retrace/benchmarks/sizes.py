"""What became of labels, by the size of what they are on: the table of a report that shows where small things fail.

A size is a share of the frame, so that videos of different resolution share a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
"""(classes of size, outcomes)."""


@dataclass(frozen=True)
class SizeTable:
    """How to read the counts."""

    of: str
    """What has the size, and of what it is a share."""
    ends: tuple[float, ...]
    """Upper ends of the classes of size, included; the last one holds everything above the one before."""
    outcomes: tuple[str, ...]
    """What can become of a label, the good one first."""
    whole: int
    """So many outcomes, from the first on, make up everything that is true; the others come on top."""
    unit: str
    """What is counted, for the line below the table."""

    def row(self, size: float) -> int:
        """The class of a size."""
        return min(int(np.searchsorted(self.ends, size)), len(self.ends) - 1)

    def empty(self) -> Counts:
        """Nothing counted yet."""
        return np.zeros((len(self.ends), len(self.outcomes)), np.int64)


OBJECTS = SizeTable(
    "size, share of the frame",
    (0.005, 0.02, 0.1, 1.0),
    ("right", "another object", "missed", "false"),
    3,
    "Percent of the true pixels of the objects of that size, all frames together; false pixels were given to the "
    "object and are none of its own.",
)
BOXES = SizeTable(
    "area of the box, share of the frame",
    OBJECTS.ends,
    ("IoU above 0.5", "partly", "missed"),
    3,
    "Percent of the true boxes of that size, all frames after the first together; a missed box has no overlap.",
)


def points_table(unit: str, reach: str) -> SizeTable:
    """The table of a benchmark of points.

    Args:
        unit: the length that stands for the size of the figure, as the metric's threshold takes it.
        reach: within which a point is right.
    """
    return SizeTable(
        f"{unit}, share of the frame's diagonal",
        (0.05, 0.1, 0.2, 0.4, float("inf")),
        ("right", "another point", "elsewhere", "lost"),
        4,
        "Percent of the points that count, all frames together, by the size of the figure that they span. Right: "
        f"within {reach}. Another point: not right, but so near to another point of the frame. Lost: without a "
        "position.",
    )


def count_objects(confusion: NDArray[np.integer], objects: Sequence[int], area: int) -> Counts:
    """Pixels of objects in one frame.

    Args:
        confusion: (n, n) pixels by true (row) and carried id, 0 is background.
        objects: ids that count.
        area: pixels of the frame.

    Returns: counts of `OBJECTS`.
    """
    counts = OBJECTS.empty()
    for i in objects:
        true, right, missed = confusion[i].sum(), confusion[i, i], confusion[i, 0]
        false = confusion[:, i].sum() - right
        counts[OBJECTS.row(float(true / area))] += [right, true - right - missed, missed, false]
    return counts


def count_boxes(overlap: NDArray[np.floating], areas: NDArray[np.floating]) -> Counts:
    """Boxes of one video.

    Args:
        overlap: (T,) IoU; NaN is a miss.
        areas: (T,) of the true box, shares of the frame; frames without one (0, NaN) are left out.
    """
    counts = BOXES.empty()
    for iou, area in zip(overlap, areas, strict=True):
        if area > 0:
            counts[BOXES.row(float(area)), 0 if iou > 0.5 else 1 if iou > 0 else 2] += 1
    return counts


def spans(points: NDArray[np.floating], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Diagonal of the box round the points that count.

    Args:
        points: (T, K, 2) x, y.
        counted: (T, K).

    Returns: (T,) in the points' unit; NaN where none counts.
    """
    return np.array(
        [
            np.linalg.norm(np.ptp(places[here], axis=0)) if here.any() else np.nan
            for places, here in zip(points, counted, strict=True)
        ],
        dtype=np.float64,
    )


def count_points(
    table: SizeTable,
    found: NDArray[np.floating],
    truth: NDArray[np.floating],
    right: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    reach: NDArray[np.floating],
    size: NDArray[np.floating],
    owner: NDArray[np.integer] | None = None,
) -> Counts:
    """Points of one video.

    Args:
        table: from `points_table`.
        found: (T, K, 2) pixels; NaN where lost.
        truth: (T, K, 2); NaN where there is none.
        right: (T, K), as the metric says.
        counted: (T, K).
        reach: (T,) pixels: a wrong point that is so near to another true one took that for its own.
        size: (T,) of the figure, shares; frames where it is not a number are left out.
        owner: (K,) which point each column is, where one is there several times; None: each is its own.

    Returns: counts of `table`.
    """
    counts = table.empty()
    owner = np.arange(found.shape[1]) if owner is None else owner
    for t in np.flatnonzero(np.isfinite(size)):
        row = table.row(float(size[t]))
        for k in np.flatnonzero(counted[t]):
            if right[t, k]:
                outcome = 0
            elif not np.isfinite(found[t, k]).all():
                outcome = 3
            else:
                others = truth[t, counted[t] & (owner != owner[k])]
                near = np.linalg.norm(others - found[t, k], axis=-1) <= reach[t]
                outcome = 1 if near.any() else 2
            counts[row, outcome] += 1
    return counts
