"""`retrace data`: look at footage before training on it."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from retrace.datasets import footage
from retrace.video.decode import probe

Progress = Callable[[Iterable[Path]], Iterable[Path]]


def check(
    source: str | Path | Sequence[str | Path], *, thorough: bool = False, progress: Progress | None = None
) -> footage.Index:
    """Open every video and frame folder of `source` and say which can be used.

    Args:
        source: A folder (searched recursively), a video, a list file with one path per line, or a list of these.
        thorough: Decode every frame instead of the first one, to find damage in the middle.
        progress: Wraps the paths while they are looked at, such as tqdm.

    Errors: RetraceError when `source` does not exist or names no video. A broken video is in the answer, not an error.
    """
    return footage.index(source, partial(probe, thorough=thorough), progress=progress)


def index(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    thorough: bool = False,
    progress: Progress | None = None,
) -> footage.Index:
    """Write an index of `source` to `out`: length, size, rate and damage of every video.

    A video that `out` knows already and that has not changed is not opened again, unless it was never decoded to the
    end and `thorough` asks for that.

    Args:
        source: A folder (searched recursively), a video, a list file with one path per line, or a list of these.
        out: JSON file to make, or to bring up to date.
        thorough: Decode every frame of new videos, to find damage in the middle.
        progress: Wraps the paths while they are looked at, such as tqdm.

    Errors: RetraceError when `source` does not exist or names no video, or `out` is another kind of file or cannot be
        written.
    """
    return footage.index(
        source, partial(probe, thorough=thorough), file=out, thorough=thorough, progress=progress
    )
