"""The linear probe: a classifier on the mean of a frozen encoder's map, as MoCo introduced it and VFS's Table 5 has it.

Settings: Xu and Wang (VFS), ICCV 2021, section 4.3 and released code: SGD 30, momentum 0.9, no weight decay, batches of
256, 100 epochs, a tenth of the rate at 60 and at 80, weights from N(0, 0.01). Pictures as everywhere on ImageNet:
random resized crops of 224 pixels, mirrored or not, to learn from; the middle 224 of a short side of 256 to be judged
by.

Ours alone: `crops="centre"` learns from the crops that it is judged by, so that features are computed once for all
epochs.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from retrace.encoders import Model
from retrace.errors import RetraceError
from retrace.files import atomic_path, open_image
from retrace.threads import ahead
from retrace.video.transforms import random_resized_box

log = logging.getLogger(__name__)

SIZE, SHORT_SIDE = 224, 256
"""Pixels of a crop, and of the short side that the middle crop is cut from."""
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
"""Of random crops: share of the picture's area, width / height."""


@dataclass(frozen=True)
class LinearProbeConfig:
    """How the classifier is trained; the defaults are VFS's.

    Attributes:
        epochs: times that every picture is seen.
        lr: learning rate of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        batch_size: pictures per step.
        drops: shares of the epochs after which the rate falls.
        drop_factor: what it is multiplied with then.
        crops: "random" resized ones, or "centre".
        seed: of the initial weights, the order of pictures and their crops.
    """

    epochs: int = 100
    lr: float = 30.0
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 256
    drops: tuple[float, ...] = (0.6, 0.8)
    drop_factor: float = 0.1
    crops: str = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        """Errors: ValueError naming the field, what it was and what it may be."""
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                f"epochs is {self.epochs}, batch_size {self.batch_size}; expected at least 1 of each"
            )
        if self.crops not in ("random", "centre"):
            raise ValueError(f"crops is {self.crops!r}; expected random or centre")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr is {self.lr}; expected a number above 0")

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, from 0."""
        return self.lr * self.drop_factor ** sum(epoch >= share * self.epochs for share in self.drops)


PROTOCOLS: dict[str, LinearProbeConfig] = {"vfs": LinearProbeConfig()}
"""Named settings: VFS's (Table 5)."""


def centre_crop(image: Image.Image) -> NDArray[np.uint8]:
    """The middle SIZE x SIZE of a picture whose short side is brought to SHORT_SIDE; (SIZE, SIZE, 3) RGB."""
    scale = SHORT_SIDE / min(image.size)
    width, height = (max(SHORT_SIDE, int(side * scale)) for side in image.size)
    left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
    small = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(small.crop((left, top, left + SIZE, top + SIZE)), dtype=np.uint8)


def random_crop(image: Image.Image, generator: torch.Generator) -> NDArray[np.uint8]:
    """A random resized crop, mirrored half of the time; (SIZE, SIZE, 3) RGB."""
    x, y, w, h = random_resized_box(image.height, image.width, AREA, RATIO, generator)
    part = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=(x, y, x + w, y + h))
    pixels = np.asarray(part, dtype=np.uint8)
    return pixels[:, ::-1] if float(torch.rand((), generator=generator)) < 0.5 else pixels


