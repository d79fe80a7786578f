"""Drawings: where colour must be, where it must not, and every size."""

import numpy as np
import pytest

from retrace.propagation.codecs import FrameLabels
from retrace.viz.overlay import Overlay, colour_of


def grey(height: int, width: int) -> np.ndarray:
    """A flat frame."""
    return np.full((height, width, 3), 100, dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(120, 200), (33, 51), (480, 854), (2160, 3840), (3, 5)])
def test_masks_of_every_size(height: int, width: int) -> None:
    """Objects are tinted, the rest of the frame stays, the input too."""
    image = grey(height, width)
    masks = np.zeros((height, width), dtype=np.uint8)
    masks[height // 3 : 2 * height // 3 + 1, width // 2 :] = 7
    drawn = Overlay(["3", "7"]).draw(
        image, FrameLabels(masks=masks, confidence={"3": 0.0, "7": 0.9}), index=1, time=0.1
    )
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert (image == 100).all()
    assert (drawn[height // 2, 3 * width // 4] != 100).any()
    plain = Overlay(["3", "7"], legend=False).draw(image, FrameLabels(masks=masks), index=1, time=0.1)
    if height > 100:
        assert (plain[: height // 4, : width // 4] == 100).all()
        assert (drawn[: height // 8, : width // 8] != 100).any()


def test_keypoints_boxes_and_texture() -> None:
    """Found ones are drawn in their colour, lost ones are not; paint is laid on."""
    image = grey(120, 200)
    points = np.array([[60.5, 50.5], [140.5, 50.5], [np.nan, np.nan]], dtype=np.float32)
    drawn = Overlay(["a", "b", "c"], skeleton=[(0, 1), (1, 2)], legend=False).draw(
        image, FrameLabels(keypoints=points, confidence={"a": 0.9, "b": 0.2, "c": 0}), index=0, time=0
    )
    assert tuple(drawn[50, 60]) == colour_of(0)
    assert drawn[50, 140].max() < 60, "a doubtful keypoint is hollow"
    assert (drawn[50, 100] > 200).all(), "the bone between them"
    boxes = np.array([[20.5, 30.5, 100, 60], [np.nan] * 4], dtype=np.float32)
    drawn = Overlay(["a", "b"], legend=False).draw(image, FrameLabels(boxes=boxes), index=0, time=0)
    assert np.abs(drawn[60, 20].astype(int) - colour_of(0)).max() < 60
    assert (drawn[60, 70] == 100).all()
    side = drawn[31:90, 20].astype(int)
    assert (np.abs(side - 100).max(1) > 20).all(), "a line without gaps"
    doubtful = FrameLabels(boxes=boxes, confidence={"a": 0.3})
    dashed = Overlay(["a", "b"], legend=False).draw(image, doubtful, index=0, time=0)[31:90, 20].astype(int)
    assert 0.3 < (np.abs(dashed - 100).max(1) > 20).mean() < 0.8, "a doubtful box is dashed"
    rgba = np.zeros((120, 200, 4), dtype=np.uint8)
    rgba[40:60, 50:80] = (250, 0, 0, 128)
    drawn = Overlay(["texture"], legend=False).draw(image, FrameLabels(texture=rgba), index=0, time=0)
    assert drawn[50, 60].tolist() == pytest.approx([175, 50, 50], abs=1)


def test_many_names_fit() -> None:
    """A long list is cut, long names too."""
    names = [f"a very long keypoint name number {k}" for k in range(60)]
    points = np.full((60, 2), 30, dtype=np.float32)
    labels = FrameLabels(keypoints=points, confidence=dict.fromkeys(names, 0.5))
    assert Overlay(names).draw(grey(300, 500), labels, index=10**6, time=1e4).shape == (300, 500, 3)


def test_colours_stay_apart() -> None:
    """Thirty objects, thirty colours."""
    assert len({colour_of(k) for k in range(30)}) == 30
