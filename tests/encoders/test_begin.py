"""Weights to start training from: a ResNet that fits, of ours or of others; anything else is a sentence."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retrace import encoders
from retrace.cli.main import main
from retrace.encoders import EncoderConfig
from retrace.encoders.model import IMAGENET_MEAN, IMAGENET_STD
from retrace.errors import RetraceError, UsageError
from tests.encoders import published_files as made

TRAINED = EncoderConfig(width=made.WIDTH, cut="layer4", padding_mode="reflect")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """All four layers, of VFS."""
    torch.save(made.vfs(), tmp_path / "vfs.pth")
    return tmp_path / "vfs.pth"


def test_the_encoder_is_the_trained_one(published: Path) -> None:
    """Its padding and cut are the recipe's, its numbers the file's."""
    model = encoders.begin(published, TRAINED)
    assert model.card["encoder"]["padding_mode"] == "reflect"
    assert torch.equal(
        model.encoder.state_dict()["layer4.1.conv2.weight"], made.network()["layer4.1.conv2.weight"]
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            replace(TRAINED, width=0.25),
            r"resnet18 of width 0.25 up to layer4: .* file \(8, 3, 7, 7\), encoder \(16,",
        ),
        (
            replace(TRAINED, architecture="resnet50"),
            "resnet50 of width 0.125 .* missing layer1.0.conv3.weight",
        ),
    ],
)
def test_another_width_or_depth(published: Path, config: EncoderConfig, message: str) -> None:
    """Both shapes are named."""
    with pytest.raises(RetraceError, match=message):
        encoders.begin(published, config)


def test_a_file_that_ends_too_early(tmp_path: Path) -> None:
    """An exported encoder up to layer3 cannot start training one up to layer4."""
    encoders.save(encoders.load("random:resnet18,width=0.125"), tmp_path / "short.safetensors")
    with pytest.raises(RetraceError, match="missing layer4.0.conv1.weight"):
        encoders.begin(tmp_path / "short.safetensors", TRAINED)


def test_the_shipped_encoder_of_another_width() -> None:
    """Refused as any other file."""
    with pytest.raises(RetraceError, match="'default' do not fit the encoder"):
        encoders.begin("default", TRAINED)


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
def test_weights_for_another_normalisation_are_rewritten(published: Path, padding: str) -> None:
    """The same features of the same image; where zeros are padded, away from the border."""
    config = replace(TRAINED, padding_mode=padding, cut="layer1")
    theirs = encoders.load(f"{published},mean=0.5/0.4/0.3,std=0.5/0.25/0.2", config=config)
    ours = encoders.begin(f"{published},mean=0.5/0.4/0.3,std=0.5/0.25/0.2", config)
    assert (ours.mean, ours.std) == (IMAGENET_MEAN, IMAGENET_STD)
    images = torch.rand(2, 3, 160, 176, generator=torch.Generator().manual_seed(0))
    one, other = theirs.features(images), ours.features(images)
    if padding == "zeros":
        assert not torch.allclose(one, other, rtol=1e-3, atol=1e-4)
        one, other = (maps[..., 8:-8, 8:-8] for maps in (one, other))
    torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
    same = encoders.begin(published, config)
    assert torch.equal(same.encoder.conv1.weight, made.network()["conv1.weight"])


def test_weights_of_another_colour_space(published: Path, caplog: pytest.LogCaptureFixture) -> None:
    """RGB into Lab is what Spatial-then-Temporal does, and is said; Lab into RGB is refused."""
    assert torch.equal(
        encoders.begin(published, TRAINED, "lab").encoder.state_dict()["conv1.weight"],
        made.network()["conv1.weight"],
    )
    (record,) = caplog.records
    assert "an encoder that saw rgb images, and this method shows it lab" in record.getMessage()
    caplog.clear()
    encoders.begin(f"{published},colour=lab", TRAINED, "lab")
    assert not caplog.records
    with pytest.raises(
        UsageError, match="an encoder that saw lab images, and this method shows it rgb. Give weights"
    ):
        encoders.begin(f"{published},colour=lab", TRAINED)


@pytest.mark.parametrize(
    ("options", "message"),
    [(",cut=layer3", "is built otherwise than"), (",padding_mode=zeros", "without options")],
)
def test_options_do_not_change_what_is_trained(published: Path, options: str, message: str) -> None:
    """The recipe says what is trained."""
    with pytest.raises(UsageError, match=message):
        encoders.begin(f"{published}{options}", TRAINED)


def test_what_is_no_resnet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line: exit status 2, and no run folder."""
    out = tmp_path / "run"
    assert main(["train", "stfc3-laptop", "--init", "lab-patches", "--out", str(out)]) == 2
    assert "init is 'lab-patches', which is no ResNet" in capsys.readouterr().err
    assert not out.exists()
