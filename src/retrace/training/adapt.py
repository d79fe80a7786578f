"""Adapt a model to one video: a few self-supervised steps on the very frames it will be used on."""

import copy
import math
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from retrace.encoders.heads import take_over
from retrace.encoders.model import IMAGENET_MEAN, IMAGENET_STD, Model
from retrace.encoders.resnet import ResNet, trains_channels_last
from retrace.errors import RetraceError, UsageError
from retrace.methods.stfc3 import STFC3, STFC3Config, STFC3Views
from retrace.training.schedule import ScheduleConfig, lr_factor
from retrace.training.stream import ClipStream
from retrace.video.cache import FrameCache
from retrace.video.decode import probe
from retrace.video.loader import ClipDataset, FootageSource
from retrace.video.sampling import EvenSampling


@dataclass(frozen=True)
class AdaptConfig:
    """How to adapt. The defaults suit a clip of seconds to minutes and a small encoder on a laptop.

    Attributes:
        stfc3: the method's settings.
        lr: learning rate after the warm-up, of the encoder and of a projector that the model brings; cosine to 0.
        head_lr: of a projector that begins from nothing because the model does not bring its own.
        warmup: share of the steps in which the learning rates rise: the fresh projector must not wreck the encoder.
        clip: largest gradient norm.
        batch_size: clips per step.
        stride: frames of the video from one clip frame to the next.
        short_side: frames are reduced to this short side, pixels.
    """

    stfc3: STFC3Config = STFC3Config(
        clip_length=3,
        crop_size=128,
        window_area=(0.05, 0.5),
        crop_area=(0.2, 1.0),
        colour="mild",
        reduction="masked_nodes",  # a small batch: its loss must not jump with how far the two crops overlap
        projector_hidden=512,
        projector_outputs=128,
        direct_weight=1.0,
    )
    lr: float = 1e-4
    head_lr: float = 1e-3
    warmup: float = 0.1
    clip: float = 5.0
    batch_size: int = 4
    stride: int = 3
    short_side: int = 480


def adapt_model(
    model: Model,
    video: str | Path,
    steps: int,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: bool = True,
    config: AdaptConfig | None = None,
) -> Model:
    """Train a copy of a model on the frames of one video with STFC3, without labels.

    The frames are decoded once, in order, into a temporary cache on disk, so memory does not grow with the video.
    A video that breaks in the middle is used up to the break.

    Args:
        model: with a ResNet; it is not changed.
        video: a video file or a frame folder.
        steps: of training; 0 returns an equal model.
        seed: of clips, crops, dropout and the projector.
        device: where to train.
        progress: draw a progress bar on stderr.
        config: how; None takes the defaults.

    Returns: a new model on the CPU, its card saying that it was adapted.

    Errors: UsageError for a model that cannot be trained; RetraceError when the video cannot be read or the loss is not
    finite.
    """
    config = config or AdaptConfig()
    if not isinstance(model.encoder, ResNet):
        raise UsageError(
            f"Model {model.name!r} has no ResNet that could be trained on your video. "
            "Leave out --adapt, or take another model."
        )
    if (model.colour, tuple(model.mean), tuple(model.std)) != ("rgb", IMAGENET_MEAN, IMAGENET_STD):
        raise UsageError(
            f"Model {model.name!r} wants {model.colour} images normalised by {model.mean}, {model.std}; adapting needs "
            "rgb and ImageNet's numbers. Leave out --adapt, or take another model."
        )
    if steps < 0:
        raise UsageError(f"Adapt for {steps} steps? Give 0 or more.")
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        method = STFC3(copy.deepcopy(model.encoder).float().requires_grad_(True), config.stfc3)
    brought = take_over(method.head, model.head)
    with tempfile.TemporaryDirectory(prefix="retrace-adapt-", ignore_cleanup_errors=True) as folder:
        record, _ = probe(video)
        cache = FrameCache(folder, short_side=config.short_side)
        with tqdm(
            total=record.num_frames, desc="frames", unit="frame", disable=not progress, dynamic_ncols=True
        ) as bar:
            cache.fill(record, bar.update)
        source = FootageSource([record], cache, EvenSampling(config.stfc3.clip_length, stride=config.stride))
        dataset = ClipDataset([source], [1.0], STFC3Views(config.stfc3), seed, steps * config.batch_size)
        workers = min(8, (os.cpu_count() or 1) // 2)
        stream = ClipStream(dataset, batch_size=config.batch_size, workers=workers)
        rates = (config.lr, config.lr if brought else config.head_lr)
        _train(method, stream, steps, config, rates, seed, device, progress)
    encoder = method.encoder.cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    card = {**model.card, "adapted": {"video": Path(video).name, "steps": steps, "seed": seed}}
    return replace(
        model, encoder=encoder.requires_grad_(False), name=f"{model.name}+adapt{steps}", card=card, sha256=""
    )


def _train(
    method: STFC3,
    stream: ClipStream,
    steps: int,
    config: AdaptConfig,
    rates: tuple[float, float],
    seed: int,
    device: torch.device,
    progress: bool,
) -> None:
    """The steps: a plain loop, because there is nothing to log, save or resume."""
    method.to(device).train()
    for layer in method.encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()  # crops of one video have other statistics than the whole frames that labels are carried over
    if trains_channels_last(method.encoder):
        method.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(
        [
            {"params": list(method.encoder.parameters()), "lr": rates[0]},
            {"params": list(method.head.parameters()), "lr": rates[1]},
        ]
    )
    schedule = ScheduleConfig(name="cosine", warmup=round(config.warmup * steps))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(schedule, steps))
    generator = torch.Generator(device).manual_seed(seed)
    batches = iter(stream)
    smooth = 0.0
    with tqdm(total=steps, desc="adapt", unit="step", disable=not progress, dynamic_ncols=True) as bar:
        for step in range(1, steps + 1):
            views = {name: value.to(device, non_blocking=True) for name, value in next(batches).items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                total = method(views, generator).total
            value = total.item()
            if not math.isfinite(value):
                raise RetraceError(
                    f"Adapting met a loss that is not a number in step {step}. "
                    "Propagate without --adapt, or with fewer steps."
                )
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            nn.utils.clip_grad_norm_(method.parameters(), config.clip)
            optimizer.step()
            scheduler.step()
            smooth = value if step == 1 else 0.9 * smooth + 0.1 * value
            bar.set_postfix_str(f"loss {smooth:.2f}", refresh=False)
            bar.update()
