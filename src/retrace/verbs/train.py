"""Train an encoder from unlabelled video."""

import dataclasses
import json
import platform
import re
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jsonargparse import ArgumentParser

from retrace import __version__, encoders, recipes
from retrace.encoders import Model
from retrace.encoders.heads import take_over
from retrace.errors import RetraceError, UsageError, did_you_mean, one_line
from retrace.files import atomic_path, check_owner
from retrace.methods import METHODS
from retrace.training.checkpoints import LAST, read_checkpoint
from retrace.training.config import TrainConfig, check, flatten, is_saved_config, to_plain
from retrace.training.origin import commit
from retrace.verbs.probe import PropagationProbe
from retrace.video.loader import throughput

if TYPE_CHECKING:
    from retrace.training.processes import Place
    from retrace.training.run import FitResult

LOADER_SECONDS = 10.0  # how long the loader is measured alone


@dataclass(frozen=True)
class TrainReport:
    """What a call of `train` did.

    Attributes:
        out: folder of the run.
        step: optimiser steps done so far, of `steps`; less than `steps` when it was interrupted.
        resumed_from: step this call started at; 0 for a new run.
        interrupted: whether Ctrl-C or SIGTERM ended it early; the same call continues.
        metrics: means of the last logged interval of this call: loss, the method's terms, grad_norm, lr, clips_per_s,
            loader_wait (share of the wall time), peak_memory_mb, and the probe's scores.
        clips_per_s: of this call, wall time; None when there was nothing left to do.
        step_clips_per_s: of the step alone: waiting for the loader taken out.
        loader_clips_per_s: of the loader alone, where it was asked for.
        videos: footage videos trained on.
        broken: (path, reason) of footage that cannot be read at all.
        failures: video -> reason, of footage of which a clip could not be read; another clip took its place.
        files: what was written, by purpose.
    """

    out: str
    step: int
    steps: int
    resumed_from: int
    interrupted: bool
    metrics: dict[str, float]
    clips_per_s: float | None
    step_clips_per_s: float | None
    loader_clips_per_s: float | None
    videos: int
    broken: list[tuple[str, str]]
    failures: dict[str, str]
    files: dict[str, str]


class RecipeParser(ArgumentParser):
    """Understands a recipe (by name or path) followed by flags that change single keys."""

    def __init__(self, **settings: Any) -> None:
        """Errors in what is parsed are UsageErrors."""
        super().__init__(exit_on_error=False, **settings)
        self.add_argument(
            "recipe", nargs="?", help="name of a packaged recipe (see --list) or path of a YAML file"
        )
        self.add_argument("--config", action="config", help="another YAML file with keys to change")
        self.add_argument(
            "--data",
            nargs="+",
            default=[],
            metavar="PATH",
            help="footage: videos, folders of videos or of frames, list files; default: $RETRACE_DATA",
        )
        self.add_class_arguments(TrainConfig, None, skip={"data"})

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **settings: Any) -> Any:  # type: ignore[override]
        """Parse; the recipe is read first, so that flags win wherever they stand.

        Errors: UsageError naming the key.
        """
        words = list(args or [])
        try:
            first = super().parse_args(words, *rest, **settings)
            if first.recipe is None:
                return first
            recipe = recipes.find(first.recipe)
            recipes.check(recipe, sections=_SECTIONS)
            return super().parse_args(["--config", str(recipe), *_unset_rivals(words)], *rest, **settings)
        except (ArgumentError, ValueError, TypeError) as error:
            reason = one_line(str(error))
            unknown = _unknown_key(reason)
            if unknown is not None:
                hint = did_you_mean(unknown, [*flatten(TrainConfig()), *_FLAGS])
                reason = f"There is no key {unknown}{hint}"
            raise UsageError(
                f"{reason}. `retrace train --help` lists every key, `retrace train --list` the recipes."
            ) from error


_FLAGS = (
    "data",
    "config",
    "overwrite",
    "measure-loader",
    "json",
    "quiet",
    "list",
)  # and the keys of TrainConfig


def _unknown_key(reason: str) -> str | None:
    """The key that jsonargparse does not know, of its sentence; None where that is about something else."""
    for pattern in (
        r"unrecognized arguments: --([\w.-]+)",
        r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.]+)'",
        r"Option '([\w.]+)' is not accepted",
    ):
        found = re.search(pattern, reason)
        if found is not None:
            return ".".join(found.groups())
    return None


_SECTIONS = [
    field.name for field in dataclasses.fields(TrainConfig) if dataclasses.is_dataclass(field.default)
]

