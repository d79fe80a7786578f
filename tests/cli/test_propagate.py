"""The command line of `propagate`: its own words; the rest is in test_labelled_run.py."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrace.cli.main import main
from retrace.cli.propagate import build_parser, parse_size
from retrace.errors import UsageError


def test_knobs_reach_the_protocol(propagate_words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What was given on the command line stands in the summary."""
    assert main([*propagate_words, "--top-k", "2", "--quiet", "--no-overlay", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["rules"]["top_k"] == 2


def test_help_names_every_knob(capsys: pytest.CaptureFixture[str]) -> None:
    """Worth reading."""
    text = build_parser().format_help()
    for flag in (
        "--labels",
        "--protocol",
        "--num-context",
        "--adapt",
        "--overwrite",
        "crw-davis",
        "keypoints.json",
    ):
        assert flag in text


def test_sizes() -> None:
    """Short side, or height x width."""
    assert [parse_size(text) for text in (None, "480", "320x480", "0")] == [None, 480, (320, 480), 0]
    with pytest.raises(UsageError):
        parse_size("1x2x3")


def test_a_video_that_breaks_in_the_middle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The frames before the break are kept, one sentence says where it is, and the status is 1, the second time too."""
    frames = tmp_path / "frames"
    frames.mkdir()
    image = np.zeros((32, 48, 3), np.uint8)
    for t in range(4):
        Image.fromarray(image).save(frames / f"{t}.png")
    (frames / "2.png").write_bytes(b"broken")
    Image.fromarray(np.eye(32, 48, dtype=np.uint8)).save(tmp_path / "label.png")
    words = [
        "propagate",
        str(frames),
        "--labels",
        str(tmp_path / "label.png"),
        "--out",
        str(tmp_path / "out"),
    ]
    words += ["--model", "lab-patches", "--no-overlay", "--quiet", "--json"]
    for _ in range(2):
        assert main(words) == 1
        out, _ = capsys.readouterr()
        assert "2.png is not an image" in json.loads(out)["video"]["damage"]
    assert sorted(p.name for p in (tmp_path / "out" / "masks").iterdir()) == ["0.png", "1.png"]
