"""Ways to carry labels through a video, all alike from outside: the readout of an encoder, and baselines.

Boxes are carried by the baselines here and by `tracking.carrier`.

A carrier is handed frames one after the other and the labels that are given in some of them, and hands back labels
of every frame. Objects may begin in any frame. What it hands back is a function that finishes the frame's labels
(enlarging and choosing), so that another thread can do that part.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import tee
from typing import Any, Literal, Protocol, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrace.encoders.model import Model
from retrace.propagation import protocols
from retrace.propagation.baselines import BASELINES
from retrace.propagation.codecs import (
    CoordinateCodec,
    Floats,
    FrameLabels,
    Geometry,
    KeypointCodec,
    MaskCodec,
    TextureCodec,
)
from retrace.propagation.engine import Propagator, Step, resize_image

Pixels = NDArray[np.uint8]
Ids = NDArray[np.uint8]
Paint = NDArray[np.uint8]
Places = NDArray[np.float32]
Rects = NDArray[np.floating]
Value = TypeVar("Value")


@dataclass(frozen=True)
class GivenMasks:
    """Masks to carry, as `Carrier.masks` takes them."""

    given: Mapping[int, Ids]


@dataclass(frozen=True)
class GivenPoints:
    """Points to carry, as `Carrier.points` takes them."""

    given: Mapping[int, Places]
    size: tuple[int, int]
    until: int | None = None
    """Last frame in which they are asked for; later they are NaN. None: to the end."""


Given = GivenMasks | GivenPoints


class Carrier(Protocol):
    """Carries masks, points and paint, and says where pixels come from."""

    name: str

    def masks(self, frames: Iterable[Pixels], given: Mapping[int, Ids]) -> Iterator[Callable[[], Ids]]:
        """Carry masks.

        Args:
            frames: (H', W', 3) RGB, all of one size.
            given: frame -> ids (H, W) of the objects that begin there, 0 elsewhere; H, W may differ from the frames'.

        Yields: for every frame a function that gives its ids (H, W); given ids stand as they are.
        """

    def points(
        self, frames: Iterable[Pixels], given: Mapping[int, Places], size: tuple[int, int]
    ) -> Iterator[Callable[[], Places]]:
        """Carry points.

        Args:
            frames: (H', W', 3) RGB, all of one size.
            given: frame -> (K, 2) x, y in pixels of a picture of `size`; NaN for points that do not begin there.
            size: (H, W) of that picture.

        Yields: for every frame a function that gives (K, 2) float32; NaN where not (yet) there.
        """

    def together(
        self, frames: Iterable[Pixels], given: Sequence[Given]
    ) -> Iterator[Callable[[], tuple[Any, ...]]]:
        """Carry labels of several kinds in one pass over the frames.

        Args:
            frames: (H', W', 3) RGB, all of one size.
            given: the kinds, at least one.

        Yields: for every frame a function that gives the labels of every kind, each as `masks` or `points` alone would.
        """

    def flows(
        self, frames: Iterable[Pixels], gaps: Sequence[int], size: tuple[int, int], *, smooth: bool = False
    ) -> Iterator[Callable[[], dict[int, Floats]]]:
        """Say where the pixels of every frame are in earlier ones.

        Args:
            frames: (H', W', 3) RGB, all of one size.
            gaps: how many frames back, each at least 1.
            size: (H, W) of the picture that pixels are counted in.
            smooth: average displacements over 3 x 3 cells, where there are cells.

        Yields: for every frame t a function that gives, for each gap that does not lead before the first frame, the
            displacement (H, W, 2) float32, x and y in pixels, from the pixels of frame t to their places in frame
            t - gap.
        """

    def textures(self, frames: Iterable[Pixels], given: Paint) -> Iterator[Callable[[], Paint]]:
        """Carry a texture painted on the first frame.

        Args:
            frames: (H', W', 3) RGB, all of one size.
            given: (H, W, 4) RGBA, straight alpha; H, W may differ from the frames'.

        Yields: for every frame a function that gives the texture as it lies there, (H, W, 4); the first as given.
        """


class BoxCarrier(Protocol):
    """Carries boxes."""

    name: str

    def boxes(self, frames: Iterable[Pixels], given: Mapping[int, Rects]) -> Iterator[Callable[[], Rects]]:
        """Carry boxes.

        Args:
            frames: (H, W, 3) RGB, all of one size.
            given: frame -> (N, 4) left, top, width, height in pixels; NaN for boxes that do not begin there.

        Yields: for every frame a function that gives (N, 4); NaN where not (yet) there.
        """


class Without:
    """No encoder: labels are copied, or ride on optical flow; see `propagation.baselines`.

    The flow is estimated at the size of the labels, for boxes at that of the frames.

    Args:
        name: a key of `BASELINES`.

    Errors: KeyError for another name.
    """

    def __init__(self, name: str) -> None:
        """See the class."""
        self.name = name
        self._make = BASELINES[name]

    def masks(self, frames: Iterable[Pixels], given: Mapping[int, Ids]) -> Iterator[Callable[[], Ids]]:
        """See Carrier."""
        size = next(iter(given.values())).shape
        baseline = self._make()
        held: Ids | None = None
        for index, image in enumerate(frames):
            fitted = _at(image, size)
            if held is not None:
                held = baseline.step(fitted).masks
                assert held is not None
            if (new := given.get(index)) is not None:
                held = pasted(held, new)
                baseline.start(fitted, FrameLabels(masks=held))
            yield _constant(np.zeros(size, np.uint8) if held is None else held)

    def points(
        self, frames: Iterable[Pixels], given: Mapping[int, Places], size: tuple[int, int]
    ) -> Iterator[Callable[[], Places]]:
        """See Carrier."""
        return self._rows((_at(image, size) for image in frames), given, "keypoints")

    def boxes(self, frames: Iterable[Pixels], given: Mapping[int, Rects]) -> Iterator[Callable[[], Rects]]:
        """See BoxCarrier."""
        return self._rows(frames, given, "boxes")

    def together(
        self, frames: Iterable[Pixels], given: Sequence[Given]
    ) -> Iterator[Callable[[], tuple[Any, ...]]]:
        """See Carrier. Each kind has a baseline of its own."""
        kinds = [
            self._alone(shared, kind) for shared, kind in zip(tee(frames, len(given)), given, strict=True)
        ]
        for finish in zip(*kinds, strict=True):
            yield _all(finish)

    def _alone(self, frames: Iterable[Pixels], kind: Given) -> Iterator[Callable[[], Any]]:
        if isinstance(kind, GivenMasks):
            return self.masks(frames, kind.given)
        fitted = (_at(image, kind.size) for image in frames)
        return self._rows(fitted, kind.given, "keypoints", until=kind.until)

    def _rows(
        self,
        frames: Iterable[Pixels],
        given: Mapping[int, Rects],
        kind: Literal["keypoints", "boxes"],
        *,
        until: int | None = None,
    ) -> Iterator[Callable[[], Places]]:
        """Labels that are rows of numbers; a row is NaN until it is given, and after frame `until`."""
        baseline = self._make()
        nowhere = np.full_like(next(iter(given.values())), np.nan, dtype=np.float32)
        held: Places | None = None
        for index, image in enumerate(frames):
            if until is not None and index > until:
                yield _constant(nowhere)
                continue
            if held is not None:
                held = getattr(baseline.step(image), kind)
                assert held is not None
            if (new := given.get(index)) is not None:
                held = np.where(np.isfinite(new), new, nowhere if held is None else held).astype(np.float32)
                baseline.start(image, _labels(kind, held))
            yield _constant(nowhere if held is None else held)

    def flows(
        self, frames: Iterable[Pixels], gaps: Sequence[int], size: tuple[int, int], *, smooth: bool = False
    ) -> Iterator[Callable[[], dict[int, Floats]]]:
        """See Carrier."""
        baseline = self._make()
        held: deque[Pixels] = deque(maxlen=max(gaps))  # the last frame on the right
        for image in frames:
            fitted = _at(image, size)
            yield _constant({gap: baseline.flow(fitted, held[-gap]) for gap in gaps if gap <= len(held)})
            held.append(fitted)

    def textures(self, frames: Iterable[Pixels], given: Paint) -> Iterator[Callable[[], Paint]]:
        """See Carrier."""
        baseline = self._make()
        for index, image in enumerate(frames):
            fitted = _at(image, given.shape[:2])
            if index == 0:
                baseline.start(fitted, FrameLabels(texture=given))
                yield _constant(given)
            else:
                found = baseline.step(fitted).texture
                assert found is not None
                yield _constant(found)


class Readout:
    """Labels are read from earlier frames by an encoder's affinities: the propagation engine.

    Objects that begin later are carried by a walk of their own from their first frame; features are shared. The
    background of several walks is where all of them say background (the least of theirs).

    Kinds that are carried together are read alike: where the protocol's `detail` goes by size, masks decide it.

    Args:
        model: the encoder.
        protocol: context, readout and label rules, and the size that frames are brought to.
        device: where features and readout live.
        dtype: of features.
        tile: target nodes done at once, see `walk.readout.readout`.
    """

    def __init__(
        self,
        model: Model,
        protocol: protocols.Protocol,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        tile: tuple[int, int] | None = None,
    ) -> None:
        """See the class."""
        self.name = model.name
        self.protocol = protocol
        self._model = model
        self._begin = partial(Propagator, device=device, dtype=dtype, tile=tile)
        self._engine = self._begin(
            model, replace(protocol, detail="plain")
        )  # until the size of frames is known

    def masks(self, frames: Iterable[Pixels], given: Mapping[int, Ids]) -> Iterator[Callable[[], Ids]]:
        """See Carrier."""
        return (_only(finish) for finish in self.together(frames, [GivenMasks(given)]))

    def points(
        self, frames: Iterable[Pixels], given: Mapping[int, Places], size: tuple[int, int]
    ) -> Iterator[Callable[[], Places]]:
        """See Carrier."""
        return (_only(finish) for finish in self.together(frames, [GivenPoints(given, size)]))

    def together(
        self, frames: Iterable[Pixels], given: Sequence[Given]
    ) -> Iterator[Callable[[], tuple[Any, ...]]]:
        """See Carrier. What begins in the same frame, and is asked for as long, is read at once."""
        walks: list[_Walk] = []
        sizes = [_size_of(kind) for kind in given]
        outlines = any(isinstance(kind, GivenMasks) for kind in given)
        geometry: list[Geometry] = []
        for index, image in enumerate(frames):
            nodes, network = self._nodes(image, outlines=outlines)
            geometry = geometry or [self._geometry(size, network) for size in sizes]
            walks = [walk for walk in walks if walk.until is None or index <= walk.until]
            found: list[list[tuple[_Part, Step]]] = [[] for _ in given]
            for walk in walks:
                steps = walk.engine.steps(nodes, [part.channels for part in walk.parts])
                for part, step in zip(walk.parts, steps, strict=True):
                    found[part.kind].append((part, step))
            yield _all(
                [
                    self._finish(kind, here, index, places)
                    for kind, here, places in zip(given, found, geometry, strict=True)
                ]
            )
            walks += self._begun(nodes, given, index, geometry)

    def _begun(
        self, nodes: Tensor, given: Sequence[Given], index: int, geometry: Sequence[Geometry]
    ) -> list["_Walk"]:
        """The walks of what begins in a frame: one for all kinds that are asked for as long."""
        begun: dict[int | None, list[tuple[_Part, Tensor]]] = {}
        for number, (kind, places) in enumerate(zip(given, geometry, strict=True)):
            if isinstance(kind, GivenMasks):
                ids = kind.given.get(index)
                if ids is not None and ids.any():
                    masks = self.protocol.mask_codec(_ids_in(ids), places)
                    labels = masks.encode(ids)
                    part = _Part(number, len(labels), masks)
                    begun.setdefault(None, []).append((part, labels))
            else:
                xy = kind.given.get(index)
                if xy is not None and (rows := np.flatnonzero(np.isfinite(xy[:, 0]))).size:
                    points = self.protocol.keypoint_codec([str(k) for k in rows], places)
                    labels = points.encode(xy[rows])
                    part = _Part(number, len(labels), points, rows)
                    begun.setdefault(kind.until, []).append((part, labels))
        walks = []
        for until, parts in begun.items():
            engine = copy.copy(self._engine)
            engine.seed(nodes, torch.cat([labels for _, labels in parts]))
            walks.append(_Walk(engine, [part for part, _ in parts], until))
        return walks

    def _finish(
        self, kind: Given, found: list[tuple["_Part", Step]], index: int, geometry: Geometry
    ) -> Callable[[], Any]:
        """What finishes the labels of a kind, from all walks that carry some of it."""
        if isinstance(kind, GivenPoints):
            return _placed(found, kind.given.get(index), len(next(iter(kind.given.values()))))
        codec, step = self._merged(found, geometry) if len(found) > 1 else _single(found)
        return _finished(codec, step, kind.given.get(index), geometry.frame)

    def flows(
        self, frames: Iterable[Pixels], gaps: Sequence[int], size: tuple[int, int], *, smooth: bool = False
    ) -> Iterator[Callable[[], dict[int, Floats]]]:
        """See Carrier. Coordinates of the earlier frame are read as labels, under `protocols.between_two`."""
        walk: Propagator | None = None
        held: deque[Tensor] = deque(maxlen=max(gaps))  # the last frame on the right
        geometry: Geometry | None = None
        for image in frames:
            nodes, geometry = self._encode(image, size, geometry)
            if walk is None:
                walk = copy.copy(self._engine)
                walk.protocol = protocols.between_two(walk.protocol)
            codec = CoordinateCodec(geometry, smooth=smooth)
            read = {}
            for gap in gaps:
                if gap <= len(held):
                    walk.seed(held[-gap], codec.encode())
                    read[gap] = walk.step(nodes).labels
            yield _displaced(codec, read)
            held.append(nodes)

    def textures(self, frames: Iterable[Pixels], given: Paint) -> Iterator[Callable[[], Paint]]:
        """See Carrier. Coordinates of the first frame are carried, under `protocols.for_coordinates`."""
        walk: Propagator | None = None
        codec: TextureCodec | None = None
        geometry: Geometry | None = None
        for image in frames:
            nodes, geometry = self._encode(image, given.shape[:2], geometry)
            if codec is None or walk is None:
                walk = copy.copy(self._engine)
                walk.protocol = protocols.for_coordinates(walk.protocol)
                codec = TextureCodec(given, geometry)
                walk.seed(nodes, codec.encode(given))
                yield _constant(given)
            else:
                yield _painted(codec, walk.step(nodes))

    def _encode(
        self, image: Pixels, size: tuple[int, ...], geometry: Geometry | None
    ) -> tuple[Tensor, Geometry]:
        """Nodes of a frame, and where they are on pictures of `size`."""
        nodes, network = self._nodes(image, outlines=False)
        return nodes, geometry or self._geometry(size, network)

    def _nodes(self, image: Pixels, *, outlines: bool) -> tuple[Tensor, tuple[int, int]]:
        """Nodes of a frame, and the size (H, W) that the encoder saw it at."""
        tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)  # (3, H', W')
        small = resize_image(tensor, self.protocol.size)
        network = (small.shape[1], small.shape[2])
        protocol = self.protocol.seen_at(*network, self._model, outlines=outlines)
        if protocol.detail != self._engine.protocol.detail:
            self._engine = self._begin(self._model, protocol)
        return self._engine.encode(small), network

    def _geometry(self, size: tuple[int, ...], network: tuple[int, int]) -> Geometry:
        return Geometry(
            (size[0], size[1]),
            network,
            self._engine.grid(*network),
            self._engine.model.stride,
            self._engine.model.origin,
            self._engine.model.padding(*network),
        )

    def _merged(self, found: list[tuple["_Part", Step]], geometry: Geometry) -> tuple[MaskCodec, Step]:
        """The soft labels of several walks as those of one."""
        steps = [step for _, step in found]
        background = torch.stack([step.labels[0] for step in steps]).amin(0, keepdim=True)
        owners = [int(name) for part, _ in found for name in part.codec.names]
        order = np.argsort(owners)
        objects = torch.cat([step.labels[1:] for step in steps])[torch.from_numpy(order)]
        codec = self.protocol.mask_codec(sorted(owners), geometry)
        confidence = torch.stack([step.confidence for step in steps]).amax(0)
        return codec, Step(torch.cat([background, objects]), confidence)


@dataclass(frozen=True)
class _Part:
    """Labels of one kind in a walk."""

    kind: int
    """Which one."""
    channels: int
    codec: MaskCodec | KeypointCodec
    rows: NDArray[np.intp] | None = None
    """Of points: their rows among all of the kind."""


@dataclass(frozen=True)
class _Walk:
    """Labels that began in the same frame."""

    engine: Propagator
    parts: list[_Part]
    until: int | None
    """Last frame that is asked for."""


def _labels(kind: Literal["keypoints", "boxes"], rows: Places) -> FrameLabels:
    return FrameLabels(keypoints=rows) if kind == "keypoints" else FrameLabels(boxes=rows)


def pasted(held: Ids | None, new: Ids) -> Ids:
    """What is held, and over it what is given."""
    return new if held is None else np.where(new > 0, new, held).astype(np.uint8)


def _ids_in(ids: Ids) -> list[int]:
    return [int(i) for i in np.unique(ids) if i]


def _at(image: Pixels, size: tuple[int, ...]) -> Pixels:
    """A frame at the size (H, W) of the labels."""
    if image.shape[:2] == tuple(size):
        return image
    small = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


def _constant(value: Value) -> Callable[[], Value]:
    return lambda: value


def _all(finish: Iterable[Callable[[], Any]]) -> Callable[[], tuple[Any, ...]]:
    kinds = tuple(finish)
    return lambda: tuple(one() for one in kinds)


def _only(finish: Callable[[], tuple[Any, ...]]) -> Callable[[], Any]:
    return lambda: finish()[0]


def _size_of(kind: Given) -> tuple[int, ...]:
    """(H, W) of the picture that labels of a kind are on."""
    return kind.size if isinstance(kind, GivenPoints) else next(iter(kind.given.values())).shape


def _single(found: list[tuple[_Part, Step]]) -> tuple[MaskCodec | KeypointCodec | None, Step | None]:
    """Codec and soft labels of the only walk there is, if there is one."""
    return (found[0][0].codec, found[0][1]) if found else (None, None)


def _finished(
    codec: MaskCodec | KeypointCodec | None, step: Step | None, new: Ids | None, size: tuple[int, int]
) -> Callable[[], Ids]:
    """Masks that were carried, if any were, and over them what is given."""

    def finish() -> Ids:
        held: Ids | None = np.zeros(size, np.uint8)
        if codec is not None and step is not None:
            held = codec.decode(step.labels, step.confidence).masks
        assert held is not None
        return held if new is None else pasted(held, new)

    return finish


def _painted(codec: TextureCodec, step: Step) -> Callable[[], Paint]:
    def finish() -> Paint:
        texture = codec.decode(step.labels, step.confidence).texture
        assert texture is not None
        return texture

    return finish


def _displaced(codec: CoordinateCodec, read: Mapping[int, Tensor]) -> Callable[[], dict[int, Floats]]:
    return lambda: {gap: codec.decode(labels) for gap, labels in read.items()}


def _placed(found: list[tuple[_Part, Step]], new: Places | None, total: int) -> Callable[[], Places]:
    """Points of all walks in their rows, and over them those that are given."""

    def finish() -> Places:
        places = np.full((total, 2), np.nan, np.float32)
        for part, step in found:
            labels: FrameLabels = part.codec.decode(step.labels, step.confidence)
            assert labels.keypoints is not None
            assert part.rows is not None
            places[part.rows] = labels.keypoints
        return places if new is None else np.where(np.isfinite(new), new, places).astype(np.float32)

    return finish
