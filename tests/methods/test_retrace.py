"""Our own recipe: equations against loops, what the encoder sees, what is refused."""

from dataclasses import replace

import pytest
import torch

from retrace.encoders import EncoderConfig
from retrace.encoders.colour import LAB_MEAN, LAB_STD, to_input
from retrace.methods.retrace import Retrace, RetraceConfig, retrace_loss
from retrace.verbs.train import load_config
from retrace.walk.nodes import normalise

ENCODER = EncoderConfig(width=0.125, strides=(1, 2, 1, 1), stem_pool=False, cut="layer3")
SMALL = RetraceConfig(clip_length=3, crop_size=32, radius=2)


def generator(seed=0):
    """A CPU generator."""
    return torch.Generator().manual_seed(seed)


def draw(length, h=4, w=6, *, batch=2):
    """Maps and values of a walk."""
    g = generator(3)
    maps = normalise(torch.randn(batch, length, 5, h, w, generator=g, dtype=torch.float64), dim=2)
    return maps, torch.randn(batch, length, 1, h, w, generator=g, dtype=torch.float64)


def rebuilt(target, reference, values, config):
    """P_t times values (h, w), one query at a time: Eq. (1)."""
    _, h, w = target.shape
    out = torch.zeros(h, w, dtype=target.dtype)
    for y in range(h):
        for x in range(w):
            near = [
                (j, i) for j in range(h) for i in range(w) if max(abs(j - y), abs(i - x)) <= config.radius
            ]
            scores = torch.stack([target[:, y, x] @ reference[:, j, i] for j, i in near])
            weights = (scores / config.temperature).softmax(0)
            out[y, x] = sum(weight * values[j, i] for (j, i), weight in zip(near, weights, strict=True))
    return out


@pytest.mark.parametrize("length", [2, 3, 4])
def test_the_loss_is_what_the_equations_say(length):
    """By loops, for walks of every kind: without one, with one step of it, with two."""
    config = replace(SMALL, clip_length=length, walk_weight=0.5)
    maps, values = draw(length)
    losses = retrace_loss(maps, values, config)
    step, walk, still = [], [], []
    for one, colours in zip(maps, values[:, :, 0], strict=True):
        carried = colours[0]
        for t in range(1, length):
            step.append((rebuilt(one[t], one[t - 1], colours[t - 1], config) - colours[t]).abs().mean())
            still.append((colours[t - 1] - colours[t]).abs().mean())
            carried = rebuilt(one[t], one[t - 1], carried, config)  # Eq. (3)
            if t > 1:
                walk.append((carried - colours[t]).abs().mean())
    step, still = (20 * torch.stack(parts).mean() for parts in (step, still))
    torch.testing.assert_close(losses.terms["step"], step)
    torch.testing.assert_close(losses.terms["copy"], still)
    expected = step
    if walk:
        expected = step + 0.5 * 20 * torch.stack(walk).mean()
        torch.testing.assert_close(losses.terms["walk"], expected - step)
    else:
        assert "walk" not in losses.terms
    torch.testing.assert_close(losses.total, expected)


def test_gradients_of_the_loss():
    """In double precision."""
    maps, values = draw(3, 3, 4, batch=1)
    raw = torch.randn(maps.shape, generator=generator(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: retrace_loss(normalise(m, dim=2), values, SMALL).total, raw)


def test_a_perfect_match_costs_nothing_along_the_whole_walk():
    """Nodes that are all different and move by a cell a frame, round the frame; colours go with them."""
    h, w = 6, 8
    nodes = torch.eye(h * w).view(h * w, h, w)
    colours = torch.randn(1, h, w, generator=generator(2))
    maps = torch.stack([nodes.roll(t, dims=2) for t in range(4)])[None]
    values = torch.stack([colours.roll(t, dims=2) for t in range(4)])[None]
    config = replace(SMALL, temperature=0.01, radius=w)
    good = retrace_loss(maps, values, config)
    assert good.total < 1e-6
    assert good.terms["copy"] > 10
    backwards = retrace_loss(maps.flip(1), values, config)
    assert backwards.terms["step"] > 10
    assert backwards.terms["walk"] > 10


def test_the_encoder_never_sees_the_channel_that_it_has_to_bring_back():
    """Another a (or b) of all frames changes the loss only as a target does: the maps stay the same."""
    torch.manual_seed(0)
    seen = []
    method = Retrace(ENCODER.build(), SMALL).eval()
    method.encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    frames = torch.rand(2, 3, 3, 32, 40, generator=generator(1))
    method({"frames": frames}, generator(5))
    lab = to_input(frames, "lab", LAB_MEAN, LAB_STD).flatten(0, 1)
    gone = [channel for channel in range(3) if not seen[0][:, channel].any()]
    assert gone in ([1], [2])
    for channel in {0, 1, 2} - set(gone):
        torch.testing.assert_close(seen[0][:, channel], 1.5 * lab[:, channel])


def test_training_reaches_every_weight():
    """One step's gradients."""
    torch.manual_seed(0)
    method = Retrace(ENCODER.build(), SMALL).train()
    losses = method({"frames": torch.rand(2, 3, 3, 32, 48, generator=generator(1))}, generator(2))
    losses.total.backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert set(losses.terms) == {"step", "walk", "copy", "feature_std"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clip_length": 1}, "clip_length is 1; expected at least 2"),
        ({"crop_size": 8}, "crop_size is 8"),
        ({"radius": 0}, "radius is 0"),
        ({"temperature": 0.0}, r"temperature is 0\.0"),
        ({"walk_weight": -1.0}, r"walk_weight is -1\.0"),
        ({"value_scale": float("nan")}, "value_scale is nan"),
    ],
)
def test_wrong_settings_are_refused(change, said):
    """By name."""
    with pytest.raises(ValueError, match=said):
        replace(SMALL, **change)


def test_a_crop_that_the_stride_does_not_divide_is_refused():
    """Before anything is trained."""
    with pytest.raises(ValueError, match="crop_size is 30; expected a multiple of the encoder's stride, 4"):
        Retrace(ENCODER.build(), replace(SMALL, crop_size=30))


def test_the_recipe_is_the_default_configuration():
    """What the page says of the recipe is what a user gets without it."""
    assert load_config("retrace-laptop", "--out", "x").retrace == RetraceConfig()
