"""The tracker: its steps against loops and geometry, its boxes against scenes whose boxes are exact."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from retrace.encoders import EncoderConfig, load
from retrace.encoders.heads import SiamFCHead
from retrace.synthetic import SceneConfig, render
from retrace.tracking.carrier import SiamFC
from retrace.tracking.siamfc import (
    PROTOCOLS,
    SiamFCConfig,
    State,
    Tracker,
    on_target,
    resized,
    respond,
    similarity,
    start,
    track_boxes,
    update,
)
from retrace.walk.siamese import context_side, correlate, response_labels, square_crop


def iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Intersection over union of x, y, w, h."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    inter = float(np.prod(np.clip(high - low, 0, None)))
    return inter / float(np.prod(a[2:]) + np.prod(b[2:]) - inter)


def test_correlation_is_the_loop() -> None:
    """Each exemplar meets its own searches and no others."""
    generator = torch.Generator().manual_seed(0)
    exemplar = torch.randn(2, 3, 2, 4, generator=generator)
    search = torch.randn(2, 5, 3, 6, 7, generator=generator)
    out = correlate(exemplar, search)
    assert out.shape == (2, 5, 5, 4)
    for b, n, i, j in ((0, 0, 0, 0), (1, 4, 4, 3), (0, 3, 2, 1), (1, 0, 0, 2)):
        expected = (exemplar[b] * search[b, n, :, i : i + 2, j : j + 4]).sum()
        torch.testing.assert_close(out[b, n, i, j], expected)


def test_labels_of_a_response() -> None:
    """A diamond in the middle of an odd response, between cells of an even one."""
    odd = response_labels(5, 7, 1)
    assert odd.sum() == 5
    assert odd[2, 3] == odd[1, 3] == odd[2, 2] == 1
    even = response_labels(4, 6, 1)
    assert even.sum() == 4
    assert even[1:3, 2:4].all()


def test_side_of_the_square() -> None:
    """A square target of 40 with half of w + h as margin: 80."""
    assert context_side(40, 40) == 80
    assert context_side(30, 50, 0) == pytest.approx(math.sqrt(1500))


@pytest.mark.parametrize("rounding", ["vfs", "upstream"])
def test_a_crop_shows_what_is_there(rounding) -> None:
    """Inside, a crop at its own size is the image; outside is the mean colour; the image is not changed."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (3, 40, 60), generator=generator, dtype=torch.uint8)
    before = image.clone()
    inside = square_crop(image, (30, 20), 20, 20, rounding=rounding)
    torch.testing.assert_close(inside, image[:, 10:30, 20:40], rtol=0, atol=0)
    corner = square_crop(image, (0, 0), 20, 20, rounding=rounding)
    torch.testing.assert_close(corner[:, 10:, 10:], image[:, :10, :10], rtol=0, atol=0)
    mean = image.double().mean((1, 2)).round().to(torch.uint8)
    assert (corner[:, :10] == mean[:, None, None]).all()
    far = square_crop(image, (-200, 20), 20, 16, rounding=rounding)
    assert (far == (0 if rounding == "vfs" else mean[:, None, None])).all()
    assert torch.equal(image, before)
    floats = square_crop(image.float() / 255, (0, 0), 20, 20, rounding=rounding)
    torch.testing.assert_close(floats[:, 10:, 10:], image[:, :10, :10].float() / 255)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (2, -3), (-4, 5)])
def test_a_peak_moves_the_box_by_whole_cells(dy: int, dx: int) -> None:
    """A response with its peak d cells from the middle moves the box d * stride pixels of the crop."""
    config = SiamFCConfig(window_influence=0.0)
    responses = torch.zeros(3, 17, 17)
    responses[1, 8 + dy, 8 + dx] = 1.0
    state = State(100.0, 80.0, 30.0, 20.0, 50.0)
    moved, peak = update(state, responses, config)
    assert peak.scale == 1
    assert (moved.width, moved.height, moved.side) == (30, 20, 50)
    per_cell = config.stride * state.search_side(config) / config.search_size
    # the resized peak is at most half of its pixels off, and bicubic maxima lie between pixels
    tolerance = per_cell / config.response_up
    assert moved.x - state.x == pytest.approx(dx * per_cell, abs=tolerance)
    assert moved.y - state.y == pytest.approx(dy * per_cell, abs=tolerance)


