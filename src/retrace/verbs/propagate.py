"""Carry the labels of one frame (or of a few) through a video: the library function behind `retrace propagate`."""

import json
import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrace import __version__
from retrace.datasets.records import frame_files
from retrace.devices import choose_device
from retrace.encoders import Model, load, save
from retrace.errors import RetraceError, UsageError
from retrace.formats.boxes import Boxes
from retrace.formats.davis_png import Mask
from retrace.formats.keypoints import Keypoints
from retrace.formats.labels import Kind, Label, LabelSet, read_labels
from retrace.formats.textures import Texture
from retrace.propagation.codecs import BoxCodec, FrameLabels, Geometry, KeypointCodec, MaskCodec, TextureCodec
from retrace.propagation.engine import Propagator, resize_image
from retrace.propagation.protocols import PROTOCOLS, Protocol
from retrace.verbs.propagate_output import ResultWriter, RunFolder, ahead, video_identity
from retrace.video.decode import Frame, VideoReader, open_video

log = logging.getLogger(__name__)

DEFAULT_SHORT_SIDE = 480
"""Without a named protocol, larger videos are worked on at this short side, pixels; smaller ones at their own size."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_RULES = ("temperature", "top_k", "shape", "radius", "joint", "softmax", "keep_ties")


class Knobs(TypedDict, total=False):
    """What may be changed in a protocol; a knob that is left out or None keeps the protocol's value.

    The names are those of `Protocol` and `Rules`. `radius`, `top_k` and `size` take 0 for "no window", "keep
    all" and "the video's own size". `label_seed` is the protocol's `seed`.
    """

    num_context: int | None
    recent: str | None
    add_first: bool | None
    window_first: bool | None
    temperature: float | None
    top_k: int | None
    shape: str | None
    radius: float | None
    joint: bool | None
    softmax: str | None
    keep_ties: bool | None
    normalise_features: bool | None
    feed_back: str | None
    output: str | None
    label_seed: str | None
    size: int | tuple[int, int] | None


@dataclass(frozen=True)
class FrameResult:
    """One frame with its labels.

    Attributes:
        index: frame number from 0.
        name: file stem in a frame folder, "%05d" in a video.
        time: seconds since the first frame.
        image: (H, W, 3) uint8 RGB.
        masks: (H, W) uint8 object ids, for masks and parts.
        keypoints: (K, 2) float32 pixels in the order of `Propagation.names`, NaN when not found.
        boxes: (N, 4) float32 pixels x, y, w, h in the order of `Propagation.names`, NaN when lost.
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


@dataclass
class _Clock:
    """Seconds per stage."""

    decode: float = 0.0
    encode: float = 0.0
    readout: float = 0.0
    labels: float = 0.0
    total: float = 0.0


@dataclass
class _Task:
    """A label kind's way to the grid and back; `encode` takes the label and what arrived on a corrected frame."""

    names: list[str]
    skeleton: tuple[tuple[int, int], ...]
    encode: Callable[[Label, Tensor | None], Tensor]
    decode: Callable[[Tensor, Tensor], FrameLabels]
    given: Callable[[Label, FrameLabels | None], FrameLabels]
    partial: bool = field(default=False)


