"""Similarity of whole images or frames: pulled together alone, or against a crowd of negatives (VFS Eq. 1-5, MoCo)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from retrace.walk.affinity import affinity
from retrace.walk.nodes import normalise


def cosine_distance(predictions: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of unit vectors, 2 - 2 cos (VFS Eq. 3 and 5), of every prediction to every target.

    Args:
        predictions: (..., N, C), need not be normalised.
        targets: (..., M, C), same leading dimensions.

    Returns: (..., N, M), 0 for the same direction, 4 for opposite ones.
    """
    return 2 - 2 * affinity(normalise(predictions, -1), normalise(targets, -1))


def contrastive_terms(positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE with every positive by itself: -log(e^(p/t) / (e^(p/t) + sum over negatives of e^(n/t))) (VFS Eq. 1).

    Other positives of the same query are in neither place.

    Args:
        positives: (..., P), affinities of a query with its positives.
        negatives: (..., K), of the same query with its negatives; -inf for one that does not count.
        temperature: > 0.

    Returns: (..., P), at least 0.
    """
    crowd = (negatives / temperature).logsumexp(-1, keepdim=True)  # (..., 1)
    return F.softplus(crowd - positives / temperature)


@torch.no_grad()
def spread(embeddings: Tensor) -> Tensor:
    """How far embeddings are from collapse: standard deviation of the normalised ones, mean over channels.

    Args:
        embeddings: (..., C).

    Returns: scalar; near 1 / sqrt(C) when they fill the sphere, 0 when all look the same.
    """
    return normalise(embeddings, -1).flatten(0, -2).std(dim=0, correction=0).mean()
