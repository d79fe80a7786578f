"""The propagation engine: frames in, soft labels out, memory that does not grow with the video."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from retrace.encoders.model import Model
from retrace.propagation.context import context_frames
from retrace.propagation.protocols import Protocol
from retrace.walk.nodes import Whitening, normalise, whitening
from retrace.walk.readout import own_shifts, readout


@dataclass(frozen=True)
class Step:
    """What one frame received.

    Attributes:
        labels: (L, h, w) float32 soft labels as later frames will read them, before the protocol's `output` scaling.
        confidence: (h, w) in [0, 1]: the largest share that one label holds of what the node read, times the mean
            affinity (cosine similarity where the protocol normalises features) of what it read from. Low where
            matches disagree or fit badly.
    """

    labels: Tensor
    confidence: Tensor


class Propagator:
    """Carries labels from frame to frame.

    Features are computed once per frame. The seed frame and a ring of `num_context` recent frames are stored, no more.
    """

    def __init__(
        self,
        model: Model,
        protocol: Protocol,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        tile: tuple[int, int] | None = None,
    ) -> None:
        """Prepare; nothing is stored yet.

        Args:
            model: the encoder.
            protocol: context, readout and label rules. Its `size` is the caller's business: frames come at that size,
                and `detail` has been chosen for it (`Protocol.seen_at`).
            device: where features and readout live.
            dtype: of features and affinities; labels are float32.
            tile: target nodes done at once, see `walk.readout.readout`.

        Errors: ValueError for a protocol whose `detail` is still "by_size"; UsageError for one that the encoder lacks.
        """
        self.model = read_as(protocol.detail, model).to(device, dtype)
        self.protocol = protocol
        self.device = torch.device(device)
        self.dtype = dtype
        self.tile = tile
        self._time = 0
        self._keys = torch.empty(0)
        self._values = torch.empty(0)
        self._own: Tensor | None = None
        self._slots: dict[int, int] = {}
        self._whitening: Whitening | None = None

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Cells (h, w) of a frame of H x W pixels."""
        return self.model.grid(height, width)

    def encode(self, image: Tensor) -> Tensor:
        """Nodes (h, w, C) of an image (3, H, W), uint8 or float in [0, 1], as the encoder gives them."""
        with torch.inference_mode():
            features = self.model.features(image[None].to(self.device, non_blocking=True))  # (1, C, h, w)
            return features[0].permute(1, 2, 0).contiguous()  # (h, w, C)

    def _compared(self, nodes: Tensor) -> Tensor:
        """Nodes as the protocol compares them: whitened by the seed frame, normalised."""
        if self._whitening is not None:
            nodes = self._whitening(nodes)
        return normalise(nodes, dim=-1) if self.protocol.normalise_features else nodes

    def seed(self, nodes: Tensor, labels: Tensor) -> Step:
        """Start from a labelled frame: the first one, or one that was corrected. Forgets everything before it.

        Args:
            nodes: (h, w, C) from `encode`.
            labels: (L, h, w) soft labels.

        Returns: Step with the labels as given, on their own device, and full confidence.

        Errors: ValueError when grids disagree.
        """
        h, w, channels = nodes.shape
        power = self.protocol.whiten
        self._whitening = None if power is None else whitening(nodes.flatten(0, 1), power)
        if labels.shape[1:] != (h, w):
            raise ValueError(f"labels of {tuple(labels.shape)} cells; expected (L, {h}, {w}) for this frame")
        count = self.protocol.num_context + 1
        self._keys = torch.zeros(count, h, w, channels, dtype=nodes.dtype, device=self.device)
        self._values = torch.zeros(count, h, w, labels.shape[0], device=self.device)
        self._own = torch.zeros(count, h, w, 2, device=self.device) if self.protocol.rules.subcell else None
        self._time = 0
        self._slots = {}
        self._ring = deque(range(1, count))
        self._store(self._compared(nodes), labels.to(self.device).float(), slot=0)
        if self.protocol.reread_first:
            self.step(nodes)  # what it reads is frame 1 of the context rules
        return Step(labels.float(), torch.ones(h, w, device=labels.device))

    def step(self, nodes: Tensor) -> Step:
        """Labels of the next frame.

        Args:
            nodes: (h, w, C) from `encode`, same size as the seed's.

        Returns: Step, on the engine's device.

        Errors: ValueError before `seed`, or when the grid changed.
        """
        return self.steps(nodes, [self._values.shape[-1]])[0]

    def steps(self, nodes: Tensor, channels: Sequence[int]) -> list[Step]:
        """As `step`, where labels of several kinds were seeded one behind the other: they are read at once.

        Args:
            nodes: (h, w, C) from `encode`, same size as the seed's.
            channels: of every kind, in their order; together the L of the seed.

        Returns: a Step of every kind, each with the confidence that it would have alone.

        Errors: ValueError before `seed`, when the grid changed, or for another number of channels.
        """
        if self._time == 0:
            raise ValueError("step() before seed(): give the labelled frame first")
        if nodes.shape != self._keys.shape[1:]:
            raise ValueError(
                f"a frame of {tuple(nodes.shape)} nodes after one of {tuple(self._keys.shape[1:])}"
            )
        if sum(channels) != self._values.shape[-1]:
            raise ValueError(f"kinds of {list(channels)} channels; {self._values.shape[-1]} were seeded")
        protocol = self.protocol
        nodes = self._compared(nodes)
        frames = context_frames(self._time, protocol.num_context, protocol.recent, protocol.add_first)
        free = [False] * len(frames)
        if protocol.add_first:
            free[0] = not protocol.window_first
        with torch.inference_mode():
            reading = readout(
                nodes,
                self._keys,
                self._values,
                context=[self._slots[frame] for frame in frames],
                free=free,
                rules=replace(protocol.rules, finer=2) if protocol.detail == "closer" else protocol.rules,
                tile=self.tile,
                own=self._own,
            )
            labels = reading.labels.permute(2, 0, 1)  # (L, h, w)
            stored = stretch(labels) if protocol.feed_back == "minmax" else labels
            if self._ring:
                self._store(nodes, stored, slot=self._ring[0])
                self._ring.rotate(-1)
            else:
                self._time += 1
            kinds = zip(torch.split(labels, list(channels)), torch.split(stored, list(channels)), strict=True)
            return [Step(kept, _confidence(read, reading.similarity)) for read, kept in kinds]

    def relabel(self, labels: Tensor) -> None:
        """Give the frame that was read last other labels (L, h, w) than it read; later frames read these.

        Unlike `seed`, nothing is forgotten.

        Errors: ValueError before `step`, for labels of another shape, and where no recent frame is stored.
        """
        slot = self._slots.get(self._time - 1)
        if slot is None or self._time < (3 if self.protocol.reread_first else 2):
            raise ValueError("relabel() needs a frame that was read and is stored: call step() first")
        if labels.shape != self._values[slot].permute(2, 0, 1).shape:
            raise ValueError(f"labels of {tuple(labels.shape)}; the frame before has another number or grid")
        self._values[slot] = labels.permute(1, 2, 0).to(self._values)

    def _store(self, nodes: Tensor, labels: Tensor, *, slot: int) -> None:
        """Put a frame into a slot of the ring; whatever stood there is forgotten."""
        self._keys[slot] = nodes
        self._values[slot] = labels.permute(1, 2, 0)
        if self._own is not None:
            self._own[slot] = own_shifts(nodes)
        self._slots = {frame: place for frame, place in self._slots.items() if place != slot}
        self._slots[self._time] = slot
        self._time += 1


