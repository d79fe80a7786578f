"""The command line of `propagate`: flags reach the function, results on stdout, sentences on stderr."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrace.cli.main import main
from retrace.cli.propagate import build_parser, parse_size
from retrace.errors import UsageError
from retrace.formats.davis_png import write_mask


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A command that works: three frames of noise, one label."""
    (tmp_path / "frames").mkdir()
    image = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    for t in range(3):
        Image.fromarray(np.roll(image, 2 * t, axis=1)).save(tmp_path / "frames" / f"{t}.png")
    ids = np.zeros((48, 80), dtype=np.uint8)
    ids[10:30, 20:50] = 1
    write_mask(tmp_path / "label.png", ids)
    paths = [
        str(tmp_path / "frames"),
        "--labels",
        str(tmp_path / "label.png"),
        "--out",
        str(tmp_path / "out"),
    ]
    return ["propagate", *paths, "--model", "lab-patches", "--num-context", "2", "--radius", "3"]


def test_it_works_and_says_where(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Summary on stdout; the second time it is done already; another label is refused with status 1."""
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert str(tmp_path / "out" / "overlay.mp4") in out
    assert "frame" in err
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "complete"
    assert "--overwrite" in err
    assert main([*words, "--top-k", "2"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("retrace propagate: ")
    assert "another run: its protocol" in err
    assert main([*words, "--top-k", "2", "--overwrite", "--quiet", "--no-overlay", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["protocol"]["rules"]["top_k"] == 2
    assert err == ""
    assert not (tmp_path / "out" / "overlay.mp4").exists()


@pytest.mark.parametrize(
    ("extra", "status", "message"),
    [
        (["--protocol", "crw"], 2, "Protocol 'crw' is unknown"),
        (["--size", "wide"], 2, "--size 'wide' is not understood"),
        (["--labels", "none.png"], 1, "no labels at none.png"),
        (["--model", "none.pth"], 1, "none.pth"),
        (["--num-context", "many"], 2, "num_context"),
        (["--flag-that-is-not"], 2, "flag-that-is-not"),
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
    """One sentence, the right status, no traceback, no output folder."""
    assert main([*words, *extra]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_interruption(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends with 130 and leaves a partial result."""

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("retrace.cli.labelled_run._advance", interrupt)
    assert main(words) == 130
    assert "interrupted" in capsys.readouterr().err
    out = Path(words[words.index("--out") + 1])
    assert json.loads((out / "result.json").read_text())["status"] == "partial"


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