def test_scales_are_penalised_and_damped() -> None:
    """Another scale must be better by the penalty; the size goes part of the way."""
    config = SiamFCConfig()
    state = State(100.0, 80.0, 30.0, 20.0, 50.0)
    peak = torch.zeros(17, 17)
    peak[8, 8] = 1
    stays, chosen = update(state, torch.stack([peak, peak, peak * 1.02]), config)
    assert (chosen.scale, stays.width) == (1, 30)
    grows, chosen = update(state, torch.stack([peak, peak, peak * 1.04]), config)
    assert chosen.scale == 2
    assert grows.width == pytest.approx(30 * (1 + 0.59 * 0.0375))
    assert grows.height / grows.width == pytest.approx(20 / 30)
    shrinks, chosen = update(state, torch.stack([peak * 1.04, peak, peak]), config)
    assert chosen.scale == 0
    assert shrinks.side < 50


def test_the_window_holds_the_target_back() -> None:
    """Of two equal peaks the one nearer to where the target was wins."""
    config = SiamFCConfig(num_scales=1)
    responses = torch.zeros(1, 17, 17)
    responses[0, 8, 9] = responses[0, 1, 1] = 1
    moved, _ = update(State(100.0, 80.0, 30.0, 20.0, 50.0), responses, config)
    assert moved.x > 100
    assert abs(moved.y - 80) < 1
    assert resized(responses, config).shape == (1, 272, 272)
    assert resized(responses[:, :10, :10], replace(config, response_size=None)).shape == (1, 160, 160)


def test_cells_on_the_target() -> None:
    """Half of a square exemplar's side is target; a tiny target still has its cell."""
    config = PROTOCOLS["default"]
    weight = on_target(start((50, 40, 60, 30), config), config, 15, 15)
    rows, columns = weight.sum(0).max(), weight.sum(1).max()
    assert rows < columns
    assert weight.sum() == rows * columns
    assert on_target(State(5, 5, 1, 1, 100), config, 15, 15).sum() == 1


def test_similarity_is_the_mean_cosine() -> None:
    """Exactly 1 where the exemplar itself lies, and the loop's value elsewhere."""
    generator = torch.Generator().manual_seed(2)
    search = torch.randn(6, 9, 8, generator=generator)
    exemplar = search[:, 3:6, 2:6].clone()
    weight = torch.zeros(3, 4)
    weight[1:, :3] = 1
    out = similarity(exemplar * 3, search, weight)
    assert out.shape == (7, 5)
    assert out[3, 2] == pytest.approx(1)
    cosines = torch.cosine_similarity(exemplar, search[:, 1:4, :4], dim=0)
    assert out[1, 0] == pytest.approx(float((cosines * weight).sum() / 6), abs=1e-6)


def test_respond_does_not_touch_its_input() -> None:
    """Weights and normalisation work on copies."""
    exemplar, search = torch.randn(1, 4, 3, 3), torch.randn(1, 2, 4, 5, 6)
    kept = exemplar.clone(), search.clone()
    respond(exemplar, search, PROTOCOLS["default"], weight=torch.zeros(3, 3))
    assert torch.equal(exemplar, kept[0])
    assert torch.equal(search, kept[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_scales": 2}, "num_scales is 2; expected an odd"),
        ({"exemplar_size": 300}, "exemplar_size is 300"),
        ({"window_influence": 1.5}, "window_influence is 1.5"),
    ],
)
def test_settings_that_do_not_exist(change, message) -> None:
    """Named, with what they may be."""
    with pytest.raises(ValueError, match=message):
        SiamFCConfig(**change)


def test_a_model_of_another_stride_is_refused() -> None:
    """The displacement per cell would be wrong."""
    with pytest.raises(ValueError, match="stride 16"):
        Tracker(
            load("random:resnet18", config=EncoderConfig(width=0.125, strides=(1, 2, 2, 1))),
            PROTOCOLS["default"],
        )


def test_boxes_of_made_scenes_are_followed() -> None:
    """Far better than leaving the box where it was, with the encoder that ships; confidence tells good from lost."""
    tracker = Tracker(load("default"), replace(PROTOCOLS["default"], num_scales=3))
    followed, copied = [], []
    for seed in (100, 105):
        scene = render(seed, SceneConfig(height=160, width=208, num_frames=12))
        boxes = scene.boxes.double().numpy()  # (T, N, 4) x0, y0, x1, y1
        largest = int(torch.stack([(scene.masks[0] == k + 1).sum() for k in range(boxes.shape[1])]).argmax())
        truth = np.concatenate([boxes[:, largest, :2], boxes[:, largest, 2:] - boxes[:, largest, :2]], axis=1)
        results = list(track_boxes(tracker, scene.frames, truth[0]))
        assert len(results) == len(truth)
        assert (results[0].boxes[0] == truth[0]).all()
        assert results[0].confidence[0] == 1
        followed += [iou(found.boxes[0], true) for found, true in zip(results[1:], truth[1:], strict=True)]
        copied += [iou(truth[0], true) for true in truth[1:]]
        assert all(0 <= found.confidence[0] <= 1 for found in results)
    assert np.mean(followed) > np.mean(copied) + 0.15


