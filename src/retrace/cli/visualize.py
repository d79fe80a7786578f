"""`retrace visualize affinity | pca | curves`."""

import json
from pathlib import Path

from jsonargparse import Namespace

from retrace.cli.parsing import Parser, add_device, add_model
from retrace.errors import UsageError

SUMMARY = "draw affinities of two frames, PCA of features, training curves"


def build_parser() -> Parser:
    """Return the parser of this verb; one subcommand per picture."""
    parser = Parser(
        prog="retrace visualize",
        description="Draw what an encoder sees, and how a training run went. The suffix of --out decides the format: "
        ".png for pixels, .pdf or .svg for vectors.",
    )
    pictures = parser.add_subcommands(required=True, dest="picture", metavar="PICTURE")
    pictures.add_subcommand("affinity", _affinity_parser(), help="where the nodes of one frame go in another")
    pictures.add_subcommand("pca", _pca_parser(), help="top 3 principal components of features, as colours")
    pictures.add_subcommand("curves", _curves_parser(), help="curves of one or several training runs")
    return parser


def _affinity_parser() -> Parser:
    parser = Parser(
        description="The transition matrix from one frame to another, and for a few points of the first frame "
        "a heat map of where they are found in the second (STFC3 paper, Figure 3).",
    )
    _add_video(parser)
    parser.add_argument(
        "--frames", default="0,10", metavar="A,B", help="two frame numbers, from 0 (default: %(default)s)"
    )
    parser.add_argument(
        "--points",
        nargs="+",
        metavar="X,Y",
        help="points of the first frame in pixels of the video, x right, y down; 4 corners are chosen when not given",
    )
    parser.add_argument(
        "--temperature", type=float, default=0.05, help="of the softmax (default: %(default)s)"
    )
    _add_encoder(parser, short_side=256)
    return parser


def _pca_parser() -> Parser:
    parser = Parser(
        description="The three strongest components of the features, one basis for all frames, as red, green and blue: "
        "what has one colour looks alike to the encoder (STFC3 paper, Figure 7).",
    )
    _add_video(parser)
    parser.add_argument(
        "--frames", default="0,10,20", metavar="A,B,...", help="frame numbers, from 0 (default: %(default)s)"
    )
    _add_encoder(parser, short_side=480)
    return parser


def _curves_parser() -> Parser:
    parser = Parser(description="One panel per number that retrace train logged, all runs in each.")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN_DIR", help="folders of training runs, or metrics.csv files"
    )
    parser.add_argument(
        "--smooth", type=int, default=15, help="rows in the running mean; 1 for none (default: %(default)s)"
    )
    _add_output(parser)
    return parser


def _add_video(parser: Parser) -> None:
    parser.add_argument("video", metavar="VIDEO_OR_FRAMES", help="video file, or folder of frames")


def _add_encoder(parser: Parser, *, short_side: int) -> None:
    add_model(parser)
    parser.add_argument(
        "--short-side",
        type=int,
        default=short_side,
        help="pixels to which frames are resized (default: %(default)s)",
    )
    add_device(parser)
    _add_output(parser)


def _add_output(parser: Parser) -> None:
    parser.add_argument("--out", required=True, metavar="FIGURE", help="figure to write: .png, .pdf or .svg")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def numbers(text: str, flag: str) -> list[int]:
    """Read "0,10,20". Errors: UsageError for anything else."""
    try:
        return [int(part) for part in text.strip("[] ").split(",")]
    except ValueError:
        raise UsageError(
            f"{flag} is '{text}'; give whole numbers with commas between them, as 0,10."
        ) from None


def point(text: str) -> tuple[float, float]:
    """Read "120,80.5". Errors: UsageError for anything else."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--points holds '{text}'; give each point as x,y in pixels, as 120,80.") from None
    return x, y


def run(args: Namespace) -> int:
    """Draw one picture and print where it is."""
    from retrace.verbs import visualize

    options = args[args.picture]
    out = Path(options.out)
    if args.picture == "curves":
        visualize.curves(options.runs, out=out, smooth=options.smooth)
    else:
        frames = numbers(options.frames, "--frames")
        common = {
            "out": out,
            "model": options.model,
            "short_side": options.short_side,
            "device": options.device,
        }
        if args.picture == "pca":
            visualize.pca(options.video, frames=frames, **common)
        else:
            if len(frames) != 2:
                raise UsageError(f"--frames names {len(frames)} frames; affinity needs two, as 0,10.")
            points = [point(text) for text in options.points] if options.points else None
            pair = (frames[0], frames[1])
            visualize.affinity(
                options.video, frames=pair, points=points, temperature=options.temperature, **common
            )
    print(json.dumps({"figure": str(out)}) if options.json else f"{out}")
    return 0
