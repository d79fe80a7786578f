"""Frame similarity: by loops, at its ends, with right gradients."""

import math

import pytest
import torch

from retrace.walk.similarity import contrastive_terms, cosine_distance, spread


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_distance_is_of_unit_vectors_by_loops():
    """Squared Euclidean distance after normalising, every prediction to every target."""
    p, z = numbers(2, 3, 5), numbers(2, 4, 5, seed=1)
    found = cosine_distance(p, z)
    assert found.shape == (2, 3, 4)
    for b in range(2):
        for i in range(3):
            for j in range(4):
                gap = p[b, i] / p[b, i].norm() - z[b, j] / z[b, j].norm()
                assert found[b, i, j].item() == pytest.approx((gap @ gap).item())


def test_distance_of_same_and_opposite():
    """0 and 4, whatever the lengths."""
    p = numbers(3, 5)
    torch.testing.assert_close(
        cosine_distance(p, 7 * p).diagonal(), torch.zeros(3).double(), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(cosine_distance(p, -p).diagonal(), torch.full((3,), 4.0).double())


def test_contrastive_terms_by_loops():
    """Every positive alone against the negatives; -inf takes one out."""
    positives, negatives = numbers(3, 2), numbers(3, 6, seed=1)
    negatives[1, 4] = -torch.inf
    found = contrastive_terms(positives, negatives, 0.3)
    for i in range(3):
        crowd = sum(math.exp(n / 0.3) for n in negatives[i].tolist())
        for j in range(2):
            own = math.exp(positives[i, j] / 0.3)
            assert found[i, j].item() == pytest.approx(-math.log(own / (own + crowd)))


def test_contrastive_term_is_a_cross_entropy():
    """With one positive it is the cross-entropy of class 0, also where exponentials overflow."""
    positives, negatives = 50 * numbers(4, 1), 50 * numbers(4, 9, seed=1)
    logits = torch.cat([positives, negatives], 1) / 0.07
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(4, dtype=torch.long), reduction="none")
    torch.testing.assert_close(contrastive_terms(positives, negatives, 0.07)[:, 0], expected)


def test_gradients():
    """Gradients."""
    p, z = numbers(2, 3, 4).requires_grad_(), numbers(2, 2, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(cosine_distance, (p, z))
    a, b = numbers(3, 2).requires_grad_(), numbers(3, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: contrastive_terms(a, b, 0.5), (a, b))


def test_spread_tells_collapse():
    """Equal embeddings have none, random ones 1 / sqrt(channels), a single one none."""
    assert spread(torch.ones(4, 3, 8)) == 0
    assert spread(numbers(500, 4, 16)) == pytest.approx(0.25, abs=0.01)
    assert spread(numbers(1, 16)) == 0
