"""BADJA: joints of animals on about every fifth frame of DAVIS videos, and of a few other videos.

    joint_annotations/<video>.json       a list of {image_path, segmentation_path, joints, visibility}
    DAVIS/JPEGImages/Full-Resolution/<video>/%05d.jpg
    DAVIS/Annotations/Full-Resolution/<video>/%05d.png

Joints are (y, x) whole pixels of the full-resolution picture (1920x1080 for DAVIS), here (x + 0.5, y + 0.5) of the
same picture: `Sequence.size` is its size even where the frames are read at 480p or from `<video>.mp4` in the folder.
DAVIS may also lie beside the folder, as DAVIS, davis2017 or davis2016. Joints that are invisible and at (0, 0) are
not annotated. The joints to follow are those visible in the first annotated frame.

Source: Biggs et al., "Creatures Great and SMAL: Recovering the Shape and Motion of Animals from Video", ACCV 2018.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from retrace.datasets.masks import read_ids
from retrace.datasets.reading import Progress, choose, find_root, gather, image_size, images_of, inspect
from retrace.datasets.records import Dataset, Frames, Points, Sequence
from retrace.errors import RetraceError

FOLDERS = ("BADJA", "badja")
SPLITS = ("all",)
LAYOUT = "joint_annotations/<video>.json, and DAVIS in it or beside it"

FULL = (1080, 1920)
"""Height and width that joints of DAVIS videos are counted in."""


def load(root: Path, *, split: str = "all") -> Dataset[Points]:
    """Find the annotated videos.

    Args:
        root: the folder BADJA, or the one it lies in.
        split: "all".

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of BADJA", split, SPLITS)
    root = find_root(root, ["joint_annotations"], FOLDERS, LAYOUT)
    names = sorted(file.stem for file in (root / "joint_annotations").glob("*.json"))

    def make(name: str, note: Callable[[str], None]) -> Sequence[Points]:
        return _sequence(root, name, note)

    return gather("badja", root, split, names, make)


def check(
    root: Path, *, split: str = "all", thorough: bool = False, progress: Progress[Points] | None = None
) -> Dataset[Points]:
    """Open every file; see `datasets.reading.inspect`."""
    return inspect(load(root, split=split), _odd, thorough=thorough, progress=progress)


def _odd(sequence: Sequence[Points], frame: int, truth: Points) -> Iterator[str]:
    if truth.mask is None:
        yield "there is no mask; its area, which scales the error, is not known."
    height, width = sequence.size or FULL
    seen = truth.xy[truth.visible]
    if ((seen < 0) | (seen > (width, height))).any():
        yield f"a visible joint lies outside the {width}x{height} picture."


def _sequence(root: Path, name: str, note: Callable[[str], None]) -> Sequence[Points]:
    file = root / "joint_annotations" / f"{name}.json"
    entries = _read(file)
    frames, size, indices = _frames(root, name, [entry["image_path"] for entry in entries])
    of_frame: dict[int, dict[str, Any]] = {}
    for entry, index in zip(entries, indices, strict=True):
        if index is None:
            note(f"{entry['image_path']} in {file} has no frame; its joints are passed over.")
        else:
            of_frame[index] = entry
    if not of_frame:
        raise RetraceError(f"No frame that {file} names is there.")
    of_frame = dict(sorted(of_frame.items()))
    count = len(frames) if isinstance(frames, tuple) else max(of_frame) + 1

    def read(frame: int) -> Points:
        entry = of_frame[frame]
        visible = np.array(entry["visibility"], dtype=np.bool_)
        yx = np.array(entry["joints"], dtype=np.float32)
        xy = yx[:, ::-1] + np.float32(0.5)
        xy[~visible & (yx == 0).all(1)] = np.nan
        place = _find(root, entry["segmentation_path"])
        return Points(xy, visible, None if place is None else read_ids(place) > 0)

    start = next(iter(of_frame))
    followed = np.flatnonzero(of_frame[start]["visibility"]).tolist()
    return Sequence(name, frames, count, size, tuple(of_frame), read, dict.fromkeys(followed, start))


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        entries: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        for entry in entries:
            shape = np.array(entry["joints"], dtype=np.float64).shape
            if shape != (len(entry["visibility"]), 2):
                raise ValueError(f"joints {shape} and {len(entry['visibility'])} visibilities")
            str(entry["image_path"]), str(entry["segmentation_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RetraceError(
            f"{file} is not a list of annotated frames as BADJA has them ({error!r}). Download it again."
        ) from error
    if not entries:
        raise RetraceError(f"{file} is an empty list.")
    return entries


def _frames(root: Path, name: str, paths: list[str]) -> tuple[Frames, tuple[int, int], list[int | None]]:
    """Frames of a video, the size that joints are counted in, and which frame each annotated image is."""
    first = next((place for path in paths if (place := _find(root, path)) is not None), None)
    if first is not None:
        frames = images_of(first.parent)
        size = FULL if "480p" in first.parts else image_size(first)
        places = {file.stem: index for index, file in enumerate(frames)}
        return frames, size, [places.get(PurePosixPath(path).stem) for path in paths]
    video = root / f"{name}.mp4"
    if video.exists():  # its frame n is frame n of DAVIS
        return video, FULL, [int(PurePosixPath(path).stem) for path in paths]
    raise RetraceError(
        f"There are no frames for {name}: neither {root / paths[0]} (nor at 480p, nor beside {root}), nor {video}."
    )


def _find(root: Path, path: str) -> Path | None:
    """A file of the annotation: as named, at 480p, or in a DAVIS that lies beside the folder."""
    inner = PurePosixPath(path)
    below_davis = PurePosixPath(*inner.parts[1:])
    for candidate in (inner, *(PurePosixPath("..", davis, below_davis) for davis in _BESIDE)):
        for resolution in ("Full-Resolution", "480p"):
            place = root / str(candidate).replace("Full-Resolution", resolution)
            if place.exists():
                return place
    return None


_BESIDE = ("DAVIS", "davis2017", "davis2016")
