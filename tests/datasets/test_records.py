"""What counts as a frame, and in which order."""

from pathlib import Path

import pytest

from retrace.datasets.records import frame_files, natural_key
from retrace.errors import RetraceError


def test_natural_order() -> None:
    """Numbers inside names are numbers, case aside; equal numbers are ordered by their text."""
    names = ["b1.png", "a10.png", "a2.png", "A1.png", "a02.png", "10.png", "9.png", "a.png"]
    assert sorted(names, key=natural_key) == [
        "9.png",
        "10.png",
        "A1.png",
        "a02.png",
        "a2.png",
        "a10.png",
        "a.png",
        "b1.png",
    ]


def test_frame_files(tmp_path: Path) -> None:
    """Images only, nothing hidden, no folders."""
    for name in ("10.jpg", "9.JPEG", ".8.jpg", "notes.txt", "clip.mp4"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "7.png").mkdir()
    assert [file.name for file in frame_files(tmp_path)] == ["9.JPEG", "10.jpg"]


def test_one_name_for_two_frames(tmp_path: Path) -> None:
    """Refused, because outputs are named by the stem."""
    for name in ("1.jpg", "1.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(RetraceError, match=r"both 1\.jpg and 1\.png|both 1\.png and 1\.jpg"):
        frame_files(tmp_path)
