"""The Lightning module around a method: optimiser, clipping, memory format, averaged weights; nothing of the method."""

import copy
import hashlib
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from retrace.encoders.resnet import trains_channels_last
from retrace.training.schedule import OptimizerConfig, ScheduleConfig, lr_factor, make_optimizer


def step_seed(seed: int, step: int, part: int, rank: int) -> int:
    """64-bit seed of one forward pass: a function of the run's seed, optimiser step, accumulation part and rank."""
    digest = hashlib.sha256(f"retrace step {seed} {step} {part} {rank}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # torch wants it signed


class TrainingModule(L.LightningModule):
    """A method in training.

    Whatever a method draws in the main process (edge dropout) comes from torch's global generator, which is seeded
    before every forward pass from (seed, step, accumulation part, rank). So no generator state has to be saved: a
    resumed run draws what the uninterrupted run would have drawn.

    Attributes:
        method: nn.Module with an `encoder`; called with the views of a batch, returns Losses.
        averaged: exponential moving average of the encoder, or None.
        terms: detached scalars of the last forward pass and update: loss, the method's terms, grad_norm.
        rate: learning rate of the last update.
    """

    def __init__(
        self,
        method: nn.Module,
        *,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        steps: int,
        seed: int,
        accumulate: int = 1,
        ema: float = 0.0,
        channels_last: bool = True,
    ) -> None:
        """See TrainConfig for the meaning of every argument."""
        super().__init__()
        self.method = method
        self.optimizer_config = optimizer
        self.schedule_config = schedule
        self.steps = steps
        self.seed = seed
        self.accumulate = accumulate
        self.ema = ema
        encoder = self.encoder
        self.channels_last = channels_last and trains_channels_last(encoder)
        if self.channels_last:
            copies = [
                part for part in method.modules() if isinstance(part, type(encoder))
            ]  # a momentum encoder, a teacher
            for part in (encoder, *copies):
                part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged: nn.Module | None = None
        if ema > 0:
            self.averaged = copy.deepcopy(encoder).requires_grad_(False)
        self.terms: dict[str, Tensor] = {}
        self.rate = 0.0

    @property
    def encoder(self) -> nn.Module:
        """The encoder being trained."""
        encoder = self.method.encoder
        assert isinstance(encoder, nn.Module)
        return encoder

    def export_encoder(self) -> nn.Module:
        """The encoder to keep: averaged where averaging is on, on the CPU, in eval mode, plain memory format."""
        source = self.encoder if self.averaged is None else self.averaged
        encoder = copy.deepcopy(source).requires_grad_(True).cpu()
        encoder.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return encoder.eval()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Bring images (4-D) into the memory format of the encoder."""
        if not self.channels_last:
            return batch
        return {
            name: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
            for name, value in batch.items()
        }

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed what the method draws."""
        part = batch_idx % self.accumulate
        torch.manual_seed(step_seed(self.seed, self.global_step, part, self.global_rank))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Views -> scalar loss. What the method does once per optimiser step is done round all its forward passes."""
        method: Any = self.method
        part = batch_idx % self.accumulate
        if part == 0 and hasattr(method, "begin_step"):
            method.begin_step()
        losses = method(batch)
        if part == self.accumulate - 1 and hasattr(method, "end_step"):
            method.end_step()
        self.terms = {"loss": losses.total.detach()}
        self.terms.update((name, value.detach()) for name, value in losses.terms.items())
        total: Tensor = losses.total
        return total

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Measure the norm of the gradient, and clip it where the configuration says so."""
        limit = self.optimizer_config.clip or float("inf")
        self.rate = optimizer.param_groups[0]["lr"]
        self.terms["grad_norm"] = nn.utils.clip_grad_norm_(self.method.parameters(), limit).detach()

    def configure_optimizers(self) -> Any:
        """Optimiser and per-step learning rate."""
        optimizer = make_optimizer(self.method.parameters(), self.optimizer_config)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(self.schedule_config, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average towards the encoder; called once after every optimiser step.

        Early on the average forgets faster, min(ema, (1 + step) / (10 + step)), so that it does not carry the random
        initialisation for 1 / (1 - ema) steps.
        """
        if self.averaged is None:
            return
        decay = min(self.ema, (1 + self.global_step) / (10 + self.global_step))
        for mean, value in zip(
            self.averaged.state_dict().values(), self.encoder.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)  # counters of batch norm
