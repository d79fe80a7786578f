"""`retrace weights list | inspect | convert | export`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from retrace.cli.parsing import Parser

if TYPE_CHECKING:
    from retrace.verbs.weights import Conversion, Inspection, Shipped

SUMMARY = "list the encoders that ship with Retrace, look into a checkpoint, convert a published one"


def build_parser() -> Parser:
    """Return the parser of this verb; one subcommand per action."""
    parser = Parser(
        prog="retrace weights", description="Encoders on disk. Nothing here runs code from a file."
    )
    actions = parser.add_subcommands(required=True, dest="action", metavar="ACTION")

    listing = Parser(description="The encoders inside the package, ready for --model, without a download.")
    listing.add_argument("--json", action="store_true", help="print the whole model cards, as JSON")
    actions.add_subcommand("list", listing, help="encoders that ship with the package")

    look = Parser(
        description="The tensors of a checkpoint, the encoder recognised in it, and every key that does not fit. "
        "A pickle is read as plain data or refused."
    )
    look.add_argument(
        "path", metavar="PATH", help=".safetensors, .pth, .pt, .ckpt or .pkl; PATH,as=NAME says whose it is"
    )
    look.add_argument("--json", action="store_true", help="print the result as JSON")
    actions.add_subcommand("inspect", look, help="tensors, architecture and unmatched keys of a checkpoint")

    convert = Parser(
        description="A published checkpoint (CRW, STFC3, TimeCycle, VFS, Spatial-then-Temporal, MoCo, SimSiam, DetCo, "
        "DINO ResNet-50, torchvision) as one file of Retrace. It is recognised by its keys, and every key that the "
        "encoder does not use is listed. --model takes published files as they are, too; docs/weights.md has the table."
    )
    convert.add_argument(
        "source",
        metavar="IN",
        help="the checkpoint; options follow behind commas: FILE,as=stt-stride4 says whose it is, FILE,cut=layer4,"
        "stride=8 builds it otherwise",
    )
    convert.add_argument("out", metavar="OUT", help="file to write, .safetensors")
    convert.add_argument("--half", action="store_true", help="store the weights in float16")
    convert.add_argument("--json", action="store_true", help="print the result as JSON")
    actions.add_subcommand("convert", convert, help="write a published checkpoint as a file of Retrace")

    export = Parser(description="The encoder of a training run, finished or not, as one file for --model.")
    export.add_argument("run", metavar="RUN", help="folder that `retrace train` wrote")
    export.add_argument("out", metavar="FILE", help="file to write, .safetensors")
    export.add_argument("--half", action="store_true", help="store the weights in float16")
    export.add_argument("--json", action="store_true", help="print the model card as JSON")
    actions.add_subcommand("export", export, help="write the encoder of a training run")
    return parser


def run(args: Namespace) -> int:
    """Print what ships, or what a file holds."""
    from retrace.verbs import weights

    options = args[args.action]
    if args.action == "list":
        ships = weights.shipped()
        print(json.dumps([asdict(one) for one in ships], indent=2) if options.json else _listing(ships))
    elif args.action == "export":
        from retrace.verbs.train import export_run

        model = export_run(options.run, options.out, half=options.half)
        print(
            json.dumps(model.card, indent=2)
            if options.json
            else f"{options.out}: {model.name} {model.sha256[:12]}"
        )
    elif args.action == "convert":
        converted = weights.convert(options.source, options.out, half=options.half)
        print(json.dumps(asdict(converted), indent=2) if options.json else _converted(converted))
    else:
        inspection = weights.inspect(options.path)
        print(json.dumps(asdict(inspection), indent=2) if options.json else _report(inspection))
    return 0


def _listing(ships: "list[Shipped]") -> str:
    lines = [
        f"{'name':<12}{'size':>9}  {'parameters':>10}  {'stride':>6}  {'channels':>8}  {'sha256':<12}  trained with"
    ]
    lines += [
        f"{one.name:<12}{one.bytes / 1e6:>6.1f} MB  {one.parameters:>10,}  {one.stride:>6}  {one.channels:>8}  "
        f"{one.sha256[:12]:<12}  {one.card.get('method', 'unknown')}"
        for one in ships
    ]
    return "\n".join(lines)


def _report(found: "Inspection") -> str:
    numel = sum(_product(entry.shape) for entry in found.tensors)
    lines = [
        f"{found.path}: {found.bytes / 1e6:.1f} MB, {len(found.tensors)} tensors, {numel:,} numbers",
        f"what:    {found.what}",
    ]
    if found.encoder is not None and found.unmatched is not None:
        lines += [
            f"encoder: {_described(found.encoder, found.colour)}",
            *([f"as:      {found.family}"] if found.family else []),
            *([f"protocol: {found.protocol} goes with it"] if found.protocol else []),
            f"sha256:  {found.sha256 or 'not loadable'}",
        ]
        for title, keys in (
            ("needed but not in the file", found.unmatched.missing),
            ("of another shape", found.unmatched.misshapen),
            ("in the file but not used by the encoder", found.unmatched.unexpected),
        ):
            lines += _keys(title, keys)
    else:
        lines.append("encoder: none recognised")
    if found.card:
        lines.append("card:")
        lines += [f"  {line}" for line in json.dumps(found.card, indent=2).splitlines()[1:-1]]
    lines.append("tensors:")
    longest = max((len(entry.name) for entry in found.tensors), default=0)
    lines += [f"  {entry.name:<{longest}}  {entry.dtype:<9} {list(entry.shape)}" for entry in found.tensors]
    return "\n".join(lines)


def _converted(done: "Conversion") -> str:
    lines = [
        f"{done.out}: {done.what}, {_described(done.encoder, done.colour)}",
        *([f"protocol: {done.protocol} goes with it"] if done.protocol else []),
        f"sha256:   {done.sha256}",
        *_keys("in the source but not used by the encoder", done.unmatched),
    ]
    return "\n".join(lines)


def _described(encoder: dict[str, Any], colour: str) -> str:
    parts = ", ".join(f"{key} {value}" for key, value in encoder.items() if key != "architecture")
    return f"{encoder['architecture']} ({parts}), input {colour}"


def _keys(title: str, keys: tuple[str, ...]) -> list[str]:
    return [f"{title}: {len(keys)}", *(f"  {key}" for key in keys)]


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
