"""Encoders: sizes, positions, weights in and out; files that are no checkpoints."""

import os
import pickle
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from retrace import encoders
from retrace.encoders import EncoderConfig, weights
from retrace.encoders.model import LabPatches, Model, fingerprint
from retrace.errors import RetraceError, UsageError

TINY = EncoderConfig(width=0.125, padding_mode="reflect")


def tiny(name: str = "tiny") -> Model:
    """Tiny."""
    torch.manual_seed(1)
    return encoders.from_state_dict(TINY, TINY.build().state_dict(), name=name, card={"method": "none"})


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
@pytest.mark.parametrize(
    ("strides", "cut"), [((1, 2, 1, 1), "layer3"), ((1, 2, 2, 2), "layer4"), ((1, 1, 1, 1), "layer2")]
)
def test_size_and_channels(architecture, strides, cut):
    """Size and channels."""
    encoder = EncoderConfig(architecture, 0.125, strides, cut=cut).build().eval()
    out = encoder(torch.randn(1, 3, 70, 101))
    assert out.shape == (1, encoder.out_channels, -(-70 // encoder.stride), -(-101 // encoder.stride))


@pytest.mark.parametrize("settings", [
    {},
    {"padding_mode": "none"},
    {"padding_mode": "none", "stem_pool": False, "strides": (1, 1, 2, 1), "cut": "layer2"},
    {"padding_mode": "none", "pool": "mean", "dilations": (1, 1, 2, 2), "strides": (1, 2, 1, 1)},
    {"padding_mode": "none", "architecture": "resnet50", "cut": "layer2"},
])  # fmt: skip
def test_grid_is_the_size_of_the_real_map(settings):
    """For many sizes, without padding too."""
    encoder = EncoderConfig(**{"width": 0.0625, **settings}).build().eval()
    with torch.inference_mode():
        for height, width in ((241, 270), (290, 243), (262, 333), (247, 250)):
            assert encoder.grid(height, width) == encoder(torch.zeros(1, 3, height, width)).shape[-2:]


def test_too_small_for_an_encoder_without_padding():
    """A sentence, before the convolution fails."""
    encoder = EncoderConfig(width=0.0625, padding_mode="none").build()
    with pytest.raises(UsageError, match="40 x 200 pixels is too small"):
        encoder.grid(40, 200)


@pytest.mark.parametrize(
    "settings", [{}, {"cut": "layer2"}, {"stem_pool": False}, {"dilations": (1, 1, 2, 1)}]
)
def test_origin_is_where_node_0_looks(settings):
    """Without padding: the middle of the pixels that reach node (0, 0) through the 3x3 convolutions."""
    encoder = EncoderConfig(**{"width": 0.0625, "padding_mode": "none", **settings}).build().eval()
    for name, parameter in encoder.named_parameters():
        parameter.data.abs_().add_(0.1).mul_(0.0 if "downsample" in name else 1.0)
    image = torch.rand(1, 3, 260, 247, requires_grad=True)
    encoder(image)[0, :, 0, 0].sum().backward()
    ys, xs = image.grad[0].abs().sum(0).nonzero().T
    assert int(ys.min()) == int(xs.min()) == 0
    assert int(ys.max()) == int(xs.max()) == 2 * encoder.origin
    assert EncoderConfig(width=0.0625).build().origin == 0


def test_parameter_names_are_torchvisions():
    """Parameter names are torchvisions."""
    names = set(EncoderConfig(cut="layer4").build().state_dict())
    for name in (
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.conv2.weight",
        "layer2.0.downsample.0.weight",
        "layer4.1.bn2.bias",
    ):
        assert name in names
    assert "layer4.2.conv3.weight" in EncoderConfig("resnet50", cut="layer4").build().state_dict()


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_zero_initialised_residuals(architecture):
    """Every block begins as its shortcut: ones and zeros in turn."""
    for zero in (False, True):
        encoder = EncoderConfig(architecture, 0.125, zero_init_residual=zero).build()
        last = "bn2.weight" if architecture == "resnet18" else "bn3.weight"
        weights = [value for name, value in encoder.state_dict().items() if name.endswith(last)]
        assert len(weights) > 3
        assert all((weight == (0 if zero else 1)).all() for weight in weights)


def test_dilation_keeps_the_size():
    """Dilation keeps the size."""
    config = EncoderConfig(width=0.125, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), cut="layer4")
    assert config.build().eval()(torch.randn(1, 3, 64, 48)).shape[-2:] == (8, 6)


def test_reduction_is_a_positive_map_that_goes_with_its_layer(tmp_path):
    """TimeCycle's 1x1 convolution is part of the encoder that is kept, unless the encoder is cut before it."""
    config = EncoderConfig("resnet50", width=0.125, reduction=24)
    torch.manual_seed(0)
    model = encoders.from_state_dict(config, config.build().state_dict(), name="reduced")
    encoders.save(model, tmp_path / "m.safetensors")
    loaded = encoders.load(tmp_path / "m.safetensors")
    out = loaded.features(torch.rand(1, 3, 40, 56))
    assert out.shape == (1, loaded.channels, 5, 7)
    assert loaded.channels == 24
    assert (out >= 0).all()
    assert config.ending("layer3") == config == config.ending(None)
    assert config.ending("layer2").build().out_channels == 64
    assert config.ending("layer2", (1, 1, 1, 1)).build().stride == 4
    assert config.ending(None, (1, 2, 2, 1)) == replace(config, strides=(1, 2, 2, 1))
    with pytest.raises(ValueError, match="reduction -1"):
        EncoderConfig(reduction=-1).build()


def test_the_mean_pool_of_the_stem():
    """Spatial-then-Temporal at stride 4: what stands before layer1 is averaged, not maximised."""
    encoder = EncoderConfig(width=0.125, strides=(1, 1, 1, 1), pool="mean", cut="layer2").build().eval()
    image = torch.randn(1, 3, 40, 56)
    stem = torch.relu(encoder.bn1(encoder.conv1(image)))
    torch.testing.assert_close(encoder.maxpool(stem), torch.nn.functional.avg_pool2d(stem, 3, 2, 1))
    assert encoder(image).shape[-2:] == (10, 14)
    with pytest.raises(ValueError, match="pool 'median'; expected one of max, mean"):
        EncoderConfig(pool="median").build()


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_dilation_as_released(architecture):
    """The first block of a layer has half of it; BasicBlock's second convolution none; the size stays."""
    config = EncoderConfig(
        architecture, 0.125, (1, 2, 1, 1), dilations=(1, 1, 2, 4), dilated="released", cut="layer4"
    )
    encoder = config.build().eval()
    found = {
        name: module.dilation[0]
        for name, module in encoder.named_modules()
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3)
    }
    blocks = {"resnet18": (2, 2), "resnet50": (6, 3)}[architecture]
    for layer, dilation, count in (("layer3", 2, blocks[0]), ("layer4", 4, blocks[1])):
        for block in range(count):
            expected = dilation // 2 if block == 0 else dilation
            if architecture == "resnet18":
                assert found[f"{layer}.{block}.conv1"] == expected
                assert found[f"{layer}.{block}.conv2"] == 1
            else:
                assert found[f"{layer}.{block}.conv2"] == expected
    assert all(found[name] == 1 for name in found if name.startswith(("layer1", "layer2")))
    assert encoder(torch.randn(1, 3, 64, 48)).shape[-2:] == (8, 6)
    with pytest.raises(ValueError, match="dilated 'half'"):
        EncoderConfig(dilated="half").build()


