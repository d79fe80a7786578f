"""Commands that work, for the tests to change: three frames of noise, and the label of the first."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrace.formats.davis_png import write_mask


@pytest.fixture
def frames(tmp_path: Path) -> str:
    """A folder of three frames of 48 x 80 that move right by 2 pixels."""
    folder = tmp_path / "frames"
    folder.mkdir()
    image = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    for t in range(3):
        Image.fromarray(np.roll(image, 2 * t, axis=1)).save(folder / f"{t}.png")
    return str(folder)


@pytest.fixture
def propagate_words(frames: str, tmp_path: Path) -> list[str]:
    """`retrace propagate` with one object."""
    ids = np.zeros((48, 80), dtype=np.uint8)
    ids[10:30, 20:50] = 1
    write_mask(tmp_path / "label.png", ids)
    paths = [frames, "--labels", str(tmp_path / "label.png"), "--out", str(tmp_path / "out")]
    return ["propagate", *paths, "--model", "lab-patches", "--num-context", "2", "--radius", "3"]


@pytest.fixture
def track_words(frames: str, tmp_path: Path) -> list[str]:
    """`retrace track` with one box."""
    paths = [frames, "--box", "20,10,30,20", "--out", str(tmp_path / "out")]
    sizes = ["--num-scales", "1", "--search-size", "135", "--exemplar-size", "64"]
    return ["track", *paths, "--model", "lab-patches", *sizes]
