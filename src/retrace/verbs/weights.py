"""`retrace weights`: which encoders ship with the package, what is in a checkpoint, files of others as ours."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from retrace.encoders.config import EncoderConfig
from retrace.encoders.model import fingerprint
from retrace.encoders.published import recognise
from retrace.encoders.reading import FORMAT, read_tensors
from retrace.encoders.spec import parse
from retrace.encoders.weights import EMBEDDED, HEAD, Unmatched, described, load, match, save
from retrace.errors import RetraceError, UsageError


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
        what: what kind of file it is, for people.
        ours: whether Retrace exported it.
        family: of a published file, as `as=` takes it; None for others.
        protocol: of `retrace propagate`, that goes with a published file; None for others.
        encoder: how the encoder in it is built (fields of EncoderConfig); None when none is recognised.
        colour: what that encoder sees, "rgb" or "lab".
        card: what a file of ours says of its making; {} for others.
        unmatched: how the tensors fit that encoder, extra ones under the file's names; None when none is recognised.
        sha256: of the encoder's parameters and buffers, as results write it; None when it cannot be loaded.
    """

    path: str
    bytes: int
    tensors: tuple[Entry, ...]
    what: str
    ours: bool
    family: str | None
    protocol: str | None
    encoder: dict[str, Any] | None
    colour: str
    card: dict[str, Any]
    unmatched: Unmatched | None
    sha256: str | None


@dataclass(frozen=True)
class Conversion:
    """What `convert` wrote.

    Attributes:
        out: the file.
        what: what the source is, for people.
        protocol: of `retrace propagate`, that goes with a published file; None for others.
        encoder: how the encoder is built (fields of EncoderConfig).
        colour: what it sees, "rgb" or "lab".
        unmatched: every key of the source that the encoder does not use.
        sha256: of its parameters and buffers, as results write it.
    """

    out: str
    what: str
    protocol: str | None
    encoder: dict[str, Any]
    colour: str
    unmatched: tuple[str, ...]
    sha256: str


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
        path: .safetensors, .pth, .pt, .ckpt or .pkl; ",as=NAME" behind it says whose it is. Pickles are read as plain
            data or refused.

    Errors: UsageError for other options; RetraceError for a missing file, one that is no checkpoint, and one whose
    pickle would run code.
    """
    spec = parse(path)
    spec.allow("as")
    path = Path(spec.base)
    if not path.is_file():
        raise RetraceError(
            f"There is no file {path}; give the path of a checkpoint (.safetensors, .pth, .pt, .ckpt, .pkl)."
        )
    tensors, header = read_tensors(path)
    ours = header.get("format") == FORMAT
    found = _encoder(tensors, header, path, spec.options.get("as"))
    unmatched, sha256 = None, None
    if found.config is not None:
        encoder = found.config.build()
        own = encoder.state_dict()
        fit = match(own, found.state)
        unused = {*found.rest, *(found.sources.get(key, key) for key in fit.unexpected)}
        unmatched = Unmatched(fit.missing, tuple(key for key in tensors if key in unused), fit.misshapen)
        if not fit.missing and not fit.misshapen:
            encoder.load_state_dict({key: found.state.get(key, own[key]).to(own[key].dtype) for key in own})
            sha256 = fingerprint(encoder)
    return Inspection(
        path=str(path),
        bytes=path.stat().st_size,
        tensors=tuple(
            Entry(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in tensors.items()
        ),
        what=found.what,
        ours=ours,
        family=found.family,
        protocol=found.protocol,
        encoder=asdict(found.config) if found.config else None,
        colour=found.colour,
        card=header.get("card", {}) if ours else {},
        unmatched=unmatched,
        sha256=sha256,
    )


def convert(source: str | Path, out: str | Path, *, half: bool = False) -> Conversion:
    """Write any encoder that Retrace can build as one file of ours.

    Args:
        source: a published checkpoint, with options behind commas where it needs them ("file.pth,as=stt-stride4"), or
            any other name that `load` takes and that is a ResNet.
        out: file to write, .safetensors; whole or not at all.
        half: store the weights in float16.

    Errors: UsageError for another suffix or an encoder that is no ResNet; RetraceError as `load`.
    """
    if Path(out).suffix != ".safetensors":
        raise UsageError(f"The output is {out}; give a file name that ends in .safetensors.")
    model = load(source)
    if "encoder" not in model.card:
        raise UsageError(
            f"{model.name} is no ResNet and cannot be written as a file of Retrace; use it by its name."
        )
    save(model, out, half=half)
    published = model.card.get("published", {})
    return Conversion(
        out=str(out),
        what=published.get("title", "an encoder of Retrace"),
        protocol=published.get("protocol"),
        encoder=model.card["encoder"],
        colour=model.colour,
        unmatched=tuple(model.card.get("unmatched", ())),
        sha256=model.sha256,
    )


@dataclass(frozen=True)
class _Found:
    """The encoder in a file, as far as it is there."""

    what: str
    config: EncoderConfig | None
    state: Mapping[str, Tensor]
    sources: Mapping[str, str]  # our name -> the file's
    rest: tuple[str, ...] = ()
    family: str | None = None
    protocol: str | None = None
    colour: str = "rgb"


def _encoder(
    tensors: Mapping[str, Tensor], header: Mapping[str, Any], path: Path, family: str | None
) -> _Found:
    if header.get("format") == FORMAT:
        config = described(header["card"], str(path))
        state = {key: tensor for key, tensor in tensors.items() if not key.startswith(HEAD)}
        return _Found("an encoder of Retrace", config, state, {}, colour=header.get("colour", "rgb"))
    try:
        found = recognise(tensors, family, file=str(path))
    except UsageError:
        raise
    except RetraceError as error:
        # nothing can be loaded, and this says why; the tensors are listed all the same
        return _Found(str(error), None, {}, {})
    if found is None:
        return _Found("no ResNet under a published layout's names (conv1, layer1, ...)", None, {}, {})
    what = f"published: {found.family.title}"
    if isinstance(header.get("config"), Mapping):
        what = "a checkpoint of `retrace train`; `retrace weights export` writes its encoder"
    return _Found(
        what,
        found.config,
        found.state,
        found.sources,
        found.rest,
        found.family.name,
        found.protocol,
        found.family.colour,
    )
