"""DAVIS-2017, DAVIS-2016 and YouTube-VOS: masks are carried, J and F are scored while the next frame is read out."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrace.benchmarks.carrying import carry, read_frames
from retrace.benchmarks.records import Benchmark, Metric, SequenceResult, Submission
from retrace.benchmarks.sizes import OBJECTS, count_objects
from retrace.datasets import READERS
from retrace.datasets.records import Dataset, Sequence
from retrace.errors import RetraceError
from retrace.metrics.davis import frame_scores
from retrace.metrics.ratios import mean_of_numbers
from retrace.metrics.regions import statistics
from retrace.propagation.carriers import Carrier

Ids = NDArray[np.uint8]

METRICS = (
    Metric("J&F", "J&F mean"),
    Metric("J", "J mean"),
    Metric("J_recall", "J recall"),
    Metric("J_decay", "J decay", higher_is_better=False),
    Metric("F", "F mean"),
    Metric("F_recall", "F recall"),
    Metric("F_decay", "F decay", higher_is_better=False),
)


def handed_out(sequence: Sequence[Ids]) -> dict[int, Ids]:
    """Frame -> ids of the objects that begin there, everything else background.

    Errors: RetraceError when a truth cannot be read or no object has a pixel.
    """
    given: dict[int, Ids] = {}
    for frame in sorted(set(sequence.objects.values())):
        truth = sequence.truth(frame)
        if truth is None:
            continue
        begin = [i for i, at in sequence.objects.items() if at == frame]
        ids = np.where(np.isin(truth, begin), truth, 0).astype(np.uint8)
        if ids.any():
            given[frame] = ids
    if not given:
        raise RetraceError(f"{sequence.name}: no object has a pixel in the frame where it begins.")
    return given


class MaskScores:
    """Scores every object in every frame as the carried masks come in, in order.

    Args:
        sequence: with a truth on some frames.
        submission: receives a PNG per frame.
        first_and_last: False leaves out frame 0 and the last frame (DAVIS); True scores all annotated frames after
            the one in which an object begins (YouTube-VOS).
        path: of a PNG, with {sequence} and {frame}.

    Attributes:
        given: frame -> ids of the objects that begin there, to be carried.

    Errors: RetraceError naming the sequence and what is wrong with it.
    """

    def __init__(
        self, sequence: Sequence[Ids], submission: Submission, *, first_and_last: bool, path: str
    ) -> None:
        """See the class."""
        self.given = handed_out(sequence)
        self._sequence = sequence
        self._submission = submission
        self._path = path
        self._objects = sorted(sequence.objects)
        last = sequence.num_frames - 1
        self._scored = [t for t in sequence.annotated if (first_and_last or 0 < t < last)]
        self._wanted = set(self._scored)
        self._values: dict[int, list[tuple[int, float, float]]] = {i: [] for i in self._objects}
        self._sizes: dict[int, list[float]] = {i: [] for i in self._objects}
        self._confusion = OBJECTS.empty()

    def add(self, frame: int, prediction: Ids) -> None:
        """Write the masks of a frame, and score them where there is a truth."""
        sequence, objects = self._sequence, self._objects
        name = self._path.format(sequence=sequence.name, frame=frame_name(sequence, frame))
        self._submission.mask(name, prediction)
        if frame not in self._wanted:
            return
        truth = sequence.truth(frame)
        assert truth is not None
        here = [i for i in objects if frame > sequence.objects[i]]
        table = counts(prediction, truth, objects)
        for i, (j, f) in zip(here, frame_scores(prediction, truth, here), strict=True):
            self._values[i].append((frame, float(j), float(f)))
            self._sizes[i].append(float(table[i].sum() / truth.size))
        self._confusion += count_objects(table, here, truth.size)

    def result(self) -> SequenceResult:
        """Everything, when all frames came in."""
        rows = []
        for i in self._objects:
            if not self._values[i]:
                continue
            j, f = (statistics(np.array([v[k] for v in self._values[i]])) for k in (1, 2))
            rows.append(
                {
                    "object": i,
                    "J": j.mean,
                    "J_recall": j.recall,
                    "J_decay": j.decay,
                    "F": f.mean,
                    "F_recall": f.recall,
                    "F_decay": f.decay,
                    "size": mean_of_numbers(self._sizes[i]),
                }
            )
        found = (value for values in self._values.values() for value in values)
        per_frame: dict[int, list[tuple[float, float]]] = {t: [] for t in self._scored}
        for frame, j_value, f_value in found:
            per_frame[frame].append((j_value, f_value))
        times = [t for t in self._scored if per_frame[t]]
        return SequenceResult(
            self._sequence.name,
            self._sequence.num_frames,
            len(times),
            _means(rows),
            rows,
            {
                "frame": [float(t) for t in times],
                "J": [float(np.mean([j for j, _ in per_frame[t]])) for t in times],
                "F": [float(np.mean([f for _, f in per_frame[t]])) for t in times],
            },
            {"confusion_by_size": self._confusion.tolist()},
        )


def score_masks(
    sequence: Sequence[Ids],
    carrier: Carrier,
    submission: Submission,
    *,
    first_and_last: bool,
    path: str,
) -> SequenceResult:
    """Carry the masks of one sequence and score them; see `MaskScores`."""
    scores = MaskScores(sequence, submission, first_and_last=first_and_last, path=path)
    carry(carrier.masks(read_frames(sequence), scores.given), scores.add, sequence.num_frames, sequence.name)
    return scores.result()


def frame_name(sequence: Sequence[Any], frame: int) -> str:
    """The stem of a frame's file, or its number in five digits."""
    if isinstance(sequence.frames, tuple):
        return sequence.frames[frame].stem
    return f"{frame:05d}"


