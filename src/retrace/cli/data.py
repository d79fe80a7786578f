"""`retrace data check | index | shard | export`."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from tqdm import tqdm

from retrace.cli.parsing import Parser
from retrace.datasets import READERS
from retrace.datasets.footage import Index
from retrace.datasets.records import Sequence
from retrace.errors import UsageError
from retrace.formats.carried import EXPORTS
from retrace.verbs import data

SUMMARY = "check, index and pack footage, check benchmarks, export results to labelling tools"

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
        description="Look at footage before training on it, at a benchmark before evaluating; take carried labels to "
        "a labelling tool. Videos are mp4, mov, avi, mkv, webm, gif "
        "and more; a folder of images is a video too, its frames in natural order of their names.",
    )
    jobs = parser.add_subcommands(required=True, dest="job", metavar="JOB")
    jobs.add_subcommand(
        "check",
        _check_parser(),
        help="say which videos can be used and which are broken, and why; or what a benchmark's folder lacks",
    )
    jobs.add_subcommand(
        "index", _index_parser(), help="write length, size, rate and damage of every video to a file"
    )
    jobs.add_subcommand(
        "shard",
        _shard_parser(),
        help="pack videos into tar files of JPEG frames, for fast storage and many machines",
    )
    jobs.add_subcommand(
        "export",
        _export_parser(),
        help="write the labels of a finished run of propagate or track as a file of CVAT, Label Studio, DeepLabCut or "
        "COCO",
    )
    return parser


def _export_parser() -> Parser:
    parser = Parser(
        description="Write the labels of a finished run of propagate or track as a file that a labelling tool "
        "imports. cvat: masks of images, boxes and points as tracks of a video (XML 1.1). labelstudio: predictions "
        "(JSON: brush, points, rectangles); the labelling interface that fits is printed. deeplabcut: keypoints of a "
        "whole video with their likelihood (CSV). deeplabcut-labels: CollectedData of the images in labeled-data "
        "(CSV). coco: run lengths, boxes, keypoints (JSON).",
    )
    parser.add_argument("result", metavar="DIR", help="what propagate or track wrote: its --out")
    parser.add_argument("--to", choices=list(EXPORTS), help="the tool (required)")
    parser.add_argument("--out", metavar="FILE", help=f"default: in DIR, {', '.join(EXPORTS.values())}")
    parser.add_argument(
        "--rename",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="call an object, box or keypoint NEW in the file; may be given several times (objects of a mask are "
        "called 1, 2, ...)",
    )
    parser.add_argument(
        "--prefix",
        metavar="TEXT",
        help="what comes before the names of frames or video, such as the address where Label Studio finds them",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _shard_parser() -> Parser:
    parser = Parser(
        description="Pack videos into tar files of JPEG frames. Training reads them without decoding video: give the "
        "folder as --data. Run again, it adds what is new. Broken videos are named; the exit status is 1 only when "
        "none can be read.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help=_PATHS_HELP)
    parser.add_argument("--out", metavar="DIR", help="the folder for the shards (required)")
    parser.add_argument(
        "--short-side",
        type=int,
        default=288,
        metavar="PX",
        help="reduce larger frames to this; 0 keeps (default: 288)",
    )
    parser.add_argument("--quality", type=int, default=95, help="of the JPEG files, 1 to 100 (default: 95)")
    parser.add_argument(
        "--shard-mb", type=int, default=1024, metavar="MIB", help="size of a shard (default: 1024)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _check_parser() -> Parser:
    parser = Parser(
        description="Open every video and say which are broken, and why. Exit status 1 when one is broken or damaged. "
        "With --list: also say what of a published list is missing, and what is not on it. Exit status 1 when anything "
        "is missing. With the name of a benchmark: open every file of its folder and say what is missing or odd. Exit "
        "status 1 when a sequence cannot be evaluated.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH | BENCHMARK", help=f"{_PATHS_HELP}; or one of {', '.join(READERS)}"
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="folder of the benchmark; default: looked for in the folder that the variable RETRACE_DATA names",
    )
    parser.add_argument("--split", metavar="NAME", help="part of the benchmark, such as val or train")
    parser.add_argument(
        "--list",
        metavar="FILE",
        help="the published list of a training corpus: Kinetics' CSV, YouTube-VOS' meta.json, ImageNet's synsets, or "
        "one path per line (VLOG, ImageNet's train.txt)",
    )
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
    if args.job == "check" and job["list"] is not None:
        return _check_list(job)
    if args.job == "check" and _is_benchmark(job):
        return _check_benchmark(job)
    if args.job == "shard":
        return _run_shard(job)
    if args.job == "export":
        return _run_export(job)
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


def _check_list(job: Namespace) -> int:
    if job.root is not None or job.split is not None:
        raise UsageError(
            "--list is of a training corpus, --root and --split are of a benchmark. Leave out the one or both."
        )
    report = data.check_list(job.paths, job["list"], thorough=job.thorough, progress=_bar)
    if job.json:
        print(json.dumps(asdict(report), indent=2, ensure_ascii=False))
    else:
        for name in report.missing:
            print(f"missing: {name}")
        for path in report.extra:
            print(f"not listed: {path}")
        _print_trouble([("broken", report.broken), ("damaged", report.damaged)])
        there = report.listed - len(report.missing)
        print(
            f"{there:,} of {_count(report.listed, 'entry', 'entries')} of the list ({report.kind}) are there; "
            f"{len(report.missing)} missing, {len(report.extra)} not listed, {len(report.broken)} broken, "
            f"{len(report.damaged)} damaged."
        )
    return 1 if report.missing or report.broken or report.damaged else 0


def _is_benchmark(job: Namespace) -> bool:
    """Whether a benchmark is meant: --root or --split say so, or a name that is no path here."""
    name = job.paths[0]
    if job.root is not None or job.split is not None:
        if len(job.paths) > 1:
            raise UsageError(
                f"--root and --split belong to one benchmark; {len(job.paths)} words were given."
            )
        return True
    return len(job.paths) == 1 and name in READERS and not Path(name).exists()


def _check_benchmark(job: Namespace) -> int:
    found = data.check_benchmark(
        job.paths[0], job.root, split=job.split, thorough=job.thorough, progress=_sequence_bar
    )
    excluded = {problem.sequence for problem in found.problems if problem.excluded}
    frames = sum(sequence.num_frames for sequence in found.sequences)
    annotated = sum(len(sequence.annotated) for sequence in found.sequences)
    if job.json:
        content = {
            "benchmark": found.name,
            "root": str(found.root),
            "split": found.split,
            "sequences": [sequence.name for sequence in found.sequences],
            "listed": found.num_listed,
            "frames": frames,
            "annotated": annotated,
            "problems": [asdict(problem) for problem in found.problems],
        }
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return 1 if excluded else 0
    for problem in found.problems:
        kind = "excluded" if problem.excluded else "odd"
        print(f"{kind}: {f'{problem.sequence}: ' if problem.sequence else ''}{problem.sentence}")
    odd = sum(not problem.excluded for problem in found.problems)
    print(
        f"{found.name} ({found.split}) in {found.root}: {len(found.sequences)} of "
        f"{_count(found.num_listed, 'sequence')} can be evaluated ({_count(frames, 'frame')}, {annotated:,} "
        f"annotated); {_count(odd, 'oddity', 'oddities')}."
    )
    return 1 if excluded else 0


def _sequence_bar(sequences: Iterable[Sequence[Any]]) -> Iterable[Sequence[Any]]:
    return tqdm(sequences, unit="sequence", file=sys.stderr, dynamic_ncols=True, disable=None, leave=False)


def _run_export(job: Namespace) -> int:
    from retrace.verbs.export import export

    if job.to is None:
        raise UsageError(f"Export to what? Give --to, one of {', '.join(EXPORTS)}.")
    pairs = [word.partition("=") for word in job.rename]
    wrong = [word for word, (old, _, new) in zip(job.rename, pairs, strict=True) if not (old and new)]
    if wrong:
        raise UsageError(f"--rename {wrong[0]!r} is not understood. Give OLD=NEW, such as 1=cat.")
    done = export(
        job.result,
        job.to,
        out=job.out,
        rename={old: new for old, _, new in pairs},
        prefix=job.prefix,
        overwrite=job.overwrite,
        progress=lambda frames: tqdm(
            frames, unit="frame", file=sys.stderr, dynamic_ncols=True, disable=None, leave=False
        ),
    )
    if job.json:
        print(json.dumps(asdict(done), indent=2, ensure_ascii=False))
        return 0
    print(f"{done.path}: {_count(done.labels, 'label')} in {_count(done.frames, 'frame')}")
    print(f"labels that the tool must know: {', '.join(done.names)}")
    if done.interface is not None:
        print(f"labelling interface: {done.interface}")
    return 0


def _run_shard(job: Namespace) -> int:
    if job.out is None:
        raise UsageError("The shards need a folder. Give --out DIR.")
    report = data.shard(
        job.paths,
        job.out,
        short_side=job.short_side or None,
        quality=job.quality,
        shard_mb=job.shard_mb,
        progress=_bar,
    )
    if job.json:
        print(json.dumps(asdict(report), indent=2, ensure_ascii=False))
        return 0
    for path, reason in report.failures:
        print(f"broken or damaged: {reason}" if path in reason else f"broken or damaged: {path}: {reason}")
    before = f"; {_count(report.kept, 'video')} were there before" if report.kept else ""
    print(
        f"{_count(report.videos, 'video')} in {_count(len(report.shards), 'shard')} of {report.out}{before}."
    )
    return 0


def _bar(paths: Iterable[Path]) -> Iterable[Path]:
    return tqdm(paths, unit="video", file=sys.stderr, dynamic_ncols=True, disable=None, leave=False)


def _print(found: Index) -> None:
    _print_trouble([("broken", found.broken), ("damaged", found.damaged)])
    print(
        f"{_count(len(found.videos), 'video')} can be read ({_count(found.num_frames, 'frame')}, "
        f"{_duration(found.seconds)}), {len(found.damaged)} of them damaged; {len(found.broken)} broken."
    )


def _print_trouble(kinds: Iterable[tuple[str, Iterable[tuple[Any, str]]]]) -> None:
    for kind, entries in kinds:
        for path, reason in entries:
            # most sentences name the file themselves
            print(f"{kind}: {reason}" if str(path) in reason else f"{kind}: {path}: {reason}")


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


def _count(number: int, what: str, several: str | None = None) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {several or what + 's'}"


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
