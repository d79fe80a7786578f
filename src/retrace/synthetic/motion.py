"""Motion in closed form: waves of time, and the map from an object's own space to the image with its exact inverse.

Everything is a function of a real-valued time in frames, so a frame does not depend on how many frames are asked for,
and a shutter can be opened between two of them.

The map of a layer is `x = M1 D(M0 u + c0) + c1`, u in object space (units of the object's radius), x in pixels. D is
the non-rigid part, two shears along curves, `p += a sin(k q + f)` then `q += b sin(l p + g)`: each is inverted by
subtracting what it added, so the inverse is exact, however strong the deformation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retrace.synthetic.draws import Draw


@dataclass(frozen=True)
class Wave:
    """A bounded smooth function of time: offset + sum of amplitude * sin(rate * t + phase), radians per frame."""

    offset: float = 0.0
    parts: tuple[tuple[float, float, float], ...] = ()

    def __call__(self, time: float) -> float:
        """Value at a time in frames."""
        swing = 0.0
        for a, rate, phase in self.parts:
            swing += a * math.sin(rate * time + phase)
        return self.offset + swing


@dataclass(frozen=True)
class Spin:
    """An angle in radians that turns steadily, or swings, or both."""

    wave: Wave
    rate: float = 0.0

    def __call__(self, time: float) -> float:
        """Radians at a time in frames."""
        return self.wave(time) + self.rate * time


def travel(draw: Draw, speed: float, amplitude: tuple[float, float], offset: float = 0.0) -> Wave:
    """A wave of two parts whose fastest speed is about `speed` units per frame; zero speed stays at the offset.

    Args:
        draw: Where the random numbers come from.
        speed: Units per frame.
        amplitude: Range of the swing, units.
        offset: Centre of the swing.
    """
    swing = draw.uniform(*amplitude)
    phases = draw.angle(), draw.angle()
    second = draw.uniform(0.1, 0.4)
    ratio = draw.uniform(1.7, 2.9)
    if speed <= 0 or swing <= 0:
        return Wave(offset)
    # No faster than 0.3 rad a frame: a small swing is slow rather than a tremble.
    rate = min(speed / swing / (1 + second), 0.3)
    return Wave(offset, ((swing, rate, phases[0]), (swing * second / ratio, rate * ratio, phases[1])))


@dataclass(frozen=True)
class Affine:
    """`(x, y) -> (a x + b y + e, c x + d y + f)`, Python floats."""

    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 1.0
    e: float = 0.0
    f: float = 0.0

    @property
    def det(self) -> float:
        """Determinant: the factor of areas."""
        return self.a * self.d - self.b * self.c

    def stretch(self) -> float:
        """Largest singular value: no distance grows by more than this factor."""
        square = (self.a**2 + self.b**2 + self.c**2 + self.d**2) / 2
        return math.sqrt(square + math.sqrt(max(square**2 - self.det**2, 0)))

    def inverse(self) -> "Affine":
        """The map back; the determinant must not be zero."""
        det = self.det
        a, b, c, d = self.d / det, -self.b / det, -self.c / det, self.a / det
        return Affine(a, b, c, d, -(a * self.e + b * self.f), -(c * self.e + d * self.f))

    def after(self, first: "Affine") -> "Affine":
        """`self(first(x))`."""
        return Affine(
            self.a * first.a + self.b * first.c,
            self.a * first.b + self.b * first.d,
            self.c * first.a + self.d * first.c,
            self.c * first.b + self.d * first.d,
            self.a * first.e + self.b * first.f + self.e,
            self.c * first.e + self.d * first.f + self.f,
        )

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Apply to coordinates of any broadcastable shapes."""
        return self.a * x + (self.b * y + self.e), self.c * x + (self.d * y + self.f)


def similarity(angle: float, scale: float, x: float = 0.0, y: float = 0.0) -> Affine:
    """Turn by `angle` (radians, from x towards y), scale, then move by (x, y)."""
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return Affine(c, -s, s, c, x, y)


