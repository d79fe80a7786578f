"""Affinity, transitions, cycles, neighbourhoods and warps against loops and identities."""

import math

import pytest
import torch

from retrace.walk import cycles, neighborhood, nodes, warp
from retrace.walk.affinity import FORBIDDEN, affinity, transition
from retrace.walk.sinkhorn import sinkhorn


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Draw."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def steps(count: int, n: int = 6, batch: int = 2) -> list[torch.Tensor]:
    """Steps."""
    return [draw(batch, n, n, seed=i).softmax(-1) for i in range(count)]


def test_nodes_go_row_by_row_and_back():
    """Nodes go row by row and back."""
    feature_map = draw(2, 3, 4, 5)
    flat = nodes.to_nodes(feature_map)
    assert torch.equal(flat[1, 2 * 5 + 3], feature_map[1, :, 2, 3])
    assert torch.equal(nodes.to_map(flat, 4, 5), feature_map)


def test_transition_rows_sum_to_one_and_respect_the_mask():
    """Transition rows sum to one and respect the mask."""
    mask = torch.rand(4, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[0] = False  # a walker without any allowed step
    step = transition(draw(2, 4, 7), 0.05, mask=mask)
    torch.testing.assert_close(step.sum(-1), torch.ones(2, 4, dtype=torch.float64))
    assert (step[:, 1:][:, ~mask[1:]] == 0).all()
    torch.testing.assert_close(step[:, 0], torch.full((2, 7), 1 / 7, dtype=torch.float64))


def test_edge_dropout_drops_its_share_and_repeats_with_the_generator():
    """Edge dropout drops its share and repeats with the generator."""
    flat = torch.zeros(1, 200, 300)
    one = transition(flat, 0.1, edge_dropout=0.3, generator=torch.Generator().manual_seed(3))
    two = transition(flat, 0.1, edge_dropout=0.3, generator=torch.Generator().manual_seed(3))
    assert torch.equal(one, two)
    assert (one == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)


def test_half_affinities_give_float_transitions():
    """Half affinities give float transitions."""
    assert transition(draw(3, 3).bfloat16(), 0.05).dtype == torch.float32


@pytest.mark.parametrize("length", [2, 3, 5])
def test_nested_homes_are_the_products_they_stand_for(length):
    """Nested homes are the products they stand for."""
    forward, backward, (turn,) = steps(length - 1), steps(length - 1), steps(1)
    homes = cycles.nested_homes(forward[1:], turn, backward)
    assert len(homes) == length - 1
    for start in range(length - 1):
        expected = cycles.chain([*forward[start + 1 :], turn, *backward[: length - 1 - start]])
        torch.testing.assert_close(homes[start], expected)


def test_prefix_palindromes_are_the_products_they_stand_for():
    """Prefix palindromes are the products they stand for."""
    forward, backward = steps(4), [step.flip(-1) for step in steps(4)]
    for turn, (out, home) in enumerate(cycles.prefix_palindromes(forward, backward), start=1):
        torch.testing.assert_close(out, cycles.chain(forward[:turn]))
        torch.testing.assert_close(home, cycles.chain(backward[:turn][::-1]))


def test_return_probability_is_the_diagonal_and_the_target_mass():
    """Return probability is the diagonal and the target mass."""
    out, home = steps(2)
    whole = out @ home
    torch.testing.assert_close(cycles.return_probability(out, home), whole.diagonal(dim1=1, dim2=2))
    target = neighborhood.neighbours(2, 3, 1)
    torch.testing.assert_close(cycles.return_probability(out, home, target), (whole * target).sum(-1))


def test_cross_entropy_reductions():
    """Cross entropy reductions."""
    probability, mask = torch.tensor([[0.5, 0.25]]), torch.tensor([[1.0, 0.0]])
    assert cycles.cycle_cross_entropy(probability, mask, epsilon=0).item() == pytest.approx(math.log(2) / 2)
    masked = cycles.cycle_cross_entropy(probability, mask, reduction="masked_nodes", epsilon=0)
    assert masked.item() == pytest.approx(math.log(2) / (1 + 1e-5))
    assert cycles.cycle_cross_entropy(probability, epsilon=0).item() == pytest.approx(math.log(8) / 2)
    with pytest.raises(ValueError, match="reduction"):
        cycles.cycle_cross_entropy(probability, mask, reduction="mean")


def test_accuracy_of_the_identity_and_of_a_shift():
    """Accuracy of the identity and of a shift."""
    identity = torch.eye(6)[None]
    assert cycles.cycle_accuracy(identity) == 1
    assert cycles.cycle_accuracy(identity.roll(1, -1)) == 0
    assert cycles.cycle_accuracy(identity, torch.zeros(1, 6)) == 0


@pytest.mark.parametrize("radius", [1, 2, 2.5, 3])
def test_neighbourhoods_by_brute_force(radius):
    """Neighbourhoods by brute force."""
    h, w = 4, 7
    for i in range(h * w):
        for j in range(h * w):
            dy, dx = i // w - j // w, i % w - j % w
            assert neighborhood.disc(h, w, radius)[i, j] == (math.hypot(dy, dx) < radius)
            assert neighborhood.square(h, w, int(radius))[i, j] == (max(abs(dy), abs(dx)) <= int(radius))
            assert neighborhood.neighbours(h, w, radius, 2)[i, j] == (math.hypot(dy, dx) <= radius + 1e-6)


@pytest.mark.parametrize(
    ("shape", "radius", "expected"), [("disc", 3, 2), ("disc", 3.5, 3), ("square", 3, 3), ("disc", 1, 0)]
)
def test_reach(shape, radius, expected):
    """Reach."""
    assert neighborhood.reach(shape, radius) == expected
    offsets = torch.arange(-9.0, 10.0)
    inside = neighborhood.window(shape, radius, offsets, torch.zeros(()))
    assert int(offsets[inside].max()) == expected


def test_small_targets_are_the_identity():
    """Small targets are the identity."""
    assert torch.equal(neighborhood.neighbours(3, 5, 0.1), torch.eye(15, dtype=torch.bool))


def test_crop_matrix_takes_box_corners_to_corners():
    """Crop matrix takes box corners to corners."""
    height, width = 40, 60
    box = torch.tensor([7, 11, 30, 20])
    matrix = warp.crop_matrix(box, torch.tensor(False), height, width)
    mirrored = warp.crop_matrix(box, torch.tensor(True), height, width)
    for x, y, expected in ((7, 11, (-1, -1)), (36, 30, (1, 1))):
        point = torch.tensor([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1, 1], dtype=torch.float64)
        torch.testing.assert_close((matrix @ point)[:2], torch.tensor(expected, dtype=torch.float64))
        torch.testing.assert_close(
            (mirrored @ point)[:2], torch.tensor((-expected[0], expected[1]), dtype=torch.float64)
        )


def test_reading_a_map_through_two_crops_reads_the_same_places():
    """A coordinate image, cropped twice: reading crop 1 at crop 2's positions gives crop 2's coordinates."""
    height, width, size = 48, 64, 33
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    frame = torch.stack([xs, ys]).double()[None]
    matrices = [
        warp.crop_matrix(torch.tensor(box), torch.tensor(flip), height, width)
        for box, flip in (((4, 3, 50, 40), False), ((10, 8, 30, 28), True))
    ]
    crops = [warp.read(frame, torch.linalg.inv(m)[None, :2], (size, size)) for m in matrices]
    reading = warp.reading_matrix(*matrices)[None]
    torch.testing.assert_close(warp.read(crops[0], reading), crops[1], atol=1e-9, rtol=0)
    assert warp.inside_mask(reading, (size, size)).all()  # the second crop lies inside the first
    outside = warp.inside_mask(warp.reading_matrix(*matrices[::-1])[None], (size, size))
    assert 0 < outside.mean() < 1


@pytest.mark.parametrize(("origin", "cells"), [(0, 16), (31, 9)])
def test_on_nodes_is_exact_where_the_released_way_is_not(origin, cells):
    """Nodes sit on pixels 0, 8, 16, ..., or begin later: read their positions through crops of another scale."""
    size, stride = 128, 8
    one = warp.crop_matrix(torch.tensor([0, 0, 200, 150]), torch.tensor(False), 150, 200)
    two = warp.crop_matrix(torch.tensor([40, 30, 100, 60]), torch.tensor(True), 150, 200)
    reading = warp.reading_matrix(one, two)
    grid = origin + torch.arange(cells, dtype=torch.float64) * stride
    ys, xs = torch.meshgrid(grid, grid, indexing="ij")
    positions = torch.stack([xs, ys])[None]  # where the nodes of crop one sit, in its pixels
    pixels = torch.stack([2 * xs / (size - 1) - 1, 2 * ys / (size - 1) - 1, torch.ones_like(xs)])
    expected = (torch.einsum("ij,jyx->iyx", reading, pixels) + 1) / 2 * (size - 1)
    inner = ((expected >= origin) & (expected <= grid[-1])).all(0)
    exact = warp.read(positions, warp.on_nodes(reading, size, size, stride, cells, cells, origin)[None])[0]
    torch.testing.assert_close(exact[:, inner], expected[:, inner], atol=1e-9, rtol=0)
    naive = warp.read(positions, reading[None])[0]
    assert (naive - expected)[:, inner].abs().max() > 2  # pixels
    assert affinity(draw(2, 3), draw(4, 3)).shape == (2, 4)


def test_many_readings_are_single_readings():
    """Of every map, through every matrix."""
    maps, matrices = draw(2, 3, 5, 7), 0.5 * draw(2, 4, 2, 3, seed=1)
    many = warp.read_many(maps, matrices, (3, 6))
    assert many.shape == (2, 4, 3, 3, 6)
    for place in range(4):
        torch.testing.assert_close(many[:, place], warp.read(maps, matrices[:, place], (3, 6)))


def test_placement_puts_a_patch_where_it_says():
    """Its centre on (tx, ty), its side a third of the frame's, turned."""
    matrix = warp.placement(torch.tensor([0.3, -0.2, math.pi / 2], dtype=torch.float64), 1 / 3)
    torch.testing.assert_close(matrix[:, 2], torch.tensor([0.3, -0.2], dtype=torch.float64))
    right = matrix @ torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)  # the patch's right edge points down
    torch.testing.assert_close(right, torch.tensor([0.3, -0.2 + 1 / 3], dtype=torch.float64))


