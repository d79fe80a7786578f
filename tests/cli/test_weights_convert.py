"""`retrace weights convert` on the command line: a published file becomes one of ours; everything unused is listed."""

import json
from pathlib import Path

import pytest
import torch

from retrace import encoders
from retrace.cli.main import main
from tests.encoders import published_files as made


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Says what it was, what it became, the protocol, and the keys left aside; the result loads by itself."""
    source, out = tmp_path / "moco.pth.tar", tmp_path / "moco.safetensors"
    torch.save(made.moco(), source)
    assert main(["weights", "convert", str(source), str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["what"], said["protocol"], said["colour"]) == ("MoCo", "vfs-r50-davis", "rgb")
    assert "state_dict.module.queue" in said["unmatched"]
    assert "state_dict.module.encoder_q.fc.0.weight" in said["unmatched"]
    assert "state_dict.module.encoder_k.conv1.weight" in said["unmatched"]
    assert encoders.load(out).sha256 == said["sha256"]
    assert main(["weights", "convert", str(source), str(out), "--half"]) == 0
    text = capsys.readouterr().out
    assert "vfs-r50-davis goes with it" in text
    assert "  state_dict.module.queue_ptr" in text.splitlines()


def test_convert_with_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The family that keys do not tell, and another cut."""
    torch.save(made.student_only(), tmp_path / "r18.pth")
    source = f"{tmp_path / 'r18.pth'},as=stt-stride4,cut=layer2"
    assert main(["weights", "convert", source, str(tmp_path / "x.safetensors"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["encoder"]["cut"], said["encoder"]["pool"], said["colour"]) == ("layer2", "mean", "lab")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["no.pth", "x.safetensors"], 1, "neither a name we know"),
        (["random:resnet18,width=0.125", "x.pth"], 2, "ends in .safetensors"),
        (["lab-patches", "x.safetensors"], 2, "is no ResNet"),
    ],
)
def test_wrong_use(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    """A sentence, and nothing written."""
    monkeypatch.chdir(tmp_path)
    assert main(["weights", "convert", *arguments]) == status
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_inspect_says_what_a_published_file_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Family, protocol and hash."""
    torch.save(made.crw(), tmp_path / "pretrained.pth")
    assert main(["weights", "inspect", str(tmp_path / "pretrained.pth")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "what:    published: CRW" in lines
    assert "protocol: crw-davis goes with it" in lines
    assert f"sha256:  {encoders.load(tmp_path / 'pretrained.pth').sha256}" in lines


def test_inspect_shows_the_card_and_why_a_file_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours: its card. mmcv without a head: the question, and the tensors all the same."""
    encoders.save(encoders.load("random:resnet18,width=0.125"), tmp_path / "ours.safetensors")
    assert main(["weights", "inspect", str(tmp_path / "ours.safetensors")]) == 0
    assert '"method": "random initialisation, seed 0"' in capsys.readouterr().out
    torch.save(made.student_only(), tmp_path / "r18.pth")
    assert main(["weights", "inspect", str(tmp_path / "r18.pth")]) == 0
    text = capsys.readouterr().out
    assert "as=vfs or ,as=stt" in text
    assert "state_dict.backbone.layer1.0.conv1.conv.weight" in text
    assert main(["weights", "inspect", f"{tmp_path / 'r18.pth'},as=stt"]) == 0
    assert "input lab" in capsys.readouterr().out
    assert main(["weights", "inspect", f"{tmp_path / 'r18.pth'},as=vgg"]) == 2
    assert "is no family of checkpoints" in capsys.readouterr().err
    assert main(["weights", "inspect", f"{tmp_path / 'r18.pth'},cut=layer2"]) == 2
