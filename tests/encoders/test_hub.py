"""Encoders of other packages: maps of any image size, prefix tokens gone, what is missing said in a sentence.

The parts that need timm or transformers are skipped where the extra `hub` is not installed; their models are made here,
tiny and random, and nothing is downloaded.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from retrace import encoders
from retrace.encoders.hub import understands
from retrace.errors import RetraceError, UsageError

IMAGE = torch.rand(1, 3, 50, 75, generator=torch.Generator().manual_seed(0))
MINE = """
import torch
from torch import nn
import torch.nn.functional as F

class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 4, stride=4)
    def forward(self, images):
        return self.conv(images)

def make():
    return lambda images: F.avg_pool2d(images, 8)

def pooled(images):
    return F.avg_pool2d(images, 8)

def tens(images):
    return F.avg_pool2d(images, 10)

def flat(images):
    return images.mean((2, 3))

def skewed(images):
    return F.avg_pool2d(images, (8, 4))

instance = Patches()
number = 3
"""


def package(name: str) -> Any:
    """The package, or skip: it is an extra, and its own parts may not fit the torch that is here."""
    try:
        found = importlib.import_module(name)
        if name == "transformers":
            _ = found.ViTModel  # imported late
        return found
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name} is not installed or does not import here (extra hub): {error}")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's module beside their work."""
    (tmp_path / "my_features.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_features", raising=False)
    importlib.invalidate_caches()


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("attribute", "stride", "channels", "origin"),
    [("pooled", 8, 3, 4), ("make", 8, 3, 4), ("Patches", 4, 5, 2), ("instance", 4, 5, 2)],
)
def test_an_own_function(attribute: str, stride: int, channels: int, origin: float) -> None:
    """A function of images, one that makes it, a module's class or a module; sides padded to its stride."""
    path = list(sys.path)
    model = encoders.load(f"my_features:{attribute}")
    assert (model.stride, model.channels, model.multiple, model.origin) == (stride, channels, stride, origin)
    assert model.features(IMAGE).shape == (1, channels, *model.grid(50, 75))
    assert model.padding(50, 75) == (-50 % stride, -75 % stride)
    assert model.to("cpu", torch.float32).features(IMAGE).shape[1] == channels
    assert sys.path == path


@pytest.mark.usefixtures("mine")
def test_padding_repeats_the_edge_and_moves_no_node() -> None:
    """Cells that lie inside the image are what they are without padding; ImageNet's normalisation unless told."""
    model = encoders.load("my_features:pooled,mean=0/0/0,std=1/1/1")
    map_ = model.features(IMAGE)[0]
    assert map_.shape == (3, 7, 10)
    torch.testing.assert_close(map_[:, 2, 3], IMAGE[0, :, 16:24, 24:32].mean((1, 2)))
    last = torch.cat([IMAGE[0, :, 48:50, :8], IMAGE[0, :, 49:50, :8].expand(-1, 6, -1)], 1)
    torch.testing.assert_close(map_[:, 6, 0], last.mean((1, 2)))
    standard = encoders.load("my_features:pooled")
    expected = (map_[0] - 0.485) / 0.229
    torch.testing.assert_close(standard.features(IMAGE)[0, 0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("mine")
def test_another_version_of_a_function_is_another_model(tmp_path: Path) -> None:
    """Its hash is that of its text, so that results of the one are not taken for those of the other."""
    first = encoders.load("my_features:pooled").sha256
    assert encoders.load("my_features:pooled").sha256 == first
    (tmp_path / "other_features.py").write_text(
        MINE.replace("F.avg_pool2d(images, 8)", "F.max_pool2d(images, 8)")
    )
    assert encoders.load("other_features:pooled").sha256 != first


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("my_features:flat", r"gave \(1, 3\) for images of .* expected a map"),
        ("my_features:skewed", r"gave a map of \(56, 168\) cells .* expected 56 x 84"),
        ("my_features:number", "number is int in my_features; expected a callable"),
        ("my_features:nothing", "nothing is NoneType"),
        ("no_such_module:f", "no module 'no_such_module', neither installed nor in"),
    ],
)
def test_what_is_no_encoder(spec: str, message: str) -> None:
    """Said with what came and what was expected."""
    with pytest.raises(RetraceError, match=message):
        encoders.load(spec)


