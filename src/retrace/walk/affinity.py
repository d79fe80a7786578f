"""Affinity of nodes and the transition of a walker (STFC3 Eq. 3 and 7, CRW Eq. 1)."""

import torch
from torch import Tensor

# What a dropped or forbidden edge gets before the softmax, as in the released code of CRW: far below any
# affinity, yet finite, so that a row whose edges are all dropped becomes uniform and not NaN.
FORBIDDEN = -1e20


def affinity(queries: Tensor, keys: Tensor) -> Tensor:
    """Dot products of nodes.

    Args:
        queries: (..., N, C), usually L2-normalised.
        keys: (..., M, C), same leading dimensions.

    Returns:
        (..., N, M); row i holds the affinities of query node i with all keys.
    """
    return queries @ keys.transpose(-2, -1)


def transition(
    affinities: Tensor,
    temperature: float,
    *,
    mask: Tensor | None = None,
    edge_dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Probabilities of one step: softmax over keys of `affinities / temperature`.

    Args:
        affinities: (..., N, M) from `affinity`; half precision is raised to float32 for the softmax.
        temperature: > 0; small values make the walker decided.
        mask: bool, broadcastable to (..., N, M); True where a step is allowed. A row without any is uniform.
        edge_dropout: probability in [0, 1) that an edge is forbidden, drawn for every edge by itself (CRW section 3).
        generator: source of the dropout's randomness, on the device of `affinities`; None is torch's global one.

    Returns:
        (..., N, M) float32 or float64, rows sum to 1.
    """
    if affinities.dtype in (torch.float16, torch.bfloat16):
        affinities = affinities.float()
    logits = affinities / temperature
    if mask is not None:
        logits = logits.masked_fill(~mask, FORBIDDEN)
    if edge_dropout > 0:
        draw = torch.rand(logits.shape, generator=generator, device=logits.device)
        logits = logits.masked_fill(draw < edge_dropout, FORBIDDEN)
    return logits.softmax(-1)
