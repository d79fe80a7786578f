"""What `propagate` and `track` share on the command line: flags, the progress bar, the summary."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from tqdm import tqdm

from retrace.cli.parsing import Parser
from retrace.verbs.labelled_run import LabelledRun
from retrace.verbs.output import OURS


def run_parser(prog: str, description: str) -> Parser:
    """The parser of a verb that works on one video."""
    parser = Parser(prog=prog, description=description)
    parser.add_argument(
        "video", metavar="VIDEO", help="video file (mp4, mov, avi, mkv, webm, gif, ...) or folder of frames"
    )
    return parser


def protocol_flags(parser: Parser) -> Callable[..., Any]:
    """`add_argument` of the group for published settings and changes to them."""
    group = parser.add_argument_group(
        "protocol",
        "published settings by name, and single settings on top of them (default: as the protocol says)",
    )
    add: Callable[..., Any] = group.add_argument
    return add


def add_output_flags(parser: Parser) -> None:
    """Where the results go and what is said meanwhile."""
    add = parser.add_argument
    add(
        "--out",
        required=True,
        metavar="DIR",
        help="folder for the results; a new or empty one, or one of this run",
    )
    add(
        "--overwrite",
        action="store_true",
        help="replace results of another run in DIR, or redo a finished one",
    )
    add("--no-overlay", action="store_true", help="do not write overlay.mp4")
    add("--quiet", action="store_true", help="no progress bar")
    add("--json", action="store_true", help="print the summary as JSON")


def follow(result: LabelledRun, args: Namespace, extra: Sequence[tuple[str, str]] = ()) -> int:
    """Do the work with a progress bar, print the summary, return the exit status.

    Args:
        result: the run.
        args: with the flags of `add_output_flags`.
        extra: (label, value) rows of the verb's own for the printed summary.
    """
    if result.finished is not None:
        print(f"{args.out} holds this very run, finished. Redo it with --overwrite.", file=sys.stderr)
        summary = {key: value for key, value in result.finished.items() if key != "frames"}
    else:
        total = None if result.video.num_frames is None else len(result)
        with tqdm(total=total, unit="frame", disable=args.quiet, file=sys.stderr, dynamic_ncols=True) as bar:
            summary = result.run(lambda _: _advance(bar))
    print(json.dumps(summary, indent=1) if args.json else _text(summary, Path(args.out), extra))
    # 1 for a video that broke in the middle: what came before the break is there, the job is not done
    return 1 if summary["video"]["damage"] else 0


def _advance(bar: Any) -> None:
    bar.update(1)


def _text(summary: dict[str, Any], out: Path, extra: Sequence[tuple[str, str]]) -> str:
    """The summary for reading."""
    seconds = summary["seconds"]
    stages = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if name != "total")
    rows = [
        ("frames", f"{summary['frames_done']} in {seconds['total']:.1f} s ({stages})"),
        ("labels", f"{summary['labels']['kind']}: {', '.join(summary['labels']['names'][:12])}"),
        ("model", summary["model"]["name"]),
        ("protocol", summary["protocol"]["name"]),
        *extra,
    ]
    if "padding" in summary:
        rows.append(
            ("padded", "{bottom} pixels at the bottom, {right} at the right".format(**summary["padding"]))
        )
    doubts = [
        f"{one['name']} in frame {one['frame']} ({one['confidence']:.2f})"
        for one in summary.get("least_sure", [])[:3]
    ]
    if doubts:
        rows.append(("least sure", f"{', '.join(doubts)}; to correct, label such a frame too and run again"))
    if summary["video"]["damage"]:
        rows.append(("damage", summary["video"]["damage"]))
    if "void_pixels" in summary["labels"]:
        rows.append(
            ("void", f"{summary['labels']['void_pixels']} label pixels of value 255 were taken as background")
        )
    rows += [(name, str(out / name)) for name in OURS if (out / name).exists()]
    return "\n".join(f"{label:<14} {value}" for label, value in rows)
