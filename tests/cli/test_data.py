"""`retrace data` as a person types it."""

import json
from pathlib import Path

import numpy as np
import pytest

from retrace.cli.main import main
from retrace.video.encode import VideoWriter


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One good video, one cut off in the middle, one that is none."""
    root = tmp_path / "footage"
    noise = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    for name in ("good", "cut"):
        with VideoWriter(root / f"{name}.mp4", height=48, width=80, fps=25) as writer:
            for shift in range(20):
                writer.write(np.roll(noise, shift, axis=1))
    data = (root / "cut.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(data[: len(data) * 7 // 10])
    (root / "text.mp4").write_text("hello")
    return root


def test_check(tree: Path, capsys) -> None:
    """Says what is wrong with which file, ends with totals, exit status 1."""
    assert main(["data", "check", str(tree)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3
    assert out[0].startswith("broken: ")
    assert "text.mp4 is not a video" in out[0]
    assert out[1].startswith("damaged: ")
    assert "cut off" in out[1]
    assert out[2].startswith("2 videos can be read (")
    assert out[2].endswith("1 of them damaged; 1 broken.")


def test_check_of_good_footage(tree: Path, capsys) -> None:
    """Exit status 0."""
    assert main(["data", "check", str(tree / "good.mp4")]) == 0
    assert capsys.readouterr().out == "1 video can be read (20 frames, 0.8 s), 0 of them damaged; 0 broken.\n"


def test_thorough_check_finds_damage_in_the_middle(tree: Path, capsys) -> None:
    """The quick one does not."""
    path = tree / "good.mp4"
    data = bytearray(path.read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data)
    assert main(["data", "check", str(path)]) == 0
    assert main(["data", "check", "--thorough", str(path)]) == 1
    assert "damaged after" in capsys.readouterr().out


def test_check_json(tree: Path, capsys) -> None:
    """All of it on stdout, and nothing else."""
    assert main(["data", "check", str(tree), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert [Path(video["path"]).name for video in result["videos"]] == ["cut.mp4", "good.mp4"]
    assert result["videos"][1] == {
        "path": str(tree / "good.mp4"),
        "num_frames": 20,
        "height": 48,
        "width": 80,
        "fps": 25.0,
    }
    assert [Path(entry["path"]).name for entry in result["broken"]] == ["text.mp4"]
    assert [Path(entry["path"]).name for entry in result["damaged"]] == ["cut.mp4"]


def test_index(tree: Path, tmp_path: Path, capsys) -> None:
    """Writes the file; broken videos are recorded and no failure."""
    out = tmp_path / "new" / "index.json"
    assert main(["data", "index", str(tree), "--out", str(out)]) == 0
    assert len(json.loads(out.read_text())["videos"]) == 3
    assert "1 broken" in capsys.readouterr().out
    assert main(["data", "index", str(tree / "text.mp4"), "--out", str(out)]) == 1  # nothing to train on


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["check", "nowhere"], 1, "There is no file or folder nowhere"),
        (["check"], 2, "PATH"),
        (["index", "."], 2, "--out"),
        ([], 2, "check"),
        (["check", ".", "--deep"], 2, "--deep"),
    ],
)
def test_wrong_use(words: list[str], status: int, sentence: str, capsys) -> None:
    """A sentence on stderr and the right status."""
    assert main(["data", *words]) == status
    captured = capsys.readouterr()
    assert sentence.lower() in captured.err.lower()
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_index_in_an_unwritable_place(tree: Path, tmp_path: Path, capsys) -> None:
    """Status 1 and what to do."""
    (tmp_path / "file").write_text("")
    assert main(["data", "index", str(tree), "--out", str(tmp_path / "file" / "index.json")]) == 1
    assert "Choose a folder" in capsys.readouterr().err


def test_help(capsys) -> None:
    """Worth reading."""
    assert main(["data", "check", "--help"]) == 0
    assert "--thorough" in capsys.readouterr().out
