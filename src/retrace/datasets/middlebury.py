"""Middlebury optical flow: eight pairs with dense flow, and twelve whose flow is not public.

    other-data/<scene>/frame10.png, frame11.png
    other-gt-flow/<scene>/flow10.flo
    eval-data/<scene>/frame10.png, frame11.png         the truth is on the server

Source: Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011.
"""

from collections.abc import Callable
from pathlib import Path

from retrace.datasets.flowfiles import odd_flow, pair, read_flo
from retrace.datasets.reading import Progress, choose, find_root, gather, inspect, subfolders
from retrace.datasets.records import Dataset, Flow, Sequence

FOLDERS = ("Middlebury", "middlebury")
SPLITS = ("other", "eval")
LAYOUT = "other-data/<scene>/frame10.png, frame11.png and other-gt-flow/<scene>/flow10.flo"


def load(root: Path, *, split: str = "other") -> Dataset[Flow]:
    """Find the pairs.

    Args:
        root: the folder that holds `other-data` and `other-gt-flow`, or the one it lies in.
        split: "other", the pairs with a public truth, or "eval".

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of Middlebury", split, SPLITS)
    truths = ["other-gt-flow"] if split == "other" else []
    layout = LAYOUT if truths else "eval-data/<scene>/frame10.png, frame11.png"
    root = find_root(root, [f"{split}-data", *truths], FOLDERS, layout)

    def make(name: str, note: Callable[[str], None]) -> Sequence[Flow]:
        images = root / f"{split}-data" / name
        return pair(
            name,
            images / "frame10.png",
            images / "frame11.png",
            (lambda: read_flo(root / "other-gt-flow" / name / "flow10.flo")) if truths else None,
        )

    listed = root / (truths or [f"{split}-data"])[0]
    return gather("middlebury", root, split, subfolders(listed), make)


def check(
    root: Path, *, split: str = "other", thorough: bool = False, progress: Progress[Flow] | None = None
) -> Dataset[Flow]:
    """Open every file; see `datasets.reading.inspect`."""
    return inspect(load(root, split=split), odd_flow, thorough=thorough, progress=progress)