class Propagation:
    """Frames with their labels, computed while they are iterated over; memory does not grow with the video.

    Every iteration starts again at the first labelled frame. With `out`, iterating also writes the folder;
    leaving the loop early leaves whole files and a `result.json` with status "partial". `run()` iterates for you.

    Attributes:
        kind: "mask", "parts", "keypoints", "boxes" or "texture".
        names: of objects (ids as text), keypoints or boxes.
        skeleton: pairs of keypoint positions.
        video: the open VideoReader (path, height, width, fps, num_frames).
        labels: the LabelSet.
        model: the encoder.
        protocol: with all knobs applied.
        finished: content of `result.json` when `out` already holds this very run; nothing is written again.
        summary: after an iteration, the head of `result.json`: versions, protocol, timings, status, damage.
    """

    def __init__(
        self,
        video: VideoReader,
        labels: LabelSet,
        model: Model,
        protocol: Protocol,
        *,
        settings: Mapping[str, Any],
        folder: RunFolder | None,
        overlay: bool,
        tile: tuple[int, int] | None,
    ) -> None:
        """Use `propagate`."""
        self.video = video
        self.labels = labels
        self.model = model
        self.protocol = protocol
        self.kind: Kind = labels.kind
        self.summary: dict[str, Any] = {}
        self._settings = dict(settings)
        self._doubts: dict[str, tuple[float, int]] = {}  # name -> lowest confidence, frame
        self._folder = folder
        self._overlay = overlay
        self.finished = folder.finished if folder is not None else None
        self._engine = Propagator(
            model, protocol, device=settings["device"], dtype=DTYPES[settings["dtype"]], tile=tile
        )
        frame = (video.height, video.width)
        network = tuple(resize_image(torch.empty(3, *frame, dtype=torch.uint8), protocol.size).shape[1:])
        geometry = Geometry(frame, cast(tuple[int, int], network), self._engine.grid(*network), model.stride)
        self._task = _task(labels, geometry, protocol)
        self.names = self._task.names
        self.skeleton = self._task.skeleton

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
        clock = _Clock()
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
            clock.total = time.perf_counter() - start
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

    def _frames(self, clock: _Clock) -> Iterator[FrameResult]:
        pending = dict(self.labels.frames)
        started = False
        with closing(cast(Any, ahead(iter(self.video)))) as frames:
            for frame, seconds in frames:
                clock.decode += seconds
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

    def _one(self, frame: Frame, label: Label | None, clock: _Clock) -> FrameResult:
        start = time.perf_counter()
        image = torch.from_numpy(np.ascontiguousarray(frame.image)).permute(2, 0, 1)  # (3, H, W)
        nodes = self._engine.encode(resize_image(image, self.protocol.size))
        self._wait()
        encoded = time.perf_counter()
        clock.encode += encoded - start
        step = None
        if label is None or (self._task.partial and frame.index != self.labels.first):
            step = self._engine.step(nodes)
            self._wait()
        read = time.perf_counter()
        clock.readout += read - encoded
        arrived = None if step is None else self._task.decode(step.labels, step.confidence)
        if label is not None:
            self._engine.seed(nodes, self._task.encode(label, None if step is None else step.labels))
            arrived = self._task.given(label, arrived)
        clock.labels += time.perf_counter() - read
        assert arrived is not None
        return FrameResult(
            frame.index,
            frame.name,
            frame.time,
            frame.image,
            arrived.masks,
            arrived.keypoints,
            arrived.boxes,
            arrived.texture,
            arrived.confidence,
            label is not None,
        )

    def _wait(self) -> None:
        """Let the GPU finish, so that the clock measures the right stage."""
        if self._engine.device.type == "cuda":
            torch.cuda.synchronize(self._engine.device)

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
        self, writer: ResultWriter | None, clock: _Clock, count: int, status: str, trouble: str | None
    ) -> None:
        def head() -> dict[str, Any]:
            seconds = {key: round(value, 4) for key, value in asdict(clock).items()}
            if writer is not None:
                seconds |= {key: round(value, 4) for key, value in writer.seconds.items()}
            speed = round(count / clock.total, 3) if clock.total > 0 else None
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
                "model": {"name": self.model.name, "sha256": self.model.sha256, "stride": self.model.stride},
                "protocol": asdict(self.protocol),
                **self._settings,
                "frames_done": count,
                "least_sure": [
                    {"name": name, "frame": frame, "confidence": round(confidence, 4)}
                    for name, (confidence, frame) in sorted(self._doubts.items(), key=lambda item: item[1])
                ],
                "frames_per_second": speed,
                "seconds": seconds,
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


