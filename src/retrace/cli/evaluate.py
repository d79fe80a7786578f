"""`retrace evaluate BENCHMARK --root DIR --model M --out DIR`, and `retrace evaluate --compare A B`."""

import json
import sys
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from tqdm import tqdm

from retrace.benchmarks import BENCHMARKS
from retrace.cli.parsing import Parser, add_device, add_model
from retrace.cli.propagate import add_protocol_flags, knobs_of
from retrace.errors import UsageError
from retrace.propagation.baselines import BASELINES
from retrace.verbs.propagate import DTYPES

SUMMARY = "score an encoder on a benchmark as its official tool does"

_DESCRIPTION = """Carry labels through every sequence of a benchmark and score them, equal to its official tool.

DIR receives report.html to look at, result.json, per_sequence.csv, and submission/ for the official tool. The same
command again continues an interrupted run. A sequence that cannot be evaluated is left out and named; the numbers say
of how many sequences they are the mean.

With --compare A B two such folders are compared: paired differences over the sequences that both scored, with a
bootstrap interval."""


def build_parser() -> Parser:
    """Return the parser of this verb."""
    parser = Parser(prog="retrace evaluate", description=_DESCRIPTION)
    add = parser.add_argument
    add("benchmark", nargs="?", metavar="BENCHMARK", help=", ".join(BENCHMARKS))
    add("--root", metavar="DIR", help="folder of the data (default: found in the folder RETRACE_DATA names)")
    add_model(parser, f"; or a baseline without an encoder: {', '.join(BASELINES)}")
    add("--out", metavar="DIR", help="folder for the results; a new or empty one, or one of this run")
    add("--split", metavar="NAME", help="part of the data (default: the one that papers report)")
    add("--sequences", nargs="+", metavar="NAME", help="only these")
    add(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the benchmark: "
        + "; ".join(
            f"{name} {option}={'|'.join(allowed)}"
            for name, benchmark in BENCHMARKS.items()
            for option, allowed in benchmark.options.items()
        )
        + "; settings of otb's tracker and of imagenet's classifier by their names, such as num_scales=5, epochs=10",
    )
    add(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes (default: one per core, one on a GPU); results do not depend on it",
    )
    add_device(parser)
    add("--dtype", default="float32", choices=list(DTYPES), help="of features and affinities")
    add(
        "--overwrite",
        action="store_true",
        help="replace results of another run in DIR, or redo a finished one",
    )
    add("--compare", nargs=2, metavar=("A", "B"), help="compare two finished runs instead")
    add("--metric", metavar="KEY", help="with --compare: the number to compare (default: the headline)")
    add("--quiet", action="store_true", help="no progress bar")
    add("--json", action="store_true", help="print the summary as JSON")
    add_protocol_flags(parser)
    return parser


def run(args: Namespace) -> int:
    """Evaluate or compare, print the summary; returns the exit status."""
    if args.compare:
        return _compare(args)
    from retrace.verbs.evaluate import evaluate

    if args.benchmark is None:
        raise UsageError(f"Which benchmark? Name one of {', '.join(BENCHMARKS)}.")
    if args.out is None:
        raise UsageError("Where to? Give --out DIR.")
    with tqdm(unit="sequence", disable=args.quiet, file=sys.stderr, dynamic_ncols=True) as bar:

        def begin(count: int) -> None:
            bar.reset(count)

        def step(name: str, text: str) -> None:
            bar.set_postfix_str(f"{name}: {text}"[:80])
            bar.update(1)

        done = evaluate(
            args.benchmark,
            root=args.root,
            model=args.model,
            out=args.out,
            split=args.split,
            sequences=args.sequences,
            protocol=args.protocol,
            options=_pairs(args.option),
            workers=args.workers,
            device=args.device,
            dtype=args.dtype,
            overwrite=args.overwrite,
            progress=step,
            start=begin,
            **knobs_of(args),
        )
    if done.repeated:
        print(f"{args.out} holds this very run, finished. Redo it with --overwrite.", file=sys.stderr)
    print(json.dumps(done.summary, indent=1) if args.json else _text(done.summary, Path(args.out)))
    return 0


def _pairs(words: list[str]) -> dict[str, str]:
    """NAME=VALUE words. Errors: UsageError for anything else."""
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--option {word!r} is not understood. Give NAME=VALUE.")
        pairs[name] = value
    return pairs


def _compare(args: Namespace) -> int:
    from retrace.verbs.evaluate import compare

    first, second = args.compare
    metric, found = compare(first, second, metric=args.metric)
    content: dict[str, Any] = {"metric": metric, "a": first, "b": second, **found._asdict()}
    if args.json:
        print(json.dumps(content, indent=1))
        return 0
    percent = round(100 * found.level)
    print(
        f"{metric}: B is {found.mean:+.4f} against A, {percent} % interval {found.low:+.4f} to {found.high:+.4f} "
        f"({len(found.items)} sequences in both; B better on {found.better}, worse on {found.worse})\n"
        f"A {first}\nB {second}"
    )
    return 0


def _text(summary: dict[str, Any], out: Path) -> str:
    """The summary for reading."""
    counted = summary["sequences"]
    units = {metric.key: metric.unit for metric in BENCHMARKS[summary["benchmark"]].metrics}
    scores = []
    for key, value in summary["scores"].items():
        number = "-" if value is None or value != value else f"{value:.3f}"
        scores.append(f"{key} {number}{'' if units.get(key, 'share') == 'share' else ' ' + units[key]}")
    rows = [
        ("benchmark", f"{summary['title']}, {summary['split']}"),
        (BENCHMARKS[summary["benchmark"]].items, f"{counted['scored']} of {counted['asked']}"),
        *(("  left out", f"{name}: {why}") for name, why in counted["excluded"].items()),
        ("model", summary["model"]["name"]),
        ("protocol", summary["protocol"]["name"] if summary["protocol"] else "none"),
        *(("option", f"{name} {value}") for name, value in summary["options"].items()),
        ("scores", ", ".join(scores)),
        ("time", f"{summary['seconds']:.1f} s, {summary['peak_megabytes_of_a_worker']} MB in one process"),
        ("report", str(out / "report.html")),
    ]
    return "\n".join(f"{label:<12} {value}" for label, value in rows)
