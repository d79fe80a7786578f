"""VIP: human parts of the first annotated frame are carried; semantic mIoU, and AP^r_vol when instances are carried."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrace.benchmarks.carrying import carry, read_frames
from retrace.benchmarks.masks import counts, frame_name, reader
from retrace.benchmarks.records import Benchmark, Metric, SequenceResult, Submission
from retrace.benchmarks.sizes import OBJECTS, count_objects
from retrace.datasets.records import Parts, Sequence
from retrace.errors import RetraceError
from retrace.metrics.parts import (
    CLASSES,
    Matches,
    PartFrame,
    class_scores,
    confusion,
    match_instances,
    precision_of_matches,
)
from retrace.propagation.carriers import Carrier

Ids = NDArray[np.uint8]
METRICS = (
    Metric("mIoU", "mean IoU"),
    Metric("accuracy", "pixel accuracy"),
    Metric("AP_vol", "AP^r_vol"),
)
PATH = "{sequence}/{frame}.png"
CLASS_RANGE = tuple(range(1, CLASSES))


def _given(truth: Parts, instances: bool, name: str) -> tuple[Ids, NDArray[np.int64]]:
    """Ids to carry, and the class of each: (m, 2) id and class."""
    if not instances:
        ids = np.where((truth.classes > 0) & (truth.classes < CLASSES), truth.classes, 0).astype(np.uint8)
        classes = np.array([c for c in np.unique(ids) if c], dtype=np.int64)
        return ids, np.stack([classes, classes], 1)
    if truth.instances is None or truth.table is None:
        raise RetraceError(f"{name} has no Instance_ids; use the option carry=classes.")
    table = truth.table[(truth.table[:, 1] > 0) & (truth.table[:, 1] < CLASSES)]
    if len(table) > 254:
        raise RetraceError(f"{name} has {len(table)} part instances in its first frame; 254 can be carried.")
    ids = np.zeros(truth.instances.shape, np.uint8)
    for number, instance in enumerate(table[:, 0], start=1):
        ids[truth.instances == instance] = number
    return ids, np.stack([np.arange(1, len(table) + 1), table[:, 1]], 1)


def _vip(
    sequence: Sequence[Parts], carrier: Carrier, submission: Submission, options: Mapping[str, str]
) -> SequenceResult:
    first = sequence.annotated[0]
    start = sequence.truth(first)
    assert start is not None
    instances = options["carry"] == "instances"
    ids, table = _given(start, instances, sequence.name)
    class_of = np.zeros(256, np.uint8)
    class_of[table[:, 0]] = table[:, 1]
    annotated = set(sequence.annotated)
    matrices: list[NDArray[np.int64]] = []
    times: list[int] = []
    matches: list[dict[int, Matches]] = []
    by_size = OBJECTS.empty()

    def one(frame: int, carried: Ids) -> None:
        if frame not in annotated:
            return
        classes = class_of[carried]
        submission.mask(PATH.format(sequence=sequence.name, frame=frame_name(sequence, frame)), classes)
        if frame == first:
            return
        truth = sequence.truth(frame)
        assert truth is not None
        matrices.append(confusion(classes, truth.classes))
        scored = truth.classes < CLASSES
        table_of_pixels = counts(classes[scored], truth.classes[scored], list(CLASS_RANGE))
        there = [c for c in CLASS_RANGE if table_of_pixels[c].any()]
        by_size[:] += count_objects(table_of_pixels, there, truth.classes.size)
        times.append(frame)
        if instances and truth.instances is not None and truth.table is not None:
            carried_there = table[np.isin(table[:, 0], np.unique(carried))]
            matches.append(
                match_instances(
                    PartFrame(carried, carried_there), PartFrame(truth.instances, truth.table), CLASS_RANGE
                )
            )

    carry(carrier.masks(read_frames(sequence), {first: ids}), one, sequence.num_frames, sequence.name)
    if not matrices:
        raise RetraceError(f"{sequence.name} has no annotated frame after the first.")
    result = SequenceResult(
        sequence.name,
        sequence.num_frames,
        len(times),
        {},
        frames={
            "frame": [float(t) for t in times],
            "mIoU": [class_scores(matrix).mean_iou for matrix in matrices],
        },
        raw={
            "confusion": np.sum(matrices, axis=0).tolist(),
            "confusion_by_size": by_size.tolist(),
            "matches": [{str(c): list(m) for c, m in frame.items()} for frame in matches],
        },
    )
    result.scores.update(_summarise(([result]), options))
    return result


def _summarise(results: list[SequenceResult], options: Mapping[str, str]) -> dict[str, float]:
    """One pooled histogram; instances ranked over all frames of all videos."""
    scores = class_scores(np.sum([np.array(result.raw["confusion"]) for result in results], axis=0))
    frames: list[dict[int, Matches]] = [
        {int(c): Matches(tuple(m[0]), tuple(m[1]), m[2]) for c, m in frame.items()}
        for result in results
        for frame in _frames(result.raw)
    ]
    precision = float(precision_of_matches(frames).mean()) if frames else float("nan")
    return {"mIoU": scores.mean_iou, "accuracy": scores.overall_accuracy, "AP_vol": precision}


def _frames(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(raw["matches"])


VIP = Benchmark(
    "vip",
    "VIP",
    "parts",
    "crw-vip",
    METRICS,
    reader("vip"),
    _vip,
    _summarise,
    PATH,
    options={"carry": ("classes", "instances")},
    official=50,
    sizes=replace(
        OBJECTS,
        of="size of the part in the frame, share of the frame",
        outcomes=("right", "another part", "missed", "false"),
        unit="Percent of the true pixels of the parts of that size, all instances of a part in a frame taken as one, "
        "all frames together; false pixels were given to the part and are none of its own.",
    ),
)
