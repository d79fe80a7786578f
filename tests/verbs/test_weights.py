"""`retrace weights`: what ships, and looking into files of every kind without running them."""

import pickle
from pathlib import Path

import pytest
import torch

from retrace import encoders
from retrace.encoders import EncoderConfig
from retrace.encoders.weights import Unmatched
from retrace.errors import RetraceError
from retrace.verbs import weights


class Bomb:
    """Unpickling this would leave a file behind."""

    def __init__(self, path: Path) -> None:
        """`path` is what a careless reader would create."""
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        """Code to run when unpickled."""
        return (open, (str(self.path), "w"))


@pytest.fixture(scope="module")
def small() -> encoders.Model:
    """An eighth of a ResNet-18."""
    return encoders.load("random:resnet18", config=EncoderConfig(width=0.125, padding_mode="reflect"))


def test_what_ships_loads() -> None:
    """Every embedded encoder is there, small enough, and says how it was made."""
    ships = weights.shipped()
    assert [one.name for one in ships] == ["default"]
    for one in ships:
        assert 0 < one.bytes <= 8_000_000
        assert one.sha256 == encoders.load(one.name).sha256
        assert one.card


def test_a_file_of_ours(tmp_path: Path, small: encoders.Model) -> None:
    """It says itself what it is; everything fits."""
    encoders.save(small, tmp_path / "small.safetensors")
    found = weights.inspect(tmp_path / "small.safetensors")
    assert found.ours
    assert found.sha256 == small.sha256
    assert found.encoder is not None
    assert (found.encoder["width"], found.encoder["padding_mode"]) == (0.125, "reflect")
    assert found.unmatched is not None
    assert found.unmatched == Unmatched()
    shapes = {entry.name: (entry.shape, entry.dtype) for entry in found.tensors}
    assert shapes["conv1.weight"] == ((8, 3, 7, 7), "float32")


def test_a_foreign_file_lists_every_unmatched_key(tmp_path: Path, small: encoders.Model) -> None:
    """Nested, prefixed, with one tensor too many, one missing and one of another shape."""
    state = {f"module.backbone.{key}": value for key, value in small.encoder.state_dict().items()}
    state["module.backbone.fc.weight"] = torch.zeros(10, 8)
    del state["module.backbone.bn1.weight"]
    state["module.backbone.bn1.bias"] = torch.zeros(3)
    torch.save({"state_dict": state, "epoch": 7}, tmp_path / "other.pth")
    found = weights.inspect(tmp_path / "other.pth")
    assert not found.ours
    assert found.encoder is not None
    assert found.encoder["architecture"] == "resnet18"
    assert found.unmatched is not None
    assert found.unmatched.missing == ("bn1.weight",)
    assert found.unmatched.unexpected == ("state_dict.module.backbone.fc.weight",)
    assert len(found.unmatched.misshapen) == 1
    assert found.sha256 is None


def test_a_file_without_an_encoder_is_still_listed(tmp_path: Path) -> None:
    """Tensors, and no architecture."""
    torch.save({"a": {"b": torch.zeros(2, 3, dtype=torch.float16)}}, tmp_path / "tensors.pt")
    found = weights.inspect(tmp_path / "tensors.pt")
    assert found.encoder is None
    assert found.unmatched is None
    assert found.tensors == (weights.Entry("a.b", (2, 3), "float16"),)


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    """Refused with a sentence; the code's trace is not there. As a zip archive and as a bare pickle."""
    trace = tmp_path / "trace"
    torch.save({"state_dict": Bomb(trace)}, tmp_path / "bomb.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Bomb(trace), protocol=2))
    for name in ("bomb.pth", "bare.pth"):
        with pytest.raises(RetraceError, match="never does"):
            weights.inspect(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "content"), [("empty.pth", b""), ("text.safetensors", b"hello"), ("text.pth", b"hello")]
)
def test_what_is_no_checkpoint(tmp_path: Path, name: str, content: bytes) -> None:
    """One sentence that names the file."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RetraceError, match=name):
        weights.inspect(tmp_path / name)


def test_a_missing_file(tmp_path: Path) -> None:
    """Says so."""
    with pytest.raises(RetraceError, match="no file"):
        weights.inspect(tmp_path / "nothing.pth")
