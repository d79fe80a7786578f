"""`retrace train`: learn an encoder from unlabelled video."""

import dataclasses
import json
import os
import shlex
import sys
from typing import Any

from retrace import recipes
from retrace.errors import UsageError
from retrace.training.config import check
from retrace.verbs.train import RecipeParser, TrainReport, config_of, train

SUMMARY = "learn an encoder from unlabelled video"

EPILOG = """
examples:
  retrace train --list
  retrace train stfc3-laptop --out runs/first
  retrace train stfc3-kinetics --data kinetics/train --devices 8 --out runs/stfc3
  retrace train stfc3-laptop --data my_videos --steps 5000 --optimizer.lr 5e-4 --out runs/mine
Ctrl-C finishes the step and saves; the same command continues, to the same weights as if nothing had happened.
"""


def build_parser() -> RecipeParser:
    """Every key of a recipe is a flag."""
    parser = RecipeParser(
        prog="retrace train",
        usage="retrace train RECIPE [--data PATH ...] [--out DIR] [--key value | --section.key value ...]",
        description="Learn an encoder from unlabelled video: a recipe, and flags that change its keys.",
        epilog=EPILOG,
    )
    parser.add_argument("--list", action="store_true", help="list the packaged recipes and stop")
    parser.add_argument("--overwrite", action="store_true", help="delete the run in --out and start anew")
    parser.add_argument(
        "--measure-loader", action="store_true", help="measure the loader alone before training"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def run(args: Any) -> int:
    """Train, print the report; 0, or 130 when interrupted."""
    if args.list:
        known = recipes.packaged()
        print(json.dumps(known, indent=2) if args.json else _listing(known))
        return 0
    if args.recipe is None:
        raise UsageError(
            f"Which recipe? {', '.join(recipes.packaged())}, or a YAML file; --list describes them."
        )
    config = config_of(args)
    if not config.data and os.environ.get("RETRACE_DATA"):
        config = dataclasses.replace(config, data=tuple(os.environ["RETRACE_DATA"].split(os.pathsep)))
    name = recipes.find(args.recipe).stem
    if not config.out:
        config = dataclasses.replace(config, out=f"runs/{name}")
    from retrace.training.processes import launch, place

    here = place()
    if config.devices > 1 and here.world == 1:
        check(config)
        return launch([sys.executable, "-m", "retrace", *sys.argv[1:]], config.devices)
    report = train(
        config,
        recipe=name,
        overwrite=args.overwrite,
        measure_loader=args.measure_loader,
        progress=not args.quiet,
    )
    if here.rank > 0:
        return 130 if report.interrupted else 0
    print(json.dumps(dataclasses.asdict(report), indent=2) if args.json else _text(report))
    if report.interrupted:
        again = shlex.join(word for word in sys.argv[1:] if word != "--overwrite")
        print(
            f"retrace train: interrupted after step {report.step} of {report.steps}; everything is saved in "
            f"{report.out}. Continue with: retrace {again}",
            file=sys.stderr,
        )
        return 130
    return 0


def _listing(known: dict[str, str]) -> str:
    width = max(map(len, known))
    return "\n".join(f"{name:<{width}}  {line}" for name, line in known.items())


def _text(report: TrainReport) -> str:
    """The report for reading."""
    from retrace.training.stream import failures_by_reason

    begun = f" (from {report.resumed_from})" if report.resumed_from else ""
    rows = [("steps", f"{report.step} of {report.steps}{begun}")]
    if "loss" in report.metrics:
        rows.append(("loss", f"{report.metrics['loss']:.4f}"))
    for label, value in (
        ("training", report.clips_per_s),
        ("step alone", report.step_clips_per_s),
        ("loader alone", report.loader_clips_per_s),
    ):
        if value is not None:
            rows.append((label, f"{value:.2f} clips/s"))
    if report.videos:
        rows.append(("footage", f"{report.videos} videos"))
    if report.broken:
        rows.append(("left out", f"{len(report.broken)} videos that cannot be read"))
        rows += [("", f"{path}: {reason}") for path, reason in report.broken[:10]]
    if report.failures:
        rows.append(("replaced", f"clips of {len(report.failures)} videos that could not be read"))
        rows += [("", f"{count} x {reason}") for reason, count in failures_by_reason(report.failures)[:10]]
    rows += list(report.files.items())
    return "\n".join(f"{label:<13} {value}" for label, value in rows)