# A recipe says one of each pair; a flag that says the other takes its place.
_RIVALS = {
    "--steps": "--epochs",
    "--epochs": "--steps",
    "--clips.fps": "--clips.stride",
    "--clips.stride": "--clips.fps",
}


def _unset_rivals(words: Sequence[str]) -> list[str]:
    named = {word.split("=")[0] for word in words}
    unset = [f"{_RIVALS[flag]}=null" for flag in _RIVALS if flag in named and _RIVALS[flag] not in named]
    return [*unset, *words]


def config_of(parsed: Any) -> TrainConfig:
    """The configuration in what `RecipeParser.parse_args` returned.

    Errors: UsageError for a value that the method or the encoder refuses.
    """
    values = parsed.as_dict()
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig, "run", skip={"data"})
    chosen = {name: value for name, value in values.items() if name in names and name != "data"}
    try:
        config = parser.instantiate(parser.parse_object({"run": chosen})).run
    except (ArgumentError, ValueError, TypeError) as error:
        raise UsageError(f"{one_line(str(error))}.") from error
    assert isinstance(config, TrainConfig)
    return dataclasses.replace(config, data=tuple(values["data"]))


def load_config(recipe: str, *flags: str) -> TrainConfig:
    """Read a recipe and flags as on the command line, such as ("stfc3-laptop", "--steps=100").

    Errors: UsageError for an unknown recipe, key or value.
    """
    return config_of(RecipeParser().parse_args([recipe, *flags]))


def train(
    config: TrainConfig,
    *,
    recipe: str = "",
    overwrite: bool = False,
    measure_loader: bool = False,
    progress: bool = True,
) -> TrainReport:
    """Train, or continue the run in `config.out`.

    Args:
        config: the run; see `load_config`.
        recipe: its name, for the card.
        overwrite: delete the run in `config.out` first.
        measure_loader: also measure the loader alone, before training.
        progress: draw a progress bar on stderr.

    Writes into `config.out`: config.yaml (resolved), metrics.csv, last.ckpt, checkpoints/, tensorboard/; at the end
    encoder.safetensors (the encoder with its card) and summary.json.

    Errors: UsageError for a configuration that cannot be run or differs from the run in the folder; RetraceError when
    training fails.
    """
    check(config)
    from retrace.training import processes

    here = processes.place()
    device = processes.own_device(config.device, here)
    with processes.joined(device):
        return _train(config, recipe, overwrite, measure_loader, progress, here, device)


def _train(
    config: TrainConfig,
    recipe: str,
    overwrite: bool,
    measure_loader: bool,
    progress: bool,
    here: "Place",
    device: torch.device,
) -> TrainReport:
    """`train`, in one of the processes of the run."""
    check_owner(Path(config.out), lambda names: _is_a_run(Path(config.out), names), "train")
    from retrace.training import data as training_data
    from retrace.training.processes import first_one_first
    from retrace.training.run import check_processes, fit  # Lightning takes seconds; --help goes without

    check_processes(config, here)

    torch.manual_seed(config.seed)
    try:
        encoder = config.encoder.build()
    except ValueError as error:
        raise UsageError(f"encoder: {error}.") from error
    begun = None
    if config.init is not None:
        begun = encoders.begin(config.init, config.encoder, _colour(config))
    if begun is not None:
        encoder.load_state_dict(begun.encoder.state_dict())
    began_with = commit()
    with first_one_first(here):  # it leaves an index of the footage for the others
        data = training_data.build(config, progress=progress and here.rank == 0)
    config = training_data.resolve_steps(config, data)
    assert config.steps is not None
    try:
        method = METHODS[config.method].module(encoder, config.method_config)
    except ValueError as error:
        raise UsageError(f"{config.method}: {error}.") from error
    head = getattr(method, "head", None)
    if begun is not None and isinstance(head, torch.nn.Module):
        take_over(head, begun.head)
    alone = None
    if measure_loader:
        alone = throughput(data.dataset, workers=config.workers, seconds=LOADER_SECONDS).clips_per_second

    def exported(state: Mapping[str, torch.Tensor]) -> Model:
        return make_model(config, recipe, "", 0, state, {}, {}, None)

    result = fit(
        method,
        data.dataset,
        config,
        data_id=data.identity,
        overwrite=overwrite,
        progress=progress,
        measure=PropagationProbe(exported, device),
    )
    out = Path(config.out)
    files = {
        "config": str(out / "config.yaml"),
        "curves": str(out / "metrics.csv"),
        "checkpoint": str(out / "last.ckpt"),
    }
    if not result.interrupted and here.rank == 0:
        files["encoder"] = str(out / "encoder.safetensors")
        export(config, recipe, data.description, result, out / "encoder.safetensors", began_with)
        files["summary"] = str(out / "summary.json")
    report = TrainReport(
        out=config.out,
        step=result.step,
        steps=result.steps,
        resumed_from=result.resumed_from,
        interrupted=result.interrupted,
        metrics=result.last,
        clips_per_s=result.clips / result.seconds if result.clips else None,
        step_clips_per_s=result.step_clips_per_s,
        loader_clips_per_s=alone,
        videos=data.videos,
        broken=data.broken,
        failures=result.failures,
        files=files,
    )
    if "summary" in files:
        with atomic_path(files["summary"]) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(report), indent=2) + "\n")
    return report


