"""Follow boxes through a video: the library function behind `retrace track`."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

import numpy as np
import torch
from numpy.typing import NDArray

from retrace import __version__
from retrace.datasets.records import frame_files
from retrace.devices import choose_device
from retrace.encoders import Model, load
from retrace.encoders.heads import SiamFCHead
from retrace.encoders.model import fingerprint as fingerprint_of
from retrace.errors import RetraceError, UsageError
from retrace.formats.boxes import Boxes
from retrace.formats.labels import Label, LabelSet, read_labels
from retrace.propagation.codecs import FrameLabels
from retrace.tracking.siamfc import PROTOCOLS, SiamFCConfig, Tracker
from retrace.verbs.labelled_run import FrameResult, LabelledRun, filled, sureness
from retrace.verbs.output import RunFolder, video_identity
from retrace.video.decode import Frame, VideoReader, open_video

Box = tuple[float, float, float, float]


class TrackKnobs(TypedDict, total=False):
    """What may be changed in a tracking protocol; a knob that is left out or None keeps the protocol's value.

    The names are those of `tracking.siamfc.SiamFCConfig`.
    """

    exemplar_size: int | None
    search_size: int | None
    num_scales: int | None
    scale_step: float | None
    scale_rate: float | None
    scale_penalty: float | None
    window_influence: float | None
    centred: bool | None
    normalise: bool | None
    target_only: bool | None


class Tracking(LabelledRun):
    """Frames with their boxes, found by SiamFC; see LabelledRun for how it runs and what it holds.

    Attributes:
        names: of the boxes; "1", "2", ... where none were given.
        model: the encoder.
        protocol: with all knobs applied.
    """

    stages = ("decode", "track")

    def __init__(
        self,
        video: VideoReader,
        labels: LabelSet,
        model: Model,
        protocol: SiamFCConfig,
        tracker: Tracker,
        *,
        settings: Mapping[str, Any],
        folder: RunFolder | None,
        overlay: bool,
    ) -> None:
        """Use `track`."""
        self.protocol = protocol
        self._tracker = tracker
        super().__init__(
            video,
            labels,
            model,
            names=cast(Boxes, labels.frames[labels.first]).names,
            settings=settings,
            folder=folder,
            overlay=overlay,
        )

    def _one(self, frame: Frame, label: Label | None, clock: dict[str, float]) -> FrameResult:
        begin = time.perf_counter()
        image = torch.from_numpy(np.ascontiguousarray(frame.image)).permute(2, 0, 1)  # (3, H, W)
        arrived = None
        if frame.index != self.labels.first:
            found = self._tracker.step(image)
            boxes = _inside(found.boxes, image.shape[1], image.shape[2])
            sure = np.where(np.isfinite(boxes[:, 0]), found.confidence, 0.0)
            arrived = FrameLabels(boxes=boxes, confidence=dict(zip(self.names, sure.tolist(), strict=True)))
        if label is not None:
            given = cast(Boxes, label).xywh
            begin_with = self._tracker.start if arrived is None else self._tracker.correct
            begin_with(image, given)
            there = np.isfinite(given[:, 0])
            arrived = FrameLabels(
                boxes=filled(given, there, None if arrived is None else arrived.boxes),
                confidence=sureness(self.names, there, arrived),
            )
        assert arrived is not None
        clock["track"] += time.perf_counter() - begin
        return FrameResult(
            frame.index,
            frame.name,
            frame.time,
            frame.image,
            None,
            None,
            arrived.boxes,
            None,
            arrived.confidence,
            label is not None,
        )


def track(
    video: str | Path,
    box: str | Path | Sequence[float] | Sequence[Sequence[float]] | Mapping[str, Any],
    *,
    model: str | Path | Model = "default",
    protocol: str | SiamFCConfig | None = None,
    frame: int = 0,
    out: str | Path | None = None,
    overlay: bool = True,
    overwrite: bool = False,
    device: str = "auto",
    **knobs: Unpack[TrackKnobs],
) -> Tracking:
    """Follow one or more boxes from the frame where they were drawn to the end of the video.

    Everything is checked here, the work is done while the result is iterated over (or by its `run()`).

    Args:
        video: a video file or a folder of frames.
        box: (x, y, w, h) of the left top corner and the size, pixels; several of them; or a box file or its content
            (`formats.boxes`), where boxes of later frames correct: from there on they are followed as they look there.
        model: "default", the path of a checkpoint, or a Model; its map must have the protocol's stride, 8. The 1x1
            convolutions of `retrace train siamfc-got10k` are used where the file has them.
        protocol: a name in `tracking.siamfc.PROTOCOLS`, a SiamFCConfig, or None: "default", and "trained" for a model
            with a tracking head.
        frame: the frame that `box` was drawn on, where it is not a file.
        out: folder to write the boxes (`boxes.json`, `boxes.csv`, `boxes_mot.txt`), an overlay video and `result.json`
            into.
        overlay: write `overlay.mp4`.
        overwrite: replace what another run left in `out`.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        **knobs: changes to the protocol, see `TrackKnobs`.

    Returns: Tracking, an iterable of FrameResult; `boxes` are cut at the frame, NaN with confidence 0 while the target
        is outside. `confidence` is the mean cosine similarity of the target's cells with those of the labelled frame.

    Errors: RetraceError for an unusable video, box, checkpoint or output folder; UsageError for settings
        that do not exist, and for a model of another stride.
    """
    chosen_device = choose_device(device)
    if isinstance(protocol, str) and protocol not in PROTOCOLS:
        raise UsageError(f"Protocol {protocol!r} is unknown. Choose from {', '.join(PROTOCOLS)}.")
    reader = open_video(video)
    labels = read_labels(
        _box_labels(box, frame),
        size=(reader.height, reader.width),
        num_frames=reader.num_frames,
        names=[file.stem for file in frame_files(reader.path)] if reader.names else None,
        kind="boxes",
    )
    _check_targets(labels)
    loaded = model if isinstance(model, Model) else load(model)
    head = SiamFCHead.of(loaded.head)
    name = protocol if isinstance(protocol, str) else "trained" if head is not None else "default"
    config = protocol if isinstance(protocol, SiamFCConfig) else PROTOCOLS[name]
    config = with_knobs(config, knobs)
    try:
        tracker = Tracker(loaded, config, head=head, device=chosen_device)
    except ValueError as error:
        raise UsageError(
            f"{loaded.name!r} cannot be tracked with: {error}. Choose another --model."
        ) from error
    described = {"name": "custom" if isinstance(protocol, SiamFCConfig) else name, **asdict(config)}
    folder = None
    if out is not None:
        fingerprint = {
            "retrace version": __version__,
            "video": video_identity(reader.path),
            "boxes": labels.sha256[:16],
            "model": f"{loaded.name} {loaded.sha256[:16]}",
            "head": "none" if head is None else fingerprint_of(head)[:16],
            "protocol": json.dumps(described),
            "overlay": "yes" if overlay else "no",
        }
        folder = RunFolder(out, fingerprint, verb="track", overwrite=overwrite)
    settings = {
        "protocol": described,
        "head": head is not None,
        "device": str(chosen_device),
        "threads": torch.get_num_threads(),
    }
    return Tracking(
        reader, labels, loaded, config, tracker, settings=settings, folder=folder, overlay=overlay
    )


def with_knobs(config: SiamFCConfig, knobs: TrackKnobs) -> SiamFCConfig:
    """Settings with knobs applied.

    Errors: UsageError for a name or value that does not exist.
    """
    unknown = set(knobs) - set(TrackKnobs.__annotations__)
    if unknown:
        raise UsageError(
            f"Knob {sorted(unknown)[0]!r} is unknown. Choose from {', '.join(TrackKnobs.__annotations__)}."
        )
    given = {key: value for key, value in knobs.items() if value is not None}
    try:
        return replace(config, **cast(Any, given))
    except ValueError as error:
        raise UsageError(f"{error}. Correct that setting of the protocol.") from error


def _box_labels(
    box: str | Path | Sequence[float] | Sequence[Sequence[float]] | Mapping[str, Any], frame: int
) -> str | Path | Mapping[str, Any]:
    """What `read_labels` takes."""
    if isinstance(box, str | Path):
        if Path(box).suffix.lower() not in (".json", ".csv"):
            raise UsageError(f"Box {str(box)!r} is neither x,y,w,h nor a box file (JSON or CSV).")
        return box
    if isinstance(box, Mapping):
        return box
    rows = np.asarray(box, dtype=object)
    if rows.ndim not in (1, 2) or rows.shape[-1] != 4:
        raise UsageError(f"The box is {box!r}; expected x, y, w, h in pixels, or a list of such boxes.")
    if frame < 0:
        raise UsageError(f"frame is {frame}; expected the number of a frame, from 0 on.")
    boxes: list[list[float]] = rows.reshape(-1, 4).tolist()
    return {"frames": [{"index": frame, "boxes": boxes}]}


def _check_targets(labels: LabelSet) -> None:
    """Errors: RetraceError for a box too small to look for."""
    for frame, label in labels.frames.items():
        boxes = cast(Boxes, label)
        for name, (_, _, width, height) in zip(boxes.names, boxes.xywh.tolist(), strict=True):
            if min(width, height) < 1:  # a box that the frame does not have is NaN, and passes
                raise RetraceError(
                    f"Box {name} of frame {frame} is {width:.3g} x {height:.3g} pixels inside the frame; expected at "
                    "least 1 x 1. Draw it round the target."
                )


def _inside(boxes: NDArray[np.float64], height: int, width: int) -> NDArray[np.float32]:
    """Boxes (N, 4) x, y, w, h cut at a frame of H x W; NaN where nothing is left."""
    low = np.maximum(boxes[:, :2], 0)
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], [width, height])
    cut = np.concatenate([low, high - low], axis=1).astype(np.float32)
    cut[~(high - low > 0).all(axis=1)] = np.nan
    return cut
