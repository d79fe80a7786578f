"""`retrace data`: look at footage and pack it before training on it, look at a benchmark before evaluating on it."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from retrace.datasets import READERS, footage, reading, records, root_of
from retrace.datasets.listing import compare, read_listing
from retrace.datasets.records import Video
from retrace.errors import RetraceError, UsageError
from retrace.files import check_owner, is_leftover, open_image
from retrace.video.decode import BrokenVideo, probe
from retrace.video.shards import ShardStore, ShardWriter, read_shard

Progress = Callable[[Iterable[Path]], Iterable[Path]]


def check(
    source: str | Path | Sequence[str | Path], *, thorough: bool = False, progress: Progress | None = None
) -> footage.Index:
    """Open every video and frame folder of `source` and say which can be used.

    Args:
        source: A folder (searched recursively), a video, a list file with one path per line, or a list of these.
        thorough: Decode every frame instead of the first one, to find damage in the middle.
        progress: Wraps the paths while they are looked at, such as tqdm.

    Shards (tar files that `shard` wrote, and folders of them) are looked into: a cut-off or unreadable one is broken.

    Errors: RetraceError when `source` does not exist or names no video. A broken video is in the answer, not an error.
    """
    shards, rest = footage.split_shards(source)
    found = footage.Index()
    if rest or not shards:
        found = footage.index(rest, partial(probe, thorough=thorough), progress=progress)
    store = ShardStore()
    for path in shards if progress is None else progress(shards):
        try:
            videos = read_shard(path)
        except BrokenVideo as error:
            found.broken.append((path, str(error)))
            continue
        for video in videos:
            damage = _damage(store, video) if thorough else None
            if damage is not None:
                found.damaged.append((video.path, damage))
            found.videos.append(video)
    return found


def _damage(store: ShardStore, video: Video) -> str | None:
    """The sentence about the first frame of a video in a shard that cannot be decoded."""
    for index in range(video.num_frames):
        try:
            store.frames(video, [index])
        except BrokenVideo as error:
            return str(error)
    return None


@dataclass(frozen=True)
class ListReport:
    """What a folder has of a published list.

    Attributes:
        kind: of the list: "Kinetics", "YouTube-VOS", "classes" or "paths".
        listed: entries of the list.
        missing: entries that are not there.
        extra: what is there and not listed.
        broken: (path, sentence) of what cannot be read.
        damaged: (path, sentence) of videos that can be read up to a break.
    """

    kind: str
    listed: int
    missing: list[str]
    extra: list[str]
    broken: list[tuple[str, str]]
    damaged: list[tuple[str, str]]


def check_list(
    source: str | Path | Sequence[str | Path],
    list_file: str | Path,
    *,
    thorough: bool = False,
    progress: Progress | None = None,
) -> ListReport:
    """Compare what is there with the published list of a corpus, and open all of it.

    Args:
        source: As `check` takes it; of a list of images or classes of images, folders of images.
        list_file: Kinetics' CSV, YouTube-VOS' meta.json, ImageNet's synsets, or one path per line (`datasets.listing`).
        thorough: Decode every frame or image, to find damage in the middle.
        progress: Wraps the paths while they are looked at, such as tqdm.

    Errors: RetraceError when `source` does not exist or holds nothing, or the list cannot be read.
    """
    listing = read_listing(list_file)
    given = [source] if isinstance(source, str | Path) else source
    if listing.images:
        paths = footage.find_images(source)
        broken = []
        for path in paths if progress is None else progress(paths):
            try:
                open_image(path, "frame", whole=thorough).close()
            except RetraceError as error:
                broken.append((path, str(error)))
        damaged: list[tuple[Path, str]] = []
        if listing.kind == "classes":
            paths = list(dict.fromkeys(path.parent for path in paths))
    else:
        found = check(source, thorough=thorough, progress=progress)
        broken, damaged = found.broken, found.damaged
        paths = [*(video.path for video in found.videos), *(path for path, _ in broken)]
    missing, extra = compare(listing, paths, [Path(part) for part in given])
    return ListReport(
        listing.kind,
        len(listing.names),
        missing,
        sorted(str(path) for path in extra),
        [(str(path), reason) for path, reason in broken],
        [(str(path), reason) for path, reason in damaged],
    )


@dataclass(frozen=True)
class ShardReport:
    """What `shard` did.

    Attributes:
        out: folder of the shards.
        shards: files written by this call.
        videos: videos in them.
        kept: videos that shards of the folder held before.
        failures: (path, reason) of videos that could not be read, or only up to a break.
    """

    out: str
    shards: list[str]
    videos: int
    kept: int
    failures: list[tuple[str, str]]


def shard(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    short_side: int | None = 288,
    quality: int = 95,
    shard_mb: int = 1024,
    progress: Progress | None = None,
) -> ShardReport:
    """Pack videos into tar files of JPEG frames, which many processes and machines read fast.

    Running it again adds what is new in `source`: videos that the shards of `out` hold are passed over, and an
    interrupted call continues after the last whole shard.

    Args:
        source: A folder (searched recursively), a video, a list file with one path per line, or a list of these.
        out: Folder for `shard-000000.tar`, ... and what says where the frames are in them.
        short_side: Larger frames are reduced to this short side, pixels; None keeps their size.
        quality: Of the JPEG files, 1 to 100.
        shard_mb: A shard is closed once it holds so many MiB.
        progress: Wraps the paths while they are packed, such as tqdm.

    Errors: UsageError for numbers out of range; RetraceError when `source` names no video, none can be read, `out`
        cannot be written, holds something else, or a shard of it is broken.
    """
    if not 1 <= quality <= 100 or shard_mb < 1 or (short_side is not None and short_side < 16):
        raise UsageError(
            f"quality is {quality}, shard_mb {shard_mb}, short_side {short_side}; expected 1 to 100, at least 1, and "
            "at least 16 or none."
        )
    out = Path(out)
    check_owner(out, lambda names: any(name.startswith("shard-") for name in names), "data shard")
    for leftover in filter(is_leftover, out.glob(".*")):
        leftover.unlink(missing_ok=True)
    there = {video.path.name for path in sorted(out.glob("shard-*.tar")) for video in read_shard(path)}
    paths = footage.find_videos(source)
    new = [(key, path) for path in paths if (key := _key(path)) not in there]
    made = not out.exists()
    writer = ShardWriter(out, short_side=short_side, quality=quality, shard_bytes=shard_mb * 2**20)
    steps = iter(() if progress is None else progress([path for _, path in new]))
    next(steps, None)
    failures = writer.write(new, lambda _: next(steps, None))
    written = sum(len(read_shard(path)) for path in writer.shards)
    if failures and not written and not there:
        path, reason = next(iter(failures.items()))
        with suppress(OSError):  # not empty: somebody else has put something there meanwhile
            if made:
                out.rmdir()
        raise RetraceError(f"None of {len(failures)} videos can be read; the first is {path}: {reason}")
    return ShardReport(
        str(out),
        [str(path) for path in writer.shards],
        written,
        len(paths) - len(new),
        list(failures.items()),
    )


def _key(path: Path) -> str:
    """Name of a video in its shard: its own, and a digest of where it was, because names repeat."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem)[:60]
    return f"{name}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:10]}"


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


