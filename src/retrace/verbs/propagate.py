"""Carry the labels of one frame (or of a few) through a video: the library function behind `retrace propagate`."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
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
from retrace.propagation.baselines import BASELINES, stand_in
from retrace.propagation.codecs import BoxCodec, FrameLabels, Geometry, TextureCodec
from retrace.propagation.engine import Propagator, read_as, resize_image
from retrace.propagation.protocols import PROTOCOLS, Protocol, for_coordinates
from retrace.verbs.labelled_run import FrameResult, LabelledRun, filled, sureness
from retrace.verbs.output import RunFolder, video_identity
from retrace.video.decode import Frame, VideoReader, open_video
from retrace.walk.readout import Rules

DEFAULT_SHORT_SIDE = 480
"""Without a named protocol, larger videos are worked on at this short side, pixels; smaller ones at their own size."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ROUND_TRIP = 24
"""Frames over which an adapted encoder is compared with what it was."""
CLEARLY = 0.02
"""By how much more of the label it must bring back: less was chance on real clips (docs/results.md)."""
log = logging.getLogger(__name__)
_RULES = tuple(rule.name for rule in fields(Rules))


class Knobs(TypedDict, total=False):
    """What may be changed in a protocol; a knob that is left out or None keeps the protocol's value.

    The names are those of `Protocol` and `Rules`. `radius`, `top_k` and `size` take 0 for "no window", "keep
    all" and "the video's own size". `label_seed` is the protocol's `seed`.
    """

    num_context: int | None
    recent: str | None
    add_first: bool | None
    window_first: bool | None
    reread_first: bool | None
    temperature: float | None
    top_k: int | None
    shape: str | None
    radius: float | None
    joint: bool | None
    softmax: str | None
    keep_ties: bool | None
    subcell: bool | None
    normalise_features: bool | None
    whiten: float | None
    feed_back: str | None
    output: str | None
    label_seed: str | None
    seed_at: str | None
    read_at: str | None
    min_pixels: int | None
    keypoints: str | None
    size: int | tuple[int, int] | None
    detail: str | None


@dataclass
class _Task:
    """A label kind's way to the grid and back; `encode` takes the label and what arrived on a corrected frame."""

    names: list[str]
    skeleton: tuple[tuple[int, int], ...]
    encode: Callable[[Label, Tensor | None], Tensor]
    decode: Callable[[Tensor, Tensor], FrameLabels]
    given: Callable[[Label, FrameLabels | None], FrameLabels]
    partial: bool = field(default=False)


