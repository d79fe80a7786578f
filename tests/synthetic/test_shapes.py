"""Outline fields."""

import pytest
import torch

from retrace.synthetic import shapes
from retrace.synthetic.draws import Draw

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", sorted({*shapes.BODIES, shapes.limb}, key=lambda s: s.__name__))
def test_a_shape_lies_inside_the_unit_disc_and_is_about_a_distance(shape: shapes.Shape) -> None:
    """A shape lies inside the unit disc and is about a distance."""
    n = 96
    x, y = shapes.grid(n, CPU)
    texel = 2 * shapes.EXTENT / n
    for seed in range(25):
        field = shape(Draw(torch.Generator().manual_seed(seed)), n, CPU)
        assert field.shape == (n, n)
        inside = field > 0
        assert 0.03 < float(inside.float().mean()) < 0.62
        assert torch.hypot(x, y)[inside].max() < 1.02
        # Near the outline the field falls by about one unit per unit: the blend there is one pixel wide.
        slope = torch.hypot(*torch.gradient(field, spacing=texel))
        near = field.abs() < 1.5 * texel
        assert 0.6 < float(slope[near].median()) < 1.4


def test_grid_is_x_across_and_y_down() -> None:
    """Grid is x across and y down."""
    x, y = shapes.grid(10, CPU)
    assert x[0, 0] == x[9, 0] == pytest.approx(-shapes.EXTENT * 0.9)
    assert y[0, 0] == y[0, 9] == pytest.approx(-shapes.EXTENT * 0.9)