class Pooled:
    """The mean of an encoder's map over its cells, of pictures in files, which several threads decode.

    Args:
        model: the encoder.
        device: where it works.
        dtype: of its weights.
    """

    def __init__(self, model: Model, device: str, dtype: torch.dtype) -> None:
        """See the class."""
        self.name = model.name
        self.channels = model.channels
        self.device = torch.device(device)
        self._model = model.to(device, dtype)

    def batches(
        self,
        files: Sequence[Path],
        batch_size: int,
        cut: Callable[[Image.Image, int], NDArray[np.uint8]] = lambda image, _: centre_crop(image),
    ) -> Iterator[tuple[list[int], Tensor, dict[int, str]]]:
        """Features, batch by batch, the next one decoded meanwhile.

        Args:
            files: pictures.
            batch_size: of them at a time.
            cut: picture and its place in `files` -> pixels (SIZE, SIZE, 3).

        Yields: places in `files`; features (n, C) float32 of those; place -> why a picture could not be read.
        """

        def read(place: int) -> NDArray[np.uint8] | str:
            try:
                return cut(open_image(files[place], "picture"), place)
            except RetraceError as error:
                return str(error)

        def decoded(pool: ThreadPoolExecutor) -> Iterator[tuple[range, list[NDArray[np.uint8] | str]]]:
            for begin in range(0, len(files), batch_size):
                places = range(begin, min(begin + batch_size, len(files)))
                yield places, list(pool.map(read, places))

        with (
            ThreadPoolExecutor(os.cpu_count() or 1) as pool,
            closing(cast(Any, ahead(decoded(pool), depth=2))) as ready,
        ):
            for (places, found), _ in ready:
                there = [place for place, one in zip(places, found, strict=True) if not isinstance(one, str)]
                bad = {place: one for place, one in zip(places, found, strict=True) if isinstance(one, str)}
                pixels = [one for one in found if not isinstance(one, str)]
                yield there, self._features(pixels), bad

    def _features(self, pixels: list[NDArray[np.uint8]]) -> Tensor:
        if not pixels:
            return torch.zeros(0, self.channels, device=self.device)
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)  # (n, 3, SIZE, SIZE)
        maps = self._model.features(images.to(self.device))  # (n, C, h, w)
        return maps.float().mean((-2, -1))  # (n, C)


@dataclass(frozen=True)
class Classifier:
    """A trained linear probe.

    Attributes:
        features: of the encoder.
        classes: names, in the order of the logits.
        weight: (classes, C) float32.
        bias: (classes,) float32.
    """

    features: Pooled
    classes: tuple[str, ...]
    weight: Tensor
    bias: Tensor

    @classmethod
    def read(cls, path: Path, features: Pooled) -> "Classifier":
        """The classifier that `train` left. Errors: RetraceError when it is not there or damaged."""
        found = _read(path)
        if found is None:
            raise RetraceError(f"{path} is no classifier that can be read. Delete it and run again.")
        tensors, head = found
        place = features.device
        return cls(features, tuple(head["classes"]), tensors["weight"].to(place), tensors["bias"].to(place))

    def logits(self, files: Sequence[Path], batch_size: int = 64) -> NDArray[np.float32]:
        """Of pictures, by their middle crop.

        Returns: (n, classes).

        Errors: RetraceError naming a picture that cannot be read.
        """
        rows = []
        for _, features, bad in self.features.batches(files, batch_size):
            for why in bad.values():
                raise RetraceError(why)
            rows.append(F.linear(features, self.weight, self.bias).cpu().numpy())
        return np.concatenate(rows)


