"""STFC3 and FC3: views that correspond, losses that equal the paper's words, gradients that are right."""

import dataclasses
import pickle

import pytest
import torch

from retrace.encoders.config import EncoderConfig
from retrace.encoders.model import IMAGENET_MEAN, IMAGENET_STD
from retrace.methods.stfc3 import (
    STFC3,
    STFC3Config,
    STFC3Views,
    fc3_loss,
    released,
    stfc3_loss,
)
from retrace.walk import warp

SMALL = STFC3Config(clip_length=3, crop_size=32, projector_hidden=8, projector_outputs=6, edge_dropout=0.0)


def generator(seed: int = 0) -> torch.Generator:
    """Generator."""
    return torch.Generator().manual_seed(seed)


def features(batch=1, length=3, channels=4, h=3, w=4, seed=0) -> torch.Tensor:
    """Features."""
    return torch.randn(batch, length, channels, h, w, generator=generator(seed), dtype=torch.float64)


def smooth_clip(length=3, height=60, width=90) -> torch.Tensor:
    """Smooth clip."""
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    frame = torch.stack([2 * xs, 3 * ys, xs + ys]).to(torch.uint8)
    return frame.expand(length, 3, height, width).contiguous()


@pytest.mark.parametrize("window", [(1.0, 1.0), (0.4, 0.8)])
def test_backward_crop_is_the_forward_crop_read_through_the_matrix(window):
    """Backward crop is the forward crop read through the matrix."""
    config = dataclasses.replace(SMALL, colour="none", crop_area=(0.3, 1.0), window_area=window)
    clip = smooth_clip()
    clip[1] = 0  # tells reversed time
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    for seed in range(6):
        views = STFC3Views(config)(clip, generator(seed))
        forward, backward = views["forward"] * std + mean, views["backward"].flip(0) * std + mean
        reading = views["reading"].expand(3, 2, 3)
        inside = warp.inside_mask(reading[:1], (32, 32), 0.999).view(32, 32).bool()
        read = warp.read(forward, reading)
        assert inside.any()
        torch.testing.assert_close(read[:, :, inside], backward[:, :, inside], atol=0.02, rtol=0)
        assert views["backward"][1].std() < 1e-5 + views["backward"][0].std()


def test_views_repeat_with_the_generator_and_pickle():
    """Views repeat with the generator and pickle."""
    views = pickle.loads(pickle.dumps(STFC3Views(dataclasses.replace(SMALL, frame_jitter=True))))
    one, two, other = (views(smooth_clip(), generator(seed)) for seed in (5, 5, 6))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["forward"], other["forward"])


def test_views_do_not_write_into_the_clip():
    """Views do not write into the clip."""
    clip = smooth_clip()
    before = clip.clone()
    STFC3Views(SMALL)(clip, generator())
    assert torch.equal(clip, before)


def loops(forward, backward, reading, config):
    """Eq. 6-13 with loops over nodes, frames counted from 0."""
    batch, length, _, h, w = forward.shape
    total = 0.0
    for b in range(batch):
        f = torch.nn.functional.normalize(forward[b], dim=1)
        g = torch.nn.functional.normalize(backward[b], dim=1)
        warped = torch.nn.functional.normalize(warp.read(f, reading[b].expand(length, 2, 3)), dim=1)
        mask = warp.read(torch.ones(1, 1, h, w, dtype=f.dtype), reading[b : b + 1])[0, 0].flatten() > 0.5
        for start in range(length - 1):
            sequence = [warped[start], *f[start + 1 :], *g[: length - start]]
            walk = torch.eye(h * w, dtype=f.dtype)
            for here, there in zip(sequence, sequence[1:], strict=False):
                walk = walk @ (here.flatten(1).T @ there.flatten(1) / config.temperature).softmax(1)
            for i in range(h * w):
                if mask[i]:
                    total -= torch.log(walk[i, i] + 1e-7) / (h * w) / batch
    return total


def test_loss_is_the_papers_by_loops():
    """Loss is the papers by loops."""
    forward, backward = features(batch=2), features(batch=2, seed=1)
    reading = torch.tensor(
        [[[0.7, 0, 0.2], [0, 0.8, -0.1]], [[-1.2, 0, 0.1], [0, 1.1, 0.3]]], dtype=torch.float64
    )
    config = dataclasses.replace(SMALL, temperature=0.3)
    torch.testing.assert_close(
        stfc3_loss(forward, backward, reading, config).total, loops(forward, backward, reading, config)
    )


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(SMALL, temperature=0.5, direct_weight=0.7),
        dataclasses.replace(released(SMALL), temperature=0.5, target_radius=1.0),
    ],
)
def test_gradients(config):
    """Gradients."""
    reading = torch.tensor([[[0.7, 0, 0.2], [0, 0.8, -0.1]]], dtype=torch.float64)
    inputs = (features().requires_grad_(), features(seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda f, g: stfc3_loss(f, g, reading, config).total, inputs)


def test_fc3_gradients_and_collapse():
    """Features that hold nothing but position make every FC3 cycle return: the shortcut of section 3.2."""
    config = dataclasses.replace(SMALL, temperature=0.5)
    assert torch.autograd.gradcheck(lambda f: fc3_loss(f, config).total, (features().requires_grad_(),))
    h, w = 3, 4
    position = torch.eye(h * w, dtype=torch.float64).view(1, 1, h * w, h, w).expand(1, 3, -1, -1, -1)
    losses = fc3_loss(position, SMALL)
    assert losses.total < 1e-3
    assert losses.terms["accuracy"] == 1


def test_fc3_is_stfc3_without_its_turn_by_loops():
    """Fc3 is stfc3 without its turn by loops."""
    feat = features(length=4)
    config = dataclasses.replace(SMALL, clip_length=4, temperature=0.4)
    nodes = torch.nn.functional.normalize(feat[0], dim=1).flatten(2).transpose(1, 2)  # (T, N, C)
    expected = 0.0
    for start in range(3):
        order = [*range(start, 4), *reversed(range(start, 3))]
        walk = torch.eye(12, dtype=torch.float64)
        for here, there in zip(order, order[1:], strict=False):
            walk = walk @ (nodes[here] @ nodes[there].T / 0.4).softmax(1)
        expected = expected - torch.log(walk.diagonal() + 1e-7).mean()
    torch.testing.assert_close(fc3_loss(feat, config).total, expected)


@pytest.mark.parametrize("variant", ["stfc3", "fc3"])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "none"])
def test_module_trains(variant, padding_mode):
    """Module trains."""
    size = 224 if padding_mode == "none" else 32
    config = dataclasses.replace(SMALL, variant=variant, crop_size=size, edge_dropout=0.1, direct_weight=1.0)
    torch.manual_seed(0)
    module = STFC3(EncoderConfig(width=0.125, padding_mode=padding_mode).build(), config)
    items = [STFC3Views(config)(smooth_clip(height=70, width=50), generator(seed)) for seed in range(2)]
    batch = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    losses = module(batch, generator())
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())
    assert not any(term.requires_grad for term in losses.terms.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [("variant", "crw"), ("colour", "loud"), ("cycles", "all"), ("clip_length", 1), ("temperature", 0.0)],
)
def test_config_refuses_what_means_nothing(field, value):
    """Config refuses what means nothing."""
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SMALL, **{field: value})


def test_released_undoes_what_is_ours():
    """Nothing that only we have is left in it."""
    ours = dataclasses.replace(SMALL, window_area=(0.2, 0.5), direct_weight=1.0, colour="mild")
    assert released(ours) == released(SMALL)
    assert released(SMALL).direct_weight == 0
