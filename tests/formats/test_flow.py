"""Files of optical flow come back as they were written."""

from pathlib import Path

import numpy as np
import pytest

from retrace.datasets.flowfiles import read_flo, read_kitti_png
from retrace.formats.flow import write_flo, write_kitti_png


def test_flo_comes_back(tmp_path: Path) -> None:
    """To the bit; the folder is made."""
    uv = np.random.default_rng(0).normal(0, 30, (5, 8, 2)).astype(np.float32)
    write_flo(tmp_path / "new" / "a.flo", uv)
    found = read_flo(tmp_path / "new" / "a.flo")
    np.testing.assert_array_equal(found.uv, uv)
    assert found.valid.all()
    with pytest.raises(ValueError, match=r"expected \(H, W, 2\)"):
        write_flo(tmp_path / "b.flo", uv[..., 0])


def test_kitti_png_comes_back(tmp_path: Path) -> None:
    """To half a step of 1/64 pixel; what the format cannot hold is cut."""
    uv = np.random.default_rng(0).normal(0, 30, (5, 8, 2)).astype(np.float32)
    uv[0, 0], uv[0, 1] = (-700, 2), (3, 800)
    write_kitti_png(tmp_path / "a.png", uv)
    found = read_kitti_png(tmp_path / "a.png")
    assert found.valid.all()
    np.testing.assert_array_equal(found.uv[0, 0], [-512, 2])
    np.testing.assert_array_equal(found.uv[0, 1], [3, 511 + 63 / 64])
    assert np.abs(found.uv[1:] - uv[1:]).max() <= 1 / 128
