"""`retrace weights list | inspect | export`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from retrace.cli.parsing import Parser

if TYPE_CHECKING:
    from retrace.verbs.weights import Inspection, Shipped

SUMMARY = "list the encoders that ship with Retrace, look into a checkpoint file"


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
    look.add_argument("path", metavar="PATH", help=".safetensors, .pth, .pt or .ckpt")
    look.add_argument("--json", action="store_true", help="print the result as JSON")
    actions.add_subcommand("inspect", look, help="tensors, architecture and unmatched keys of a checkpoint")

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
    lines = [f"{found.path}: {found.bytes / 1e6:.1f} MB, {len(found.tensors)} tensors, {numel:,} numbers"]
    if found.encoder is None or found.unmatched is None:
        lines.append("encoder: none recognised (no ResNet under torchvision's names: conv1, layer1, ...)")
    else:
        parts = ", ".join(f"{key} {value}" for key, value in found.encoder.items() if key != "architecture")
        origin = (
            "as the file says" if found.ours else "read off the keys; strides and padding are our defaults"
        )
        lines += [
            f"encoder: {found.encoder['architecture']} ({parts}), {origin}",
            f"sha256:  {found.sha256 or 'not loadable'}",
        ]
        for title, keys in (
            ("needed but not in the file", found.unmatched.missing),
            ("of another shape", found.unmatched.misshapen),
            ("in the file but not used by the encoder", found.unmatched.unexpected),
        ):
            lines.append(f"{title}: {len(keys)}")
            lines += [f"  {key}" for key in keys]
    lines.append("tensors:")
    longest = max((len(entry.name) for entry in found.tensors), default=0)
    lines += [f"  {entry.name:<{longest}}  {entry.dtype:<9} {list(entry.shape)}" for entry in found.tensors]
    return "\n".join(lines)


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
