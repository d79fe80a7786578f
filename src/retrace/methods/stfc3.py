"""STFC3 and FC3: fully convolutional cycle-consistency.

Tang, Jiang, Xie, Cao, Zhang, Torr, Hu: "Breaking Shortcut: Exploring Fully Convolutional Cycle-Consistency for Video
Correspondence Learning", ICCV workshops 2021 (`papers/stfc3.txt`).

| paper | here | shape |
|---|---|---|
| I_t | clip | (T, 3, H, W), uint8 |
| X^f_t, X^b_t (Eq. 4) | forward, backward | (B, T, 3, S, S); backward in **reversed time** |
| B_theta_f, B_theta_b | to_forward, to_backward | (3, 3) |
| B_fb | reading (its inverse point map: where to read) | (B, 2, 3) |
| F^f, F^b (Eq. 5) | feat_forward, feat_backward | (B, T, C, h, w) |
| F^fb (Eq. 9) | warped | (B, T, N, C) |
| A^S_t (Eq. 7) | step(queries, keys) | (B, N, N) |
| A^S_cyc (Eq. 8) | outs[s] @ homes[s]: the first step, and the rest | (B, N, N) |
| M_b (Eq. 11) | mask | (B, N) |
| tau | temperature | |

Vanilla FC3 (Eq. 3) is `variant="fc3"`: one crop, walked out and back on the same features, no warp and no mask. The
paper's padding variants are the encoder's `padding_mode`.

Departures, and what the released code does otherwise (options in brackets):

1. Time is counted from 0 here, from 1 in the paper: the paper's cycle k starts at frame s = k - 1.
2. The released code leaves out the cycle that starts at frame T - 2 [`cycles="released"`].
3. The released code divides by the number of unmasked nodes and averages the cycles; the paper divides by all nodes and
   sums the cycles [`reduction="masked_nodes"`].
4. The released target can hold neighbours [`target_radius`, in nodes; its published 0.1 is the identity].
5. The paper applies a matrix made for pixels to nodes. Node j sits on pixel `origin + j * stride`, so this reads up to
   a node off when the crops differ in scale; we correct it [`node_alignment="as_released"` does not].
6. The released code first crops every frame by itself [`frame_jitter=True`] and has other colour strengths
   [`colour="released"`].
7. Not in the paper: `window_area` draws one window of the frame first and both crops inside it, so that crops of large
   frames show things at their real size and still overlap; `colour="mild"` keeps more of the colours.
8. Not in the paper: `direct_weight` adds the shortest cycle there is, from the warped frame straight to the other crop
   of the same frame, for every frame. It gives a clear signal from the first step on (docs/methods/stfc3.md). FC3 has
   no other crop and no such term.
9. Taken from the released code, because the paper is silent: warped features are normalised again; `edge_dropout`;
   1e-7 inside the logarithm; the crop's `crop_ratio`; one crop and flip for all frames of a track, the backward track
   in reversed time; the projector's BatchNorm after its ReLU.
10. Ours alone: ImageNet's mean and standard deviation (the released training has CIFAR's); images and features cropped
    in one corner convention (the released ones differ by up to half a node), bilinear without anti-aliasing; the blur's
    sigma is meant for a 256-pixel crop and shrinks with smaller ones.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from retrace.encoders.heads import Projector
from retrace.encoders.model import IMAGENET_MEAN, IMAGENET_STD
from retrace.encoders.resnet import ResNet
from retrace.methods.checks import check_choices
from retrace.methods.losses import Losses
from retrace.video import transforms
from retrace.video.transforms import ColourAugmentation
from retrace.walk import cycles, neighborhood, warp
from retrace.walk.affinity import affinity, transition
from retrace.walk.nodes import normalise, to_nodes

# (forward, backward) strengths. "paper" is Appendix B, "released" is what the authors' code runs, "mild" is ours.
COLOUR: dict[str, tuple[ColourAugmentation, ColourAugmentation]] = {
    "none": (ColourAugmentation(), ColourAugmentation()),
    "paper": (
        ColourAugmentation((0.8, 0.8, 0.8, 0.2), 0.8, grey_probability=0.2, blur_probability=0.2),
        ColourAugmentation(
            (0.4, 0.4, 0.2, 0.1), 0.8, grey_probability=0.2, blur_probability=0.2, solarize_probability=0.2
        ),
    ),
    "mild": (
        ColourAugmentation((0.3, 0.3, 0.2, 0.05), 0.8, grey_probability=0.05, blur_probability=0.2),
        ColourAugmentation((0.3, 0.3, 0.2, 0.05), 0.8, grey_probability=0.05, blur_probability=0.2),
    ),
    "released": (
        ColourAugmentation((0.4, 0.4, 0.2, 0.1), 0.8, grey_probability=0.2, blur_probability=1.0),
        ColourAugmentation(
            (0.4, 0.4, 0.2, 0.1), 0.8, grey_probability=0.2, blur_probability=0.1, solarize_probability=0.2
        ),
    ),
}


@dataclass(frozen=True)
class STFC3Config:
    """Everything the paper names.

    Attributes:
        variant: "stfc3", or "fc3" for the vanilla method of section 3.2.
        clip_length: T, frames.
        crop_size: S, pixels.
        window_area: range of the share of the frame's area of the window that both crops are drawn in; (1, 1) is the
            whole frame, as in the paper; departure 7.
        crop_area: gamma, range of the crop's share of the window's area (Table 5).
        crop_ratio: range of width / height, of the crops and of the window.
        flip_probability: of mirroring, drawn separately for the forward and the backward crop.
        frame_jitter: crop every frame by itself first (area .8-.95), as the released code does.
        colour: "paper" (Appendix B), "released", "mild" or "none".
        temperature: tau of Eq. 7.
        edge_dropout: probability that an edge of a transition is dropped.
        cycles: "paper" starts at frames 0 .. T-2, "released" at 0 .. T-3.
        reduction: "all_nodes" (Eq. 12, cycles summed) or "masked_nodes" (released, cycles averaged).
        target_radius: p-norm distance, in nodes, within which a walker has come home; 0 is Eq. 13.
        target_norm: that p.
        node_alignment: "exact" or "as_released"; departure 5.
        direct_weight: weight of the direct term; departure 8. 0 is the paper; FC3 has none.
        projector_hidden: width of the first fully connected layer.
        projector_outputs: width of the second.
    """

    variant: str = "stfc3"
    clip_length: int = 4
    crop_size: int = 256
    window_area: tuple[float, float] = (1.0, 1.0)
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (0.7, 1.3)
    flip_probability: float = 0.5
    frame_jitter: bool = False
    colour: str = "paper"
    temperature: float = 0.05
    edge_dropout: float = 0.1
    cycles: str = "paper"
    reduction: str = "all_nodes"
    target_radius: float = 0.0
    target_norm: float = 1.0
    node_alignment: str = "exact"
    direct_weight: float = 0.0
    projector_hidden: int = 2048
    projector_outputs: int = 512

    def __post_init__(self) -> None:
        """Errors: ValueError naming the field, what it was and what it may be."""
        check_choices(
            self,
            {
                "variant": ("stfc3", "fc3"),
                "colour": tuple(COLOUR),
                "cycles": ("paper", "released"),
                "reduction": ("all_nodes", "masked_nodes"),
                "node_alignment": ("exact", "as_released"),
            },
        )
        shortest = 3 if self.cycles == "released" else 2
        if self.clip_length < shortest:
            raise ValueError(
                f"clip_length is {self.clip_length}; cycles={self.cycles!r} needs at least {shortest} frames"
            )
        if self.crop_size < 16:
            raise ValueError(f"crop_size is {self.crop_size}; expected at least 16 pixels")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; expected a number above 0")


class STFC3Views:
    """From a clip to the forward and backward crops (Eq. 4). Picklable; draws everything from the generator."""

    def __init__(self, config: STFC3Config) -> None:
        """`config` decides crops, flips and colour."""
        self.config = config

    def __call__(self, clip: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Two transformed copies of a clip.

        Args:
            clip: uint8 (T, 3, H, W), RGB.
            generator: randomness.

        Returns:
            forward: (T, 3, S, S), ImageNet-normalised, frames 0 .. T-1.
            backward: the same of the other crop, frames T-1 .. 0 (absent for FC3).
            reading: (2, 3), for each position of the backward crop the position to read in the forward crop, both in
                normalised coordinates of pixels (absent for FC3).
        """
        config = self.config
        if config.window_area != (1.0, 1.0):
            height, width = clip.shape[-2:]
            x0, y0, w, h = transforms.random_resized_box(
                height, width, config.window_area, config.crop_ratio, generator
            )
            clip = clip[..., y0 : y0 + h, x0 : x0 + w]
        frames = clip.float() / 255
        colour_forward, colour_backward = COLOUR[config.colour]
        jitter = self._frame_jitter(frames, generator)
        to_forward = self._crop_matrix(frames, generator)
        forward = transforms.crop(frames, to_forward @ jitter, config.crop_size)
        views = {"forward": _normalised(colour_forward(forward, generator))}
        if config.variant == "stfc3":
            to_backward = self._crop_matrix(frames, generator)
            backward = transforms.crop(frames, to_backward @ jitter, config.crop_size)
            views["backward"] = _normalised(colour_backward(backward, generator)).flip(0)
            views["reading"] = warp.reading_matrix(to_forward, to_backward).float()
        return views

    def _crop_matrix(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """One crop and flip for all frames: (3, 3), frame -> crop."""
        height, width = frames.shape[-2:]
        box = transforms.random_resized_box(
            height, width, self.config.crop_area, self.config.crop_ratio, generator
        )
        flip = torch.rand((), generator=generator) < self.config.flip_probability
        return warp.crop_matrix(torch.tensor(box), flip, height, width)

    def _frame_jitter(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """A crop of its own for every frame, the same for forward and backward copies: (T, 3, 3)."""
        count, _, height, width = frames.shape
        if not self.config.frame_jitter:
            return torch.eye(3, dtype=torch.float64).expand(count, 3, 3)
        boxes = [
            transforms.random_resized_box(height, width, (0.8, 0.95), self.config.crop_ratio, generator)
            for _ in range(count)
        ]
        return warp.crop_matrix(torch.tensor(boxes), torch.zeros(count, dtype=torch.bool), height, width)


def _normalised(frames: Tensor) -> Tensor:
    return transforms.standardise(frames, IMAGENET_MEAN, IMAGENET_STD)


class STFC3(nn.Module):
    """Encoder, projector and the loss."""

    def __init__(self, encoder: ResNet, config: STFC3Config) -> None:
        """`encoder` ends at the layer that the projector stands on (layer4 in the paper)."""
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = Projector(encoder.out_channels, config.projector_hidden, config.projector_outputs)

    def forward(self, views: dict[str, Tensor], generator: torch.Generator | None = None) -> Losses:
        """Loss of a batch.

        Args:
            views: a batch of `STFC3Views`: forward and backward (B, T, 3, S, S), reading (B, 2, 3).
            generator: randomness of the edge dropout, on the device of the views; None is torch's global one.

        Returns: Losses; terms: cycle (Eq. 13, of all cycles), accuracy (share of walkers that come home, mean over
            cycles), direct (where its weight is not 0) and feature_std (standard deviation of the normalised features
            over everything but channels, mean over channels: 0 when all nodes look the same).
        """
        config = self.config
        crops = [views[name] for name in ("forward", "backward") if name in views]
        batch, length, _, height, width = crops[0].shape
        # Forward and backward frames share one BatchNorm batch, as in the released code.
        maps = self.head(self.encoder(torch.cat(crops).flatten(0, 1)))  # Eq. (5)
        maps = maps.float().reshape(len(crops) * batch, length, *maps.shape[1:])  # (2B or B, T, C, h, w)
        # Products of transitions are probabilities down to 1e-7: half precision ends at the encoder.
        with torch.autocast(maps.device.type, enabled=False):
            if config.variant == "fc3":
                losses = fc3_loss(maps, config, generator)
            else:
                reading = views["reading"]
                if config.node_alignment == "exact":
                    h, w = maps.shape[-2:]
                    reading = warp.on_nodes(
                        reading, height, width, self.encoder.stride, h, w, self.encoder.origin
                    )
                feat_forward, feat_backward = maps.tensor_split(2)
                losses = stfc3_loss(feat_forward, feat_backward, reading, config, generator)
        with torch.no_grad():
            losses.terms["feature_std"] = normalise(maps, dim=2).std(dim=(0, 1, 3, 4)).mean()
        return losses


def stfc3_loss(
    feat_forward: Tensor,
    feat_backward: Tensor,
    reading: Tensor,
    config: STFC3Config,
    generator: torch.Generator | None = None,
) -> Losses:
    """The loss from features on (Eq. 6-13).

    Args:
        feat_forward: (B, T, C, h, w), frames 0 .. T-1, not normalised.
        feat_backward: (B, T, C, h, w), frames T-1 .. 0.
        reading: (B, 2, 3), for each node of the backward map where to read in the forward map.
        config: temperature, dropout, cycles, targets, normalisation.
        generator: randomness of the edge dropout.

    Returns: Losses; terms: cycle, accuracy, direct (where its weight is not 0).
    """
    length, (h, w) = feat_forward.shape[1], feat_forward.shape[-2:]
    forward, backward = normalise(feat_forward, dim=2), normalise(feat_backward, dim=2)
    warped = warp.read(forward.flatten(0, 1), reading.repeat_interleave(length, dim=0))  # Eq. (9)
    warped = to_nodes(normalise(warped, dim=1).reshape(forward.shape))  # (B, T, N, C), Eq. (10)
    # Frames are taken apart at once: the gradient of every index into a clip would be a whole clip, nearly all zeros.
    frames, copies, starts = (nodes.unbind(1) for nodes in (to_nodes(forward), to_nodes(backward), warped))
    mask = warp.inside_mask(reading, (h, w))  # (B, N), Eq. (11)

    def step(queries: Tensor, keys: Tensor) -> Tensor:  # Eq. (7)
        return transition(
            affinity(queries, keys), config.temperature, edge_dropout=config.edge_dropout, generator=generator
        )

    homes = cycles.nested_homes(  # Eq. (8)
        [step(frames[t], frames[t + 1]) for t in range(1, length - 1)],
        step(frames[-1], copies[0]),
        [step(copies[t], copies[t + 1]) for t in range(length - 1)],
    )
    outs = [step(starts[s], frames[s + 1]) for s in _starts(length, config)]
    losses = _homecoming(outs, homes, mask, (h, w), config)  # Eq. (12), (13)
    if config.direct_weight > 0:
        straight = step(warped.flatten(0, 1), to_nodes(backward).flip(1).flatten(0, 1))  # (B * T, N, N)
        probability = straight.diagonal(dim1=-2, dim2=-1).reshape(len(mask), -1)  # (B, T * N)
        direct = cycles.cycle_cross_entropy(probability, mask.repeat(1, length), reduction=config.reduction)
        losses.terms["direct"] = direct.detach()
        losses.total = losses.total + config.direct_weight * direct
    return losses


def fc3_loss(feat: Tensor, config: STFC3Config, generator: torch.Generator | None = None) -> Losses:
    """Vanilla FC3: out and back over the same features (Eq. 2-3), cycles as in `stfc3_loss`.

    Args:
        feat: (B, T, C, h, w), not normalised.
        config: temperature, dropout, cycles, targets, normalisation.
        generator: randomness of the edge dropout.

    Returns: Losses; terms: cycle, accuracy.
    """
    length, (h, w) = feat.shape[1], feat.shape[-2:]
    nodes = to_nodes(normalise(feat, dim=2)).unbind(1)  # T x (B, N, C)

    def step(queries: Tensor, keys: Tensor) -> Tensor:  # Eq. (3)
        return transition(
            affinity(queries, keys), config.temperature, edge_dropout=config.edge_dropout, generator=generator
        )

    outs = [step(nodes[t], nodes[t + 1]) for t in range(length - 1)]
    back = [step(nodes[t + 1], nodes[t]) for t in reversed(range(length - 1))]
    # The walk turns on the last frame itself: it goes to the last frame and at once one step back.
    homes = [*cycles.nested_homes(outs[1:-1], outs[-1] @ back[0], back[1:]), back[0]]
    return _homecoming([outs[start] for start in _starts(length, config)], homes, None, (h, w), config)


def _starts(length: int, config: STFC3Config) -> range:
    """Frames that cycles start at, in a clip of `length` frames."""
    return range(length - 1 if config.cycles == "paper" else length - 2)


def _homecoming(
    outs: list[Tensor], homes: list[Tensor], mask: Tensor | None, size: tuple[int, int], config: STFC3Config
) -> Losses:
    """Cross-entropy of coming home, over the cycles `outs[s] @ homes[s]` (Eq. 12-13), and their accuracy.

    The cycles are summed as in the paper, or averaged as in the released code.
    """
    target: Tensor | None = None  # only the node itself is home
    if config.target_radius >= 1:
        near = neighborhood.neighbours(*size, config.target_radius, config.target_norm)
        target = near.to(outs[0].device)
    walks = list(zip(outs, homes, strict=False))  # `homes` has one more where cycles="released"
    losses = torch.stack(
        [
            cycles.cycle_cross_entropy(
                cycles.return_probability(out, home, target), mask, reduction=config.reduction
            )
            for out, home in walks
        ]
    )
    total = losses.sum() if config.reduction == "all_nodes" else losses.mean()
    with torch.no_grad():
        right = [cycles.cycle_accuracy(out @ home, mask, target) for out, home in walks]
    return Losses(total, {"cycle": total.detach(), "accuracy": torch.stack(right).mean()})


def released(config: STFC3Config) -> STFC3Config:
    """The same configuration, every departure decided as in the released code."""
    return replace(
        config,
        window_area=(1.0, 1.0),
        cycles="released",
        reduction="masked_nodes",
        node_alignment="as_released",
        frame_jitter=True,
        colour="released",
        direct_weight=0.0,
    )
