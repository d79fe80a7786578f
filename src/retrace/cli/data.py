"""`retrace data check | index`."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from jsonargparse import Namespace
from tqdm import tqdm

from retrace.cli.parsing import Parser
from retrace.datasets.footage import Index
from retrace.errors import UsageError
from retrace.verbs import data

SUMMARY = "check and index footage before training on it"

_PATHS_HELP = (
    "a folder (searched recursively for videos and frame folders), a video, or a text file with one path "
    "per line; several may be given"
)
_THOROUGH_HELP = (
    "decode every frame; without it the header and the first frame are read, and damage in the middle is not "
    "found"
)


def build_parser() -> Parser:
    """Return the parser of this verb; one subcommand per job."""
    parser = Parser(
        prog="retrace data",
        description="Look at footage before training on it. Videos are mp4, mov, avi, mkv, webm, gif "
        "and more; a folder of images is a video too, its frames in natural order of their names.",
    )
    jobs = parser.add_subcommands(required=True, dest="job", metavar="JOB")
    jobs.add_subcommand(
        "check", _check_parser(), help="say which videos can be used and which are broken, and why"
    )
    jobs.add_subcommand(
        "index", _index_parser(), help="write length, size, rate and damage of every video to a file"
    )
    return parser


def _check_parser() -> Parser:
    parser = Parser(
        description="Open every video and say which are broken, and why. Exit status 1 when one is broken or damaged.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help=_PATHS_HELP)
    parser.add_argument("--thorough", action="store_true", help=_THOROUGH_HELP)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _index_parser() -> Parser:
    parser = Parser(
        description="Write an index of all videos. Run again, it opens only those that are new or have changed. "
        "Broken videos are recorded with their reason; the exit status is 1 only when no video can be read.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help=_PATHS_HELP)
    parser.add_argument(
        "--out", metavar="FILE", help="the JSON index to make or to bring up to date (required)"
    )
    parser.add_argument("--thorough", action="store_true", help=_THOROUGH_HELP)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(args: Namespace) -> int:
    """Do the chosen job, print the result, return the exit status."""
    job = args[args.job]
    if args.job == "check":
        found = data.check(job.paths, thorough=job.thorough, progress=_bar)
    else:
        if job.out is None:
            raise UsageError("The index needs a name. Give --out FILE, such as --out index.json.")
        found = data.index(job.paths, job.out, thorough=job.thorough, progress=_bar)
    if job.json:
        print(json.dumps(_as_dict(found), indent=2, ensure_ascii=False))
    else:
        _print(found)
    if args.job == "check":
        return 1 if found.broken or found.damaged else 0
    return 0 if found.videos else 1


def _bar(paths: Iterable[Path]) -> Iterable[Path]:
    return tqdm(paths, unit="video", file=sys.stderr, dynamic_ncols=True, disable=None, leave=False)


def _print(found: Index) -> None:
    for kind, entries in (("broken", found.broken), ("damaged", found.damaged)):
        for path, reason in entries:
            # most sentences name the file themselves
            print(f"{kind}: {reason}" if str(path) in reason else f"{kind}: {path}: {reason}")
    print(
        f"{_count(len(found.videos), 'video')} can be read ({_count(found.num_frames, 'frame')}, "
        f"{_duration(found.seconds)}), {len(found.damaged)} of them damaged; {len(found.broken)} broken."
    )


def _as_dict(found: Index) -> dict[str, object]:
    videos = [
        {"path": str(v.path), "num_frames": v.num_frames, "height": v.height, "width": v.width, "fps": v.fps}
        for v in found.videos
    ]
    return {
        "videos": videos,
        "damaged": [{"path": str(path), "reason": reason} for path, reason in found.damaged],
        "broken": [{"path": str(path), "reason": reason} for path, reason in found.broken],
        "num_frames": found.num_frames,
        "seconds": round(found.seconds, 3),
    }


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {whole % 60} s"
        if minutes
        else f"{seconds:.1f} s"
    )