@pytest.mark.parametrize("points", [2, 3, 20])
def test_alignment_error_is_the_mean_over_the_grid(points):
    """The grid it does without, by loops."""
    one, other = draw(3, 2, 3), draw(3, 2, 3, seed=1)
    axis = torch.linspace(-1, 1, points, dtype=torch.float64).tolist()
    total = torch.zeros(3, dtype=torch.float64)
    for x in axis:
        for y in axis:
            point = torch.tensor([x, y, 1], dtype=torch.float64)
            total += ((one - other) @ point).square().sum(-1) / points**2
    torch.testing.assert_close(warp.alignment_error(one, other, points), total)


def test_soft_inliers_by_the_identity_volume():
    """Rocco et al.'s way: one mask per image node, sampled at the patch's positions."""
    (h, w), (rows, columns) = (5, 7), (2, 3)
    walk = draw(2, rows * columns, h * w).softmax(-1)
    matrices = warp.placement(draw(2, 3, seed=1), 0.4)
    volume = torch.eye(h * w, dtype=torch.float64).reshape(1, h * w, h, w).expand(2, -1, -1, -1)
    masks = warp.read(volume, matrices, (rows, columns)).flatten(2)  # (B, N, n)
    share = masks / (masks + 1e-5).sum((1, 2), keepdim=True)
    expected = (share * walk.transpose(1, 2)).sum((1, 2))
    torch.testing.assert_close(warp.soft_inliers(walk, matrices, (h, w), (rows, columns)), expected)


