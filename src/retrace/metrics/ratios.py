"""Division that says NaN where there is nothing to divide by."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def share(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """Return part / whole elementwise; NaN where the whole is not above 0."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    )
    result = np.full(denominator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def mean_of_numbers(values: ArrayLike) -> float:
    """Mean of what is not NaN; NaN when nothing is left."""
    array = np.asarray(values, dtype=np.float64)
    known = array[~np.isnan(array)]
    return float(known.mean()) if len(known) else float("nan")