def train(
    features: Pooled,
    config: LinearProbeConfig,
    pictures: Sequence[tuple[Path, int]],
    classes: Sequence[str],
    path: Path,
    fingerprint: str,
) -> dict[str, str]:
    """Train the classifier, or go on where an earlier call was stopped; the state is kept after every epoch.

    Args:
        features: of the frozen encoder.
        config: how.
        pictures: files and the numbers of their classes.
        classes: names.
        path: of the file (.safetensors) that holds the classifier, and until it is done the state of SGD.
        fingerprint: whatever decides the result; a file of another one is begun anew.

    Returns: file -> why it could not be read and was left out.

    Errors: RetraceError when not one picture can be read, or the loss is not a number.
    """
    layer = _layer(features.channels, len(classes), config.seed).to(features.device)
    optimiser = torch.optim.SGD(
        layer.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    found = _read(path)
    begin, left_out = 0, {}
    if found is not None and found[1].get("fingerprint") == fingerprint:
        tensors, head = found
        begin, left_out = int(head["epochs"]), dict(head["left_out"])
        layer.load_state_dict({name: tensors[name] for name in ("weight", "bias")})
        for name, parameter in layer.named_parameters():
            if config.momentum and f"momentum.{name}" in tensors:
                moving = tensors[f"momentum.{name}"].to(features.device)
                optimiser.state[parameter]["momentum_buffer"] = moving
    once: tuple[Tensor, Tensor] | None = None
    labels = torch.tensor([label for _, label in pictures], device=features.device)
    for epoch in range(begin, config.epochs):
        for group in optimiser.param_groups:
            group["lr"] = config.rate(epoch)
        order = torch.randperm(len(pictures), generator=_generator(config.seed, epoch)).tolist()
        if config.crops == "centre":
            if once is None:
                once = _once(features, [file for file, _ in pictures], left_out)
            kept = [place for place in order if bool(once[1][place])]
            batches = _held(once[0], kept, labels, config.batch_size)
        else:
            batches = _fresh(features, config, pictures, labels, order, epoch, left_out)
        losses = []
        for inputs, targets in batches:
            loss = F.cross_entropy(layer(inputs), targets)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.detach())
        mean = float(torch.stack(losses).mean()) if losses else math.nan
        if not losses:
            why = next(iter(left_out.values()), "there is none")
            raise RetraceError(f"Not one picture to train the classifier with can be read: {why}")
        if not math.isfinite(mean):
            raise RetraceError(
                f"The classifier's loss is {mean} in epoch {epoch + 1}: its rate of {config.lr:g} is too large for the "
                f"features of {features.name}. Take a smaller one, lr={config.lr / 100:g}."
            )
        log.info("linear probe: epoch %d of %d, loss %.4f", epoch + 1, config.epochs, mean)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in layer.named_parameters()}
        if epoch + 1 < config.epochs:
            for name, parameter in layer.named_parameters():
                moving = optimiser.state[parameter].get("momentum_buffer")
                if moving is not None:
                    tensors[f"momentum.{name}"] = moving.cpu().contiguous()
        head = {
            "fingerprint": fingerprint,
            "classes": list(classes),
            "epochs": epoch + 1,
            "left_out": left_out,
        }
        with atomic_path(path) as temporary:
            temporary.write_bytes(safetensors.torch.save(tensors, {"retrace linear probe": json.dumps(head)}))
    return left_out


def digest(fingerprint: Any) -> str:
    """A short text for whatever decides a result."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()


def _layer(channels: int, classes: int, seed: int) -> nn.Linear:
    layer = nn.Linear(channels, classes)
    nn.init.normal_(layer.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(layer.bias)
    return layer


def _fresh(
    features: Pooled,
    config: LinearProbeConfig,
    pictures: Sequence[tuple[Path, int]],
    labels: Tensor,
    order: list[int],
    epoch: int,
    left_out: dict[str, str],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of an epoch with crops of their own; what cannot be read goes to `left_out`."""

    def cut(image: Image.Image, place: int) -> NDArray[np.uint8]:
        return random_crop(image, _generator(config.seed, epoch, order[place]))

    files = [pictures[index][0] for index in order]
    for places, inputs, bad in features.batches(files, config.batch_size, cut):
        left_out.update({str(files[place]): why for place, why in bad.items()})
        if places:
            yield inputs, labels[[order[place] for place in places]]


def _held(table: Tensor, kept: list[int], labels: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of features that are there already."""
    for begin in range(0, len(kept), batch_size):
        places = kept[begin : begin + batch_size]
        yield table[places].to(labels.device), labels[places]


def _once(features: Pooled, files: list[Path], left_out: dict[str, str]) -> tuple[Tensor, Tensor]:
    """Features (N, C) of all middle crops, in main memory, and which pictures (N,) could be read."""
    table = torch.zeros(len(files), features.channels)
    there = torch.zeros(len(files), dtype=torch.bool)
    for places, found, bad in features.batches(files, 64):
        left_out.update({str(files[place]): why for place, why in bad.items()})
        table[places], there[places] = found.cpu(), True
    return table, there


def _generator(*numbers: int) -> torch.Generator:
    """Randomness of (seed, epoch) or (seed, epoch, picture)."""
    state = np.random.SeedSequence(numbers).generate_state(1, dtype=np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and head of a file of `train`; None where there is none that is whole."""
    try:
        with safe_open(path, "pt") as file:
            head = json.loads(file.metadata()["retrace linear probe"])
            return {name: file.get_tensor(name) for name in file.keys()}, head
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None  # missing, cut off or of somebody else: all mean that training begins anew
