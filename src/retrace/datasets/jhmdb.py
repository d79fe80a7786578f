"""JHMDB: 15 joints of one person per clip, on every frame.

    JHMDB/Rename_Images/<class>/<clip>/00001.png
    JHMDB/joint_positions/<class>/<clip>/joint_positions.mat    pos_img (2, 15, T): x, y, the first pixel is 1
    JHMDB/splits/<class>_test_split<n>.txt                      "<clip>.avi 2": 1 = train, 2 = test

A joint outside the picture has a position and counts as not visible.

Source: Jhuang et al., "Towards Understanding Action Recognition", ICCV 2013.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrace.datasets.matfile import read_mat
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
from retrace.datasets.records import Dataset, Points, Sequence
from retrace.errors import RetraceError

FOLDERS = ("JHMDB", "jhmdb")
SPLITS = ("split1", "split2", "split3", "all")
LAYOUT = (
    "Rename_Images/<class>/<clip>/00001.png, joint_positions/<class>/<clip>/joint_positions.mat and "
    "splits/<class>_test_split1.txt"
)

JOINTS = (
    *("neck", "belly", "face", "right_shoulder", "left_shoulder", "right_hip", "left_hip", "right_elbow"),
    *("left_elbow", "right_knee", "left_knee", "right_wrist", "left_wrist", "right_ankle", "left_ankle"),
)
"""Rows of the truth."""


def load(root: Path, *, split: str = "split1") -> Dataset[Points]:
    """Find the test clips of a split.

    Args:
        root: the folder JHMDB, or the one it lies in.
        split: "split1", "split2", "split3": the test clips of the official split; "all" clips there are.

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of JHMDB", split, SPLITS)
    root = find_root(root, ["Rename_Images", "joint_positions"], FOLDERS, LAYOUT)
    names, notes = _listed(root, split)

    def make(name: str, note: Callable[[str], None]) -> Sequence[Points]:
        frames = images_of(root / "Rename_Images" / name)
        size = image_size(frames[0])
        xy = _positions(root / "joint_positions" / name / "joint_positions.mat")
        if len(xy) != len(frames):
            note(
                f"{len(frames)} frames and joints for {len(xy)} in {name}; those that have both, from the first on, "
                "are used."
            )
            frames = frames[: len(xy)]
        inside: NDArray[np.bool_] = np.all((xy >= 0) & (xy <= np.array(size[::-1])), axis=-1)  # (T, 15)

        def read(frame: int) -> Points:
            return Points(xy[frame], inside[frame])

        return Sequence(
            name,
            frames,
            len(frames),
            size,
            tuple(range(len(frames))),
            read,
            dict.fromkeys(range(len(JOINTS)), 0),
        )

    return gather("jhmdb", root, split, names, make, notes)


def check(
    root: Path, *, split: str = "split1", thorough: bool = False, progress: Progress[Points] | None = None
) -> Dataset[Points]:
    """Open every file of a split; see `datasets.reading.inspect`."""
    return inspect(load(root, split=split), _odd, thorough=thorough, progress=progress)


def _odd(sequence: Sequence[Points], frame: int, truth: Points) -> list[str]:
    return [] if truth.visible.any() else ["no joint lies in the picture; nothing can be scored."]


def _positions(file: Path) -> NDArray[np.float32]:
    """(T, 15, 2) pixels, the first pixel's centre at 0.5."""
    arrays = read_mat(file)
    if "pos_img" not in arrays:
        raise RetraceError(f"{file} has no pos_img; it holds {', '.join(arrays) or 'no array'}.")
    positions = arrays["pos_img"].astype(np.float64)
    if positions.ndim == 2:  # MATLAB drops a last dimension of 1
        positions = positions[..., None]
    if positions.shape[:2] != (2, len(JOINTS)):
        raise RetraceError(
            f"pos_img in {file} has shape {positions.shape}; expected (2, {len(JOINTS)}, frames)."
        )
    return (positions.transpose(2, 1, 0) - 0.5).astype(np.float32)  # (T, 15, 2)


def _listed(root: Path, split: str) -> tuple[list[str], list[str]]:
    classes = subfolders(root / "Rename_Images")
    everything = [f"{c}/{clip}" for c in classes for clip in subfolders(root / "Rename_Images" / c)]
    if split == "all":
        return everything, []
    names: list[str] = []
    notes: list[str] = []
    for action in classes:
        file = root / "splits" / f"{action}_test_{split}.txt"
        if not file.exists():
            notes.append(f"There is no {file}; the clips of {action} are left out.")
            continue
        for line in read_lines(file):
            clip, _, part = line.rpartition(" ")
            if part == "2":
                names.append(f"{action}/{clip.strip().removesuffix('.avi')}")
    if not names:
        return everything, [f"There is no list in {root / 'splits'}; all {len(everything)} clips are taken."]
    return names, notes
