"""Slow copies, the queue, shuffling; on one process and on two."""

import pytest
import torch
from torch import nn

from retrace.encoders import momentum
from retrace.encoders.heads import ContrastiveHead, SimSiamHead
from retrace.errors import UsageError


def network() -> nn.Sequential:
    """A convolution and batch statistics."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def images(count: int = 6) -> torch.Tensor:
    """Of different brightness, so that it matters who shares statistics."""
    torch.manual_seed(1)
    return torch.randn(count, 3, 5, 7) * torch.arange(1.0, count + 1).view(-1, 1, 1, 1)


def test_slow_copy_is_apart_and_wants_no_gradient():
    """Training the one does not move the other."""
    fast = network()
    slow = momentum.slow_copy(fast)
    assert not any(parameter.requires_grad for parameter in slow.parameters())
    with torch.no_grad():
        fast[0].weight.add_(1)
    assert not torch.equal(fast[0].weight, slow[0].weight)


def test_momentum_moves_parameters_only():
    """The share m of the old and 1 - m of the new; running statistics stay."""
    fast = network()
    slow = momentum.slow_copy(fast)
    before = {name: tensor.clone() for name, tensor in slow.state_dict().items()}
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.normal_()
    fast(images())
    momentum.momentum_step(slow, fast, 0.75)
    for name, parameter in fast.named_parameters():
        torch.testing.assert_close(slow.state_dict()[name], 0.75 * before[name] + 0.25 * parameter.detach())
    assert torch.equal(slow[1].running_mean, before["1.running_mean"])
    assert not torch.equal(fast[1].running_mean, before["1.running_mean"])


def test_queue_is_first_in_first_out():
    """Against a list; it starts with unit columns."""
    queue = momentum.NegativeQueue(3, 8)
    torch.testing.assert_close(queue.embeddings.norm(dim=0), torch.ones(8))
    columns = list(queue.embeddings.T.clone())
    for step in range(5):
        keys = torch.full((2, 3), float(step + 1)) + torch.arange(2.0)[:, None]
        place = 2 * step % 8
        columns[place : place + 2] = list(keys)
        queue.enqueue(keys)
        assert torch.equal(queue.embeddings, torch.stack(columns, 1))
    assert int(queue.pointer) == 2


def test_queue_is_saved():
    """Embeddings and pointer are buffers."""
    queue = momentum.NegativeQueue(3, 8)
    queue.enqueue(torch.ones(4, 3))
    again = momentum.NegativeQueue(3, 8)
    again.load_state_dict(queue.state_dict())
    assert torch.equal(again.embeddings, queue.embeddings)
    assert int(again.pointer) == 4


@pytest.mark.parametrize(("length", "arriving", "advice"), [(8, 3, "6"), (4, 8, "8"), (64, 12, "60")])
def test_queue_that_does_not_fill_evenly(length, arriving, advice):
    """One sentence with a length that would do; nothing is written."""
    queue = momentum.NegativeQueue(2, length)
    before = queue.embeddings.clone()
    with pytest.raises(
        UsageError, match=rf"holds {length} negatives and {arriving} keys .* such as {advice}\."
    ):
        queue.enqueue(torch.zeros(arriving, 2))
    assert torch.equal(queue.embeddings, before)


def test_groups_have_statistics_of_their_own():
    """Two groups give what two batches give."""
    net, x = network(), images()
    found = momentum.in_groups(net, x, 2)
    torch.testing.assert_close(found, torch.cat([net(x[:3]), net(x[3:])]))
    assert (found - net(x)).abs().max() > 0.01
    torch.testing.assert_close(momentum.in_groups(net, x, 1), net(x))


def test_shuffling_one_batch_does_nothing():
    """One process, one group: the statistics are those of all images in any order."""
    net, x = network(), images()
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert torch.equal(momentum.shuffled(net, x, 1, generator), net(x))
    assert torch.equal(generator.get_state(), state)


def test_shuffling_groups():
    """Outputs come back in order, from statistics of the shuffled groups."""
    net, x = network(), images()
    found = momentum.shuffled(net, x, 3, torch.Generator().manual_seed(5))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(5))
    expected = torch.empty_like(found)
    for part in order.split(2):
        expected[part] = net(x[part])
    torch.testing.assert_close(found, expected)
    assert (found - momentum.in_groups(net, x, 3)).abs().max() > 0.01
    assert not found.requires_grad
    identity = momentum.shuffled(nn.Identity(), x, 3, torch.Generator().manual_seed(5))
    assert torch.equal(identity, x)


def test_heads_shapes_and_norms():
    """Means of the map go in; the contrastive head's rows are unit vectors; v1 is one linear layer."""
    x = torch.randn(5, 6, 3, 4)
    z, p = SimSiamHead(6, 8, 10, 3)(x)
    assert z.shape == p.shape == (5, 10)
    torch.testing.assert_close(z.mean(0), torch.zeros(10), atol=1e-5, rtol=0)  # its last BN
    for hidden, layers in ((8, 3), (None, 1)):
        head = ContrastiveHead(6, hidden, 4)
        assert len(head.projector) == layers
        torch.testing.assert_close(head(x).norm(dim=1), torch.ones(5))
        torch.testing.assert_close(head(x), head(x.mean((2, 3), keepdim=True)))
