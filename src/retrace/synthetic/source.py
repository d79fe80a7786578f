"""`SyntheticSource`: an endless stream of clips for training, without the truth."""

from typing import Protocol

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

    Raises:
        UsageError: length or stride below 1.
    """

    def __init__(
        self,
        config: SceneConfig = DEFAULT,
        length: int = 4,
        stride: int | tuple[int, int] = (1, 4),
        sampling: _Sampling | None = None,
    ) -> None:
        """Check the arguments; nothing is drawn yet."""
        low, high = (stride, stride) if isinstance(stride, int) else stride
        if length < 1:
            raise UsageError(f"A clip of {length} frames was asked for; give a length of 1 or more.")
        if not 1 <= low <= high:
            raise UsageError(
                f"stride is {stride}; give a number of frames, or (smallest, largest), from 1 on."
            )
        self.config = config
        self.length = length
        self.strides = (low, high)
        self.sampling = sampling

    def clip(self, generator: torch.Generator) -> Tensor:
        """(T, 3, H, W) uint8 RGB of a new scene; everything random is drawn from `generator` (on the CPU)."""
        with torch.inference_mode():
            world, times = self._scene(generator)
            frames = [paint.photograph(world, t, generator, _EXPOSURES) for t in times]
        return torch.stack(frames)

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
                frames = [paint.photograph(world, t, generator, _EXPOSURES) for t in times]
            return torch.stack(frames), torch.cat([edges[:, chosen, :2], sides[:, chosen]], dim=1)
        raise UsageError(
            f"None of {_SCENES} scenes of {self.config.width}x{self.config.height} pixels shows an object on every "
            "frame. Make the scenes larger, or the steps between their frames smaller."
        )

    def _scene(self, generator: torch.Generator) -> tuple[World, list[int]]:
        """A new world, and the frames of a clip."""
        low, high = self.strides
        stride = int(torch.randint(low, high + 1, (), generator=generator))
        world = build(self.config, generator, torch.device("cpu"))
        chosen = list(range(self.length))
        if self.sampling is not None:
            chosen = self.sampling.indices(self.config.num_frames, FRAME_FOLDER_FPS, generator)
        return world, [t * stride for t in chosen]
