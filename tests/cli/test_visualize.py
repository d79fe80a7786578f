"""`retrace visualize` on the command line."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from retrace.cli.main import main


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Two frames of 40 x 56 pixels."""
    folder = tmp_path / "frames"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(2):
        cv2.imwrite(str(folder / f"{index}.png"), generator.integers(0, 255, (40, 56, 3), dtype=np.uint8))
    return folder


def test_pictures(tmp_path: Path, frames: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The random encoder needs no file; stdout holds the result and nothing else."""
    out = tmp_path / "affinity.png"
    words = ["visualize", "affinity", str(frames), "--frames", "0,1", "--model", "random:resnet18"]
    assert main([*words, "--points", "10,20", "30.5,8", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.stat().st_size > 10_000
    out = tmp_path / "pca.pdf"
    words = ["visualize", "pca", str(frames), "--frames", "0,1", "--model", "lab-patches"]
    assert main([*words, "--json", "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out) == {"figure": str(out)}


def test_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run folder."""
    (tmp_path / "metrics.csv").write_text("step,loss\n0,3\n1,2\n")
    assert main(["visualize", "curves", str(tmp_path), "--out", str(tmp_path / "curves.png")]) == 0
    assert capsys.readouterr().out.strip().endswith("curves.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["affinity", "FRAMES", "--frames", "0"], "two"),
        (["affinity", "FRAMES", "--frames", "0;1"], "whole numbers"),
        (["affinity", "FRAMES", "--frames", "0,1", "--points", "10"], "x,y"),
        (["pca", "FRAMES", "--frames", "0,9"], "frame 9 does not exist"),
    ],
)
def test_wrong_use(
    tmp_path: Path, frames: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2 and one sentence."""
    words = [str(frames) if word == "FRAMES" else word for word in words]
    assert main(["visualize", *words, "--model", "lab-patches", "--out", str(tmp_path / "x.png")]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_missing_video_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1."""
    words = ["visualize", "pca", str(tmp_path / "no.mp4"), "--model", "lab-patches", "--out", "x.png"]
    assert main(words) == 1
    assert "no.mp4" in capsys.readouterr().err
