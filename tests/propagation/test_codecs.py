"""Labels to the grid and back, where nothing moves and where everything is shifted by whole cells."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrace.propagation.codecs import (
    BoxCodec,
    CoordinateCodec,
    Geometry,
    KeypointCodec,
    MaskCodec,
    TextureCodec,
    nearest,
    robust_line,
)

H, W, STRIDE = 96, 160, 8
PLAIN = Geometry((H, W), (H, W), (H // STRIDE, W // STRIDE), STRIDE)
# frames of 96 x 160 that the encoder sees at 50 x 81, a size that the stride does not divide
SCALED = Geometry((H, W), (50, 81), (7, 11), STRIDE)
SURE = torch.full(PLAIN.grid, 0.8)


def moved(labels: Tensor, rows: int, columns: int) -> Tensor:
    """Labels shifted by whole cells, as a perfect engine would carry them."""
    return torch.roll(labels, (rows, columns), dims=(1, 2))


def ellipse(cx: float, cy: float, rx: float, ry: float) -> NDArray[np.bool_]:
    """Inside of an ellipse, (H, W)."""
    y, x = np.mgrid[0:H, 0:W] + 0.5
    return np.asarray(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("geometry", [PLAIN, SCALED])
def test_positions_and_planes_agree(geometry: Geometry) -> None:
    """`cells` and `pixels` are inverse, and enlarging a ramp of node positions gives every pixel its own position."""
    xy = np.array([[0.5, 0.5], [100.25, 7.0], [159.5, 95.5]])
    np.testing.assert_allclose(geometry.pixels(geometry.cells(xy)), xy)
    h, w = geometry.grid
    columns = np.tile(np.arange(w, dtype=np.float32), (h, 1))
    x = geometry.pixels(np.stack([geometry.enlarge(columns)] * 2, axis=-1))[..., 0]
    inside = geometry.cells(np.array([[W - 0.5, 0.5]]))[0, 0]
    limit = W if inside <= w - 1 else int(geometry.pixels(np.array([[w - 1.0, 0.0]]))[0, 0])
    np.testing.assert_allclose(x[:, 1:limit], np.tile(np.arange(W) + 0.5, (H, 1))[:, 1:limit], atol=0.3)
    ramp = np.tile(np.arange(W, dtype=np.float32) + 0.5, (H, 1))
    reduced = geometry.reduce(ramp)
    expected = geometry.pixels(np.stack([columns] * 2, axis=-1))[..., 0]
    np.testing.assert_allclose(reduced[:, 1:-2], expected[:, 1:-2], atol=0.3)


def test_first_node_is_on_the_first_pixel() -> None:
    """ResNets pad symmetrically: node (i, j) looks at pixel (8i, 8j)."""
    np.testing.assert_allclose(PLAIN.cells(np.array([0.5, 8.5])), [0, 1])


@pytest.mark.parametrize("seed", ["area", "bilinear", "nearest"])
@pytest.mark.parametrize("output", ["argmax", "minmax", "raised"])
@pytest.mark.parametrize("geometry", [PLAIN, SCALED])
def test_masks_come_back(seed: str, output: str, geometry: Geometry) -> None:
    """Ids with a gap survive; channels sum to one; the input is not changed."""
    ids = np.zeros((H, W), dtype=np.uint8)
    ids[ellipse(50, 40, 40, 30)] = 2
    ids[ellipse(120, 60, 30, 30)] = 9
    before = ids.copy()
    codec = MaskCodec([9, 2], geometry, seed=seed, output=output)
    labels = codec.encode(ids)
    assert labels.shape == (3, *geometry.grid)
    assert torch.allclose(labels.sum(0), torch.ones(geometry.grid), atol=1e-5)
    result = codec.decode(labels, torch.full(geometry.grid, 0.8))
    assert result.masks is not None
    assert set(np.unique(result.masks)) == {0, 2, 9}
    assert iou(result.masks == 2, ids == 2) > (0.85 if seed != "nearest" else 0.75)
    assert result.confidence == pytest.approx({"2": 0.8, "9": 0.8})
    np.testing.assert_array_equal(ids, before)


def test_raised_brings_back_what_fades_and_not_what_has_left() -> None:
    """An object whose label has faded below the background's is seen; of one that has left, minmax makes something."""
    inside = torch.zeros(PLAIN.grid)
    inside[3:7, 5:12] = 1.0
    seen = {}
    for share in (0.4, 0.1, 0.0):
        labels = torch.stack([1 - share * inside, share * inside])
        for output in ("argmax", "minmax", "raised"):
            masks = MaskCodec([1], PLAIN, output=output).decode(labels, SURE).masks
            assert masks is not None
            seen[output, share] = iou(masks == 1, PLAIN.enlarge(inside.numpy()) > 0.5)
    assert seen["argmax", 0.4] == seen["argmax", 0.1] == 0
    assert seen["minmax", 0.1] > 0.9
    assert seen["raised", 0.4] > 0.9
    assert seen["raised", 0.1] == 0
    assert {seen[output, 0.0] for output in ("argmax", "minmax", "raised")} == {0}


