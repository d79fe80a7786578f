"""Learning rates by hand."""

import math

import pytest
import torch
from torch import nn

from retrace.training.schedule import OptimizerConfig, ScheduleConfig, lr_factor, make_optimizer


def test_warmup_then_constant():
    """Linear up to the full rate, which step `warmup` is the first to use."""
    factor = lr_factor(ScheduleConfig(warmup=3), 10)
    assert [factor(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_warmup_from_a_factor():
    """Linear from there, and the cosine after it."""
    factor = lr_factor(ScheduleConfig(name="cosine", warmup=4, warmup_from=0.2, final=0.0), 10)
    assert [factor(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_cosine_falls_to_its_final_factor():
    """Half a period between the end of the warm-up and the end of the run; flat beyond."""
    factor = lr_factor(ScheduleConfig(name="cosine", warmup=2, final=0.1), 10)
    assert factor(2) == 1.0
    assert factor(6) == pytest.approx(0.1 + 0.9 * 0.5)
    assert factor(4) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert factor(10) == factor(12) == pytest.approx(0.1)


def test_steps_multiply():
    """A milestone holds from the step of its number on."""
    factor = lr_factor(ScheduleConfig(name="step", milestones=(2, 4), factor=0.5), 10)
    assert [factor(step) for step in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_optimizers_take_what_wants_a_gradient(name, kind):
    """Frozen parameters stay out, so that weight decay does not move them."""
    layer = nn.Linear(2, 3)
    layer.bias.requires_grad_(False)
    optimizer = make_optimizer(
        layer.parameters(),
        OptimizerConfig(name=name, lr=0.2, weight_decay=0.1, momentum=0.5, betas=(0.5, 0.9)),
    )
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert [parameter.shape for parameter in group["params"]] == [(3, 2)]
    assert (group["lr"], group["weight_decay"]) == (0.2, 0.1)
    if name == "sgd":
        assert group["momentum"] == 0.5
    else:
        assert group["betas"] == (0.5, 0.9)


def test_exponential_falls_by_the_same_factor():
    """From 1 to `final`, and not below."""
    factor = lr_factor(ScheduleConfig(name="exponential", final=0.01, warmup=2), 12)
    assert factor(2) == pytest.approx(1)
    assert factor(7) == pytest.approx(0.1)
    assert factor(12) == factor(20) == pytest.approx(0.01)
    assert factor(4) / factor(3) == pytest.approx(factor(9) / factor(8))
