"""`retrace demo` on the command line."""

import json
from pathlib import Path

import pytest

from retrace.cli.main import main
from retrace.verbs import demo as verb


def test_it_ends_by_naming_the_files_to_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each on a line of its own, the overlay first."""
    monkeypatch.setattr(verb, "HEIGHT", 90)
    monkeypatch.setattr(verb, "WIDTH", 160)
    out = tmp_path / "demo"
    words = ["demo", "--out", str(out), "--frames", "2", "--model", "lab-patches", "--quiet"]
    assert main(words) == 0
    printed = capsys.readouterr()
    head, opening, *files = printed.out.splitlines()
    assert head.startswith("2 frames in ")
    assert opening == "Open:"
    assert files[0].split()[0] == str(out / "result" / "overlay.mp4")
    assert all(Path(line.split()[0]).exists() for line in files)
    assert main([*words, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["files"]) == {line.split()[0] for line in files}


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A video of one frame; status 2."""
    assert main(["demo", "--out", str(tmp_path), "--frames", "1", "--quiet"]) == 2
    assert "at least 2" in capsys.readouterr().err


def test_an_unknown_model_leaves_nothing(tmp_path, capsys):
    """It is refused before the video is made."""
    assert main(["demo", "--out", str(tmp_path / "d"), "--model", "nobody", "--quiet"]) == 1
    assert "nobody" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()
