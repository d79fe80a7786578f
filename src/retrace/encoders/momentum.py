"""What learning against negatives keeps beside the encoder: a slow copy of it, a queue of its outputs (MoCo).

All of it works on one process and on many (torch.distributed): the queue takes the keys of all processes in the order
of their ranks, so that every process holds the same one, and shuffling exchanges images between processes.
"""

import copy
from collections.abc import Callable

import torch
import torch.distributed
from torch import Tensor, nn

from retrace.errors import UsageError
from retrace.walk.nodes import normalise


def slow_copy(module: nn.Module) -> nn.Module:
    """A copy that no optimiser moves: none of its parameters wants a gradient."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def momentum_step(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """Move a slow copy: xi <- m xi + (1 - m) theta (VFS Eq. 2), in place.

    Parameters only: running statistics of batch normalisation are each network's own.

    Args:
        slow: xi, made by `slow_copy` of the other.
        fast: theta.
        momentum: m, 0 to 1.
    """
    for theirs, ours in zip(slow.parameters(), fast.parameters(), strict=True):
        theirs.mul_(momentum).add_(ours.detach(), alpha=1 - momentum)


class NegativeQueue(nn.Module):
    """The last K keys, first in, first out; buffers, so checkpoints hold them.

    Attributes:
        embeddings: (C, K), unit columns; random ones until keys have come.
        pointer: column where the next key goes, int64 scalar.
    """

    embeddings: Tensor
    pointer: Tensor

    def __init__(self, channels: int, length: int) -> None:
        """Filled with random directions, drawn from torch's global generator."""
        super().__init__()
        self.register_buffer("embeddings", normalise(torch.randn(channels, length), 0))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self._waiting: list[Tensor] = []

    def wait(self, keys: Tensor) -> None:
        """Remember keys (M, C) of a forward pass until `enqueue_waiting`."""
        self._waiting.append(keys.detach())

    def enqueue_waiting(self) -> None:
        """Enqueue what waits, forward pass by forward pass; errors as `enqueue`."""
        waiting, self._waiting = self._waiting, []
        for keys in waiting:
            self.enqueue(keys)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Put keys in the place of the oldest ones.

        Args:
            keys: (M, C) unit rows of this process; as many on every process.

        Errors: UsageError when the queue is not a multiple of the keys of all processes together.
        """
        everybody = gather_rows(keys)
        arriving, length = len(everybody), self.embeddings.shape[1]
        if length % arriving != 0:
            raise UsageError(
                f"The queue holds {length} negatives and {arriving} keys arrive at a time, so it does not fill evenly: "
                f"make its length a multiple, such as {max(1, length // arriving) * arriving}."
            )
        columns = (self.pointer + torch.arange(arriving, device=keys.device)) % length  # waits for no device
        self.embeddings.index_copy_(1, columns, everybody.T.to(self.embeddings.dtype))
        self.pointer.add_(arriving).remainder_(length)


def world() -> tuple[int, int]:
    """Rank of this process and number of processes: (0, 1) when there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


@torch.no_grad()
def gather_rows(rows: Tensor) -> Tensor:
    """Rows (M, ...) of all processes, in the order of their ranks: (M * processes, ...), without gradient.

    Every process brings as many.
    """
    _, processes = world()
    if processes == 1:
        return rows.detach()
    parts = [torch.empty_like(rows) for _ in range(processes)]
    torch.distributed.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


def in_groups(network: Callable[[Tensor], Tensor], images: Tensor, groups: int) -> Tensor:
    """The network on `groups` equal parts of a batch (M, ...), each with batch statistics of its own."""
    if groups == 1:
        return network(images)
    return torch.cat([network(part) for part in images.chunk(groups)])


@torch.no_grad()
def shuffled(
    network: Callable[[Tensor], Tensor], images: Tensor, groups: int, generator: torch.Generator | None = None
) -> Tensor:
    """As `in_groups`, but with other images sharing their batch statistics than share them for the queries.

    MoCo's shuffled batch normalisation: images of all processes and groups are dealt anew, and the outputs brought back
    into order. With one process and one group all images share one batch, however they are ordered: nothing is done.

    Args:
        network: rows in, rows out.
        images: (M, ...) of this process.
        groups: parts of the batch of a process with statistics of their own.
        generator: randomness of the order, on the device of the images; None is torch's global one. The draw of
            process 0 counts.

    Returns: (M, ...) in the order of `images`, without gradient.
    """
    rank, processes = world()
    if processes * groups == 1:
        return network(images)
    here = slice(rank * len(images), (rank + 1) * len(images))
    everybody = gather_rows(images)
    order = torch.randperm(len(everybody), generator=generator, device=images.device)
    if processes > 1:
        torch.distributed.broadcast(order, src=0)
    out = gather_rows(in_groups(network, everybody[order[here]], groups))
    return out[order.argsort()[here]]
