"""Textures: colour tiles made of noise, stripes, dots, cells, bricks and gradients, in plausible palettes.

A *field* is an (h, w) float tensor of about [0, 1]; a palette turns it into colour. Random numbers are drawn on the
CPU and moved, so a tile is the same scene on every device. No function here reduces over a tile (no mean, no
maximum): reductions differ in the last bit with the number of threads, and a scene is to be the same bit for bit.
"""

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from retrace.synthetic.draws import Draw

# Hue, saturation and value ranges of things one films. Hues wrap around at 1.
_MATERIALS: tuple[tuple[tuple[float, float], tuple[float, float], tuple[float, float]], ...] = (
    ((0.03, 0.12), (0.20, 0.60), (0.15, 0.75)),  # earth, wood, fur
    ((0.03, 0.12), (0.15, 0.45), (0.45, 0.95)),  # sand, skin
    ((0.18, 0.40), (0.15, 0.60), (0.12, 0.65)),  # leaves, grass
    ((0.50, 0.64), (0.10, 0.60), (0.30, 0.95)),  # sky, water, denim
    ((0.00, 1.00), (0.00, 0.10), (0.15, 0.90)),  # stone, asphalt, snow
    ((0.00, 1.00), (0.00, 0.30), (0.04, 0.35)),  # dark things
    ((0.00, 1.00), (0.45, 0.90), (0.35, 0.95)),  # paint, cloth
    ((0.94, 1.08), (0.30, 0.80), (0.25, 0.85)),  # brick, red fur
)


def palette(draw: Draw) -> Tensor:
    """(n, 3) RGB of [0, 1], n = 3..6: one or two materials, mostly sorted from dark to light."""
    materials = [draw.choice(_MATERIALS) for _ in range(draw.integer(1, 2))]
    centres = [(draw.uniform(*hue), draw.uniform(*saturation)) for hue, saturation, _ in materials]
    colours = []
    for i in range(draw.integer(3, 6)):
        which = i % len(materials)
        low, high = materials[which][2]
        hue, saturation = centres[which]
        hue += draw.uniform(-0.04, 0.04)
        saturation *= draw.uniform(0.6, 1.3)
        colours.append(colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), draw.uniform(low, high)))
    if draw.chance(0.75):
        colours.sort(key=lambda rgb: 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2])
    return torch.tensor(colours, dtype=torch.float32)


def like(colours: Tensor, draw: Draw) -> Tensor:
    """(n, 3): nearly the same palette, so that colour alone does not tell two things apart."""
    jitter = torch.randn(colours.shape, generator=draw.generator) * 0.04
    gain = draw.uniform(0.85, 1.15)
    return (colours * gain + jitter).clamp(0, 1)


def colourise(field: Tensor, colours: Tensor) -> Tensor:
    """Look a field up in a palette, linearly between its colours.

    Args:
        field: (h, w); values outside [0, 1] take the end colours.
        colours: (n, 3), n >= 2.

    Returns: (3, h, w).
    """
    table = colours.to(field.device).T.contiguous()  # (3, n)
    position = field.clamp(0, 1).mul_(table.shape[1] - 1).view(-1)
    low = position.floor().clamp_(max=table.shape[1] - 2)
    index = low.long().expand(3, -1)
    tile = table.gather(1, index).lerp_(table[:, 1:].gather(1, index), position.sub_(low))
    return tile.view(3, *field.shape)


@dataclass(frozen=True)
class _Lattice:
    """Noise that is drawn and not yet enlarged: the grids of its octaves, (1, 1, rows, columns) each."""

    octaves: list[Tensor]
    gain: float


def noise(draw: Draw, size: tuple[int, int], cells: float, octaves: int, device: torch.device) -> Tensor:
    """Multi-octave value noise: random grids enlarged with bicubic interpolation.

    Args:
        draw: Where the random numbers come from.
        size: (h, w) of the result.
        cells: Grid cells of the first octave along the short side; each octave doubles it.
        octaves: How many, fewer when the grid would be finer than two texels.
        device: Of the result.

    Returns: (h, w) of about zero mean and unit variance.
    """
    return _spread([_lattice(draw, size, cells, octaves, device)], size)[0]


def _lattice(draw: Draw, size: tuple[int, int], cells: float, octaves: int, device: torch.device) -> _Lattice:
    h, w = size
    short = min(h, w)
    gain = draw.uniform(0.5, 0.85)
    values = []
    for octave in range(octaves):
        n = cells * 2**octave
        if octave and n > short / 2:
            break
        grid = (max(2, math.ceil(h / short * n)) + 1, max(2, math.ceil(w / short * n)) + 1)
        values.append(torch.randn((1, 1, *grid), generator=draw.generator).to(device))
    return _Lattice(values, gain)


