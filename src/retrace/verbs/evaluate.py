"""Score an encoder, or a baseline, on a benchmark: the library function behind `retrace evaluate`."""

import csv
import io
import json
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from retrace import __version__
from retrace.benchmarks import BENCHMARKS, find
from retrace.benchmarks.carrying import CarrierSpec, Settings
from retrace.benchmarks.records import CLASSIFIER, Benchmark, Job, SequenceResult
from retrace.benchmarks.runner import run
from retrace.datasets import root_of
from retrace.datasets.records import Dataset
from retrace.devices import choose_device, processes_on
from retrace.encoders import Model
from retrace.errors import RetraceError, UsageError
from retrace.files import atomic_path, is_leftover
from retrace.metrics.summary import Difference, paired_difference
from retrace.propagation.baselines import BASELINES
from retrace.propagation.engine import read_as
from retrace.propagation.protocols import Protocol
from retrace.tracking.carrier import SiamFC
from retrace.tracking.siamfc import SiamFCConfig
from retrace.verbs import evaluate_report
from retrace.verbs.output import LOCK, RUN, RunFolder, plain
from retrace.verbs.propagate import DTYPES, Knobs, resolve_protocol

log = logging.getLogger(__name__)

RESULT, TABLE, REPORT = "result.json", "per_sequence.csv", "report.html"


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation came to.

    Attributes:
        summary: the content of `result.json`, where None stands for a number that is not there.
        results: of every sequence that could be evaluated, in the order of the data set; empty when the folder held
            this run, finished.
        repeated: the folder held this very run, finished; nothing was computed.
    """

    summary: dict[str, Any]
    results: list[SequenceResult]
    repeated: bool = False

    @property
    def scores(self) -> dict[str, float]:
        """Metric key -> number over the data set; shares from 0 to 1, NaN where no sequence has a number."""
        return {key: np.nan if value is None else value for key, value in self.summary["scores"].items()}


def evaluate(
    benchmark: str,
    *,
    root: str | Path | None = None,
    model: str | Path | Model = "default",
    out: str | Path | None = None,
    split: str | None = None,
    sequences: Sequence[str] | None = None,
    protocol: str | Settings | None = None,
    options: Mapping[str, str] | None = None,
    workers: int = 1,
    device: str = "auto",
    dtype: str = "float32",
    overwrite: bool = False,
    progress: Callable[[str, str], None] | None = None,
    start: Callable[[int], None] | None = None,
    **knobs: Unpack[Knobs],
) -> Evaluation:
    """Carry labels through every sequence of a benchmark and score them as its official tool does.

    On ImageNet a linear classifier is trained on the frozen features first; its sequences are the classes.

    Args:
        benchmark: a key of `retrace.benchmarks.BENCHMARKS`.
        root: folder of its data; None takes it from RETRACE_DATA.
        model: what `retrace.load` takes, a Model, or a baseline: "copy", "flow:dis", "flow:farneback".
        out: folder for `result.json`, `per_sequence.csv`, `report.html`, `submission/` and `sequences/`; the same call
            continues an interrupted run. None keeps nothing.
        split: part of the data; None is the benchmark's default.
        sequences: names of some sequences; None takes all.
        protocol: published settings by name, a Protocol (for boxes a SiamFCConfig, for classes a
            LinearProbeConfig), or None for the benchmark's own.
        options: of the benchmark, such as PCK's dialect; where boxes are tracked or classes learned, settings of that,
            too.
        workers: processes; 0 chooses as many as there are cores (one on a GPU). Results do not depend on it. A script
            that asks for several calls this under `if __name__ == "__main__":`, because each of them reads it.
        device: "auto", "cpu", "cuda", ...
        dtype: of features, "float32", "bfloat16" or "float16".
        overwrite: replace another run's results in `out`, or redo a finished one.
        progress: called with each sequence's name and a short text of how it went.
        start: called with the number of sequences, before the first.
        **knobs: changes to the protocol, see `verbs.propagate.Knobs`.

    Returns: Evaluation; a sequence that cannot be evaluated is left out of the means and named in
        `summary["sequences"]["excluded"]`.

    Errors: UsageError for settings that do not exist; RetraceError for unusable data, model or folder, and when not one
        sequence can be evaluated.
    """
    if benchmark not in BENCHMARKS:
        raise UsageError(f"There is no benchmark {benchmark!r}. Choose one of {', '.join(BENCHMARKS)}.")
    task = BENCHMARKS[benchmark]
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is unknown. Choose from {', '.join(DTYPES)}.")
    if workers < 0:
        raise UsageError(f"workers is {workers}; expected a number of processes, 0 to choose.")
    place = choose_device(device)
    rules, described, rest = _protocol(task, protocol, knobs, options or {})
    chosen = _options(task, rest)
    folder = Path(root_of(task.data or benchmark, root)) if task.needs_root else Path()
    data = task.load(folder, split)
    names = _names(data, sequences)
    baseline = isinstance(model, str) and model in BASELINES
    if baseline and task.label == "class":
        raise UsageError(
            f"{model} moves labels and has no features to tell classes by. Choose another --model."
        )
    encoder = None if baseline else task.encoder(model, chosen)
    if isinstance(rules, SiamFCConfig) and encoder is not None:
        try:
            SiamFC(encoder, rules)
        except ValueError as error:
            raise UsageError(
                f"{encoder.name!r} cannot be tracked with: {error}. Choose another --model, or for a ResNet "
                "features=res5-paper."
            ) from error
    if isinstance(rules, Protocol) and encoder is not None and rules.detail != "by_size":
        read_as(rules.detail, encoder)  # tells of an encoder that cannot be read so, before any work
    made_by = {
        "name": str(model) if encoder is None else encoder.name,
        "sha256": "" if encoder is None else encoder.sha256,
    }
    fingerprint = {
        "retrace version": __version__,
        "benchmark": benchmark,
        "split": data.split,
        "root": str(data.root.resolve()) if task.needs_root else str(data.root),
        "sequences": " ".join(names),
        "model": f"{made_by['name']} {made_by['sha256'][:16]}".strip(),
        "protocol": "none" if baseline else json.dumps(described),
        "options": json.dumps(chosen, sort_keys=True),
        "dtype": dtype,
        "device": place.type,
    }
    spec = CarrierSpec(
        str(model) if encoder is None else encoder if isinstance(model, Model) else model,
        rules,
        str(place),
        dtype,
    )
    settings = {
        "benchmark": task,
        "data": data,
        "names": names,
        "model": made_by,
        "encoder": encoder,
        "protocol": None if baseline else described,
        "options": chosen,
        "device": str(place),
        "dtype": dtype,
        "workers": _workers(workers, place, len(names)),
    }
    if out is None:
        with tempfile.TemporaryDirectory(prefix="retrace-") as temporary:
            job = Job(find, benchmark, folder, split, chosen, spec, Path(temporary), fingerprint)
            return _run(job, settings, progress, start)
    owned = RunFolder(out, fingerprint, verb="evaluate", overwrite=overwrite)
    try:
        if owned.finished is not None:
            return Evaluation(owned.finished, [], repeated=True)
        if overwrite:
            for name in ("sequences", "submission"):
                shutil.rmtree(owned.path / name, ignore_errors=True)
            (owned.path / CLASSIFIER).unlink(missing_ok=True)
        owned.begin()
        for left in filter(is_leftover, owned.path.rglob(".*")):
            left.unlink(missing_ok=True)  # of a process that was killed while it wrote a file
        job = Job(find, benchmark, folder, split, chosen, spec, owned.path, fingerprint)
        return _run(job, settings, progress, start, write=True)
    except _NothingScored:
        if {path.name for path in owned.path.iterdir()} <= {RUN, LOCK}:
            owned.discard()
        raise
    finally:
        owned.release()


class _NothingScored(RetraceError):
    """Not one sequence could be evaluated."""


def compare(
    a: str | Path, b: str | Path, *, metric: str | None = None, seed: int = 0, level: float = 0.95
) -> tuple[str, Difference]:
    """How much better run B is than run A on the sequences that both scored.

    Args:
        a: folder of a run of `evaluate`.
        b: likewise, of the same benchmark.
        metric: key; None takes the benchmark's first.
        seed: of the bootstrap.
        level: of the interval, 0 to 1.

    Returns: the metric's key, and the paired difference B - A with its bootstrap interval over sequences.

    Errors: RetraceError for folders that are no runs, or of different benchmarks; UsageError for an unknown metric.
    """
    heads, tables = zip(*(_read_run(Path(folder)) for folder in (a, b)), strict=True)
    if heads[0]["benchmark"] != heads[1]["benchmark"]:
        raise RetraceError(
            f"{a} is a run on {heads[0]['benchmark']}, {b} one on {heads[1]['benchmark']}. Compare runs of one "
            "benchmark."
        )
    keys = list(heads[0]["scores"])
    chosen = metric or keys[0]
    if any(chosen not in row for table in tables for row in table.values()):
        raise UsageError(f"There is no metric {chosen!r} per sequence. Choose one of {', '.join(keys)}.")
    one, other = ({name: row[chosen] for name, row in table.items()} for table in tables)
    found = paired_difference(one, other, np.random.default_rng(seed), level=level)
    if not found.items:
        raise RetraceError(f"{a} and {b} have no scored sequence in common; there is nothing to compare.")
    return chosen, found


def _read_run(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """`result.json`, and sequence -> metric -> value."""
    try:
        head = json.loads((folder / RESULT).read_text())
        rows = list(csv.DictReader(io.StringIO((folder / TABLE).read_text())))
        table = {
            row["sequence"]: {key: float(row[key]) for key in head["scores"] if row.get(key)} for row in rows
        }
        return {"benchmark": head["benchmark"], "scores": head["scores"]}, table
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RetraceError(
            f"{folder} is not a finished run of retrace evaluate ({error}). Name a folder that it wrote."
        ) from error


def _protocol(
    task: Benchmark, protocol: str | Settings | None, knobs: Knobs, options: Mapping[str, str]
) -> tuple[Settings, dict[str, Any], dict[str, str]]:
    """The settings, the same as results describe them, and the options that are none of theirs."""
    if task.settings is None:
        if protocol is not None and not isinstance(protocol, str | Protocol):
            raise UsageError(f"{task.name} takes a propagation protocol, not a {type(protocol).__name__}.")
        rules = _settled(
            task, resolve_protocol(task.protocol if protocol is None else protocol, knobs), knobs
        )
        return rules, asdict(rules), dict(options)
    given = [name for name, value in knobs.items() if value is not None]
    if given:
        raise UsageError(
            f"{task.name} propagates nothing, so {given[0]} means nothing there. Its settings are a --protocol "
            f"({', '.join(task.settings)}) and --option NAME=VALUE."
        )
    name = task.protocol if protocol is None else protocol if isinstance(protocol, str) else "custom"
    base = task.settings.get(name) if protocol is None or isinstance(protocol, str) else protocol
    if base is None:
        raise UsageError(
            f"Protocol {name!r} is unknown. {task.name} takes one of {', '.join(task.settings)}."
        )
    if not isinstance(base, type(task.settings[task.protocol])):
        expected = type(task.settings[task.protocol]).__name__
        raise UsageError(f"{task.name} takes a {expected}, not a {type(base).__name__}.")
    own = {key: text for key, text in options.items() if key in asdict(base)}
    try:
        changed = replace(base, **{key: _typed(key, text, getattr(base, key)) for key, text in own.items()})
    except ValueError as error:
        raise UsageError(f"{error}. Correct that option.") from error
    rest = {key: text for key, text in options.items() if key not in own}
    return changed, {"name": name, **asdict(changed)}, rest


def _typed(name: str, text: str, like: Any) -> Any:
    """An option's text as what it replaces is.

    Errors: ValueError that says what was expected.
    """
    try:
        if isinstance(like, bool):
            return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
        if isinstance(like, tuple):
            return tuple(float(part) for part in text.split("/"))
        return text if isinstance(like, str) else float(text) if isinstance(like, float) else int(text)
    except (KeyError, ValueError):
        kinds = {bool: "true or false", float: "a number", tuple: "numbers with slashes between them"}
        expected = kinds.get(type(like), "a whole number")
        raise ValueError(f"{name} is {text!r}; expected {expected}") from None


def _settled(task: Benchmark, rules: Protocol, knobs: Knobs) -> Protocol:
    """The protocol as the benchmark uses it. Errors: UsageError for a knob that it has no use for."""
    settled = task.settle(rules)
    for name, value in knobs.items():
        if value is not None and hasattr(rules, name) and getattr(settled, name) != getattr(rules, name):
            raise UsageError(
                f"{name} is {getattr(rules, name)}; {task.name} compares two frames with each other and takes "
                f"{getattr(settled, name)}. Leave that setting out."
            )
    return settled


def _options(task: Benchmark, given: Mapping[str, str]) -> dict[str, str]:
    chosen = {name: allowed[0] for name, allowed in task.options.items()}
    for name, value in given.items():
        if name not in task.options:
            settings = () if task.settings is None else asdict(task.settings[task.protocol])
            known = ", ".join([*task.options, *settings]) or "none"
            raise UsageError(f"{task.name} has no option {name!r}; it has {known}.")
        if value not in task.options[name]:
            raise UsageError(
                f"{name} is {value!r}; {task.name} takes one of {', '.join(task.options[name])}."
            )
        chosen[name] = value
    return chosen


def _names(data: Dataset[Any], wanted: Sequence[str] | None) -> list[str]:
    """The sequences to evaluate, in the order of the data set."""
    there = [sequence.name for sequence in data.sequences]
    if wanted is None:
        return there
    unknown = [name for name in wanted if name not in there]
    if unknown:
        excluded = {problem.sequence: problem.sentence for problem in data.problems if problem.excluded}
        why = excluded.get(unknown[0])
        reason = f"cannot be used: {why}" if why else f"is not in it; it has {', '.join(there[:8])}, ..."
        raise UsageError(f"Sequence {unknown[0]!r} of {data.name} ({data.split}) {reason}")
    return [name for name in there if name in set(wanted)]


def _workers(wanted: int, place: torch.device, sequences: int) -> int:
    return max(1, min(processes_on(place, wanted), sequences))


def _run(
    job: Job,
    settings: Mapping[str, Any],
    progress: Callable[[str, str], None] | None,
    start: Callable[[int], None] | None,
    *,
    write: bool = False,
) -> Evaluation:
    task, data = settings["benchmark"], settings["data"]
    begun = time.perf_counter()
    if start is not None:
        start(len(settings["names"]))

    def tell(name: str, result: SequenceResult | str) -> None:
        key = task.metrics[0].key
        text = f"left out: {result}" if isinstance(result, str) else f"{key} {result.scores[key]:.3f}"
        if isinstance(result, str):
            log.warning("%s is left out: %s", name, result)
        if progress is not None:
            progress(name, text)

    outcome = run(job, settings["names"], workers=settings["workers"], progress=tell)
    if not outcome.results:
        name, why = next(iter(outcome.failures.items()))
        raise _NothingScored(f"Not one sequence of {task.title} could be evaluated. {name}: {why}")
    scores = task.summarise(outcome.results, job.options)
    excluded = {p.sequence: p.sentence for p in data.problems if p.excluded and p.sequence is not None}
    excluded |= outcome.failures
    listed = len(settings["names"]) if len(settings["names"]) < len(data.sequences) else data.num_listed
    summary = {
        "status": "partial" if outcome.failures else "complete",
        "verb": "evaluate",
        "retrace": __version__,
        "benchmark": task.name,
        "title": task.title,
        "split": data.split,
        "root": str(data.root),
        "scores": scores,
        "sequences_with_a_number": {
            metric.key: sum(
                bool(np.isfinite(result.scores.get(metric.key, np.nan))) for result in outcome.results
            )
            for metric in task.metrics
        },
        "sequences": {
            "scored": len(outcome.results),
            "asked": listed,
            "in_split": data.num_listed,
            "excluded": excluded,
        },
        "notes": [problem.sentence for problem in data.problems if not problem.excluded] + outcome.notes,
        "model": settings["model"] | _described(settings["encoder"]),
        "protocol": settings["protocol"],
        "options": dict(job.options),
        "device": settings["device"],
        "dtype": settings["dtype"],
        "workers": settings["workers"],
        "threads_per_worker": 1
        if torch.device(settings["device"]).type == "cpu"
        else torch.get_num_threads(),
        "finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "seconds": round(time.perf_counter() - begun, 2),
        "sequence_seconds": round(sum(result.seconds for result in outcome.results), 2),
        "sequences_kept_from_an_earlier_run": outcome.kept,
        "peak_megabytes_of_a_worker": round(max(result.peak_megabytes for result in outcome.results)),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "opencv-python-headless", "av")},
        },
        "machine": machine(),
    }
    if write:
        _write(job.folder, task, data, outcome.results, summary)
    return Evaluation(plain(summary), outcome.results)


def _described(encoder: Model | None) -> dict[str, Any]:
    if encoder is None:
        return {}
    return {
        "stride": encoder.stride,
        "channels": encoder.channels,
        "padded_to_multiples_of": encoder.multiple,
        "card": encoder.card,
    }


def machine() -> str:
    """Processor, cores and GPU, in words."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{cpu}, {os.cpu_count()} cores, {gpu}"


def _write(
    folder: Path,
    task: Benchmark,
    data: Dataset[Any],
    results: list[SequenceResult],
    summary: dict[str, Any],
) -> None:
    """The table, the official tables, the report, and last `result.json`, which says that all is there."""
    keys = [metric.key for metric in task.metrics if all(metric.key in r.scores for r in results)]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["sequence", "frames", "scored_frames", *keys, "seconds"])
    for result in results:
        numbers = [repr(result.scores[key]) for key in keys]
        rows.writerow(
            [result.name, result.num_frames, result.scored_frames, *numbers, f"{result.seconds:.2f}"]
        )
    files = {TABLE: text.getvalue()}
    if task.tables is not None:
        files |= task.tables(results, summary["scores"])
    files[REPORT] = evaluate_report.page(folder, task, data, results, summary)
    files[RESULT] = json.dumps(plain(summary), indent=1) + "\n"
    for name, content in files.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
