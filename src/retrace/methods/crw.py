"""CRW: the contrastive random walk over patches.

Jabri, Owens, Efros: "Space-Time Correspondence as a Contrastive Random Walk", NeurIPS 2020. Its text is not among the
papers of this project; the equations below are numbered as section 3.1 of `papers/stfc3.txt` restates them.

| paper | here | shape |
|---|---|---|
| I_t | clip | (T, 3, H, W), uint8 |
| P_t^i | patches | (B, T, N, 3, p, p) |
| phi(P_t^i) | nodes | (B, T, N, C), L2-normalised |
| A_t^{t+1} (Eq. 1) | ahead[t], back[t] its way back | (B, N, N) |
| A_1^T, A_T^1 (Eq. 2) | out, home | (B, N, N) |
| tau | temperature | |

`nodes="cells"` is the fully convolutional use: the nodes are the cells of the whole frame's map.

Departures, and what the released code does otherwise (options in brackets):

1. Time is counted from 0 here. Palindromes start at frame 0, turn at frames 2 .. T - 1, and their losses are averaged,
   as released [`shortest_turn=1` adds the shortest one].
2. The released code drops edges in place on affinities that both ways share: the way back loses the edges of the way
   out as well as its own, 19 % in the place of 10 %. Ours draws for each way [`edge_draws="released"`].
3. The paper's own numbers come from code that multiplied the transitions in the wrong order, as its authors say beside
   the corrected code, for which they lowered the temperature from 0.07 to 0.05 [`product="flipped"`].
4. The released code first crops every frame by itself [`frame_jitter=True`]; `colour_jitter` is its option, off in its
   published command.
5. Targets by Sinkhorn-Knopp are an experiment in the released code that cannot run (a name in it is not defined),
   multiplies in the wrong order and drops edges. Ours walks in order and drops nothing [`targets="sinkhorn"`].
   `transition="sinkhorn"` is the option that the released code declares and never uses.
6. Ours alone: ImageNet's mean and standard deviation (the released training has CIFAR's); a patch is read out of the
   frame once, bilinear without anti-aliasing, whatever crops it went through; feature dropout draws from the same
   generator as edge dropout.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from retrace.encoders.heads import node_head
from retrace.encoders.model import IMAGENET_MEAN, IMAGENET_STD
from retrace.encoders.resnet import ResNet
from retrace.methods.checks import check_choices
from retrace.methods.losses import Losses
from retrace.video import transforms
from retrace.video.transforms import ColourAugmentation
from retrace.walk import cycles, warp
from retrace.walk.affinity import FORBIDDEN, affinity, transition
from retrace.walk.nodes import normalise, patch_corners, to_nodes
from retrace.walk.sinkhorn import sinkhorn

_FRAME_AREA = (0.8, 0.95)  # of the released crop of every frame by itself
_FRAME_RATIO = (0.7, 1.3)
_EPSILON = 1e-20  # inside the logarithm, as released


@dataclass(frozen=True)
class CRWConfig:
    """Everything the paper and the released code name.

    Attributes:
        clip_length: T, frames.
        nodes: "patches" of a grid, or "cells" of the map of whole frames.
        image_size: side that frames are brought to, pixels.
        patch_size: p, pixels.
        patch_stride: pixels from one patch of the grid to the next.
        patch_area: range of the share of a patch that its own crop keeps.
        patch_ratio: range of width / height of that crop.
        frame_jitter: crop every frame by itself first (area .8-.95), as the released code does.
        colour_jitter: strength of brightness, contrast and saturation, drawn for each frame; 0.1 is the released
            option.
        temperature: tau of Eq. 1.
        edge_dropout: probability that an edge of a transition is dropped.
        edge_draws: "right" draws for each way by itself, "released" lets the way back lose both; departure 2.
        feature_dropout: probability that a value of the encoder's map is set to 0 (the others grow accordingly).
        shortest_turn: frame at which the shortest palindrome turns, 1 to T - 1; departure 1.
        product: "right", or "flipped" as in the code behind the paper; departure 3.
        targets: "home" (Eq. 2), or "sinkhorn" targets for walks that do not come back; departure 5.
        transition: "softmax" (Eq. 1) or "sinkhorn"; departure 5.
        head_depth: hidden layers of the head; 0 is one linear layer, -1 no head.
        head_outputs: C of the nodes.
    """

    clip_length: int = 4
    nodes: str = "patches"
    image_size: int = 256
    patch_size: int = 64
    patch_stride: int = 32
    patch_area: tuple[float, float] = (0.7, 0.9)
    patch_ratio: tuple[float, float] = (0.75, 4 / 3)
    frame_jitter: bool = False
    colour_jitter: float = 0.0
    temperature: float = 0.05
    edge_dropout: float = 0.1
    edge_draws: str = "right"
    feature_dropout: float = 0.0
    shortest_turn: int = 2
    product: str = "right"
    targets: str = "home"
    transition: str = "softmax"
    head_depth: int = 0
    head_outputs: int = 128

    def __post_init__(self) -> None:
        """Errors: ValueError naming the field, what it was and what it may be."""
        check_choices(
            self,
            {
                "nodes": ("patches", "cells"),
                "edge_draws": ("right", "released"),
                "product": ("right", "flipped"),
                "targets": ("home", "sinkhorn"),
                "transition": ("softmax", "sinkhorn"),
            },
        )
        if not 1 <= self.shortest_turn < self.clip_length:
            raise ValueError(
                f"shortest_turn is {self.shortest_turn} with clip_length {self.clip_length}; "
                "expected a frame from 1 to clip_length - 1"
            )
        if self.nodes == "patches" and not 2 <= self.patch_size < self.image_size:
            raise ValueError(
                f"patch_size is {self.patch_size}; expected at least 2 and less than image_size, {self.image_size}"
            )
        if self.patch_stride < 1:
            raise ValueError(f"patch_stride is {self.patch_stride}; expected at least 1 pixel")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; expected a number above 0")
        for name in ("edge_dropout", "feature_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a probability below 1")
        if self.head_depth < -1:
            raise ValueError(f"head_depth is {self.head_depth}; expected -1 (no head) or more")


class CRWViews:
    """From a clip to the patches of every frame. Picklable; draws everything from the generator."""

    def __init__(self, config: CRWConfig) -> None:
        """`config` decides size, grid, crops and colour."""
        self.config = config

    def __call__(self, clip: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Patches, or whole frames, of a clip.

        Args:
            clip: uint8 (T, 3, H, W), RGB.
            generator: randomness.

        Returns:
            patches: (T, N, 3, p, p), ImageNet-normalised, row by row of the grid; or, where cells are nodes,
            frames: (T, 3, S, S).
        """
        config, size = self.config, self.config.image_size
        frames = clip.float() / 255
        if config.colour_jitter > 0:
            strength = config.colour_jitter
            frames = ColourAugmentation((strength, strength, strength, 0.0), 1.0)(frames, generator)
        frames = transforms.standardise(frames, IMAGENET_MEAN, IMAGENET_STD)
        to_image = self._frame_matrices(frames, generator)  # (T, 3, 3)
        if config.nodes == "cells":
            return {"frames": transforms.crop(frames, to_image, size)}
        corners = patch_corners(size, size, config.patch_size, config.patch_stride)  # (N, 2)
        boxes = transforms.random_resized_boxes(
            len(frames) * len(corners),
            config.patch_size,
            config.patch_size,
            config.patch_area,
            config.patch_ratio,
            generator,
        ).reshape(len(frames), len(corners), 4)
        boxes[..., :2] += corners
        to_patch = warp.crop_matrix(boxes, torch.zeros(boxes.shape[:2], dtype=torch.bool), size, size)
        reading = torch.linalg.inv(to_patch @ to_image[:, None])[..., :2, :]  # (T, N, 2, 3)
        return {"patches": warp.read_many(frames, reading, (config.patch_size, config.patch_size))}

    def _frame_matrices(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Frame -> image of S x S pixels: the whole frame, or a crop of its own for every frame; (T, 3, 3)."""
        count, _, height, width = frames.shape
        boxes = torch.tensor([0, 0, width, height]).expand(count, 4)
        if self.config.frame_jitter:
            boxes = transforms.random_resized_boxes(
                count, height, width, _FRAME_AREA, _FRAME_RATIO, generator
            )
        return warp.crop_matrix(boxes, torch.zeros(count, dtype=torch.bool), height, width)


class CRW(nn.Module):
    """Encoder, head and the loss."""

    def __init__(self, encoder: ResNet, config: CRWConfig) -> None:
        """`encoder` ends at the layer that nodes are made of (layer4 in the paper)."""
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = node_head(encoder.out_channels, config.head_outputs, config.head_depth)

    def forward(self, views: dict[str, Tensor], generator: torch.Generator | None = None) -> Losses:
        """Loss of a batch.

        Args:
            views: a batch of `CRWViews`: patches (B, T, N, 3, p, p) or frames (B, T, 3, S, S).
            generator: randomness of the dropouts, on the device of the views; None is torch's global one.

        Returns: Losses; terms as in `crw_loss`, and feature_std (standard deviation of the normalised nodes over
            everything but channels, mean over channels: 0 when all nodes look the same).
        """
        if self.config.nodes == "patches":
            leading = views["patches"].shape[:3]
            maps = self._dropped(self.encoder(views["patches"].flatten(0, 2)), generator)
            features = maps.mean((-2, -1)).reshape(*leading, -1)  # (B, T, N, D): a patch is one node
        else:
            leading = views["frames"].shape[:2]
            maps = self._dropped(self.encoder(views["frames"].flatten(0, 1)), generator)
            features = to_nodes(maps.reshape(*leading, *maps.shape[1:]))  # (B, T, N, D): a cell is one node
        nodes = normalise(self.head(features).float(), dim=-1)
        # Products of transitions are probabilities down to 1e-20: half precision ends at the nodes.
        with torch.autocast(nodes.device.type, enabled=False):
            losses = crw_loss(nodes, self.config, generator)
        with torch.no_grad():
            losses.terms["feature_std"] = nodes.std(dim=(0, 1, 2)).mean()
        return losses

    def _dropped(self, maps: Tensor, generator: torch.Generator | None) -> Tensor:
        """Feature dropout, in training only."""
        rate = self.config.feature_dropout
        if rate == 0 or not self.training:
            return maps
        draw = torch.rand(maps.shape, generator=generator, device=maps.device)
        return maps * (draw >= rate) / (1 - rate)


def crw_loss(nodes: Tensor, config: CRWConfig, generator: torch.Generator | None = None) -> Losses:
    """The loss from nodes on (Eq. 1-2).

    Args:
        nodes: (B, T, N, C), L2-normalised.
        config: temperature, dropout, palindromes, targets.
        generator: randomness of the edge dropout.

    Returns: Losses; the total is the mean over walks; terms: cycle_t, the loss of the walk that turns (with Sinkhorn
        targets: ends) at frame t; accuracy, the share of walkers whose most likely end is their target.
    """
    affinities = affinity(nodes[:, :-1], nodes[:, 1:])  # (B, T - 1, N, N), of frames t and t + 1
    ahead, back = _transitions(affinities, config, generator)
    if config.targets == "sinkhorn":
        walks = _towards_targets(affinities, ahead, config)
    else:
        if config.product == "flipped":
            ahead, back = back, ahead
        pairs = cycles.prefix_palindromes(ahead.unbind(1), back.unbind(1))
        walks = []
        for out, home in pairs[config.shortest_turn - 1 :]:
            with torch.no_grad():
                accuracy = cycles.cycle_accuracy(out @ home)
            walks.append((cycles.return_probability(out, home), accuracy))
    losses = [cycles.cycle_cross_entropy(right, epsilon=_EPSILON) for right, _ in walks]  # Eq. (2)
    turns = range(config.shortest_turn, nodes.shape[1])
    terms = {f"cycle_{turn}": loss.detach() for turn, loss in zip(turns, losses, strict=True)}
    terms["accuracy"] = torch.stack([accuracy for _, accuracy in walks]).mean()
    return Losses(torch.stack(losses).mean(), terms)


def _transitions(
    affinities: Tensor, config: CRWConfig, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """All steps out and all steps home, each (B, T - 1, N, N), from the affinities of neighbouring frames (Eq. 1)."""
    ways = (affinities, affinities.transpose(-2, -1))
    kept: tuple[Tensor | None, Tensor | None] = (None, None)
    if config.edge_dropout > 0:
        out, home = (
            torch.rand(way.shape, generator=generator, device=way.device) >= config.edge_dropout
            for way in ways
        )
        kept = (out, home & out.transpose(-2, -1) if config.edge_draws == "released" else home)

    def step(way: Tensor, mask: Tensor | None) -> Tensor:
        if config.transition == "softmax":
            return transition(way, config.temperature, mask=mask)  # Eq. (1)
        logits = way / config.temperature
        return sinkhorn(logits if mask is None else logits.masked_fill(~mask, FORBIDDEN))

    return step(ways[0], kept[0]), step(ways[1], kept[1])


def _towards_targets(affinities: Tensor, ahead: Tensor, config: CRWConfig) -> list[tuple[Tensor, Tensor]]:
    """Probability of ending on the Sinkhorn target, and accuracy, of the walks from frame 0 to every turning frame."""
    with torch.no_grad():
        sure = sinkhorn(affinities / config.temperature)  # (B, T - 1, N, N)
    walks = []
    for turn in range(config.shortest_turn, affinities.shape[1] + 1):
        out = cycles.chain(ahead[:, :turn].unbind(1))
        with torch.no_grad():
            evened = sinkhorn(cycles.chain(sure[:, :turn].unbind(1)).log(), tolerance=1e-3, max_iterations=10)
            target = evened.argmax(-1, keepdim=True)  # (B, N, 1)
            accuracy = (out.argmax(-1, keepdim=True) == target).to(out.dtype).mean()
        walks.append((out.gather(-1, target).squeeze(-1), accuracy))
    return walks


def released(config: CRWConfig) -> CRWConfig:
    """The same configuration, every departure decided as in the (corrected) released code."""
    return replace(
        config,
        shortest_turn=2,
        edge_draws="released",
        product="right",
        frame_jitter=True,
        targets="home",
        transition="softmax",
    )
