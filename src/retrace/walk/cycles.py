"""Walks that should come home: chains, palindromes, return probability, cycle cross-entropy.

A palindrome walks out over some frames and back over others. Only the probability to *return* enters the loss, so the
last product of a cycle is never formed: with `out` (N, M) the walk out and `home` (M, N) the walk back,
`diag(out @ home)[i] = sum_m out[i, m] * home[m, i]` costs N * M multiplications instead of N * M * N.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def chain(steps: Sequence[Tensor]) -> Tensor:
    """Product of transitions (..., N, M), (..., M, K), ...: the walk that takes all steps in turn (STFC3 Eq. 8)."""
    walk = steps[0]
    for step in steps[1:]:
        walk = walk @ step
    return walk


def nested_homes(forward: Sequence[Tensor], turn: Tensor, backward: Sequence[Tensor]) -> list[Tensor]:
    """Ways home of the palindromes out to the last frame and back, for every start frame (STFC3 Eq. 8, below Eq. 13).

    The palindrome that starts at frame s is one step from s to s + 1 and then the way home returned here, so that the
    first step may be another one (from warped features, Eq. 10). The walk from s + 1 is contained in the walk from s:
    each start costs two products.

    Args:
        forward: T - 2 transitions; `forward[t]` goes from frame t + 1 to frame t + 2 of the way out.
        turn: transition from the last frame of the way out to the first frame of the way back.
        backward: T - 1 transitions; `backward[j]` is the j-th step of the way back.

    Returns:
        T - 1 walks (..., N, N); entry s goes from frame s + 1 out to the last frame, over the turn, back to frame s.
    """
    homes: list[Tensor] = []
    walk = turn  # from frame s + 1 out and back to frame s + 1
    for position, home in enumerate(backward):
        homes.append(walk @ home)
        if position < len(forward):
            walk = forward[-1 - position] @ homes[-1]
    return homes[::-1]


def prefix_palindromes(forward: Sequence[Tensor], backward: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Palindromes that all start at frame 0 and turn at frame 1, 2, ..., T - 1 (CRW Eq. 3), by shared prefixes.

    Args:
        forward: T - 1 transitions; `forward[t]` goes from frame t to frame t + 1.
        backward: T - 1 transitions; `backward[t]` goes from frame t + 1 to frame t.

    Returns:
        For every turning frame the pair (walk out (..., N, N), walk home (..., N, N)); the palindrome is their product.
    """
    out, home = forward[0], backward[0]
    pairs = [(out, home)]
    for ahead, back in zip(forward[1:], backward[1:], strict=True):
        out, home = out @ ahead, back @ home
        pairs.append((out, home))
    return pairs


def return_probability(out: Tensor, home: Tensor, target: Tensor | None = None) -> Tensor:
    """Probability that a walker from node i ends on a target node of i after `out` and `home`.

    Args:
        out: (..., N, M) walk out.
        home: (..., M, N) walk home.
        target: bool or float (N, N); entry (i, j) is 1 where ending on j counts as coming home. None: j = i only.

    Returns:
        (..., N) in [0, 1].
    """
    if target is not None:
        home = home @ target.to(home.dtype).transpose(-2, -1)  # entry (m, i): from m to any target of i
    return (out * home.transpose(-2, -1)).sum(-1)


def cycle_cross_entropy(
    probability: Tensor, mask: Tensor | None = None, *, reduction: str = "all_nodes", epsilon: float = 1e-7
) -> Tensor:
    """Cross-entropy of coming home.

    Args:
        probability: (B, N) from `return_probability`.
        mask: (B, N) in {0, 1}; 0 for nodes whose walk has no home (STFC3 Eq. 11). None: every node counts.
        reduction: "all_nodes" divides by all nodes of the batch (STFC3 Eq. 12-13, the paper);
            "masked_nodes" divides by the number of nodes that count, plus 1e-5 (the released code).
        epsilon: added to the probability inside the logarithm; 1e-7 in the released code of STFC3, 1e-20 in CRW's.

    Returns:
        scalar.

    Errors: ValueError for another reduction.
    """
    if reduction not in ("all_nodes", "masked_nodes"):
        raise ValueError(f"reduction {reduction!r}; expected 'all_nodes' or 'masked_nodes'")
    surprise = -(probability + epsilon).log()
    if mask is None:
        return surprise.mean()
    total = (surprise * mask).sum()
    return total / (surprise.numel() if reduction == "all_nodes" else mask.sum() + 1e-5)


@torch.no_grad()
def cycle_accuracy(cycle: Tensor, mask: Tensor | None = None, target: Tensor | None = None) -> Tensor:
    """Share of start nodes whose most likely end is home.

    Args:
        cycle: (B, N, N) whole walk.
        mask: (B, N) nodes that count; None: all.
        target: bool (N, N); home of node i is the first True of row i (as the released code has it). None: i itself.

    Returns:
        scalar in [0, 1]; 0 when no node counts.
    """
    n = cycle.shape[-1]
    home = (
        torch.arange(n, device=cycle.device) if target is None else target.to(torch.uint8).argmax(-1)  # (N,)
    )
    right = (cycle.argmax(-1) == home).to(cycle.dtype)  # (B, N)
    if mask is None:
        return right.mean()
    return (right * mask).sum() / mask.sum().clamp_min(1.0)