def test_area_is_the_most_exact() -> None:
    """Averaging over cells keeps more of the outline than sampling it."""
    inside = ellipse(70, 50, 31, 23)
    score = {}
    for seed in ("area", "bilinear", "nearest"):
        codec = MaskCodec([1], PLAIN, seed=seed)
        masks = codec.decode(codec.encode(inside.astype(np.uint8)), SURE).masks
        assert masks is not None
        score[seed] = iou(masks == 1, inside)
    assert score["area"] > 0.97
    assert score["area"] > max(score["bilinear"], score["nearest"])


@pytest.mark.parametrize("seed", ["area", "bilinear", "nearest"])
def test_a_padded_grid_keeps_labels_where_they_are(seed: str) -> None:
    """A patch grid that covers more than the frame: cells of 16 pixels, not the frame cut into as many parts."""
    frame = (50, 75)
    geometry = Geometry(frame, frame, (4, 5), 16, origin=8.0, padding=(14, 5))
    assert geometry.extent == (64, 80)
    twice = Geometry((100, 150), frame, (4, 5), 16, origin=8.0, padding=(14, 5))
    assert twice.extent == (128, 160)
    ids = np.zeros(frame, dtype=np.uint8)
    ids[:, 32:48] = 1  # the third column of patches
    codec = MaskCodec([1], geometry, seed=seed)
    labels = codec.encode(ids)
    assert labels.shape == (2, 4, 5)
    assert (labels[1] > 0.5).nonzero()[:, 1].tolist() == [2, 2, 2, 2]
    back = codec.decode(labels, torch.ones(4, 5)).masks
    assert back is not None
    assert iou(back > 0, ids > 0) > 0.85
    assert abs(float(np.nonzero(back)[1].mean()) - 39.5) < 1


def test_a_lost_object_has_no_confidence() -> None:
    """Object 2 is nowhere the largest."""
    codec = MaskCodec([1, 2], PLAIN)
    labels = torch.zeros(3, *PLAIN.grid)
    labels[1], labels[2] = 0.6, 0.4
    assert codec.decode(labels, SURE).confidence == pytest.approx({"1": 0.8, "2": 0.0})


def test_wrong_codecs() -> None:
    """Our own mistakes raise ValueError."""
    with pytest.raises(ValueError, match="object ids"):
        MaskCodec([0, 1], PLAIN)
    with pytest.raises(ValueError, match="seed 'cubic'"):
        MaskCodec([1], PLAIN, seed="cubic")
    with pytest.raises(ValueError, match="shape"):
        MaskCodec([1], PLAIN).encode(np.zeros((W, H), dtype=np.uint8))
    with pytest.raises(ValueError, match="read_at 'grid'; expected frame or network"):
        MaskCodec([1], PLAIN, read_at="grid")
    with pytest.raises(ValueError, match="dialect"):
        KeypointCodec(["a"], PLAIN, dialect="coco")


@pytest.mark.parametrize("geometry", [PLAIN, SCALED])
def test_keypoints_come_back_to_a_fraction_of_a_pixel(geometry: Geometry) -> None:
    """Sub-cell positions survive, also when the frame was resized for the encoder."""
    xy = np.array([[60.3, 40.9], [101.0, 37.2], [np.nan, np.nan]], dtype=np.float32)
    codec = KeypointCodec(["a", "b", "c"], geometry)
    result = codec.decode(codec.encode(xy), torch.full(geometry.grid, 0.8))
    assert result.keypoints is not None
    np.testing.assert_allclose(result.keypoints[:2], xy[:2], atol=0.35)
    assert np.isnan(result.keypoints[2]).all()
    assert result.confidence["c"] == 0
    assert result.confidence["a"] == pytest.approx(0.8, abs=0.01)


