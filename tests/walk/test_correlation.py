"""Local correlation volumes against the dense matrix and loops; gradients against finite differences."""

import pytest
import torch
import torch.nn.functional as F

from retrace.walk import neighborhood
from retrace.walk.correlation import (
    local_correlation,
    pair_correlation,
    pool_volume,
    reconstruct,
    window_scores,
)
from retrace.walk.nodes import to_nodes


def dense(volume):
    """(B, h, w, K, K) -> (B, h w, h w), by loops."""
    batch, h, w, size, _ = volume.shape
    radius = size // 2
    out = volume.new_zeros(batch, h, w, h, w)
    for y in range(h):
        for x in range(w):
            for i in range(size):
                for j in range(size):
                    row, column = y + i - radius, x + j - radius
                    if 0 <= row < h and 0 <= column < w:
                        out[:, y, x, row, column] = volume[:, y, x, i, j]
                    else:
                        assert (volume[:, y, x, i, j] == 0).all()
    return out.reshape(batch, h * w, h * w)


def maps(h, w, *, batch=2, channels=5, seed=0):
    """Two random maps (B, C, h, w), float64, that want gradients."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, batch, channels, h, w)
    target, reference = torch.randn(shape, generator=generator, dtype=torch.float64)
    return target.requires_grad_(), reference.requires_grad_()


# Below, at and above the size of a tile; a window larger than the map; a window of one.
SIZES = [(5, 7, 2), (9, 17, 3), (3, 4, 6), (6, 10, 0), (8, 16, 4)]


@pytest.mark.parametrize(("h", "w", "radius"), SIZES)
def test_volume_is_the_dense_softmax(h, w, radius):
    """Values and both gradients, in the window of `neighborhood.square`."""
    target, reference = maps(h, w)
    scores = to_nodes(target) @ to_nodes(reference).transpose(1, 2) / 0.7
    expected = scores.masked_fill(~neighborhood.square(h, w, radius), -torch.inf).softmax(-1)
    volume = local_correlation(target, reference, radius, 0.7)
    torch.testing.assert_close(dense(volume), expected)
    torch.testing.assert_close(volume.sum((-2, -1)), torch.ones(2, h, w, dtype=torch.float64))
    weights = torch.randn(volume.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given = dense(weights * (volume > 0))  # without what stands outside the map
    ours = torch.autograd.grad((volume * weights).sum(), (target, reference))
    theirs = torch.autograd.grad((expected * given).sum(), (target, reference))
    torch.testing.assert_close(ours, theirs)


def test_gradcheck():
    """Finite differences, through the volume and the reconstruction."""
    target, reference = maps(3, 10, batch=1, channels=2)  # two tiles wide
    values = torch.rand(1, 2, 3, 10, dtype=torch.float64, requires_grad=True)

    def both(a, b, v):
        volume = local_correlation(a, b, 2, 0.8)
        return volume, reconstruct(volume, v)

    assert torch.autograd.gradcheck(both, (target, reference, values))


def test_arguments_are_not_written_to_and_channels_last_is_the_same():
    """The gradient's layout is nobody's business either."""
    target, reference = maps(5, 9)
    before = target.detach().clone(), reference.detach().clone()
    volume = local_correlation(target, reference, 2)
    grad = torch.randn_like(volume)
    kept = grad.clone()
    expected = torch.autograd.grad(volume, (target, reference), grad)
    assert (grad == kept).all()
    assert (target == before[0]).all()
    assert (reference == before[1]).all()
    last = [
        m.detach().contiguous(memory_format=torch.channels_last).requires_grad_() for m in (target, reference)
    ]
    again = local_correlation(*last, 2)
    assert (again == volume).all()
    strided = grad.transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(torch.autograd.grad(again, last, strided), expected)


def test_only_one_map_wants_a_gradient():
    """A constant reference."""
    target, reference = maps(4, 6)
    volume = local_correlation(target, reference.detach(), 1)
    both = local_correlation(target, reference, 1)
    ours = torch.autograd.grad(volume.square().sum(), target)
    torch.testing.assert_close(ours, torch.autograd.grad(both.square().sum(), [target]))


@pytest.mark.parametrize(("h", "w", "radius"), SIZES)
def test_window_scores_are_dot_products(h, w, radius):
    """And 0 outside the map."""
    target, reference = (m.detach() for m in maps(h, w))
    scores = to_nodes(target) @ to_nodes(reference).transpose(1, 2)
    expected = scores.masked_fill(~neighborhood.square(h, w, radius), 0)
    torch.testing.assert_close(dense(window_scores(target, reference, radius)), expected)


def test_reconstruction_is_the_weighted_sum():
    """Eq. (5), two channels."""
    target, reference = maps(5, 7)
    values = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    volume = local_correlation(target, reference, 2)
    expected = dense(volume) @ to_nodes(values)  # (B, N, L)
    torch.testing.assert_close(to_nodes(reconstruct(volume, values)), expected)


@pytest.mark.parametrize(("radius", "coarse"), [(3, 2), (2, 1), (2, 3), (0, 0), (5, 3)])
def test_pooling_is_the_dense_mean(radius, coarse):
    """avg_pool2d by 2 over keys and over queries; zeros beyond."""
    h, w = 6, 10
    target, reference = maps(h, w)
    volume = local_correlation(target, reference, radius)
    full = dense(volume).reshape(-1, h * w, h, w)
    over_keys = F.avg_pool2d(full, 2).reshape(len(full), h, w, -1).permute(0, 3, 1, 2)
    both = F.avg_pool2d(over_keys, 2).flatten(2).transpose(1, 2)  # (B, n, n)
    pooled = pool_volume(volume, coarse)
    assert pooled.shape == (2, h // 2, w // 2, 2 * coarse + 1, 2 * coarse + 1)
    torch.testing.assert_close(dense(pooled), both)
    torch.testing.assert_close(pooled.sum((-2, -1)), torch.full((2, h // 2, w // 2), 0.25).double())


def test_wrong_arguments_get_a_sentence():
    """Before anything is computed."""
    target, reference = maps(4, 6)
    with pytest.raises(
        ValueError, match=r"maps of \(2, 5, 4, 6\) and \(2, 5, 4, 5\); expected twice the same"
    ):
        local_correlation(target, reference[..., :5], 1)
    with pytest.raises(ValueError, match=r"maps of \(2, 5, 4, 6\); expected \(B, 2, C, h, w\)"):
        pair_correlation(target, 1)
    with pytest.raises(ValueError, match="radius is -1; expected 0 or more cells"):
        window_scores(target, reference, -1)
    volume = local_correlation(target, reference, 3)
    with pytest.raises(ValueError, match="radius 1 of the halved map; expected at least 2"):
        pool_volume(volume, 1)
    with pytest.raises(ValueError, match="a map of 3 x 6 cells; expected even sizes"):
        pool_volume(volume[:, :3], 2)


def test_memory_stays_small():
    """Nothing of the size of the dense matrix is allocated on the way, forward or backward."""
    target, reference = maps(24, 40, batch=1)
    with torch.profiler.profile(profile_memory=True) as profile:
        local_correlation(target, reference, 2).square().sum().backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest < (24 * 40) ** 2 * 8 / 10
