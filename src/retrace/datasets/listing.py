"""Published lists of training corpora, and what a folder lacks of them.

| list | a line or entry | names |
|---|---|---|
| Kinetics' CSV | label,youtube_id,time_start,time_end,split | `<id>_<start>_<end>`, six digits each, or `<id>` |
| YouTube-VOS' meta.json | {"videos": {name: ...}} | folders of frames |
| ImageNet's synsets | n01440764 tench, Tinca tinca | folders of images |
| paths (VLOG, ImageNet's train.txt) | path, with or without suffix, then any numbers | what lies there |

Sources: Kay et al., arXiv 1705.06950 (Kinetics); Xu et al., arXiv 1809.03327 (YouTube-VOS); Fouhey et al., CVPR 2018
(VLOG); Russakovsky et al., IJCV 2015 (ImageNet).
"""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from retrace.datasets.records import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from retrace.errors import RetraceError

_SYNSET = re.compile(r"n\d{8}\b(?!/)")
_IMAGE = re.compile(r"n\d{8}/n\d{8}_\d+|ILSVRC2012_\w+_\d{8}")


@dataclass(frozen=True)
class Listing:
    """What a list names.

    Attributes:
        kind: "Kinetics", "YouTube-VOS", "classes" or "paths", for sentences.
        names: every entry, in order, as the list has it.
        ways: the parts of the paths under which each may lie, suffixes left out.
        images: single images, or folders of them, and not videos.
    """

    kind: str
    names: tuple[str, ...]
    ways: tuple[tuple[tuple[str, ...], ...], ...]
    images: bool = False


def read_listing(file: str | Path) -> Listing:
    """Read a published list, recognised by what it holds.

    Errors: RetraceError when it cannot be read or names nothing.
    """
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RetraceError(
            f"{file} cannot be read as a list ({error}). Give Kinetics' CSV, YouTube-VOS' meta.json, ImageNet's "
            "synsets, or one path per line."
        ) from error
    found = _videos_of_meta(file, text) if file.suffix.lower() == ".json" else _kinetics(text) or _lines(text)
    if not found.names:
        raise RetraceError(f"{file} names nothing. Give the list as it was published.")
    return found


def compare(listing: Listing, paths: Sequence[Path], roots: Sequence[Path]) -> tuple[list[str], list[Path]]:
    """What is listed and not there, and what is there and not listed.

    A path has a name where the one's parts end with all of the other's: a list may begin further up than the folder
    that is looked at, and the folder further up than the list.

    Args:
        listing: of a corpus.
        paths: videos, frame folders, images or videos in shards.
        roots: folders that they were found under; parts above these say nothing.

    Returns: names, in the order of the list; paths, in their order.
    """
    by_last: defaultdict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
    for number, path in enumerate(paths):
        parts = _parts(path, roots)
        by_last[parts[-1]].append((parts, number))
    seen: set[int] = set()
    missing = []
    for name, ways in zip(listing.names, listing.ways, strict=True):
        here = {
            number
            for way in ways
            for parts, number in by_last.get(way[-1], ())
            if all(a == b for a, b in zip(reversed(parts), reversed(way), strict=False))
        }
        seen |= here
        if not here:
            missing.append(name)
    return missing, [path for number, path in enumerate(paths) if number not in seen]


def _parts(path: Path, roots: Iterable[Path]) -> tuple[str, ...]:
    """Parts below the first root that holds it, without the suffix of a file or the digest of a shard's key."""
    if path.parent.suffix.lower() == ".tar":
        return (path.name.rpartition("-")[0] or path.name,)
    below = next((path.relative_to(root) for root in roots if root in path.parents), Path(path.name))
    return _stripped(PurePosixPath(below.as_posix()))


def _stripped(path: PurePosixPath) -> tuple[str, ...]:
    known = path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES
    return tuple(part for part in (path.with_suffix("") if known else path).parts if part not in ("/", "."))


def _videos_of_meta(file: Path, text: str) -> Listing:
    try:
        names = tuple(str(name) for name in json.loads(text)["videos"])
    except (ValueError, KeyError, TypeError) as error:
        raise RetraceError(
            f'{file} is no list of videos ({error!r}); expected {{"videos": {{name: ...}}}}, as in YouTube-VOS. '
            "Download it again."
        ) from error
    return Listing("YouTube-VOS", names, tuple(((name,),) for name in names))


def _kinetics(text: str) -> Listing | None:
    rows = csv.DictReader(text.splitlines())
    if not {"youtube_id", "time_start", "time_end"} <= set(rows.fieldnames or ()):
        return None
    names, ways = [], []
    for row in rows:
        try:
            start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
        except (TypeError, ValueError) as error:
            raise RetraceError(
                f"Line {rows.line_num} of the list has times that are no numbers ({error}). Download it again."
            ) from error
        names.append(f"{row['youtube_id']}_{start:06d}_{end:06d}")
        ways.append(((names[-1],), (row["youtube_id"],)))
    return Listing("Kinetics", tuple(names), tuple(ways))


def _lines(text: str) -> Listing:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if lines and all(_SYNSET.match(line) for line in lines):
        names = tuple(line[:9] for line in lines)
        return Listing("classes", names, tuple(((name,),) for name in names), images=True)
    # Behind a path stand counts and labels, which are numbers; a path may have blanks in it.
    names = tuple(re.sub(r"([\s,;]+-?\d+)+$", "", line) for line in lines)
    ways = tuple((_stripped(PurePosixPath(name)),) for name in names)
    images = any(PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES or _IMAGE.match(name) for name in names)
    return Listing("paths", names, ways, images)
