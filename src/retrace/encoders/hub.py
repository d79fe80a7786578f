"""Encoders of other packages: `timm:NAME`, `transformers:NAME` (extra `hub`) and `module:function`.

Each becomes a module from normalised images (B, 3, H, W), sides a multiple of its stride, to a map (B, C, h, w) with
h = H / stride, w = W / stride. Vision transformers give the patch tokens of a block, normalised by the network's last
norm as DINO's own evaluation does; class and register tokens are left out. The packages are imported when they are
asked for and never before.
"""

import hashlib
import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from retrace.encoders.model import IMAGENET_MEAN, IMAGENET_STD, Model, fingerprint
from retrace.encoders.reading import read_tensors
from retrace.encoders.spec import INPUT, Spec, input_options
from retrace.errors import RetraceError, UsageError

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
DEEPEST_STRIDE = 16
"""timm without `cut`: the map is the deepest one whose stride is at most this, pixels; the last where none is."""
PROBE = (448, 672)
"""Height and width, pixels, of the image with which an encoder's stride is found: multiples of 14, 16 and 32."""


def understands(base: str) -> bool:
    """Whether a specification's base names an encoder of another package."""
    return base.startswith(("timm:", "transformers:")) or _FUNCTION.fullmatch(base) is not None


def load(spec: Spec) -> Model:
    """The model that a specification names.

    Args:
        spec: its base begins with "timm:" or "transformers:", or is "module:function".

    Returns: Model; `multiple` is its stride, `card` says which package and version it is of.

    Errors: RetraceError when the package, the model or its weights are not there, or what comes out is no map;
    UsageError for options that mean nothing.
    """
    if spec.base.startswith("timm:"):
        return _timm(spec)
    if spec.base.startswith("transformers:"):
        return _transformers(spec)
    return _function(spec)


class Mapped(nn.Module):
    """Says in a sentence when an encoder's map is not (B, C, H / stride, W / stride)."""

    stride: int = 0  # known after the first image

    def checked(self, features: Any, images: Tensor) -> Tensor:
        """The map itself.

        Errors: RetraceError naming what came instead.
        """
        size = tuple(images.shape)
        if not isinstance(features, Tensor) or features.dim() != 4 or len(features) != len(images):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise RetraceError(
                f"The encoder gave {got} for images of {size}; expected a map (B, C, h, w). Return that, "
                "for a transformer its patch tokens laid out in rows and columns."
            )
        stride = self.stride or size[2] // max(1, features.shape[2])
        if tuple(features.shape[2:]) != (size[2] / stride, size[3] / stride):
            raise RetraceError(
                f"The encoder gave a map of {tuple(features.shape[2:])} cells for images of {size[2:]} pixels; "
                f"expected {size[2] / stride:g} x {size[3] / stride:g}, a cell for every {stride} pixels both ways."
            )
        self.stride = stride
        return features


