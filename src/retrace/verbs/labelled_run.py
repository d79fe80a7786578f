"""Labels of a few frames in, labels of all frames out, frame by frame: what `propagate` and `track` share."""

import logging
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from retrace import __version__
from retrace.encoders import Model
from retrace.errors import RetraceError
from retrace.formats.davis_png import Mask
from retrace.formats.labels import Kind, Label, LabelSet
from retrace.propagation.codecs import FrameLabels
from retrace.threads import ahead
from retrace.verbs.output import ResultWriter, RunFolder
from retrace.video.decode import Frame, VideoReader

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameResult:
    """One frame with its labels.

    Attributes:
        index: frame number from 0.
        name: file stem in a frame folder, "%05d" in a video.
        time: seconds since the first frame.
        image: (H, W, 3) uint8 RGB.
        masks: (H, W) uint8 object ids, for masks and parts.
        keypoints: (K, 2) float32 pixels in the order of the run's `names`, NaN when not found.
        boxes: (N, 4) float32 pixels x, y, w, h in the order of `names`, NaN when lost.
        texture: (H, W, 4) uint8 RGBA.
        confidence: name (object id as text, keypoint, box, "texture") -> [0, 1]; 1 where the person labelled,
            0 when lost.
        labelled: the person labelled this frame.
    """

    index: int
    name: str
    time: float
    image: NDArray[np.uint8]
    masks: NDArray[np.uint8] | None
    keypoints: NDArray[np.float32] | None
    boxes: NDArray[np.float32] | None
    texture: NDArray[np.uint8] | None
    confidence: dict[str, float]
    labelled: bool