def test_a_node_sits_on_its_pixel():
    """The response to a bright pixel at (8i, 8j) is centred on node (i, j)."""
    encoder = EncoderConfig(width=0.25, cut="layer3").build().eval()
    for parameter in encoder.parameters():
        parameter.data.abs_()  # positive weights: the response is a blob
    image = torch.zeros(1, 3, 160, 128)
    image[..., 80, 64] = 1
    with torch.no_grad():
        response = (encoder(image) - encoder(torch.zeros_like(image)))[0].sum(0)  # (h, w)
    assert divmod(int(response.argmax()), response.shape[1]) == (10, 8)
    ys = torch.arange(response.shape[0], dtype=torch.float32)
    assert ((response.sum(1) * ys).sum() / response.sum()).item() == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize("half", [False, True])
def test_save_and_load(tmp_path, half):
    """Save and load."""
    model = tiny()
    encoders.save(model, tmp_path / "m.safetensors", half=half)
    loaded = encoders.load(tmp_path / "m.safetensors")
    assert (loaded.name, loaded.stride, loaded.channels) == (model.name, model.stride, model.channels)
    assert loaded.card["encoder"]["padding_mode"] == "reflect"
    image = torch.randint(0, 255, (1, 3, 40, 56), dtype=torch.uint8)
    torch.testing.assert_close(
        loaded.features(image), model.features(image), atol=0.05 if half else 0, rtol=0
    )
    assert half or loaded.sha256 == model.sha256


