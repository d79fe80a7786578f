"""Batch normalisation whose statistics are those of all processes together."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Sum(torch.autograd.Function):
    """Sum over the processes; so is the gradient, because every process's loss depends on every process's numbers."""

    @staticmethod
    def forward(ctx: Any, numbers: Tensor) -> Tensor:
        total = numbers.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def _sum(numbers: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(numbers)  # type: ignore[no-untyped-call]
    return total


class SyncedBatchNorm(_BatchNorm):
    """As torch's SyncBatchNorm, which refuses tensors on the CPU: there this one stands in for it."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape, normalised by mean and variance over everything but channels."""
        self._check_input_dim(input)
        if not self.training:
            return super().forward(input)
        dims = [0, *range(2, input.dim())]
        shape = (1, -1, *(1,) * (input.dim() - 2))
        numbers = input.to(torch.promote_types(input.dtype, torch.float32))
        here = numbers.new_tensor([input.numel() / input.shape[1]])
        total = _sum(torch.cat([numbers.sum(dims), here]))
        sums, count = total[:-1], total[-1].detach()
        mean = sums / count
        centred = numbers - mean.view(shape)
        variance = _sum(centred.square().sum(dims)) / count
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        result: Tensor = out.to(input.dtype)
        return result


def synchronise(module: nn.Module, device: torch.device) -> None:
    """Give every batch normalisation in `module` the statistics of all processes; names and tensors stay.

    With one process it would compute what it computes anyway.

    Args:
        module: changed in place.
        device: that it trains on.
    """
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                synced = SyncedBatchNorm(
                    child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
                )
                synced.weight, synced.bias = child.weight, child.bias
                for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                    setattr(synced, buffer, getattr(child, buffer))
                setattr(parent, name, synced.train(child.training))
