"""Classes of pictures: whether the true one is the first, or among the first five."""

import numpy as np
from numpy.typing import NDArray


def ranks(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many classes stand before the true one.

    Args:
        logits: (n, classes), larger is likelier; of equal ones the first class stands first, so that a classifier that
            says nothing is no better than chance.
        labels: (n,) true class.

    Returns: (n,) 0 is right; top-k accuracy is the share of ranks below k. A NaN stands before everything.

    Errors: ValueError when the shapes do not fit.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits {logits.shape} and labels {labels.shape}; expected (n, classes) and (n,)")
    true = np.take_along_axis(logits, labels[:, None], axis=1)  # (n, 1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    before = ~(logits <= true) | ((logits == true) & earlier)
    before[np.arange(len(labels)), labels] = np.isnan(true[:, 0])
    return np.asarray(before.sum(1), dtype=np.int64)