def test_patch_grid_counts_row_by_row():
    """Those that fit, and no others."""
    corners = nodes.patch_corners(20, 31, 8, 5)
    assert corners.tolist() == [[x, y] for y in (0, 5, 10) for x in (0, 5, 10, 15, 20)]


def test_sinkhorn_evens_columns_without_overflow():
    """Rows and columns sum to 1, whatever they were scaled by before; small temperatures do not overflow."""
    logits = draw(2, 6, 6)
    even = sinkhorn(logits, tolerance=1e-9, max_iterations=1000)
    ones = torch.ones(2, 6, dtype=torch.float64)
    torch.testing.assert_close(even.sum(-1), ones)
    torch.testing.assert_close(even.sum(-2), ones, atol=1e-8, rtol=0)
    shifted = logits + draw(2, 6, 1, seed=1) + draw(2, 1, 6, seed=2)
    torch.testing.assert_close(
        sinkhorn(shifted, tolerance=1e-9, max_iterations=1000), even, atol=1e-7, rtol=0
    )
    once = logits.exp() / logits.exp().sum(-2, keepdim=True)
    torch.testing.assert_close(sinkhorn(logits, max_iterations=1), once / once.sum(-1, keepdim=True))
    assert torch.isfinite(sinkhorn(logits.float() * 100)).all()
    assert torch.autograd.gradcheck(
        lambda x: sinkhorn(x, max_iterations=3, tolerance=0.0), (logits.requires_grad_(),)
    )


def test_sinkhorn_never_takes_a_forbidden_edge():
    """Where both its ends have others."""
    logits = draw(5, 6)
    logits[2, 3] = FORBIDDEN
    assert sinkhorn(logits)[2, 3] == 0
