"""What a video is on disk: the record every other package receives, and the names that make a file or folder one.

A video is either a file (by its suffix) or a frame folder: a folder that holds images, played in natural
order of their names.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from retrace.errors import RetraceError

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
