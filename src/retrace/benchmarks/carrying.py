"""One pass over a video: frames are read ahead, labels carried, and finished and scored on another thread."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from retrace.benchmarks.linear import Classifier, LinearProbeConfig, Pooled
from retrace.datasets.records import Sequence
from retrace.encoders import Model
from retrace.errors import RetraceError
from retrace.propagation.baselines import BASELINES
from retrace.propagation.carriers import BoxCarrier, Carrier, Readout, Without
from retrace.propagation.protocols import Protocol
from retrace.threads import Worker, ahead
from retrace.tracking.carrier import SiamFC
from retrace.tracking.siamfc import SiamFCConfig
from retrace.video.decode import frames_of

Labels = TypeVar("Labels")
Settings = Protocol | SiamFCConfig | LinearProbeConfig
"""How labels are carried: propagated, boxes tracked, or classes learned."""


@dataclass(frozen=True)
class CarrierSpec:
    """What it takes to build a carrier, in whatever process."""

    model: str | Path | Model
    """What `retrace.load` takes, or one of `BASELINES`."""
    protocol: Settings
    device: str
    dtype: str

    def build(
        self, encoder: Callable[[str | Path | Model], Model], classifier: Path
    ) -> Carrier | BoxCarrier | Classifier:
        """The carrier.

        Args:
            encoder: loads the model.
            classifier: file of a classifier that was trained before, where classes are learned.

        Errors: RetraceError when it cannot be loaded.
        """
        if isinstance(self.protocol, LinearProbeConfig):
            return Classifier.read(classifier, self.pooled(encoder))
        if isinstance(self.model, str) and self.model in BASELINES:
            return Without(self.model)
        model, dtype = encoder(self.model), getattr(torch, self.dtype)
        if isinstance(self.protocol, SiamFCConfig):
            return SiamFC(model, self.protocol, device=self.device, dtype=dtype)
        return Readout(model, self.protocol, device=self.device, dtype=dtype)

    def pooled(self, encoder: Callable[[str | Path | Model], Model]) -> Pooled:
        """Features of whole pictures; `encoder` loads the model."""
        return Pooled(encoder(self.model), self.device, getattr(torch, self.dtype))


def read_frames(sequence: Sequence[Any]) -> Iterator[NDArray[np.uint8]]:
    """The frames of a sequence, (H, W, 3) RGB, read ahead on another thread."""
    with closing(cast(Any, ahead(frames_of(sequence), depth=2))) as frames:
        for frame, _ in frames:
            yield frame


def carry(
    labels: Iterator[Callable[[], Labels]],
    score: Callable[[int, Labels], None],
    num_frames: int,
    name: str,
) -> None:
    """Run a carrier over a video; `score` takes every frame's labels in order, on a thread of its own.

    Args:
        labels: from a carrier, a function per frame.
        score: frame number and labels.
        num_frames: how many there must be.
        name: of the sequence, for the sentence.

    Errors: whatever `score` or the carrier raise; RetraceError when the video has another number of frames.
    """

    def work(item: tuple[int, Callable[[], Labels]]) -> None:
        frame, finish = item
        score(frame, finish())

    worker = Worker(work)
    count = 0
    try:
        for finish in labels:
            worker.put((count, finish))
            count += 1
    finally:
        worker.close()
    if count != num_frames:
        raise RetraceError(f"{name} has {count} frames that can be read; expected {num_frames}.")
