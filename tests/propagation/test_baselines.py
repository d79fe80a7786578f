"""Baselines: copies stay, flow follows a motion that is known, at every kind of label."""

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrace.propagation.baselines import BASELINES, Flow, stand_in
from retrace.propagation.codecs import FrameLabels

H, W = 72, 104
SHIFT = (3, 1)  # pixels right and down, a frame
FLOWS = ["flow:dis", "flow:farneback"]


def ground() -> NDArray[np.uint8]:
    """A smooth random picture, larger than a frame."""
    noise = np.random.default_rng(0).integers(0, 256, (H + 60, W + 60, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 2.5) * 4.0 % 256, dtype=np.uint8)


def frame(t: int) -> NDArray[np.uint8]:
    """The picture moved t times by SHIFT."""
    x, y = 30 - SHIFT[0] * t, 30 - SHIFT[1] * t
    image = cv2.GaussianBlur(ground(), (0, 0), 1.0)
    return np.ascontiguousarray(image[y : y + H, x : x + W])


def square(t: int) -> NDArray[np.uint8]:
    """Object 3 beside object 7."""
    ids = np.zeros((H, W), dtype=np.uint8)
    y, x = 20 + SHIFT[1] * t, 20 + SHIFT[0] * t
    ids[y : y + 24, x : x + 20] = 3
    ids[y : y + 24, x + 20 : x + 44] = 7
    return ids


def carried(name: str, labels: FrameLabels, steps: int = 3) -> list[FrameLabels]:
    """What a baseline makes of the moving picture."""
    baseline = BASELINES[name]()
    baseline.start(frame(0), labels)
    return [baseline.step(frame(t)) for t in range(1, steps + 1)]


@pytest.mark.parametrize("name", FLOWS)
def test_masks_follow_the_flow(name: str) -> None:
    """Two touching objects keep their ids and their shape."""
    for t, found in enumerate(carried(name, FrameLabels(masks=square(0))), start=1):
        assert found.masks is not None
        for i in (3, 7):
            mine, truth = found.masks == i, square(t) == i
            assert (mine & truth).sum() / (mine | truth).sum() > 0.85
        assert set(np.unique(found.masks)) == {0, 3, 7}


@pytest.mark.parametrize("name", FLOWS)
def test_points_and_boxes_follow_the_flow(name: str) -> None:
    """To half a pixel; what was not labelled stays unknown."""
    points = np.array([[40.5, 30.5], [60.0, 44.0], [np.nan, np.nan]], dtype=np.float32)
    boxes = np.array([[30, 20, 30, 24], [np.nan] * 4], dtype=np.float32)
    for t, found in enumerate(carried(name, FrameLabels(keypoints=points)), start=1):
        np.testing.assert_allclose(found.keypoints, points + np.float32(t) * np.float32(SHIFT), atol=0.5)
    for t, found in enumerate(carried(name, FrameLabels(boxes=boxes)), start=1):
        np.testing.assert_allclose(found.boxes, boxes + np.array([*SHIFT, 0, 0]) * t, atol=0.7)


def test_a_texture_follows_the_flow() -> None:
    """Its paint is sampled where it comes from; its place moves, its colour stays."""
    texture = np.zeros((H, W, 4), dtype=np.uint8)
    texture[square(0) > 0] = (200, 100, 50, 255)
    last = carried("flow:dis", FrameLabels(texture=texture))[-1].texture
    assert last is not None
    inside, truth = last[..., 3] > 127, square(3) > 0
    assert (inside & truth).sum() / (inside | truth).sum() > 0.85
    np.testing.assert_allclose(last[inside].mean(0)[:3], [200, 100, 50], atol=2)


def test_a_copy_is_a_copy() -> None:
    """For ever."""
    for found in carried("copy", FrameLabels(masks=square(0))):
        assert found.masks is not None
        assert np.array_equal(found.masks, square(0))


def test_chained_flow_by_hand() -> None:
    """A flow that is known exactly: planes are read backwards, points go forwards, a box grows with its points."""

    def doubling(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> Any:
        ys, xs = np.mgrid[0:H, 0:W].astype(np.float32)
        out = np.stack([xs - 50, ys - 36], axis=2)
        return (
            out if source.mean() < target.mean() else -out / 2
        )  # forwards twice as large round (50.5, 36.5)

    dark, light = np.full((H, W, 3), 10, np.uint8), np.full((H, W, 3), 20, np.uint8)
    flow = Flow(doubling)
    flow.start(dark, FrameLabels(boxes=np.array([[45.5, 31.5, 10, 10]], np.float32)))
    np.testing.assert_allclose(flow.step(light).boxes, [[40.5, 26.5, 20, 20]], atol=1e-3)
    flow.start(dark, FrameLabels(keypoints=np.array([[52.5, 30.5]], np.float32)))
    np.testing.assert_allclose(flow.step(light).keypoints, [[54.5, 24.5]], atol=1e-4)
    ids = np.zeros((H, W), np.uint8)
    ids[31:42, 45:56] = 1
    flow.start(dark, FrameLabels(masks=ids))
    masks = flow.step(light).masks
    assert masks is not None
    rows, columns = np.nonzero(masks)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (26, 46, 40, 60)


@pytest.mark.parametrize("name", FLOWS)
def test_tiny_frames(name: str) -> None:
    """Flow has coarse levels; frames below them are enlarged for it."""
    baseline = BASELINES[name]()
    image = np.random.default_rng(0).integers(0, 255, (12, 17, 3), dtype=np.uint8)
    baseline.start(image, FrameLabels(keypoints=np.array([[5.5, 6.5]], np.float32)))
    np.testing.assert_allclose(baseline.step(image).keypoints, [[5.5, 6.5]], atol=0.2)


def test_what_stands_in_for_a_model() -> None:
    """Results name the baseline."""
    assert stand_in("flow:dis").name == "flow:dis"
