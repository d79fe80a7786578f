"""Carrying labels without an encoder: copy them, or let classical optical flow move them. What encoders must beat.

A baseline works on the frames at their own size and reads nothing of a protocol. It is given a labelled frame (`start`)
and then every frame after it (`step`), and returns labels in the same form as the codecs of the propagation engine.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from retrace.encoders.model import Model
from retrace.propagation.codecs import Floats, FrameLabels

Image = NDArray[np.uint8]
SMALLEST = 32
"""Sides of frames below this, pixels, are enlarged to it for the flow, which has coarse levels."""


class Baseline(ABC):
    """Labels that go from frame to frame. Its confidence is 1 for what it carries and 0 for what was never there."""

    @abstractmethod
    def start(self, image: Image, labels: FrameLabels) -> None:
        """Begin with a labelled frame, or go on from a corrected one; what came before is forgotten.

        Args:
            image: (H, W, 3) uint8 RGB.
            labels: of one kind: masks, keypoints, boxes or texture.
        """

    @abstractmethod
    def step(self, image: Image) -> FrameLabels:
        """Labels of the next frame.

        Args:
            image: (H, W, 3) uint8 RGB, of the same size.
        """

    @abstractmethod
    def flow(self, image: Image, other: Image) -> Floats:
        """Where the pixels of a frame are in another one, whatever was begun.

        Args:
            image: (H, W, 3) uint8 RGB.
            other: of the same size.

        Returns: (H, W, 2) float32 displacement x, y, pixels.
        """


class Copy(Baseline):
    """The labels stay where they are."""

    def start(self, image: Image, labels: FrameLabels) -> None:
        """Keep them."""
        self._labels = labels

    def step(self, image: Image) -> FrameLabels:
        """The same again."""
        return self._labels

    def flow(self, image: Image, other: Image) -> Floats:
        """Nothing moves."""
        return np.zeros((*image.shape[:2], 2), np.float32)


class Flow(Baseline):
    """Labels moved by dense optical flow between neighbouring frames, chained.

    Masks are soft planes, read bilinearly where the flow from the new frame back to the old one points, and become ids
    by the largest plane, the background being what is left to 1. Keypoints go along the forward flow, read bilinearly.
    Boxes follow the median flow inside them and grow by the median ratio of distances (the median flow of Kalal et al.,
    2010). A texture keeps, for every pixel, where on the labelled frame it comes from.

    Args:
        estimate: grey images (source, target), both (H, W) uint8 -> flow (H, W, 2) float32, pixels (x, y).
    """

    def __init__(self, estimate: Callable[[Image, Image], Floats]) -> None:
        """See the class."""
        self._estimate = estimate

    def start(self, image: Image, labels: FrameLabels) -> None:
        """Take labels as soft planes and positions."""
        self._grey = _grey(image)
        self._labels = labels
        height, width = self._grey.shape
        self._xs, self._ys = np.meshgrid(
            np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
        )
        if labels.masks is not None:
            self._ids = np.unique(labels.masks[labels.masks > 0])
            self._planes = [(labels.masks == i).astype(np.float32) for i in self._ids]
        if labels.texture is not None:
            self._home = np.stack(
                [self._xs, self._ys], axis=2
            )  # (H, W, 2): array position on the labelled frame

    def step(self, image: Image) -> FrameLabels:
        """Move them to this frame."""
        before, self._grey = self._grey, _grey(image)
        old = self._labels
        if old.masks is not None:
            new = self._masks(self._flow(self._grey, before), old)
        elif old.texture is not None:
            new = self._texture(self._flow(self._grey, before), old)
        else:
            new = self._positions(self._flow(before, self._grey), old)
        self._labels = FrameLabels(old.masks, new.keypoints, new.boxes, old.texture)
        return new

    def flow(self, image: Image, other: Image) -> Floats:
        """As estimated."""
        return self._flow(_grey(image), _grey(other))

    def _flow(self, source: Image, target: Image) -> Floats:
        height, width = source.shape
        if min(height, width) >= SMALLEST:
            return self._estimate(source, target)
        size = (max(width, SMALLEST), max(height, SMALLEST))
        large = [
            cv2.resize(one, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8) for one in (source, target)
        ]
        flow = cv2.resize(self._estimate(*large), (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(flow * [width / size[0], height / size[1]], dtype=np.float32)

    def _masks(self, back: Floats, old: FrameLabels) -> FrameLabels:
        x, y = self._xs + back[..., 0], self._ys + back[..., 1]
        self._planes = [_sample(plane, x, y) for plane in self._planes]
        best = 1 - np.sum(self._planes, axis=0) if self._planes else np.ones_like(x)
        masks = np.zeros(best.shape, dtype=np.uint8)
        for i, plane in zip(self._ids, self._planes, strict=True):
            better = plane > best
            masks[better] = i
            best = np.maximum(best, plane)
        return FrameLabels(masks=masks)

    def _texture(self, back: Floats, old: FrameLabels) -> FrameLabels:
        x, y = self._xs + back[..., 0], self._ys + back[..., 1]
        self._home = _sample(self._home, x, y)
        assert old.texture is not None
        paint = old.texture.astype(np.float32)
        paint[..., :3] *= paint[..., 3:] / 255  # premultiplied, so that edges do not take colour from nothing
        found = _sample(paint, self._home[..., 0], self._home[..., 1])
        found[..., :3] *= 255 / np.maximum(found[..., 3:], 1e-6)
        return FrameLabels(texture=np.clip(np.rint(found), 0, 255).astype(np.uint8))

    def _positions(self, forward: Floats, old: FrameLabels) -> FrameLabels:
        if old.keypoints is not None:
            return FrameLabels(keypoints=_moved(old.keypoints, forward))
        assert old.boxes is not None
        return FrameLabels(boxes=np.stack([_followed(box, forward) for box in old.boxes]).astype(np.float32))


def _moved(points: Floats, forward: Floats) -> Floats:
    """Points (K, 2) in pixels, first pixel's centre at 0.5, along the flow under them; NaN stays."""
    x, y = (np.nan_to_num(points[:, axis : axis + 1] - 0.5).astype(np.float32) for axis in (0, 1))
    moved: Floats = points + _sample(forward, x, y)[:, 0]
    return moved