class Propagation(LabelledRun):
    """Frames with their labels carried by the readout; see LabelledRun for how it runs and what it holds.

    Attributes:
        kind: "mask", "parts", "keypoints", "boxes" or "texture".
        names: of objects (ids as text), keypoints or boxes.
        model: the encoder.
        protocol: with all knobs applied.
    """

    stages: tuple[str, ...] = ("decode", "encode", "readout", "labels")

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
        self.protocol = protocol
        self._outlines = labels.kind in ("mask", "parts")
        geometry, described = self._prepare((video.height, video.width), model, settings, tile)
        self._task = _task(labels, geometry, protocol)
        super().__init__(
            video,
            labels,
            model,
            names=self._task.names,
            skeleton=self._task.skeleton,
            settings={**described, **settings},
            folder=folder,
            overlay=overlay,
        )

    def _prepare(
        self, frame: tuple[int, int], model: Model, settings: Mapping[str, Any], tile: tuple[int, int] | None
    ) -> tuple[Geometry, dict[str, Any]]:
        """Make what carries labels over frames of (H, W): their geometry on its grid, what `result.json` says of it."""
        resized = resize_image(torch.empty(3, *frame, dtype=torch.uint8), self.protocol.size)
        network = (resized.shape[1], resized.shape[2])
        self.protocol = self.protocol.seen_at(*network, model, outlines=self._outlines)
        self._engine = Propagator(
            model, self.protocol, device=settings["device"], dtype=DTYPES[settings["dtype"]], tile=tile
        )
        padding = model.padding(*network)
        geometry = Geometry(
            frame,
            network,
            self._engine.grid(*network),
            self._engine.model.stride,
            self._engine.model.origin,
            padding,
        )
        padded = {"padding": dict(zip(("bottom", "right"), padding, strict=True))} if any(padding) else {}
        return geometry, {"protocol": asdict(self.protocol), **padded}

    def _one(self, frame: Frame, label: Label | None, clock: dict[str, float]) -> FrameResult:
        start = time.perf_counter()
        nodes = self._nodes(frame)
        self._wait()
        encoded = time.perf_counter()
        clock["encode"] += encoded - start
        step = None
        if label is None or (self._task.partial and frame.index != self.labels.first):
            step = self._engine.step(nodes)
            self._wait()
        read = time.perf_counter()
        clock["readout"] += read - encoded
        arrived = None if step is None else self._task.decode(step.labels, step.confidence)
        if label is not None:
            self._engine.seed(nodes, self._task.encode(label, None if step is None else step.labels))
            arrived = self._task.given(label, arrived)
        clock["labels"] += time.perf_counter() - read
        assert arrived is not None
        return _result(frame, arrived, label)

    def _nodes(self, frame: Frame) -> Tensor:
        """(h, w, C) of a frame at the protocol's size."""
        image = torch.from_numpy(np.ascontiguousarray(frame.image)).permute(2, 0, 1)  # (3, H, W)
        return self._engine.encode(resize_image(image, self.protocol.size))

    def round_trip(self, frames: int = ROUND_TRIP) -> float:
        """How much of the first label is left after carrying it forwards over a few frames and back to where it was.

        On the last frame what has arrived is the label of a new propagation, backwards over the same frames: the first
        label is never looked at again. A label that sticks to its place comes back too, so this compares two states of
        one encoder and says nothing about an encoder by itself.

        Args:
            frames: at most that many frames from the first labelled one on; their nodes are held in memory.

        Returns: intersection over union of the soft labels as they left and as they came back, the background of masks
            left out, mean over objects, keypoints or boxes; 1.0 where there are no further frames.
        """
        nodes: list[Tensor] = []
        first = self.labels.first
        for frame in islice(self.video, first, first + frames):
            nodes.append(self._nodes(frame))
        if len(nodes) < 2:
            return 1.0
        left = self._task.encode(self.labels.frames[first], None)  # (L, h, w)
        carried = left
        for way in (nodes, nodes[::-1]):
            self._engine.seed(way[0], carried)
            for there in way[1:]:
                carried = self._engine.step(there).labels
        carried = carried.to(left.device)
        if self.labels.kind in ("mask", "parts"):
            left, carried = left[1:], carried[1:]
        union = torch.maximum(left, carried).sum((1, 2))
        shared = torch.minimum(left, carried).sum((1, 2)) / union.clamp_min(1e-12)
        return float(shared[union > 0].mean()) if bool((union > 0).any()) else 1.0

    def _wait(self) -> None:
        """Let the GPU finish, so that the clock measures the right stage."""
        if self._engine.device.type == "cuda":
            torch.cuda.synchronize(self._engine.device)


class BaselinePropagation(Propagation):
    """Frames with their labels carried by a baseline: no encoder, no protocol, frames at their own size."""

    stages = ("decode", "carry")

    def _prepare(
        self, frame: tuple[int, int], model: Model, settings: Mapping[str, Any], tile: tuple[int, int] | None
    ) -> tuple[Geometry, dict[str, Any]]:
        return Geometry(frame, frame, frame, 1), {"protocol": {"name": "none"}}

    def _one(self, frame: Frame, label: Label | None, clock: dict[str, float]) -> FrameResult:
        begin = time.perf_counter()
        image = np.ascontiguousarray(frame.image)
        first = label is not None and frame.index == self.labels.first
        if first:
            self._carrier = BASELINES[self.model.name]()
        arrived = None
        if label is None or (self._task.partial and not first):
            arrived = self._sure(self._carrier.step(image))
        if label is not None:
            arrived = self._task.given(label, arrived)
            self._carrier.start(image, arrived)
        clock["carry"] += time.perf_counter() - begin
        assert arrived is not None
        return _result(frame, arrived, label)

    def _sure(self, carried: FrameLabels) -> FrameLabels:
        """A baseline does not doubt: 1 for what is there, 0 for what is not."""
        if carried.masks is not None:
            there = np.isin([int(name) for name in self.names], carried.masks)
        elif carried.texture is not None:
            there = np.array([carried.texture[..., 3].any()])
        else:
            places = carried.keypoints if carried.keypoints is not None else carried.boxes
            assert places is not None
            there = np.isfinite(places[:, 0])
        return replace(carried, confidence=dict(zip(self.names, there.astype(float).tolist(), strict=True)))


