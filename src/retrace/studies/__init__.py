"""Studies: the papers' experiments at a size that a laptop can carry.

A study is a YAML file beside this one: what a paper found, the arms that are compared, what is measured, the figure,
and the settings of each size. All of it is fixed before a seed is run. `retrace.verbs.study` trains, measures, draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from retrace.errors import UsageError, did_you_mean
from retrace.propagation.protocols import PROTOCOLS

MEASURES = ("scenes", "position", "affinity", "clips", "animals", "colours")
"""Groups of numbers that `verbs.study` can take of a model; the last three need real clips."""
FIGURES = ("shortcut", "dots", "lines")
SIZES = ("small", "gpu")


@dataclass(frozen=True)
class Column:
    """A number as tables and figures show it.

    Attributes:
        label: with its unit.
        higher_is_better: False for errors; None where neither is better.
        digits: after the point.
    """

    label: str
    higher_is_better: bool | None = True
    digits: int = 3


COLUMNS: dict[str, Column] = {
    "J": Column("J, masks"),
    "F": Column("F, outlines"),
    "PCK@0.1": Column("PCK@0.1, keypoints"),
    "box_IoU": Column("IoU, boxes"),
    "EPE": Column("EPE, flow (pixels)", higher_is_better=False, digits=2),
    "loss": Column("training loss at the end", higher_is_better=None, digits=2),
    "position_r2": Column("R² of the position read-out", higher_is_better=None),
    "stays_near": Column("stays in place, near frame", higher_is_better=None),
    "stays_unrelated": Column("stays in place, unrelated frame", higher_is_better=False),
    "clips_J": Column("J, masks, real clips"),
    "animals_PCK": Column("PCK@0.1, real animals"),
    "L1_5": Column("L1 of colours, 5 frames apart (levels)", higher_is_better=False, digits=1),
}
"""Every number a study can show, by its name in the results."""


@dataclass(frozen=True)
class Arm:
    """One of the things that are compared.

    Attributes:
        name: in results and file names.
        label: in tables and figures.
        recipe: what is trained, a name of `retrace train --list`; "" where `model` says what is measured.
        flags: dotted key of a recipe -> value, as `retrace train --key value` takes them; common ones are among them.
        untrained: measured with the random weights that training would begin with.
        model: a baseline or an encoder that exists ("copy", "flow:dis", "lab-patches", "default"); it has no seeds.
        run: another arm, whose training this one reads otherwise (`export_cut`, `export_strides`); "" trains its own.
        after: another arm, whose encoder this one begins with or is taught by: `$after` in a flag is its file.
        during: whether it is also measured while it trains.
        group: the line of a figure that it is on, or its colour.
        x: its place on a figure's axis.
    """

    name: str
    label: str
    recipe: str = ""
    flags: Mapping[str, Any] = field(default_factory=dict)
    untrained: bool = False
    model: str = ""
    run: str = ""
    after: str = ""
    during: bool = False
    group: str = ""
    x: float | None = None

    @property
    def trained(self) -> bool:
        """Whether seeds are trained for it."""
        return not (self.untrained or self.model)

    @property
    def words(self) -> tuple[str, ...]:
        """The flags as words of a command line."""
        return tuple(f"--{key}={_word(value)}" for key, value in self.flags.items())


@dataclass(frozen=True)
class Claim:
    """What the paper says of two arms, decided before anything is run.

    Attributes:
        says: in a few words.
        measure: key of `COLUMNS`.
        more: arm whose number is the higher one.
        less: arm whose number is the lower one.
    """

    says: str
    measure: str
    more: str
    less: str


@dataclass(frozen=True)
class Figure:
    """How results are drawn.

    Attributes:
        kind: one of `FIGURES`.
        columns: numbers that are drawn, a panel each.
        x_label: of "lines".
        log: whether the axis of "lines" is logarithmic.
        curve: column of metrics.csv that is the loss.
        pictures: arms whose affinities and features are shown.
    """

    kind: str
    columns: tuple[str, ...]
    x_label: str = ""
    log: bool = False
    curve: str = "loss"
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A study at one size.

    Attributes:
        name: of its file.
        title: a line.
        where: the paper's tables and figures.
        found: what the paper found, in a sentence.
        setting: what is other than in the paper, in a sentence or two.
        size: one of `SIZES`.
        arms: what is compared.
        measures: groups of numbers, of `MEASURES`.
        columns: numbers of the table, of `COLUMNS`.
        claims: what the paper lets one expect.
        figure: how it is drawn.
        during: steps between the measurements of arms that are measured while they train.
        protocol: by which labels are carried through generated scenes, at plain detail.
    """

    name: str
    title: str
    where: str
    found: str
    setting: str
    size: str
    arms: tuple[Arm, ...]
    measures: tuple[str, ...]
    columns: tuple[str, ...]
    claims: tuple[Claim, ...]
    figure: Figure
    during: int = 0
    protocol: str = "default"

    def arm(self, name: str) -> Arm:
        """An arm by its name. Errors: UsageError when there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        known = [arm.name for arm in self.arms]
        raise UsageError(
            f"Study {self.name} has no arm {name!r}{did_you_mean(name, known)}; it has {', '.join(known)}."
        )


def names() -> dict[str, str]:
    """Name -> title of every packaged study."""
    found = {}
    for entry in sorted(resources.files(__name__).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            found[entry.name.removesuffix(".yaml")] = str(yaml.safe_load(entry.read_text("utf-8"))["title"])
    return found


def load(study: str, size: str = "small") -> Study:
    """A study: the name of a packaged one, or the path of a YAML file like those.

    Errors: UsageError for a study or size that does not exist, and a file that is none, naming the key.
    """
    path = Path(study)
    if not path.is_file():
        known = names()
        if study not in known:
            raise UsageError(
                f"There is no study {study!r}{did_you_mean(study, known)}: no such file, and the packaged ones are "
                f"{', '.join(known)}."
            )
        path = Path(str(resources.files(__name__) / f"{study}.yaml"))
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"Study {path} is not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise UsageError(f"Study {path} holds no keys; see the packaged ones for what a study is.")
    try:
        return _study(path.stem, content, size)
    except ValueError as error:
        raise UsageError(f"Study {path}: {error}.") from error


def _study(name: str, content: dict[str, Any], size: str) -> Study:
    """From what a YAML holds. Errors: ValueError."""
    _known(content, {*_names_of(Study), "sizes"} - {"name", "size"}, "")
    sizes = content.get("sizes", {})
    if size not in sizes:
        raise ValueError(f"there is no size {size!r}; it has {', '.join(map(str, sizes)) or 'none'}")
    at = sizes[size]
    _known(at, {"flags", "arms", "during"}, f"sizes.{size}.")
    own = at.get("arms", {})
    given = content.get("arms", [])
    for arm in own:
        if arm not in {entry.get("name") for entry in given}:
            raise ValueError(f"sizes.{size}.arms.{arm} is no arm")
    arms = tuple(_arm(entry, at.get("flags", {}), own.get(entry.get("name"), {})) for entry in given)
    called = [arm.name for arm in arms]
    if not called or len(set(called)) < len(called):
        raise ValueError("arms must be there, each with a name of its own")
    figure = _made(Figure, content.get("figure", {}), "figure.")
    study = Study(
        name=name,
        size=size,
        arms=arms,
        claims=tuple(_made(Claim, entry, "claims.") for entry in content.get("claims", [])),
        figure=figure,
        during=int(at.get("during", 0)),
        protocol=str(content.get("protocol", "default")),
        measures=tuple(content.get("measures", ())),
        columns=tuple(content.get("columns", ())),
        **{key: " ".join(str(content[key]).split()) for key in ("title", "where", "found", "setting")},
    )
    _check(study)
    return study


def _arm(entry: dict[str, Any], common: dict[str, Any], own: dict[str, Any]) -> Arm:
    _known(entry, _names_of(Arm), "arms.")
    arm = _made(Arm, entry, "arms.")
    flags = {} if arm.model else {**common, **arm.flags, **own}
    return Arm(**{**vars(arm), "flags": flags})


def _check(study: Study) -> None:
    """Whatever names something names what is there. Errors: ValueError."""
    arms = {arm.name: arm for arm in study.arms}
    for key, used, known in (
        ("measures", study.measures, MEASURES),
        ("columns", study.columns, COLUMNS),
        ("protocol", [study.protocol], PROTOCOLS),
        ("figure.kind", [study.figure.kind], FIGURES),
        ("figure.columns", study.figure.columns, COLUMNS),
        ("figure.pictures", study.figure.pictures, arms),
        ("claims.measure", [claim.measure for claim in study.claims], COLUMNS),
        ("claims.more", [claim.more for claim in study.claims], arms),
        ("claims.less", [claim.less for claim in study.claims], arms),
        ("arms.run", [arm.run for arm in study.arms if arm.run], arms),
        ("arms.after", [arm.after for arm in study.arms if arm.after], arms),
    ):
        for name in used:
            if name not in known:
                raise ValueError(
                    f"{key} names {name!r}{did_you_mean(name, known)}; there is {', '.join(known)}"
                )
    for arm in study.arms:
        if bool(arm.recipe) == bool(arm.model) and not arm.run:
            raise ValueError(f"arm {arm.name} needs either a recipe or a model")
        if arm.run and (not arms[arm.run].trained or arms[arm.run].run or arm.recipe or arm.model):
            raise ValueError(
                f"arm {arm.name}: run must name an arm that is trained, and nothing else is given"
            )
        if arm.after and (not arms[arm.after].trained or arms[arm.after].run or arms[arm.after].after):
            raise ValueError(f"arm {arm.name}: after must name an arm that is trained from random weights")
        if arm.during and not study.during:
            raise ValueError(
                f"arm {arm.name} is measured while it trains, but sizes.{study.size}.during is not given"
            )


def _names_of(kind: type) -> set[str]:
    return {entry.name for entry in fields(kind)}


def _made(kind: Any, entry: Any, where: str) -> Any:
    if not isinstance(entry, dict):
        raise ValueError(f"{where.rstrip('.')} is {entry!r}; expected keys with values")
    _known(entry, _names_of(kind), where)
    try:
        return kind(
            **{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
        )
    except TypeError as error:
        raise ValueError(f"{where.rstrip('.')}: {str(error).replace('__init__() ', '')}") from error


def _known(entry: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in entry:
        if key not in known:
            raise ValueError(f"there is no key {where}{key}{did_you_mean(str(key), known)}")


def _word(value: Any) -> str:
    """As a flag is written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_word, value))}]"
    return str(value)
