"""Outlines: what part of its tile an object fills, as a field that is positive inside.

A field is an (n, n) float tensor over object space [-EXTENT, EXTENT]^2, texel centres inside the edges, in units of
the object's radius: about the distance to the outline, positive inside. Read bilinearly it *is* the object's outline
(`field > 0`), so truth made with it is exact whatever the resolution. Every shape lies inside the unit disc.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from retrace.synthetic.draws import Draw

EXTENT = 1.15
"""Half the width of a tile in units of the object's radius: the outline never touches the tile's border."""


def grid(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """x, y (n, n): object-space coordinates of the texel centres."""
    line = (torch.arange(n, device=device, dtype=torch.float32) + 0.5) * (2 * EXTENT / n) - EXTENT
    return line.expand(n, n), line[:, None].expand(n, n)


def wobbly(draw: Draw, n: int, device: torch.device) -> Tensor:
    """A random radial Fourier outline: pebbles, leaves, stars with round arms."""
    x, y = grid(n, device)
    angle = torch.atan2(y, x)
    orders = range(2, draw.integer(4, 8))
    # 1 / k: high orders make wrinkles, and wrinkles are small.
    waves = [(k, draw.uniform(0.05, 0.45) / k, draw.angle()) for k in orders]
    base = 1 / (1 + sum(amplitude for _, amplitude, _ in waves))
    radius = torch.full_like(angle, base)
    slope = torch.zeros_like(angle)
    for k, amplitude, phase in waves:
        radius = radius + base * amplitude * torch.cos(k * angle + phase)
        slope = slope - base * amplitude * k * torch.sin(k * angle + phase)
    return (radius - torch.hypot(x, y)) / torch.sqrt(1 + (slope / radius) ** 2)


def polygon(draw: Draw, n: int, device: torch.device) -> Tensor:
    """A polygon of 3-9 corners at uneven angles and radii, its corners more or less rounded."""
    corners = draw.integer(3, 9)
    rounding = draw.uniform(0.02, 0.15)
    turn = draw.angle()
    angles = [turn + 2 * math.pi * (i + draw.uniform(-0.25, 0.25)) / corners for i in range(corners)]
    low = draw.uniform(0.45, 0.9)
    radii = [draw.uniform(low, 1) * (1 - rounding) for _ in angles]
    points = [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
    x, y = grid(n, device)
    distance = torch.full_like(x, 9.0)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        ex, ey = bx - ax, by - ay
        along = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        distance = torch.minimum(distance, torch.hypot(x - ax - along * ex, y - ay - along * ey))
        crosses = (y >= ay) != (y >= by)
        side = ex * (y - ay) - ey * (x - ax)
        inside ^= crosses & ((side > 0) == (ey > 0))
    return torch.where(inside, distance, -distance) + rounding


def rounded_box(draw: Draw, n: int, device: torch.device) -> Tensor:
    """A box with rounded corners, square to long."""
    angle = draw.uniform(0.25, math.pi / 4)
    return _box(math.cos(angle), math.sin(angle), draw.uniform(0.1, 0.9), n, device)


def limb(draw: Draw, n: int, device: torch.device) -> Tensor:
    """A long rounded piece along x, thicker at one end: arms, legs, necks, tails."""
    x, y = grid(n, device)
    near, far = draw.uniform(0.14, 0.3), draw.uniform(0.08, 0.24)
    ax, bx = near - 1, 1 - far
    along = ((x - ax) / (bx - ax)).clamp(0, 1)
    field = near + (far - near) * along - torch.hypot(x - ax - along * (bx - ax), y)
    if draw.chance(0.4):  # a hand, a head
        field = torch.maximum(field, far * 1.4 - torch.hypot(x - (1 - 1.4 * far), y))
    return field


def blobs(draw: Draw, n: int, device: torch.device) -> Tensor:
    """Several discs melted into one another."""
    x, y = grid(n, device)
    softness = draw.uniform(0.05, 0.12)
    count = draw.integer(3, 5)
    turn = draw.angle()
    total = torch.zeros_like(x)
    for i in range(count):
        size = draw.uniform(0.25, 0.45)
        reach = draw.uniform(0.15, 0.85 - size)
        angle = turn + 2 * math.pi * i / count + draw.uniform(-0.4, 0.4)
        distance = torch.hypot(x - reach * math.cos(angle), y - reach * math.sin(angle))
        total = total + torch.exp(((size - distance) / softness).clamp(min=-60))
    # log-sum-exp is a smooth maximum; it exceeds the maximum by at most softness * log(count) < 0.2.
    return softness * torch.log(total) - 0.05


def ring(draw: Draw, n: int, device: torch.device) -> Tensor:
    """A wobbly outline with a hole."""
    x, y = grid(n, device)
    hole = torch.hypot(x - draw.uniform(-0.1, 0.1), y - draw.uniform(-0.1, 0.1)) - draw.uniform(0.15, 0.3)
    return torch.minimum(wobbly(draw, n, device), hole)


def _box(half_x: float, half_y: float, roundness: float, n: int, device: torch.device) -> Tensor:
    x, y = grid(n, device)
    corner = roundness * min(half_x, half_y)
    qx, qy = x.abs() - (half_x - corner), y.abs() - (half_y - corner)
    outside = torch.hypot(qx.clamp(min=0), qy.clamp(min=0))
    return corner - outside - torch.maximum(qx, qy).clamp(max=0)


Shape = Callable[[Draw, int, torch.device], Tensor]
BODIES: tuple[Shape, ...] = (wobbly, wobbly, wobbly, polygon, rounded_box, blobs, blobs, ring)
