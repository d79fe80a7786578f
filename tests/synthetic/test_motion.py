"""Maps of motion: exact inverses, bounds, waves."""

import math

import pytest
import torch

from retrace.synthetic import motion
from retrace.synthetic.draws import Draw
from retrace.synthetic.motion import Affine, Bend, Pose, similarity, travel
from retrace.synthetic.world import SceneConfig, build

CPU = torch.device("cpu")


def points(count: int = 500, reach: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of a square, (count,) each."""
    values = torch.rand(2, count, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return values[0] * reach, values[1] * reach


def test_backward_undoes_forward_within_a_thousandth_of_a_pixel_for_every_layer() -> None:
    """Backward undoes forward within a thousandth of a pixel for every layer."""
    config = SceneConfig(height=90, width=160, num_objects=(5, 5), limbs=1, deformation=3)
    u, v = points()
    bent = 0
    for seed in range(4):
        world = build(config, torch.Generator().manual_seed(seed), CPU)
        for layer in range(-1, len(world.layers)):
            for time in (0, 3.7, 47):
                pose = world.pose(layer, time)
                bent += not pose.bend.rigid
                x, y = pose.forward(u, v)
                again_x, again_y = pose.forward(*pose.backward(x, y))
                assert torch.hypot(again_x - x, again_y - y).max() < 1e-3
                back_u, back_v = pose.backward(x, y)
                assert torch.hypot(back_u - u, back_v - v).max() * pose.scale < 1e-2
    assert bent > 30


def test_backward_of_many_poses_is_that_of_each_bit_for_bit() -> None:
    """Rigid ones, bent ones, limbs and trunks together; over windows that begin at different pixels."""
    config = SceneConfig(height=90, width=160, num_objects=(5, 5), limbs=1, deformation=3)
    world = build(config, torch.Generator().manual_seed(0), CPU)
    poses = [world.pose(layer, time) for layer in range(-1, len(world.layers)) for time in (0, 3.7)]
    limb = next(pose for pose in poses if pose.inner != Affine() and not pose.bend.rigid)
    trunk = next(pose for pose in poses if pose.inner == Affine() and not pose.bend.rigid)
    still = Pose(limb.inner, Bend(), limb.outer)
    for group in (
        [limb],
        [trunk],
        [still],
        [limb, trunk, still],
        [trunk, Pose(Affine(), Bend(), trunk.outer)],
    ):
        first = torch.arange(len(group))[:, None, None] * 5
        x, y = torch.arange(31)[None, None] + 0.5 + first, torch.arange(17)[None, :, None] + 0.5 + 2 * first
        place = motion.backward(group, x, y)
        assert place.shape == (2, len(group), 17, 31)
        for i, pose in enumerate(group):
            assert torch.equal(place[:, i], torch.stack(pose.backward(x[i], y[i])))


def test_bend_inverts_in_float64_to_rounding() -> None:
    """Bend inverts in float64 to rounding."""
    bend = Bend(a=0.8, k=3.0, phase_a=0.4, b=-0.6, m=2.5, phase_b=1.0)
    p, q = (value.double() for value in points())
    back_p, back_q = bend.backward(*bend.forward(p, q))
    torch.testing.assert_close(back_p, p, atol=1e-14, rtol=0)
    torch.testing.assert_close(back_q, q, atol=1e-14, rtol=0)


def test_affine_composes_and_inverts() -> None:
    """Affine composes and inverts."""
    first, second = similarity(0.7, 2.0, 3.0, -1.0), Affine(1.2, 0.3, -0.1, 0.8, 5.0, 6.0)
    x, y = points()
    torch.testing.assert_close(second.after(first)(x, y), second(*first(x, y)))
    torch.testing.assert_close(first.inverse()(*first(x, y)), (x, y), atol=1e-6, rtol=0)
    matrix = torch.tensor([[second.a, second.b], [second.c, second.d]])
    assert second.stretch() == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-6)


def test_disc_holds_the_image_of_the_disc_and_scale_is_that_of_areas() -> None:
    """Disc holds the image of the disc and scale is that of areas."""
    pose = Pose(
        similarity(0.3, 0.6, 0.4, 0.2), Bend(0.3, 2, 0.1, 0.2, 1.5, 2), Affine(40, 5, -8, 25, 100, 50)
    )
    angle = torch.arange(3000) * (2 * math.pi / 3000)
    x, y = pose.forward(torch.cos(angle), torch.sin(angle))
    cx, cy, r = pose.disc(1.0)
    assert torch.hypot(x - cx, y - cy).max() <= r
    area = 0.5 * (x * y.roll(-1) - y * x.roll(-1)).sum()  # the shears keep areas
    assert float(area) == pytest.approx(math.pi * pose.scale**2, rel=1e-3)


def test_travel_keeps_to_its_speed_and_a_speed_of_zero_rests() -> None:
    """Travel keeps to its speed and a speed of zero rests."""
    for seed in range(20):
        wave = travel(Draw(torch.Generator().manual_seed(seed)), 0.02, (0.1, 0.5), 0.3)
        values = [wave(t / 10) for t in range(4000)]
        steps = [abs(b - a) * 10 for a, b in zip(values, values[1:], strict=False)]
        assert 0.005 < max(steps) <= 0.0201
        assert max(abs(value - 0.3) for value in values) < 0.5 * 1.3
    still = travel(Draw(torch.Generator().manual_seed(0)), 0.0, (0.1, 0.5), 0.3)
    assert still(0) == still(17.5) == 0.3
