"""Frame reconstruction on DAVIS (TimeCycle, section 4.6 and Table 5): a frame is made of the colours of an earlier one.

Every pixel of frame t takes its colour from its place in frame t - gap, as correspondences say. The paper does not say
which pairs it takes; here they are all pairs of frames of a sequence that are that far apart. No labels are needed.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrace.benchmarks.carrying import carry, read_frames
from retrace.benchmarks.masks import frame_name
from retrace.benchmarks.poses import mean_over_sequences
from retrace.benchmarks.records import Benchmark, Metric, SequenceResult, Submission
from retrace.datasets import davis2017
from retrace.datasets.records import Dataset, Sequence
from retrace.errors import RetraceError
from retrace.files import atomic_path
from retrace.metrics.reconstruction import colour_distance
from retrace.propagation.carriers import Carrier
from retrace.propagation.protocols import between_two

Pixels = NDArray[np.uint8]
GAPS = (5, 10)
"""Frames between the two, as in Table 5."""
SHOWN = 5
"""Reconstructed frames of a sequence that are kept, from the larger gap, evenly over time."""

METRICS = tuple(
    Metric(f"L1_{gap}", f"L1 distance, {gap} frames apart", "levels", higher_is_better=False) for gap in GAPS
)


def warped(image: Pixels, flow: NDArray[np.float32]) -> Pixels:
    """Colours (H, W, 3) read bilinearly where the flow (H, W, 2) points to; the edge repeats outside."""
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]].astype(np.float32)
    read = cv2.remap(
        image,
        columns + flow[..., 0],
        rows + flow[..., 1],
        interpolation=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(read, dtype=np.uint8)


def _load(root: Path, split: str | None) -> Dataset[None]:
    return davis2017.load_frames(root, split=split or davis2017.SPLITS[0])


def _score(
    sequence: Sequence[Any], carrier: Carrier, submission: Submission, options: Mapping[str, str]
) -> SequenceResult:
    far = max(GAPS)
    if sequence.num_frames <= far:
        raise RetraceError(
            f"{sequence.name} has {sequence.num_frames} frames; expected {far + 1} or more: two that are {far} apart."
        )
    assert sequence.size is not None
    images: dict[int, Pixels] = {}
    distances: dict[int, dict[int, float]] = {gap: {} for gap in GAPS}
    shown = {round(k) for k in np.linspace(far, sequence.num_frames - 1, SHOWN)}

    def frames() -> Iterator[Pixels]:
        for frame, image in enumerate(read_frames(sequence)):
            images[frame] = image
            yield image

    def one(frame: int, flows: dict[int, NDArray[np.float32]]) -> None:
        for gap, flow in flows.items():
            made = warped(images[frame - gap], flow)
            distances[gap][frame] = colour_distance(made, images[frame])
            if gap == far and frame in shown:
                name = PATH.format(sequence=sequence.name, frame=frame_name(sequence, frame))
                submission.file(name, lambda file, made=made: _write(file, made))  # type: ignore[misc]
        images.pop(frame - far, None)

    carry(carrier.flows(frames(), GAPS, sequence.size), one, sequence.num_frames, sequence.name)
    times = list(distances[far])
    return SequenceResult(
        sequence.name,
        sequence.num_frames,
        len(distances[min(GAPS)]),
        {f"L1_{gap}": float(np.mean(list(distances[gap].values()))) for gap in GAPS},
        frames={
            "frame": [float(t) for t in times],
            **{f"L1_{gap}": [distances[gap][t] for t in times] for gap in GAPS},
        },
        raw={"shown": sorted(shown)},
    )


def _write(file: Path, image: Pixels) -> None:
    with atomic_path(file) as temporary:
        Image.fromarray(image).save(temporary, quality=95)


PATH = "{sequence}/{frame}.jpg"
RECONSTRUCTION = Benchmark(
    "reconstruction",
    "Frame reconstruction, DAVIS",
    "frame",
    "flow",
    METRICS,
    _load,
    _score,
    lambda results, options: mean_over_sequences(results, METRICS),
    PATH,
    data="davis2017",
    settle=between_two,
)
