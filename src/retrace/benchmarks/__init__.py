"""Benchmarks: a data set, what is carried on it, how it is scored. `BENCHMARKS` names them all."""

from retrace.benchmarks import (
    boxes,
    flow,
    imagenet,
    masks,
    parts,
    points,
    poses,
    reconstruction,
    synthetic,
    textures,
)
from retrace.benchmarks.records import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    "davis2017": masks.DAVIS2017,
    "davis2016": masks.DAVIS2016,
    "youtubevos": masks.YOUTUBEVOS,
    "jhmdb": poses.JHMDB,
    "badja": poses.BADJA,
    "300vw": poses.VW300,
    "vip": parts.VIP,
    "otb": boxes.OTB,
    "tapvid": points.TAPVID,
    "kitti": flow.KITTI,
    "sintel": flow.SINTEL,
    "middlebury": flow.MIDDLEBURY,
    "imagenet": imagenet.IMAGENET,
    "reconstruction": reconstruction.RECONSTRUCTION,
    "texture": textures.TEXTURE,
    "synthetic": synthetic.SYNTHETIC,
}
"""Name, as on the command line -> benchmark."""


def find(name: str) -> Benchmark:
    """A benchmark by its name."""
    return BENCHMARKS[name]