def _spread(lattices: Sequence[_Lattice], size: tuple[int, int]) -> Tensor:
    """(n, h, w): n fields of noise, whose grids are of the same sizes."""
    total: Tensor | None = None
    for octave, grids in enumerate(zip(*(lattice.octaves for lattice in lattices), strict=True)):
        if total is None:
            total = torch.cat(grids, 1)
            continue
        # Each octave is enlarged to the next one's grid only: one enlargement to full size instead of one an octave.
        total = _enlarge(total, grids[0].shape[2:])
        for i, (grid, lattice) in enumerate(zip(grids, lattices, strict=True)):
            total[:, i : i + 1].add_(grid, alpha=lattice.gain**octave)
    assert total is not None
    fields = _enlarge(total, size)[0]
    for field, lattice in zip(fields, lattices, strict=True):
        power = sum(lattice.gain ** (2 * octave) for octave in range(len(lattice.octaves)))
        # 0.62: variance that bicubic interpolation between independent values leaves, on average over a cell.
        field *= 1 / math.sqrt(0.62 * power)
    return fields


def _enlarge(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values, size=size, mode="bicubic", align_corners=True)


def _grid(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return x (1, w), y (h, 1): texel centres in units of the short side."""
    h, w = size
    short = min(h, w)
    x = (torch.arange(w, device=device, dtype=torch.float32) + 0.5) / short
    y = (torch.arange(h, device=device, dtype=torch.float32) + 0.5) / short
    return x[None], y[:, None]


def _warped(
    draw: Draw, size: tuple[int, int], cells: float, amount: float, device: torch.device, axes: int = 2
) -> list[Tensor]:
    """x, y (h, w): texel centres, turned by a random angle and displaced by smooth noise of `amount` cells.

    With one axis x alone is made; y is drawn, and not made.
    """
    x, y = _grid(size, device)
    angle = draw.angle()
    turned = (
        math.cos(angle) * x + math.sin(angle) * y,
        math.cos(angle) * y - math.sin(angle) * x,
    )[:axes]
    if amount == 0:
        return list(turned)
    lattices = [_lattice(draw, size, max(1.5, cells / 3), 2, device) for _ in range(2)]
    shifts = _spread(lattices[:axes], size) * (amount / cells)
    return [place.add_(shift) for place, shift in zip(turned, shifts, strict=True)]


def _clouds(draw: Draw, size: tuple[int, int], cells: float, device: torch.device) -> Tensor:
    return 0.5 + 0.28 * noise(draw, size, max(1.5, cells / 2), 5, device)


def _ridges(draw: Draw, size: tuple[int, int], cells: float, device: torch.device) -> Tensor:
    return 1 - 0.8 * noise(draw, size, max(1.5, cells / 2), 4, device).abs()


def _blotches(draw: Draw, size: tuple[int, int], cells: float, device: torch.device) -> Tensor:
    edge = draw.uniform(2, 10)
    return 0.5 + 0.4 * torch.tanh(
        edge * (noise(draw, size, cells / 1.5, 3, device) - draw.uniform(-0.6, 0.6))
    )


def _stripes(draw: Draw, size: tuple[int, int], cells: float, device: torch.device) -> Tensor:
    (u,) = _warped(draw, size, cells, draw.uniform(0.02, 0.5), device, axes=1)
    wave = torch.sin(2 * math.pi * cells / 1.5 * u + draw.angle())
    return 0.5 + 0.42 * torch.tanh(draw.uniform(0.8, 4) * (wave + draw.uniform(-0.4, 0.4)))


def _rings(draw: Draw, size: tuple[int, int], cells: float, device: torch.device) -> Tensor:
    u, v = _warped(draw, size, cells, draw.uniform(0.05, 0.5), device)
    distance = torch.hypot(u - draw.uniform(-1, 1), draw.uniform(0.3, 1) * (v - draw.uniform(-1, 1)))
    return 0.5 + 0.4 * torch.tanh(2 * torch.sin(2 * math.pi * cells / 2 * distance))


def _bricks(draw: Draw, size: tuple[int, int], cells: float, device: torch.device) -> Tensor:
    u, v = _warped(draw, size, cells, draw.uniform(0, 0.12), device)
    row = torch.floor(v * cells)
    column = torch.floor(u * cells / draw.uniform(1, 2.2) + 0.5 * row * float(draw.chance(0.6)))
    # A hash of the brick's place: each brick its own shade.
    shade = torch.frac((row * 0.754877 + column * 0.569840).abs() * draw.uniform(1, 7))
    mortar = ((v * cells - row - 0.5).abs() > 0.43).float()
    return torch.lerp(0.2 + 0.8 * shade, torch.full_like(shade, draw.uniform(0, 0.3)), mortar)


def _voronoi(
    draw: Draw, size: tuple[int, int], cells: float, amount: float, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """(h, w) each: distance to the nearest jittered point and to the second minus that, cells; shade of the cell."""
    h, w = size
    short = min(h, w)
    x, y = _grid(size, device)
    place = torch.stack([(x * cells).expand(h, w), (y * cells).expand(h, w)])
    if amount > 0:
        place += amount * _spread([_lattice(draw, size, cells / 2, 3, device) for _ in range(2)], size)
    # Three cells of margin on every side: the displacement may leave the tile.
    rows, columns = math.ceil(h / short * cells) + 6, math.ceil(w / short * cells) + 6
    jitter = torch.rand((3, rows, columns), generator=draw.generator).to(device)
    jitter[0] += torch.arange(columns, device=device)
    jitter[1] += torch.arange(rows, device=device)[:, None]
    points, shade = jitter[:2].reshape(2, -1), jitter[2].reshape(-1)
    place = place.view(2, -1).add_(3)
    place[0].clamp_(1, columns - 1.01)
    place[1].clamp_(1, rows - 1.01)
    # The first of the nine cells around each texel; the others begin these steps behind it.
    corner = ((place[1].floor() - 1) * columns + (place[0].floor() - 1)).long()
    nearest = torch.full((h * w,), 9.0, device=device)  # squared until the end
    second, closest, nearer = nearest.clone(), torch.zeros_like(nearest), torch.empty_like(nearest)
    for step in (i * columns + j for i in range(3) for j in range(3)):
        apart = points[:, step:].index_select(1, corner).sub_(place).square_()
        distance = apart[0].add_(apart[1])
        # As numbers, 0 or 1, and the last of the steps that came nearer: many times faster than `where`.
        torch.lt(distance, nearest, out=nearer)
        closest = torch.maximum(closest, nearer.mul_(step), out=closest)
        torch.minimum(second, torch.maximum(nearest, distance), out=second)
        torch.minimum(nearest, distance, out=nearest)
    nearest.sqrt_()
    gap = second.sqrt_().sub_(nearest)
    own = shade.index_select(0, corner.add_(closest.long()))
    return nearest.view(h, w), gap.view(h, w), own.view(h, w)


def _cells(draw: Draw, size: tuple[int, int], cells: float, device: torch.device) -> Tensor:
    nearest, gap, shade = _voronoi(draw, size, cells, draw.uniform(0, 0.3), device)
    if draw.chance(0.5):  # stones, scales: shaded towards a dark joint
        return (0.25 + 0.75 * shade) * torch.tanh(draw.uniform(4, 10) * gap)
    return 0.7 * shade + 0.5 * (1 - nearest)


def _dots(draw: Draw, size: tuple[int, int], cells: float, device: torch.device) -> Tensor:
    nearest, _, shade = _voronoi(draw, size, cells, draw.uniform(0, 0.25), device)
    radius = draw.uniform(0.2, 0.4)
    inside = torch.sigmoid(draw.uniform(10, 30) * (radius - nearest))
    return inside * (0.6 + 0.4 * shade) + 0.1


def _gradient(draw: Draw, size: tuple[int, int], cells: float, device: torch.device) -> Tensor:
    (u,) = _warped(draw, size, cells, draw.uniform(0, 0.4), device, axes=1)
    return 0.5 + 0.5 * torch.sin(draw.uniform(1.5, 5) * u + draw.angle())


Pattern = Callable[[Draw, tuple[int, int], float, torch.device], Tensor]
_PATTERNS: tuple[Pattern, ...] = (
    _clouds,
    _clouds,
    _ridges,
    _blotches,
    _stripes,
    _rings,
    _bricks,
    _cells,
    _cells,
    _dots,
    _gradient,
)


def texture(
    draw: Draw,
    size: tuple[int, int],
    colours: Tensor,
    cells: tuple[float, float],
    device: torch.device,
    detail: float = 1.0,
) -> Tensor:
    """A colour tile: one or two patterns, mixed in patches, under multi-octave grain.

    Args:
        draw: Where the random numbers come from.
        size: (h, w) texels.
        colours: (n, 3) palette.
        cells: Range of the number of pattern cells along the short side.
        device: Of the result.
        detail: Strength of the grain; 0 leaves only the smoothest pattern (tests of exactness).

    Returns: (3, h, w) RGB of [0, 1].
    """
    if detail <= 0:
        return colourise(0.5 + 0.25 * noise(draw, size, cells[0], 2, device), colours)
    tile = colourise(draw.choice(_PATTERNS)(draw, size, draw.log_uniform(*cells), device), colours)
    if draw.chance(0.6):
        other = draw.choice(_PATTERNS)(draw, size, draw.log_uniform(*cells), device)
        second = like(colours, draw) if draw.chance(0.4) else palette(draw)
        where = torch.sigmoid(
            draw.uniform(3, 15) * (noise(draw, size, draw.uniform(1.5, 4), 3, device) - 0.2)
        )
        tile = torch.lerp(tile, colourise(other, second), where[None])
    grain = noise(draw, size, 2 * cells[0], 6, device)
    tile *= 1 + detail * draw.uniform(0.08, 0.3) * grain
    tile += detail * draw.uniform(0, 0.04) * grain
    return tile.clamp_(0, 1)
