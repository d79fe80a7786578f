"""KITTI, Sintel and Middlebury: optical flow of a pair of frames, read from correspondences.

The second frame is labelled with its coordinates, the first one reads them: every pixel learns where it is in the
second frame. Pairs without a public truth are carried and written all the same, for the servers.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrace.benchmarks.carrying import carry, read_frames
from retrace.benchmarks.masks import reader
from retrace.benchmarks.poses import mean_over_sequences
from retrace.benchmarks.records import Benchmark, Metric, SequenceResult, Submission
from retrace.datasets.flowfiles import read_kitti_png
from retrace.datasets.records import Flow, Sequence
from retrace.errors import RetraceError
from retrace.formats.flow import write_flo, write_kitti_png
from retrace.metrics import flow as metric
from retrace.metrics.flow import Tally
from retrace.metrics.ratios import mean_of_numbers
from retrace.propagation.carriers import Carrier
from retrace.propagation.protocols import between_two

Floats = NDArray[np.float32]
Numbers = Mapping[str, list[Tally]]
"""Set of pixels -> the tally of every pair."""

KITTI_METRICS = (
    Metric("Fl_all", "Fl-all: outliers, all pixels", higher_is_better=False),
    Metric("EPE", "end-point error", "pixels", higher_is_better=False),
    Metric("Fl_noc", "Fl-noc: outliers, pixels seen in both frames", higher_is_better=False),
    Metric("EPE_noc", "end-point error, seen in both frames", "pixels", higher_is_better=False),
    Metric("over_3px", "errors above 3 px (KITTI 2012)", higher_is_better=False),
    Metric("over_3px_noc", "errors above 3 px, seen in both frames", higher_is_better=False),
)
SPEEDS = ("s0-10", "s10-40", "s40+")
"""Sintel's classes of true length, pixels."""
SINTEL_METRICS = (
    Metric("EPE", "end-point error", "pixels", higher_is_better=False),
    Metric("EPE_matched", "end-point error, seen in both frames", "pixels", higher_is_better=False),
    Metric("EPE_unmatched", "end-point error, hidden in the second", "pixels", higher_is_better=False),
    Metric("s0-10", "end-point error, true length below 10 px", "pixels", higher_is_better=False),
    Metric("s10-40", "end-point error, 10 to 40 px", "pixels", higher_is_better=False),
    Metric("s40+", "end-point error, 40 px and more", "pixels", higher_is_better=False),
    *(Metric(f"below_{limit}px", f"errors below {limit} px") for limit in metric.SINTEL_PIXELS),
)
MIDDLEBURY_METRICS = (
    Metric("EPE", "end-point error", "pixels", higher_is_better=False),
    Metric("AAE", "angular error", "degrees", higher_is_better=False),
)


def flow_of(sequence: Sequence[Any], carrier: Carrier, *, smooth: bool = False) -> Floats:
    """Where the pixels of the first of two frames are in the second: displacement (H, W, 2), pixels.

    Args:
        sequence: two frames.
        carrier: reads the correspondences.
        smooth: average them over 3 x 3 cells.

    Errors: RetraceError when there are not two frames that can be read.
    """
    assert sequence.size is not None
    found: dict[int, dict[int, Floats]] = {}

    def one(frame: int, flows: dict[int, Floats]) -> None:
        found[frame] = flows

    carry(
        carrier.flows(_backwards(sequence), (1,), sequence.size, smooth=smooth),
        one,
        sequence.num_frames,
        sequence.name,
    )
    return found[1][1]


def _backwards(sequence: Sequence[Any]) -> Iterator[NDArray[np.uint8]]:
    """The second frame, which is labelled, then the first."""
    pair = list(read_frames(sequence))
    if len(pair) != 2:
        raise RetraceError(f"{sequence.name} has {len(pair)} frames that can be read; expected a pair.")
    yield from reversed(pair)


def _carried(
    sequence: Sequence[Any],
    carrier: Carrier,
    submission: Submission,
    options: Mapping[str, str],
    path: str,
    write: Callable[[Path, Floats], None],
) -> tuple[Floats, Path]:
    """The flow of a pair, and the file that it was written to.

    Errors: RetraceError when some pixel has no finite flow.
    """
    uv = flow_of(sequence, carrier, smooth=options["smooth"] == "yes")
    if not np.isfinite(uv).all():  # no comparison holds for NaN: it would count as no outlier
        unknown = int((~np.isfinite(uv)).any(-1).sum())
        raise RetraceError(
            f"{sequence.name}: {unknown} of {uv.shape[0] * uv.shape[1]} pixels have no finite flow. The encoder's "
            "features hold values that are not numbers; try --dtype float32."
        )
    name = path.format(sequence=sequence.name)
    submission.file(name, lambda file: write(file, uv))
    return uv, submission.folder / name


def _result(
    sequence: Sequence[Flow], scores: dict[str, float], tallies: Mapping[str, list[Tally]]
) -> SequenceResult:
    return SequenceResult(
        sequence.name,
        sequence.num_frames,
        len(sequence.annotated),
        scores,
        frames={"frame": [0.0]},
        raw={name: [part._asdict() for part in parts] for name, parts in tallies.items()},
    )


