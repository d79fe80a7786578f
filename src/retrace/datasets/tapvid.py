"""TAP-Vid: points on surfaces, followed through every frame; a pickle holds videos and points.

    tapvid_davis/tapvid_davis.pkl                  {video: {"video", "points", "occluded"}}
    tapvid_rgb_stacking/tapvid_rgb_stacking.pkl    a list of the same
    tapvid_kinetics/0000_of_0010.pkl               the same, frames as JPEG files; give one such file as the root

"video" is uint8 (T, H, W, 3), "points" (N, T, 2) x, y from 0 to 1 over the frame, "occluded" (N, T). Points become
pixels of the frame, x * W, y * H. A point begins in the first frame that shows it; one that is never seen is left
out.

A pickle can run any program when it is opened. These are opened by a reader that makes arrays, numbers, texts,
lists and dicts, and refuses the rest.

Source: Doersch et al., "TAP-Vid: A Benchmark for Tracking Any Point in a Video", NeurIPS 2022.
"""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retrace.datasets.reading import Progress, choose, find_root, gather, inspect
from retrace.datasets.records import Dataset, Encoded, Frames, Points, Sequence
from retrace.errors import RetraceError

FOLDERS = ("tapvid", "TAP-Vid", "tapvid_davis")
SPLITS = ("davis", "rgb_stacking")
LAYOUT = "tapvid_davis/tapvid_davis.pkl, or a .pkl file of TAP-Vid"

_ALLOWED = {
    ("_codecs", "encode"),  # how old protocols write bytes
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (module, name)
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("_reconstruct", "scalar")
    ),
    *((module, "_frombuffer") for module in ("numpy.core.numeric", "numpy._core.numeric")),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def load(root: Path, *, split: str = "davis") -> Dataset[Points]:
    """Read the videos of a split, all into memory.

    Args:
        root: the folder of the pickles, or one pickle.
        split: "davis" or "rgb_stacking"; not asked for where the root is a pickle.

    Errors: RetraceError for another layout, or when nothing can be used; UsageError for an unknown split.
    """
    choose("split of TAP-Vid", split, SPLITS)
    if root.is_file():
        file, split = root, root.stem
    else:
        name = f"tapvid_{split}"
        root = find_root(root, [], (), LAYOUT)
        places = [root / f"{name}.pkl", root / name / f"{name}.pkl"]
        found = next((place for place in places if place.exists()), None)
        if found is None:
            raise RetraceError(f"There is no {places[1]} and no {places[0]}. Expected {LAYOUT}.")
        file = found
    content = read_pickle(file)
    entries = dict(content) if isinstance(content, dict) else {f"{i:05d}": v for i, v in enumerate(content)}

    def make(name: str, note: Callable[[str], None]) -> Sequence[Points]:
        return _sequence(name, entries[name], file, note)

    return gather("tapvid", root, split, map(str, entries), make)


def check(
    root: Path, *, split: str = "davis", thorough: bool = False, progress: Progress[Points] | None = None
) -> Dataset[Points]:
    """Look at every video; see `datasets.reading.inspect`."""
    return inspect(load(root, split=split), _odd, thorough=thorough, progress=progress)


def read_pickle(path: Path) -> dict[str, Any] | list[Any]:
    """What a pickle of arrays, numbers, texts, lists and dicts holds.

    Errors: RetraceError when it is damaged, holds anything else, or is no dict or list.
    """
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes())).load()
    except pickle.UnpicklingError as error:
        raise RetraceError(
            f"{path} is not opened: {error}. A file of TAP-Vid holds arrays alone; download it from its source."
        ) from error
    except Exception as error:  # a damaged pickle can raise anything, for its bytes are instructions
        raise RetraceError(f"{path} is damaged ({error}). Download it again.") from error
    if not isinstance(content, dict | list) or not content:
        raise RetraceError(f"{path} holds a {type(content).__name__}; expected a dict or list of videos.")
    return content


def _odd(sequence: Sequence[Points], frame: int, truth: Points) -> list[str]:
    height, width = sequence.size or (0, 0)
    seen = truth.xy[truth.visible]
    outside = ((seen < 0) | (seen > (width, height))).any()
    return [f"a visible point lies outside the {width}x{height} picture."] if outside else []


def _sequence(name: str, entry: Any, file: Path, note: Callable[[str], None]) -> Sequence[Points]:
    try:
        video, points, occluded = entry["video"], np.asarray(entry["points"]), np.asarray(entry["occluded"])
        frames, size = _frames(video)
        if points.shape != (*occluded.shape, 2) or points.shape[1] != len(video):
            raise ValueError(f"{len(video)} frames, points {points.shape}, occluded {occluded.shape}")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RetraceError(
            f"{name} in {file} is not a video of TAP-Vid ({error!r}); expected video (T, H, W, 3), points "
            "(N, T, 2) and occluded (N, T)."
        ) from error
    visible = ~occluded.astype(np.bool_)
    seen = np.flatnonzero(visible.any(1))
    if len(seen) == 0:
        raise RetraceError(f"No point of {name} in {file} is ever visible.")
    if len(seen) < len(visible):
        note(f"{len(visible) - len(seen)} of {len(visible)} points are never visible; they are left out.")
    pixels = (points * np.array(size[::-1])).astype(np.float32)  # (N, T, 2)

    def read(frame: int) -> Points:
        return Points(pixels[:, frame], visible[:, frame])

    starts = {int(row): int(visible[row].argmax()) for row in seen}
    return Sequence(name, frames, len(video), size, tuple(range(len(video))), read, starts)


def _frames(video: Any) -> tuple[Frames, tuple[int, int]]:
    """Frames as they came, and their height and width."""
    if isinstance(video, np.ndarray) and video.dtype == np.uint8 and video.ndim == 4 and video.shape[3] == 3:
        return video, (video.shape[1], video.shape[2])
    if not all(isinstance(image, bytes) for image in video):
        raise ValueError("frames that are neither uint8 (T, H, W, 3) nor JPEG files")
    first = cv2.imdecode(np.frombuffer(video[0], np.uint8), cv2.IMREAD_COLOR)
    if first is None:
        raise ValueError("a first frame that is not an image")
    return Encoded(tuple(video)), (first.shape[0], first.shape[1])
