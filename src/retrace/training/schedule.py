"""Optimiser and learning rate, step by step."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights move.

    Attributes:
        name: adam, adamw (decoupled decay) or sgd (Nesterov-free momentum).
        lr: learning rate after the warm-up.
        betas: of adam and adamw.
        momentum: of sgd.
        weight_decay: on every parameter, as the papers have it.
        clip: largest gradient norm; 0 clips nothing.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip: float = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves, per optimiser step.

    Attributes:
        name: constant, cosine (half a period from lr to lr * final over the run), exponential (by the same factor every
            step, from lr to lr * final) or step.
        warmup: steps of linear rise to lr.
        warmup_from: factor on lr of the first step; null takes 1 / (warmup + 1).
        final: factor on lr that cosine and exponential end with.
        milestones: steps after which the step schedule multiplies by `factor`.
        warmup_epochs: in the place of warmup, passes over the footage.
        milestone_epochs: in the place of milestones, passes over the footage.
        factor: of the step schedule.
    """

    name: Literal["constant", "cosine", "exponential", "step"] = "constant"
    warmup: int = 0
    warmup_from: float | None = None
    final: float = 0.0
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    warmup_epochs: float | None = None
    milestone_epochs: tuple[float, ...] = ()


def lr_factor(config: ScheduleConfig, steps: int) -> Callable[[int], float]:
    """Function of the number of steps done so far -> factor on the learning rate of the next step.

    It depends on nothing else, so a resumed run continues exactly. With warm-up w the first step uses 1 / (w + 1), or
    `warmup_from`, and step w the full rate; cosine starts its fall where the warm-up ends.
    """

    def factor(done: int) -> float:
        if done < config.warmup:
            first = 1 / (config.warmup + 1) if config.warmup_from is None else config.warmup_from
            return first + (1 - first) * done / config.warmup
        progress = min(1.0, (done - config.warmup) / max(1, steps - config.warmup))
        if config.name == "exponential":
            return math.pow(config.final, progress)
        if config.name == "cosine":
            return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress))
        if config.name == "step":
            return config.factor ** sum(done >= milestone for milestone in config.milestones)
        return 1.0

    return factor


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser of a configuration over the parameters that want a gradient."""
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    if config.name == "sgd":
        return torch.optim.SGD(
            wanted, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(wanted, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
