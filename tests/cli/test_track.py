"""The command line of `track`: words reach the function, results on stdout, sentences on stderr."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrace.cli.main import main
from retrace.cli.track import parse_boxes
from retrace.errors import UsageError


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A command that works: three frames of noise, one box."""
    (tmp_path / "frames").mkdir()
    image = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    for t in range(3):
        Image.fromarray(np.roll(image, 2 * t, axis=1)).save(tmp_path / "frames" / f"{t}.png")
    paths = [str(tmp_path / "frames"), "--out", str(tmp_path / "out")]
    return [
        "track",
        *paths,
        "--box",
        "20,10,30,20",
        "--model",
        "lab-patches",
        "--num-scales",
        "1",
        "--search-size",
        "135",
        "--exemplar-size",
        "64",
    ]


def test_it_works_and_says_where(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Summary on stdout; the second time it is done already; another box is refused with status 1."""
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert str(tmp_path / "out" / "boxes_mot.txt") in out
    assert "boxes: 1" in out
    assert "frame" in err
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["protocol"]["num_scales"] == 1
    assert "--overwrite" in err
    assert main([*words, "--box", "1,2,20,20"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("retrace track: ")
    assert "another run: its boxes" in err
    assert main([*words, "--box", "1,2,20,20", "--overwrite", "--quiet", "--no-overlay"]) == 0
    out, err = capsys.readouterr()
    assert "boxes: 1, 2" in out
    assert err == ""


@pytest.mark.parametrize(
    ("extra", "status", "message"),
    [
        (["--box", "1,2,three,4"], 2, "--box '1,2,three,4' is not understood"),
        (["--box", "boxes.json"], 2, "--box 'boxes.json' is not understood"),
        (["--protocol", "vot"], 2, "Protocol 'vot' is unknown"),
        (["--num-scales", "2"], 2, "num_scales is 2"),
        (["--frame", "soon"], 2, "frame"),
        (["--model", "none.pth"], 1, "none.pth"),
    ],
)
def test_wrong_words(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    status: int,
    message: str,
) -> None:
    """One sentence, the right status, no output folder."""
    assert main([*words, *extra]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()


def test_boxes_in_words() -> None:
    """Several boxes, or one file."""
    assert parse_boxes(["1,2,3,4", "5.5,6,7,8"]) == [(1, 2, 3, 4), (5.5, 6, 7, 8)]
    assert parse_boxes(["a/boxes.csv"]) == Path("a/boxes.csv")
    with pytest.raises(UsageError, match="is not understood"):
        parse_boxes(["1,2,3"])
