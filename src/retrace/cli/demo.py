"""`retrace demo`."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from retrace.cli.parsing import Parser, add_device, add_model

if TYPE_CHECKING:
    from retrace.verbs.demo import DemoReport

SUMMARY = "make a short video, carry a label through it, and show how well that went"


def build_parser() -> Parser:
    """Return the parser of this verb."""
    parser = Parser(
        prog="retrace demo",
        description="Make a short video of moving objects, keep the mask of its first frame only, carry that mask "
        "through the video with the encoder that ships, and compare every frame with the exact truth. Replaces what an "
        "earlier demonstration left in the folder.",
    )
    parser.add_argument(
        "--out", default="demo", metavar="DIR", help="folder for the result (default: %(default)s)"
    )
    add_model(parser)
    parser.add_argument("--seed", type=int, help="of the scene; another number is another video")
    parser.add_argument("--frames", type=int, default=90, help="length of the video (default: %(default)s)")
    add_device(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def run(args: Namespace) -> int:
    """Run the demonstration and name the files to open."""
    from tqdm import tqdm

    from retrace.verbs.demo import SEED, demo

    with tqdm(unit="frame", disable=args.quiet, file=sys.stderr, dynamic_ncols=True) as bar:

        def show(stage: str, done: int, total: int) -> None:
            bar.set_description(stage)
            bar.total, bar.n = total, done
            bar.refresh()

        report = demo(
            args.out,
            model=args.model,
            seed=SEED if args.seed is None else args.seed,
            frames=args.frames,
            device=args.device,
            progress=show,
        )
    print(json.dumps(asdict(report), indent=2) if args.json else _text(report))
    return 0


def _text(report: "DemoReport") -> str:
    mean, copy = _mean(report.mean_iou), _mean(report.copy_iou)
    width = max(map(len, report.files))
    lines = [
        f"{report.frames} frames in {report.seconds['total']:.0f} s with the encoder '{report.model}'. Agreement with "
        f"the exact truth (mean IoU): {mean:.2f}; not moving the first mask would give {copy:.2f}.",
        "Open:",
        *(f"  {path:<{width}}  {what}" for path, what in report.files.items()),
    ]
    return "\n".join(lines)


def _mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)
