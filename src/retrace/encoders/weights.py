"""A model from what a person names: the encoder that ships, files of ours and of others, baselines, other packages.

Nothing here ever executes code from a file (`encoders.reading`); only `module:function` runs code, the caller's own.
"""

import copy
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from retrace.encoders import hub
from retrace.encoders.colour import COLOURS
from retrace.encoders.config import EncoderConfig
from retrace.encoders.model import LabPatches, Model
from retrace.encoders.published import recognise
from retrace.encoders.reading import FORMAT, read_tensors
from retrace.encoders.resnet import DEPTHS, ResNet
from retrace.encoders.spec import INPUT, NETWORK, Spec, encoder_options, input_options, parse
from retrace.errors import RetraceError, UsageError
from retrace.files import atomic_path

_log = logging.getLogger(__name__)

HEAD = "head."  # before the names of the projector's tensors
EMBEDDED: dict[str, str] = {
    "default": "default.safetensors"
}  # name -> file in this package's `embedded` folder
_RESNET = (*NETWORK, "stride", *INPUT)


@dataclass(frozen=True)
class Unmatched:
    """Keys that did not find their counterpart.

    Attributes:
        missing: the encoder has them, the file does not.
        unexpected: the file has them, the encoder does not.
        misshapen: both have them, with other shapes: "key: file (..), encoder (..)".
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()


def load(spec: str | Path = "default", *, config: EncoderConfig | None = None) -> Model:
    """A model from its name or file; docs/weights.md is the whole list.

    Args:
        spec: "default" (ships with the package), "random:resnet18" (or 34, 50, 101), "random:default" (the shipped
            architecture, untrained), "lab-patches", "timm:NAME", "transformers:NAME" (or a folder; extra `hub`),
            "module:function", or the path of a checkpoint: ours (.safetensors, .ckpt) or a published one, recognised by
            its keys. Options follow behind commas: "vfs.pth,cut=layer2,stride=4".
        config: how to build the encoder (strides, cut layer, padding mode, ...), whatever the file says of it.
            None: as our files say; for published ones as their papers used them, stride 8 and layer3 for most.

    Returns: Model; `card["unmatched"]` lists every key of the file that was not used.

    Errors: RetraceError for a missing file, one that is no checkpoint, one that would run code, one without an encoder;
    UsageError for options that mean nothing.
    """
    asked = parse(spec)
    base = asked.base
    if base in EMBEDDED:
        with resources.as_file(resources.files("retrace.encoders") / "embedded" / EMBEDDED[base]) as path:
            if not path.is_file():
                raise RetraceError(
                    f"This copy of Retrace lacks the encoder {base!r} ({EMBEDDED[base]} is not in the package). "
                    "Install it again, or give the path of a checkpoint."
                )
            model = _load_file(path, asked, config, name=base)
    elif base == "lab-patches":
        asked.allow()
        encoder = LabPatches()
        model = Model(encoder, base, encoder.stride, encoder.out_channels, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    elif base.startswith("random:"):
        model = _random(asked, config)
    elif Path(base).is_file():
        model = _load_file(Path(base), asked, config, name=Path(base).stem)
    elif hub.understands(base):
        return hub.load(asked)
    else:
        known = ", ".join(
            [*EMBEDDED, "lab-patches", "random:resnet18", "timm:NAME", "transformers:NAME", "module:function"]
        )
        raise RetraceError(
            f"Model {asked.text!r} is neither a name we know ({known}) nor a file. Check the spelling or the path."
        )
    if asked.options:
        suffix = "" if base.startswith("random:") else asked.text.removeprefix(base)
        model = replace(input_options(asked, model), name=model.name + suffix)
    return model


def begin(spec: str | Path, config: EncoderConfig, colour: str = "rgb") -> Model:
    """Weights for training to start from.

    Weights that saw another normalisation are rewritten for ours (`renormalised`). Weights that saw RGB begin a
    training on Lab as they are, as in Spatial-then-Temporal, which is said; the other way round nobody has.

    Args:
        spec: as `load` takes it: a ResNet of ours, or a published one.
        config: the encoder that is trained; its strides, padding and cut are what counts, not the file's.
        colour: of the images it is trained on, a key of `colour.COLOURS`.

    Returns: Model, its encoder built as `config` says.

    Errors: UsageError for what is no ResNet, for options that would build another encoder than the one to be trained,
    and for weights that saw Lab where RGB is trained on; RetraceError when the weights do not fit it.
    """
    model = load(spec, config=config)
    if model.card.get("encoder") != asdict(config):
        wrong = "is built otherwise than" if "encoder" in model.card else "is no ResNet and cannot be"
        raise UsageError(
            f"init is {str(spec)!r}, which {wrong} the encoder that is trained ({config.architecture}, width "
            f"{config.width:g}, up to {config.cut}). Give a checkpoint of such a ResNet, without options; its settings "
            "are the recipe's, under `encoder`."
        )
    if model.colour == colour:
        return renormalised(model, *COLOURS[colour])
    if colour == "rgb":
        raise UsageError(
            f"init is {str(spec)!r}, an encoder that saw {model.colour} images, and this method shows it rgb. Give "
            "weights that saw rgb, or train on with the method that made these."
        )
    _log.warning(
        "init is %r, an encoder that saw %s images, and this method shows it %s: it begins as the papers do, its first "
        "layer as it is.",
        str(spec),
        model.colour,
        colour,
    )
    return model


def renormalised(model: Model, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Model:
    """The same function of an image, for an input that is normalised otherwise.

    The first convolution takes the factor and the BatchNorm behind it, in evaluation mode, the shift. It is exact but
    where the convolution pads with zeros: the border is then padded with another colour.

    Args:
        model: with a ResNet.
        mean: that the new input has taken off.
        std: that it is divided by.
    """
    if (tuple(model.mean), tuple(model.std)) == (tuple(mean), tuple(std)):
        return model
    encoder = copy.deepcopy(model.encoder)
    assert isinstance(encoder, ResNet)
    weight, statistics = encoder.conv1.weight, encoder.bn1.running_mean
    assert statistics is not None
    theirs, ours = (torch.tensor(values, dtype=weight.dtype) for values in (model.std, std))
    shift = (torch.tensor(mean) - torch.tensor(model.mean)).to(weight.dtype) / theirs  # (3,)
    with torch.no_grad():
        statistics.sub_((weight * shift.view(3, 1, 1)).sum((1, 2, 3)))
        weight.mul_((ours / theirs).view(3, 1, 1))
    return replace(model, encoder=encoder, mean=mean, std=std, sha256="")


def save(model: Model, path: str | Path, *, half: bool = False) -> None:
    """Write a model whose card holds its EncoderConfig under "encoder".

    Args:
        model: from `from_state_dict` or `load`.
        path: ends in .safetensors; written whole or not at all.
        half: store the weights in float16.

    Errors: RetraceError when the file cannot be written; ValueError when the card does not describe the encoder.
    """
    if "encoder" not in model.card:
        raise ValueError("the model's card has no 'encoder' entry; build it with from_state_dict")
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in model.encoder.state_dict().items()
    }
    tensors |= {f"{HEAD}{name}": tensor.detach().cpu().contiguous() for name, tensor in model.head.items()}
    header = {
        "format": FORMAT,
        "name": model.name,
        "mean": model.mean,
        "std": model.std,
        "colour": model.colour,
        "card": model.card,
    }
    with atomic_path(path) as temporary:
        # Written by us, not by save_file, which makes files that only their owner can read.
        temporary.write_bytes(safetensors.torch.save(tensors, {"retrace": json.dumps(header)}))


def from_state_dict(
    config: EncoderConfig,
    state: Mapping[str, Tensor],
    *,
    name: str,
    card: dict[str, Any] | None = None,
    head: Mapping[str, Tensor] | None = None,
) -> Model:
    """A model from tensors under torchvision's names; keys of deeper layers than the cut are left aside.

    Args:
        config: the encoder.
        state: name -> tensor.
        name: of the model.
        card: what is known of it.
        head: tensors of its projector, to go on training from.

    Errors: RetraceError when the encoder needs a key that is not there, has another shape or holds no finite numbers.
    """
    encoder = config.build()
    unmatched = match(encoder.state_dict(), state)
    if unmatched.missing or unmatched.misshapen:
        raise RetraceError(
            f"The weights of {name!r} do not fit the encoder, a {config.architecture} of width {config.width:g} up to "
            f"{config.cut}: missing {_some(unmatched.missing)}; other shapes {_some(unmatched.misshapen)}. Give the "
            "encoder that the weights were made for."
        )
    own = encoder.state_dict()
    used = {key: state[key] for key in own if key in state}
    broken = [
        key
        for key, tensor in used.items()
        if own[key].is_floating_point() and not (tensor.is_floating_point() and tensor.isfinite().all())
    ]
    if broken:
        raise RetraceError(
            f"The weights of {name!r} hold what is no finite number in {_some(tuple(broken))}. Give a checkpoint from "
            "before the training went wrong, or download it again."
        )
    encoder.load_state_dict({key: used[key].to(own[key].dtype) if key in used else own[key] for key in own})
    full = {**(card or {}), "encoder": asdict(config), "unmatched": list(unmatched.unexpected)}
    return Model(
        encoder.eval(),
        name,
        encoder.stride,
        encoder.out_channels,
        card=full,
        head=dict(head or {}),
        origin=0.5 + encoder.origin,
    )


def with_colour(model: Model, colour: str) -> Model:
    """The same model, its input in another colour space, standardised as the methods do it.

    Args:
        model: any.
        colour: a key of `colour.COLOURS`.
    """
    mean, std = COLOURS[colour]
    return replace(model, colour=colour, mean=mean, std=std)


def match(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Unmatched:
    """Compare names and shapes. BatchNorm's step counters may be absent: they are not used."""
    return Unmatched(
        tuple(key for key in own if key not in given and not key.endswith("num_batches_tracked")),
        tuple(key for key in given if key not in own),
        tuple(
            f"{key}: file {tuple(given[key].shape)}, encoder {tuple(own[key].shape)}"
            for key in own
            if key in given and own[key].shape != given[key].shape
        ),
    )


