"""What each benchmark makes of predictions that we know: carriers that copy, or that know the truth."""

import json
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrace.benchmarks import BENCHMARKS
from retrace.benchmarks.flow import flow_of
from retrace.benchmarks.masks import counts
from retrace.benchmarks.reconstruction import warped
from retrace.benchmarks.records import Store, Submission
from retrace.benchmarks.textures import STRIPES, striped
from retrace.datasets.flowfiles import read_flo, read_kitti_png
from retrace.datasets.records import Flow, Parts, Points, Sequence
from retrace.errors import RetraceError
from retrace.formats.textures import read_texture
from retrace.metrics.keypoints import DIALECTS
from retrace.propagation.carriers import Without

H, W, FRAMES = 40, 56, 5


class Knowing:
    """A carrier that hands back what it was told beforehand."""

    name = "knowing"

    def __init__(self, labels: list[NDArray[Any]]) -> None:
        """Labels of every frame."""
        self.labels = labels

    def masks(
        self, frames: Iterable[NDArray[np.uint8]], given: Mapping[int, NDArray[np.uint8]]
    ) -> Iterator[Callable[[], NDArray[np.uint8]]]:
        """As told."""
        for label, _ in zip(self.labels, frames, strict=True):
            yield lambda label=label: label  # type: ignore[misc]

    def points(
        self,
        frames: Iterable[NDArray[np.uint8]],
        given: Mapping[int, NDArray[np.float32]],
        size: tuple[int, int],
    ) -> Iterator[Callable[[], NDArray[np.float32]]]:
        """As told."""
        return self.masks(frames, {})  # type: ignore[return-value, arg-type]

    def flows(
        self,
        frames: Iterable[NDArray[np.uint8]],
        gaps: tuple[int, ...],
        size: tuple[int, int],
        *,
        smooth: bool,
    ) -> Iterator[Callable[[], dict[int, NDArray[np.float32]]]]:
        """As told."""
        for t, _ in enumerate(frames):
            yield lambda t=t: {gap: self.labels[0] for gap in gaps if gap <= t}  # type: ignore[misc]


class KnowingMasks(Knowing):
    """Knows the masks, and copies everything else."""

    def together(
        self, frames: Iterable[NDArray[np.uint8]], given: list[Any]
    ) -> Iterator[Callable[[], tuple[Any, ...]]]:
        """The first kind as told."""
        for label, finish in zip(self.labels, Without("copy").together(frames, given), strict=True):
            yield lambda label=label, finish=finish: (label, *finish()[1:])  # type: ignore[misc]


def sequence(
    truth: Callable[[int], Any], objects: Mapping[int, int], annotated: Iterable[int]
) -> Sequence[Any]:
    """Black frames in memory."""
    return Sequence(
        "clip", np.zeros((FRAMES, H, W, 3), np.uint8), FRAMES, (H, W), tuple(annotated), truth, objects
    )


def joints(frame: int, count: int = 15) -> NDArray[np.float32]:
    """On a circle that moves 3 pixels per frame."""
    angles = np.arange(count) * 2 * np.pi / count
    return (np.stack([20 + 3 * frame + 12 * np.cos(angles), 20 + 15 * np.sin(angles)], 1)).astype(np.float32)


def options(name: str, **given: str) -> dict[str, str]:
    """Defaults of a benchmark, and what is given."""
    return {key: allowed[0] for key, allowed in BENCHMARKS[name].options.items()} | given


