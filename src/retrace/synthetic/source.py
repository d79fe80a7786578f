"""`SyntheticSource`: an endless stream of clips for training, without the truth."""

import torch
from torch import Tensor

from retrace.errors import UsageError
from retrace.synthetic import paint
from retrace.synthetic.world import SceneConfig, build

DEFAULT = SceneConfig()

_EXPOSURES = 3
"""Instants averaged in a motion-blurred frame: fewer than in `render`, training frames are small."""


class SyntheticSource:
    """Clips of generated scenes; picklable; implements `video.loader.ClipSource`.

    Args:
        config: What scenes are drawn from; its `num_frames` is not used.
        length: T, frames in a clip, at least 1.
        stride: Frames of the scene from one frame of the clip to the next: a number, or a range (both ends included)
            from which each clip draws one. With the default speeds, a stride of 4 moves the fastest things by about
            an eighth of the frame.

    Raises:
        UsageError: length or stride below 1.
    """

    def __init__(
        self,
        config: SceneConfig = DEFAULT,
        length: int = 4,
        stride: int | tuple[int, int] = (1, 4),
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

    def clip(self, generator: torch.Generator) -> Tensor:
        """(T, 3, H, W) uint8 RGB of a new scene; everything random is drawn from `generator` (on the CPU)."""
        low, high = self.strides
        with torch.inference_mode():
            stride = int(torch.randint(low, high + 1, (), generator=generator))
            world = build(self.config, generator, torch.device("cpu"))
            frames = [paint.photograph(world, t * stride, generator, _EXPOSURES) for t in range(self.length)]
        return torch.stack(frames)