def _tallies(uv: Floats, truth: Flow, sets: Mapping[str, NDArray[np.bool_]]) -> dict[str, list[Tally]]:
    """The tally of every set of pixels."""
    found, true = uv.transpose(2, 0, 1), truth.uv.transpose(2, 0, 1)
    return {name: [metric.tally(metric.errors(found, true, counted))] for name, counted in sets.items()}


def _summarise(
    scores: Callable[[Numbers], dict[str, float]],
) -> Callable[[list[SequenceResult], Mapping[str, str]], dict[str, float]]:
    """Pixels of all pairs together."""

    def summarise(results: list[SequenceResult], options: Mapping[str, str]) -> dict[str, float]:
        together: dict[str, list[Tally]] = {}
        for result in results:
            for name, parts in result.raw.items():
                together.setdefault(name, []).extend(_tally(part) for part in parts)
        return scores(together)

    return summarise


def _tally(part: Mapping[str, Any]) -> Tally:
    return Tally(**{**part, "below": tuple(part["below"])})


def _kitti(
    sequence: Sequence[Flow], carrier: Carrier, submission: Submission, options: Mapping[str, str]
) -> SequenceResult:
    _, file = _carried(sequence, carrier, submission, options, KITTI_PATH, write_kitti_png)
    tallies: dict[str, list[Tally]] = {}
    if (truth := sequence.truth(0)) is not None:
        seen = {} if truth.visible is None else {"noc": truth.visible}
        written = read_kitti_png(file).uv  # in steps of 1/64 pixel, as the server sees it
        tallies = _tallies(written, truth, {"all": truth.valid, **seen})
    return _result(sequence, _kitti_scores(tallies), tallies)


def _kitti_scores(numbers: Numbers) -> dict[str, float]:
    everything, seen = (metric.kitti(numbers.get(name, [])) for name in ("all", "noc"))
    return {
        "Fl_all": everything["fl_all"],
        "EPE": everything["epe"],
        "Fl_noc": seen["fl_all"],
        "EPE_noc": seen["epe"],
        "over_3px": everything["over_3px"],
        "over_3px_noc": seen["over_3px"],
    }


def _sintel(
    sequence: Sequence[Flow], carrier: Carrier, submission: Submission, options: Mapping[str, str]
) -> SequenceResult:
    uv, _ = _carried(sequence, carrier, submission, options, SINTEL_PATH, write_flo)
    tallies: dict[str, list[Tally]] = {}
    if (truth := sequence.truth(0)) is not None:
        length = np.linalg.norm(truth.uv, axis=-1)
        ends = zip(metric.SINTEL_SPEEDS, metric.SINTEL_SPEEDS[1:], strict=False)
        sets = {
            name: truth.valid & (length >= low) & (length < high)
            for name, (low, high) in zip(SPEEDS, ends, strict=True)
        }
        if truth.visible is not None:
            sets |= {"matched": truth.visible, "unmatched": truth.valid & ~truth.visible}
        tallies = _tallies(uv, truth, {"all": truth.valid, **sets})
    return _result(sequence, _sintel_scores(tallies), tallies)


def _sintel_scores(numbers: Numbers) -> dict[str, float]:
    everything, matched, unmatched, *speeds = (
        metric.sintel(numbers.get(name, [])) for name in ("all", "matched", "unmatched", *SPEEDS)
    )
    return {
        "EPE": everything.pop("epe"),
        "EPE_matched": matched["epe"],
        "EPE_unmatched": unmatched["epe"],
        **{name: found["epe"] for name, found in zip(SPEEDS, speeds, strict=True)},
        **everything,
    }


def _middlebury(
    sequence: Sequence[Flow], carrier: Carrier, submission: Submission, options: Mapping[str, str]
) -> SequenceResult:
    uv, _ = _carried(sequence, carrier, submission, options, MIDDLEBURY_PATH, write_flo)
    scores = {"EPE": float("nan"), "AAE": float("nan")}
    if (truth := sequence.truth(0)) is not None:
        pair = uv.transpose(2, 0, 1), truth.uv.transpose(2, 0, 1), truth.valid
        scores = {
            "EPE": mean_of_numbers(metric.errors(*pair).epe),
            "AAE": mean_of_numbers(metric.angles(*pair)),
        }
    return _result(sequence, scores, {})


KITTI_PATH = "flow/{sequence}_10.png"
SINTEL_PATH = "{sequence}.flo"
MIDDLEBURY_PATH = "{sequence}/flow10.flo"

KITTI = Benchmark(
    "kitti",
    "KITTI optical flow",
    "flow",
    "flow",
    KITTI_METRICS,
    reader("kitti"),
    _kitti,
    _summarise(_kitti_scores),
    KITTI_PATH,
    options={"smooth": ("yes", "no")},
    settle=between_two,
)
SINTEL = replace(
    KITTI,
    name="sintel",
    title="MPI Sintel",
    metrics=SINTEL_METRICS,
    load=reader("sintel"),
    score=_sintel,
    summarise=_summarise(_sintel_scores),
    prediction=SINTEL_PATH,
)
MIDDLEBURY = replace(
    KITTI,
    name="middlebury",
    title="Middlebury optical flow",
    metrics=MIDDLEBURY_METRICS,
    load=reader("middlebury"),
    score=_middlebury,
    summarise=lambda results, options: mean_over_sequences(results, MIDDLEBURY_METRICS),
    prediction=MIDDLEBURY_PATH,
)
