"""The module around a method, piece by piece."""

import copy

import pytest
import torch
from torch import nn

from retrace.encoders.config import EncoderConfig
from retrace.training.module import TrainingModule, step_seed
from retrace.training.schedule import OptimizerConfig, ScheduleConfig


def make(**settings) -> TrainingModule:
    """Around a method of one convolution."""
    method = nn.Module()
    method.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    method = settings.pop("method", method)
    defaults = {"optimizer": OptimizerConfig(clip=0.5), "schedule": ScheduleConfig(), "steps": 5, "seed": 0}
    return TrainingModule(method, **{**defaults, **settings})


def test_copies_of_the_encoder_share_its_memory_format():
    """A momentum encoder sees the same images; heads stay as they are."""
    method = nn.Module()
    method.encoder, method.copy = (EncoderConfig(width=0.125, cut="layer1").build() for _ in range(2))
    method.head = nn.Conv2d(8, 4, 3)
    for wanted in (True, False):
        built = make(method=copy.deepcopy(method), channels_last=wanted).method
        for network in (built.encoder, built.copy):
            assert network.conv1.weight.is_contiguous(memory_format=torch.channels_last) == wanted
        assert built.head.weight.is_contiguous()


@pytest.mark.parametrize(("width", "cut", "wanted"), [(0.125, "layer2", False), (0.25, "layer2", True)])
def test_narrow_encoders_keep_their_memory_format(width, cut, wanted):
    """Otherwise oneDNN spoils the gradient of their strided shortcuts; here it is that of float64."""
    method = nn.Module()
    torch.manual_seed(0)
    method.encoder = EncoderConfig(width=width, cut=cut).build()
    module = make(method=method, channels_last=True)
    assert module.channels_last == wanted
    assert method.encoder.conv1.weight.is_contiguous(memory_format=torch.channels_last) == wanted
    exact = copy.deepcopy(method.encoder).double()
    images = torch.rand(2, 3, 96, 128)
    batch = module.on_after_batch_transfer({"image": images}, 0)
    method.encoder(batch["image"]).square().mean().backward()
    exact(images.double()).square().mean().backward()
    gradients = [network.layer2[0].downsample[0].weight.grad for network in (method.encoder, exact)]
    torch.testing.assert_close(gradients[0].double(), gradients[1], rtol=1e-3, atol=1e-5)


def test_seeds_of_steps_differ_in_every_argument():
    """And are the same for the same arguments."""
    seeds = {
        step_seed(*arguments)
        for arguments in [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    }
    assert len(seeds) == 5
    assert step_seed(3, 1, 4, 1) == step_seed(3, 1, 4, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_gradients_are_clipped_after_they_are_measured():
    """The logged norm is that of the whole gradient."""
    module = make()
    for parameter in module.method.parameters():
        parameter.grad = torch.ones_like(parameter)
    count = sum(parameter.numel() for parameter in module.method.parameters())
    optimizer = torch.optim.SGD(module.method.parameters(), lr=0.1)
    module.configure_gradient_clipping(optimizer)
    torch.testing.assert_close(module.terms["grad_norm"], torch.tensor(float(count)).sqrt())
    left = torch.cat([parameter.grad.flatten() for parameter in module.method.parameters()])
    torch.testing.assert_close(left.norm(), torch.tensor(0.5))
    assert module.rate == 0.1


def test_average_moves_weights_and_statistics_and_copies_counters(monkeypatch):
    """By hand, at a step where the decay is the early one and where it is the configured one."""
    module = make(ema=0.9)
    assert module.averaged is not None
    before = module.averaged[0].weight.clone()
    with torch.no_grad():
        module.encoder[0].weight.add_(1.0)
        module.encoder[1].running_mean.add_(1.0)
        module.encoder[1].num_batches_tracked.add_(7)
    for step, decay in ((4, 5 / 14), (1000, 0.9)):
        monkeypatch.setattr(TrainingModule, "global_step", step)
        with torch.no_grad():
            module.averaged[0].weight.copy_(before)
            module.averaged[1].running_mean.zero_()
        module.update_average()
        torch.testing.assert_close(module.averaged[0].weight, before + (1 - decay))
        torch.testing.assert_close(module.averaged[1].running_mean, torch.full((4,), 1 - decay))
        assert module.averaged[1].num_batches_tracked == 7
    assert not any(parameter.requires_grad for parameter in module.averaged.parameters())


def test_memory_format_of_encoder_images_and_export():
    """Channels-last inside, plain outside; values as they were; other tensors left alone."""
    module = make(channels_last=True)
    batch = {"image": torch.rand(2, 3, 4, 5), "matrix": torch.rand(2, 2, 3)}
    moved = module.on_after_batch_transfer(batch, 0)
    assert moved["image"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved["image"], batch["image"])
    assert batch["image"].is_contiguous()
    assert moved["matrix"] is batch["matrix"]
    assert module.encoder[0].weight.is_contiguous(memory_format=torch.channels_last)
    exported = module.export_encoder()
    assert exported[0].weight.is_contiguous()
    assert not exported.training
    assert module.encoder.training
    assert make(channels_last=False).encoder[0].weight.is_contiguous()
