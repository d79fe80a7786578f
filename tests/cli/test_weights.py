"""`retrace weights` on the command line."""

import json
from pathlib import Path

import pytest
import torch

from retrace.cli.main import main


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    """A line per encoder that ships; the whole card as JSON."""
    assert main(["weights", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "name"
    assert lines[1].split()[0] == "default"
    assert main(["weights", "list", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["name"] == "default"
    assert one["card"]


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every tensor is named, and every key that does not fit."""
    path = tmp_path / "tensors.pt"
    torch.save(
        {"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}, path
    )
    assert main(["weights", "inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "resnet18" in text
    assert "needed but not in the file" in text
    assert "conv1.weight" in text
    assert "[64, 3, 7, 7]" in text
    assert main(["weights", "inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sha256"] is None
    assert len(found["tensors"]) == 2


def test_a_file_without_an_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Listed all the same."""
    torch.save({"a": torch.zeros(2, 3)}, tmp_path / "tensors.pt")
    assert main(["weights", "inspect", str(tmp_path / "tensors.pt")]) == 0
    assert "none recognised" in capsys.readouterr().out


def test_not_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1, one sentence."""
    (tmp_path / "notes.pth").write_text("hello")
    assert main(["weights", "inspect", str(tmp_path / "notes.pth")]) == 1
    printed = capsys.readouterr()
    assert "notes.pth" in printed.err
    assert printed.err.count("\n") == 1


def test_list_of_an_installation_without_encoders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sentence, status 1."""
    for module in ("retrace.verbs.weights", "retrace.encoders.weights"):
        monkeypatch.setattr(f"{module}.EMBEDDED", {"default": "not-there.safetensors"})
    assert main(["weights", "list"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "lacks the encoder 'default'" in printed.err
