"""Training steps: loss and gradients of each method, at the paper's size and as the laptop recipe has it.

The plain way beside them is the same mathematics as one writes it down first: convolutions multiplied out, maps with
channels first, and the function of `PLAIN` in the place of the method's loss where there is one.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrace.encoders import winograd
from retrace.methods import METHODS, crw, stfc3, stt
from retrace.methods.crw import CRWConfig
from retrace.methods.losses import Losses
from retrace.methods.stfc3 import STFC3Config
from retrace.methods.stt import StTConfig
from retrace.training.config import TrainConfig
from retrace.training.data import build
from retrace.verbs.train import load_config
from retrace.walk import neighborhood, warp
from retrace.walk.nodes import normalise, to_nodes

Work = Callable[[], object]

# (case, recipe, flags): batches of the papers' recipes are 20 to 256 clips, for GPUs. The published teacher of StT is
# not at hand, so its case is the reconstruction with local distillation; shuffled statistics want 8 images and more.
STEPS = [
    ("CRW", "crw-kinetics", ["--batch_size=1"]),
    ("TimeCycle", "timecycle-vlog", ["--batch_size=1"]),
    ("VFS", "vfs-kinetics", ["--batch_size=2"]),
    ("MoCo", "moco-imagenet", ["--batch_size=2", "--moco.batch_groups=1"]),
    ("StT", "stt-youtubevos", ["--batch_size=1", "--stt.beta=0", "--encoder.cut=layer3"]),
    ("STFC3", "stfc3-kinetics", ["--batch_size=1"]),
    *(
        (f"{name}-laptop", f"{name}-laptop", [])
        for name in ("crw", "timecycle", "vfs", "moco", "stt", "stfc3")
    ),
]


def ours(recipe: str, flags: Sequence[str]) -> Work:
    """Loss and gradients of one batch, as training computes them; the number of clips."""
    config, method, views = _prepared(recipe, flags)
    for part in method.modules():
        if isinstance(part, type(method.encoder)):
            part.to(memory_format=torch.channels_last)
    return _step(config, method, views)


def plain(recipe: str, flags: Sequence[str]) -> Work:
    """The same the plain way; it changes this process for good."""
    config, method, views = _prepared(recipe, flags)
    winograd.CHANNELS = sys.maxsize
    if config.method in PLAIN:
        module, name, loss = PLAIN[config.method]
        setattr(module, name, loss)
    return _step(config, method, views)


def loader(recipe: str) -> Work:
    """A batch of generated clips with their views, one after the other in this process: what one worker does."""
    config = load_config(recipe)
    data = build(config, progress=False).dataset
    sample = iter(range(sys.maxsize))

    def work() -> dict[str, object]:
        for _ in range(config.batch_size):
            data[next(sample)]
        return {"clips": config.batch_size}

    return work


def _prepared(recipe: str, flags: Sequence[str]) -> tuple[TrainConfig, Any, dict[str, Tensor]]:
    """The method of a recipe and the views of a batch of noise: no step takes longer for what is seen."""
    config = load_config(recipe, *flags)
    torch.manual_seed(0)
    parts = METHODS[config.method]
    method = parts.module(config.encoder.build(), config.method_config).train()
    size = (config.clips.short_side or 256, round((config.clips.short_side or 256) * 4 / 3))
    make, generator = parts.views(config.method_config), torch.Generator().manual_seed(0)
    samples = [
        make(torch.randint(256, (config.clip_length, 3, *size), dtype=torch.uint8), generator)
        for _ in range(config.batch_size)
    ]
    return config, method, {name: torch.stack([one[name] for one in samples]) for name in samples[0]}


def _step(config: TrainConfig, method: nn.Module, views: dict[str, Tensor]) -> Work:
    def work() -> dict[str, object]:
        method.zero_grad()
        method(views).total.backward()
        return {"clips": config.batch_size}

    return work


def plain_stfc3_loss(
    feat_forward: Tensor,
    feat_backward: Tensor,
    reading: Tensor,
    config: STFC3Config,
    generator: torch.Generator | None = None,
) -> Losses:
    """As `stfc3.stfc3_loss` with the paper's reduction: every cycle multiplied out by itself, from its own features."""
    length = feat_forward.shape[1]
    mask = warp.inside_mask(reading, (feat_forward.shape[-2], feat_forward.shape[-1]))

    def step(a: Tensor, b: Tensor) -> Tensor:
        scores = to_nodes(a) @ to_nodes(b).transpose(1, 2)
        drop = torch.rand(scores.shape, generator=generator) < config.edge_dropout
        return (scores.masked_fill(drop, -1e20) / config.temperature).softmax(-1)

    def surprise(walk: Tensor) -> Tensor:
        return -((walk.diagonal(dim1=1, dim2=2) + 1e-7).log() * mask).mean()

    forward, backward = normalise(feat_forward, 2), normalise(feat_backward, 2)
    total = torch.zeros(())
    for start in range(length - 1):
        warped = normalise(warp.read(forward[:, start], reading), 1)
        way = [warped, *forward[:, start + 1 :].unbind(1), *backward[:, : length - start].unbind(1)]
        walk = step(way[0], way[1])
        for here, there in zip(way[1:], way[2:], strict=False):
            walk = walk @ step(here, there)
        total = total + surprise(walk)
    if config.direct_weight > 0:
        for t in range(length):
            warped = normalise(warp.read(forward[:, t], reading), 1)
            total = total + config.direct_weight * surprise(step(warped, backward[:, -1 - t])) / length
    return Losses(total, {})


