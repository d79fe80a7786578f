"""`retrace study`: a paper's experiment at laptop size."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from retrace import studies
from retrace.cli.parsing import Parser, add_device
from retrace.errors import UsageError

if TYPE_CHECKING:
    from retrace.verbs.study import StudyReport

SUMMARY = "make a paper's experiment again at laptop size: table, numbers, figure"


def build_parser() -> Parser:
    """Return the parser of this verb."""
    parser = Parser(
        prog="retrace study",
        description="Train every arm of a study from several seeds on generated scenes, measure, and write a table "
        "with mean and spread, the numbers, and a figure in the paper's form. What is finished is kept after every "
        "run: the same command goes on where it was stopped. docs/studies.md has what came of them.",
    )
    parser.add_argument("study", nargs="?", help="name of a study (see --list), or a YAML file like those")
    parser.add_argument("--list", action="store_true", help="list the studies and stop")
    parser.add_argument("--out", metavar="DIR", help="folder (default: studies/NAME)")
    parser.add_argument(
        "--size",
        default="small",
        choices=studies.SIZES,
        help="small: two cores, about half an hour; gpu: larger networks and longer runs (default: %(default)s)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="only these of what is compared")
    parser.add_argument(
        "--videos",
        metavar="DIR",
        help="folder with davis2016/ and badja/, for studies that measure on real clips too",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="runs at a time, one thread each; 0: one per core, one on a GPU",
    )
    add_device(parser)
    parser.add_argument("--overwrite", action="store_true", help="delete the study in --out and start anew")
    parser.add_argument("--quiet", action="store_true", help="say nothing while it works")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def run(args: Namespace) -> int:
    """List the studies, or carry one out and print its table."""
    if args.list:
        known = studies.names()
        width = max(map(len, known))
        lines = [f"{name:<{width}}  {title}" for name, title in known.items()]
        print(json.dumps(known, indent=2) if args.json else "\n".join(lines))
        return 0
    if args.study is None:
        raise UsageError(f"Which study? {', '.join(studies.names())}, or a YAML file; --list describes them.")
    from retrace.verbs.study import study

    report = study(
        args.study,
        args.out,
        size=args.size,
        seeds=args.seeds,
        arms=args.arms,
        videos=args.videos,
        workers=args.workers,
        device=args.device,
        overwrite=args.overwrite,
        progress=None if args.quiet else lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(json.dumps(asdict(report), indent=2) if args.json else _text(report))
    return 0


def _text(report: "StudyReport") -> str:
    width = max(map(len, report.files))
    files = [f"  {purpose:<{width}}  {path}" for purpose, path in report.files.items()]
    parts = [report.table, report.claims, "\n".join(["Open:", *files])]
    return "\n\n".join(part for part in parts if part)
