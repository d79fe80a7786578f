"""MPI Sintel: dense flow of a rendered film, in a clean and a final rendering.

    training/{clean,final}/<scene>/frame_%04d.png
    training/flow/<scene>/frame_%04d.flo             from the frame to the next one
    training/occlusions/<scene>/frame_%04d.png       white: not seen in the next frame
    training/invalid/<scene>/frame_%04d.png          white: the truth does not count
    test/{clean,final}/<scene>/frame_%04d.png        frames alone: the truth is on the server

Source: Butler et al., "A naturalistic open source movie for optical flow evaluation", ECCV 2012.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from retrace.datasets.flowfiles import odd_flow, pair, read_flo
from retrace.datasets.masks import read_ids
from retrace.datasets.reading import Progress, choose, find_root, gather, images_of, inspect, subfolders
from retrace.datasets.records import Dataset, Flow, Sequence, natural_key

FOLDERS = ("Sintel", "MPI-Sintel", "MPI-Sintel-complete", "sintel")
SPLITS = ("clean", "final", "clean-test", "final-test")
LAYOUT = "training/clean/<scene>/frame_0001.png and training/flow/<scene>/frame_0001.flo"


def load(root: Path, *, split: str = "clean") -> Dataset[Flow]:
    """Find the pairs of neighbouring frames.

    Args:
        root: the folder that holds `training` and `test`, or the one it lies in.
        split: the rendering, "clean" or "final", of the training pairs, which alone have a public truth; "clean-test",
            "final-test".

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of Sintel", split, SPLITS)
    if split.endswith("-test"):
        return _test(root, split)
    root = find_root(root, [f"training/{split}", "training/flow"], FOLDERS, LAYOUT)
    training = root / "training"
    names = [
        f"{scene}/{file.stem}"
        for scene in subfolders(training / "flow")
        for file in sorted((training / "flow" / scene).glob("*.flo"), key=lambda f: natural_key(f.name))
    ]
    lost = [kind for kind in ("occlusions", "invalid") if not (training / kind).is_dir()]
    notes = [f"There is no {training / kind}; nothing counts as such." for kind in lost]

    def make(name: str, note: Callable[[str], None]) -> Sequence[Flow]:
        scene, _, stem = name.partition("/")
        number = int(stem.rpartition("_")[2])
        following = f"frame_{number + 1:04d}.png"

        def read() -> Flow:
            flow = read_flo(training / "flow" / scene / f"{stem}.flo")
            valid = flow.valid
            if "invalid" not in lost:
                valid = valid & (read_ids(training / "invalid" / scene / f"{stem}.png") == 0)
            visible = None
            if "occlusions" not in lost:
                visible = valid & (read_ids(training / "occlusions" / scene / f"{stem}.png") == 0)
            return Flow(flow.uv * valid[..., None], valid, visible)

        return pair(
            name, training / split / scene / f"{stem}.png", training / split / scene / following, read
        )

    return gather("sintel", root, split, names, make, notes)


def _test(root: Path, split: str) -> Dataset[Flow]:
    """Every frame of `test` but the last of its scene, with the next one."""
    frames = f"test/{split.removesuffix('-test')}"
    root = find_root(root, [frames], FOLDERS, f"{frames}/<scene>/frame_0001.png")
    following: dict[str, tuple[Path, Path]] = {}
    for scene in subfolders(root / frames):
        files = images_of(root / frames / scene)
        following |= {f"{scene}/{a.stem}": (a, b) for a, b in pairwise(files)}

    def make(name: str, note: Callable[[str], None]) -> Sequence[Flow]:
        return pair(name, *following[name], None)

    return gather("sintel", root, split, following, make)


def check(
    root: Path, *, split: str = "clean", thorough: bool = False, progress: Progress[Flow] | None = None
) -> Dataset[Flow]:
    """Open every file; see `datasets.reading.inspect`."""
    return inspect(load(root, split=split), odd_flow, thorough=thorough, progress=progress)
