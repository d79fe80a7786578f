"""`retrace track VIDEO --box x,y,w,h --out DIR`."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from retrace.cli.labelled_run import add_output_flags, follow, protocol_flags, run_parser
from retrace.cli.parsing import Parser, add_device, add_model
from retrace.errors import UsageError
from retrace.tracking.siamfc import PROTOCOLS
from retrace.verbs.track import Box, TrackKnobs, track

SUMMARY = "follow boxes through a video"

_DESCRIPTION = """Follow one or more boxes from the frame where they were drawn to the end of a video.

A box is its left top corner and its size in pixels, --box 120,80,64,48; give --box again for another target. Or give a
box file (JSON, CSV) instead: boxes of later frames in it correct, from there on the target looks as it does there.
DIR receives boxes.json, boxes.csv, boxes_mot.txt (MOTChallenge), overlay.mp4 to look at, and result.json with the
confidence in every frame. The same command again says that it is done, or starts an interrupted run afresh. Of a video
that breaks in the middle the frames before the break are kept; the exit status is then 1."""


def build_parser() -> Parser:
    """Return the parser of this verb."""
    parser = run_parser("retrace track", _DESCRIPTION)
    add = parser.add_argument
    add(
        "--box",
        required=True,
        action="append",
        metavar="X,Y,W,H|FILE",
        help="the target, in pixels of the frame; may be given several times; or one box file",
    )
    add("--frame", type=int, default=0, metavar="N", help="frame that the boxes were drawn on, from 0")
    add_model(parser)
    add_device(parser)
    add_output_flags(parser)

    knob = protocol_flags(parser)
    knob("--protocol", metavar="NAME", help=f"{', '.join(PROTOCOLS)}")
    knob("--num-scales", type=int, metavar="N", help="sizes tried per frame, an odd number; more is slower")
    knob("--scale-step", type=float, metavar="F", help="factor from one size to the next")
    knob("--scale-rate", type=float, metavar="F", help="share of the way that the size goes to the best one")
    knob("--scale-penalty", type=float, metavar="F", help="factor on the responses of other sizes")
    knob(
        "--window-influence",
        type=float,
        metavar="F",
        help="0 to 1: how much the target is held back where it was",
    )
    knob(
        "--exemplar-size", type=int, metavar="PX", help="the target with its surroundings is resized to this"
    )
    knob("--search-size", type=int, metavar="PX", help="of the region that is searched, at the same scale")
    knob("--centred", type=bool, metavar="BOOL", help="take the mean feature off all features")
    knob("--normalise", type=bool, metavar="BOOL", help="compare directions of features only")
    knob(
        "--target-only",
        type=bool,
        metavar="BOOL",
        help="leave the surroundings of the target out of the comparison",
    )
    return parser


def run(args: Namespace) -> int:
    """Track, print the summary; returns the exit status."""
    knobs: dict[str, Any] = {name: getattr(args, name) for name in TrackKnobs.__annotations__}
    result = track(
        args.video,
        parse_boxes(args.box),
        model=args.model,
        protocol=args.protocol,
        frame=args.frame,
        out=args.out,
        overlay=not args.no_overlay,
        overwrite=args.overwrite,
        device=args.device,
        **knobs,  # one entry per key of TrackKnobs, types checked by the parser
    )
    return follow(result, args)


def parse_boxes(words: list[str]) -> Path | list[Box]:
    """Read each "120,80,64,48" as a box, a single word that ends in .json or .csv as a box file.

    Errors: UsageError for anything else.
    """
    if len(words) == 1 and Path(words[0]).suffix.lower() in (".json", ".csv"):
        return Path(words[0])
    boxes: list[Box] = []
    for word in words:
        try:
            x, y, width, height = (float(part) for part in word.split(","))
        except ValueError as error:
            raise UsageError(
                f"--box {word!r} is not understood. Give x,y,w,h in pixels (--box 120,80,64,48), or one box file "
                "(JSON or CSV)."
            ) from error
        boxes.append((x, y, width, height))
    return boxes
