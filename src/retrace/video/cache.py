"""Decoded frames kept on disk for training, because one clip of a long-GOP file costs hundreds of decoded frames.

Layout, one folder per video and size:

    <folder>/<key>/frames.bin     the JPEG files of all frames, one behind the other
                   offsets.npy    (N + 1,) int64: frame i is bytes offsets[i] to offsets[i + 1]
                   meta.json      the video's path, size, number of frames, and its damage

`key` is made of the video's absolute path, its size in bytes, its modification time and the short side. A
folder is written under another name and renamed, so a folder that is there is complete;
`<folder>/<key>.lock` keeps two processes from decoding the same video at once. Deleting the whole cache at
any time between runs is safe.
"""

import hashlib
import json
import logging
import mmap
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retrace.datasets.records import Video, frame_files
from retrace.errors import RetraceError
from retrace.video.decode import (
    BrokenVideo,
    DirectFrames,
    Pixels,
    check_indices,
    fitted_size,
    open_video,
    resized,
)

_log = logging.getLogger(__name__)

JPEG_QUALITY = 95
_OPEN_FILES = 128  # a process keeps this many videos mapped


@dataclass(frozen=True)
class _Entry:
    """One cached video, mapped into memory."""

    data: mmap.mmap
    offsets: NDArray[np.int64]
    height: int
    width: int
    damage: str | None


