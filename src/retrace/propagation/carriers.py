"""Ways to carry labels through a video, all alike from outside: the readout of an encoder, and baselines.

Boxes are carried by the baselines here and by `tracking.carrier`.

A carrier is handed frames one after the other and the labels that are given in some of them, and hands back labels
of every frame. Objects may begin in any frame. What it hands back is a function that finishes the frame's labels
(enlarging and choosing), so that another thread can do that part.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, Protocol, TypeVar

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

    def _rows(
        self, frames: Iterable[Pixels], given: Mapping[int, Rects], kind: Literal["keypoints", "boxes"]
    ) -> Iterator[Callable[[], Places]]:
        """Labels that are rows of numbers; a row is NaN until it is given."""
        baseline = self._make()
        nowhere = np.full_like(next(iter(given.values())), np.nan, dtype=np.float32)
        held: Places | None = None
        for index, image in enumerate(frames):
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
        self._engine = Propagator(model, protocol, device=device, dtype=dtype, tile=tile)

    def masks(self, frames: Iterable[Pixels], given: Mapping[int, Ids]) -> Iterator[Callable[[], Ids]]:
        """See Carrier."""
        size = next(iter(given.values())).shape
        walks: list[tuple[Propagator, MaskCodec]] = []
        geometry: Geometry | None = None
        for index, image in enumerate(frames):
            nodes, geometry = self._encode(image, size, geometry)
            steps = [walk.step(nodes) for walk, _ in walks]
            new = given.get(index)
            finish = [_decode(codec, step) for (_, codec), step in zip(walks, steps, strict=True)]
            if len(walks) > 1:
                finish = [self._merged(walks, steps, geometry)]
            if new is not None and new.any():
                codec = self.protocol.mask_codec(_ids_in(new), geometry)
                walk = copy.copy(self._engine)
                walk.seed(nodes, codec.encode(new))
                walks.append((walk, codec))
            yield _finished(finish, new, size)

    def points(
        self, frames: Iterable[Pixels], given: Mapping[int, Places], size: tuple[int, int]
    ) -> Iterator[Callable[[], Places]]:
        """See Carrier."""
        walks: list[tuple[Propagator, KeypointCodec, NDArray[np.intp]]] = []
        total = len(next(iter(given.values())))
        geometry: Geometry | None = None
        for index, image in enumerate(frames):
            nodes, geometry = self._encode(image, size, geometry)
            found = [(codec, walk.step(nodes), rows) for walk, codec, rows in walks]
            new = given.get(index)
            if new is not None and (begin := np.flatnonzero(np.isfinite(new[:, 0]))).size:
                codec = self.protocol.keypoint_codec([str(k) for k in begin], geometry)
                walk = copy.copy(self._engine)
                walk.seed(nodes, codec.encode(new[begin]))
                walks.append((walk, codec, begin))
            yield _placed(found, new, total)

    def flows(
        self, frames: Iterable[Pixels], gaps: Sequence[int], size: tuple[int, int], *, smooth: bool = False
    ) -> Iterator[Callable[[], dict[int, Floats]]]:
        """See Carrier. Coordinates of the earlier frame are read as labels, under `protocols.between_two`."""
        walk = copy.copy(self._engine)
        walk.protocol = protocols.between_two(self.protocol)
        held: deque[Tensor] = deque(maxlen=max(gaps))  # the last frame on the right
        geometry: Geometry | None = None
        for image in frames:
            nodes, geometry = self._encode(image, size, geometry)
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
        walk = copy.copy(self._engine)
        walk.protocol = protocols.for_coordinates(self.protocol)
        codec: TextureCodec | None = None
        geometry: Geometry | None = None
        for image in frames:
            nodes, geometry = self._encode(image, given.shape[:2], geometry)
            if codec is None:
                codec = TextureCodec(given, geometry)
                walk.seed(nodes, codec.encode(given))
                yield _constant(given)
            else:
                yield _painted(codec, walk.step(nodes))

    def _encode(
        self, image: Pixels, size: tuple[int, ...], geometry: Geometry | None
    ) -> tuple[Tensor, Geometry]:
        """Nodes of a frame, and where they are on pictures of `size`."""
        tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)  # (3, H', W')
        small = resize_image(tensor, self.protocol.size)
        if geometry is None:
            network = (small.shape[1], small.shape[2])
            geometry = Geometry(
                (size[0], size[1]),
                network,
                self._engine.grid(*network),
                self._model.stride,
                self._model.origin,
                self._model.padding(*network),
            )
        return self._engine.encode(small), geometry

    def _merged(
        self, walks: list[tuple[Propagator, MaskCodec]], steps: list[Step], geometry: Geometry
    ) -> Callable[[], Ids]:
        """One map of the soft labels of several walks."""
        background = torch.stack([step.labels[0] for step in steps]).amin(0, keepdim=True)
        owners = [int(i) for _, codec in walks for i in codec.channel_to_id[1:]]
        order = np.argsort(owners)
        objects = torch.cat([step.labels[1:] for step in steps])[torch.from_numpy(order)]
        codec = self.protocol.mask_codec(sorted(owners), geometry)
        confidence = torch.stack([step.confidence for step in steps]).amax(0)
        return _decode(codec, Step(torch.cat([background, objects]), confidence))


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


def _decode(codec: MaskCodec, step: Step) -> Callable[[], Ids]:
    def finish() -> Ids:
        masks = codec.decode(step.labels, step.confidence).masks
        assert masks is not None
        return masks

    return finish


def _finished(carried: list[Callable[[], Ids]], new: Ids | None, size: tuple[int, ...]) -> Callable[[], Ids]:
    """What was carried, and over it what is given."""

    def finish() -> Ids:
        held = carried[0]() if carried else np.zeros(size, np.uint8)
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


def _placed(
    found: list[tuple[KeypointCodec, Step, NDArray[np.intp]]], new: Places | None, total: int
) -> Callable[[], Places]:
    """Points of all walks in their rows, and over them those that are given."""

    def finish() -> Places:
        places = np.full((total, 2), np.nan, np.float32)
        for codec, step, rows in found:
            labels: FrameLabels = codec.decode(step.labels, step.confidence)
            assert labels.keypoints is not None
            places[rows] = labels.keypoints
        return places if new is None else np.where(np.isfinite(new), new, places).astype(np.float32)

    return finish
