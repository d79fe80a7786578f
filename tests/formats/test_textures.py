"""Painted textures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrace.errors import RetraceError
from retrace.formats.textures import read_texture, texture_from_array, write_texture


def test_round_trip(tmp_path: Path) -> None:
    """Half-transparent paint keeps its alpha."""
    rgba = np.zeros((20, 32, 4), dtype=np.uint8)
    rgba[4:9, 6:12] = (200, 100, 50, 128)
    write_texture(tmp_path / "t.png", rgba)
    np.testing.assert_array_equal(read_texture(tmp_path / "t.png", size=(20, 32)).rgba, rgba)


def test_wrong_textures(tmp_path: Path) -> None:
    """No transparency, nothing painted, wrong size, wrong type."""
    Image.fromarray(np.zeros((20, 32, 3), dtype=np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(RetraceError, match="no transparency"):
        read_texture(tmp_path / "rgb.png")
    with pytest.raises(RetraceError, match="empty"):
        texture_from_array(np.zeros((20, 32, 4), dtype=np.uint8))
    with pytest.raises(RetraceError, match="32x20 pixels, the video's frames are 20x32"):
        texture_from_array(np.ones((20, 32, 4), dtype=np.uint8), size=(32, 20))
    with pytest.raises(RetraceError, match="float64"):
        texture_from_array(np.ones((20, 32, 4)))  # type: ignore[arg-type]
