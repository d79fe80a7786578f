"""`SyntheticSource`: an endless stream of clips for training, without the truth."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from retrace.datasets.records import FRAME_FOLDER_FPS
from retrace.errors import UsageError
from retrace.synthetic import paint
from retrace.synthetic.scene import mask_boxes
from retrace.synthetic.world import SceneConfig, World, build

DEFAULT = SceneConfig()
_SCENES = 100
_SMALLEST = 12.0  # pixels
_SHARED = 0x5CE7E  # keeps the draws of shared scenes apart from those of samples

_EXPOSURES = 3
"""Instants averaged in a motion-blurred frame: fewer than in `render`, training frames are small."""


class _Sampling(Protocol):
    """`video.sampling.Sampling`, in the part that is needed here."""

    def indices(self, num_frames: int, fps: float, generator: torch.Generator) -> list[int]: ...


class SyntheticSource:
    """Clips of generated scenes; picklable; implements `video.loader.ClipSource`.

    Args:
        config: What scenes are drawn from; its `num_frames` counts only with `sampling`.
        length: T, frames in a clip, at least 1.
        stride: Frames of the scene from one frame of the clip to the next: a number, or a range (both ends included)
            from which each clip draws one. With the default speeds, a stride of 4 moves the fastest things by about
            an eighth of the frame.
        sampling: Chooses the frames of a clip from a scene of `config.num_frames` such steps, as it does from a video
            of 24 frames per second; None takes `length` of them in a row.
        per_scene: How many samples in a row are clips of one scene. Half of the time that a scene takes goes into its
            textures, however few frames are looked at: more than one makes more clips per second, of fewer things. Such
            clips begin anywhere in the scene's `config.num_frames` frames; clips of a scene of their own at its first.
        seed: Of the scenes that several samples share.

    Raises:
        UsageError: length, stride or per_scene below 1.
    """

    def __init__(
        self,
        config: SceneConfig = DEFAULT,
        length: int = 4,
        stride: int | tuple[int, int] = (1, 4),
        sampling: _Sampling | None = None,
        *,
        per_scene: int = 1,
        seed: int = 0,
    ) -> None:
        """Check the arguments; nothing is drawn yet."""
        low, high = (stride, stride) if isinstance(stride, int) else stride
        if length < 1:
            raise UsageError(f"A clip of {length} frames was asked for; give a length of 1 or more.")
        if not 1 <= low <= high:
            raise UsageError(
                f"stride is {stride}; give a number of frames, or (smallest, largest), from 1 on."
            )
        if per_scene < 1:
            raise UsageError(f"{per_scene} clips of a scene were asked for; give 1 or more.")
        self.config = config
        self.length = length
        self.strides = (low, high)
        self.sampling = sampling
        self.per_scene = per_scene
        self.seed = seed
        self._shared: tuple[int, World] | None = None  # the scene of the latest sample, and its number

    def clip(self, generator: torch.Generator) -> Tensor:
        """(T, 3, H, W) uint8 RGB of a new scene; everything random is drawn from `generator` (on the CPU)."""
        with torch.inference_mode():
            world, times = self._scene(generator)
        return _photographs(world, times, generator)

    def planned_clip(self, number: int, generator: torch.Generator) -> Tensor:
        """(T, 3, H, W) uint8 RGB of sample `number`: of the scene that it shares, or of a new one.

        Args:
            number: of the sample; `per_scene` in a row have one scene.
            generator: which frames, and their noise; of a scene of its own, everything.
        """
        if self.per_scene == 1:
            return self.clip(generator)
        with torch.inference_mode():
            world = self._shared_world(number // self.per_scene)
        times = self._times(self._stride(generator), generator)
        if self.sampling is None:
            begins = max(1, self.config.num_frames - times[-1])
            first = int(torch.randint(begins, (), generator=generator))
            times = [first + t for t in times]
        return _photographs(world, times, generator)

    def boxed_clip(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A clip, and the box of one thing in it.

        Args:
            number: of the sample; not used.
            generator: as `clip`.

        Returns: (T, 3, H, W) uint8 RGB; (T, 4) float32 x, y, w, h, pixels of the edges of what shows of an object that
            is drawn among those that show on every frame with sides of at least 12 pixels.

        Errors: UsageError when none of 100 scenes has such an object.
        """
        for _ in range(_SCENES):
            with torch.inference_mode():
                world, times = self._scene(generator)
                numbers = torch.tensor([0, *(layer.object_id for layer in world.layers)])
                masks = torch.stack([numbers[paint.layer_map(world, t) + 1] for t in times])
                edges = mask_boxes(masks, world.num_objects)  # (T, N, 4)
                sides = edges[..., 2:] - edges[..., :2]
                shown = (sides >= _SMALLEST).all(-1).all(0).nonzero()[:, 0]
                if len(shown) == 0:
                    continue
                chosen = int(shown[torch.randint(len(shown), (), generator=generator)])
            box = torch.cat([edges[:, chosen, :2], sides[:, chosen]], dim=1)
            return _photographs(world, times, generator), box
        raise UsageError(
            f"None of {_SCENES} scenes of {self.config.width}x{self.config.height} pixels shows an object on every "
            "frame. Make the scenes larger, or the steps between their frames smaller."
        )

    def _scene(self, generator: torch.Generator) -> tuple[World, list[int]]:
        """A new world, and the frames of a clip."""
        stride = self._stride(generator)
        world = build(self.config, generator, torch.device("cpu"))
        return world, self._times(stride, generator)

    def _stride(self, generator: torch.Generator) -> int:
        low, high = self.strides
        return int(torch.randint(low, high + 1, (), generator=generator))

    def _times(self, stride: int, generator: torch.Generator) -> list[int]:
        """The frames of a clip, the first of a scene being 0."""
        chosen = list(range(self.length))
        if self.sampling is not None:
            chosen = self.sampling.indices(self.config.num_frames, FRAME_FOLDER_FPS, generator)
        return [t * stride for t in chosen]

    def _shared_world(self, number: int) -> World:
        """Scene `number` of those that several samples share; the last one is kept."""
        if self._shared is None or self._shared[0] != number:
            state = np.random.SeedSequence([self.seed, number, _SHARED]).generate_state(2, dtype=np.uint32)
            generator = torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))
            self._shared = (number, build(self.config, generator, torch.device("cpu")))
        return self._shared[1]


def _photographs(world: World, times: Sequence[int], generator: torch.Generator) -> Tensor:
    with torch.inference_mode():
        frames = list(paint.photographs(world, times, generator, _EXPOSURES))
    return torch.stack(frames)  # out here: inference tensors refuse to take part in a graph