def test_moved_keypoints_and_partial_correction() -> None:
    """Whole cells moved is whole cells read; an unlabelled keypoint of a corrected frame keeps what arrived."""
    xy = np.array([[60.3, 40.9], [101.0, 37.2]], dtype=np.float32)
    codec = KeypointCodec(["a", "b"], PLAIN)
    arrived = moved(codec.encode(xy), 2, -1)
    points = codec.decode(arrived, SURE).keypoints
    np.testing.assert_allclose(points, xy + [-8, 16], atol=0.1)
    corrected = codec.encode(np.array([[20, 20], [np.nan, np.nan]], dtype=np.float32), arrived)
    points = codec.decode(corrected, SURE).keypoints
    np.testing.assert_allclose(points, [[20, 20], xy[1] + [-8, 16]], atol=0.1)


def test_jhmdb_dialect_rounds_to_cells() -> None:
    """The published dialect has a background and is coarser."""
    codec = KeypointCodec(["a"], PLAIN, dialect="crw")
    labels = codec.encode(np.array([[60.3, 40.9]], dtype=np.float32))
    assert labels.shape == (2, *PLAIN.grid)
    points = codec.decode(labels, SURE).keypoints
    assert points is not None
    assert np.abs(points - [60.3, 40.9]).max() < 8


@pytest.mark.parametrize("geometry", [PLAIN, SCALED])
def test_boxes_come_back(geometry: Geometry) -> None:
    """Boxes where they were; a lost one is NaN."""
    xywh = np.array([[30.5, 20, 64, 50], [np.nan] * 4], dtype=np.float32)
    codec = BoxCodec(["a", "b"], geometry)
    result = codec.decode(codec.encode(xywh), torch.full(geometry.grid, 0.8))
    assert result.boxes is not None
    np.testing.assert_allclose(result.boxes[0], xywh[0], atol=0.6)
    assert np.isnan(result.boxes[1]).all()
    assert result.confidence["b"] == 0


def test_boxes_move_grow_and_stay_inside() -> None:
    """Shift by cells; twice the size from doubled positions; cut at the frame."""
    xywh = np.array([[40, 24, 48, 40]], dtype=np.float32)
    codec = BoxCodec(["a"], PLAIN)
    labels = codec.encode(xywh)
    boxes = codec.decode(moved(labels, 1, -2), SURE).boxes
    np.testing.assert_allclose(boxes, [[24, 32, 48, 40]], atol=0.5)
    boxes = codec.decode(moved(labels, 0, 9), SURE).boxes
    assert boxes is not None
    assert boxes[0, 0] + boxes[0, 2] <= W
    partial = codec.encode(np.full((1, 4), np.nan, np.float32), moved(labels, 1, -2))
    np.testing.assert_allclose(codec.decode(partial, SURE).boxes, [[24, 32, 48, 40]], atol=0.5)


def test_robust_line_ignores_outliers() -> None:
    """A third of the points moves differently."""
    generator = np.random.default_rng(0)
    source = generator.uniform(0, 10, 60)
    target = 1.2 * source + 3 + generator.normal(0, 0.02, 60)
    target[::3] = source[::3] - 2
    slope, shift = robust_line(source, target, np.ones(60))
    assert (slope, shift) == (pytest.approx(1.2, abs=0.02), pytest.approx(3, abs=0.1))
    assert robust_line(np.ones(5), np.full(5, 4.0), np.ones(5)) == (1.0, pytest.approx(3))


