"""Keypoint files in and out."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrace.errors import RetraceError
from retrace.formats.keypoints import KeypointWriter, keypoints_from_object, read_keypoints

SIZE = (40, 64)


def write(path: Path, content: Any) -> Path:
    """Write JSON or text."""
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_json(tmp_path: Path) -> None:
    """Names, visibility and a skeleton of names and positions."""
    content = {
        "keypoints": [
            {"name": "nose", "x": 10.25, "y": 20},
            {"name": "tail", "x": 63.5, "y": 39.5, "visible": False},
            {"name": "paw", "x": None, "y": None},
        ],
        "skeleton": [["nose", "tail"], [1, 2]],
    }
    (points,) = read_keypoints(write(tmp_path / "k.json", content), size=SIZE).values()
    assert points.names == ("nose", "tail", "paw")
    assert points.skeleton == ((0, 1), (1, 2))
    assert points.visible.tolist() == [True, False, False]
    np.testing.assert_allclose(points.xy[0], [10.25, 20])


def test_csv_of_several_frames(tmp_path: Path) -> None:
    """A keypoint that a frame does not name is not visible there."""
    path = write(tmp_path / "k.csv", "frame,name,x,y\n0,a,1,2\n0,b,3,4\n7,b,5,6\n")
    frames = read_keypoints(path, size=SIZE)
    assert list(frames) == [0, 7]
    assert frames[7].names == ("a", "b")
    assert frames[7].visible.tolist() == [False, True]


def test_pairs_and_coco() -> None:
    """COCO's pixel centres are whole numbers, ours end in .5; its skeleton counts from 1."""
    assert keypoints_from_object({"keypoints": [[1, 2], [3, 4]], "names": ["a", "b"]})[0].names == ("a", "b")
    flat = keypoints_from_object({"keypoints": [4, 5, 2, 0, 0, 0], "skeleton": [[1, 2]]})[0]
    np.testing.assert_allclose(flat.xy[0], [4.5, 5.5])
    assert flat.visible.tolist() == [True, False]
    assert flat.skeleton == ((0, 1),)
    coco = {
        "annotations": [
            {"image_id": 3, "category_id": 1, "keypoints": [4, 5, 2]},
            {"image_id": 3, "category_id": 1, "keypoints": [6, 7, 1]},
        ],
        "categories": [{"id": 1, "keypoints": ["nose"], "skeleton": []}],
    }
    assert keypoints_from_object(coco)[0].names == ("1/nose", "2/nose")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"keypoints": [{"name": "nose", "x": 70, "y": 4}]},
            "nose of frame 0 is at x 70, y 4, outside the 64x40",
        ),
        ({"keypoints": [{"name": "nose", "x": "left", "y": 4}]}, "expected a number"),
        ({"keypoints": []}, "no list of keypoints"),
        ({"keypoints": [{"name": "a", "x": 1, "y": 1}] * 2}, "twice"),
        ({"keypoints": [{"name": "a", "x": 1, "y": 1, "visible": False}]}, "no visible keypoint"),
        ({"keypoints": [{"name": "a", "x": 1, "y": 1}], "skeleton": [[0, 4]]}, "skeleton entry"),
        ({"keypoints": [1, 2, 3, 4]}, "do not divide by 3"),
        ({"points": []}, 'has no "keypoints"'),
        ({"frames": [{"index": -1, "keypoints": [[1, 1]]}]}, "frame index -1"),
        ([1, 2], "holds a JSON list"),
        ("{broken", "not valid JSON"),
    ],
)
def test_wrong_json(tmp_path: Path, content: Any, message: str) -> None:
    """Each gets a sentence."""
    with pytest.raises(RetraceError, match=message):
        read_keypoints(write(tmp_path / "k.json", content), size=SIZE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,x\na,1\n", "expected a header with name,x,y"),
        ("name,x,y\n", "no rows"),
        ("name,x,y\na,1\n", "line 2 has 2 cells"),
        ("frame,name,x,y\nfirst,a,1,1\n", "frame 'first'"),
        ("name,x,y\na,1,up\n", "line 2, y is 'up'"),
    ],
)
def test_wrong_csv(tmp_path: Path, text: str, message: str) -> None:
    """Each gets a sentence."""
    with pytest.raises(RetraceError, match=message):
        read_keypoints(write(tmp_path / "k.csv", text), size=SIZE)


def test_writer_and_reader_agree(tmp_path: Path) -> None:
    """What is written can be read as labels; nothing is left under another name."""
    paths = tmp_path / "keypoints.json", tmp_path / "keypoints.csv"
    with KeypointWriter(*paths, names=["a", "b"], skeleton=[(0, 1)], size=SIZE, fps=25.0) as writer:
        writer.write(0, "00000", 0.0, np.array([[1.5, 2.5], [3, 4]]), [1, 1])
        writer.write(1, "00001", 0.04, np.array([[2.5, 2.5], [np.nan, np.nan]]), [0.5, 0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keypoints.csv", "keypoints.json"]
    frames = read_keypoints(paths[0], size=SIZE)
    np.testing.assert_allclose(frames[1].xy[0], [2.5, 2.5])
    assert frames[1].visible.tolist() == [True, False]
    assert frames[0].skeleton == ((0, 1),)
    rows = list(csv.reader(paths[1].open()))
    assert rows[0] == ["frame", "name", "x", "y", "confidence"]
    assert rows[-1] == ["1", "b", "", "", "0.0"]
    assert list(read_keypoints(paths[1], size=SIZE)) == [0, 1]


def test_writer_leaves_nothing_after_an_error(tmp_path: Path) -> None:
    """Whole or not at all; an interruption keeps what there is."""
    paths = tmp_path / "k.json", tmp_path / "k.csv"
    with (
        pytest.raises(ZeroDivisionError),
        KeypointWriter(*paths, names=["a"], skeleton=[], size=SIZE, fps=25.0),
    ):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    writer = KeypointWriter(*paths, names=["a"], skeleton=[], size=SIZE, fps=25.0)
    writer.__enter__()
    writer.write(0, "00000", 0.0, np.array([[1.5, 2.5]]), [1])
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert len(json.loads(paths[0].read_text())["frames"]) == 1