@pytest.fixture(scope="module")
def colours() -> Tracker:
    """A tracker on colours alone, which finds a coloured square exactly."""
    small = replace(PROTOCOLS["default"], exemplar_size=64, search_size=135, num_scales=1)
    return Tracker(load("lab-patches"), small)


def square(x: int, y: int, size: int = 24) -> torch.Tensor:
    """A textured red square on a textured green ground, 96 x 144; cut at the border."""
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 60, (96, 144), dtype=np.uint8))
    image = torch.stack([noise // 2, 120 + noise, noise // 2])
    image[:, max(y, 0) : max(y + size, 0), max(x, 0) : max(x + size, 0)] = torch.tensor([220, 30, 40])[
        :, None, None
    ]
    return image


def test_two_targets_and_a_correction(colours: Tracker) -> None:
    """Targets are independent; a row of NaN leaves one alone; what was never started is NaN."""
    frames = [square(30 + 3 * t, 40 - 2 * t) for t in range(6)]
    colours.start(frames[0], np.array([[30, 40, 24, 24], [100, 10, 20, 20], [np.nan] * 4], dtype=float))
    for image in frames[1:5]:
        found = colours.step(image)
    np.testing.assert_allclose(found.boxes[0, :2], [42, 32], atol=3)
    np.testing.assert_allclose(found.boxes[1, :2], [100, 10], atol=6)
    assert np.isnan(found.boxes[2]).all()
    assert found.confidence[2] == 0
    before = found.boxes[0].copy()
    colours.correct(frames[4], np.array([[np.nan] * 4, [42, 32, 24, 24], [np.nan] * 4]))
    found = colours.step(frames[5])
    np.testing.assert_allclose(found.boxes[1, :2], [45, 30], atol=3)
    np.testing.assert_allclose(found.boxes[0, :2], before[:2] + [3, -2], atol=3)


def test_a_target_that_leaves_the_frame_loses_confidence(colours: Tracker) -> None:
    """Boxes stay finite, the confidence falls; a target gone for good does not stop the tracker."""
    path = [(100 + 6 * t, 30) for t in range(14)]
    results = list(track_boxes(colours, [square(x, y) for x, y in path], (100, 30, 24, 24)))
    boxes = np.array([found.boxes[0] for found in results])
    confidence = np.array([found.confidence[0] for found in results])
    assert np.isfinite(boxes).all()
    assert boxes[3, 0] == pytest.approx(118, abs=4)
    assert confidence[:4].min() > 0.7
    assert confidence[-1] < 0.5


def test_the_carrier_gives_the_tracker_s_boxes(colours: Tracker) -> None:
    """Frames as arrays in, the same boxes out; a box that begins late is not there before."""
    frames = [square(30 + 3 * t, 40 - 2 * t) for t in range(5)]
    expected = [found.boxes[0] for found in track_boxes(colours, frames, (30, 40, 24, 24))]
    carrier = SiamFC(load("lab-patches"), colours.config)
    arrays = [image.permute(1, 2, 0).numpy() for image in frames]
    late = np.array([[np.nan] * 4, [100, 10, 20, 20]])
    given = {0: np.array([[30, 40, 24, 24], [np.nan] * 4]), 2: late}
    found = [finish() for finish in carrier.boxes(iter(arrays), given)]
    np.testing.assert_array_equal([boxes[0] for boxes in found], expected)
    assert np.isnan(found[1][1]).all()
    np.testing.assert_array_equal(found[2][1], late[1])
    np.testing.assert_allclose(found[4][1, :2], [100, 10], atol=6)


def test_a_head_of_another_map_is_refused(colours: Tracker) -> None:
    """It says both numbers."""
    with pytest.raises(ValueError, match="27 channels, its tracking head 5"):
        Tracker(load("lab-patches"), colours.config, head=SiamFCHead(5))
