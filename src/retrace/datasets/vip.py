"""VIP (Video Instance-level Parsing): parts of several people, on one frame in 25.

    VIP_Fine/Images/videos<n>/%012d.jpg
    VIP_Fine/Annotations/Category_ids/videos<n>/%012d.png     part class, 0 = background, 1 to 19
    VIP_Fine/Annotations/Instance_ids/videos<n>/%012d.png     part instance, 0 = none
    VIP_Fine/Annotations/Human_ids/videos<n>/%012d.png        person, 0 = none
    lists/{train,val}_videos.txt                              one folder per line, in VIP_Fine or beside it

The class of an instance is the class of most of its pixels. Without the last two folders classes can be scored, and
instances cannot.

Source: Zhou et al., "Adaptive Temporal Encoding Network for Video Instance-level Human Parsing", ACM MM 2018.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrace.datasets.masks import VOID, read_ids, read_levels
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
from retrace.datasets.records import Dataset, Parts, Sequence
from retrace.errors import RetraceError

FOLDERS = ("VIP_Fine", "VIP", "VIP/VIP_Fine", "vip")
SPLITS = ("val", "train", "all")
LAYOUT = (
    "Images/videos<n>/000000000001.jpg, Annotations/Category_ids/videos<n>/000000000001.png and "
    "lists/val_videos.txt"
)
CLASSES = 20
"""Background included."""


def load(root: Path, *, split: str = "val") -> Dataset[Parts]:
    """Find the videos of a split.

    Args:
        root: the folder VIP_Fine, or the one it lies in.
        split: "val", "train", or "all" videos there are.

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of VIP", split, SPLITS)
    root = find_root(root, ["Images", "Annotations/Category_ids"], FOLDERS, LAYOUT)
    masks = root / "Annotations"
    names, notes = _listed(root, split)
    instances = all((masks / kind).is_dir() for kind in ("Instance_ids", "Human_ids"))
    if not instances:
        notes.append(f"{masks} has no Instance_ids and Human_ids; only classes can be scored.")

    def make(name: str, note: Callable[[str], None]) -> Sequence[Parts]:
        frames = images_of(root / "Images" / name)
        there = {f.stem for f in images_of(masks / "Category_ids" / name)}
        annotated = tuple(index for index, file in enumerate(frames) if file.stem in there)
        lost = sorted(there - {file.stem for file in frames})
        if lost:
            note(
                f"{len(lost)} annotations of {name} have no frame, the first is {lost[0]}; they are passed over."
            )
        if not annotated:
            raise RetraceError(f"No annotation in {masks / 'Category_ids' / name} has the name of a frame.")

        def read(frame: int) -> Parts:
            file = f"{name}/{frames[frame].stem}.png"
            classes = read_ids(masks / "Category_ids" / file)
            if not instances:
                return Parts(classes, None, None, None)
            ids = read_levels(masks / "Instance_ids" / file)
            humans = read_ids(masks / "Human_ids" / file)
            if not ids.shape == humans.shape == classes.shape:
                raise RetraceError(
                    f"The maps of {file} have the shapes {classes.shape}, {ids.shape} and {humans.shape} in "
                    "Category_ids, Instance_ids and Human_ids; expected one. Download them again."
                )
            return Parts(classes, ids, humans, instance_table(ids, classes))

        first = read(annotated[0]).classes
        present = [int(c) for c in np.unique(first) if 0 < c < CLASSES]
        if not present:
            raise RetraceError(f"The first annotation of {name} holds no part.")
        return Sequence(
            name,
            frames,
            len(frames),
            (first.shape[0], first.shape[1]),
            annotated,
            read,
            dict.fromkeys(present, annotated[0]),
        )

    return gather("vip", root, split, names, make, notes)


def check(
    root: Path, *, split: str = "val", thorough: bool = False, progress: Progress[Parts] | None = None
) -> Dataset[Parts]:
    """Open every file of a split; see `datasets.reading.inspect`."""
    return inspect(load(root, split=split), _odd, thorough=thorough, progress=progress)


def instance_table(ids: NDArray[np.uint16], classes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(m, 2) id and class of every instance: the class that most of its pixels have, the lower one of two."""
    pairs, counts = np.unique(ids.astype(np.int64) * 256 + classes, return_counts=True)
    best: dict[int, int] = {}
    for place in np.lexsort((pairs, -counts)):
        instance, part = divmod(int(pairs[place]), 256)
        best.setdefault(instance, part)
    rows = [row for row in sorted(best.items()) if row[0] > 0]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def _odd(sequence: Sequence[Parts], frame: int, truth: Parts) -> Iterator[str]:
    wrong = sorted({int(c) for c in np.unique(truth.classes)} - set(range(CLASSES)) - {VOID})
    if wrong:
        yield f"classes {wrong}; expected 0 to {CLASSES - 1}, or {VOID}. They are not scored."
    assert isinstance(sequence.frames, tuple)
    if (size := image_size(sequence.frames[frame])) != truth.classes.shape:
        height, width = truth.classes.shape
        yield f"the annotation is {width}x{height}, the frame {size[1]}x{size[0]} pixels."


def _listed(root: Path, split: str) -> tuple[list[str], list[str]]:
    folders = subfolders(root / "Images")
    if split == "all":
        return folders, []
    lists = [folder / "lists" / f"{split}_videos.txt" for folder in (root, root.parent)]
    file = next((file for file in lists if file.exists()), None)
    if file is None:
        return folders, [f"There is no {lists[0]}; all {len(folders)} videos in Images are taken."]
    return [Path(line).name for line in read_lines(file)], []