@pytest.mark.usefixtures("mine")
def test_options_of_own_functions() -> None:
    """Where the nodes sit can be said; what means nothing is refused."""
    assert encoders.load("my_features:pooled,origin=0.5").origin == 0.5
    assert encoders.load("my_features:tens,stride=10").features(IMAGE).shape == (1, 3, 5, 8)
    with pytest.raises(RetraceError, match="a cell for every 4 pixels"):
        encoders.load("my_features:pooled,stride=4")
    with pytest.raises(UsageError, match="stride is 0; expected pixels from 1"):
        encoders.load("my_features:pooled,stride=0")
    with pytest.raises(UsageError, match="origin is 9; expected pixels from 0 to 8"):
        encoders.load("my_features:pooled,origin=9")
    with pytest.raises(UsageError, match="has the option 'cut'"):
        encoders.load("my_features:pooled,cut=3")


def test_what_names_another_package() -> None:
    """Prefixes and module:function; not paths."""
    assert all(map(understands, ("timm:x", "transformers:a/b", "pkg.module:make")))
    assert not any(map(understands, ("default", "weights/x.pth", r"C:\x.pth", "a:b:c")))


@pytest.mark.parametrize("name", ["timm", "transformers"])
def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """How to get it."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RetraceError, match=rf"needs the package {name}: pip install 'retrace\[hub\]'"):
        encoders.load(f"{name}:anything")


def test_a_torchvision_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What timm says beside a torch of another build, in words that help."""
    real = importlib.import_module

    def broken(name: str, *rest: Any) -> ModuleType:
        if name == "timm":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(
        RetraceError, match=r"torchvision::nms does not exist.* install the one built for torch"
    ):
        encoders.load("timm:resnet18")


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    """Loading other models works without the extra, and does not wait for it."""
    code = (
        "import sys; from retrace import encoders; encoders.load('random:resnet18,width=0.125'); "
        "print([name for name in ('timm', 'transformers', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def tiny_timm(timm: Any) -> Any:
    """A vision transformer with a class token and two registers."""
    torch.manual_seed(0)
    return timm.models.vision_transformer.VisionTransformer(
        img_size=32,
        patch_size=16,
        embed_dim=12,
        depth=3,
        num_heads=2,
        num_classes=0,
        reg_tokens=2,
        dynamic_img_size=True,
    ).eval()


def test_timm_gives_normed_patch_tokens_where_they_sit(tmp_path: Path) -> None:
    """As `forward_features` without class and register tokens; from a folder, no download."""
    timm = package("timm")
    body = tiny_timm(timm)
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 0,
        "model_args": {"img_size": 32, "embed_dim": 12, "depth": 3, "num_heads": 2, "reg_tokens": 2},
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.4], "input_size": [3, 32, 32]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(body.state_dict(), tmp_path / "model.safetensors")
    model = encoders.load(f"timm:{tmp_path}")
    assert (model.stride, model.channels, model.multiple, model.origin) == (16, 12, 16, 8)
    assert model.mean == (0.1, 0.2, 0.3)
    normal = (IMAGE - torch.tensor(model.mean).view(3, 1, 1)) / torch.tensor(model.std).view(3, 1, 1)
    padded = torch.nn.functional.pad(normal, (0, 5, 0, 14), mode="replicate")
    with torch.inference_mode():
        tokens = body.forward_features(padded)[:, 3:]  # one class token, two registers
    expected = tokens.transpose(1, 2).reshape(1, 12, 4, 5)
    torch.testing.assert_close(model.features(IMAGE), expected, atol=1e-4, rtol=1e-4)
    earlier = encoders.load(f"timm:{tmp_path},cut=0")
    assert not torch.allclose(earlier.features(IMAGE), expected, atol=1e-3)
    with pytest.raises(UsageError, match="cut is 3; timm:.* has 3 of them, 0 to 2"):
        encoders.load(f"timm:{tmp_path},cut=3")


