"""Region similarity of masks (DAVIS's J), and what DAVIS says about a series of per-frame values.

Source: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016, and
the released davis2017-evaluation, whose numbers these functions reproduce to the last bit (tests/reference).
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray


def jaccard(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], void: NDArray[np.bool_] | None = None
) -> float:
    """Intersection over union of two masks, DAVIS's J.

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        void: (H, W) bool, pixels that count for neither; None: none.

    Returns: in [0, 1]; 1 when both masks are empty.

    Errors: ValueError when the shapes differ.
    """
    same_shape(prediction, truth, void)
    both, either = prediction & truth, prediction | truth
    if void is not None:
        both, either = both & ~void, either & ~void
    union = np.count_nonzero(either)
    if union == 0:
        return 1.0
    return float(np.count_nonzero(both) / union)


def same_shape(
    prediction: NDArray[np.generic], truth: NDArray[np.generic], void: NDArray[np.generic] | None = None
) -> None:
    """Refuse masks that cannot be compared.

    Errors: ValueError naming the shapes.
    """
    if prediction.shape != truth.shape or (void is not None and void.shape != truth.shape):
        void_shape = "" if void is None else f", void {void.shape}"
        raise ValueError(
            f"prediction {prediction.shape} and truth {truth.shape}{void_shape}; expected equal shapes"
        )


class Statistics(NamedTuple):
    """DAVIS's three statistics of a series of per-frame values."""

    mean: float
    """Mean over the scored frames."""
    recall: float
    """Share of scored frames with a value > 0.5, strictly."""
    decay: float
    """Mean of the first quarter of the scored frames minus mean of the last quarter."""


def statistics(
    per_frame: NDArray[np.float64], *, official: Literal["numpy1", "numpy2"] | None = None
) -> Statistics:
    """Mean, recall and decay of a series.

    The quarters share their border frames: with edges e_0 .. e_4 spread evenly over the frames and rounded, quarter i
    holds frames e_i .. e_(i+1), both included. The official tool keeps these edges in 8 bits, so that its decay is
    wrong or NaN from 256 scored frames on; here it is right.

    Args:
        per_frame: (n,) one value per scored frame (the caller leaves out DAVIS's first and last frame).
        official: "numpy1" or "numpy2" gives the official tool's decay as it comes out under that NumPy, its 8-bit edges
            included; None: the right number. They differ only from 256 scored frames on.

    Returns: mean, recall in [0, 1], decay in [-1, 1]; all NaN for an empty series. A single frame has decay 0.
    """
    values = np.asarray(per_frame, dtype=np.float64)
    if not len(values):
        return Statistics(np.nan, np.nan, np.nan)
    edges: NDArray[Any] = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(np.int64)
    ends = edges + 1
    if official is not None:
        edges = edges % 256
        ends = edges + 1 if official == "numpy1" else (edges + 1) % 256
    first, last = values[edges[0] : ends[1]], values[edges[3] : ends[4]]
    decay = np.nan if not len(first) or not len(last) else float(first.mean() - last.mean())
    return Statistics(float(values.mean()), float((values > 0.5).mean()), decay)


def sequence_mean(per_frame: NDArray[np.float64]) -> float:
    """Mean over the frames that DAVIS scores: all but the first and the last.

    Args:
        per_frame: (T,) one value per frame, T >= 3.

    Errors: ValueError for fewer than three frames: nothing would be scored.
    """
    if len(per_frame) < 3:
        raise ValueError(
            f"{len(per_frame)} frames; expected at least 3, the first and the last are not scored"
        )
    return float(np.mean(per_frame[1:-1]))
