"""The command line of `track`: its own words; the rest is in test_labelled_run.py."""

import json
from pathlib import Path

import pytest

from retrace.cli.main import main
from retrace.cli.track import parse_boxes
from retrace.errors import UsageError


def test_several_boxes(track_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each --box is a target; the summary names them, the settings and the MOT file."""
    words = [*track_words, "--box", "1,2,20,20", "--quiet", "--no-overlay"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "boxes: 1, 2" in out
    assert str(tmp_path / "out" / "boxes_mot.txt") in out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["num_scales"] == 1


def test_boxes_in_words() -> None:
    """Several boxes, or one file."""
    assert parse_boxes(["1,2,3,4", "5.5,6,7,8"]) == [(1, 2, 3, 4), (5.5, 6, 7, 8)]
    assert parse_boxes(["a/boxes.csv"]) == Path("a/boxes.csv")
    with pytest.raises(UsageError, match="is not understood"):
        parse_boxes(["1,2,3"])
