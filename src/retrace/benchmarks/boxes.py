"""OTB-50 and OTB-100: the box of the first frame is found again by SiamFC on frozen features.

Source of the settings: Xu and Wang (VFS), ICCV 2021, section 4.2; of the scores: got10k's toolkit, or pysot's by
option.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrace.benchmarks.carrying import carry, read_frames
from retrace.benchmarks.masks import reader
from retrace.benchmarks.networks import res5
from retrace.benchmarks.records import Benchmark, Metric, SequenceResult, Submission, as_named
from retrace.benchmarks.sizes import BOXES, count_boxes
from retrace.datasets.records import Boxes, Sequence
from retrace.encoders import Model
from retrace.errors import RetraceError
from retrace.metrics.boxes import TrackingScores, headline, iou, mean_curves, otb_got10k, otb_pysot
from retrace.metrics.ratios import mean_of_numbers
from retrace.propagation.carriers import BoxCarrier
from retrace.tracking.siamfc import PROTOCOLS

Rects = NDArray[np.float64]
FIRST_PIXEL = np.array([1.0, 1.0, 0.0, 0.0])
"""What the files of OTB add to a box: the left edge of their first pixel is 1."""

METRICS = (
    Metric("success", "success (area under the curve)"),
    Metric("precision", "precision at 20 pixels"),
    Metric("normalised_precision", "normalised precision at 0.2"),
    Metric("success_rate", "frames with an IoU above 0.5"),
    Metric("mean_IoU", "mean IoU"),
)
PATH = "{sequence}.txt"
"""Left, top, width, height per line, 3 decimals, the first pixel 1: a folder of them is a tracker in the `results` of
got10k's toolkit."""

FEATURES = ("model", "res5-paper", "res5-released")
"""The map that is tracked with: the model's own; or res5 at stride 8, its dilations as VFS writes or as it released."""


def encoder(model: str | Path | Model, options: Mapping[str, str]) -> Model:
    """The encoder as the option `features` wants it."""
    if options["features"] == "model":
        return as_named(model, options)
    dilated = "all" if options["features"] == "res5-paper" else "released"
    return res5(model, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), dilated=dilated)


def _curves(found: Rects, truth: Rects, toolkit: str) -> TrackingScores:
    """Of boxes as their files hold them."""
    if toolkit == "got10k":
        return otb_got10k(found, truth)
    return otb_pysot(found, truth, "stvir" if toolkit == "stvir" else "pysot-toolkit")


def _otb(
    sequence: Sequence[Boxes], carrier: BoxCarrier, submission: Submission, options: Mapping[str, str]
) -> SequenceResult:
    truth = np.concatenate([sequence.read(t).xywh[:1] for t in range(sequence.num_frames)])  # (T, 4)
    if not (np.isfinite(truth[0]).all() and (truth[0, 2:] > 0).all()):
        raise RetraceError(f"{sequence.name}: the box of the first frame has no size.")
    found = np.full(truth.shape, np.nan)

    def one(frame: int, boxes: NDArray[np.floating]) -> None:
        if frame < len(found):  # a longer video is refused when it has been read
            found[frame] = boxes[0]

    carry(carrier.boxes(read_frames(sequence), {0: truth[:1]}), one, sequence.num_frames, sequence.name)
    written = found + FIRST_PIXEL
    lines = [",".join(f"{value:.3f}" for value in box) for box in written]
    submission.text(PATH.format(sequence=sequence.name), "\n".join(lines) + "\n")
    curves = _curves(written, truth + FIRST_PIXEL, options["toolkit"])
    lost = np.isnan(found).any(axis=1) & np.isfinite(truth).all(axis=1)
    overlap = np.where(
        lost, 0.0, iou(found, truth)
    )  # as the curves count it: a lost box is a miss, not a gap
    height, width = sequence.size or (0, 0)
    areas = truth[:, 2:].clip(0).prod(1) / max(height * width, 1)
    later = range(1, len(truth))
    result = SequenceResult(
        sequence.name,
        sequence.num_frames,
        len(truth),
        {},
        frames={"frame": [float(t) for t in later], "mean_IoU": [float(overlap[t]) for t in later]},
        raw={
            "curves": [curve.tolist() for curve in curves],
            "mean_IoU": mean_of_numbers(overlap[1:]),
            "confusion_by_size": count_boxes(overlap[1:], areas[1:]).tolist(),
        },
    )
    result.scores.update(_summarise([result], options))
    return result


def _summarise(results: list[SequenceResult], options: Mapping[str, str]) -> dict[str, float]:
    """Curves averaged over sequences, each counting once, then read off."""
    videos = [TrackingScores(*(np.array(curve) for curve in result.raw["curves"])) for result in results]
    numbers = headline(mean_curves(videos))
    return {**numbers._asdict(), "mean_IoU": mean_of_numbers([result.raw["mean_IoU"] for result in results])}


OTB = Benchmark(
    "otb",
    "OTB",
    "boxes",
    "vfs-r18",
    METRICS,
    reader("otb"),
    _otb,
    _summarise,
    PATH,
    options={"features": FEATURES, "toolkit": ("got10k", "pysot-toolkit", "stvir")},
    encoder=encoder,
    sizes=BOXES,
    settings=PROTOCOLS,
    official=100,
)
