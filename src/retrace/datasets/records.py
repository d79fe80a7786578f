"""What is on disk: the records every other package receives, and the names that make a file or folder a video.

A video is either a file (by its suffix) or a frame folder: a folder that holds images, played in natural
order of their names.

A benchmark is a `Dataset` of `Sequence`s, each with frames and a truth. Every reader gives positions as the whole
project does: (x, y) in pixels, the centre of the first pixel at (0.5, 0.5). What its files count otherwise is converted
where it is read.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrace.errors import RetraceError

Truth = TypeVar("Truth", covariant=True)

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp"}
    | {".wmv", ".flv", ".ogv"}
)
"""File names that a search for videos takes. A file that is given by name is opened whatever its suffix."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
"""File names that count as frames of a frame folder."""

FRAME_FOLDER_FPS = 24.0
"""Frames per second taken for a frame folder, which cannot say it: the rate of DAVIS."""


@dataclass(frozen=True)
class Video:
    """One video that can be read."""

    path: Path
    """A video file or a frame folder."""
    num_frames: int
    """Frames that can be read, at least 1."""
    height: int
    """Pixels, of the upright frame (rotation metadata applied)."""
    width: int
    """Pixels, of the upright frame."""
    fps: float
    """Frames per second, the average when the rate varies."""


@dataclass(frozen=True)
class Encoded:
    """Frames that came inside another file."""

    images: tuple[bytes, ...]
    """JPEG or PNG files."""


@dataclass(frozen=True)
class Made:
    """Frames that are computed when they are asked for."""

    make: Callable[[], NDArray[np.uint8]]
    """Gives (T, H, W, 3) RGB, the same every time."""


Frames = tuple[Path, ...] | Path | Encoded | Made | NDArray[np.uint8]
"""Where frames are: image files one by one, a video file or frame folder, memory (encoded, or (T, H, W, 3) RGB), or
nowhere yet."""


@dataclass(frozen=True)
class Sequence(Generic[Truth]):
    """One item of a benchmark: frames, and what is true in some of them. Nothing is read before it is asked for."""

    name: str
    """As the official lists name it; unique in its data set."""
    frames: Frames
    """Only the frames that belong to the item, in order; `video.decode.frames_of` reads them."""
    num_frames: int
    """How many."""
    size: tuple[int, int] | None
    """(H, W) of the picture that the truth's pixels are counted in; usually that of the frames, which may be stored
    smaller (BADJA). None: that of the frames, which nobody has looked at yet (video files)."""
    annotated: tuple[int, ...]
    """Frames that have a truth, increasing; frame numbers count `frames` from 0."""
    read: Callable[[int], Truth]
    """Reads the truth of an annotated frame. RetraceError when its file is damaged."""
    objects: Mapping[int, int]
    """What is followed -> the frame that hands out its label. Masks: object id, gaps counted. Keypoints, points, boxes:
    row of the truth, from 0. Empty where nothing is followed (optical flow)."""

    def truth(self, frame: int) -> Truth | None:
        """The truth of a frame; None where it is not annotated.

        Errors: RetraceError when its file cannot be read.
        """
        return self.read(frame) if frame in self.annotated else None


@dataclass(frozen=True)
class Problem:
    """Something of a data set that is missing or odd."""

    sentence: str
    """Names the file or folder, what it holds, what was expected."""
    sequence: str | None = None
    """Which sequence; None: the data set as a whole."""
    excluded: bool = False
    """The sequence cannot be evaluated and was left out."""


@dataclass(frozen=True)
class Dataset(Generic[Truth]):
    """What a reader found."""

    name: str
    """Of the benchmark."""
    root: Path
    """The folder that the layout begins at."""
    split: str
    """Which part."""
    sequences: tuple[Sequence[Truth], ...]
    """All that can be evaluated."""
    num_listed: int
    """How many sequences the part has; more than `sequences` where some were excluded."""
    problems: tuple[Problem, ...] = ()
    """Everything that is missing or odd."""


@dataclass(frozen=True)
class Points:
    """Keypoints, landmarks or tracked points of one frame."""

    xy: NDArray[np.float32]
    """(K, 2) pixels; NaN where there is no annotation."""
    visible: NDArray[np.bool_]
    """(K,) annotated, and not said to be hidden."""
    mask: NDArray[np.bool_] | None = None
    """(H, W) whole object, in its file's own size; None where the data set has none."""


@dataclass(frozen=True)
class Boxes:
    """Boxes of one frame."""

    xywh: NDArray[np.float64]
    """(N, 4) left, top, width, height in pixels; the left edge of the first pixel is 0."""
    absent: NDArray[np.bool_] | None = None
    """(N,) out of sight; None where the data set does not say."""
    cover: NDArray[np.int64] | None = None
    """(N,) visible share in eighths, 0 to 8; None where the data set does not say."""


@dataclass(frozen=True)
class Parts:
    """Human parts of one frame (VIP)."""

    classes: NDArray[np.uint8]
    """(H, W) part class, 0 = background; values of 20 and more are not scored."""
    instances: NDArray[np.uint16] | None
    """(H, W) part instance, 0 = none; None where the data set lacks it."""
    humans: NDArray[np.uint8] | None
    """(H, W) person, 0 = none; None likewise."""
    table: NDArray[np.int64] | None
    """(m, 2) id and class of every part instance; None likewise."""


@dataclass(frozen=True)
class Flow:
    """Where the pixels of frame 0 of a pair are in frame 1."""

    uv: NDArray[np.float32]
    """(H, W, 2) displacement x, y in pixels; 0 where not valid."""
    valid: NDArray[np.bool_]
    """(H, W) where the truth is known."""
    visible: NDArray[np.bool_] | None = None
    """(H, W) valid, and seen in both frames; None where the data set does not say."""


def natural_key(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """Sort key that puts frame2 before frame10; names that differ in leading zeros only are ordered by their text."""
    parts = [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", name.lower())]
    return [part for part in parts if part[1] != ""], name


def frame_files(folder: Path) -> list[Path]:
    """The images of a frame folder in natural order; empty when the folder holds none. Hidden files are not frames.

    Errors: RetraceError when two images share a stem (a.jpg and a.png), because outputs are named by it.
    """
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]
    files.sort(key=lambda file: natural_key(file.name))
    by_stem: dict[str, Path] = {}
    for file in files:
        other = by_stem.setdefault(file.stem, file)
        if other != file:
            raise RetraceError(
                f"{folder} holds both {other.name} and {file.name}, so it is not clear which one is the frame. "
                "Keep one image per frame name."
            )
    return files
