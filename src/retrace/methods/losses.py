"""What every method returns."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Losses:
    """The scalar to minimise and the detached numbers worth a curve.

    Attributes:
        total: scalar with gradient.
        terms: name -> detached scalar.
    """

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
