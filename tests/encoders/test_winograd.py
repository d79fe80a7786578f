"""The fast convolution against the direct one."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from retrace.encoders import EncoderConfig, winograd


def _direct(x: Tensor, weight: Tensor, mode: str) -> Tensor:
    return F.conv2d(F.pad(x, (1,) * 4, "constant" if mode == "zeros" else mode), weight)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
@pytest.mark.parametrize("size", [(8, 12), (5, 7), (2, 3)])
@pytest.mark.parametrize("tiles", [512, 1])  # 1: every image is a chunk of its own
def test_is_the_direct_convolution(
    mode: str, size: tuple[int, int], tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and both gradients, whatever the size, padding and chunks."""
    monkeypatch.setattr(winograd, "TILES", tiles)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, *size, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(7, 5, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    arriving = torch.randn(3, 7, *size, generator=generator, dtype=torch.float64)
    ours, theirs = winograd.convolve(x, weight, mode), _direct(x, weight, mode)
    torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=0)
    for own, other in zip(
        torch.autograd.grad(ours, (x, weight), arriving),
        torch.autograd.grad(theirs, (x, weight), arriving),
        strict=True,
    ):
        torch.testing.assert_close(own, other, atol=1e-11, rtol=0)


def test_gives_only_the_gradients_that_are_wanted() -> None:
    """A frozen weight or an image costs nothing."""
    x, weight = (torch.randn(size, dtype=torch.float64) for size in ((1, 4, 6, 9), (3, 4, 3, 3)))
    winograd.convolve(x.requires_grad_(), weight, "zeros").sum().backward()
    winograd.convolve(x.detach(), weight.requires_grad_(), "zeros").sum().backward()
    both = [t.detach().clone().requires_grad_() for t in (x, weight)]
    _direct(both[0], both[1], "zeros").sum().backward()
    torch.testing.assert_close(x.grad, both[0].grad)
    torch.testing.assert_close(weight.grad, both[1].grad)


def test_float32_is_close_to_float64() -> None:
    """The docstring's number: rounding of a few 1e-6 of the spread of the result."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 256, 12, 16, generator=generator).relu()
    weight = torch.randn(256, 256, 3, 3, generator=generator) * 0.03
    exact = _direct(x.double(), weight.double(), "reflect")
    error = winograd.convolve(x, weight, "reflect").double() - exact
    assert error.square().mean().sqrt() < 4e-6 * exact.std()


def test_networks_take_it_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And give the same map; not without gradients, not in half precision."""
    calls: list[str] = []
    original = winograd.convolve

    def spy(x: Tensor, weight: Tensor, padding_mode: str) -> Tensor:
        calls.append(padding_mode)
        return original(x, weight, padding_mode)

    monkeypatch.setattr(winograd, "convolve", spy)
    encoder = EncoderConfig(cut="layer3", padding_mode="reflect").build()
    image = torch.randn(6, 3, 96, 128)  # maps of 12 x 16: 6 * 12 tiles
    monkeypatch.setattr(winograd, "TILES_PER_CHANNEL", 0.25)
    trained = encoder(image)
    assert calls == ["reflect"] * 3  # the 3x3 convolutions of layer3 from 256 to 256 channels
    encoder(image[:5])  # too few tiles
    encoder(torch.cat([image, image])[..., :72])  # 9 columns of 12
    assert len(calls) == 3
    encoder.zero_grad()
    with torch.no_grad():
        direct = encoder(image)
    assert len(calls) == 3
    torch.testing.assert_close(trained, direct, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        encoder(image)
    assert len(calls) == 3


@pytest.mark.parametrize("settings", [{"dilations": (1, 1, 2, 1)}, {"padding_mode": "none"}])
def test_other_convolutions_stay_direct(settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Dilated and unpadded ones are not what it computes."""

    def refuse(*_: object) -> Tensor:
        raise AssertionError("only 3x3 convolutions with padding and without dilation may come here")

    monkeypatch.setattr(winograd, "convolve", refuse)
    EncoderConfig(cut="layer3", **settings).build()(torch.randn(1, 3, 208, 216))  # type: ignore[arg-type]
