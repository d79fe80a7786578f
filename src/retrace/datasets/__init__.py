"""Where things are on disk: one file per corpus, all giving the records of `datasets.records`.

A benchmark's file has `load(root, split=...)`, which finds its sequences without decoding frames, and
`check(...)`, which opens every file; both give a `Dataset` that names what is missing or odd. `LAYOUT` says what
is expected on disk, `SPLITS` which parts there are (the first is the default), `FOLDERS` under which names the
archives unpack.
"""

import os
from pathlib import Path
from typing import Any, Protocol

from retrace.datasets import (
    badja,
    davis2016,
    davis2017,
    faces300vw,
    got10k,
    imagenet,
    jhmdb,
    kitti,
    middlebury,
    otb,
    sintel,
    tapvid,
    vip,
    youtubevos,
)
from retrace.datasets.reading import Progress, choose
from retrace.datasets.records import Dataset
from retrace.errors import UsageError


class Reader(Protocol):
    """What the file of a benchmark offers. Some take more options than these."""

    @property
    def FOLDERS(self) -> tuple[str, ...]:
        """Names that the data set may lie under in a folder of data sets."""

    @property
    def SPLITS(self) -> tuple[str, ...]:
        """Its parts, the default first."""

    @property
    def LAYOUT(self) -> str:
        """What its folder holds."""

    def load(self, root: Path, *, split: str = ...) -> Dataset[Any]:
        """Find the sequences."""

    def check(
        self,
        root: Path,
        *,
        split: str = ...,
        thorough: bool = ...,
        progress: Progress[Any] | None = ...,
    ) -> Dataset[Any]:
        """Open every file."""


READERS: dict[str, Reader] = {
    "davis2017": davis2017,
    "davis2016": davis2016,
    "youtubevos": youtubevos,
    "jhmdb": jhmdb,
    "badja": badja,
    "300vw": faces300vw,
    "vip": vip,
    "otb": otb,
    "got10k": got10k,
    "tapvid": tapvid,
    "kitti": kitti,
    "sintel": sintel,
    "middlebury": middlebury,
    "imagenet": imagenet,
}
"""Benchmark -> the module that reads it."""


def root_of(benchmark: str, root: str | Path | None = None) -> Path:
    """The folder of a benchmark's data.

    Args:
        benchmark: a key of `READERS`.
        root: as a person gave it; None looks into the folder that the environment variable RETRACE_DATA names, for a
            folder with the benchmark's or the archive's name, and else takes that folder itself.

    Errors: UsageError for an unknown benchmark, or when neither says where.
    """
    choose("benchmark", benchmark, READERS)
    if root is not None:
        return Path(root).expanduser()
    data = os.environ.get("RETRACE_DATA")
    if not data:
        raise UsageError(
            f"Where is {benchmark}? Give --root DIR, or set RETRACE_DATA to the folder that holds it. Expected: "
            f"{READERS[benchmark].LAYOUT}."
        )
    folder = Path(data).expanduser()
    named = [folder / name for name in (benchmark, *READERS[benchmark].FOLDERS)]
    return next((path for path in named if path.is_dir()), folder)
