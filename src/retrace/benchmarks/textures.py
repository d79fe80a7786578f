"""Texture propagation on DAVIS (TimeCycle, section 4.5): six painted stripes follow the object.

The paper shows pictures and gives no number; so does the report. What can be counted is whether the paint stays on the
object: J of the painted pixels against the object's mask. Of several objects the masks are merged.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from retrace.benchmarks.carrying import carry, read_frames
from retrace.benchmarks.masks import DAVIS_PATH, frame_name, reader
from retrace.benchmarks.poses import mean_over_sequences
from retrace.benchmarks.records import Benchmark, Metric, SequenceResult, Submission
from retrace.datasets.records import Sequence
from retrace.errors import RetraceError
from retrace.formats.textures import write_texture
from retrace.metrics.ratios import mean_of_numbers
from retrace.metrics.regions import jaccard
from retrace.propagation.carriers import Carrier
from retrace.propagation.protocols import for_coordinates

Ids = NDArray[np.uint8]
Paint = NDArray[np.uint8]
STRIPES = ((230, 25, 75), (255, 150, 0), (255, 235, 60), (60, 190, 75), (0, 130, 220), (150, 60, 200))
"""Red, orange, yellow, green, blue, violet."""

METRICS = (Metric("J", "J of the paint and the object"),)


def striped(mask: NDArray[np.bool_]) -> Paint:
    """An object (H, W) painted with six stripes of equal width across the longer side of its box -> (H, W, 4) RGBA.

    Errors: ValueError when the mask is empty.
    """
    rows, columns = np.nonzero(mask)
    if not len(rows):
        raise ValueError("the mask is empty; there is nothing to paint on")
    along = columns if np.ptp(columns) >= np.ptp(rows) else rows
    stripe = (along - along.min()) * len(STRIPES) // (np.ptp(along) + 1)
    paint = np.zeros((*mask.shape, 4), np.uint8)
    paint[rows, columns, :3] = np.array(STRIPES, np.uint8)[stripe]
    paint[rows, columns, 3] = 255
    return paint


def _score(
    sequence: Sequence[Ids], carrier: Carrier, submission: Submission, options: Mapping[str, str]
) -> SequenceResult:
    first = sequence.truth(0)
    if first is None or not first.any():
        raise RetraceError(f"{sequence.name}: no object has a pixel in the first frame, where it is painted.")
    values: dict[int, float] = {}

    def one(frame: int, paint: Paint) -> None:
        name = DAVIS_PATH.format(sequence=sequence.name, frame=frame_name(sequence, frame))
        submission.file(name, lambda file: write_texture(file, paint))
        truth = sequence.truth(frame)
        if frame and truth is not None:
            values[frame] = float(jaccard(paint[..., 3] >= 128, truth > 0))

    carry(
        carrier.textures(read_frames(sequence), striped(first > 0)), one, sequence.num_frames, sequence.name
    )
    return SequenceResult(
        sequence.name,
        sequence.num_frames,
        len(values),
        {"J": mean_of_numbers(list(values.values()))},
        frames={"frame": [float(t) for t in values], "J": list(values.values())},
    )


TEXTURE = Benchmark(
    "texture",
    "Texture propagation, DAVIS",
    "texture",
    "default",
    METRICS,
    reader("davis2016"),
    _score,
    lambda results, options: mean_over_sequences(results, METRICS),
    DAVIS_PATH,
    data="davis2016",
    settle=for_coordinates,
)