class Timm(Mapped):
    """One intermediate map of a timm model."""

    def __init__(self, body: nn.Module, cut: int) -> None:
        """`cut` is the index among the maps that timm lists for the model."""
        super().__init__()
        self.body = body
        self.cut = cut

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w)."""
        body: Any = self.body
        maps = body.forward_intermediates(
            images, indices=[self.cut], norm=True, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )
        return self.checked(maps[0], images)


class Transformers(Mapped):
    """The hidden state of one block of a transformers model, laid out as a map."""

    def __init__(self, body: nn.Module, cut: int, patch: int) -> None:
        """`cut` counts blocks from 0, -1 is the last; `patch` is the side of a patch in pixels."""
        super().__init__()
        self.body = body
        self.cut = cut
        self.patch = patch
        self.options = (
            {"interpolate_pos_encoding": True}
            if "interpolate_pos_encoding" in inspect.signature(body.forward).parameters
            else {}
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w)."""
        last = self.cut == -1
        out = self.body(pixel_values=images, output_hidden_states=not last, **self.options)
        hidden: Tensor = out.last_hidden_state if last else out.hidden_states[self.cut + 1]
        if hidden.dim() == 3:
            norm = getattr(self.body, "layernorm", None)
            hidden = hidden if last or norm is None else norm(hidden)
            h, w = self._grid(images, hidden.shape[1])
            patches = hidden[:, hidden.shape[1] - h * w :]  # class and register tokens come first
            hidden = patches.transpose(1, 2).unflatten(2, (h, w))  # (B, C, h, w)
        return self.checked(hidden, images)

    def _grid(self, images: Tensor, tokens: int) -> tuple[int, int]:
        """Rows and columns of patches; of those that double their patches block by block, those that fit best."""
        height, width = images.shape[-2:]
        sides = [self.patch * 2**k for k in range(6)]
        grids = [(height // side, width // side) for side in sides if height % side == width % side == 0]
        fitting = [(h, w) for h, w in grids if h * w <= tokens]
        return max(fitting, key=lambda grid: grid[0] * grid[1], default=(0, 0))


class Called(Mapped):
    """What a person's own function makes of images."""

    def __init__(self, function: Any) -> None:
        """A callable (B, 3, H, W) -> (B, C, h, w); a module's weights are moved and hashed with the model."""
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w)."""
        return self.checked(self.function(images), images)


def _timm(spec: Spec) -> Model:
    """`timm:NAME` or `timm:FOLDER`; with `weights=FILE` or `weights=none` nothing is downloaded."""
    spec.allow("cut", "stride", "weights", "origin", *INPUT)
    timm = _package("timm", spec)
    name = spec.base.removeprefix("timm:")
    weights = spec.options.get("weights")
    settings: dict[str, Any] = {"num_classes": 0, "pretrained": weights is None}
    if "stride" in spec.options:
        settings["output_stride"] = spec.read("stride", int)
    try:
        name = f"local-dir:{name}" if Path(name).is_dir() else name
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # for weights=none
            try:  # of any image size, for those that have position embeddings
                body = timm.create_model(name, dynamic_img_size=True, **settings)
            except TypeError:
                body = timm.create_model(name, **settings)
    except Exception as error:  # timm and the hub raise a different type for every way this can go wrong
        raise _unavailable(spec, error) from error
    if weights not in (None, "none"):
        _fill(body, Path(weights or ""), spec)
    maps = list(getattr(body, "feature_info", ()))
    if not maps or not hasattr(body, "forward_intermediates"):
        raise RetraceError(f"Model {spec.text!r} offers no intermediate maps in timm. Take another one.")
    fitting = [index for index, one in enumerate(maps) if one["reduction"] <= DEEPEST_STRIDE]
    cut = _cut(spec, len(maps), default=fitting[-1] if fitting else len(maps) - 1)
    about = getattr(body, "pretrained_cfg", None) or {}
    mean, std = about.get("mean") or IMAGENET_MEAN, about.get("std") or IMAGENET_STD
    card = {"package": f"timm {timm.__version__}", "cut": f"{cut} of 0 to {len(maps) - 1}"}
    return _packaged(Timm(body.float().eval(), cut), spec, mean, std, card)


def _transformers(spec: Spec) -> Model:
    """`transformers:NAME` or `transformers:FOLDER`, whatever AutoModel makes of it that looks at images."""
    spec.allow("cut", "origin", *INPUT)
    transformers = _package("transformers", spec)
    name = spec.base.removeprefix("transformers:")
    try:
        body = transformers.AutoModel.from_pretrained(name)
    except (
        Exception
    ) as error:  # transformers and the hub raise a different type for every way this can go wrong
        raise _unavailable(spec, error) from error
    body = getattr(body, "vision_model", body)
    if getattr(body.config, "model_type", "") == "vit_mae":
        raise RetraceError(
            f"Model {spec.text!r} shuffles its patches in transformers. Take the same weights from timm."
        )
    patch = getattr(body.config, "patch_size", 1)
    patch = patch if isinstance(patch, int) else max(patch)
    blocks = getattr(body.config, "num_hidden_layers", None) or len(getattr(body.config, "depths", [0]))
    cut = _cut(spec, blocks, default=-1)
    cut = -1 if cut == blocks - 1 else cut
    mean, std = _normalisation(transformers, name)
    card = {
        "package": f"transformers {transformers.__version__}",
        "cut": f"{cut % blocks} of 0 to {blocks - 1}",
    }
    return _packaged(Transformers(body.float().eval(), cut, patch), spec, mean, std, card)


def _function(spec: Spec) -> Model:
    """`module:function`: a callable or module from images to a map, or a function or class that makes one."""
    spec.allow("stride", "origin", *INPUT)
    name, _, attribute = spec.base.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)  # a person's module lies beside their work, where `python -c` would find it too
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # theirs to mend: their module imports something that is not there
        raise RetraceError(
            f"Model {spec.text!r}: there is no module {error.name!r}, neither installed nor in {here}. "
            "Check the spelling, or go to the folder that holds it."
        ) from error
    finally:
        sys.path.remove(here)
    found = getattr(module, attribute, None)
    if found is not None and not isinstance(found, nn.Module) and callable(found) and _takes_nothing(found):
        found = found()
    if not callable(found):
        raise RetraceError(
            f"Model {spec.text!r}: {attribute} is {type(found).__name__} in {name}; expected a callable from images "
            "(B, 3, H, W) to a map (B, C, h, w), or a function that returns one."
        )
    if isinstance(found, nn.Module):
        found.eval()
    model = _model(Called(found), spec, IMAGENET_MEAN, IMAGENET_STD, {"package": name})
    return model if isinstance(found, nn.Module) else replace(model, sha256=_source_hash(found, model))


def _packaged(
    encoder: Mapped, spec: Spec, mean: tuple[float, ...], std: tuple[float, ...], card: dict[str, Any]
) -> Model:
    """As `_model`; what the package cannot do is said in a sentence."""
    try:
        return _model(encoder, spec, mean, std, card)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise RetraceError(
            f"Model {spec.text!r} made no map of an image of {PROBE[0]} x {PROBE[1]} pixels ({_first_line(error)}). It "
            "may be made for one size only; take another one, or wrap it in a function of your own (module:function)."
        ) from error


def _model(
    encoder: Mapped, spec: Spec, mean: tuple[float, ...], std: tuple[float, ...], card: dict[str, Any]
) -> Model:
    """Find stride and channels with one empty image, and put everything together."""
    height, width = PROBE
    if isinstance(encoder, Called) and "stride" in spec.options:
        encoder.stride = spec.read("stride", int)
        if not 1 <= encoder.stride <= height:
            raise UsageError(
                f"Model {spec.text!r}: stride is {encoder.stride}; expected pixels from 1 to {height}."
            )
        height, width = (-(-side // encoder.stride) * encoder.stride for side in PROBE)
    with torch.inference_mode():
        features = encoder(torch.zeros(1, 3, height, width))
    stride = encoder.stride
    model = Model(
        encoder,
        spec.text,
        stride,
        features.shape[1],
        (mean[0], mean[1], mean[2]),
        (std[0], std[1], std[2]),
        card={"model": spec.base, **card},
        multiple=stride,
        origin=_origin(encoder, stride),
    )
    if "origin" in spec.options:
        origin = spec.read("origin", float)
        if not 0 <= origin <= stride:
            raise UsageError(
                f"Model {spec.text!r}: origin is {origin:g}; expected pixels from 0 to {stride}."
            )
        model = replace(model, origin=origin)
    return input_options(spec, model)


def _origin(encoder: nn.Module, stride: int) -> float:
    """Where the first node sits: on the first pixel when the first convolution overlaps, else mid-patch."""
    first = next((module for module in encoder.modules() if isinstance(module, nn.Conv2d)), None)
    overlapping = first is not None and first.kernel_size[0] > first.stride[0]
    return 0.5 if overlapping else stride / 2


def _cut(spec: Spec, blocks: int, *, default: int) -> int:
    """Index of the block whose output is the map."""
    if "cut" not in spec.options:
        return default
    cut: int = spec.read("cut", int)
    if not -blocks <= cut < blocks:
        raise UsageError(
            f"Model {spec.text!r}: cut is {cut}; {spec.base} has {blocks} of them, 0 to {blocks - 1}, "
            "or -1 for the last."
        )
    return cut % blocks


def _fill(body: nn.Module, file: Path, spec: Spec) -> None:
    """Weights from a file of the person's, every one of them."""
    if not file.is_file():
        raise RetraceError(f"Model {spec.text!r}: there is no file {file}. Check the path after weights=.")
    tensors, _ = read_tensors(file)
    wanted = body.state_dict()
    first = next(iter(wanted))
    prefixes = [key.removesuffix(first) for key in tensors if key.endswith(first)] or [""]
    best = max(prefixes, key=lambda prefix: sum(f"{prefix}{key}" in tensors for key in wanted))
    missing = [key for key in wanted if f"{best}{key}" not in tensors]
    misshapen = [
        key for key in wanted if key not in missing and tensors[f"{best}{key}"].shape != wanted[key].shape
    ]
    if missing or misshapen:
        raise RetraceError(
            f"{file} does not fit {spec.base}: {len(missing)} of its {len(wanted)} tensors are missing and "
            f"{len(misshapen)} have another shape (first: {(missing + misshapen)[0]}). Name the network that the file "
            "is of."
        )
    body.load_state_dict({key: tensors[f"{best}{key}"] for key in wanted})


def _normalisation(transformers: ModuleType, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation that the model's own preprocessing uses; ImageNet's where it says nothing."""
    file = transformers.utils.cached_file(
        name,
        "preprocessor_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    says: Mapping[str, Any] = json.loads(Path(file).read_text()) if file else {}
    return tuple(says.get("image_mean") or IMAGENET_MEAN), tuple(says.get("image_std") or IMAGENET_STD)


def _package(name: str, spec: Spec) -> ModuleType:
    """The imported package.

    Errors: RetraceError saying how to get it.
    """
    try:
        package = importlib.import_module(name)
        if name == "transformers":
            _ = package.AutoModel  # transformers imports late; trouble shows here
        return package
    except (ImportError, RuntimeError) as error:
        if getattr(error, "name", None) == name:
            raise RetraceError(
                f"Model {spec.text!r} needs the package {name}: pip install 'retrace[hub]'."
            ) from error
        raise RetraceError(
            f"Model {spec.text!r} needs the package {name}, which does not import here ({_first_line(error)}). Often "
            f"it is torchvision: install the one built for torch {torch.__version__}, from where that torch came"
            f"{', or uninstall it, transformers does without' if name == 'transformers' else ''}."
        ) from error


def _unavailable(spec: Spec, error: Exception) -> RetraceError:
    package = spec.base.partition(":")[0]
    return RetraceError(
        f"Model {spec.text!r} could not be had ({_first_line(error)}). Check its name and the connection; without one, "
        f"give the folder of a saved model, {package}:FOLDER."
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0].rstrip(". ")[:200]


def _takes_nothing(function: Any) -> bool:
    """Whether calling it without arguments is what it wants."""
    empty, starred = (
        inspect.Parameter.empty,
        (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD),
    )
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # written in C: it takes images
        return False
    return not any(one.default is empty and one.kind not in starred for one in parameters)


def _source_hash(function: Any, model: Model) -> str:
    """Of a function without weights: its text, so that another version of it counts as another model."""
    try:
        text = inspect.getsource(function if inspect.isroutine(function) else type(function))
    except (OSError, TypeError):
        text = repr(type(function))
    return hashlib.sha256(f"{fingerprint(model.encoder)} {text}".encode()).hexdigest()
