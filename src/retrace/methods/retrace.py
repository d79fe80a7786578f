"""Retrace, our own recipe: frames rebuilt from each other by the affinity that will carry labels.

No paper: docs/methods/retrace.md says what it takes from which and what was measured. As in Spatial-then-Temporal's
reconstruction (and Colorization, CorrFlow, MAST before it), the encoder sees Lab without one of its colour channels and
has to bring that channel of a frame back from the frame before, position by position, as a mean over a window. The
affinity is the one that propagation uses: dot products of L2-normalised nodes over a small temperature. In clips of
more than two frames colours also go along the walk, as labels will, and what they lose on the way costs something; the
recipe does without.

| equation | here | shape |
|---|---|---|
| I_t, the dropped channel at every stride-th pixel | values[:, t] | (B, 1, h, w) |
| F_t, L2-normalised | maps[:, t] | (B, C, h, w) |
| (1) P_t(i, j) = softmax over N(i) of <F_t(i), F_t-1(j)> / tau | steps[t - 1], a volume | (B, h, w, K, K) |
| (2) L_step = mean over t of abs(P_t I_t-1 - I_t) | step | |
| (3) W_0 = I_0, W_t = P_t W_t-1 | carried | (B, 1, h, w) |
| (4) L_walk = mean over t >= 2 of abs(W_t - I_t) | walk | |
| (5) L = value_scale (L_step + walk_weight L_walk) | total | |
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retrace.encoders.colour import LAB_MEAN, LAB_STD, to_input
from retrace.encoders.resnet import ResNet
from retrace.methods.losses import Losses
from retrace.methods.rebuilding import draw_channel, drop_channel
from retrace.walk import correlation
from retrace.walk.nodes import normalise


@dataclass(frozen=True)
class RetraceConfig:
    """Settings of our own recipe.

    Attributes:
        clip_length: T, frames of a walk, at least 2.
        crop_size: pixels of a side.
        crop_area: range of the crop's share of the frame's area.
        crop_ratio: range of width / height of the crop, which is then made square.
        flip_probability: of mirroring all frames of a clip.
        radius: of the window N(i), cells.
        temperature: tau.
        walk_weight: of Eq. (4); with T = 2 there is no walk, and it has no say.
        value_scale: factor on Lab values in the losses.
    """

    clip_length: int = 2
    crop_size: int = 128
    crop_area: tuple[float, float] = (0.6, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 1.33)
    flip_probability: float = 0.5
    radius: int = 6
    temperature: float = 0.07
    walk_weight: float = 1.0
    value_scale: float = 20.0

    def __post_init__(self) -> None:
        """Errors: ValueError naming the field, what it was and what it may be."""
        if self.clip_length < 2:
            raise ValueError(f"clip_length is {self.clip_length}; expected at least 2 frames")
        if self.crop_size < 16:
            raise ValueError(f"crop_size is {self.crop_size}; expected at least 16 pixels")
        if self.radius < 1:
            raise ValueError(f"radius is {self.radius}; expected at least 1 cell")
        for name in ("temperature", "value_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number above 0")
        if not self.walk_weight >= 0:
            raise ValueError(f"walk_weight is {self.walk_weight}; expected a weight of 0 or more")


class Retrace(nn.Module):
    """The encoder and the loss.

    Attributes:
        encoder: sees Lab.
    """

    colour = "lab"

    def __init__(self, encoder: ResNet, config: RetraceConfig) -> None:
        """Errors: ValueError for an encoder whose stride does not divide the crop."""
        super().__init__()
        if config.crop_size % encoder.stride:
            raise ValueError(
                f"crop_size is {config.crop_size}; expected a multiple of the encoder's stride, {encoder.stride}"
            )
        self.config = config
        self.encoder = encoder

    def forward(self, views: dict[str, Tensor], generator: torch.Generator | None = None) -> Losses:
        """Loss of a batch.

        Args:
            views: a batch of `OneCrop`: frames (B, T, 3, H, W), H and W multiples of the encoder's stride.
            generator: randomness of the dropped channel, on the device of the views; None is torch's global one.

        Returns: Losses; terms as in `retrace_loss`.
        """
        frames = views["frames"]
        lab = to_input(frames, self.colour, LAB_MEAN, LAB_STD)
        dropped = draw_channel(lab.device, generator)
        seen = drop_channel(lab, dropped).flatten(0, 1)  # (B T, 3, H, W)
        maps: Tensor = self.encoder(seen).unflatten(0, frames.shape[:2])
        stride = self.encoder.stride
        values = lab[..., ::stride, ::stride].index_select(2, dropped)  # (B, T, 1, h, w)
        # A softmax over hundreds of dot products of hundreds of channels: half precision ends at the encoder.
        with torch.autocast(frames.device.type, enabled=False):
            return retrace_loss(normalise(maps.float(), dim=2), values, self.config)


def retrace_loss(maps: Tensor, values: Tensor, config: RetraceConfig) -> Losses:
    """Eq. (1) to (5).

    Args:
        maps: (B, T, C, h, w), L2-normalised over C.
        values: (B, T, 1, h, w), what the encoder did not see.
        config: radius, temperature, weights.

    Returns: Losses; terms: step and walk as they stand in the total (walk where T > 2), copy (what step would be worth
        if nothing moved: below that, something is matched) and feature_std (standard deviation of the nodes over
        everything but channels, mean over channels: 0 when all nodes look the same).
    """
    length = maps.shape[1]
    steps = [
        correlation.pair_correlation(maps[:, t - 1 : t + 1], config.radius, config.temperature)  # Eq. (1)
        for t in range(1, length)
    ]
    rebuilt = [correlation.reconstruct(steps[t - 1], values[:, t - 1]) for t in range(1, length)]
    step = _distance(rebuilt, values[:, 1:], config)  # Eq. (2)
    total, terms = step, {"step": step.detach()}
    if length > 2:
        carried = rebuilt[:1]
        for t in range(2, length):
            carried.append(correlation.reconstruct(steps[t - 1], carried[-1]))  # Eq. (3)
        walk = config.walk_weight * _distance(carried[1:], values[:, 2:], config)  # Eq. (4)
        total = total + walk  # Eq. (5)
        terms["walk"] = walk.detach()
    with torch.no_grad():
        terms["copy"] = _distance(values[:, :-1].unbind(1), values[:, 1:], config)
        terms["feature_std"] = maps.std(dim=(0, 1, 3, 4)).mean()
    return Losses(total, terms)


def _distance(rebuilt: Sequence[Tensor], values: Tensor, config: RetraceConfig) -> Tensor:
    """Mean absolute difference of maps (B, 1, h, w) from those of values (B, T, 1, h, w), times the scale."""
    return config.value_scale * (torch.stack(list(rebuilt), dim=1) - values).abs().mean()
