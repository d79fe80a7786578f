"""OTB-50 and OTB-100 (object tracking benchmark): a box per frame.

    <Sequence>/img/%04d.jpg
    <Sequence>/groundtruth_rect.txt       x, y, w, h per line, split by commas, tabs or spaces; the first pixel is 1
    <Sequence>/groundtruth_rect.{1,2}.txt of sequences with two targets (Jogging, Skating2)

A sequence with two targets is two here, Jogging.1 and Jogging.2; of Human4, whose first file is empty, it is the second
file that counts. Five sequences are annotated in part of their frames
only (`RANGES`, numbers of image files). Boxes become x - 1, y - 1, w, h: the left edge of the first pixel is 0.

Source: Wu, Lim, Yang, "Object Tracking Benchmark", TPAMI 2015; the ranges are those of its tracker_benchmark code.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from retrace.datasets.reading import (
    Progress,
    choose,
    find_root,
    gather,
    image_size,
    images_of,
    inspect,
    read_table,
)
from retrace.datasets.records import Boxes, Dataset, Sequence
from retrace.errors import RetraceError

FOLDERS = ("OTB100", "OTB-100", "OTB2015", "OTB50", "OTB")
SPLITS = ("otb100", "otb50")
LAYOUT = "<Sequence>/img/0001.jpg and <Sequence>/groundtruth_rect.txt, such as Basketball/img/0001.jpg"

OTB50 = (
    *("Basketball", "Biker", "Bird1", "BlurBody", "BlurCar2", "BlurFace", "BlurOwl", "Bolt", "Box", "Car1"),
    *("Car4", "CarDark", "CarScale", "ClifBar", "Couple", "Crowds", "David", "Deer", "Diving", "DragonBaby"),
    *("Dudek", "Football", "Freeman4", "Girl", "Human3", "Human4", "Human6", "Human9", "Ironman", "Jump"),
    *("Jumping", "Liquor", "Matrix", "MotorRolling", "Panda", "RedTeam", "Shaking", "Singer2", "Skating1"),
    *("Skating2", "Skiing", "Soccer", "Surfer", "Sylvester", "Tiger2", "Trellis", "Walking", "Walking2"),
    "Woman",
)
"""Folders; Skating2 has two targets."""

OTB100 = OTB50 + (
    *(
        "Bird2",
        "BlurCar1",
        "BlurCar3",
        "BlurCar4",
        "Board",
        "Bolt2",
        "Boy",
        "Car2",
        "Car24",
        "Coke",
        "Coupon",
    ),
    *("Crossing", "Dancer", "Dancer2", "David2", "David3", "Dog", "Dog1", "Doll", "FaceOcc1", "FaceOcc2"),
    *("Fish", "FleetFace", "Football1", "Freeman1", "Freeman3", "Girl2", "Gym", "Human2", "Human5", "Human7"),
    *("Human8", "Jogging", "KiteSurf", "Lemming", "Man", "Mhyang", "MountainBike", "Rubik", "Singer1"),
    *("Skater", "Skater2", "Subway", "Suv", "Tiger1", "Toy", "Trans", "Twinnings", "Vase"),
)
"""Folders; Jogging and Skating2 have two targets."""

TWO_TARGETS = ("Jogging", "Skating2")

RANGES = {
    "David": (300, 770),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
    "Diving": (1, 215),
}
"""First and last image number that counts."""


def load(root: Path, *, split: str = "otb100") -> Dataset[Boxes]:
    """Find the sequences.

    Args:
        root: the folder of the sequences.
        split: "otb100" or "otb50".

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of OTB", split, SPLITS)
    root = find_root(root, [], FOLDERS, LAYOUT)
    folders = OTB50 if split == "otb50" else OTB100
    if not any((root / name).is_dir() for name in folders):
        inner = next((root / name for name in FOLDERS if (root / name / folders[0]).is_dir()), None)
        if inner is None:
            raise RetraceError(
                f"{root} holds none of the {len(folders)} sequences of {split}. Expected {LAYOUT}."
            )
        root = inner
    names = [
        target
        for name in sorted(folders)
        for target in ([f"{name}.1", f"{name}.2"] if name in TWO_TARGETS else [name])
    ]

    def make(name: str, note: Callable[[str], None]) -> Sequence[Boxes]:
        return _sequence(root, name, note)

    return gather("otb", root, split, names, make)


def check(
    root: Path, *, split: str = "otb100", thorough: bool = False, progress: Progress[Boxes] | None = None
) -> Dataset[Boxes]:
    """Open every file; see `datasets.reading.inspect`."""
    return inspect(load(root, split=split), _odd, thorough=thorough, progress=progress)


def _odd(sequence: Sequence[Boxes], frame: int, truth: Boxes) -> Iterator[str]:
    height, width = sequence.size or (0, 0)
    x, y, w, h = truth.xywh[0]
    if not (w > 0 and h > 0):
        yield "the box has no size."
    elif x >= width or y >= height or x + w <= 0 or y + h <= 0:
        yield f"the box lies outside the {width}x{height} picture."


def _sequence(root: Path, name: str, note: Callable[[str], None]) -> Sequence[Boxes]:
    folder_name, _, target = name.partition(".")
    folder = root / folder_name
    frames = images_of(folder / "img")
    first, last = RANGES.get(folder_name, (0, None))
    frames = tuple(
        file for file in frames if _number(file) >= first and (last is None or _number(file) <= last)
    )
    files = sorted(folder.glob(f"groundtruth_rect.{target}.txt" if target else "groundtruth_rect*.txt"))
    if not files:
        raise RetraceError(f"{folder} has no groundtruth_rect{'.' + target if target else ''}.txt.")
    file = next((file for file in files if file.read_bytes().strip()), files[0])
    boxes = read_table(file, 4) - (1, 1, 0, 0)
    if len(boxes) != len(frames):
        note(
            f"{len(frames)} frames and {len(boxes)} boxes in {folder}; those that have both, from the first on, are "
            "used."
        )
    count = min(len(boxes), len(frames))
    if count == 0:
        raise RetraceError(f"{folder} has no frame in the range {first} to {last}.")

    def read(frame: int) -> Boxes:
        return Boxes(boxes[frame][None])

    return Sequence(name, frames[:count], count, image_size(frames[0]), tuple(range(count)), read, {0: 0})


def _number(file: Path) -> int:
    digits = "".join(c for c in file.stem if c.isdigit())
    if not digits:
        raise RetraceError(f"{file} has no number in its name; expected 0001.jpg, 0002.jpg, and so on.")
    return int(digits)
