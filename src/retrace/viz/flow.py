"""Optical flow as colour: direction is hue, length is saturation, as in the pictures of the Middlebury benchmark."""

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def longest(uv: NDArray[np.floating], counted: NDArray[np.bool_] | None = None) -> float:
    """The length, pixels, that a flow (H, W, 2) is drawn in full colour from: its 99th percentile, at least 1.

    `counted` (H, W) says which pixels have a flow; None: all.
    """
    length = np.linalg.norm(uv, axis=-1)
    known = length if counted is None else length[counted]
    return max(1.0, float(np.percentile(known, 99))) if known.size else 1.0


def flow_colours(uv: NDArray[np.floating], full: float, counted: NDArray[np.bool_] | None = None) -> Pixels:
    """Draw a flow.

    Args:
        uv: (H, W, 2) displacement x, y in pixels.
        full: length that has full colour, pixels, above 0; standing still is white.
        counted: (H, W), pixels that have a flow; the others are black. None: all.

    Returns: (H, W, 3) uint8 RGB.
    """
    hsv = np.full((*uv.shape[:2], 3), 255, np.uint8)
    angle = np.degrees(np.arctan2(uv[..., 1], uv[..., 0])) % 360
    hsv[..., 0] = np.rint(angle / 2).astype(np.uint8) % 180  # OpenCV's hue, in steps of 2 degrees
    hsv[..., 1] = np.rint(255 * np.clip(np.linalg.norm(uv, axis=-1) / full, 0, 1)).astype(np.uint8)
    if counted is not None:
        hsv[..., 2] = np.where(counted, 255, 0)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)


def error_colours(epe: NDArray[np.floating], full: float, counted: NDArray[np.bool_] | None = None) -> Pixels:
    """Draw errors (H, W), pixels, from black (none) to light yellow (`full` and more).

    Args:
        epe: (H, W), pixels.
        full: error that has the lightest colour, pixels, above 0.
        counted: (H, W), pixels that have an error; the others are grey. None: all.

    Returns: (H, W, 3) uint8 RGB.
    """
    level = np.rint(255 * np.clip(epe / full, 0, 1)).astype(np.uint8)
    image = np.asarray(
        cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB), dtype=np.uint8
    )
    return image if counted is None else np.where(counted[..., None], image, np.uint8(128)).astype(np.uint8)
