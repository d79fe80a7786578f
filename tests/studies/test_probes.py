"""The probes find what was put there, and nothing where there is nothing."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from retrace.encoders import EncoderConfig, Model, from_state_dict
from retrace.studies import probes


class Positions(nn.Module):
    """An encoder whose features are nothing but a turned copy of the place, or nothing but noise."""

    def __init__(self, noise: bool) -> None:
        """Noise, or the place."""
        super().__init__()
        self.weight = nn.Parameter(
            torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
        )
        self.noise = noise
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 8, H / 8, W / 8)."""
        batch, _, height, width = images.shape
        h, w = height // 8, width // 8
        if self.noise:
            return torch.randn(batch, 8, h, w, generator=self.generator)
        where = probes.places(h, w)
        seen = torch.cat(
            [torch.sin(where * k) if k % 2 else torch.cos(where * k) for k in (1, 2, 3, 4)], dim=1
        )
        return (seen @ self.weight).T.reshape(1, 8, h, w).expand(batch, -1, -1, -1)


def made(encoder: nn.Module) -> Model:
    """A model of stride 8 round an encoder."""
    return Model(encoder=encoder, name="made", stride=8, channels=8)


def test_places_run_from_minus_one_to_one() -> None:
    """Row first, row by row."""
    expected = [(-1, -1), (-1, 0), (-1, 1), (1, -1), (1, 0), (1, 1)]
    assert probes.places(2, 3).tolist() == [list(map(float, place)) for place in expected]


def test_the_read_out_is_exact_where_features_hold_the_place_and_zero_where_they_are_noise() -> None:
    """R² of 1 for a linear image of the place, though channels differ in scale; about 0 for noise."""
    generator = torch.Generator().manual_seed(0)
    fit, test = (2 * torch.rand(n, 2, generator=generator) - 1 for n in (4000, 1500))
    turn = torch.randn(2, 5, generator=generator) * torch.tensor([1.0, 100, 0.01, 3, 7])
    assert probes.read_out(fit @ turn + 4, fit, test @ turn + 4, test, ridge=1e-8) > 1 - 1e-6
    noise = [torch.randn(n, 5, generator=generator) for n in (4000, 1500)]
    assert abs(probes.read_out(noise[0], fit, noise[1], test)) < 0.05


def test_the_read_out_is_the_ridge_regression_of_a_textbook() -> None:
    """Against lstsq on the stacked system, features of unit variance."""
    generator = torch.Generator().manual_seed(3)
    x, y, z, t = (
        torch.randn(n, c, generator=generator).double() for n, c in ((60, 4), (60, 2), (30, 4), (30, 2))
    )
    scaled = (x - x.mean(0)) / x.std(0)
    stacked = torch.cat([scaled / math.sqrt(60), math.sqrt(0.3) * torch.eye(4, dtype=torch.float64)])
    target = torch.cat([(y - y.mean(0)) / math.sqrt(60), torch.zeros(4, 2, dtype=torch.float64)])
    weights = torch.linalg.lstsq(stacked, target).solution
    guess = (z - x.mean(0)) / x.std(0) @ weights + y.mean(0)
    expected = 1 - (guess - t).square().sum() / (t - t.mean(0)).square().sum()
    assert probes.read_out(x, y, z, t, ridge=0.3) == pytest.approx(float(expected), abs=1e-9)


def test_a_channel_that_never_varies_does_no_harm() -> None:
    """It is left out."""
    places = torch.linspace(-1, 1, 40).reshape(20, 2)
    dead = torch.cat([places, torch.full((20, 1), 3.0)], dim=1)
    assert probes.read_out(dead, places, dead, places, ridge=1e-8) > 1 - 1e-6


def test_an_encoder_that_writes_its_place_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Place: R² near 1, and walkers stay in frames that have nothing in common. Noise: neither."""
    monkeypatch.setattr(probes, "FIT", probes.FIT[:6])
    monkeypatch.setattr(probes, "TEST", probes.TEST[:3])
    monkeypatch.setattr(probes, "PAIRS", probes.PAIRS[:2])
    place, noise = made(Positions(noise=False)), made(Positions(noise=True))
    assert probes.position(place, 64) > 0.99
    assert probes.position(noise, 64) < 0.1
    staying, lost = probes.walkers(place), probes.walkers(noise)
    assert staying.unrelated == pytest.approx(staying.near, abs=1e-6)
    nodes = 12 * 16
    assert staying.unrelated > 0.3
    assert lost.unrelated == pytest.approx(9 / nodes, abs=0.03)


def test_an_encoder_without_padding_sees_mirrored_frames_and_covers_them() -> None:
    """Inside, where no window reaches the border, the map is its own; the grid is that of a padded encoder."""
    config = EncoderConfig(width=0.0625, cut="layer1", padding_mode="none")
    torch.manual_seed(0)
    model = from_state_dict(config, config.build().state_dict(), name="none")
    margin = round(model.origin - 0.5)
    assert margin > model.stride
    images = torch.randint(0, 256, (1, 3, 96, 128), dtype=torch.uint8)
    whole = probes.covering(model)
    maps = whole.features(images)
    assert maps.shape[-2:] == whole.grid(96, 128) == (24, 32)
    shift = margin // model.stride
    if margin % model.stride == 0:  # the nodes of both fall on the same pixels
        own = model.features(images)
        h, w = own.shape[-2:]
        torch.testing.assert_close(maps[..., shift : shift + h, shift : shift + w], own)
    padded = replace(model, origin=0.5)
    assert probes.covering(padded) is padded
