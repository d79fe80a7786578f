"""Sinkhorn-Knopp: from affinities to a transition in which nodes are not only left but also reached evenly."""

import torch
from torch import Tensor


def sinkhorn(logits: Tensor, *, tolerance: float = 0.01, max_iterations: int = 100) -> Tensor:
    """Divide by column sums and by row sums in turn until both are even. Differentiable.

    It starts from exp(logits) and works on logarithms, so that small temperatures do not overflow.

    Args:
        logits: (..., N, M), for instance affinities divided by a temperature. `walk.affinity.FORBIDDEN` is an edge that
            is not there.
        tolerance: it stops when the standard deviation of all column sums is at most this.
        max_iterations: it stops after so many rounds in any case, and does at least one.

    Returns: (..., N, M); rows sum to 1, columns to about N / M.
    """
    for _ in range(max(1, max_iterations)):
        logits = logits - logits.logsumexp(-2, keepdim=True)
        logits = logits - logits.logsumexp(-1, keepdim=True)
        with torch.no_grad():
            if logits.logsumexp(-2).exp().std() <= tolerance:
                break
    return logits.exp()