def _followed(box: Floats, forward: Floats) -> Floats:
    """A box (x, y, w, h) moved and scaled by the flow inside it; NaN stays."""
    if not np.isfinite(box).all():
        return box
    x, y, w, h = (float(value) for value in box)
    across, down = np.meshgrid(x + w * (np.arange(10) + 0.5) / 10, y + h * (np.arange(10) + 0.5) / 10)
    points = np.stack([across.ravel(), down.ravel()], axis=1).astype(np.float32)  # (100, 2)
    moved = _moved(points, forward)
    shift = np.median(moved - points, axis=0)
    pairs = np.triu_indices(len(points), 1)
    before, after = (np.linalg.norm(them[pairs[0]] - them[pairs[1]], axis=1) for them in (points, moved))
    scale = float(np.median(after / before))
    centre = np.array([x + w / 2, y + h / 2]) + shift
    size = np.array([w, h]) * scale
    return np.concatenate([centre - size / 2, size]).astype(np.float32)


def _dis(source: Image, target: Image) -> Floats:
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(dis.calc(source, target, np.empty((0, 0), np.float32)), dtype=np.float32)


def _farneback(source: Image, target: Image) -> Floats:
    flow = cv2.calcOpticalFlowFarneback(
        source,
        target,
        np.empty((0, 0), np.float32),
        pyr_scale=0.5,
        levels=5,
        winsize=15,
        iterations=3,
        poly_n=5,
        poly_sigma=1.2,
        flags=0,
    )
    return np.asarray(flow, dtype=np.float32)


def _grey(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _sample(field: Floats, x: Floats, y: Floats) -> Floats:
    """Bilinear reading of an array (H, W, ...) at array positions x, y, the edge repeated outside."""
    read = cv2.remap(field, x, y, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(read, dtype=np.float32)


BASELINES: dict[str, Callable[[], Baseline]] = {
    "copy": Copy,
    "flow:dis": lambda: Flow(_dis),
    "flow:farneback": lambda: Flow(_farneback),
}


def stand_in(name: str) -> Model:
    """What results write as the model of a baseline: its name, no weights, pixels for nodes."""
    return Model(
        nn.Identity(), name, 1, 3, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), card={"method": f"baseline {name}"}
    )
