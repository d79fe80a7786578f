"""JSON and CSV that are valid but not labels: a sentence for each, never a Python error."""

from pathlib import Path

import pytest

from retrace.errors import RetraceError
from retrace.formats.boxes import read_boxes
from retrace.formats.keypoints import read_keypoints


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"keypoints": [[1, 2], [3, 4]], "names": 5}', '"names" is 5; expected a list'),
        ('{"keypoints": [[1, 2], [3, 4]], "skeleton": 7}', '"skeleton" is 7; expected a list'),
        ('{"frames": {"0": 1}}', '"frames" is .* expected a list'),
        ('{"annotations": 5}', '"annotations" is 5; expected a list'),
        ('{"annotations": [{"keypoints": 5, "image_id": 1}]}', '"keypoints" is 5; expected a list'),
        ('{"keypoints": [1, 2, NaN]}', "nan; expected a number"),
        (
            '{"keypoints": [{"name": "a", "x": 1' + "0" * 400 + ', "y": 2}]}',
            r"keypoint a is 10+\.\.\.; expected",
        ),
        ("[" * 20000, "thousands deep"),
    ],
)
def test_keypoint_json(tmp_path: Path, content: str, message: str) -> None:
    """Wrong types in every place, numbers too large, nesting too deep."""
    path = tmp_path / "k.json"
    path.write_text(content)
    with pytest.raises(RetraceError, match=message):
        read_keypoints(path, size=(60, 90))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("frame,name,x,y\n\u00b2,a,1,2\n", "line 2: frame .* not a whole number"),
        ("name,x,x,y\na,1,9,2\n", "column x twice"),
        ("name,x,y\n,1,2\n", "line 2 names no keypoint"),
    ],
)
def test_keypoint_csv(tmp_path: Path, content: str, message: str) -> None:
    """Digits that are no numbers, columns twice, no name."""
    path = tmp_path / "k.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RetraceError, match=message):
        read_keypoints(path, size=(60, 90))


def test_box_json(tmp_path: Path) -> None:
    """Frames that are no list."""
    path = tmp_path / "b.json"
    path.write_text('{"frames": 3}')
    with pytest.raises(RetraceError, match='"frames" is 3; expected a list'):
        read_boxes(path, size=(60, 90))
