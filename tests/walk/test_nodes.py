"""Whitening: what it does to the covariance of the nodes it was made from. Normalising in every precision."""

import pytest
import torch

from retrace.walk.nodes import normalise, whitening


def correlated(count: int = 200, channels: int = 6) -> torch.Tensor:
    """Nodes with very different variances along directions that are no axes."""
    generator = torch.Generator().manual_seed(0)
    mixing = (
        torch.randn(channels, channels, generator=generator)
        * torch.tensor([9.0, 5, 3, 1, 0.5, 0.2])[:channels]
    )
    return 4 + torch.randn(count, channels, generator=generator) @ mixing.t()


def covariance(nodes: torch.Tensor) -> torch.Tensor:
    """Of the nodes, population."""
    return torch.cov(nodes.double().t(), correction=0)


def test_full_whitening_makes_the_covariance_the_identity():
    """With the floor out of the way every direction has variance 1 and none goes with another."""
    nodes = correlated()
    found = covariance(whitening(nodes, 1.0, floor=0.0)(nodes))
    torch.testing.assert_close(found, torch.eye(6, dtype=torch.float64), rtol=1e-3, atol=1e-3)


def test_half_the_power_leaves_the_root_of_the_covariance():
    """C ** -1/4 from both sides leaves C ** 1/2."""
    nodes = correlated()
    found = covariance(whitening(nodes, 0.5, floor=0.0)(nodes))
    torch.testing.assert_close(found @ found, covariance(nodes), rtol=1e-3, atol=1e-2)


def test_power_zero_only_centres():
    """No direction is scaled."""
    nodes = correlated()
    torch.testing.assert_close(whitening(nodes, 0.0)(nodes), nodes - nodes.mean(0), rtol=1e-4, atol=1e-4)


def test_directions_without_variance_stay_finite():
    """A channel that is the same everywhere, and nodes that are all alike."""
    nodes = correlated()
    nodes[:, 2] = 1.0
    assert whitening(nodes, 1.0)(nodes).isfinite().all()
    alike = torch.full((5, 4), 2.0)
    assert (whitening(alike, 1.0)(alike) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_zero_vector_stays_zero(dtype):
    """In half precision too, where the smallest divisor is 0; the others have unit length."""
    nodes = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0]], dtype=dtype)
    found = normalise(nodes, dim=-1)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.double(), torch.tensor([[0, 0, 0], [0.6, 0, 0.8]]).double(), atol=4e-3, rtol=0
    )
