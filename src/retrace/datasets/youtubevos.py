"""YouTube-VOS: several objects per video, which may begin in any frame.

    <split>/JPEGImages/<video>/%05d.jpg      every 5th frame; all of them under <split>_all_frames
    <split>/Annotations/<video>/%05d.png     palette; in `valid` only where objects begin
    <split>/meta.json                        {"videos": {video: {"objects": {id: {"frames": ["00000", ...]}}}}}

The truth of `valid` and `test` is on a server: their few masks are the labels that are handed out. `train` can
be scored here. An object begins in the first frame that meta.json names for it, or, without meta.json, whose mask
holds it.

Source: Xu et al., "YouTube-VOS: A Large-Scale Video Object Segmentation Benchmark", arXiv 1809.03327.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from retrace.datasets.masks import VOID, Ids, mask_sequence, odd_mask, read_ids
from retrace.datasets.reading import Progress, choose, find_root, gather, inspect, subfolders
from retrace.datasets.records import Dataset, Sequence
from retrace.errors import RetraceError

FOLDERS = ("YouTube-VOS", "YouTubeVOS", "youtubevos", "youtube-vos", "YTVOS")
SPLITS = ("valid", "train", "test")
LAYOUT = "valid/JPEGImages/<video>/00000.jpg, valid/Annotations/<video>/00000.png and valid/meta.json"


def load(root: Path, *, split: str = "valid", all_frames: bool = False) -> Dataset[Ids]:
    """Find the videos of a split.

    Args:
        root: the folder that holds `valid`, `train`, or the one it lies in.
        split: "valid", "train" or "test".
        all_frames: take the frames of `<split>_all_frames`, which has those between the annotated ones too.

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of YouTube-VOS", split, SPLITS)
    images = f"{split}_all_frames/JPEGImages" if all_frames else f"{split}/JPEGImages"
    root = find_root(root, [images, f"{split}/Annotations"], FOLDERS, LAYOUT)
    file, masks = root / split / "meta.json", root / split / "Annotations"
    notes: list[str] = []
    videos: dict[str, dict[int, str]] | None = None
    if file.exists():
        videos = _read_meta(file)
    else:
        notes = [f"There is no {file}; objects begin where a mask first holds them."]

    def make(name: str, note: Callable[[str], None]) -> Sequence[Ids]:
        def objects(files: dict[int, Path]) -> dict[int, int]:
            if videos is None:
                return _first_seen(files)
            frame_of = {path.stem: frame for frame, path in files.items()}
            begins = videos[name]
            lost = sorted(i for i, frame in begins.items() if frame not in frame_of)
            if lost:
                note(
                    f"objects {lost} begin in frames without a mask, such as {begins[lost[0]]}; they are left out."
                )
            found = {i: frame_of[frame] for i, frame in sorted(begins.items()) if i not in lost}
            if not found:
                raise RetraceError(f"No object of {name} has a mask in {masks / name}.")
            return found

        return mask_sequence(name, root / images / name, masks / name, note, objects=objects)

    names = subfolders(masks) if videos is None else sorted(videos)
    return gather("youtubevos", root, split, names, make, notes)


def check(
    root: Path, *, split: str = "valid", thorough: bool = False, progress: Progress[Ids] | None = None
) -> Dataset[Ids]:
    """Open every file of a split; see `datasets.reading.inspect`."""
    return inspect(load(root, split=split), odd_mask, thorough=thorough, progress=progress)


def _read_meta(file: Path) -> dict[str, dict[int, str]]:
    """Video -> object id -> name of the frame it begins in."""
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {
            video: {int(i): min(entry["frames"]) for i, entry in details["objects"].items()}
            for video, details in content["videos"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RetraceError(
            f"{file} is not the list of videos and objects that YouTube-VOS has ({error!r}). Download it again."
        ) from error


def _first_seen(files: dict[int, Path]) -> dict[int, int]:
    found: dict[int, int] = {}
    for frame, path in files.items():
        for i in np.unique(read_ids(path)).tolist():
            if i not in (0, VOID):
                found.setdefault(i, frame)
    if not found:
        raise RetraceError(f"The masks in {next(iter(files.values())).parent} hold no object.")
    return dict(sorted(found.items()))
