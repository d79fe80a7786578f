"""Scalar draws from a torch generator: every random number of a scene comes through one of these."""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


class Draw:
    """Python numbers drawn from `generator` (a CPU generator, so that a scene is the same on every device)."""

    def __init__(self, generator: torch.Generator) -> None:
        """Keep the generator; nothing is drawn yet."""
        self.generator = generator
        self._drawn = torch.empty((), dtype=torch.float64)

    def uniform(self, low: float, high: float) -> float:
        """A float of [low, high)."""
        return low + (high - low) * self._drawn.uniform_(generator=self.generator).item()

    def log_uniform(self, low: float, high: float) -> float:
        """A float of [low, high), its logarithm evenly spread; low > 0."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def integer(self, low: int, high: int) -> int:
        """An integer of low .. high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform(0, 1) < probability

    def sign(self) -> float:
        """-1 or 1."""
        return 1.0 if self.chance(0.5) else -1.0

    def angle(self) -> float:
        """Radians, [0, 2 pi)."""
        return self.uniform(0, 2 * math.pi)

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.integer(0, len(items) - 1)]

    def seed(self) -> int:
        """A seed for another generator."""
        return self.integer(0, 2**62)