def test_load_torchvision_style_with_prefix_and_extra_keys(tmp_path):
    """Load torchvision style with prefix and extra keys."""
    state = EncoderConfig(width=0.25, cut="layer4").build().state_dict()
    wrapped = {f"module.encoder.{key}": value for key, value in state.items()}
    wrapped["module.encoder.fc.weight"] = torch.zeros(10, 3)
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "c.pth")
    model = encoders.load(tmp_path / "c.pth")
    assert model.card["encoder"]["width"] == 0.25
    assert model.card["encoder"]["cut"] == "layer3"
    prefix = "state_dict.module.encoder."
    assert f"{prefix}fc.weight" in model.card["unmatched"]
    assert all(key.startswith((f"{prefix}layer4", f"{prefix}fc")) for key in model.card["unmatched"])
    torch.testing.assert_close(
        model.encoder.state_dict()["layer3.1.conv2.weight"], state["layer3.1.conv2.weight"]
    )


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), None])
def test_weights_that_are_no_finite_numbers_are_refused(tmp_path, broken):
    """A training that went wrong, or whole numbers under the names of weights."""
    state = tiny().encoder.state_dict()
    weight = state["layer1.0.conv1.weight"].clone()
    if broken is None:
        weight = weight.long()
    else:
        weight[0, 0, 0, 0] = broken
    torch.save({**state, "layer1.0.conv1.weight": weight}, tmp_path / "w.pth")
    with pytest.raises(RetraceError, match=r"no finite number in layer1\.0\.conv1\.weight"):
        encoders.load(tmp_path / "w.pth")


def test_match_names_every_difference():
    """Match names every difference."""
    own = TINY.build().state_dict()
    given = dict(own)
    del given["bn1.weight"]
    given["extra"] = torch.zeros(1)
    given["conv1.weight"] = torch.zeros(1)
    unmatched = weights.match(own, given)
    assert unmatched.missing == ("bn1.weight",)
    assert unmatched.unexpected == ("extra",)
    assert unmatched.misshapen[0].startswith("conv1.weight")
    with pytest.raises(RetraceError, match="bn1.weight"):
        encoders.from_state_dict(TINY, given, name="broken")


class Evil:
    """Evil."""

    def __init__(self, marker):
        """Init."""
        self.marker = marker

    def __reduce__(self):
        """Reduce."""
        return os.system, (f"touch {self.marker}",)


def test_pickled_code_is_never_run(tmp_path):
    """Pickled code is never run."""
    marker = tmp_path / "was-run"
    torch.save({"state_dict": Evil(marker)}, tmp_path / "evil.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Evil(marker)))
    for name in ("evil.pth", "raw.pth"):
        with pytest.raises(RetraceError, match=r"never|no readable"):
            encoders.load(tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 40])
def test_files_that_are_no_checkpoints(tmp_path, suffix, content):
    """Files that are no checkpoints."""
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(RetraceError, match="bad"):
        encoders.load(path)