@pytest.mark.parametrize("dialect", DIALECTS)
def test_jhmdb(tmp_path: Path, dialect: str) -> None:
    """A tracker that knows has 1; one that copies falls behind with time; the positions are written."""
    clip = sequence(
        lambda t: Points(joints(t), np.ones(15, bool)), dict.fromkeys(range(15), 0), range(FRAMES)
    )
    task = BENCHMARKS["jhmdb"]
    known = [joints(t) for t in range(FRAMES)]
    chosen = options("jhmdb", dialect=dialect)
    right = task.score(clip, Knowing(known), Submission(tmp_path), chosen)
    assert all(value == 1 for value in right.scores.values())
    written = json.loads((tmp_path / "clip.json").read_text())["points"]
    np.testing.assert_allclose(written, known, atol=6e-4)
    copied = task.score(clip, Without("copy"), Submission(tmp_path), chosen)
    # 0.6 times the diagonal of the box is about 23 pixels; 3, 6, 9, 12 pixels off
    scored = FRAMES if DIALECTS[dialect].first_frame_scored else FRAMES - 1
    assert copied.scores["PCK@0.2"] == pytest.approx((scored - 4 + 1) / scored)
    assert copied.frames["PCK@0.1"][-1] == 0
    assert task.summarise([right, copied], chosen)["PCK@0.2"] == pytest.approx(
        (1 + copied.scores["PCK@0.2"]) / 2
    )


