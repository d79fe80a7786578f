"""DAVIS-2017: several objects per video, a mask of ids on every frame.

    DAVIS/JPEGImages/480p/<sequence>/%05d.jpg
    DAVIS/Annotations/480p/<sequence>/%05d.png      palette; 0 = background, 255 = void
    DAVIS/ImageSets/2017/{train,val}.txt            one name per line

The number of objects is the largest id of the first mask after void became background; ids in the gaps below it count
as objects, ids that appear later do not. Masks keep 255.

Source: Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation", arXiv 1704.00675.
"""

from collections.abc import Callable
from pathlib import Path

from retrace.datasets.masks import Ids, largest_id, load_davis, odd_mask, read_ids
from retrace.datasets.reading import (
    Progress,
    choose,
    find_root,
    gather,
    image_size,
    images_of,
    inspect,
    read_lines,
    subfolders,
)
from retrace.datasets.records import Dataset, Sequence
from retrace.errors import RetraceError

FOLDERS = ("DAVIS", "DAVIS2017", "DAVIS-2017", "davis2017")
SPLITS = ("val", "train", "trainval", "all")
LAYOUT = (
    "JPEGImages/480p/<sequence>/00000.jpg, Annotations/480p/<sequence>/00000.png and ImageSets/2017/val.txt"
)


def load(root: Path, *, split: str = "val", resolution: str = "480p") -> Dataset[Ids]:
    """Find the sequences of a split.

    Args:
        root: the folder DAVIS, or the one it lies in.
        split: "val", "train", "trainval", or "all" folders there are.
        resolution: "480p" or "Full-Resolution".

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of DAVIS-2017", split, SPLITS)
    images = f"JPEGImages/{resolution}"
    root = find_root(root, [images, f"Annotations/{resolution}"], FOLDERS, LAYOUT)
    names = listed(root, split, images)
    return load_davis("davis2017", root, split, resolution, names, objects=_objects)


def load_frames(root: Path, *, split: str = "val", resolution: str = "480p") -> Dataset[None]:
    """Find the sequences of a split whose frames are all that is asked for; masks need not be there.

    Args:
        root: the folder DAVIS, or the one it lies in.
        split: "val", "train", "trainval", or "all" folders there are.
        resolution: "480p" or "Full-Resolution".

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of DAVIS-2017", split, SPLITS)
    images = f"JPEGImages/{resolution}"
    root = find_root(root, [images], FOLDERS, LAYOUT.partition(",")[0])
    names, notes = listed(root, split, images)

    def make(name: str, note: Callable[[str], None]) -> Sequence[None]:
        frames = images_of(root / images / name)
        return Sequence(name, frames, len(frames), image_size(frames[0]), (), lambda frame: None, {})

    return gather("davis2017", root, split, names, make, notes)


def check(
    root: Path, *, split: str = "val", thorough: bool = False, progress: Progress[Ids] | None = None
) -> Dataset[Ids]:
    """Open every file of a split; see `datasets.reading.inspect`."""
    return inspect(load(root, split=split), odd_mask, thorough=thorough, progress=progress)


def listed(root: Path, split: str, images: str) -> tuple[list[str], list[str]]:
    """Names of a split, and sentences about its list; without a list every folder of `images`."""
    folders = subfolders(root / images)
    if split == "all":
        return folders, []
    lists = [
        root / "ImageSets" / "2017" / f"{part}.txt" for part in split.replace("trainval", "train val").split()
    ]
    missing = [file for file in lists if not file.exists()]
    if missing:
        return folders, [f"There is no {missing[0]}; all {len(folders)} sequences in {images} are taken."]
    return [name for file in lists for name in read_lines(file)], []


def _objects(first: Path) -> dict[int, int]:
    number = largest_id(read_ids(first))
    if number == 0:
        raise RetraceError(
            f"{first} holds no object: only 0 and 255. Where 255 is the object, this is DAVIS-2016: use davis2016."
        )
    return dict.fromkeys(range(1, number + 1), 0)