def propagate(
    video: str | Path,
    labels: str | Path | NDArray[np.generic] | Mapping[Any, Any],
    *,
    model: str | Path | Model = "default",
    kind: Kind | Literal["auto"] = "auto",
    protocol: str | Protocol | None = None,
    out: str | Path | None = None,
    overlay: bool = True,
    overwrite: bool = False,
    adapt: int = 0,
    save_adapted: str | Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    seed: int = 0,
    tile: tuple[int, int] | None = None,
    **knobs: Unpack[Knobs],
) -> Propagation:
    """Carry the labels of a frame to all the frames after it.

    Everything is checked here, the work is done while the result is iterated over (or by its `run()`).

    Args:
        video: a video file or a folder of frames.
        labels: a mask, part map or painted RGBA texture (PNG) for frame 0; a JSON or CSV of keypoints or
            boxes; a folder of masks
            named like the frames they label; an array or dict of the same (see `formats.labels.read_labels`). A later
            labelled frame corrects: from there on its labels are carried. Frames before the first labelled one
            are left out.
        model: "default", the path of a checkpoint, or a Model.
        kind: what the labels are, "auto" tells by the file.
        protocol: name of published settings (`retrace.PROTOCOLS`), a Protocol, or None for the default.
        out: folder to write masks, keypoints, boxes or textures, an overlay video and `result.json` into.
        overlay: write `overlay.mp4`.
        overwrite: replace what another run left in `out`.
        adapt: self-supervised training steps on this very video first.
        save_adapted: file (.safetensors) for the adapted weights.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        dtype: of features, "float32", "bfloat16" or "float16".
        seed: of the adaptation.
        tile: target nodes done at once (rows, columns), the bound on memory; None chooses.
        **knobs: changes to the protocol, see `Knobs`.

    Returns: Propagation, an iterable of FrameResult.

    Errors: RetraceError for an unusable video, label, checkpoint or output folder; UsageError for settings
        that do not exist.
    """
    chosen_device = choose_device(device)
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is unknown. Choose from {', '.join(DTYPES)}.")
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed is {seed}; expected a whole number from 0 to 2^63 - 1.")
    if adapt < 0:
        raise UsageError(f"adapt is {adapt}; expected a number of training steps, 0 for none.")
    if save_adapted is not None and (adapt == 0 or Path(save_adapted).suffix != ".safetensors"):
        raise UsageError("save_adapted needs adapt above 0 and a file name that ends in .safetensors.")
    resolved = resolve_protocol(protocol, knobs)
    reader = open_video(video)
    if protocol is None and not knobs.get("size") and knobs.get("size") != 0:
        shorter = min(reader.height, reader.width)
        resolved = replace(resolved, size=DEFAULT_SHORT_SIDE if shorter > DEFAULT_SHORT_SIDE else None)
    label_set = read_labels(
        labels,
        size=(reader.height, reader.width),
        num_frames=reader.num_frames,
        names=[file.stem for file in frame_files(reader.path)] if reader.names else None,
        kind=kind,
    )
    if label_set.kind == "texture" and len(label_set.frames) > 1:
        raise RetraceError("A texture is painted on one frame; give one image.")
    loaded = model if isinstance(model, Model) else load(model)
    settings: dict[str, Any] = {
        "device": str(chosen_device),
        "dtype": dtype,
        "seed": seed,
        "adapt": adapt,
        "threads": torch.get_num_threads(),
    }
    folder = None
    if out is not None:
        fingerprint = {
            "retrace version": __version__,
            "video": video_identity(reader.path),
            "labels": f"{label_set.kind} {label_set.sha256[:16]}",
            "model": f"{loaded.name} {loaded.sha256[:16]}",
            "protocol": json.dumps(asdict(resolved)),
            "adapt": str(adapt),
            "seed": str(seed),
            "dtype": dtype,
            "overlay": "yes" if overlay else "no",
        }
        folder = RunFolder(out, fingerprint, overwrite=overwrite)
    try:
        if adapt > 0 and (folder is None or folder.finished is None):
            from retrace.training.adapt import adapt_model

            loaded = adapt_model(loaded, reader.path, adapt, seed=seed, device=chosen_device)
            if save_adapted is not None:
                save(loaded, save_adapted)
        return Propagation(
            reader,
            label_set,
            loaded,
            resolved,
            settings=settings,
            folder=folder,
            overlay=overlay,
            tile=tile,
        )
    except BaseException:
        if folder is not None:
            folder.release()
        raise


def resolve_protocol(protocol: str | Protocol | None, knobs: Knobs) -> Protocol:
    """A protocol with knobs applied.

    Errors: UsageError for a name or value that does not exist.
    """
    if isinstance(protocol, Protocol):
        base = protocol
    elif protocol is None or protocol in PROTOCOLS:
        base = PROTOCOLS[protocol or "default"]
    else:
        raise UsageError(f"Protocol {protocol!r} is unknown. Choose from {', '.join(PROTOCOLS)}.")
    given = {key: value for key, value in knobs.items() if value is not None}
    unknown = set(given) - set(Knobs.__annotations__)
    if unknown:
        raise UsageError(
            f"Knob {sorted(unknown)[0]!r} is unknown. Choose from {', '.join(Knobs.__annotations__)}."
        )
    if "label_seed" in given:
        given["seed"] = given.pop("label_seed")  # `seed` is the random seed in the verb's signature
    for name in ("radius", "top_k"):
        if given.get(name) == 0:
            given[name] = None  # 0 is how a person says "none"
    size = given.get("size")
    if size == 0:
        given["size"] = None
    elif size is not None and min(size if isinstance(size, tuple) else (cast(int, size),)) < 16:
        raise UsageError(f"size is {size}; expected at least 16 pixels, or 0 for the video's own size.")
    try:
        rules = replace(base.rules, **cast(Any, {k: v for k, v in given.items() if k in _RULES}))
        return replace(base, rules=rules, **cast(Any, {k: v for k, v in given.items() if k not in _RULES}))
    except ValueError as error:
        raise UsageError(f"{error}. Correct that setting of the protocol.") from error


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