class FrameCache:
    """Frames of videos by index, read from decoded copies that are made on first use or by `fill`.

    Safe for several processes and workers at once, and picklable. Frame folders that need no downsizing are
    read as they are.

    Args:
        folder: Where the copies live; made when missing.
        short_side: Frames whose shorter side is longer are stored smaller (area interpolation) with this
            many pixels there; never enlarged. None stores the full size.
    """

    def __init__(self, folder: str | Path, *, short_side: int | None = 288) -> None:
        """See the class."""
        self.folder = Path(folder)
        self.short_side = short_side
        self._direct = DirectFrames()
        self._keys: dict[Path, str] = {}
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the mapped files and what was learnt about files, which another process looks up itself."""
        return {"folder": self.folder, "short_side": self.short_side}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See `__getstate__`."""
        self.__init__(state["folder"], short_side=state["short_side"])  # type: ignore[misc]

    def fill(self, video: Video, progress: Callable[[int], object] | None = None) -> None:
        """Decode the video once, front to back, unless that has been done.

        A video that breaks in the middle is stored up to the break.

        Args:
            video: What to decode.
            progress: Called with 1 after every frame.

        Errors: BrokenVideo when the video cannot be read; RetraceError when the cache cannot be written.
        """
        if self._passes_through(video):
            return
        key = self._key(video)
        if (self.folder / key).is_dir():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / f"{key}.lock"):
                if not (
                    self.folder / key
                ).is_dir():  # another process may have filled it while this one waited
                    self._write(video, key, progress)
        except OSError as error:
            raise RetraceError(
                f"Cannot write the frame cache {self.folder}: {error.strerror or error}. "
                "Choose a folder that is writable and has free space."
            ) from error

    def num_frames(self, video: Video) -> int:
        """Frames that can be asked for, fewer than the record says when the video is damaged. Fills on demand."""
        if self._passes_through(video):
            return video.num_frames
        return len(self._entry(video).offsets) - 1

    def damage(self, video: Video) -> str | None:
        """The sentence about the break that was met while filling, or None. Fills on demand."""
        return None if self._passes_through(video) else self._entry(video).damage

    def frames(self, video: Video, indices: Sequence[int]) -> Pixels:
        """(T, H', W', 3) RGB uint8 of the frames at `indices` (T of them, any order, repeats allowed). Fills on demand.

        Errors: BrokenVideo when the video cannot be read; RetraceError when an index is outside the video or
            the cache cannot be
        written.
        """
        if self._passes_through(video):
            return self._direct.frames(video, indices)
        entry = self._entry(video)
        if max(indices, default=0) >= len(entry.offsets) - 1 and entry.damage is not None:
            raise BrokenVideo(entry.damage)
        check_indices(video, indices, len(entry.offsets) - 1)
        clip: Pixels = np.empty((len(indices), entry.height, entry.width, 3), dtype=np.uint8)
        for position, index in enumerate(indices):
            begin, end = int(entry.offsets[index]), int(entry.offsets[index + 1])
            stored = np.frombuffer(entry.data, dtype=np.uint8, count=end - begin, offset=begin)
            image = cv2.imdecode(stored, cv2.IMREAD_COLOR)
            if image is None or image.shape != clip.shape[1:]:
                raise RetraceError(
                    f"Frame {index} of {video.path} in the frame cache {self.folder} is damaged. "
                    f"Delete {self.folder / self._key(video)}; it is made again."
                )
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=clip[position])
        return clip

    def _passes_through(self, video: Video) -> bool:
        """Frame folders are as fast as the cache when nothing is gained by a smaller copy."""
        fits = fitted_size(video.height, video.width, self.short_side) == (video.height, video.width)
        return fits and video.path.is_dir()

    def _key(self, video: Video) -> str:
        if video.path not in self._keys:  # once per process: a file that changes meanwhile goes unnoticed
            identity = [str(video.path.resolve()), *_fingerprint(video.path), self.short_side]
            self._keys[video.path] = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        return self._keys[video.path]

    def _entry(self, video: Video) -> _Entry:
        key = self._key(video)
        entry = self._entries.get(key)
        if entry is None:
            self.fill(video)
            entry = _open_entry(self.folder / key)
            self._entries[key] = entry
            if len(self._entries) > _OPEN_FILES:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        return entry

    def _write(self, video: Video, key: str, progress: Callable[[int], object] | None) -> None:
        for leftover in self.folder.glob(
            f"{key}.*.partial"
        ):  # of a process that was killed; the lock is ours
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = self.folder / f"{key}.{os.getpid()}.partial"
        temporary.mkdir()
        try:
            offsets = [0]
            with open_video(video.path) as reader, (temporary / "frames.bin").open("wb") as file:
                height, width = fitted_size(reader.height, reader.width, self.short_side)
                for frame in reader:
                    bgr = cv2.cvtColor(resized(frame.image, height, width), cv2.COLOR_RGB2BGR)
                    done, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
                    assert done, "a JPEG of at most 65535 pixels a side can always be made"
                    file.write(jpeg.tobytes())
                    offsets.append(offsets[-1] + len(jpeg))
                    if progress is not None:
                        progress(1)
            if len(offsets) == 1:
                raise BrokenVideo(
                    reader.damage or f"{video.path} gave no frames. Check that it plays in a video player."
                )
            if reader.damage is not None:
                _log.warning("%s", reader.damage)
            np.save(temporary / "offsets.npy", np.asarray(offsets, dtype=np.int64))
            meta = {"path": str(video.path), "height": height, "width": width, "num_frames": len(offsets) - 1}
            (temporary / "meta.json").write_text(json.dumps(meta | {"damage": reader.damage}))
            try:
                os.rename(temporary, self.folder / key)
            except OSError:
                if not (
                    self.folder / key
                ).is_dir():  # else filled meanwhile by a machine that does not share our locks
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _open_entry(folder: Path) -> _Entry:
    try:
        meta = json.loads((folder / "meta.json").read_text())
        offsets: NDArray[np.int64] = np.load(folder / "offsets.npy")
        with (folder / "frames.bin").open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if len(data) != offsets[-1]:
            raise ValueError("frames.bin has another length")
    except (OSError, ValueError) as error:
        raise RetraceError(
            f"{folder} in the frame cache is damaged ({error}). Delete it; it is made again."
        ) from error
    return _Entry(data, offsets, meta["height"], meta["width"], meta["damage"])


def _fingerprint(path: Path) -> tuple[int, int]:
    """(bytes, newest modification time in ns) of a file, or of the frames of a folder together."""
    try:
        stats = [file.stat() for file in (frame_files(path) if path.is_dir() else [path])]
    except OSError as error:
        raise BrokenVideo(
            f"Cannot look at {path}: {error.strerror}. Check that it is still there."
        ) from error
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock that the system releases when the process dies; without such locks (Windows) do without.

    Two processes may then decode the same video, which wastes time but nothing else.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