def counts(prediction: Ids, truth: Ids, objects: list[int]) -> NDArray[np.int64]:
    """Pixels by true (row) and predicted id, (n, n), n = largest id + 1; void and unknown ids are background."""
    n = max(objects) + 1
    own, other = (np.where(ids < n, ids, 0).astype(np.int64) for ids in (prediction, truth))
    return np.bincount((other * n + own).ravel(), minlength=n * n).reshape(n, n)


def summarise(results: list[SequenceResult], options: Mapping[str, str]) -> dict[str, float]:
    """The mean over all objects of all sequences, every object counting once."""
    return _means([row for result in results for row in result.objects])


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    means = {
        metric.key: float(np.mean([row[metric.key] for row in rows])) if rows else float("nan")
        for metric in METRICS
        if metric.key != "J&F"
    }
    return {"J&F": (means["J"] + means["F"]) / 2, **means}


def official_tables(results: list[SequenceResult], scores: Mapping[str, float]) -> dict[str, str]:
    """The two CSV files of davis2017-evaluation, 3 decimals."""
    names = [metric.key.replace("_r", "-R").replace("_d", "-D") for metric in METRICS]
    head = ",".join(name if "-" in name else f"{name}-Mean" for name in names)
    numbers = ",".join(f"{scores[metric.key]:.3f}" for metric in METRICS)
    lines = [
        f"{result.name}_{row['object']},{row['J']:.3f},{row['F']:.3f}"
        for result in results
        for row in result.objects
    ]
    return {
        "global_results.csv": f"{head}\n{numbers}\n",
        "per-sequence_results.csv": "\n".join(["Sequence,J-Mean,F-Mean", *lines]) + "\n",
    }


DAVIS_PATH = "{sequence}/{frame}.png"
YOUTUBEVOS_PATH = "Annotations/{sequence}/{frame}.png"


def _davis(
    sequence: Sequence[Ids], carrier: Carrier, submission: Submission, options: Mapping[str, str]
) -> SequenceResult:
    if sequence.num_frames < 3:
        raise RetraceError(
            f"{sequence.name} has {sequence.num_frames} frames; DAVIS scores all but the first and the last."
        )
    return score_masks(sequence, carrier, submission, first_and_last=False, path=DAVIS_PATH)


def _youtubevos(
    sequence: Sequence[Ids], carrier: Carrier, submission: Submission, options: Mapping[str, str]
) -> SequenceResult:
    return score_masks(sequence, carrier, submission, first_and_last=True, path=YOUTUBEVOS_PATH)


def reader(name: str) -> Callable[[Path, str | None], Dataset[Any]]:
    """The `load` of a data set's reader, with its default split."""

    def load(root: Path, split: str | None) -> Dataset[Any]:
        return READERS[name].load(root, split=split or READERS[name].SPLITS[0])

    return load


DAVIS2017 = Benchmark(
    "davis2017",
    "DAVIS-2017",
    "mask",
    "crw-davis",
    METRICS,
    reader("davis2017"),
    _davis,
    summarise,
    DAVIS_PATH,
    official_tables,
    sizes=OBJECTS,
    official=30,
)
DAVIS2016 = replace(DAVIS2017, name="davis2016", title="DAVIS-2016", load=reader("davis2016"), official=None)
YOUTUBEVOS = Benchmark(
    "youtubevos",
    "YouTube-VOS",
    "mask",
    "crw-davis",
    METRICS,
    reader("youtubevos"),
    _youtubevos,
    summarise,
    YOUTUBEVOS_PATH,
    sizes=OBJECTS,
)