class LabelledRun(ABC):
    """Frames with their labels, computed while they are iterated over; memory does not grow with the video.

    Every iteration starts again at the first labelled frame. With an output folder, iterating also writes it;
    leaving the loop early leaves whole files and a `result.json` with status "partial". `run()` iterates for you.

    Attributes:
        kind: "mask", "parts", "keypoints", "boxes" or "texture".
        names: of objects (ids as text), keypoints or boxes.
        skeleton: pairs of keypoint positions.
        video: the open VideoReader (path, height, width, fps, num_frames).
        labels: the LabelSet.
        model: the encoder.
        finished: content of `result.json` when the folder already holds this very run; nothing is written again.
        summary: after an iteration, the head of `result.json`: versions, settings, timings, status, damage.
    """

    stages: tuple[str, ...]
    """What the clock tells apart; `_one` adds to all but "decode"."""

    def __init__(
        self,
        video: VideoReader,
        labels: LabelSet,
        model: Model,
        *,
        names: Sequence[str],
        skeleton: Sequence[tuple[int, int]] = (),
        settings: Mapping[str, Any],
        folder: RunFolder | None,
        overlay: bool,
    ) -> None:
        """`settings` go into `result.json` as they are."""
        self.video = video
        self.labels = labels
        self.model = model
        self.kind: Kind = labels.kind
        self.names = list(names)
        self.skeleton = tuple(skeleton)
        self.summary: dict[str, Any] = {}
        self.finished = folder.finished if folder is not None else None
        self._settings = dict(settings)
        self._doubts: dict[str, tuple[float, int]] = {}  # name -> lowest confidence, frame
        self._folder = folder
        self._overlay = overlay

    @abstractmethod
    def _one(self, frame: Frame, label: Label | None, clock: dict[str, float]) -> FrameResult:
        """Carry the labels to the next frame, or take those that a person gave for it."""

    def __len__(self) -> int:
        """Frames that will be given, as far as the container announces it."""
        if self.video.num_frames is None:
            raise TypeError(f"{self.video.path} does not say how many frames it has")
        return max(0, self.video.num_frames - self.labels.first)

    def __iter__(self) -> Iterator[FrameResult]:
        """Frames from the first labelled one on.

        Errors: RetraceError when a labelled frame never came, or a file cannot be written.
        """
        writer = self._writer()
        clock = dict.fromkeys(self.stages, 0.0)
        self._doubts = {}
        start = time.perf_counter()
        count = 0
        status, trouble = "partial", None
        try:
            for result in self._frames(clock):
                if writer is not None:
                    writer.write(result)
                count += 1
                for name, confidence in result.confidence.items():
                    if confidence < self._doubts.get(name, (2.0, 0))[0]:
                        self._doubts[name] = (confidence, result.index)
                yield result
            status = "complete"
        except RetraceError as error:
            trouble = str(error)
            raise
        finally:
            clock["total"] = time.perf_counter() - start
            self._finish(writer, clock, count, status, trouble)

    def run(self, progress: Callable[[FrameResult], None] | None = None) -> dict[str, Any]:
        """Iterate over everything and return the summary (the head of `result.json`).

        Args:
            progress: called with every frame.

        Errors: RetraceError as iteration.
        """
        with closing(cast(Any, iter(self))) as frames:
            for frame in frames:
                if progress is not None:
                    progress(frame)
        return self.summary

    def _frames(self, clock: dict[str, float]) -> Iterator[FrameResult]:
        pending = dict(self.labels.frames)
        started = False
        with closing(cast(Any, ahead(iter(self.video)))) as frames:
            for frame, seconds in frames:
                clock["decode"] += seconds
                label = pending.pop(frame.index, None)
                if label is None and not started:
                    continue  # before the first labelled frame there is nothing to carry
                started = True
                yield self._one(frame, label, clock)
        if self.video.damage is not None:
            log.warning("%s", self.video.damage)
        if not started or (pending and self.video.damage is None):
            missing = next(iter(pending))
            broken = f" {self.video.damage}" if self.video.damage else ""
            raise RetraceError(
                f"{self.labels.source} labels frame {missing}, but the video ended before it.{broken} "
                "Give the labels of this video."
            )

    def _writer(self) -> ResultWriter | None:
        if self._folder is None or self.finished is not None:
            return None
        self._folder.begin()
        return ResultWriter(
            self._folder.path,
            kind=self.kind,
            names=self.names,
            skeleton=self.skeleton,
            size=(self.video.height, self.video.width),
            fps=self.video.fps,
            overlay=self._overlay,
        )

    def _finish(
        self,
        writer: ResultWriter | None,
        clock: Mapping[str, float],
        count: int,
        status: str,
        trouble: str | None,
    ) -> None:
        def head() -> dict[str, Any]:
            seconds = {**clock, **({} if writer is None else writer.seconds)}
            return {
                "status": status,
                **({"error": trouble} if trouble else {}),
                "retrace": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "video": {
                    "path": str(self.video.path),
                    "width": self.video.width,
                    "height": self.video.height,
                    "fps": self.video.fps,
                    "damage": self.video.damage,
                },
                "labels": {
                    "kind": self.kind,
                    "source": self.labels.source,
                    "sha256": self.labels.sha256,
                    "labelled_frames": list(self.labels.frames),
                    "names": self.names,
                    **_label_notes(self.labels),
                },
                "model": {
                    "name": self.model.name,
                    "sha256": self.model.sha256,
                    "stride": self.model.stride,
                },
                **self._settings,
                "frames_done": count,
                "least_sure": [
                    {"name": name, "frame": frame, "confidence": round(confidence, 4)}
                    for name, (confidence, frame) in sorted(self._doubts.items(), key=lambda item: item[1])
                ],
                "frames_per_second": round(count / clock["total"], 3) if clock["total"] > 0 else None,
                "seconds": {key: round(value, 4) for key, value in seconds.items()},
            }

        try:
            if writer is not None:
                if count:
                    writer.finish(head)
                else:
                    writer.abandon()
        finally:
            self.summary = head()
            if self._folder is not None and writer is not None:
                if count == 0:
                    self._folder.discard()
                self._folder.release()
                if status == "complete":
                    self.finished = self.summary


def filled(
    given: NDArray[np.float32], there: NDArray[np.bool_], arrived: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Rows of `given` where the person labelled, else those that arrived, else NaN."""
    others = np.full_like(given, np.nan) if arrived is None else arrived
    return np.where(there[:, None], given, others)


def sureness(names: Sequence[str], there: NDArray[np.bool_], arrived: FrameLabels | None) -> dict[str, float]:
    """1 for what the person labelled, the confidence of what arrived for the rest, 0 when nothing arrived."""
    others = {} if arrived is None else arrived.confidence
    return {
        name: 1.0 if labelled else others.get(name, 0.0) for name, labelled in zip(names, there, strict=True)
    }


def _label_notes(labels: LabelSet) -> dict[str, Any]:
    """What reading the labels decided: colours of ids, pixels taken for void."""
    masks = [label for label in labels.frames.values() if isinstance(label, Mask)]
    if not masks:
        return {}
    void = sum(mask.void_pixels for mask in masks)
    return {
        "colours": {str(i): list(colour) for i, colour in masks[0].colours.items()},
        **({"void_pixels": void} if void else {}),
    }
