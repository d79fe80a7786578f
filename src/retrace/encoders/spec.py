"""What a person writes after `--model`: a name or a path, and options behind commas.

    vfs_r18.pth,cut=layer2,stride=4
    random:resnet18,width=0.5
    timm:vit_small_patch16_224.dino,cut=9

Commas, because no shell gives them a meaning; a list is written with slashes, `strides=1/2/1/1`.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retrace.encoders.colour import COLOURS
from retrace.encoders.config import EncoderConfig
from retrace.encoders.model import Model
from retrace.encoders.resnet import LAYERS
from retrace.errors import UsageError

_OPTIONS = re.compile(r"(?:,[A-Za-z_]+=[^,]*)+$")


@dataclass(frozen=True)
class Spec:
    """A parsed model specification.

    Attributes:
        text: as it was given.
        base: the name or path.
        options: name -> text.
    """

    text: str
    base: str
    options: dict[str, str]

    def allow(self, *names: str) -> None:
        """Refuse options that mean nothing here.

        Errors: UsageError naming the first of them and what may be given.
        """
        wrong = [name for name in self.options if name not in names]
        if wrong:
            raise UsageError(
                f"Model {self.text!r} has the option {wrong[0]!r}; {self.base} takes "
                f"{', '.join(names) or 'no options'}."
            )

    def read(self, name: str, kind: type[Any]) -> Any:
        """The value of an option as int, float, bool, str or a tuple of floats (`tuple`).

        Errors: UsageError for text that is none.
        """
        text = self.options[name]
        try:
            if kind is tuple:
                return tuple(float(part) for part in text.split("/"))
            if kind is bool:
                return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
            return kind(text)
        except (ValueError, KeyError):
            expected = {
                int: "a whole number",
                float: "a number",
                bool: "true or false",
                tuple: "numbers with slashes between them, as 1/2/1/1",
            }[kind]
            raise UsageError(f"Model {self.text!r}: {name} is {text!r}; expected {expected}.") from None


def parse(spec: str | Path) -> Spec:
    """Split a specification into its base and its options; an existing file of that very name has none."""
    text = str(spec)
    found = None if Path(text).is_file() else _OPTIONS.search(text)
    if found is None:
        return Spec(text, text, {})
    pairs = (part.split("=", 1) for part in found[0][1:].split(","))
    return Spec(text, text[: found.start()], {key: value for key, value in pairs})


NETWORK: dict[str, type[Any]] = {
    "cut": str,
    "strides": tuple,
    "dilations": tuple,
    "padding_mode": str,
    "stem_pool": bool,
    "pool": str,
}
INPUT = ("mean", "std", "colour")


def encoder_options(spec: Spec, config: EncoderConfig, *, width: bool = False) -> EncoderConfig:
    """A ResNet with the options of a specification: fields of EncoderConfig, and `stride` for the whole encoder.

    Args:
        spec: whose options are used.
        config: without them.
        width: whether the width may be chosen (weights that are there fix it).

    Errors: UsageError for a value that cannot be built.
    """
    given = {name: spec.read(name, kind) for name, kind in NETWORK.items() if name in spec.options}
    if width and "width" in spec.options:
        given["width"] = spec.read("width", float)
    for name in ("strides", "dilations"):
        if name in given:
            given[name] = tuple(int(value) for value in given[name])
    config = replace(config.ending(given.pop("cut", None)), **given)
    if "stride" in spec.options:
        config = replace(config, strides=_strides(spec, config))
    if not 0 < config.width <= 8:
        raise UsageError(
            f"Model {spec.text!r}: width is {config.width:g}; expected a factor above 0, up to 8."
        )
    try:
        config.check()
    except ValueError as error:
        raise UsageError(f"Model {spec.text!r} cannot be built: {error}.") from error
    return config


def _strides(spec: Spec, config: EncoderConfig) -> tuple[int, int, int, int]:
    """Strides that make the map have the wanted one: the earliest of layer2 to the cut go by 2."""
    wanted = spec.read("stride", int)
    layers = LAYERS.index(config.cut) if config.cut in LAYERS else len(LAYERS) - 1
    stem = 4 if config.stem_pool else 2
    for halvings in range(layers + 1):
        if stem * 2**halvings == wanted:
            rest = [2] * halvings + [1] * (3 - halvings)
            return 1, rest[0], rest[1], rest[2]
    possible = ", ".join(str(stem * 2**halvings) for halvings in range(layers + 1))
    raise UsageError(
        f"Model {spec.text!r}: stride is {wanted}; up to {config.cut} it can be {possible}. Say which, or cut later."
    )


def input_options(spec: Spec, model: Model) -> Model:
    """A model with another normalisation or colour where the specification says so.

    Errors: UsageError for anything but three numbers, a deviation that is not above 0, or an unknown colour.
    """
    given: dict[str, Any] = {}
    for name in ("mean", "std"):
        if name in spec.options:
            given[name] = spec.read(name, tuple)
            if len(given[name]) != 3 or (name == "std" and min(given[name]) <= 0):
                raise UsageError(
                    f"Model {spec.text!r}: {name} is {spec.options[name]!r}; expected three numbers"
                    f"{' above 0' if name == 'std' else ''}, as 0.5/0.5/0.5."
                )
    if "colour" in spec.options:
        given["colour"] = spec.options["colour"]
        if given["colour"] not in COLOURS:
            raise UsageError(
                f"Model {spec.text!r}: colour is {given['colour']!r}; expected one of {', '.join(COLOURS)}."
            )
        mean, std = COLOURS[given["colour"]]
        given = {"mean": mean, "std": std} | given
    return replace(model, **given)