def _load_file(path: Path, spec: Spec, config: EncoderConfig | None, *, name: str) -> Model:
    tensors, header = read_tensors(path)
    if header.get("format") == FORMAT:
        spec.allow(*_RESNET)
        card = header["card"]
        head = {
            key.removeprefix(HEAD): tensor.float() for key, tensor in tensors.items() if key.startswith(HEAD)
        }
        state = {key: tensor for key, tensor in tensors.items() if not key.startswith(HEAD)}
        own = encoder_options(spec, config or described(card, str(path)))
        model = from_state_dict(own, state, name=header["name"], card=card, head=head)
        return replace(
            model, mean=tuple(header["mean"]), std=tuple(header["std"]), colour=header.get("colour", "rgb")
        )
    if isinstance(header.get("config"), Mapping) and "encoder" in header["config"]:
        spec.allow(*_RESNET)
        model = _from_run(header["config"], tensors, spec, config, name=name, file=path.name)
        return with_colour(model, header.get("colour", "rgb"))
    return _load_published(path, tensors, spec, config, name=name)


def _load_published(
    path: Path, tensors: Mapping[str, Tensor], spec: Spec, config: EncoderConfig | None, *, name: str
) -> Model:
    """A file of others, with the settings that its family needs."""
    spec.allow("as", *_RESNET)
    found = recognise(tensors, spec.options.get("as"), file=str(path))
    if found is None:
        transformer = any(key.endswith("patch_embed.proj.weight") for key in tensors)
        advice = (
            "It looks like a vision transformer: give timm:NAME,weights=FILE (docs/weights.md)."
            if transformer
            else f"Its first keys: {_some(tuple(tensors))}. `retrace weights inspect` lists them all."
        )
        raise RetraceError(
            f"{path} holds {len(tensors)} tensors but no ResNet under a published layout's names (conv1, layer1 ...). "
            f"{advice}"
        )
    built = encoder_options(spec, config or found.config)
    model = from_state_dict(built, found.state, name=name, head=found.head)
    unused = {*found.rest, *(found.sources[key] for key in model.card["unmatched"])}
    unmatched = [key for key in tensors if key in unused]
    origin = {"family": found.family.name, "title": found.family.title, "protocol": found.protocol}
    published = {"file": path.name, **origin, "unmatched": unmatched}  # kept when the model is saved as ours
    model = replace(model, card={"published": published, **model.card, "unmatched": unmatched})
    return with_colour(model, found.family.colour)


