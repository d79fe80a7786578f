"""Box files in and out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrace.errors import RetraceError
from retrace.formats.boxes import BoxWriter, boxes_from_object, read_boxes

SIZE = (40, 64)


def test_json_and_csv(tmp_path: Path) -> None:
    """Named and unnamed boxes; those that stick out are cut at the frame."""
    (tmp_path / "b.json").write_text(
        json.dumps({"boxes": [{"name": "car", "x": -4, "y": 8, "w": 20, "h": 90}, [1, 2, 3, 4]]})
    )
    boxes = read_boxes(tmp_path / "b.json", size=SIZE)[0]
    assert boxes.names == ("car", "2")
    np.testing.assert_allclose(boxes.xywh, [[0, 8, 16, 32], [1, 2, 3, 4]])
    (tmp_path / "b.csv").write_text("frame,name,x,y,w,h\n0,car,1,2,3,4\n5,dog,9,8,7,6\n5,car,,,,\n")
    frames = read_boxes(tmp_path / "b.csv", size=SIZE)
    assert list(frames) == [0, 5]
    assert frames[0].names == ("car", "dog")
    assert np.isnan(frames[5].xywh[0]).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"boxes": [[70, 2, 3, 4]]}, "outside the 64x40 frame"),
        ({"boxes": [[7, 2, 0, 4]]}, "both must be above 0"),
        ({"boxes": [[7, 2, 4]]}, r"expected \{\"x\""),
        ({"boxes": [{"x": 1, "y": 2, "w": "wide", "h": 3}]}, "expected a number"),
        ({"boxes": [[7, 2, 4, None]]}, "expected a number"),
        ({"boxes": []}, "no list of boxes"),
        ({"frames": []}, "empty"),
        ({"boxs": []}, 'no "boxes"'),
        ({"boxes": [{"name": "a", "x": 1, "y": 1, "w": 1, "h": 1}] * 2}, "twice"),
    ],
)
def test_wrong_boxes(content: dict[str, Any], message: str) -> None:
    """Each gets a sentence."""
    with pytest.raises(RetraceError, match=message):
        boxes_from_object(content, size=SIZE)


def test_writer_and_reader_agree(tmp_path: Path) -> None:
    """Lost boxes are null."""
    paths = tmp_path / "boxes.json", tmp_path / "boxes.csv"
    with BoxWriter(*paths, names=["a", "b"], size=SIZE, fps=25.0) as writer:
        writer.write(0, "00000", 0.0, np.array([[1, 2, 3, 4], [np.nan] * 4]), [1, 0])
    assert json.loads(paths[0].read_text())["frames"][0]["boxes"][1]["x"] is None
    for path in paths:
        np.testing.assert_allclose(read_boxes(path, size=SIZE)[0].xywh[0], [1, 2, 3, 4])