@dataclass(frozen=True)
class Bend:
    """The non-rigid part at one time: two shears along sine curves; amplitudes in units of the object's radius."""

    a: float = 0.0
    k: float = 0.0
    phase_a: float = 0.0
    b: float = 0.0
    m: float = 0.0
    phase_b: float = 0.0

    @property
    def rigid(self) -> bool:
        """Whether it does nothing."""
        return self.a == 0 and self.b == 0

    @property
    def reach(self) -> float:
        """No point moves further than this, units."""
        return math.hypot(self.a, self.b)

    def forward(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Bend points (p, q)."""
        p = p + self.a * torch.sin(self.k * q + self.phase_a)
        return p, q + self.b * torch.sin(self.m * p + self.phase_b)

    def backward(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """The exact inverse of `forward`."""
        q = q - self.b * torch.sin(self.m * p + self.phase_b)
        return p - self.a * torch.sin(self.k * q + self.phase_a), q


@dataclass(frozen=True)
class Pose:
    """Where a layer is at one time: object space -> image pixels, and back."""

    inner: Affine
    bend: Bend
    outer: Affine

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Object space -> pixels; tensors of one shape."""
        if self.bend.rigid:
            return self.outer.after(self.inner)(u, v)
        return self.outer(*self.bend.forward(*self.inner(u, v)))

    def backward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels -> object space, the inverse of `forward`."""
        if self.bend.rigid:
            return self.outer.after(self.inner).inverse()(x, y)
        return self.inner.inverse()(*self.bend.backward(*self.outer.inverse()(x, y)))

    def moved(self, x: float, y: float) -> "Pose":
        """The same pose, (x, y) pixels further."""
        return Pose(self.inner, self.bend, Affine(e=x, f=y).after(self.outer))

    @property
    def scale(self) -> float:
        """Pixels per unit of object space, the geometric mean over directions (the bend keeps areas)."""
        return math.sqrt(abs(self.outer.det * self.inner.det))

    def disc(self, radius: float) -> tuple[float, float, float]:
        """x, y, r in pixels of a disc that holds the image of the object-space disc of this radius."""
        x = self.outer.a * self.inner.e + self.outer.b * self.inner.f + self.outer.e
        y = self.outer.c * self.inner.e + self.outer.d * self.inner.f + self.outer.f
        return x, y, self.outer.stretch() * (self.inner.stretch() * radius + self.bend.reach)


def backward(poses: Sequence[Pose], x: Tensor, y: Tensor) -> Tensor:
    """`Pose.backward` of N poses at once, bit for bit, in a few large steps.

    Args:
        poses: N of them.
        x: (N, 1, W) pixels.
        y: (N, H, 1) pixels.

    Returns: (2, N, H, W), x and y of object space.
    """
    rigid = [pose.bend.rigid for pose in poses]
    # A rigid pose is one affine map; a bend of nothing and the identity after it change no bit.
    first = [
        (pose.outer.after(pose.inner) if flat else pose.outer).inverse()
        for pose, flat in zip(poses, rigid, strict=True)
    ]
    place = _affine(first, x, y)
    if all(rigid):
        return place
    p, q = place
    bends = [pose.bend for pose in poses]
    a, k, phase_a, b, m, phase_b = _columns(
        [(o.a, o.k, o.phase_a, o.b, o.m, o.phase_b) for o in bends], x.device
    )
    q -= (m * p).add_(phase_b).sin_().mul_(b)
    p -= (k * q).add_(phase_a).sin_().mul_(a)
    if all(pose.inner == Affine() for pose in poses):
        return place
    return _affine(
        [Affine() if f else pose.inner.inverse() for pose, f in zip(poses, rigid, strict=True)], p, q
    )


def _affine(maps: Sequence[Affine], x: Tensor, y: Tensor) -> Tensor:
    """(2, N, H, W): N affine maps of points, whose x and y broadcast to (N, H, W)."""
    of_x, of_y, shift = _columns([(o.a, o.c, o.b, o.d, o.e, o.f) for o in maps], x.device).view(
        3, 2, -1, 1, 1
    )
    place: Tensor = of_x * x + (of_y * y).add_(shift)
    return place


def _columns(rows: Sequence[tuple[float, ...]], device: torch.device) -> Tensor:
    """The columns of a table of N rows, (columns, N, 1, 1)."""
    columns = torch.tensor(list(zip(*rows, strict=True)), dtype=torch.float32, device=device)
    return columns[..., None, None]