def _result(frame: Frame, labels: FrameLabels, given: Label | None) -> FrameResult:
    return FrameResult(
        frame.index,
        frame.name,
        frame.time,
        frame.image,
        labels.masks,
        labels.keypoints,
        labels.boxes,
        labels.texture,
        labels.confidence,
        given is not None,
    )


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
        model: what `retrace.load` takes (a name, a checkpoint, with options behind commas), or a Model; or a baseline
            that carries labels without an encoder and reads nothing of the protocol: "copy", "flow:dis",
            "flow:farneback".
        kind: what the labels are, "auto" tells by the file.
        protocol: name of published settings (`retrace.PROTOCOLS`), a Protocol, or None for the default.
        out: folder to write masks, keypoints, boxes or textures, an overlay video and `result.json` into.
        overlay: write `overlay.mp4`.
        overwrite: replace what another run left in `out`.
        adapt: self-supervised training steps on this very video first. The adapted encoder is used where clearly more
            of the label survives the way over the first frames and back (`Propagation.round_trip`), else the encoder
            as it was; `result.json` says what came of it.
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
    if label_set.kind in ("boxes", "texture"):
        resolved = for_coordinates(resolved)
    baseline = model if isinstance(model, str) and model in BASELINES else None
    if baseline is not None and adapt > 0:
        raise UsageError(f"{baseline} has nothing to adapt. Leave out --adapt, or take an encoder.")
    loaded = stand_in(baseline) if baseline else model if isinstance(model, Model) else load(model)
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
        folder = RunFolder(out, fingerprint, verb="propagate", overwrite=overwrite)
    try:
        if adapt > 0 and (folder is None or folder.finished is None):
            from retrace.training.adapt import adapt_model

            if resolved.detail != "by_size":
                read_as(
                    resolved.detail, loaded
                )  # tells of an encoder that cannot be read so, before it is trained
            adapted = adapt_model(loaded, reader.path, adapt, seed=seed, device=chosen_device)
            if save_adapted is not None:
                save(adapted, save_adapted)
            before, after = (
                Propagation(
                    reader,
                    label_set,
                    either,
                    resolved,
                    settings=settings,
                    folder=None,
                    overlay=False,
                    tile=tile,
                ).round_trip()
                for either in (loaded, adapted)
            )
            settings["round_trip"] = {"as it was": before, "adapted": after}
            if after > before + CLEARLY:
                loaded = adapted
            else:
                log.warning(
                    "Adapting does not clearly help this video: carried over %d frames and back, %.3f of the label is "
                    "left with the adapted encoder, %.3f with the encoder as it was, which is used.",
                    ROUND_TRIP,
                    after,
                    before,
                )
        kind_of_run = BaselinePropagation if baseline else Propagation
        return kind_of_run(
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


def _task(labels: LabelSet, geometry: Geometry, protocol: Protocol) -> _Task:
    first = labels.frames[labels.first]
    if isinstance(first, Mask):
        return _mask_task([cast(Mask, m) for m in labels.frames.values()], geometry, protocol)
    if isinstance(first, Keypoints):
        return _keypoint_task(first, geometry, protocol)
    if isinstance(first, Boxes):
        return _box_task(first, geometry)
    return _texture_task(first, geometry)


def _mask_task(masks: Sequence[Mask], geometry: Geometry, protocol: Protocol) -> _Task:
    ids = sorted({i for mask in masks for i in mask.objects})
    codec = protocol.mask_codec(ids, geometry)

    def given(label: Label, arrived: FrameLabels | None) -> FrameLabels:
        mask = cast(Mask, label)
        there = set(mask.objects)
        return FrameLabels(masks=mask.ids, confidence={str(i): float(i in there) for i in ids})

    return _Task(codec.names, (), lambda label, _: codec.encode(cast(Mask, label).ids), codec.decode, given)


def _keypoint_task(first: Keypoints, geometry: Geometry, protocol: Protocol) -> _Task:
    codec = protocol.keypoint_codec(first.names, geometry)

    def given(label: Label, arrived: FrameLabels | None) -> FrameLabels:
        points = cast(Keypoints, label)
        xy = filled(points.xy, points.visible, None if arrived is None else arrived.keypoints)
        return FrameLabels(keypoints=xy, confidence=sureness(points.names, points.visible, arrived))

    def encode(label: Label, arrived: Tensor | None) -> Tensor:
        points = cast(Keypoints, label)
        return codec.encode(np.where(points.visible[:, None], points.xy, np.float32(np.nan)), arrived)

    return _Task(codec.names, first.skeleton, encode, codec.decode, given, partial=True)


def _box_task(first: Boxes, geometry: Geometry) -> _Task:
    codec = BoxCodec(first.names, geometry)

    def given(label: Label, arrived: FrameLabels | None) -> FrameLabels:
        boxes = cast(Boxes, label)
        there = np.isfinite(boxes.xywh[:, 0])
        xywh = filled(boxes.xywh, there, None if arrived is None else arrived.boxes)
        return FrameLabels(boxes=xywh, confidence=sureness(boxes.names, there, arrived))

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