def read_as(detail: str, model: Model) -> Model:
    """The encoder as a protocol's `detail` reads it.

    Errors: ValueError for "by_size", which is none yet; UsageError for an encoder that cannot be read so.
    """
    if detail == "by_size":
        raise ValueError(
            "detail is 'by_size'; choose it for the frames first, by protocol.seen_at(height, width, model)"
        )
    return {"plain": lambda: model, "closer": lambda: model.closer(2), "both_sizes": model.both_sizes}[
        detail
    ]()


def _confidence(labels: Tensor, similarity: Tensor) -> Tensor:
    """(h, w) in [0, 1], see Step; of labels (L, h, w) as read, and mean affinities (h, w)."""
    share = labels.amax(0) / labels.sum(0).clamp_min(1e-6)
    return (share * similarity.clamp(0, 1)).clamp(0, 1)


def stretch(labels: Tensor) -> Tensor:
    """Every class of (L, h, w) shifted and scaled to [0, 1] over the frame, where its maximum is above 0."""
    low, high = labels.amin((-2, -1), keepdim=True), labels.amax((-2, -1), keepdim=True)
    stretched = (labels - low) / (high - low).clamp_min(1e-12)
    return torch.where((high > 0) & (high > low), stretched, labels)


def resize_image(image: Tensor, size: int | tuple[int, int] | None) -> Tensor:
    """A frame (3, H, W) uint8 or float at a protocol's size: None as it is, a short side, or (height, width).

    Bilinear with half-pixel centres, anti-aliased when shrinking. Returns the input's dtype.
    """
    if size is None:
        return image
    height, width = image.shape[-2:]
    if isinstance(size, int):
        scale = size / min(height, width)
        size = (round(height * scale), round(width * scale))
    if size == (height, width):
        return image
    resized = F.interpolate(
        image[None].float(), size=size, mode="bilinear", align_corners=False, antialias=True
    )[0]
    return resized.round().clamp(0, 255).to(image.dtype) if image.dtype == torch.uint8 else resized
