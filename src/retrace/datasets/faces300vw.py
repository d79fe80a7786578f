"""300VW: 68 landmarks of a face on every frame of a video.

    300VW_Dataset_2015_12_14/<video>/vid.avi
    300VW_Dataset_2015_12_14/<video>/annot/%06d.pts    68 lines "x y" in braces; the first pixel is 1

Points become x - 0.5, y - 0.5. The test videos come in three categories of growing difficulty; "all" are the 114
videos.

Source: Shen et al., "The First Facial Landmark Tracking in-the-Wild Challenge", ICCV workshops 2015.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from retrace.datasets.reading import Progress, choose, find_root, gather, inspect, read_lines, subfolders
from retrace.datasets.records import Dataset, Points, Sequence, natural_key
from retrace.errors import RetraceError

FOLDERS = ("300VW_Dataset_2015_12_14", "300VW", "300vw")
SPLITS = ("all", "category1", "category2", "category3")
LAYOUT = "<video>/vid.avi and <video>/annot/000001.pts, such as 001/vid.avi"
LANDMARKS = 68

_CATEGORIES = {
    "category1": "114 124 125 126 150 158 401 402 505 506 507 508 509 510 511 514 515 518 519 520 521 522 524 525 537 "
    "538 540 541 546 547 548",
    "category2": "203 208 211 212 213 214 218 224 403 404 405 406 407 408 409 412 550 551 553",
    "category3": "410 411 516 517 526 528 529 530 531 533 557 558 559 562",
}


def load(root: Path, *, split: str = "all") -> Dataset[Points]:
    """Find the videos.

    Args:
        root: the folder of the videos' folders, or the one it lies in.
        split: "all", or the test videos of "category1", "category2" or "category3".

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of 300VW", split, SPLITS)
    root = find_root(root, [], FOLDERS, LAYOUT)
    root = next((root / name for name in FOLDERS if (root / name).is_dir()), root)
    names = [name for name in subfolders(root) if (root / name / "annot").is_dir()]
    if not names:
        raise RetraceError(f"{root} holds no folder with an annot folder. Expected {LAYOUT}.")
    if split != "all":
        names = _CATEGORIES[split].split()

    def make(name: str, note: Callable[[str], None]) -> Sequence[Points]:
        video, annotations = root / name / "vid.avi", root / name / "annot"
        for place in (video, annotations):
            if not place.exists():
                raise RetraceError(f"There is no {place}.")
        files = sorted(annotations.glob("*.pts"), key=lambda file: natural_key(file.name))
        of_frame = {int(file.stem) - 1: file for file in files if file.stem.isdigit() and int(file.stem) > 0}
        if not of_frame:
            raise RetraceError(f"{annotations} holds no 000001.pts.")
        count = max(of_frame) + 1
        if len(of_frame) < count:
            lost = min(set(range(count)) - set(of_frame))
            note(
                f"{count - len(of_frame)} of {count} annotations are missing in {annotations}, the first is "
                f"{lost + 1:06d}.pts."
            )

        def read(frame: int) -> Points:
            return read_pts(of_frame[frame])

        first = min(of_frame)
        return Sequence(
            name, video, count, None, tuple(sorted(of_frame)), read, dict.fromkeys(range(LANDMARKS), first)
        )

    return gather("300vw", root, split, names, make)


def check(
    root: Path, *, split: str = "all", thorough: bool = False, progress: Progress[Points] | None = None
) -> Dataset[Points]:
    """Read every annotation; see `datasets.reading.inspect`. The videos are opened when they are evaluated."""
    return inspect(load(root, split=split), _odd, thorough=thorough, progress=progress)


def read_pts(path: Path) -> Points:
    """Landmarks of a .pts file, all visible.

    Errors: RetraceError when it does not hold 68 points in braces.
    """
    text = " ".join(read_lines(path))
    inside = text.partition("{")[2].partition("}")[0].split()
    try:
        numbers = np.array([float(word) for word in inside])
    except ValueError:
        numbers = np.empty(0)
    if numbers.size != 2 * LANDMARKS or "}" not in text:
        raise RetraceError(
            f"{path} has {numbers.size} numbers in braces; expected {2 * LANDMARKS}, x and y of {LANDMARKS} points."
        )
    xy = (numbers.reshape(LANDMARKS, 2) - 0.5).astype(np.float32)
    return Points(xy, np.ones(LANDMARKS, dtype=np.bool_))


def _odd(sequence: Sequence[Points], frame: int, truth: Points) -> list[str]:
    spread = float(np.ptp(truth.xy, axis=0).max())
    return ["all landmarks are at one place."] if spread < 1 else []
