"""Files of optical flow, `.flo` (Middlebury, Sintel) and KITTI's 16-bit PNG, and what the readers of pairs share."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from retrace.datasets.reading import image_size
from retrace.datasets.records import Flow, Sequence
from retrace.errors import RetraceError

_MAGIC = 202021.25
_UNKNOWN = 1e9
"""Components of this size and above say "not known" (Middlebury)."""


def read_flo(path: Path) -> Flow:
    """A `.flo` file; pixels of huge or infinite components are not valid.

    Errors: RetraceError when it is missing, another format, or cut off.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RetraceError(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != _MAGIC:
        raise RetraceError(f"{path} is not a .flo file of optical flow. Download it again.")
    width, height = (int(v) for v in np.frombuffer(data, "<i4", 2, 4))
    if not (0 < width < 100000 and 0 < height < 100000) or len(data) != 12 + 8 * width * height:
        raise RetraceError(f"{path} says {width}x{height} and has {len(data)} bytes. Download it again.")
    uv = np.frombuffer(data, "<f4", 2 * width * height, 12).reshape(height, width, 2)
    valid = (np.abs(uv) < _UNKNOWN).all(-1)  # NaN is not below anything
    return Flow(np.where(valid[..., None], uv, 0).astype(np.float32), valid)


def read_kitti_png(path: Path) -> Flow:
    """A 16-bit PNG: displacement times 64 plus 2^15 in red (x) and green (y), validity in blue.

    Errors: RetraceError when it is missing or another kind of image.
    """
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.exists() else None  # blue, green, red
    if image is None or image.dtype != np.uint16 or image.ndim != 3:
        problem = "does not exist" if not path.exists() else "is not a 16-bit colour PNG of optical flow"
        raise RetraceError(f"{path} {problem}. Download it again.")
    valid: NDArray[np.bool_] = image[..., 0] > 0
    uv = (image[..., :0:-1].astype(np.float32) - 2**15) / 64  # red, green
    return Flow(np.where(valid[..., None], uv, 0).astype(np.float32), valid)


def pair(name: str, first: Path, second: Path, read: Callable[[], Flow] | None) -> Sequence[Flow]:
    """Two frames as a sequence whose truth, on frame 0, is the flow to frame 1; `read` None: the truth is not public.

    Errors: RetraceError when a frame is missing, or the frames differ in size.
    """
    sizes = [image_size(file) for file in (first, second)]
    if sizes[0] != sizes[1]:
        raise RetraceError(
            f"{first} and {second} have the sizes {sizes[0]} and {sizes[1]}; expected one size."
        )

    def read_frame(frame: int) -> Flow:
        if read is None:
            raise RetraceError(f"{name} has no flow here: its truth is not public.")
        flow = read()
        if flow.valid.shape != sizes[0]:
            raise RetraceError(
                f"The flow of {first} is {flow.valid.shape}, the frame {sizes[0]} (height, width)."
            )
        return flow

    return Sequence(name, (first, second), 2, sizes[0], () if read is None else (0,), read_frame, {})


def odd_flow(sequence: Sequence[Flow], frame: int, truth: Flow) -> list[str]:
    """What is odd about a flow."""
    return [] if truth.valid.any() else ["no pixel of the flow is valid."]
