"""MOT files: what is written is read again; what is no MOT file is refused."""

from pathlib import Path

import numpy as np
import pytest

from retrace.errors import RetraceError
from retrace.formats.mot import MotWriter, read_mot


def test_there_and_back(tmp_path: Path) -> None:
    """Frames, ids and pixels count from 1 in the file; lost boxes have no line."""
    path = tmp_path / "boxes.txt"
    with MotWriter(path) as writer:
        writer.write(0, np.array([[0, 0, 10, 20], [5.5, 6, 7, 8]]), [1.0, 0.5])
        writer.write(2, np.array([[np.nan] * 4, [6, 7, 7, 8]]), [0.0, 0.25])
    assert path.read_text().splitlines() == [
        "1,1,1.00,1.00,10.00,20.00,1.0000,-1,-1,-1",
        "1,2,6.50,7.00,7.00,8.00,0.5000,-1,-1,-1",
        "3,2,7.00,8.00,7.00,8.00,0.2500,-1,-1,-1",
    ]
    found = read_mot(path)
    assert list(found) == [0, 2]
    assert found[0].names == found[2].names == ("1", "2")
    np.testing.assert_allclose(found[0].xywh, [[0, 0, 10, 20], [5.5, 6, 7, 8]])
    np.testing.assert_allclose(found[2].xywh, [[np.nan] * 4, [6, 7, 7, 8]])


def test_ground_truth_of_the_challenge(tmp_path: Path) -> None:
    """Spaces, ids with gaps, fewer columns; boxes that do not count are left out."""
    path = tmp_path / "gt.txt"
    path.write_text("2, 7, 11, 21, 5, 6, 1, 1, 0.8\n2,3,1,1,5,6\n\n3,3,1,1,5,6,0,-1,-1,-1\n")
    found = read_mot(path)
    assert list(found) == [1]
    assert found[1].names == ("3", "7")
    np.testing.assert_allclose(found[1].xywh, [[0, 0, 5, 6], [10, 20, 5, 6]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,1,1,1,5", "line 1 has 5 cells"),
        ("1,1,1,one,5,6", "is 'one'; expected a number"),
        ("0,1,1,1,5,6", "frame 0 and id 1"),
        ("1,1.5,1,1,5,6", "id 1.5"),
        ("1,1,1,1,0,6", "0 wide"),
        ("1,1,1,1,5,6\n1,1,2,2,5,6", "line 2: frame 1 has id 1 twice"),
        ("\n", "holds no box"),
    ],
)
def test_what_is_no_mot_file(tmp_path: Path, text: str, message: str) -> None:
    """Named with its line."""
    path = tmp_path / "gt.txt"
    path.write_text(text)
    with pytest.raises(RetraceError, match=message):
        read_mot(path)


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    """Nothing half-written; a missing file is a sentence."""

    def fail() -> None:
        with MotWriter(tmp_path / "boxes.txt"):
            raise RetraceError("stop")

    with pytest.raises(RetraceError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RetraceError, match="no box file"):
        read_mot(tmp_path / "none.txt")
