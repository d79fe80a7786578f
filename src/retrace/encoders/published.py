"""Published checkpoints: whose they are, by their keys, and what they need to be used as their papers used them.

A file gives names and shapes; strides, padding, colour and normalisation it does not. Those are here, one entry per
family of files, and docs/weights.md is the table for people. Two families that a file cannot tell apart are asked for
(`,as=NAME`), never guessed.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from retrace.encoders.config import EncoderConfig
from retrace.encoders.resnet import DEPTHS, LAYERS, Bottleneck
from retrace.errors import RetraceError, UsageError


@dataclass(frozen=True)
class Published:
    """A family of published files.

    Attributes:
        name: as `as=` takes it.
        title: for people.
        protocol: of `retrace propagate`, for a ResNet-18 (or -34) and for a ResNet-50 (or -101).
        settings: of EncoderConfig, what propagation needs and keys do not say.
        colour: what the network sees, "rgb" or "lab", standardised as `colour.COLOURS` says.
    """

    name: str
    title: str
    protocol: tuple[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    colour: str = "rgb"


def _images(name: str, title: str) -> Published:
    """Learned from images: layer4 dropped and layer3 kept at stride 8, as VFS and StT compare such encoders."""
    return Published(name, title, ("vfs-r18-davis", "vfs-r50-davis"))


FAMILIES: dict[str, Published] = {
    family.name: family
    for family in (
        Published("crw", "CRW", ("crw-davis", "crw-davis"), {"padding_mode": "reflect"}),
        Published("stfc3", "STFC3", ("stfc3-davis", "stfc3-davis"), {"padding_mode": "reflect"}),
        Published("timecycle", "TimeCycle", ("timecycle-davis", "timecycle-davis")),
        Published("vfs", "VFS", ("vfs-r18-davis", "vfs-r50-davis")),
        Published(
            "stt",
            "Spatial-then-Temporal, stride 8",
            ("stt-davis", "stt-davis"),
            {"strides": (1, 2, 2, 1), "stem_pool": False},
            "lab",
        ),
        Published(
            "stt-stride4",
            "Spatial-then-Temporal, stride 4",
            ("stt-stride4-davis", "stt-stride4-davis"),
            {"strides": (1, 1, 1, 1), "pool": "mean"},
            "lab",
        ),
        _images("moco", "MoCo"),
        _images("simsiam", "SimSiam"),
        _images("detco", "DetCo, or another file of OpenSelfSup or detectron2"),
        _images("dino", "DINO ResNet-50"),
        _images("torchvision", "torchvision's layout"),
    )
}


@dataclass(frozen=True)
class Recognised:
    """An encoder found in a file.

    Attributes:
        family: whose it is.
        config: of the encoder, ready for propagation.
        state: its tensors under torchvision's names (and `reduction.weight`), deeper layers than the cut included.
        sources: our name -> the file's name.
        rest: the file's names of all other tensors: heads, momentum copies, queues, teachers.
        head: the projector's tensors under our names, where the method has ours; else empty.
    """

    family: Published
    config: EncoderConfig
    state: dict[str, Tensor]
    sources: dict[str, str]
    rest: tuple[str, ...]
    head: dict[str, Tensor]

    @property
    def protocol(self) -> str:
        """Name of the protocol that goes with it."""
        block, _ = DEPTHS[self.config.architecture]
        return self.family.protocol[block is Bottleneck]


# layout -> (how the first convolution is called, number of its dimensions, file's name -> torchvision's name)
_LAYOUTS: dict[str, tuple[str, int, tuple[tuple[str, str], ...]]] = {
    "torchvision": ("conv1.weight", 4, ()),
    "inflated": ("conv1.weight", 5, ()),  # TimeCycle: 2D convolutions written as 3D ones of length 1
    "mmcv": (
        "conv1.conv.weight",
        4,
        (
            (r"downsample\.conv\.", "downsample.0."),
            (r"downsample\.bn\.", "downsample.1."),
            (r"conv(\d)\.conv\.", r"conv\1."),
            (r"conv(\d)\.bn\.", r"bn\1."),
        ),
    ),
    "detectron2": (
        "stem.conv1.weight",
        4,
        (
            (r"^stem\.", ""),
            (r"^res2\.", "layer1."),
            (r"^res3\.", "layer2."),
            (r"^res4\.", "layer3."),
            (r"^res5\.", "layer4."),
            (r"shortcut\.norm\.", "downsample.1."),
            (r"shortcut\.", "downsample.0."),
            (r"conv(\d)\.norm\.", r"bn\1."),
        ),
    ),
}

# What stands before the encoder's names, wrappers (state_dict, model, module) taken off, and the layout -> family.
# In the order of preference: a file of MoCo holds encoder_q and encoder_k, one of StT backbone and backbone_t.
_PLACES: tuple[tuple[str, str, str], ...] = (
    ("encoder.model.", "torchvision", "crw"),
    ("encoder.backbone.", "torchvision", "stfc3"),
    ("encoderVideo.", "inflated", "timecycle"),
    ("backbone.", "mmcv", "vfs"),
    ("encoder_q.", "torchvision", "moco"),
    ("encoder.", "torchvision", "simsiam"),
    ("teacher.backbone.", "torchvision", "dino"),
    ("backbone.", "torchvision", "detco"),
    ("encoder_q.0.", "torchvision", "detco"),
    ("", "detectron2", "detco"),
    ("", "torchvision", "torchvision"),
)


def recognise(
    tensors: Mapping[str, Tensor], family: str | None = None, *, file: str = "This file"
) -> Recognised | None:
    """Find a ResNet among a file's tensors, by the published names; None when there is none.

    Args:
        tensors: name in the file -> tensor.
        family: whose file it is, a key of FAMILIES; None reads it off the keys.
        file: how an error calls it.

    Errors: UsageError for an unknown family; RetraceError for a ResNet of a depth that Retrace does not build, and for
    a file that may be of two families with different settings.
    """
    if family is not None and family not in FAMILIES:
        raise UsageError(f"as={family} is no family of checkpoints; expected one of {', '.join(FAMILIES)}.")
    found = _places(tensors)
    if not found:
        return None
    prefix, layout = found[0]
    chosen = FAMILIES[family or _family(tensors, prefix, layout, file)]
    state: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    for key in tensors:
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and re.match(r"(conv1|bn1|layer\d|stem|res\d)\.", name):
            for pattern, replacement in _LAYOUTS[layout][2]:
                name = re.sub(pattern, replacement, name)
            state[name], sources[name] = _flat(tensors[key]), key
    config = replace(_shape(state, file), **chosen.settings)
    reducing = next((key for key in tensors if _place(key) == "afterconv1.weight"), None)
    if chosen.name == "timecycle" and reducing is not None:
        state["reduction.weight"], sources["reduction.weight"] = _flat(tensors[reducing]), reducing
        config = replace(config, reduction=len(tensors[reducing]))
    head = _projector(tensors) if chosen.name == "stfc3" else {}
    used = set(sources.values())
    rest = tuple(key for key in tensors if key not in used)
    return Recognised(chosen, config, state, sources, rest, head)


def _places(tensors: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """(prefix in the file, layout) of every ResNet, the preferred one first."""
    found = [
        (key.removesuffix(stem), layout)
        for layout, (stem, dimensions, _) in _LAYOUTS.items()
        for key, tensor in tensors.items()
        if (key == stem or key.endswith(f".{stem}"))
        and tensor.dim() == dimensions
        and tensor.shape[-2:] == (7, 7)
        and not key.endswith(f"stem.{stem}")
    ]
    order = [(prefix, layout) for prefix, layout, _ in _PLACES]

    def rank(place: tuple[str, str]) -> tuple[int, bool, int]:
        known = (_place(place[0]), place[1])
        copied = re.search(r"target|momentum|teacher|ema", place[0]) is not None  # BYOL: online before target
        return (order.index(known) if known in order else len(order), copied, len(place[0]))

    return sorted(found, key=rank)


def _place(key: str) -> str:
    """A key without the wrappers that checkpoints and parallel training put in front."""
    return re.sub(r"^((state_dict|model|module)\.)+", "", key.replace(".module.", "."))


def _family(tensors: Mapping[str, Tensor], prefix: str, layout: str, file: str) -> str:
    known = {(place, its): name for place, its, name in _PLACES}
    name = known.get((_place(prefix), layout), "torchvision")
    if layout != "mmcv":
        return name
    if any(_place(key).startswith("backbone_t.") for key in tensors):
        return "stt"
    if any(_place(key).startswith("img_head.") for key in tensors):
        return "vfs"
    raise RetraceError(
        f"{file} holds a ResNet under mmcv's names, of VFS (RGB) or of Spatial-then-Temporal (Lab), and its keys do "
        "not tell which: no img_head, no backbone_t. Add ,as=vfs or ,as=stt or ,as=stt-stride4 to its name."
    )


def _flat(tensor: Tensor) -> Tensor:
    """A 3D convolution of length 1 in time (o, i, 1, h, w) as the 2D one that it is."""
    return tensor.squeeze(2) if tensor.dim() == 5 and tensor.shape[2] == 1 else tensor


def _shape(state: Mapping[str, Tensor], file: str) -> EncoderConfig:
    """Architecture, width and cut, as far as names and shapes tell; stride 8."""
    counts = []
    for layer in LAYERS:
        blocks = {key.split(".")[1] for key in state if key.startswith(f"{layer}.")}
        if not blocks:
            break
        counts.append(len(blocks))
    deep = "layer1.0.conv3.weight" in state
    for architecture, (block, depths) in DEPTHS.items():
        fits = all(count <= depth for count, depth in zip(counts, depths, strict=False))
        if (
            counts and (block is Bottleneck) == deep and fits
        ):  # what is missing in it is told when it is loaded
            cut = LAYERS[min(len(counts), 3) - 1]
            return EncoderConfig(architecture, width=state["conv1.weight"].shape[0] / 64, cut=cut)
    kind = "bottleneck" if deep else "basic"
    raise RetraceError(
        f"{file} holds a ResNet of {', '.join(map(str, counts)) or 'no'} {kind} blocks per layer; Retrace builds "
        f"{', '.join(f'{name} ({blocks})' for name, (_, blocks) in DEPTHS.items())}. Give one of those."
    )


_PROJECTOR: dict[str, Callable[[str], bool]] = {
    "proj1": lambda name: name.startswith("conv1d_0_"),
    "projbn": lambda name: name == "bn_0",
    "proj2": lambda name: name.startswith("conv1d_1_"),
}


def _projector(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """STFC3's projector under the names of `heads.Projector`."""
    head = {}
    for key, tensor in tensors.items():
        place = _place(key)
        if place.startswith("encoder.projector."):
            _, _, module, name = place.split(".")
            ours = next((our for our, fits in _PROJECTOR.items() if fits(module)), None)
            if ours is not None:
                head[f"{ours}.{name}"] = tensor
    return head
