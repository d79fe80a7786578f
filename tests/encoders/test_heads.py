"""Heads that come with weights: taken over whole, or not at all."""

import torch

from retrace.encoders.heads import Projector, take_over


def test_a_head_that_fits_is_taken_over():
    """Every tensor of it."""
    source, target = Projector(4, 6, 3), Projector(4, 6, 3)
    assert take_over(target, source.state_dict())
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)


def test_a_head_of_another_shape_leaves_the_own_one_alone():
    """Neither another width nor no head at all changes anything."""
    target = Projector(4, 6, 3)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    assert not take_over(target, Projector(4, 8, 3).state_dict())
    assert not take_over(target, {})
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())
