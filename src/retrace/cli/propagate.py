"""`retrace propagate VIDEO --labels L --out DIR`."""

from typing import Any, get_args

from jsonargparse import Namespace

from retrace.cli.labelled_run import add_output_flags, follow, protocol_flags, run_parser
from retrace.cli.parsing import Parser, add_device, add_model
from retrace.errors import UsageError
from retrace.formats.labels import Kind
from retrace.propagation.baselines import BASELINES
from retrace.propagation.codecs import KEYPOINT_DIALECTS
from retrace.propagation.protocols import PROTOCOLS
from retrace.verbs.propagate import DTYPES, Knobs, propagate

SUMMARY = "carry the label of one frame to all the other frames of a video"

_DESCRIPTION = """Carry the labels of one frame of a video to all the others.

Labels are a mask or part map (PNG: palette, grey or colours), a painted texture (RGBA PNG), keypoints or boxes
(JSON, CSV), or a folder of masks named like the frames they label: a later labelled frame corrects what was carried
so far. DIR receives masks/ (or textures/, keypoints.json and .csv, boxes.json and .csv), overlay.mp4 to look at, and
result.json with the confidence of every object in every frame. The same command again says that it is done, or
starts an interrupted run afresh. Of a video that breaks in the middle the frames before the break are kept; the exit
status is then 1."""


def build_parser() -> Parser:
    """Return the parser of this verb."""
    parser = run_parser("retrace propagate", _DESCRIPTION)
    add = parser.add_argument
    add(
        "--labels",
        required=True,
        metavar="FILE",
        help="labels of frame 0; a folder of masks of several frames; or what COCO, CVAT (XML) or Label Studio (JSON) "
        "exported",
    )
    add(
        "--kind",
        default="auto",
        choices=["auto", *get_args(Kind)],
        help="what the labels are (auto: by the file)",
    )
    add_model(parser, f"; or a baseline without an encoder: {', '.join(BASELINES)}")
    add(
        "--adapt",
        type=int,
        default=0,
        metavar="N",
        help="first train N steps on this very video, without labels",
    )
    add("--save-adapted", metavar="FILE", help="keep the adapted weights (.safetensors)")
    add_device(parser)
    add("--dtype", default="float32", choices=list(DTYPES), help="of features and affinities")
    add("--seed", type=int, default=0, help="of the adaptation")
    add_output_flags(parser)

    add_protocol_flags(parser)
    return parser


def add_protocol_flags(parser: Parser) -> None:
    """Published settings by name, and every knob of them."""
    knob = protocol_flags(parser)
    knob("--protocol", metavar="NAME", help=f"default, {', '.join(PROTOCOLS)}")
    knob(
        "--size",
        metavar="PX|HxW",
        help="short side or height x width that the encoder sees; 0: as the video is",
    )
    knob("--num-context", type=int, metavar="M", help="recent frames to read from")
    knob("--radius", type=float, metavar="CELLS", help="of the window; 0: no window")
    knob("--shape", choices=["disc", "square"], help="of the window")
    knob("--top-k", type=int, metavar="K", help="best context nodes kept; 0: all")
    knob("--temperature", type=float, metavar="T", help="of the softmax")
    knob("--softmax", choices=["kept", "frame"], help="over the kept nodes, or over each whole frame")
    knob("--joint", type=bool, metavar="BOOL", help="best K over all frames together (true) or of each frame")
    knob("--keep-ties", type=bool, metavar="BOOL", help="keep every node that ties with the K-th")
    knob("--subcell", type=bool, metavar="BOOL", help="read labels where the affinity peaks between nodes")
    knob(
        "--detail",
        choices=["plain", "closer", "both_sizes", "by_size"],
        help="the encoder as it is, at nodes twice as close, at half the frame's size as well, or as the size asks for",
    )
    knob("--recent", choices=["repeated", "available", "without_first"], help="context before M frames exist")
    knob("--add-first", type=bool, metavar="BOOL", help="always read from the labelled frame too")
    knob("--window-first", type=bool, metavar="BOOL", help="the window holds for that frame as well")
    knob("--reread-first", type=bool, metavar="BOOL", help="the labelled frame reads from itself first")
    knob("--normalise-features", type=bool, metavar="BOOL", help="compare directions only")
    knob(
        "--whiten",
        type=float,
        metavar="POWER",
        help="level out the directions of the labelled frame's features: 0 only centres, 1 fully",
    )
    knob(
        "--feed-back",
        choices=["soft", "minmax"],
        help="what later frames read: labels as they are, or stretched",
    )
    knob(
        "--output",
        choices=["argmax", "minmax", "raised"],
        help="what classes go through before the argmax: nothing, a stretch to 0..1, or one that is at most fourfold",
    )
    knob("--label-seed", choices=["area", "bilinear", "nearest"], help="how a mask reaches the grid")
    knob("--seed-at", choices=["frame", "network"], help="the size a mask has when it goes down to the grid")
    knob("--read-at", choices=["frame", "network"], help="the size a mask has when it is read")
    knob("--min-pixels", type=int, metavar="N", help="objects that cover fewer are not followed")
    knob("--keypoints", choices=KEYPOINT_DIALECTS, help="how keypoints are drawn and read")


def knobs_of(args: Namespace) -> dict[str, Any]:
    """What was given for the flags of `add_protocol_flags`, one entry per key of Knobs.

    Errors: UsageError for a size that is none.
    """
    knobs: dict[str, Any] = {name: getattr(args, name) for name in Knobs.__annotations__}
    knobs["size"] = parse_size(args.size)
    return knobs


def run(args: Namespace) -> int:
    """Propagate, print the summary; returns the exit status."""
    result = propagate(
        args.video,
        args.labels,
        model=args.model,
        kind=args.kind,
        protocol=args.protocol,
        out=args.out,
        overlay=not args.no_overlay,
        overwrite=args.overwrite,
        adapt=args.adapt,
        save_adapted=args.save_adapted,
        device=args.device,
        dtype=args.dtype,
        seed=args.seed,
        **knobs_of(args),
    )
    return follow(result, args)


def parse_size(text: str | None) -> int | tuple[int, int] | None:
    """Read "480" as a short side and "320x480" as height x width.

    Errors: UsageError for anything else.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise UsageError(
            f"--size {text!r} is not understood. Give a short side (480) or height x width (320x480)."
        )
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))
