"""A model ready to use: an encoder, the normalisation it was trained with, and where it comes from."""

import copy
import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrace.encoders.colour import IMAGENET_MEAN as IMAGENET_MEAN
from retrace.encoders.colour import IMAGENET_STD as IMAGENET_STD
from retrace.encoders.colour import to_input
from retrace.encoders.pyramid import BothSizes
from retrace.encoders.resnet import ResNet, a_trous, why_not_closer
from retrace.errors import UsageError


@dataclass(frozen=True)
class Model:
    """An encoder in inference mode.

    Attributes:
        encoder: module, (B, 3, H, W) normalised float -> (B, C, h, w).
        name: as results write it.
        stride: pixels from node to node.
        channels: C.
        mean: of the input normalisation: of RGB in [0, 1], or of Lab.
        std: likewise.
        colour: of the input, "rgb" or "lab" (Spatial-then-Temporal); images are given in RGB either way.
        card: what is known of its making (method, data, seed, ...), and its architecture.
        sha256: of all its parameters and buffers.
        head: tensors of the projector it was trained with, so that adapting can go on from there; empty if unknown.
        multiple: sides of images are padded at the bottom and the right to a multiple of it, the edge repeated:
            a patch size; 1 for encoders that take any size.
        origin: pixels from the image's corner to the centre of the first node, on both axes: 0.5 for padded ResNets,
            stride / 2 for patches.
    """

    encoder: nn.Module
    name: str
    stride: int
    channels: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    card: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    head: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    colour: str = "rgb"
    multiple: int = 1
    origin: float = 0.5

    def __post_init__(self) -> None:
        """Fill in the hash."""
        if not self.sha256:
            object.__setattr__(self, "sha256", fingerprint(self.encoder))

    def features(self, images: Tensor) -> Tensor:
        """Feature maps of images.

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in [0, 1], on the encoder's device.

        Returns: (B, C, h, w), not normalised, in the encoder's dtype, without gradient.
        """
        parameter = next(self.encoder.parameters(), None)
        dtype = torch.float32 if parameter is None else parameter.dtype
        scale = 255.0 if images.dtype == torch.uint8 else 1.0
        normalised = to_input(images.float() / scale, self.colour, self.mean, self.std).to(dtype)
        bottom, right = self.padding(*images.shape[-2:])
        if bottom or right:
            normalised = F.pad(normalised, (0, right, 0, bottom), mode="replicate")
        with torch.inference_mode():
            features: Tensor = self.encoder(normalised.contiguous(memory_format=torch.channels_last))
        return features

    def padding(self, height: int, width: int) -> tuple[int, int]:
        """Pixels that an image of H x W gets at its bottom and its right before the encoder sees it."""
        return -height % self.multiple, -width % self.multiple

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Cells (h, w) of an image of H x W pixels; padding never adds one that lies outside the image.

        Errors: UsageError for an image in which an encoder without padding has no room.
        """
        if isinstance(self.encoder, ResNet):
            return self.encoder.grid(height, width)
        return -(-height // self.stride), -(-width // self.stride)

    @property
    def can_be_closer(self) -> bool:
        """Whether the encoder has a stride that `closer` could leave out."""
        return self._why_not_closer() is None

    def _why_not_closer(self) -> str | None:
        return why_not_closer(self.encoder) if isinstance(self.encoder, ResNet) else "it is no ResNet"

    def closer(self, times: int) -> "Model":
        """The same encoder, read at nodes that are `times` as close, see `resnet.a_trous`.

        Args:
            times: 1, 2, 4, ...; every time that it doubles, one more stride is left out.

        Errors: UsageError for other numbers, and for an encoder that has no stride to leave out.
        """
        if times < 1 or times & (times - 1):
            raise UsageError(f"Nodes {times} times as close were asked for; it can be 1, 2, 4, ...")
        if times == 1:
            return self
        if not isinstance(self.encoder, ResNet):
            raise UsageError(
                f"The nodes of {self.name} cannot be closer: only those of a ResNet can. Take detail plain."
            )
        encoder, left = self.encoder, times
        while left > 1:
            try:
                encoder = a_trous(encoder)
            except ValueError as error:
                raise UsageError(
                    f"The nodes of {self.name} cannot be {times} times as close: {error}. Take detail plain."
                ) from error
            left //= 2
        return replace(self, encoder=encoder, stride=encoder.stride)

    def both_sizes(self) -> "Model":
        """The same encoder, which sees images at half their size as well, see `pyramid.BothSizes`.

        Errors: UsageError for an encoder whose nodes cannot be closer.
        """
        if (reason := self._why_not_closer()) is not None:
            raise UsageError(f"{self.name} cannot see images at both sizes: {reason}. Take detail plain.")
        assert isinstance(self.encoder, ResNet)
        encoder = BothSizes(self.encoder)
        return replace(self, encoder=encoder, channels=encoder.out_channels)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "Model":
        """A copy on another device, in evaluation mode, channels-last."""
        encoder = copy.deepcopy(self.encoder).to(device=device, dtype=dtype).eval()
        encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return replace(self, encoder=encoder)


class LabPatches(nn.Module):
    """A baseline without learning: the Lab colours of a 3 x 3 arrangement of pooled pixels round each node."""

    stride = 8
    out_channels = 27

    def forward(self, images: Tensor) -> Tensor:
        """RGB in [0, 1] (B, 3, H, W) -> (B, 27, ceil(H / 8), ceil(W / 8)), zero mean over the image per channel."""
        import kornia.color

        lab = kornia.color.rgb_to_lab(images.float().clamp(0, 1)) / 100
        height, width = lab.shape[-2:]
        lab = F.pad(lab, (2, 2 + -width % 8, 2, 2 + -height % 8), mode="replicate")
        pooled = F.avg_pool2d(lab, 4, stride=4)  # cell 2i covers the pixels 8i - 2 ... 8i + 1 of node i
        height, width = -(-height // 8), -(-width // 8)
        patches = F.unfold(F.pad(pooled, (1, 1, 1, 1), mode="replicate"), 3, stride=1)  # (B, 27, n)
        rows, columns = pooled.shape[-2:]
        grid = patches.reshape(len(patches), -1, rows, columns)[..., 0 : 2 * height : 2, 0 : 2 * width : 2]
        return (grid - grid.mean((-2, -1), keepdim=True)).to(images.dtype)


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, by name and in order."""
    digest = hashlib.sha256(type(module).__name__.encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