def _task(labels: LabelSet, geometry: Geometry, protocol: Protocol) -> _Task:
    first = labels.frames[labels.first]
    if isinstance(first, Mask):
        return _mask_task([cast(Mask, m) for m in labels.frames.values()], geometry, protocol)
    if isinstance(first, Keypoints):
        return _keypoint_task(first, geometry)
    if isinstance(first, Boxes):
        return _box_task(first, geometry)
    return _texture_task(first, geometry)


def _mask_task(masks: Sequence[Mask], geometry: Geometry, protocol: Protocol) -> _Task:
    ids = sorted({i for mask in masks for i in mask.objects})
    codec = MaskCodec(ids, geometry, seed=protocol.seed, output=protocol.output)

    def given(label: Label, arrived: FrameLabels | None) -> FrameLabels:
        mask = cast(Mask, label)
        there = set(mask.objects)
        return FrameLabels(masks=mask.ids, confidence={str(i): float(i in there) for i in ids})

    return _Task(codec.names, (), lambda label, _: codec.encode(cast(Mask, label).ids), codec.decode, given)


def _keypoint_task(first: Keypoints, geometry: Geometry) -> _Task:
    codec = KeypointCodec(first.names, geometry)

    def given(label: Label, arrived: FrameLabels | None) -> FrameLabels:
        points = cast(Keypoints, label)
        xy = _fill(points.xy, points.visible, None if arrived is None else arrived.keypoints)
        return FrameLabels(keypoints=xy, confidence=_sure(points.names, points.visible, arrived))

    def encode(label: Label, arrived: Tensor | None) -> Tensor:
        points = cast(Keypoints, label)
        return codec.encode(np.where(points.visible[:, None], points.xy, np.float32(np.nan)), arrived)

    return _Task(codec.names, first.skeleton, encode, codec.decode, given, partial=True)


def _box_task(first: Boxes, geometry: Geometry) -> _Task:
    codec = BoxCodec(first.names, geometry)

    def given(label: Label, arrived: FrameLabels | None) -> FrameLabels:
        boxes = cast(Boxes, label)
        there = np.isfinite(boxes.xywh[:, 0])
        xywh = _fill(boxes.xywh, there, None if arrived is None else arrived.boxes)
        return FrameLabels(boxes=xywh, confidence=_sure(boxes.names, there, arrived))

    return _Task(
        codec.names,
        (),
        lambda label, arrived: codec.encode(cast(Boxes, label).xywh, arrived),
        codec.decode,
        given,
        partial=True,
    )


def _texture_task(first: Texture, geometry: Geometry) -> _Task:
    codec = TextureCodec(first.rgba, geometry)
    return _Task(
        list(codec.names),
        (),
        lambda label, _: codec.encode(cast(Texture, label).rgba),
        codec.decode,
        lambda label, _: FrameLabels(texture=cast(Texture, label).rgba, confidence={"texture": 1.0}),
    )


def _fill(
    given: NDArray[np.float32], there: NDArray[np.bool_], arrived: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Rows of `given` where the person labelled, else those that arrived, else NaN."""
    others = np.full_like(given, np.nan) if arrived is None else arrived
    return np.where(there[:, None], given, others)


def _sure(names: Sequence[str], there: NDArray[np.bool_], arrived: FrameLabels | None) -> dict[str, float]:
    """1 for what the person labelled, the readout's confidence for the rest, 0 when nothing arrived."""
    others = {} if arrived is None else arrived.confidence
    return {
        name: 1.0 if labelled else others.get(name, 0.0) for name, labelled in zip(names, there, strict=True)
    }