def check_benchmark(
    benchmark: str,
    root: str | Path | None = None,
    *,
    split: str | None = None,
    thorough: bool = False,
    progress: reading.Progress[Any] | None = None,
) -> records.Dataset[Any]:
    """Open every file of a benchmark and say exactly what is missing or odd.

    Args:
        benchmark: a key of `datasets.READERS`, such as "davis2017".
        root: its folder; None looks into the folder that RETRACE_DATA names.
        split: one of the benchmark's `SPLITS`; None takes the first.
        thorough: decode every frame; otherwise the headers of images and the first frames of videos are read.
        progress: wraps the sequences while they are looked at, such as tqdm.

    Returns: the sequences that can be evaluated, and every problem with the sentence that says it.

    Errors: UsageError for an unknown benchmark or split, or no root; RetraceError when the folder has another layout or
        nothing in it can be used.
    """
    folder = root_of(benchmark, root)
    reader = READERS[benchmark]
    found = reader.check(folder, split=split or reader.SPLITS[0], thorough=thorough, progress=progress)
    sound: list[records.Sequence[Any]] = []
    problems = list(found.problems)
    for sequence in found.sequences:
        trouble = _video_trouble(sequence, thorough=thorough)
        if trouble is None:
            sound.append(sequence)
        else:
            problems.append(records.Problem(trouble, sequence.name, excluded=True))
    return replace(found, sequences=tuple(sound), problems=tuple(problems))


def _video_trouble(sequence: records.Sequence[Any], *, thorough: bool) -> str | None:
    """Why the video file of a sequence cannot be used; None where it can, or where frames are images."""
    if not isinstance(sequence.frames, Path) or sequence.frames.is_dir():
        return None
    try:
        video, damage = probe(sequence.frames, thorough=thorough)
    except RetraceError as error:
        return str(error)
    if damage is not None:
        return damage
    if video.num_frames < sequence.num_frames:
        return (
            f"{sequence.frames} has {video.num_frames} frames, its annotation needs {sequence.num_frames}. Download it "
            "again."
        )
    return None