def test_truncated_checkpoints(tmp_path):
    """Truncated checkpoints."""
    encoders.save(tiny(), tmp_path / "m.safetensors")
    torch.save(TINY.build().state_dict(), tmp_path / "m.pth")
    for name in ("m.safetensors", "m.pth"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(RetraceError, match="again"):
            encoders.load(path)


def test_a_checkpoint_without_an_encoder(tmp_path):
    """A checkpoint without an encoder."""
    save_file({"w": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(RetraceError, match="no ResNet"):
        encoders.load(tmp_path / "w.safetensors")


@pytest.mark.parametrize("averaged", [False, True])
def test_a_checkpoint_of_a_run_is_what_the_run_exports(tmp_path, averaged):
    """The averaged encoder where there is one, cut where the export is, with the projector."""
    trained, mean = (EncoderConfig(width=0.125, cut="layer4").build().state_dict() for _ in range(2))
    state = {f"method.encoder.{key}": value for key, value in trained.items()}
    state["method.head.proj1.weight"] = torch.ones(2, 64, 1, 1)
    if averaged:
        state |= {f"averaged.{key}": value for key, value in mean.items()}
    config = {"encoder": asdict(EncoderConfig(width=0.125, cut="layer4")), "export_cut": "layer3"}
    config["export_strides"] = [1, 2, 2, 1] if averaged else None
    torch.save({"state_dict": state, "retrace": {"config": config}}, tmp_path / "last.ckpt")
    model = encoders.load(tmp_path / "last.ckpt")
    expected = mean if averaged else trained
    assert model.card["encoder"]["cut"] == "layer3"
    assert model.stride == (16 if averaged else 8)
    assert all(torch.equal(value, expected[key]) for key, value in model.encoder.state_dict().items())
    assert list(model.head) == ["proj1.weight"]


def test_unknown_name():
    """Unknown name."""
    with pytest.raises(RetraceError, match="lab-patches"):
        encoders.load("no-such-model")


def test_random_is_always_the_same_and_leaves_the_global_generator_alone():
    """Random is always the same and leaves the global generator alone."""
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    one, two = encoders.load("random:resnet18", config=TINY), encoders.load("random:resnet18", config=TINY)
    assert one.sha256 == two.sha256
    assert torch.equal(torch.random.get_rng_state(), before)
    assert fingerprint(one.encoder) != fingerprint(tiny().encoder)


def test_lab_patches_follow_the_pixels():
    """Lab patches follow the pixels."""
    encoder = LabPatches()
    image = torch.rand(1, 3, 61, 83, generator=torch.Generator().manual_seed(0))
    out = encoder(image)
    assert out.shape == (1, 27, 8, 11)
    moved = encoder(image.roll((8, 16), (2, 3)))
    a, b = out[..., 1:-3, 1:-4], moved[..., 2:-2, 3:-2]
    a, b = a - a.mean((-2, -1), keepdim=True), b - b.mean((-2, -1), keepdim=True)
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_features_take_uint8_and_float_alike():
    """Features take uint8 and float alike."""
    model = tiny()
    image = torch.randint(0, 255, (2, 3, 33, 47), dtype=torch.uint8)
    torch.testing.assert_close(
        model.features(image), model.features(image.float() / 255), atol=1e-4, rtol=1e-4
    )
    assert model.features(image).shape[-2:] == model.grid(33, 47)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{bad", "damaged header"),
        ('{"format": "retrace-encoder-1"}', "damaged header .no name"),
        (
            '{"format": "retrace-encoder-1", "name": "x", "mean": [0, 0, 0], "std": [1, 1, 1], '
            '"card": {"encoder": {"architecture": "vgg"}}}',
            "cannot build .architecture 'vgg'",
        ),
        (
            '{"format": "retrace-encoder-1", "name": "x", "mean": [0, 0, 0], "std": [1, 1, 1], '
            '"card": {"encoder": {"strange": 1}}}',
            "cannot build",
        ),
        ("[1]", "no ResNet"),
    ],
)
def test_damaged_headers(tmp_path, header, message):
    """A file that says it is ours and is not whole, or of another version, is a sentence."""
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={"retrace": header})
    with pytest.raises(RetraceError, match=message):
        encoders.load(path)


def test_an_installation_without_the_encoder(monkeypatch):
    """Says so, and what to do."""
    monkeypatch.setattr(weights, "EMBEDDED", {"default": "not-there.safetensors"})
    with pytest.raises(RetraceError, match="lacks the encoder 'default'"):
        encoders.load("default")


@torch.no_grad()
def test_pyramid_gives_the_maps_on_the_way():
    """Each as an encoder cut there gives it; the student and the stride-4 encoder of Spatial-then-Temporal."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 96)
    for config, strides in (
        (EncoderConfig(width=0.125, strides=(1, 2, 2, 4), cut="layer4", stem_pool=False), (2, 4, 8, 32)),
        (EncoderConfig(width=0.125, strides=(1, 1, 1, 8), cut="layer4", pool="mean"), (4, 4, 4, 32)),
    ):
        encoder = config.build().eval()
        assert tuple(encoder.stride_after.values()) == strides
        layers = ["layer2", "layer3", "layer4"]
        maps = encoder.pyramid(images, layers)
        for layer, found in zip(layers, maps, strict=True):
            cut = replace(config, cut=layer).build().eval()
            cut.load_state_dict(encoder.state_dict(), strict=False)
            torch.testing.assert_close(found, cut(images))
            stride = encoder.stride_after[layer]
            assert found.shape[-2:] == (64 // stride, 96 // stride)
        (alone,) = encoder.pyramid(images, ["layer3"])
        torch.testing.assert_close(alone, maps[1])


@torch.no_grad()
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"architecture": "resnet50"},
        {"strides": (1, 2, 2, 2), "cut": "layer4"},
        {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)},
        {"stem_pool": False, "pool": "mean", "reduction": 8},
    ],
    ids=str,
)
def test_closer_nodes(settings):
    """Every second node of the closer ones is a node of before; the images' sides are odd and even."""
    encoder = EncoderConfig(**{"width": 0.125, **settings}).build().eval()
    model = Model(encoder, "a", encoder.stride, encoder.out_channels)
    closer = model.closer(2)
    assert (closer.stride, closer.origin) == (model.stride // 2, model.origin)
    images = torch.rand(1, 3, 70, 101)
    before, after = model.features(images), closer.features(images)
    assert after.shape[-2:] == closer.grid(70, 101)
    assert after[..., ::2, ::2].shape == before.shape
    torch.testing.assert_close(after[..., ::2, ::2], before, rtol=1e-4, atol=1e-5)
    assert model.closer(1) is model


def test_closer_by_four_and_reflected_borders():
    """Two strides left out; padding by reflection may differ where the image ends, and only there."""
    encoder = EncoderConfig(width=0.125, strides=(1, 2, 2, 2), cut="layer4").build().eval()
    model = Model(encoder, "a", 32, encoder.out_channels)
    closer = model.closer(4)
    assert (closer.stride, closer.encoder.stride_after["layer2"]) == (8, 8)
    images = torch.rand(1, 3, 134, 101)
    torch.testing.assert_close(
        closer.features(images)[..., ::4, ::4], model.features(images), rtol=1e-4, atol=1e-5
    )
    mirrored = replace(TINY, cut="layer2").build().eval()
    model = Model(mirrored, "b", 8, mirrored.out_channels)
    before, after = model.features(images), model.closer(2).features(images)[..., ::2, ::2]
    torch.testing.assert_close(after[..., :12, :8], before[..., :12, :8], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "times", "message"),
    [
        ({}, 3, "3 times as close were asked for"),
        ({}, 4, "cannot be 4 times as close: no layer"),
        ({"strides": (1, 1, 1, 1)}, 2, "no layer of this encoder has a stride"),
        ({"padding_mode": "none"}, 2, "without padding cannot"),
        ({"strides": (1, 3, 1, 1)}, 2, "the last stride is 3"),
    ],
)
def test_nodes_that_cannot_be_closer(settings, times, message):
    """A sentence."""
    encoder = EncoderConfig(**{"width": 0.125, **settings}).build()
    with pytest.raises(UsageError, match=message):
        Model(encoder, "a", encoder.stride, encoder.out_channels).closer(times)
    with pytest.raises(UsageError, match="only those of a ResNet"):
        encoders.load("lab-patches").closer(2)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (70, 101), (57, 83)])