def plain_crw_loss(nodes: Tensor, config: CRWConfig, generator: torch.Generator | None = None) -> Losses:
    """As `crw.crw_loss`: every palindrome multiplied out by itself."""

    def step(a: Tensor, b: Tensor) -> Tensor:
        scores = a @ b.transpose(1, 2)
        drop = torch.rand(scores.shape, generator=generator) < config.edge_dropout
        return (scores.masked_fill(drop, -1e20) / config.temperature).softmax(-1)

    losses = []
    for turn in range(config.shortest_turn, nodes.shape[1]):
        way = [*range(turn + 1), *reversed(range(turn))]
        walk = step(nodes[:, way[0]], nodes[:, way[1]])
        for here, there in zip(way[1:], way[2:], strict=False):
            walk = walk @ step(nodes[:, here], nodes[:, there])
        losses.append(-(walk.diagonal(dim1=1, dim2=2) + 1e-20).log().mean())
    return Losses(torch.stack(losses).mean(), {})


def plain_stt_loss(
    maps: Sequence[Tensor], strides: Sequence[int], lab: Tensor, dropped: Tensor, config: StTConfig
) -> Losses:
    """As `stt.stt_loss`, of two levels: whole matrices with minus infinity outside the windows, as released."""
    total, correlations = torch.zeros(()), []
    colour = lab.index_select(2, dropped)
    for features, stride, radius in zip(maps, strides, config.radius, strict=True):
        reference, target = to_nodes(features).unbind(1)
        allowed = neighborhood.square(features.shape[-2], features.shape[-1], radius)
        scores = target @ reference.transpose(1, 2) / features.shape[2] ** 0.5
        correlation = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        seen, wanted = colour[..., ::stride, ::stride].flatten(3).transpose(2, 3).unbind(1)  # (B, N, 1)
        total = total + config.value_scale * (correlation @ seen - wanted).abs().mean()
        correlations.append(correlation)
    fine, coarse = correlations
    batch, n, _ = fine.shape
    h, w = maps[0].shape[-2:]
    over_keys = F.avg_pool2d(fine.detach().view(batch, n, h, w), 2).flatten(2)  # (B, N, N / 4)
    over_both = F.avg_pool2d(over_keys.transpose(1, 2).reshape(batch, -1, h, w), 2).flatten(2).transpose(1, 2)
    entropy = torch.special.entr(coarse.detach()).sum(-1)
    place = int(config.keep_fraction * entropy.shape[1]) - 1
    kept = entropy > entropy.sort(dim=1, descending=True).values[:, place, None]
    total = total + config.alpha * (coarse - over_both).square()[kept].mean()
    return Losses(total, {})


PLAIN: dict[str, tuple[Any, str, Callable[..., Losses]]] = {
    "stfc3": (stfc3, "stfc3_loss", plain_stfc3_loss),
    "crw": (crw, "crw_loss", plain_crw_loss),
    "stt": (stt, "stt_loss", plain_stt_loss),
}
