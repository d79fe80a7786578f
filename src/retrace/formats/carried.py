"""What a finished run carried, frame by frame, as the writers for labelling tools take it."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retrace.errors import RetraceError

EXPORTS = {
    "coco": "coco.json",
    "cvat": "cvat.xml",
    "labelstudio": "labelstudio.json",
    "deeplabcut": "deeplabcut.csv",
    "deeplabcut-labels": "CollectedData_retrace.csv",
}
"""Labelling tool -> the file that `retrace data export` makes of a finished run."""


@dataclass(frozen=True)
class CarriedFrame:
    """One frame of a result.

    Attributes:
        index: position in the video, from 0.
        name: file stem of the frame, "%05d" in a video.
        file: what the tool calls the frame's image.
        time: seconds since the first frame.
        confidence: as many numbers in 0..1 as the result has names.
        masks: (H, W) uint8 ids, for masks and parts.
        keypoints: (K, 2) float64 pixels, NaN when not found.
        boxes: (N, 4) float64 pixels x, y, w, h, NaN when lost.
    """

    index: int
    name: str
    file: str
    time: float
    confidence: tuple[float, ...]
    masks: NDArray[np.uint8] | None = None
    keypoints: NDArray[np.float64] | None = None
    boxes: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Carried:
    """A result.

    Attributes:
        kind: "mask", "keypoints" or "boxes"; parts are masks.
        names: what the tool shall call each object, keypoint or box; objects may share a name.
        ids: of the objects in the masks, one per name; empty for the other kinds.
        skeleton: pairs of keypoint positions.
        video: what the tool calls the video, and None where the frames are images by themselves.
        size: (H, W) of the frames.
        fps: frames per second.
        images: (index, file) of every frame, in order.
        frames: reads the frames, in order; each call begins anew.
    """

    kind: Literal["mask", "keypoints", "boxes"]
    names: tuple[str, ...]
    ids: tuple[int, ...]
    skeleton: tuple[tuple[int, int], ...]
    video: str | None
    size: tuple[int, int]
    fps: float
    images: tuple[tuple[int, str], ...]
    frames: Callable[[], Iterator[CarriedFrame]]

    @property
    def labels(self) -> tuple[str, ...]:
        """The names, each once, in order."""
        return tuple(dict.fromkeys(self.names))

    @property
    def length(self) -> int:
        """Frames of the video up to the last one of the result."""
        return self.images[-1][0] + 1


def objects(carried: Carried, frame: CarriedFrame) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """(position in `carried.names`, mask (H, W)) of the objects that a frame has."""
    assert frame.masks is not None
    for position, identity in enumerate(carried.ids):
        mask = frame.masks == identity
        if mask.any():
            yield position, mask


def found(rows: NDArray[np.float64]) -> Iterator[tuple[int, list[float]]]:
    """(position, row) of the keypoints or boxes that are not lost."""
    for position, row in enumerate(rows.tolist()):
        if all(map(np.isfinite, row)):
            yield position, row


def check_xml(texts: Iterable[str], what: str) -> None:
    """Errors: RetraceError for characters that XML cannot hold."""
    for text in texts:
        if re.search(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text):
            raise RetraceError(
                f"The {what} {text!r} holds characters that XML cannot hold. Rename it with --rename."
            )


def renamed(names: Iterable[str], changes: Mapping[str, str]) -> tuple[str, ...]:
    """The names with changes, old -> new, applied."""
    return tuple(changes.get(name, name) for name in names)