def test_timm_with_a_file_of_weights(tmp_path: Path) -> None:
    """Every tensor from the file, whatever prefix its backbone has; or none of them."""
    timm = package("timm")
    body = timm.create_model("resnet10t", num_classes=0)
    torch.save({"state_dict": body.state_dict()}, tmp_path / "w.pth")
    name = "timm:resnet10t"
    torch.save({"conv": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(RetraceError, match="does not fit timm:resnet10t"):
        encoders.load(f"{name},weights={tmp_path / 'other.pth'}")
    model = encoders.load(f"{name},weights={tmp_path / 'w.pth'},stride=8,cut=3")
    state = model.encoder.state_dict()
    assert all(torch.equal(tensor, state[f"body.{key}"]) for key, tensor in body.state_dict().items())
    assert (model.stride, model.origin) == (8, 0.5)
    assert encoders.load(f"{name},weights=none").sha256 == encoders.load(f"{name},weights=none").sha256
    with pytest.raises(RetraceError, match="there is no file"):
        encoders.load(f"{name},weights=nowhere.pth")
    with pytest.raises(RetraceError, match="could not be had .*Unknown model"):
        encoders.load("timm:no_such_network")


@pytest.mark.parametrize("kind", ["ViT", "Dinov2WithRegisters"])
def test_transformers_gives_normed_patch_tokens_where_they_sit(tmp_path: Path, kind: str) -> None:
    """As `last_hidden_state` without class and register tokens; an earlier block through the last norm."""
    transformers = package("transformers")
    torch.manual_seed(0)
    settings = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
    config = getattr(transformers, f"{kind}Config")(image_size=32, patch_size=8, **settings)
    body = getattr(transformers, f"{kind}Model")(config).eval()
    body.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}'
    )
    model = encoders.load(f"transformers:{tmp_path}")
    assert (model.stride, model.channels, model.origin, model.mean) == (8, 12, 4, (0.5, 0.5, 0.5))
    padded = torch.nn.functional.pad((IMAGE - 0.5) / 0.2, (0, 5, 0, 6), mode="replicate")
    options = {"interpolate_pos_encoding": True} if kind == "ViT" else {}
    with torch.no_grad():
        out = body(pixel_values=padded, output_hidden_states=True, **options)
    prefix = 1 + getattr(config, "num_register_tokens", 0)

    def laid_out(tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, prefix:].transpose(1, 2).reshape(1, 12, 7, 10)

    torch.testing.assert_close(model.features(IMAGE), laid_out(out.last_hidden_state), atol=1e-4, rtol=1e-4)
    first = encoders.load(f"transformers:{tmp_path},cut=0").features(IMAGE)
    with torch.no_grad():
        expected = laid_out(body.layernorm(out.hidden_states[1]))
    torch.testing.assert_close(first, expected, atol=1e-4, rtol=1e-4)


def test_transformers_convolutional(tmp_path: Path) -> None:
    """Maps as they are; the stride is found by trying."""
    transformers = package("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], layer_type="basic"
    )
    transformers.ResNetModel(config).save_pretrained(tmp_path)
    model = encoders.load(f"transformers:{tmp_path},cut=1")
    assert (model.stride, model.channels, model.origin) == (8, 12, 0.5)
    assert encoders.load(f"transformers:{tmp_path}").stride == 32


def test_transformers_that_shuffle(tmp_path: Path) -> None:
    """Masked autoencoders give patches in random order: refused."""
    transformers = package("transformers")
    config = transformers.ViTMAEConfig(
        image_size=32,
        patch_size=16,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        decoder_hidden_size=8,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=8,
    )
    transformers.ViTMAEModel(config).save_pretrained(tmp_path)
    with pytest.raises(RetraceError, match="shuffles its patches"):
        encoders.load(f"transformers:{tmp_path}")


def test_a_download_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to do without a connection."""
    package("transformers")
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RetraceError, match="Check its name and the connection; without one, give the folder"):
        encoders.load("transformers:nobody/no-such-model")
