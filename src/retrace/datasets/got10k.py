"""GOT-10k: a box per frame of short videos; SiamFC is trained on pairs of its frames.

    train/list.txt                                one folder per line
    train/GOT-10k_Train_000001/%08d.jpg
    train/GOT-10k_Train_000001/groundtruth.txt    x, y, w, h per line; the first pixel is 1
    train/GOT-10k_Train_000001/absence.label      1 = out of sight
    train/GOT-10k_Train_000001/cover.label        visible share in eighths, 0 to 8

`frames` is the folder of a sequence, for a list of all images of `train` would fill memory; `frame_file` names one.
Boxes become x - 1, y - 1, w, h: the left edge of the first pixel is 0. In `test` the first box alone is public.

Source: Huang, Zhao, Huang, "GOT-10k", TPAMI 2019.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrace.datasets.reading import (
    Progress,
    choose,
    find_root,
    gather,
    image_size,
    images_of,
    inspect,
    read_lines,
    read_table,
    subfolders,
)
from retrace.datasets.records import Boxes, Dataset, Sequence
from retrace.errors import RetraceError

FOLDERS = ("GOT-10k", "GOT10k", "got10k", "full_data")
SPLITS = ("train", "val", "test")
LAYOUT = "train/list.txt, train/GOT-10k_Train_000001/00000001.jpg and groundtruth.txt beside it"


def load(root: Path, *, split: str = "train") -> Dataset[Boxes]:
    """Find the sequences of a split.

    Args:
        root: the folder that holds `train` and `val`, or the one it lies in.
        split: "train", "val" or "test".

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of GOT-10k", split, SPLITS)
    root = find_root(root, [split], FOLDERS, LAYOUT)
    file = root / split / "list.txt"
    if file.exists():
        names, notes = read_lines(file), []
    else:
        names = subfolders(root / split)
        notes = [f"There is no {file}; all {len(names)} folders are taken."]

    def make(name: str, note: Callable[[str], None]) -> Sequence[Boxes]:
        folder = root / split / name
        if not folder.is_dir():
            raise RetraceError(f"There is no folder {folder}.")
        boxes = read_table(folder / "groundtruth.txt", 4) - (1, 1, 0, 0)
        absence, cover = (_labels(folder / f"{kind}.label", len(boxes)) for kind in ("absence", "cover"))
        count = len(images_of(folder)) if split == "test" else len(boxes)
        if not frame_file(folder, count - 1).exists():
            raise RetraceError(
                f"{folder} has boxes for {count} frames, and no {frame_file(folder, count - 1).name}."
            )

        def read(frame: int) -> Boxes:
            return Boxes(
                boxes[frame][None],
                None if absence is None else absence[frame : frame + 1] > 0,
                None if cover is None else cover[frame : frame + 1],
            )

        size = image_size(frame_file(folder, 0))
        return Sequence(name, folder, count, size, tuple(range(len(boxes))), read, {0: 0})

    return gather("got10k", root, split, names, make, notes)


def check(
    root: Path, *, split: str = "train", thorough: bool = False, progress: Progress[Boxes] | None = None
) -> Dataset[Boxes]:
    """Open every file of a split; see `datasets.reading.inspect`."""
    return inspect(load(root, split=split), _odd, thorough=thorough, progress=progress)


def frame_file(folder: Path, frame: int) -> Path:
    """The image of a frame, counted from 0, of a sequence's folder."""
    return folder / f"{frame + 1:08d}.jpg"


def _odd(sequence: Sequence[Boxes], frame: int, truth: Boxes) -> list[str]:
    seen = truth.absent is None or not truth.absent[0]
    return (
        ["the target is in sight and its box has no size."] if seen and (truth.xywh[0, 2:] <= 0).any() else []
    )


def _labels(file: Path, count: int) -> NDArray[np.int64] | None:
    """One number per frame; None without the file."""
    if not file.exists():
        return None
    labels = read_table(file, 1)[:, 0].astype(np.int64)
    if len(labels) != count:
        raise RetraceError(
            f"{file} has {len(labels)} lines, groundtruth.txt beside it {count}. Download it again."
        )
    return labels
