"""Texture tiles."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from retrace.synthetic import textures
from retrace.synthetic.draws import Draw

CPU = torch.device("cpu")


def draw(seed: int = 0) -> Draw:
    """Draws from a fresh generator."""
    return Draw(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pattern", sorted(set(textures._PATTERNS), key=lambda p: p.__name__))
def test_a_pattern_fills_a_field_of_about_zero_to_one(pattern: textures.Pattern) -> None:
    """A pattern fills a field of about zero to one."""
    for seed in range(6):
        field = pattern(draw(seed), (60, 90), 3.0 + 3 * seed, CPU)
        assert field.shape == (60, 90)
        assert torch.isfinite(field).all()
        assert -1 < float(field.quantile(0.05)) <= float(field.quantile(0.95)) < 1.6
        assert float(field.std()) > 0.04, "a pattern has something to see"


def test_colourise_interpolates_and_holds_the_ends() -> None:
    """Colourise interpolates and holds the ends."""
    colours = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.5, 0.0], [1.0, 1.0, 1.0]])
    field = torch.tensor([[-1.0, 0.0, 0.25], [0.5, 1.0, 2.0]])
    tile = textures.colourise(field, colours)
    assert tile.shape == (3, 2, 3)
    torch.testing.assert_close(tile[:, 0, 0], colours[0])
    torch.testing.assert_close(tile[:, 0, 2], torch.tensor([0.5, 0.25, 0.0]))
    torch.testing.assert_close(tile[:, 1, 0], colours[1])
    torch.testing.assert_close(tile[:, 1, 2], colours[2])
    field = torch.rand((30, 41), generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    kept = field.clone()
    tile = textures.colourise(field, colours)
    assert torch.equal(field, kept)
    for channel in range(3):
        expected = np.interp(field.numpy(), [0, 0.5, 1], colours[:, channel].numpy())
        torch.testing.assert_close(tile[channel], torch.from_numpy(expected).float(), atol=1e-6, rtol=0)


def test_noise_has_unit_variance_and_no_mean() -> None:
    """Noise has unit variance and no mean."""
    values = torch.stack([textures.noise(draw(seed), (64, 96), 4, 5, CPU) for seed in range(60)])
    assert abs(float(values.mean())) < 0.1
    assert 0.75 < float(values.std()) < 1.25


def test_noise_is_grids_enlarged_one_onto_the_next() -> None:
    """Written out, and several at once are those one by one."""
    generator, gain_of = torch.Generator().manual_seed(5), draw(5)
    gain = gain_of.uniform(0.5, 0.85)
    torch.rand((), generator=generator, dtype=torch.float64)
    grids = [torch.randn((1, 1, *grid), generator=generator) for grid in ((4, 6), (7, 11), (13, 21))]
    total = grids[0]
    for octave in (1, 2):
        total = F.interpolate(total, size=grids[octave].shape[2:], mode="bicubic", align_corners=True)
        total = total + gain**octave * grids[octave]
    total = F.interpolate(total, size=(40, 66), mode="bicubic", align_corners=True)[0, 0]
    expected = total / math.sqrt(0.62 * (1 + gain**2 + gain**4))
    torch.testing.assert_close(textures.noise(draw(5), (40, 66), 3, 3, CPU), expected, atol=1e-5, rtol=0)
    source, again = draw(6), draw(6)
    pair = textures._spread([textures._lattice(source, (40, 66), 3, 3, CPU) for _ in range(2)], (40, 66))
    assert torch.equal(pair, torch.stack([textures.noise(again, (40, 66), 3, 3, CPU) for _ in range(2)]))


def test_an_axis_alone_is_that_of_two_and_draws_as_much() -> None:
    """A pattern that looks at x only gets the same x, and what is drawn after it is the same."""
    one, two = draw(2), draw(2)
    (x,) = textures._warped(one, (30, 44), 5, 0.3, CPU, axes=1)
    both = textures._warped(two, (30, 44), 5, 0.3, CPU)
    assert torch.equal(x, both[0])
    assert len(both) == 2
    assert one.seed() == two.seed()


def test_voronoi_finds_the_nearest_point() -> None:
    """Against all points at once: the distance never exceeds, and the gap is never negative."""
    nearest, gap, shade = textures._voronoi(draw(3), (50, 70), 5.0, 0.0, CPU)
    assert (gap >= 0).all()
    assert float(nearest.max()) < 1.5  # cells; a point in every cell
    generator = torch.Generator().manual_seed(3)
    rows, columns = 5 + 6, 7 + 6
    jitter = torch.rand((3, rows, columns), generator=generator)
    px = (jitter[0] + torch.arange(columns)).reshape(-1)
    py = (jitter[1] + torch.arange(rows)[:, None]).reshape(-1)
    u = ((torch.arange(70) + 0.5) / 10 + 3).expand(50, 70)
    v = ((torch.arange(50) + 0.5) / 10 + 3)[:, None].expand(50, 70)
    distance = torch.hypot(px - u[..., None], py - v[..., None])
    torch.testing.assert_close(nearest, distance.amin(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(shade, jitter[2].reshape(-1)[distance.argmin(-1)])
    # The second is looked for in the nine cells around.
    column, row = (torch.arange(rows * columns) % columns, torch.arange(rows * columns) // columns)
    around = ((u.long()[..., None] - column).abs() <= 1) & ((v.long()[..., None] - row).abs() <= 1)
    first, second = distance.where(around, torch.inf).topk(2, largest=False).values.unbind(-1)
    torch.testing.assert_close(gap, second - first, atol=1e-5, rtol=0)


def test_palettes_are_colours_and_like_is_near() -> None:
    """Palettes are colours and like is near."""
    for seed in range(30):
        colours = textures.palette(draw(seed))
        assert colours.shape[1] == 3
        assert 3 <= len(colours) <= 6
        assert 0 <= float(colours.min()) <= float(colours.max()) <= 1
        kept = colours.clone()
        near = textures.like(colours, draw(seed + 1))
        assert torch.equal(colours, kept)
        assert float((near - colours).abs().max()) < 0.4
