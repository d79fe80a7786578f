"""Videos as JPEG frames in tar files ("shards"): few large files in place of many small ones, and no decoding of video.

Layout of a shard, which any tar or webdataset reader opens:

    <key>/000000.jpg, <key>/000001.jpg, ...     the frames of one video, one behind the other
    <key>/video.json                            {"fps": ..., "height": ..., "width": ..., "name": ...}

JPEG and not video of short groups of pictures: a clip is a few frames that lie apart, and of a video all frames of
their groups have to be decoded; docs/tutorials/train.md has the numbers.

Beside `x.tar` lies `x.npz`, which says where every frame is, so that a frame is one seek and one read. A shard without
it is read through once. `<shard>/<key>` is the path of a video.
"""

import io
import json
import tarfile
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retrace.datasets.records import FRAME_FOLDER_FPS, Video, natural_key
from retrace.files import atomic_path
from retrace.video.decode import BrokenVideo, Pixels, check_indices, fitted_size, open_video, resized

_KNOWN_SHARDS = 256  # a process remembers where the frames of so many shards are


@dataclass(frozen=True)
class _Entry:
    """Where the frames of a video are in its shard."""

    starts: NDArray[np.int64]  # (T,) bytes from the beginning of the file
    sizes: NDArray[np.int64]  # (T,) bytes
    height: int
    width: int
    fps: float


class _Empty(Exception):
    """Nothing went into a shard."""