def test_texture_moves_with_its_cells() -> None:
    """Rendered where it was painted, and eight pixels further after one cell."""
    rgba = np.zeros((H, W, 4), dtype=np.uint8)
    y, x = np.mgrid[0:H, 0:W]
    painted = ellipse(70, 45, 36, 28)
    rgba[painted] = np.stack([x * 255 // W, y * 255 // H, x * 0, np.full_like(x, 255)], -1)[painted].astype(
        np.uint8
    )
    before = rgba.copy()
    codec = TextureCodec(rgba, PLAIN)
    labels = codec.encode(rgba)
    core = ellipse(70, 45, 26, 18)
    same = codec.decode(labels, SURE).texture
    assert same is not None
    assert np.abs(same[core].astype(int) - rgba[core]).max() <= 4
    assert same[~ellipse(70, 45, 44, 36)][:, 3].max() == 0
    shifted = codec.decode(moved(labels, 0, 1), SURE).texture
    assert shifted is not None
    assert np.abs(shifted[np.roll(core, 8, axis=1)].astype(int) - rgba[core]).max() <= 4
    assert codec.decode(torch.zeros_like(labels), SURE).confidence == {"texture": 0.0}
    np.testing.assert_array_equal(rgba, before)


def test_vfs_keypoints_come_back() -> None:
    """Drawn at the encoder's input size, read at the frame's: within half a cell; an empty map is not found."""
    for geometry in (PLAIN, SCALED):
        codec = KeypointCodec(["a", "b"], geometry, dialect="vfs")
        labels = codec.encode(np.array([[60.3, 40.9], [np.nan, np.nan]], dtype=np.float32))
        assert labels.shape == (2, *geometry.grid)
        result = codec.decode(labels, torch.full(geometry.grid, 0.8))
        assert result.keypoints is not None
        assert np.abs(result.keypoints[0] - [60.3, 40.9]).max() <= 4 * H / geometry.network[0]
        assert np.isnan(result.keypoints[1]).all()
        assert result.confidence == pytest.approx({"a": 0.8, "b": 0.0})


def test_unlabelled_keypoints_keep_what_arrived_in_every_dialect() -> None:
    """With the background of "crw" in front, the channels shift by one."""
    for dialect in ("exact", "crw", "vfs"):
        codec = KeypointCodec(["a", "b"], PLAIN, dialect=dialect)
        arrived = codec.encode(np.array([[60.3, 40.9], [101.0, 37.2]], dtype=np.float32))
        corrected = codec.encode(np.array([[20, 20], [np.nan, np.nan]], dtype=np.float32), arrived)
        torch.testing.assert_close(corrected[-1], arrived[-1])
        assert not torch.equal(corrected[-2], arrived[-2])


def test_masks_at_the_size_of_the_encoder() -> None:
    """Seed labels and results pass through the encoder's size by nearest neighbour: they consist of its pixels."""
    ids = np.zeros((H, W), dtype=np.uint8)
    ids[ellipse(50, 40, 40, 30)] = 2
    by_hand = nearest(ids, SCALED.network)
    codec = MaskCodec([2], SCALED, seed="nearest", seed_at="network", read_at="network")
    small = MaskCodec([2], replace(SCALED, frame=SCALED.network), seed="nearest")
    labels = codec.encode(ids)
    torch.testing.assert_close(labels, small.encode(by_hand))
    sure = torch.ones(SCALED.grid)
    masks = codec.decode(labels, sure).masks
    assert masks is not None
    np.testing.assert_array_equal(masks, nearest(small.decode(labels, sure).masks, SCALED.frame))
    assert iou(masks == 2, ids == 2) > 0.75


def test_small_objects_are_dropped() -> None:
    """Below `min_pixels` an object has no labels, and the background does not take its place."""
    ids = np.zeros((H, W), dtype=np.uint8)
    ids[10:40, 10:40] = 1
    ids[60:63, 60:63] = 2
    kept, dropped = (MaskCodec([1, 2], PLAIN, seed="bilinear", min_pixels=n).encode(ids) for n in (9, 10))
    assert kept[2].any()
    assert not dropped[2].any()
    torch.testing.assert_close(kept[:2], dropped[:2])


def test_coordinates_that_moved_say_where_they_came_from() -> None:
    """Every node reads its left and upper neighbour: minus one cell, edges of the frame too; no cover, no motion."""
    geometry = Geometry((60, 100), (120, 200), (15, 25), 8)  # frames at half the size that the encoder sees
    codec = CoordinateCodec(geometry)
    labels = codec.encode()
    np.testing.assert_allclose(codec.decode(labels), 0, atol=1e-5)
    moved = 0.5 * labels.roll((1, 1), dims=(1, 2))  # half of the weight is lost on the way
    np.testing.assert_allclose(codec.decode(moved)[8:, 8:], -4, atol=1e-4)
    assert (codec.decode(torch.zeros(3, 15, 25)) == 0).all()


def test_coordinates_smoothed_by_cover() -> None:
    """A node without labels takes the motion of its neighbours when it is smoothed, and none otherwise."""
    geometry = Geometry((120, 200), (120, 200), (15, 25), 8)
    labels = CoordinateCodec(geometry).encode().roll(1, dims=2)
    labels[:, 7, 12] = 0
    at = (7 * 8, 12 * 8)
    np.testing.assert_allclose(CoordinateCodec(geometry).decode(labels)[at], 0, atol=1e-4)
    np.testing.assert_allclose(CoordinateCodec(geometry, smooth=True).decode(labels)[at], [-8, 0], atol=1e-4)