def _from_run(
    saved: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    spec: Spec,
    config: EncoderConfig | None,
    *,
    name: str,
    file: str,
) -> Model:
    """The encoder of a Lightning checkpoint of `retrace train`, as that run exports it: averaged, and cut."""
    config = encoder_options(spec, config or described(saved, file, cut=saved.get("export_cut")))

    def below(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}

    state = below("state_dict.averaged.") or below("state_dict.method.encoder.")
    return from_state_dict(
        config, state, name=name, card={"file": file}, head=below("state_dict.method.head.")
    )


def _random(spec: Spec, config: EncoderConfig | None) -> Model:
    """An untrained encoder, always the same one: the baseline."""
    spec.allow("width", *_RESNET)
    what = spec.base.removeprefix("random:")
    if what == "default":
        config = config or described(load("default").card, "default")
    elif what not in DEPTHS:
        raise RetraceError(
            f"Model 'random:{what}'; expected random:default or one of "
            f"{', '.join(f'random:{name}' for name in DEPTHS)}."
        )
    config = encoder_options(spec, config or EncoderConfig(architecture=what), width=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = config.build().eval()
    card = {"encoder": asdict(config), "method": "random initialisation, seed 0"}
    origin = 0.5 + encoder.origin
    return Model(encoder, spec.text, encoder.stride, encoder.out_channels, card=card, origin=origin)


def described(card: Mapping[str, Any], file: str, *, cut: str | None = None) -> EncoderConfig:
    """The encoder that a card describes under "encoder", ending after layer `cut` where that is given.

    With the strides under "export_strides", where a run's configuration has them.

    Errors: RetraceError when it describes none that can be built.
    """
    try:
        config = EncoderConfig(**{key: _tuples(value) for key, value in card["encoder"].items()})
        config = config.ending(cut, _tuples(card.get("export_strides")))
        config.check()
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RetraceError(
            f"{file} describes an encoder that this version of Retrace cannot build ({error}). Download or export it "
            "again, or install the version that wrote it."
        ) from error
    return config


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _some(keys: tuple[str, ...], most: int = 5) -> str:
    shown = ", ".join(keys[:most]) or "none"
    return shown + (f" and {len(keys) - most} more" if len(keys) > most else "")