def _is_a_run(out: Path, names: set[str]) -> bool:
    """Whether a folder with these names is a run's; a run that ended early may have written its first file only."""
    return bool(names & {LAST, "footage.json"}) or (
        "config.yaml" in names and is_saved_config(out / "config.yaml")
    )


def export(
    config: TrainConfig, recipe: str, data: str, result: "FitResult", path: Path, trained_by: str | None
) -> None:
    """Write the trained encoder with its card: how it came to be, in plain values."""
    state = result.module.export_encoder().state_dict()
    head = getattr(result.module.method, "head", None)
    tensors = head.state_dict() if isinstance(head, torch.nn.Module) else {}
    metrics = {name: value for name, value in result.last.items() if name not in _SPEED}
    encoders.save(make_model(config, recipe, data, result.step, state, tensors, metrics, trained_by), path)


def export_run(run: str | Path, path: str | Path, *, half: bool = False) -> Model:
    """Write the encoder of a run as it stands at its last checkpoint, finished or not.

    Args:
        run: folder that `retrace train` wrote.
        path: .safetensors to write; its card says at which step the run stood.
        half: store the weights in float16.

    Returns: the model that was written.

    Errors: RetraceError for a folder without a run, and an output that cannot be written.
    """
    run = Path(run)
    missing = [name for name in ("config.yaml", LAST) if not (run / name).is_file()]
    if missing:
        raise RetraceError(f"{run} has no {missing[0]}; give the folder (--out) of a `retrace train` run.")
    config = load_config(str(run / "config.yaml"))
    content = read_checkpoint(run / LAST)
    data = f"footage from {len(config.data)} sources" if config.data else ""
    synthetic = "generated scenes" if config.clips.synthetic_weight > 0 else ""
    model = make_model(
        config,
        run.name,
        " and ".join(part for part in (data, synthetic) if part),
        int(content["global_step"]),
        encoder_state(config, content),
        _below("method.head.", content["state_dict"]),
        {},
        content["retrace"].get("commit"),
    )
    encoders.save(model, path, half=half)
    return model


def encoder_state(config: TrainConfig, checkpoint: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of the encoder that would be exported, of what `read_checkpoint` returned."""
    return _below("averaged." if config.ema > 0 else "method.encoder.", checkpoint["state_dict"])


def _below(prefix: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def make_model(
    config: TrainConfig,
    recipe: str,
    data: str,
    step: int,
    state: Mapping[str, torch.Tensor],
    head: Mapping[str, torch.Tensor],
    metrics: Mapping[str, float],
    trained_by: str | None,
) -> Model:
    """The trained encoder with its card: how it came to be, in plain values."""
    kept = config.encoder.ending(config.export_cut, config.export_strides)
    card = {
        "method": config.method,
        "recipe": recipe,
        "config": to_plain(_without_paths(config)),
        "data": data,
        "seed": config.seed,
        "steps": step,
        "metrics": dict(metrics),
        "averaged": config.ema > 0,
        "commit": trained_by,
        "versions": {"retrace": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    model = encoders.from_state_dict(kept, state, name=recipe or config.method, card=card, head=head)
    return encoders.with_colour(model, _colour(config))


def _colour(config: TrainConfig) -> str:
    """What the method shows its encoder."""
    return getattr(METHODS[config.method].module, "colour", "rgb")


_SPEED = {"clips_per_s", "loader_wait", "peak_memory_mb"}  # of the machine, not of the encoder


def _without_paths(config: TrainConfig) -> TrainConfig:
    """What a card may carry: nothing about the machine. Of a path that something was read from, its last name."""
    init = Path(config.init).name if config.init is not None else None
    section: Any = config.method_config
    paths = {
        field.name: Path(value).name
        for field in dataclasses.fields(section)
        if isinstance(value := getattr(section, field.name), str) and Path(value).name != value and value
    }
    config = dataclasses.replace(
        config, data=(), out="", init=init, clips=dataclasses.replace(config.clips, cache=None)
    )
    return dataclasses.replace(config, **{config.method: dataclasses.replace(section, **paths)})
