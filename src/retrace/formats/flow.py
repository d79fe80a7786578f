"""Optical flow as the servers take it: `.flo` (Middlebury, Sintel) and KITTI's 16-bit PNG.

They are read by `datasets.flowfiles`.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from retrace.files import atomic_path

KITTI_LARGEST = (2**16 - 1 - 2**15) / 64
"""Largest displacement, pixels, that KITTI's PNG holds; the smallest is -512."""


def write_flo(path: str | Path, uv: NDArray[np.floating]) -> None:
    """Write a flow (H, W, 2), x and y in pixels, as `.flo`, whole or not at all.

    Errors: ValueError for another shape; RetraceError when the file cannot be written.
    """
    height, width = _size(uv)
    with atomic_path(path) as temporary:
        head = np.array([202021.25], "<f4").tobytes() + np.array([width, height], "<i4").tobytes()
        temporary.write_bytes(head + np.ascontiguousarray(uv, dtype="<f4").tobytes())


def write_kitti_png(path: str | Path, uv: NDArray[np.floating]) -> None:
    """Write a flow (H, W, 2), x and y in pixels, as KITTI's 16-bit PNG, valid everywhere, whole or not at all.

    Steps of 1/64 pixel; displacements beyond -512 .. 511.98 are cut there.

    Errors: ValueError for another shape; RetraceError when the file cannot be written.
    """
    height, width = _size(uv)
    levels = np.rint(np.clip(uv, -512, KITTI_LARGEST).astype(np.float64) * 64 + 2**15)
    image = np.ones((height, width, 3), np.uint16)  # blue, green, red = validity, y, x
    image[..., 1], image[..., 2] = levels[..., 1], levels[..., 0]
    done, data = cv2.imencode(".png", image)
    assert done
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _size(uv: NDArray[np.floating]) -> tuple[int, int]:
    if uv.ndim != 3 or uv.shape[2] != 2:
        raise ValueError(f"a flow of shape {uv.shape}; expected (H, W, 2)")
    return uv.shape[0], uv.shape[1]