def test_badja(tmp_path: Path) -> None:
    """Masks of half the size of the joints' picture; without masks that number is missing."""
    mask = np.zeros((H // 2, W // 2), bool)
    mask[5:15, 5:15] = True
    for given, expected in ((mask, 1.0), (None, float("nan"))):
        clip = sequence(
            lambda t, given=given: Points(joints(t, 6), np.ones(6, bool), given),
            dict.fromkeys((0, 2, 5), 0),
            (0, 2, 4),
        )
        near = [joints(t, 6) + np.float32(1.5) for t in range(FRAMES)]
        result = BENCHMARKS["badja"].score(clip, Knowing(near), Submission(tmp_path), {})
        assert result.scores["PCK"] == pytest.approx(expected, nan_ok=True)
        assert result.scores["PCK_box@0.1"] == 1
        assert result.frames["frame"] == [2, 4]
        worse = BENCHMARKS["badja"].score(clip, Without("copy"), Submission(tmp_path), {})
        assert worse.scores["PCK_box@0.1"] == 0
    assert BENCHMARKS["badja"].summarise([result, worse], {})["PCK_box@0.1"] == 0.5


def test_masks_of_badja_are_not_held_together(tmp_path: Path) -> None:
    """One at a time; masks of several sizes are the sequence's fault and told as such."""
    alive: list[weakref.ref[NDArray[np.bool_]]] = []
    most = 0

    def read(t: int, columns: int = W) -> Points:
        nonlocal most
        mask = np.ones((H, columns), bool)
        alive.append(weakref.ref(mask))
        most = max(most, sum(reference() is not None for reference in alive))
        return Points(joints(t, 6), np.ones(6, bool), mask)

    clip = sequence(read, {0: 0, 5: 0}, range(FRAMES))
    result = BENCHMARKS["badja"].score(clip, Without("copy"), Submission(tmp_path), {})
    assert len(alive) > FRAMES
    assert most <= 2
    assert np.isfinite(result.scores["PCK"])
    several = sequence(lambda t: read(t, W + t), {0: 0, 5: 0}, range(FRAMES))
    with pytest.raises(RetraceError, match="masks of clip have several sizes"):
        BENCHMARKS["badja"].score(several, Without("copy"), Submission(tmp_path), {})


def test_300vw(tmp_path: Path) -> None:
    """5 pixels off everywhere; a lost point stays where it was."""

    def face(t: int) -> NDArray[np.float32]:
        points = np.random.default_rng(4).uniform(5, 35, (68, 2)).astype(np.float32)
        points[36], points[45] = (10, 20), (30, 20)
        return points

    clip = sequence(lambda t: Points(face(t), np.ones(68, bool)), dict.fromkeys(range(68), 0), range(FRAMES))
    near = [face(t) + np.float32([3, 4]) for t in range(FRAMES)]
    near[3][10] = np.nan
    result = BENCHMARKS["300vw"].score(clip, Knowing(near), Submission(tmp_path), {"crop": "none"})
    assert result.scores["RMSE_pixels"] == pytest.approx(5, rel=1e-5)
    assert result.scores["error_pixels"] == pytest.approx(5, rel=1e-5)
    assert result.scores["NME"] == pytest.approx(25, rel=1e-5)
    assert result.scores["RMSE_percent"] == pytest.approx(25, rel=1e-5)
    assert result.scores["accuracy@0.08"] == 0
    assert BENCHMARKS["300vw"].summarise([result, result], {}) == pytest.approx(result.scores)


def parts(frame: int) -> Parts:
    """Two instances of class 2 and one of class 5 that move 2 pixels per frame."""
    classes, instances = np.zeros((H, W), np.uint8), np.zeros((H, W), np.uint16)
    for number, (part, row) in enumerate(((2, 2), (2, 14), (5, 26)), start=1):
        place = (slice(row, row + 10), slice(5 + 2 * frame, 25 + 2 * frame))
        classes[place], instances[place] = part, 300 + number
    table = np.array([[301, 2], [302, 2], [303, 5]])
    return Parts(classes, instances, (classes > 0).astype(np.uint8), table)


@pytest.mark.parametrize("carry", ["classes", "instances"])
def test_vip(tmp_path: Path, carry: str) -> None:
    """Annotated on frames 0, 2 and 4; frame 0 is not scored."""
    clip = sequence(parts, {2: 0, 5: 0}, (0, 2, 4))
    task = BENCHMARKS["vip"]
    chosen = options("vip", carry=carry)
    known = [
        parts(t).classes if carry == "classes" else np.where(parts(t).instances, parts(t).instances - 300, 0)
        for t in range(FRAMES)
    ]
    right = task.score(clip, Knowing([k.astype(np.uint8) for k in known]), Submission(tmp_path), chosen)
    assert right.scores["mIoU"] == right.scores["accuracy"] == 1
    assert right.scored_frames == 2
    if carry == "instances":
        assert right.scores["AP_vol"] == pytest.approx(2 / 19)  # the other 17 classes do not occur
    else:
        assert np.isnan(right.scores["AP_vol"])
    copied = task.score(clip, Without("copy"), Submission(tmp_path), chosen)
    assert copied.scores["mIoU"] < 0.8
    # class 5 is 10 x 20 pixels; 4 and 8 columns away in the two scored frames, both frames pooled
    both = 10 * (16 + 12)
    assert copied.raw["confusion"][5][5] == both
    assert task.summarise([right, copied], chosen)["mIoU"] < 1
    assert sorted(path.name for path in (tmp_path / "clip").iterdir()) == [
        "00000.png",
        "00002.png",
        "00004.png",
    ]


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_tapvid(tmp_path: Path, mode: str) -> None:
    """Points that stand still: copying is perfect but for what is hidden; the video is scaled to 256 x 256."""
    xy = np.array([[10, 10], [30, 20], [50, 30]], np.float32)
    visible = np.ones((FRAMES, 3), bool)
    visible[0, 1], visible[4, 2] = False, False
    clip = sequence(lambda t: Points(xy, visible[t]), {0: 0, 1: 1, 2: 0}, range(FRAMES))
    task = BENCHMARKS["tapvid"]
    result = task.score(clip, Without("copy"), Submission(tmp_path), options("tapvid", queries=mode))
    assert all(result.scores[f"pts_within_{t}"] == 1 for t in (1, 2, 4, 8, 16))
    if mode == "first":  # 4 + 3 + 4 frames after the queries; point 2 is hidden in one of them
        assert result.scores["occlusion_accuracy"] == pytest.approx(10 / 11)
    written = np.array(json.loads((tmp_path / "clip.json").read_text())["points"], dtype=np.float64)
    assert written.shape == (FRAMES, 3, 2)
    asked = (
        [0, 1, 2] if mode == "first" else [0, 2]
    )  # point 1 is hidden in frame 0, the only strided query frame
    np.testing.assert_allclose(written[-1][asked], xy[asked], atol=1e-3)
    assert task.summarise([result, result], {})["average_jaccard"] == pytest.approx(
        result.scores["average_jaccard"]
    )


def test_tapvid_carries_strided_queries_backwards(tmp_path: Path) -> None:
    """A query in the middle of the video is scored before it, too."""
    frames = 7
    xy = np.array([[20.0, 20.0]], np.float32)
    visible = np.ones((frames, 1), bool)
    visible[:5] = False
    visible[2] = True
    clip = Sequence(
        "clip",
        np.zeros((frames, H, W, 3), np.uint8),
        frames,
        (H, W),
        tuple(range(frames)),
        lambda t: Points(xy, visible[t]),
        {0: 2},
    )
    result = BENCHMARKS["tapvid"].score(
        clip, Without("copy"), Submission(tmp_path), options("tapvid", queries="strided")
    )
    assert result.frames["frame"] == [2, 6]  # the only query is in frame 5
    assert result.scores["pts_within_1"] == 1


def test_300vw_crops_the_face(tmp_path: Path) -> None:
    """The carrier sees a square; positions come back in the frame."""
    shapes: list[tuple[int, ...]] = []

    class Watching(Without):
        """Notes what it is shown."""

        def points(self, frames, given, size):  # type: ignore[no-untyped-def]
            """As the baseline."""
            kept = list(frames)
            shapes.extend([kept[0].shape, tuple(size)])
            return super().points(iter(kept), given, size)

    face = np.random.default_rng(4).uniform(15, 25, (68, 2)).astype(np.float32)
    clip = sequence(lambda t: Points(face, np.ones(68, bool)), dict.fromkeys(range(68), 0), range(FRAMES))
    result = BENCHMARKS["300vw"].score(clip, Watching("copy"), Submission(tmp_path), options("300vw"))
    assert result.scores["RMSE_pixels"] == pytest.approx(0, abs=1e-5)
    side = shapes[0][0]
    assert shapes == [(side, side, 3), (side, side)]
    assert 20 <= side <= 27


def test_synthetic_scenes(tmp_path: Path) -> None:
    """The truth scores 1 in everything but what the baseline does not know; numbers of copying are guarded."""
    task = BENCHMARKS["synthetic"]
    data = task.load(Path(), None)
    assert [s.name for s in data.sequences][::19] == ["scene-00", "scene-19"]
    clip = data.sequences[0]
    known = [clip.read(t) for t in range(clip.num_frames)]
    right = task.score(clip, KnowingMasks(known), Submission(tmp_path / "a"), {})
    assert right.scores["J&F"] == right.scores["box_IoU"] == 1
    copied = task.score(clip, Without("copy"), Submission(tmp_path / "b"), {})
    assert copied.scores["PCK@0.1"] == right.scores["PCK@0.1"] < 0.6
    for key, value in SCENE_00_COPIED.items():
        assert copied.scores[key] == pytest.approx(value, abs=0.01 if key != "EPE" else 0.05), key


SCENE_00_COPIED = {
    "J&F": 0.2551,
    "J": 0.2388,
    "F": 0.2715,
    "PCK@0.1": 0.2770,
    "box_IoU": 0.5367,
    "EPE": 1.7073,
}
"""Measured on 2026-11-21, `retrace evaluate synthetic --model copy --sequences scene-00`."""


def test_sizes_and_outcomes(tmp_path: Path) -> None:
    """Pixels of an object by what became of them, in the row of its size."""
    truth = np.zeros((H, W), np.uint8)
    truth[:10, :10] = 1  # 100 of 2240 pixels: 4.5 %
    truth[20:22, :10] = 2  # 20: 0.9 %
    carried = np.zeros((H, W), np.uint8)
    carried[:10, :7] = 1
    carried[:10, 7:9] = 2
    clip = sequence(lambda t: truth, {1: 0, 2: 0}, range(FRAMES))
    result = BENCHMARKS["davis2017"].score(clip, Knowing([truth] + [carried] * 4), Submission(tmp_path), {})
    table = np.array(result.raw["confusion_by_size"])
    scored = FRAMES - 2
    assert table.shape == (4, 4)
    assert (table[2] == np.array([70, 20, 10, 0]) * scored).all()
    assert (table[1] == np.array([0, 0, 20, 20]) * scored).all()
    assert not table[[0, 3]].any()
    np.testing.assert_array_equal(counts(carried, truth, [1, 2])[1], [10, 70, 20])


def test_what_cannot_be_scored(tmp_path: Path) -> None:
    """Sentences that name the sequence."""
    empty = sequence(lambda t: np.zeros((H, W), np.uint8), {1: 0}, range(FRAMES))
    with pytest.raises(RetraceError, match="clip: no object has a pixel"):
        BENCHMARKS["davis2016"].score(empty, Without("copy"), Submission(tmp_path), {})
    lost = sequence(
        lambda t: Points(np.full((15, 2), np.nan, np.float32), np.zeros(15, bool)), {0: 0}, range(FRAMES)
    )
    with pytest.raises(RetraceError, match="clip: no point has a position"):
        BENCHMARKS["jhmdb"].score(lost, Without("copy"), Submission(tmp_path), options("jhmdb"))
    once = sequence(parts, {2: 0}, (0,))
    with pytest.raises(RetraceError, match="no annotated frame after the first"):
        BENCHMARKS["vip"].score(once, Without("copy"), Submission(tmp_path), options("vip"))
    longer = Sequence(
        "clip", np.zeros((FRAMES, H, W, 3), np.uint8), FRAMES + 1, (H, W), (0, 1), parts, {2: 0}
    )
    with pytest.raises(RetraceError, match="5 frames that can be read; expected 6"):
        BENCHMARKS["vip"].score(longer, Without("copy"), Submission(tmp_path), options("vip"))


def test_the_store_trusts_nothing(tmp_path: Path) -> None:
    """Another fingerprint, scribbles, cut files and missing masks all mean: not done."""
    clip = sequence(lambda t: (parts(t).classes > 0).astype(np.uint8), {1: 0}, range(FRAMES))
    store = Store(tmp_path, {"model": "copy"})
    submission = store.submission()
    result = BENCHMARKS["davis2016"].score(clip, Without("copy"), submission, {})
    store.save(result, submission)
    assert store.read("clip") == result
    assert Store(tmp_path, {"model": "other"}).read("clip") is None
    assert store.read("another") is None
    file = tmp_path / "sequences" / "clip.json"
    good = file.read_text()
    for bad in ("", good[:-20], good.replace("1", "2", 1), "[]", "null", good.replace("body", "b0dy")):
        file.write_text(bad)
        assert store.read("clip") is None
    file.write_text(good)
    assert store.read("clip") == result
    (tmp_path / "submission" / "clip" / "00002.png").unlink()
    assert store.read("clip") is None


SMOOTH = {"smooth": "yes"}


def pair(truth: Flow) -> Sequence[Any]:
    """Two frames, the first one dark, and where its pixels are in the second."""
    frames = np.stack([np.full((H, W, 3), value, np.uint8) for value in (10, 200)])
    return Sequence("clip", frames, 2, (H, W), (0,), lambda frame: truth, {})


def known_flow() -> tuple[Flow, NDArray[np.float32]]:
    """Upper half 100 pixels to the right, lower half still; a hidden column, an unknown one. Predicted 4 pixels off."""
    uv = np.zeros((H, W, 2), np.float32)
    uv[: H // 2, :, 0] = 100
    valid, visible = np.ones((2, H, W), bool)
    valid[:, 0] = visible[:, :2] = False
    off = uv + np.float32([0, 4])
    off[:, 1] += np.float32([0, 16])  # the hidden column is 20 off
    return Flow(uv * valid[..., None], valid, visible), off


def test_kitti_flow(tmp_path: Path) -> None:
    """4 pixels are an outlier where nothing moves and none at 100 pixels; what is scored is what is written."""
    truth, off = known_flow()
    task = BENCHMARKS["kitti"]
    result = task.score(pair(truth), Knowing([off]), Submission(tmp_path), SMOOTH)
    columns = W - 1  # one is not known
    assert result.scores["Fl_all"] == pytest.approx((columns / 2 + 1 / 2) / columns)
    assert result.scores["Fl_noc"] == 0.5
    assert result.scores["over_3px"] == result.scores["over_3px_noc"] == 1
    assert result.scores["EPE"] == pytest.approx((4 * (columns - 1) + 20) / columns)
    assert result.scores["EPE_noc"] == pytest.approx(4)
    np.testing.assert_array_equal(read_kitti_png(tmp_path / "flow" / "clip_10.png").uv, off)
    right = task.score(pair(truth), Knowing([truth.uv]), Submission(tmp_path), SMOOTH)
    together = task.summarise([result, right], {})
    assert together["Fl_all"] == pytest.approx(result.scores["Fl_all"] / 2)
    assert together["EPE_noc"] == pytest.approx(2)


@pytest.mark.parametrize("name", ["kitti", "sintel", "middlebury"])
def test_a_flow_that_is_no_number_is_no_good_flow(tmp_path: Path, name: str) -> None:
    """NaN exceeds no threshold, so it would be no outlier; the pair is left out instead, and nothing is written."""
    truth, off = known_flow()
    off[3, 4, 0] = np.nan
    pair = Sequence("clip", np.zeros((2, H, W, 3), np.uint8), 2, (H, W), (0,), lambda t: truth, {})
    with pytest.raises(RetraceError, match=f"clip: 1 of {H * W} pixels have no finite flow"):
        BENCHMARKS[name].score(pair, Knowing([off]), Submission(tmp_path / "out"), options(name))
    assert not (tmp_path / "out").exists()


def test_sintel_flow(tmp_path: Path) -> None:
    """Pixels seen in both frames, hidden ones, and by their true length."""
    truth, off = known_flow()
    task = BENCHMARKS["sintel"]
    result = task.score(pair(truth), Knowing([off]), Submission(tmp_path), SMOOTH)
    expected = {"EPE_matched": 4, "EPE_unmatched": 20, "s0-10": 4 + 16 / (W - 1), "s40+": 4 + 16 / (W - 1)}
    assert {key: result.scores[key] for key in expected} == pytest.approx(expected)
    assert np.isnan(result.scores["s10-40"])
    assert result.scores["below_3px"] == 0
    assert result.scores["below_5px"] == pytest.approx((W - 2) / (W - 1))
    np.testing.assert_array_equal(read_flo(tmp_path / "clip.flo").uv, off)
    unknown = replace(pair(truth), annotated=())
    without = task.score(unknown, Knowing([off]), Submission(tmp_path), SMOOTH)
    assert np.isnan(list(without.scores.values())).all()
    assert task.summarise([result, without], {}) == pytest.approx(result.scores, nan_ok=True)


def test_middlebury_flow(tmp_path: Path) -> None:
    """Zero flow where everything moves by (0, 1): one pixel, 45 degrees."""
    down = np.zeros((H, W, 2), np.float32)
    down[..., 1] = 1
    result = BENCHMARKS["middlebury"].score(
        pair(Flow(down, np.ones((H, W), bool))), Without("copy"), Submission(tmp_path), SMOOTH
    )
    assert result.scores == pytest.approx({"EPE": 1, "AAE": 45})
    assert (read_flo(tmp_path / "clip" / "flow10.flo").uv == 0).all()


def test_the_flow_of_a_pair_goes_from_the_first_frame_to_the_second() -> None:
    """A square that moves 3 pixels right and 2 down."""
    generator = np.random.default_rng(0)
    ground = cv2.GaussianBlur(generator.integers(0, 256, (64, 96, 3)).astype(np.float32), (0, 0), 2)
    ground = np.clip((ground - ground.mean()) * 4 + 128, 0, 255).astype(np.uint8)
    frames = np.stack([ground, np.roll(ground, (2, 3), (0, 1))])
    uv = flow_of(Sequence("clip", frames, 2, (64, 96), (), lambda frame: None, {}), Without("flow:dis"))
    np.testing.assert_allclose(np.median(uv[16:-16, 16:-16], axis=(0, 1)), [3, 2], atol=0.2)


def test_reconstruction(tmp_path: Path) -> None:
    """Frames that get brighter by 2 levels each: 10 and 20 levels in each of three channels; five frames are kept."""
    frames = np.stack([np.full((H, W, 3), 40 + 2 * t, np.uint8) for t in range(14)])
    clip = Sequence("clip", frames, 14, (H, W), (), lambda frame: None, {})
    task = BENCHMARKS["reconstruction"]
    result = task.score(clip, Without("copy"), Submission(tmp_path), {})
    assert result.scores == {"L1_5": 30, "L1_10": 60}
    assert result.frames["frame"] == [10, 11, 12, 13]
    assert result.scored_frames == 9
    assert sorted(path.name for path in (tmp_path / "clip").iterdir()) == [
        f"{t:05d}.jpg" for t in range(10, 14)
    ]
    with pytest.raises(RetraceError, match="has 10 frames; expected 11 or more"):
        task.score(
            replace(clip, frames=frames[:10], num_frames=10), Without("copy"), Submission(tmp_path), {}
        )


def test_colours_are_read_where_the_flow_points() -> None:
    """The frame before, moved 3 right and 2 down, is this frame."""
    before = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
    flow = np.full((H, W, 2), (-3, -2), np.float32)
    np.testing.assert_array_equal(warped(before, flow)[2:, 3:], before[:-2, :-3])


def test_texture(tmp_path: Path) -> None:
    """An object of 20 columns that moves 5 per frame, and paint that stays."""
    masks = np.zeros((4, H, W), np.uint8)
    for t, mask in enumerate(masks):
        mask[10:22, 5 + 5 * t : 25 + 5 * t] = 1 + t % 2
    clip = Sequence("clip", np.zeros((4, H, W, 3), np.uint8), 4, (H, W), (0, 1, 3), masks.__getitem__, {1: 0})
    result = BENCHMARKS["texture"].score(clip, Without("copy"), Submission(tmp_path), {})
    assert result.scores["J"] == pytest.approx(np.mean([15 / 25, 5 / 35]))
    paint = read_texture(tmp_path / "clip" / "00002.png").rgba
    np.testing.assert_array_equal(paint[..., 3] > 0, masks[0] > 0)
    empty = replace(clip, read=lambda frame: np.zeros((H, W), np.uint8))
    with pytest.raises(RetraceError, match="clip: no object has a pixel in the first frame"):
        BENCHMARKS["texture"].score(empty, Without("copy"), Submission(tmp_path), {})


def test_six_stripes_across_the_longer_side() -> None:
    """Equal widths, in order, on the object alone; a tall object is painted from top to bottom."""
    mask = np.zeros((40, 60), bool)
    mask[5:15, 10:40] = True
    mask[5, 10] = False
    paint = striped(mask)
    np.testing.assert_array_equal(paint[..., 3] > 0, mask)
    np.testing.assert_array_equal(paint[10, 10:40, :3], np.array(STRIPES).repeat(5, 0))
    np.testing.assert_array_equal(striped(mask.T)[10:40, 10, :3], np.array(STRIPES).repeat(5, 0))
    with pytest.raises(ValueError, match="nothing to paint on"):
        striped(np.zeros((3, 4), bool))
