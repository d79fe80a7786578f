"""Own footage: the videos and frame folders that a folder, a list file or a list names, and an index of them."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrace.datasets.records import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Video, natural_key
from retrace.errors import RetraceError, UsageError
from retrace.files import atomic_path

Probe = Callable[[Path], tuple[Video, str | None]]
"""Looks at one video: its record, and a sentence when it breaks after some frames. RetraceError when it is unreadable.
`video.decode.probe` is one."""

_VERSION = 1
_LISTS = frozenset({".txt", ".lst", ".list", ".csv"})


@dataclass(frozen=True)
class Index:
    """What was found."""

    videos: list[Video] = field(default_factory=list)
    """Everything that can be read, also those of `damaged`, whose `num_frames` counts the frames before the break."""
    broken: list[tuple[Path, str]] = field(default_factory=list)
    """(path, sentence) of what cannot be read at all."""
    damaged: list[tuple[Path, str]] = field(default_factory=list)
    """(path, sentence) of videos that can be read up to a break."""

    @property
    def num_frames(self) -> int:
        """Frames of all readable videos together."""
        return sum(video.num_frames for video in self.videos)

    @property
    def seconds(self) -> float:
        """Duration of all readable videos together."""
        return sum(video.num_frames / video.fps for video in self.videos)


def find_videos(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """Paths of the videos that `source` names, each once, not yet opened.

    Args:
        source: One of

            * a folder, searched recursively in natural order: files with a video's suffix, and folders that
              hold images (frame folders; a folder of photographs counts as one too); hidden files and
              folders are passed over, and so is what lies beside a folder `JPEGImages` (YouTube-VOS, DAVIS);
            * one video file;
            * a text file (.txt, .lst, .list, .csv) with one path per line, relative ones taken from the
              list's folder; empty lines and lines that begin with # are skipped;
            * a list of any of these.

    Errors: UsageError when `source` is an empty list; RetraceError when it does not exist or names no video.
        A path in a list that does not exist is no error here: it is returned, and reported when it is opened.
    """
    return _find(source, _VIDEOS)


def find_images(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """Paths of the image files that `source` names, each once, not yet opened.

    Args:
        source: What `find_videos` takes: a folder (such as ImageNet's `train`) is searched recursively for images, in
            natural order.

    Errors: as `find_videos`.
    """
    return _find(source, _IMAGES)


def split_shards(source: str | Path | Sequence[str | Path]) -> tuple[list[Path], list[str | Path]]:
    """Take the shards (tar files of `retrace data shard`) out of what `source` names.

    Args:
        source: What `find_videos` takes, tar files, and folders of tar files; a folder with a tar file in it is one.

    Returns: the shards, each once, in natural order; and the rest of `source`.
    """
    shards: list[Path] = []
    rest: list[str | Path] = []
    for part in [source] if isinstance(source, str | Path) else source:
        path = Path(part)
        inside = (
            sorted(path.glob("[!.]*.tar"), key=lambda file: natural_key(file.name)) if path.is_dir() else []
        )
        if inside or path.suffix.lower() == ".tar":
            shards += inside or [path]
        else:
            rest.append(part)
    return _unique(shards), rest


def index(
    source: str | Path | Sequence[str | Path],
    probe: Probe,
    *,
    file: str | Path | None = None,
    thorough: bool = False,
    progress: Callable[[Iterable[Path]], Iterable[Path]] | None = None,
) -> Index:
    """Look at every video of `source` and remember the answers in `file`.

    A video whose size and modification time are those of the last time is not opened again; a broken one
    neither. The file is written atomically, at an interruption as well. A broken video is
    recorded with its reason and stops nothing.

    Args:
        source: What `find_videos` takes.
        probe: Looks at one video, such as `video.decode.probe`.
        file: JSON index to continue and to write; None keeps nothing.
        thorough: Says that `probe` decodes every frame: what `file` knows from a quicker look is looked at again.
        progress: Wraps the paths while they are looked at, such as tqdm.

    Errors: as `find_videos`; RetraceError when `file` is not such an index or cannot be written.
    """
    paths = find_videos(source)
    known = _load(Path(file)) if file is not None and Path(file).exists() else {}
    entries: dict[str, dict[str, Any]] = {}
    try:
        for path in paths if progress is None else progress(paths):
            key, stamp = str(path.resolve()), _stamp(path)
            entry = known.get(key)
            if entry is None or stamp is None or entry["stamp"] != stamp or entry["thorough"] < thorough:
                entry = {"stamp": stamp, "thorough": thorough} | _look(path, probe)
            entries[key] = entry
    except BaseException:
        if file is not None and any(known.get(key) != entry for key, entry in entries.items()):
            _save(Path(file), known | entries)  # an interrupted search over an archive continues where it was
        raise
    if file is not None and (entries != known or not Path(file).exists()):
        _save(Path(file), entries)
    return _index_of(entries, paths)


def load(file: str | Path) -> Index:
    """The index in a JSON file, without looking at the videos.

    Errors: RetraceError when the file is missing or not an index.
    """
    file = Path(file)
    if not file.exists():
        raise RetraceError(f"There is no index {file}. Make it with: retrace data index FOLDER --out {file}.")
    entries = _load(file)
    return _index_of(entries, [Path(path) for path in entries])


def _index_of(entries: dict[str, dict[str, Any]], paths: list[Path]) -> Index:
    found = Index()
    for path in paths:
        entry = entries[str(path.resolve())]
        if entry["video"] is None:
            found.broken.append((path, entry["reason"]))
            continue
        found.videos.append(Video(path, **entry["video"]))
        if entry["reason"] is not None:
            found.damaged.append((path, entry["reason"]))
    return found


def _look(path: Path, probe: Probe) -> dict[str, Any]:
    try:
        video, damage = probe(path)
    except RetraceError as error:
        return {"video": None, "reason": str(error)}
    size = {"num_frames": video.num_frames, "height": video.height, "width": video.width, "fps": video.fps}
    return {"video": size, "reason": damage}


def _stamp(path: Path) -> list[int] | None:
    """[bytes, modification time in ns, number of files] of a file or of the frames of a folder; None when missing."""
    try:
        files = [f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES] if path.is_dir() else [path]
        stats = [file.stat() for file in files]
    except OSError:
        return None
    return [sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0), len(stats)]


def _search(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted((f for f in folders if not f.startswith(".")), key=natural_key)
        if "JPEGImages" in folders:  # YouTube-VOS, DAVIS: what lies beside them are annotations, not video
            folders[:] = ["JPEGImages"]
        visible = [Path(place) / name for name in sorted(files, key=natural_key) if not name.startswith(".")]
        found += [file for file in visible if file.suffix.lower() in VIDEO_SUFFIXES]
        if any(file.suffix.lower() in IMAGE_SUFFIXES for file in visible):
            found.append(Path(place))
    return found


def _search_images(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted((f for f in folders if not f.startswith(".")), key=natural_key)
        visible = (Path(place) / name for name in sorted(files, key=natural_key) if not name.startswith("."))
        found += [file for file in visible if file.suffix.lower() in IMAGE_SUFFIXES]
    return found


@dataclass(frozen=True)
class _Kind:
    """What is looked for, in the words of messages."""

    one: str
    many: str
    expected: str
    search: Callable[[Path], list[Path]]
    """A folder -> what is in it."""


_VIDEOS = _Kind(
    "a video",
    "videos",
    "video files (mp4, mov, avi, mkv, webm, gif, ...) or folders of images",
    _search,
)
_IMAGES = _Kind("an image", "images", "image files (jpg, png, ...), in whatever subfolders", _search_images)


def _find(source: str | Path | Sequence[str | Path], kind: _Kind) -> list[Path]:
    """What `find_videos` and `find_images` do."""
    if not isinstance(source, str | Path):
        if len(source) == 0:
            raise UsageError(
                f"No {kind.many} were given. Give a folder, a list file or paths of {kind.many}."
            )
        return _unique(path for part in source for path in _find(part, kind))
    path = Path(source)
    if not path.exists():
        raise RetraceError(
            f"There is no file or folder {path}. Give a folder of {kind.many}, {kind.one}, or a list file."
        )
    if path.is_dir():
        found = kind.search(path)
        if not found:
            raise RetraceError(f"No {kind.many} under {path}. Expected {kind.expected}.")
        return found
    return _read_list(path, kind.search) if path.suffix.lower() in _LISTS else [path]


def _read_list(file: Path, search: Callable[[Path], list[Path]]) -> list[Path]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RetraceError(
            f"{file} cannot be read as a list of paths ({error}). Give one path per line, in UTF-8."
        ) from error
    named = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not named:
        raise RetraceError(f"{file} names nothing. Write one path per line.")
    paths: list[Path] = []
    for name in named:
        path = file.parent / Path(name).expanduser()  # an absolute path replaces the folder
        paths += (search(path) or [path]) if path.is_dir() else [path]
    return _unique(paths)


def _unique(paths: Iterable[Path]) -> list[Path]:
    return list({path.resolve(): path for path in paths}.values())


def _load(file: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["retrace_index"] != _VERSION:
            raise ValueError(f"version {content['retrace_index']}")
        videos: dict[str, dict[str, Any]] = content["videos"]
        for entry in videos.values():
            if entry["video"] is not None:
                Video(Path(), **entry["video"])
            if not {"stamp", "reason", "thorough"} <= entry.keys():
                raise ValueError("an entry is not complete")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RetraceError(
            f"{file} is not an index that this version of retrace wrote ({error}). Delete it or choose another name."
        ) from error
    return videos


def _save(file: Path, entries: dict[str, dict[str, Any]]) -> None:
    with atomic_path(file) as temporary:
        content = {"retrace_index": _VERSION, "videos": entries}
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
