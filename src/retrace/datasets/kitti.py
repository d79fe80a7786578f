"""KITTI optical flow, 2015 and 2012: pairs of frames with sparse flow.

    training/image_2/%06d_10.png, %06d_11.png     2015; 2012 has colored_0 (or image_0, grey)
    training/flow_occ/%06d_10.png                 16-bit PNG, all pixels
    training/flow_noc/%06d_10.png                 pixels seen in both frames
    testing/image_2/...                           frames alone: the truth is on the server

Source: Menze, Geiger, "Object Scene Flow for Autonomous Vehicles", CVPR 2015; Geiger, Lenz, Urtasun, CVPR 2012.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from retrace.datasets.flowfiles import odd_flow, pair, read_kitti_png
from retrace.datasets.reading import Progress, choose, find_root, gather, inspect
from retrace.datasets.records import Dataset, Flow, Sequence, natural_key
from retrace.errors import RetraceError

FOLDERS = ("KITTI", "kitti", "data_scene_flow", "data_stereo_flow")
SPLITS = ("2015", "2012", "2015-test", "2012-test")
LAYOUT = "training/image_2/000000_10.png, training/image_2/000000_11.png and training/flow_occ/000000_10.png"

_IMAGES = {"2015": ("image_2",), "2012": ("colored_0", "image_0")}


def load(root: Path, *, split: str = "2015") -> Dataset[Flow]:
    """Find the pairs.

    Args:
        root: the folder that holds `training` and `testing`, or the one it lies in.
        split: "2015" or "2012", the training pairs, which alone have a public truth; "2015-test", "2012-test".

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of KITTI", split, SPLITS)
    year, _, test = split.partition("-")
    root = find_root(root, ["testing" if test else "training/flow_occ"], FOLDERS, LAYOUT)
    training = root / ("testing" if test else "training")
    images = next((training / name for name in _IMAGES[year] if (training / name).is_dir()), None)
    if images is None:
        raise RetraceError(
            f"{training} has no {' or '.join(_IMAGES[year])}, where KITTI {year} has its frames."
        )
    listed = images if test else training / "flow_occ"
    names = sorted({file.stem[:-3] for file in listed.glob("*_10.png")}, key=natural_key)
    notes = []
    if not test and not (training / "flow_noc").is_dir():
        notes.append(f"There is no {training / 'flow_noc'}; pixels seen in both frames are not known.")

    def make(name: str, note: Callable[[str], None]) -> Sequence[Flow]:
        def read() -> Flow:
            flow = read_kitti_png(training / "flow_occ" / f"{name}_10.png")
            return (
                flow
                if notes
                else replace(flow, visible=read_kitti_png(training / "flow_noc" / f"{name}_10.png").valid)
            )

        return pair(name, images / f"{name}_10.png", images / f"{name}_11.png", None if test else read)

    return gather("kitti", root, split, names, make, notes)


def check(
    root: Path, *, split: str = "2015", thorough: bool = False, progress: Progress[Flow] | None = None
) -> Dataset[Flow]:
    """Open every file; see `datasets.reading.inspect`."""
    return inspect(load(root, split=split), odd_flow, thorough=thorough, progress=progress)