class ShardWriter:
    """Writes videos into shards of a folder, one shard at a time; a shard appears when it is whole.

    Args:
        folder: Made when missing. Shards that are there stay, new ones get the numbers after theirs.
        short_side: Frames whose shorter side is longer are stored smaller, with this many pixels there; None stores
            the full size.
        quality: Of the JPEG files, 1 to 100.
        shard_bytes: A shard is closed once it is this large.

    Attributes:
        shards: Files that were written.
    """

    def __init__(
        self, folder: str | Path, *, short_side: int | None = 288, quality: int = 95, shard_bytes: int = 2**30
    ) -> None:
        """See the class."""
        self.folder = Path(folder)
        self.short_side = short_side
        self.quality = quality
        self.shard_bytes = shard_bytes
        self.shards: list[Path] = []
        numbers = [path.stem.rpartition("-")[2] for path in self.folder.glob("shard-*.tar")]
        there = [int(number) for number in numbers if number.isascii() and number.isdigit()]
        self._number = max(there, default=-1) + 1

    def write(
        self, videos: Sequence[tuple[str, Path]], progress: Callable[[int], object] | None = None
    ) -> dict[str, str]:
        """Write (key, path) videos, a broken one as far as it can be read.

        Args:
            videos: The key names a video in its shard: no `/`, no dot.
            progress: Called with 1 after every video.

        Returns: path -> reason, of what could not be read at all, or not to its end.

        Errors: RetraceError when the folder cannot be written.
        """
        failures: dict[str, str] = {}
        left = deque(videos)
        while left:
            path = self.folder / f"shard-{self._number:06d}.tar"
            with suppress(_Empty), atomic_path(path) as temporary, temporary.open("wb") as file:
                held: dict[str, _Entry] = {}
                with tarfile.open(fileobj=file, mode="w") as tar:
                    while left and file.tell() < self.shard_bytes:
                        key, source = left.popleft()
                        entry, reason = self._add(tar, file, key, source)
                        if entry is not None:
                            held[key] = entry
                        if reason is not None:
                            failures[str(source)] = reason
                        if progress is not None:
                            progress(1)
                if not held:
                    raise _Empty  # all that was left is broken: no shard
                file.flush()
                _save_index(path, held)  # first: an index without its shard is harmless
                self.shards.append(path)
                self._number += 1
        return failures

    def _add(
        self, tar: tarfile.TarFile, file: Any, key: str, source: Path
    ) -> tuple[_Entry | None, str | None]:
        starts: list[int] = []
        sizes: list[int] = []
        try:
            with open_video(source) as reader:
                height, width = fitted_size(reader.height, reader.width, self.short_side)
                for number, frame in enumerate(reader):
                    bgr = cv2.cvtColor(resized(frame.image, height, width), cv2.COLOR_RGB2BGR)
                    done, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
                    assert done, "a JPEG of at most 65535 pixels a side can always be made"
                    data = jpeg.tobytes()
                    _member(tar, f"{key}/{number:06d}.jpg", data)
                    starts.append(file.tell() - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
                    sizes.append(len(data))
                fps, damage = reader.fps, reader.damage
        except BrokenVideo as error:
            return None, str(error)
        if not starts:
            return None, damage or f"{source} gave no frames."
        about = {"fps": fps, "height": height, "width": width, "name": source.name}
        _member(tar, f"{key}/video.json", json.dumps(about).encode())
        return _Entry(np.asarray(starts), np.asarray(sizes), height, width, fps), damage


def _member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # time 0, nobody's: the same videos give the same file
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def read_shard(shard: Path) -> list[Video]:
    """The videos of a shard, without looking at their frames.

    Errors: BrokenVideo when it is no tar file, is cut off, or holds no video.
    """
    return [
        Video(shard / key, len(entry.starts), entry.height, entry.width, entry.fps)
        for key, entry in _entries(shard).items()
    ]


class ShardStore:
    """Frames of videos in shards by index; a `decode.FrameStore`. Picklable, safe for several processes."""

    def __init__(self) -> None:
        """Nothing open yet."""
        self._known: OrderedDict[Path, dict[str, _Entry]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: another process looks at shards for itself."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See `__getstate__`."""
        self._known = OrderedDict()

    def num_frames(self, video: Video) -> int:
        """Frames that can be asked for."""
        return video.num_frames

    def frames(self, video: Video, indices: Sequence[int]) -> Pixels:
        """(T, H, W, 3) RGB uint8 of the frames at `indices` (any order, repeats allowed).

        Errors: BrokenVideo when the shard or a frame of it cannot be read; RetraceError for an index outside.
        """
        shard = video.path.parent
        entry = self._entries_of(shard).get(video.path.name)
        if entry is None:
            raise BrokenVideo(f"{shard} holds no video {video.path.name} now. Make the shard again.")
        check_indices(video, indices, len(entry.starts))
        clip: Pixels = np.empty((len(indices), entry.height, entry.width, 3), dtype=np.uint8)
        try:
            with shard.open("rb") as file:  # its own: forked processes would share the place in an open one
                stored = []
                for index in indices:
                    file.seek(int(entry.starts[index]))
                    stored.append(file.read(int(entry.sizes[index])))
        except OSError as error:
            raise BrokenVideo(f"{shard} cannot be read: {error.strerror}. Copy it again.") from error
        for place, (index, data) in enumerate(zip(indices, stored, strict=True)):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
            if image is None or image.shape != clip.shape[1:]:
                raise BrokenVideo(f"Frame {index} of {video.path} is damaged. Make the shard again.")
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=clip[place])
        return clip

    def _entries_of(self, shard: Path) -> dict[str, _Entry]:
        if shard not in self._known:
            self._known[shard] = _entries(shard)
            if len(self._known) > _KNOWN_SHARDS:
                self._known.popitem(last=False)
        self._known.move_to_end(shard)
        return self._known[shard]


def _save_index(shard: Path, entries: dict[str, _Entry]) -> None:
    videos = list(entries.values())
    with atomic_path(shard.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            keys=np.asarray(list(entries)),
            counts=np.asarray([len(entry.starts) for entry in videos]),
            starts=np.concatenate([entry.starts for entry in videos]),
            sizes=np.concatenate([entry.sizes for entry in videos]),
            shapes=np.asarray([(entry.height, entry.width) for entry in videos]),
            fps=np.asarray([entry.fps for entry in videos]),
        )


def _entries(shard: Path) -> dict[str, _Entry]:
    beside = shard.with_suffix(".npz")
    entries = _load_index(beside) if beside.exists() else _scan(shard)
    size = shard.stat().st_size if shard.is_file() else -1
    last = max((int(entry.starts[-1] + entry.sizes[-1]) for entry in entries.values()), default=0)
    if size < last:
        raise BrokenVideo(
            f"{shard} is cut off: {size} bytes are there, at least {last} were written. Copy it again."
        )
    return entries


def _load_index(file: Path) -> dict[str, _Entry]:
    try:
        with np.load(file, allow_pickle=False) as content:
            ends = np.cumsum(content["counts"])[:-1]
            starts, sizes = np.split(content["starts"], ends), np.split(content["sizes"], ends)
            described = zip(content["keys"], starts, sizes, content["shapes"], content["fps"], strict=True)
            return {
                str(key): _Entry(start, size, int(shape[0]), int(shape[1]), float(fps))
                for key, start, size, shape, fps in described
            }
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise BrokenVideo(
            f"{file} is not the index of a shard ({error}). Delete it; it is not needed."
        ) from error


def _scan(shard: Path) -> dict[str, _Entry]:
    """Where the frames are, from the headers of the tar file."""
    places: dict[str, list[tuple[str, int, int]]] = {}
    about: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                if member.isfile() and name.lower().endswith((".jpg", ".jpeg")):
                    places.setdefault(folder, []).append((name, member.offset_data, member.size))
                elif name == "video.json":
                    content = tar.extractfile(member)
                    assert content is not None, "a file of a tar file can be opened"
                    about[folder] = json.loads(content.read())
    except (OSError, tarfile.TarError, ValueError) as error:
        raise BrokenVideo(
            f"{shard} cannot be read as a tar file ({error}). Copy or make it again."
        ) from error
    entries = {}
    for folder, frames in places.items():
        frames.sort(key=lambda frame: natural_key(frame[0]))
        starts, sizes = (np.asarray([frame[k] for frame in frames], dtype=np.int64) for k in (1, 2))
        known = about.get(folder) or _look(shard, int(starts[0]), int(sizes[0]))
        entries[folder.replace("/", "_")] = _Entry(
            starts,
            sizes,
            int(known["height"]),
            int(known["width"]),
            float(known.get("fps", FRAME_FOLDER_FPS)),
        )
    if not entries:
        raise BrokenVideo(
            f"{shard} holds no videos: expected folders of JPEG frames. Make it with retrace data shard."
        )
    return entries


def _look(shard: Path, start: int, size: int) -> dict[str, int]:
    with shard.open("rb") as file:
        file.seek(start)
        image = cv2.imdecode(np.frombuffer(file.read(size), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise BrokenVideo(f"The first frame of a video in {shard} is damaged. Make the shard again.")
    return {"height": image.shape[0], "width": image.shape[1]}
