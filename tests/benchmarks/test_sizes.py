"""What became of labels, by size: counted on predictions that we know."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrace.benchmarks import BENCHMARKS
from retrace.benchmarks.records import SequenceResult, Submission
from retrace.benchmarks.sizes import BOXES, OBJECTS, count_boxes, count_points, points_table, spans
from retrace.datasets.records import Points, Sequence
from retrace.propagation.carriers import Without
from tests.benchmarks.test_scoring import FRAMES, H, Knowing, W, options, parts, sequence

TABLE = points_table("length", "a pixel")


def test_points_are_counted_where_their_figure_belongs() -> None:
    """One of each outcome in a small figure, a right one in a large figure, nothing where there is no size."""
    truth = np.array([[[10, 10], [20, 10], [30, 10], [40, 10]]] * 3, dtype=float)
    found = truth.copy()
    found[0] = [[10.5, 10], [30.5, 10], [30, 25], [np.nan, np.nan]]
    right = np.linalg.norm(found - truth, axis=-1) <= 1
    counted = np.array([[True] * 4, [True, False, False, False], [True] * 4])
    size = np.array([0.04, 0.9, np.nan])
    table = count_points(TABLE, found, truth, right, counted, np.ones(3), size)
    np.testing.assert_array_equal(table, [[1, 1, 1, 1], [0] * 4, [0] * 4, [0] * 4, [1, 0, 0, 0]])
    same = count_points(TABLE, found, truth, right, counted, np.ones(3), size, owner=np.array([0, 1, 1, 3]))
    np.testing.assert_array_equal(same[0], [1, 0, 2, 1])  # points 1 and 2 are one, which cannot be mixed up


def test_the_span_of_points() -> None:
    """The diagonal of the box round those that count."""
    points = np.array([[[1, 1], [4, 5], [100, 100]], [[0, 0]] * 3], dtype=float)
    counted = np.array([[True, True, False], [False] * 3])
    np.testing.assert_array_equal(spans(points, counted), [5, np.nan])


def test_boxes_are_counted_by_their_area() -> None:
    """A good one, one that touches, one that is lost; frames without a true box do not count."""
    overlap = np.array([0.6, 0.5, 0.0, np.nan, 0.9])
    table = count_boxes(overlap, np.array([0.001, 0.05, 0.05, 0.5, 0.0]))
    np.testing.assert_array_equal(table, [[1, 0, 0], [0] * 3, [0, 1, 1], [0, 0, 1]])
    assert table.shape == (len(BOXES.ends), len(BOXES.outcomes))


def pair(t: int) -> NDArray[np.float32]:
    """Three joints whose box is 12 by 16, so that PCK's unit is 0.6 x 20 = 12 of the frame's 68.8 pixels: 0.17."""
    return np.array([[10 + t, 10], [22 + t, 10], [22 + t, 26]], np.float32)


def totals(result: SequenceResult) -> list[list[int]]:
    """Rows that hold something."""
    return [row for row in result.raw["confusion_by_size"] if any(row)]


def test_jhmdb(tmp_path: Path) -> None:
    """Joints 0 and 1 swapped, joint 2 right, in one frame lost."""
    clip = sequence(lambda t: Points(pair(t), np.ones(3, bool)), dict.fromkeys(range(3), 0), range(FRAMES))
    told = [pair(t)[[1, 0, 2]] for t in range(FRAMES)]
    told[4][2] = np.nan
    result = BENCHMARKS["jhmdb"].score(clip, Knowing(told), Submission(tmp_path), options("jhmdb"))
    assert result.raw["confusion_by_size"][2] == [3, 8, 0, 1]
    assert totals(result) == [[3, 8, 0, 1]]
    assert result.scores["PCK@0.1"] == pytest.approx((0 + 0 + 3 / 4) / 3)


@pytest.mark.parametrize("masks", [True, False])
def test_badja(tmp_path: Path, masks: bool) -> None:
    """A mask of a quarter of 20 x 20 at half size: reach 0.2 x 20 = 4; without masks 0.1 x 16."""
    mask = np.zeros((H // 2, W // 2), bool)
    mask[5:15, 5:15] = True
    clip = sequence(
        lambda t: Points(pair(t), np.ones(3, bool), mask if masks else None), {0: 0, 1: 0}, (0, 2, 4)
    )
    told = [pair(t) + np.float32([3, 0]) for t in range(FRAMES)]
    result = BENCHMARKS["badja"].score(clip, Knowing(told), Submission(tmp_path), {})
    assert totals(result) == ([[4, 0, 0, 0]] if masks else [[0, 0, 4, 0]])


def test_300vw(tmp_path: Path) -> None:
    """Eyes 20 pixels apart: 1.6 are allowed. A lost point that stays in reach is right, another is lost."""
    face = np.random.default_rng(4).uniform(5, 35, (68, 2)).astype(np.float32)
    face[36], face[45], face[1] = (10, 20), (30, 20), (50, 3)
    clip = sequence(
        lambda t: Points(face + np.float32([t, 0]), np.ones(68, bool)),
        dict.fromkeys(range(68), 0),
        range(FRAMES),
    )
    told = [face + np.float32([t, 0]) for t in range(FRAMES)]
    for t in range(1, FRAMES):
        told[t][1] = np.nan
    result = BENCHMARKS["300vw"].score(clip, Knowing(told), Submission(tmp_path), {"crop": "none"})
    assert totals(result) == [[67 * 4 + 1, 0, 0, 3]]


def test_tapvid(tmp_path: Path) -> None:
    """Two points that move 20 pixels of 256 per frame, copied: soon one lies where the other was."""

    def xy(t: int) -> NDArray[np.float32]:
        return np.array([[5 + 5 * t, 10], [25 + 5 * t, 10]], np.float32)

    frames = np.zeros((FRAMES, 64, 64, 3), np.uint8)
    clip = Sequence(
        "clip",
        frames,
        FRAMES,
        (64, 64),
        tuple(range(FRAMES)),
        lambda t: Points(xy(t), np.ones(2, bool)),
        {0: 0, 1: 0},
    )
    result = BENCHMARKS["tapvid"].score(clip, Without("copy"), Submission(tmp_path), options("tapvid"))
    # the point on the right (25) is met by the one on the left (5 + 5 t) in frame 4
    assert totals(result) == [[0, 1, 7, 0]]


def test_vip(tmp_path: Path) -> None:
    """Class 5 is 10 x 20 of 40 x 56 pixels, 8.9 %; copied it is 4 and then 8 columns off."""
    clip = sequence(parts, {2: 0, 5: 0}, (0, 2, 4))
    result = BENCHMARKS["vip"].score(clip, Without("copy"), Submission(tmp_path), options("vip"))
    right, missed = (16 + 12) * 10, (4 + 8) * 10
    assert result.raw["confusion_by_size"][2] == [right, 0, missed, missed]
    assert result.raw["confusion_by_size"][3] == [2 * right, 0, 2 * missed, 2 * missed]
    assert OBJECTS.row(0.1) == 2
    assert OBJECTS.row(0.1001) == 3
