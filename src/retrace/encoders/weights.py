"""Weights on disk: our own safetensors, torchvision-style state dicts, and the encoder that ships with the package.

Nothing here ever executes code from a file: pickles are read with `weights_only=True`.
"""

import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from retrace.encoders.config import EncoderConfig
from retrace.encoders.model import LabPatches, Model
from retrace.encoders.resnet import LAYERS
from retrace.errors import RetraceError
from retrace.files import atomic_path

FORMAT = "retrace-encoder-1"
HEAD = "head."  # before the names of the projector's tensors
EMBEDDED: dict[str, str] = {
    "default": "default.safetensors"
}  # name -> file in this package's `embedded` folder


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
    """A model from its name or file.

    Args:
        spec: "default" (ships with the package), "random:resnet18", "random:resnet50", "random:default" (the shipped
            architecture, untrained), "lab-patches", or the path of a .safetensors of ours, a Lightning .ckpt of ours,
            or a .pth / .pt / .safetensors with torchvision's ResNet names.
        config: how to build the encoder of a file that does not say so itself (strides, cut layer, padding mode, ...).
            None: as our files say; for others, depth, width and block are read off the keys and the map is layer3 at
            stride 8.

    Returns: Model; `card["unmatched"]` lists every key of the file that was not used.

    Errors: RetraceError for a missing file, one that is no checkpoint, one that would run code, one without an encoder.
    """
    text = str(spec)
    if text in EMBEDDED:
        with resources.as_file(resources.files("retrace.encoders") / "embedded" / EMBEDDED[text]) as path:
            if not path.is_file():
                raise RetraceError(
                    f"This copy of Retrace lacks the encoder {text!r} ({EMBEDDED[text]} is not in the package). "
                    "Install it again, or give the path of a checkpoint."
                )
            return _load_file(path, None, name=text)
    if text == "lab-patches":
        encoder = LabPatches()
        return Model(encoder, text, encoder.stride, encoder.out_channels, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    if text.startswith("random:"):
        return _random(text.removeprefix("random:"), config)
    path = Path(spec)
    if not path.is_file():
        known = ", ".join([*EMBEDDED, "lab-patches", "random:resnet18", "random:resnet50", "random:default"])
        raise RetraceError(
            f"Model {text!r} is neither a name we know ({known}) nor a file. Check the spelling or the path."
        )
    return _load_file(path, config, name=path.stem)


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
    header = {"format": FORMAT, "name": model.name, "mean": model.mean, "std": model.std, "card": model.card}
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

    Errors: RetraceError when the encoder needs a key that is not there or has another shape.
    """
    encoder = config.build()
    unmatched = match(encoder.state_dict(), state)
    if unmatched.missing or unmatched.misshapen:
        raise RetraceError(
            f"The weights of {name!r} do not fit the encoder {config}: missing {_some(unmatched.missing)}; "
            f"other shapes {_some(unmatched.misshapen)}. Give the encoder that the weights were made for."
        )
    own = encoder.state_dict()
    encoder.load_state_dict({key: state[key].to(own[key].dtype) if key in state else own[key] for key in own})
    full = {**(card or {}), "encoder": asdict(config), "unmatched": list(unmatched.unexpected)}
    return Model(encoder.eval(), name, encoder.stride, encoder.out_channels, card=full, head=dict(head or {}))


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


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors of a checkpoint file, flat, and our header if it is one of ours.

    Errors: RetraceError for a file that is no checkpoint or whose pickle holds anything but plain data.
    """
    if path.stat().st_size == 0:
        raise RetraceError(f"{path} is empty; expected a checkpoint. Download or export it again.")
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except safetensors.SafetensorError as error:
            raise RetraceError(
                f"{path} is no readable safetensors file ({error}). Download or export it again."
            ) from error
        return tensors, _header(metadata.get("retrace", "{}"), path)
    with path.open("rb") as file:
        magic = file.read(2)
    if magic != b"PK" and magic[:1] != b"\x80":  # neither torch's archive nor a pickle
        raise RetraceError(
            f"{path} is no checkpoint: it starts like no file of torch. Give a .pth, .ckpt or .safetensors."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about odd pickles; what is wrong is said below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RetraceError(
            f"{path} is no checkpoint of plain tensors: it is damaged, or reading it would run code from the file, "
            "which Retrace never does. Save its state_dict with torch.save or safetensors and give that file."
        ) from error
    except Exception as error:  # torch raises a different type for every way a file can be wrong
        raise RetraceError(
            f"{path} is no readable checkpoint ({type(error).__name__}). Download it again."
        ) from error
    if not isinstance(content, Mapping):
        raise RetraceError(f"{path} holds a {type(content).__name__}; expected a state dict of tensors.")
    header = content.get("retrace", {})
    return _flatten(content), header if isinstance(header, dict) else {}


def recognise(state: Mapping[str, Tensor]) -> tuple[EncoderConfig, dict[str, Tensor]] | None:
    """Find a ResNet among tensors: its configuration, and its tensors under torchvision's names; None if none."""
    stems = [key for key in state if key.endswith("conv1.weight") and state[key].shape[1:] == (3, 7, 7)]
    if not stems:
        return None
    prefix = min(stems, key=len).removesuffix("conv1.weight")
    tensors = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    depths = []
    for layer in LAYERS:
        blocks = {key.split(".")[1] for key in tensors if key.startswith(f"{layer}.")}
        if not blocks:
            break
        depths.append(len(blocks))
    if not depths:
        return None
    architecture = "resnet50" if "layer1.0.conv3.weight" in tensors else "resnet18"
    cut = LAYERS[min(len(depths), 3) - 1]
    return EncoderConfig(architecture, width=tensors["conv1.weight"].shape[0] / 64, cut=cut), tensors


def _load_file(path: Path, config: EncoderConfig | None, *, name: str) -> Model:
    tensors, header = read_tensors(path)
    if header.get("format") == FORMAT:
        card = header["card"]
        head = {
            key.removeprefix(HEAD): tensor.float() for key, tensor in tensors.items() if key.startswith(HEAD)
        }
        state = {key: tensor for key, tensor in tensors.items() if not key.startswith(HEAD)}
        model = from_state_dict(
            config or described(card, str(path)), state, name=header["name"], card=card, head=head
        )
        return replace(model, mean=tuple(header["mean"]), std=tuple(header["std"]))
    if config is None and isinstance(header.get("config"), Mapping) and "encoder" in header["config"]:
        return _from_run(header["config"], tensors, name=name, file=path.name)
    found = recognise(tensors)
    if found is None:
        raise RetraceError(
            f"{path} holds {len(tensors)} tensors but no ResNet under torchvision's names (conv1, layer1 ...). "
            f"Its first keys: {_some(tuple(tensors))}. `retrace weights inspect` lists them all."
        )
    guessed, state = found
    return from_state_dict(config or guessed, state, name=name, card={"file": path.name})


def _from_run(saved: Mapping[str, Any], tensors: Mapping[str, Tensor], *, name: str, file: str) -> Model:
    """The encoder of a Lightning checkpoint of `retrace train`, as that run exports it: averaged, and cut."""
    config = described(saved, file, cut=saved.get("export_cut"))

    def below(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}

    state = below("state_dict.averaged.") or below("state_dict.method.encoder.")
    return from_state_dict(
        config, state, name=name, card={"file": file}, head=below("state_dict.method.head.")
    )


def _random(what: str, config: EncoderConfig | None) -> Model:
    """An untrained encoder, always the same one: the baseline."""
    if what == "default":
        config = config or described(load("default").card, "default")
    elif what not in ("resnet18", "resnet50"):
        raise RetraceError(
            f"Model 'random:{what}'; expected random:resnet18, random:resnet50 or random:default."
        )
    config = config or EncoderConfig(architecture=what)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = config.build().eval()
    card = {"encoder": asdict(config), "method": "random initialisation, seed 0"}
    return Model(encoder, f"random:{what}", encoder.stride, encoder.out_channels, card=card)


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """All tensors of nested dicts, names joined by dots; optimiser states stay outside."""
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping) and not str(key).startswith(
            ("optimizer", "lr_sched", "loops", "callbacks")
        ):
            tensors.update(_flatten(value, f"{prefix}{key}."))
    return tensors


def described(card: Mapping[str, Any], file: str, *, cut: str | None = None) -> EncoderConfig:
    """The encoder that a card describes under "encoder", ending after layer `cut` where that is given.

    Errors: RetraceError when it describes none that can be built.
    """
    try:
        config = EncoderConfig(**{key: _tuples(value) for key, value in card["encoder"].items()})
        config = replace(config, cut=cut or config.cut)
        with torch.device("meta"):  # costs nothing, and refuses what cannot be built
            config.build()
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RetraceError(
            f"{file} describes an encoder that this version of Retrace cannot build ({error}). Download or export it "
            "again, or install the version that wrote it."
        ) from error
    return config


def _header(text: str, path: Path) -> dict[str, Any]:
    """Our header in a safetensors file; {} for files of others.

    Errors: RetraceError when it says that it is ours and is not whole.
    """
    try:
        header = json.loads(text)
    except ValueError as error:
        raise RetraceError(f"{path} has a damaged header ({error}). Download or export it again.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        return {}
    wanted: dict[str, type] = {"name": str, "mean": list, "std": list, "card": dict}
    wrong = [key for key, kind in wanted.items() if not isinstance(header.get(key), kind)]
    if wrong:
        raise RetraceError(f"{path} has a damaged header (no {wrong[0]}). Download or export it again.")
    return header


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _some(keys: tuple[str, ...], most: int = 5) -> str:
    shown = ", ".join(keys[:most]) or "none"
    return shown + (f" and {len(keys) - most} more" if len(keys) > most else "")
