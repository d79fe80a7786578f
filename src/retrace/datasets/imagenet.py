"""ImageNet (ILSVRC 2012) and every other folder of classes: pictures sorted into one folder per class.

    train/<class>/*.JPEG
    val/<class>/*.JPEG

A class is a `Sequence` of pictures, its truth on each of them the number of the class in the order of names.
`frames` is the folder; pictures have any size.

Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015.
"""

from collections.abc import Callable
from pathlib import Path

from retrace.datasets.reading import Progress, choose, find_root, gather, images_of, inspect, subfolders
from retrace.datasets.records import Dataset, Sequence, frame_files
from retrace.errors import RetraceError

FOLDERS = ("ImageNet", "imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC")
SPLITS = ("val", "train")
LAYOUT = "train/<class>/*.JPEG and val/<class>/*.JPEG, such as val/n01440764/ILSVRC2012_val_00000293.JPEG"


def load(root: Path, *, split: str = "val") -> Dataset[int]:
    """Find the classes of a split.

    Args:
        root: the folder that holds `train` and `val`, or the one it lies in.
        split: "val" or "train".

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of ImageNet", split, SPLITS)
    root = find_root(root, [split], FOLDERS, LAYOUT)
    names = sorted(subfolders(root / split))
    if not names:
        loose = len(frame_files(root / split))
        raise RetraceError(
            f"{root / split} holds no folder per class{f', but {loose} images side by side' if loose else ''}. Sort "
            "them into folders of their classes; the development kit of ILSVRC says which image has which."
        )

    def make(name: str, note: Callable[[str], None]) -> Sequence[int]:
        folder = root / split / name
        count, number = len(images_of(folder)), names.index(name)
        return Sequence(name, folder, count, None, tuple(range(count)), lambda _: number, {})

    return gather("imagenet", root, split, names, make)


def check(
    root: Path, *, split: str = "val", thorough: bool = False, progress: Progress[int] | None = None
) -> Dataset[int]:
    """Open every picture; see `datasets.reading.inspect`."""
    return inspect(
        load(root, split=split), lambda *_: (), thorough=thorough, one_size=False, progress=progress
    )