def test_both_sizes(height, width):
    """Node by node the features in the image and in every second pixel of it, blurred, each of unit length."""
    encoder = EncoderConfig(width=0.125).build().eval()
    model = Model(encoder, "a", encoder.stride, encoder.out_channels)
    both = model.both_sizes()
    assert (both.stride, both.origin, both.channels) == (8, model.origin, 2 * model.channels)
    images = torch.rand(1, 3, height, width)
    found = both.features(images)
    assert found.shape[-2:] == model.grid(height, width) == both.grid(height, width)
    full, half = found.split(model.channels, dim=1)
    torch.testing.assert_close(full, F.normalize(model.features(images), dim=1))
    wide = F.pad(images, (2, 2, 2, 2), mode="replicate")
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    blurred = sum(
        taps[i] * taps[j] * wide[..., i : i + height, j : j + width] for i in range(5) for j in range(5)
    )
    expected = F.normalize(model.closer(2).features(blurred[..., ::2, ::2]), dim=1)
    torch.testing.assert_close(half, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lab-patches", "without a stride"])
def test_encoders_that_cannot_see_both_sizes(name):
    """A sentence."""
    if name == "lab-patches":
        model = encoders.load(name)
    else:
        encoder = EncoderConfig(width=0.125, strides=(1, 1, 1, 1)).build()
        model = Model(encoder, name, encoder.stride, encoder.out_channels)
    with pytest.raises(UsageError, match=f"{name} cannot see images at both sizes"):
        model.both_sizes()


def test_a_map_too_small_for_its_padding_is_a_sentence():
    """Reflection needs more than it reflects; other paddings do not."""
    config = EncoderConfig(width=0.125, strides=(1, 2, 2, 2), cut="layer4", padding_mode="reflect")
    with pytest.raises(UsageError, match="a map of 1x2 is too small to be padded by reflection"):
        config.build().eval()(torch.randn(2, 3, 32, 40))
    assert config.build().eval()(torch.randn(1, 3, 33, 40)).shape[-2:] == (2, 2)
    assert replace(config, padding_mode="replicate").build().eval()(torch.randn(1, 3, 32, 40)).shape[-2:] == (
        1,
        2,
    )
