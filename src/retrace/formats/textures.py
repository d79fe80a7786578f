"""A painted texture: an RGBA image of the labelled frame's size, painted where alpha is above 0.

What is painted (a logo, a tattoo, a grid) is carried along by the pixels under it. Half-transparent paint
keeps its alpha.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrace.errors import RetraceError
from retrace.files import atomic_path, open_image


@dataclass(frozen=True)
class Texture:
    """`rgba` (H, W, 4) uint8, straight (not premultiplied) alpha."""

    rgba: NDArray[np.uint8]


def read_texture(path: str | Path, *, size: tuple[int, int] | None = None) -> Texture:
    """Read a painted texture.

    Args:
        path: an RGBA (or grey + alpha) PNG.
        size: (H, W) of the frame that it was painted on; None takes any size.

    Errors: RetraceError when the file is missing, damaged, has no transparency, is of another size, or nothing
        is painted.
    """
    path = Path(path)
    image = open_image(path, "texture")
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        raise RetraceError(
            f"Texture {path} has no transparency (pixel type {image.mode}). Save it as RGBA PNG, "
            "transparent where nothing is painted."
        )
    return texture_from_array(np.asarray(image.convert("RGBA")), size=size, name=f"Texture {path}")


def texture_from_array(
    rgba: NDArray[np.uint8], *, size: tuple[int, int] | None = None, name: str = "The texture array"
) -> Texture:
    """Take a painted texture (H, W, 4) uint8 under the same rules as a file; the array is not changed.

    Errors: RetraceError as `read_texture`.
    """
    if rgba.ndim != 3 or rgba.shape[2] != 4 or rgba.dtype != np.uint8:
        raise RetraceError(
            f"{name} has shape {tuple(rgba.shape)} and type {rgba.dtype}; a texture is (H, W, 4) uint8."
        )
    if size is not None and rgba.shape[:2] != tuple(size):
        raise RetraceError(
            f"{name} is {rgba.shape[1]}x{rgba.shape[0]} pixels, the video's frames are {size[1]}x{size[0]}. "
            "Paint it on the frame itself."
        )
    if not (rgba[..., 3] > 0).any():
        raise RetraceError(
            f"{name} is empty: every pixel is transparent. Paint something that shall be carried along."
        )
    return Texture(rgba)


def write_texture(path: str | Path, rgba: NDArray[np.uint8]) -> None:
    """Write a rendered texture (H, W, 4) uint8 as RGBA PNG, whole or not at all.

    Errors: RetraceError when the file cannot be written.
    """
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(rgba)).save(temporary, format="PNG", compress_level=4)
