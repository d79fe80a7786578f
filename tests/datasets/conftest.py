"""Small made-up data sets on disk, in the official layouts."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 24, 36


def frame(path: Path, number: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """An image whose red channel is ten times its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[..., 0] = min(10 * number, 255)
    Image.fromarray(pixels).save(path)


def frames(folder: Path, count: int, pattern: str = "{:05d}.jpg", start: int = 0, step: int = 1) -> None:
    """A folder of them."""
    for number in range(count):
        frame(folder / pattern.format(start + number * step), number)


def palette(path: Path, ids: NDArray[np.uint8]) -> None:
    """A mask with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids)
    image.putpalette(bytes(range(256)) * 3)
    image.save(path)


def ids(*objects: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    """A mask with a bar per object."""
    mask = np.zeros(size, np.uint8)
    for place, number in enumerate(objects):
        mask[2:-2, 3 * place + 1 : 3 * place + 3] = number
    return mask


@pytest.fixture
def make() -> SimpleNamespace:
    """The makers of files."""
    return SimpleNamespace(frame=frame, frames=frames, palette=palette, ids=ids, size=(HEIGHT, WIDTH))
