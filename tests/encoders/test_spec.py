"""What may follow a model's name: options behind commas, each read, used or refused."""

from pathlib import Path

import pytest
import torch

from retrace import encoders
from retrace.encoders import EncoderConfig
from retrace.encoders.spec import parse
from retrace.errors import RetraceError, UsageError

SMALL = "random:resnet18,width=0.125"


def test_parsing(tmp_path: Path) -> None:
    """The base keeps commas and equal signs that are not options; an existing file wins."""
    assert parse("default").options == {}
    assert parse("a,b.pth,cut=layer2,stride=4").base == "a,b.pth"
    assert parse("a,b.pth,cut=layer2,stride=4").options == {"cut": "layer2", "stride": "4"}
    odd = tmp_path / "run,lr=1"
    odd.touch()
    assert (parse(odd).base, parse(odd).options) == (str(odd), {})


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ("cut=layer4", "cut", "layer4"),
        ("strides=1/1/2/1", "strides", (1, 1, 2, 1)),
        ("dilations=1/1/2/4", "dilations", (1, 1, 2, 4)),
        ("padding_mode=reflect", "padding_mode", "reflect"),
        ("stem_pool=false", "stem_pool", False),
        ("pool=mean", "pool", "mean"),
        ("stride=4", "strides", (1, 1, 1, 1)),
        ("stride=16", "strides", (1, 2, 2, 1)),
        ("stride=32,cut=layer4", "strides", (1, 2, 2, 2)),
        ("stride=2,stem_pool=no", "strides", (1, 1, 1, 1)),
    ],
)
def test_how_a_network_is_built(options: str, field: str, value: object) -> None:
    """Each option is the field of EncoderConfig of the same name; stride is the whole encoder's."""
    model = encoders.load(f"{SMALL},{options}")
    assert model.card["encoder"][field] == value
    assert model.features(torch.rand(1, 3, 40, 72)).shape[-2:] == model.grid(40, 72)
    if options.startswith("stride="):
        assert model.stride == int(options.split(",")[0].removeprefix("stride="))


def test_a_file_of_ours_and_the_shipped_encoder_take_them_too(tmp_path: Path) -> None:
    """The same weights, cut earlier; the name in results says so."""
    encoders.save(encoders.load(SMALL), tmp_path / "m.safetensors")
    model = encoders.load(f"{tmp_path / 'm.safetensors'},cut=layer2,stride=4")
    assert (model.stride, model.channels, model.name) == (4, 16, f"{SMALL},cut=layer2,stride=4")
    assert encoders.load("default,cut=layer2").name == "default,cut=layer2"


def test_width_depth_and_normalisation() -> None:
    """Random networks of any width and depth; mean, deviation and colour of any model."""
    model = encoders.load("random:resnet50,width=0.25,mean=0.5/0.4/0.3,std=0.2/0.2/0.1,colour=rgb")
    assert model.channels == 256
    assert (model.mean, model.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    image = torch.rand(1, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    expected = (image - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.2, 0.1]).view(
        3, 1, 1
    )
    with torch.inference_mode():
        same = model.encoder(
            expected.contiguous(memory_format=torch.channels_last)
        )  # other formats round otherwise
        torch.testing.assert_close(model.features(image), same, atol=1e-5, rtol=1e-5)
    assert encoders.load("random:resnet34,width=0.125").card["encoder"]["architecture"] == "resnet34"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (f"{SMALL},colour=hsv", "colour is 'hsv'; expected one of rgb, lab"),
        (f"{SMALL},mean=1/2", "mean is '1/2'; expected three numbers"),
        (f"{SMALL},std=0/1/1", "three numbers above 0"),
        (f"{SMALL},mean=a/b/c", "expected numbers with slashes"),
        (f"{SMALL},stride=7", "stride is 7; up to layer3 it can be 4, 8, 16"),
        (f"{SMALL},stride=x", "expected a whole number"),
        (f"{SMALL},strides=1/2", r"cannot be built: strides \(1, 2\); expected 4 numbers of at least 1"),
        (f"{SMALL},stem_pool=maybe", "expected true or false"),
        (f"{SMALL},cut=layer9", "cannot be built: cut 'layer9'"),
        (f"{SMALL},padding_mode=wrap", "cannot be built: padding_mode 'wrap'"),
        (f"{SMALL},tail=3", "has the option 'tail'; random:resnet18 takes width, cut"),
        ("random:resnet18,width=0", "width is 0"),
        ("lab-patches,cut=layer2", "lab-patches takes no options"),
        ("default,width=2", "has the option 'width'"),
    ],
)
def test_options_that_mean_nothing(spec: str, message: str) -> None:
    """One sentence, exit status 2."""
    with pytest.raises(UsageError, match=message):
        encoders.load(spec)


def test_a_cut_that_the_file_does_not_reach(tmp_path: Path) -> None:
    """Weights up to layer3 cannot give layer4."""
    model = encoders.from_state_dict(
        EncoderConfig(width=0.125), EncoderConfig(width=0.125).build().state_dict(), name="m"
    )
    encoders.save(model, tmp_path / "m.safetensors")
    with pytest.raises(RetraceError, match=r"missing layer4.0.conv1.weight"):
        encoders.load(f"{tmp_path / 'm.safetensors'},cut=layer4")
