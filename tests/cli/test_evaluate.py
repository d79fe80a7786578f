"""The command line of evaluate: what it prints, and how it ends."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrace.cli.main import main
from retrace.formats.davis_png import write_mask


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two sequences of a square that moves, in DAVIS-2016's layout without lists."""
    root = tmp_path / "DAVIS"
    for name in ("left", "right"):
        for frame in range(4):
            ids = np.zeros((32, 48), np.uint8)
            ids[8:20, 10 + 2 * frame : 24 + 2 * frame] = 1
            write_mask(root / "Annotations" / "480p" / name / f"{frame:05d}.png", ids)
            image = root / "JPEGImages" / "480p" / name / f"{frame:05d}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ids[..., None].repeat(3, 2) * 200).save(image)
    return root


def test_evaluate_and_compare(davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs, and the second against the first."""
    words = ["evaluate", "davis2016", "--root", str(davis), "--workers", "1", "--quiet"]
    assert main([*words, "--model", "copy", "--out", str(tmp_path / "a")]) == 0
    text = capsys.readouterr().out
    assert "2 of 2" in text
    assert "J&F 0." in text
    assert main([*words, "--model", "flow:farneback", "--out", str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["name"] == "flow:farneback"
    assert main(["evaluate", "--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "95 % interval" in capsys.readouterr().out
    assert main(["evaluate", "--compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["items"] == ["left", "right"]
    assert main([*words, "--model", "copy", "--out", str(tmp_path / "a")]) == 0
    assert "finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "x"], "Which benchmark?"),
        (["davis2016"], "Give --out"),
        (["davis2016", "--out", "x", "--root", "nowhere"], "no folder"),
        (["davis2016", "--out", "x", "--option", "dialect"], "NAME=VALUE"),
        (["coco", "--out", "x"], "no benchmark"),
    ],
)
def test_wrong_use(
    words: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One sentence and a status that is not 0; nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *words]) in (1, 2)
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.out == ""
    assert not list(tmp_path.iterdir())
