"""DAVIS-2016: one object per video, a mask on every frame.

    DAVIS/JPEGImages/480p/<sequence>/%05d.jpg
    DAVIS/Annotations/480p/<sequence>/%05d.png      0 = background, everything else the object
    DAVIS/ImageSets/480p/{train,val,trainval}.txt   "/JPEGImages/480p/<sequence>/00000.jpg /Annotations/..." per frame,
    or DAVIS/ImageSets/2016/{train,val}.txt         one name per line (as unpacked with DAVIS-2017)

Every id above 0 becomes 1, so the annotations of DAVIS-2017 serve as well.

Source: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016.
"""

from pathlib import Path, PurePosixPath

import numpy as np

from retrace.datasets.masks import Ids, load_davis, odd_mask, read_ids
from retrace.datasets.reading import Progress, choose, find_root, inspect, read_lines, subfolders
from retrace.datasets.records import Dataset
from retrace.errors import RetraceError

FOLDERS = ("DAVIS", "DAVIS2016", "DAVIS-2016", "davis2016")
SPLITS = ("val", "train", "trainval", "all")
LAYOUT = (
    "JPEGImages/480p/<sequence>/00000.jpg, Annotations/480p/<sequence>/00000.png and ImageSets/480p/val.txt"
)


def load(root: Path, *, split: str = "val", resolution: str = "480p") -> Dataset[Ids]:
    """Find the sequences of a split.

    Args:
        root: the folder DAVIS, or the one it lies in.
        split: "val", "train", "trainval", or "all" folders there are.
        resolution: "480p", "1080p" or "Full-Resolution".

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of DAVIS-2016", split, SPLITS)
    images = f"JPEGImages/{resolution}"
    root = find_root(root, [images, f"Annotations/{resolution}"], FOLDERS, LAYOUT)
    names = _listed(root, split, images)
    return load_davis("davis2016", root, split, resolution, names, objects=_objects, change=merged)


def check(
    root: Path, *, split: str = "val", thorough: bool = False, progress: Progress[Ids] | None = None
) -> Dataset[Ids]:
    """Open every file of a split; see `datasets.reading.inspect`."""
    return inspect(load(root, split=split), odd_mask, thorough=thorough, progress=progress)


def merged(ids: Ids) -> Ids:
    """1 where there is any object."""
    return (ids > 0).astype(np.uint8)


def _listed(root: Path, split: str, images: str) -> tuple[list[str], list[str]]:
    folders = subfolders(root / images)
    if split == "all":
        return folders, []
    names: list[str] = []
    for part in split.replace("trainval", "train val").split():
        by_frame, by_name = (root / "ImageSets" / folder / f"{part}.txt" for folder in ("480p", "2016"))
        if by_frame.exists():
            names += dict.fromkeys(
                PurePosixPath(line.split()[0]).parent.name for line in read_lines(by_frame)
            )
        elif by_name.exists():
            names += read_lines(by_name)
        else:
            note = f"There is no {by_frame}; all {len(folders)} sequences in {images} are taken."
            return folders, [note]
    return names, []


def _objects(first: Path) -> dict[int, int]:
    if not read_ids(first).any():
        raise RetraceError(f"{first} is empty; expected the object to follow.")
    return {1: 0}
