"""What methods that rebuild frames from each other have in common: the crop of a clip, the channel that is hidden."""

from typing import Protocol

import torch
from torch import Tensor

from retrace.video import transforms
from retrace.walk import warp

DROPPABLE = (1, 2)  # a and b
DROPOUT_SCALE = 1.5  # of what is left: 3 channels / 2


class _Crops(Protocol):
    """Settings of the crop: pixels of a side, ranges of area and width / height, probability of a flip."""

    @property
    def crop_size(self) -> int: ...

    @property
    def crop_area(self) -> tuple[float, float]: ...

    @property
    def crop_ratio(self) -> tuple[float, float]: ...

    @property
    def flip_probability(self) -> float: ...


class OneCrop:
    """Views: one crop and flip for all frames of a clip. Picklable; draws everything from the generator."""

    def __init__(self, config: _Crops) -> None:
        """`config` decides the crop."""
        self.config = config

    def __call__(self, clip: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Crop a clip.

        Args:
            clip: uint8 (T, 3, H, W), RGB.
            generator: randomness.

        Returns: frames: (T, 3, S, S), RGB in [0, 1]. The method makes of it what its networks see.
        """
        config = self.config
        height, width = clip.shape[-2:]
        box = transforms.random_resized_box(height, width, config.crop_area, config.crop_ratio, generator)
        flip = torch.rand((), generator=generator) < config.flip_probability
        matrix = warp.crop_matrix(torch.tensor(box), flip, height, width)
        return {"frames": transforms.crop(clip.float() / 255, matrix, config.crop_size)}


def draw_channel(device: torch.device, generator: torch.Generator | None) -> Tensor:
    """The channel of Lab that a step hides: int64 (1,), 1 for a or 2 for b. `generator`: None is torch's global one."""
    return 1 + torch.randint(len(DROPPABLE), (1,), generator=generator, device=device)


def drop_channel(lab: Tensor, dropped: Tensor) -> Tensor:
    """What the encoder sees: one channel zero, everything times 1.5.

    Args:
        lab: (..., 3, H, W), standardised.
        dropped: int64 (1,), 1 for a or 2 for b.

    Returns: (..., 3, H, W), new.
    """
    kept = torch.arange(3, device=lab.device) != dropped
    return lab * (DROPOUT_SCALE * kept.to(lab.dtype)).view(3, 1, 1)
