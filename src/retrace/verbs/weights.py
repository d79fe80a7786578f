"""`retrace weights`: which encoders ship with the package, and what is inside a checkpoint file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from retrace.encoders.config import EncoderConfig
from retrace.encoders.model import fingerprint
from retrace.encoders.weights import (
    EMBEDDED,
    FORMAT,
    Unmatched,
    described,
    load,
    match,
    read_tensors,
    recognise,
)
from retrace.errors import RetraceError


@dataclass(frozen=True)
class Shipped:
    """An encoder that ships with the package.

    Attributes:
        name: what `--model` and `retrace.load` take.
        file: its file, inside the package.
        bytes: size of the file.
        parameters: numbers learnt or kept, BatchNorm's statistics included.
        stride: pixels from node to node.
        channels: of the feature map.
        sha256: of all parameters and buffers, as results write it.
        card: what is known of its making.
    """

    name: str
    file: str
    bytes: int
    parameters: int
    stride: int
    channels: int
    sha256: str
    card: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its name, shape and element type ("float32", ...)."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint file holds.

    Attributes:
        path: of the file.
        bytes: its size.
        tensors: every tensor, nested ones under dotted names; optimiser state is left out.
        ours: whether Retrace wrote it.
        encoder: how the encoder in it is built (fields of EncoderConfig); None when none is recognised.
        card: what a file of ours says of its making; {} for others.
        unmatched: how the tensors fit that encoder; None when none is recognised.
        sha256: of the encoder's parameters and buffers, as results write it; None when it cannot be loaded.
    """

    path: str
    bytes: int
    tensors: tuple[Entry, ...]
    ours: bool
    encoder: dict[str, Any] | None
    card: dict[str, Any]
    unmatched: Unmatched | None
    sha256: str | None


def shipped() -> list[Shipped]:
    """The encoders inside the package, by name.

    Errors: RetraceError when one of them is missing from the installation.
    """
    found = []
    for name, file in EMBEDDED.items():
        model = load(name)
        with resources.as_file(resources.files("retrace.encoders") / "embedded" / file) as path:
            size = path.stat().st_size
        found.append(
            Shipped(
                name=name,
                file=file,
                bytes=size,
                parameters=sum(tensor.numel() for tensor in model.encoder.state_dict().values()),
                stride=model.stride,
                channels=model.channels,
                sha256=model.sha256,
                card=model.card,
            )
        )
    return found


def inspect(path: str | Path) -> Inspection:
    """Look into a checkpoint without running anything in it.

    Args:
        path: .safetensors, .pth, .pt or .ckpt. Pickles are read with `weights_only`: plain data or nothing.

    Errors: RetraceError for a missing file, one that is no checkpoint, and one whose pickle would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise RetraceError(
            f"There is no file {path}; give the path of a checkpoint (.safetensors, .pth, .pt, .ckpt)."
        )
    tensors, header = read_tensors(path)
    ours = header.get("format") == FORMAT
    config, state = _encoder(tensors, header if ours else {}, str(path))
    unmatched, sha256 = None, None
    if config is not None:
        encoder = config.build()
        unmatched = match(encoder.state_dict(), state)
        if not unmatched.missing and not unmatched.misshapen:
            own = encoder.state_dict()
            encoder.load_state_dict({key: state.get(key, own[key]).to(own[key].dtype) for key in own})
            sha256 = fingerprint(encoder)
    return Inspection(
        path=str(path),
        bytes=path.stat().st_size,
        tensors=tuple(
            Entry(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in tensors.items()
        ),
        ours=ours,
        encoder=asdict(config) if config else None,
        card=header.get("card", {}) if ours else {},
        unmatched=unmatched,
        sha256=sha256,
    )


def _encoder(
    tensors: Mapping[str, Tensor], header: Mapping[str, Any], file: str
) -> tuple[EncoderConfig | None, Mapping[str, Tensor]]:
    """The encoder's configuration, from our header or from the tensors' names, and its tensors without a prefix."""
    if header:
        return described(header["card"], file), tensors
    return recognise(tensors) or (None, {})
