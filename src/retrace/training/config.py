"""What a recipe says: every choice of a training run, typed, with its resolved form saved beside the checkpoints."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from retrace.encoders.config import EncoderConfig
from retrace.encoders.resnet import LAYERS
from retrace.errors import RetraceError, UsageError, did_you_mean
from retrace.files import atomic_path
from retrace.methods import METHODS, MethodConfig, check_batch
from retrace.methods.crw import CRWConfig
from retrace.methods.moco import MoCoConfig
from retrace.methods.retrace import RetraceConfig
from retrace.methods.siamfc import SiamFCConfig
from retrace.methods.stfc3 import STFC3Config
from retrace.methods.stt import StTConfig
from retrace.methods.timecycle import TimeCycleConfig
from retrace.methods.vfs import VFSConfig
from retrace.training.schedule import OptimizerConfig, ScheduleConfig


@dataclass(frozen=True)
class ClipsConfig:
    """Where clips come from. Their length is the method's, and so is the choice of frames where the paper has one.

    Attributes:
        fps: frames per second of a footage clip; give either this or stride.
        stride: frames from one clip frame to the next in footage. A method that chooses its frames by itself chooses
            among these.
        images: footage is single images (in whatever folders) and not video, for a method with clips of one frame; a
            pass takes every image once, and fps, stride, weighting and per_video have no say.
        footage_weight: share of clips from --data; ignored when there is none.
        synthetic_weight: share of clips from generated scenes.
        synthetic_height: of generated frames, pixels.
        synthetic_width: of generated frames, pixels.
        synthetic_stride: smallest and largest number of generated frames from one clip frame to the next.
        synthetic_per_scene: samples in a row that are clips of one generated scene: more make more clips per second, of
            fewer things. A method with boxes has a scene for each.
        synthetic_keep: folder in which generated clips are kept, so that runs with the same seed and the same clips
            make them once, whatever they learn from them; default: nothing is kept.
        short_side: footage is kept at this short side, pixels; 0 keeps its size.
        cache: folder for decoded frames; default: a folder `retrace/frames` of the user's cache.
        weighting: "frames" draws every frame of the footage equally often, "videos" every video.
        per_video: at most so many clips of a video per epoch, each video in its turn (weighting has no say then);
            null draws at random.
    """

    fps: float | None = 8.0
    stride: int | None = None
    images: bool = False
    footage_weight: float = 1.0
    synthetic_weight: float = 0.0
    synthetic_height: int = 160
    synthetic_width: int = 192
    synthetic_stride: tuple[int, int] = (1, 4)
    synthetic_per_scene: int = 1
    synthetic_keep: str | None = None
    short_side: int = 288
    cache: str | None = None
    weighting: Literal["frames", "videos"] = "frames"
    per_video: int | None = None


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save.

    Attributes:
        every: steps between checkpoints.
        keep: step files kept; last.ckpt is the latest of them.
    """

    every: int = 500
    keep: int = 2


@dataclass(frozen=True)
class LogConfig:
    """What to log.

    Attributes:
        every: steps per row of metrics.csv; a row is the mean of its steps.
        tensorboard: also write TensorBoard events.
        probe: steps between two measurements of how well the encoder carries labels through a few generated scenes
            (probe_j: mean J; probe_copy: of leaving the first labels where they are); 0 measures nothing.
    """

    every: int = 20
    tensorboard: bool = True
    probe: int = 500


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        method: which method, a name of `methods.METHODS`; its settings are in the section of the same name.
        moco: settings of MoCo, the first stage of Spatial-then-Temporal.
        retrace: settings of our own recipe.
        siamfc: settings of SiamFC.
        stfc3: settings of STFC3 and FC3.
        vfs: settings of VFS.
        crw: settings of CRW.
        timecycle: settings of TimeCycle.
        stt: settings of Spatial-then-Temporal's second stage, and of reconstruction alone.
        encoder: what is trained.
        init: encoder weights to start from: a path, or a name that `retrace weights list` knows; none starts from
            random weights.
        clips: where clips come from.
        optimizer: how weights move.
        schedule: how the learning rate moves.
        steps: optimiser steps of the run; give either this or epochs.
        epochs: length of the run as passes over the footage (clips.per_video says how many clips that is).
        batch_size: clips per forward pass, of all processes together.
        accumulate: forward passes per optimiser step.
        ema: decay of the moving average of the encoder that is exported; 0 exports the encoder itself.
        export_cut: layer after which the exported encoder ends (the papers propagate with layer3 of a network trained
            up to layer4); null exports what was trained.
        export_strides: of layer1 ... layer4 of the exported encoder (VFS trains at stride 32 and propagates at 8); null
            exports what was trained.
        seed: of everything that is drawn.
        workers: processes that prepare clips; 0 prepares them in the main process.
        threads: torch threads of the main process; 0 leaves torch's choice.
        device: auto, cpu, cuda or cuda:N.
        devices: processes on this machine, each on a GPU of its own where there are GPUs; on several machines, start
            the command with torchrun, which says how many there are.
        sync_bn: statistics of batch normalisation over all processes; of a single one they are that anyway.
        compile: compile the encoder with torch.compile; said and left out where there is no compiler.
        precision: auto (bf16 on a GPU, 32 elsewhere), 32 or bf16.
        channels_last: memory format of images and encoder; encoders narrower than a quarter go without.
        checkpoint: when to save.
        log: what to log.
        data: footage: videos, folders of videos or frames, list files.
        out: folder of the run.
    """

    method: str = "stfc3"
    moco: MoCoConfig = MoCoConfig()
    retrace: RetraceConfig = RetraceConfig()
    siamfc: SiamFCConfig = SiamFCConfig()
    stfc3: STFC3Config = STFC3Config()
    vfs: VFSConfig = VFSConfig()
    crw: CRWConfig = CRWConfig()
    timecycle: TimeCycleConfig = TimeCycleConfig()
    stt: StTConfig = StTConfig()
    encoder: EncoderConfig = EncoderConfig(cut="layer4", padding_mode="reflect")
    init: str | None = None
    clips: ClipsConfig = ClipsConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 8
    accumulate: int = 1
    ema: float = 0.0
    export_cut: str | None = None
    export_strides: tuple[int, int, int, int] | None = None
    seed: int = 0
    workers: int = 1
    threads: int = 0
    device: str = "auto"
    devices: int = 1
    sync_bn: bool = False
    compile: bool = False
    precision: Literal["auto", "32", "bf16"] = "auto"
    channels_last: bool = True
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    data: tuple[str, ...] = ()
    out: str = ""

    @property
    def method_config(self) -> MethodConfig:
        """The section of the method."""
        section: MethodConfig = getattr(self, self.method)
        return section

    @property
    def clip_length(self) -> int:
        """T, frames per clip: the method's."""
        return self.method_config.clip_length


# These say how a run is carried out, not what it computes; a run may continue with other values.
OPERATIONAL = frozenset(
    {
        "out",
        "workers",
        "threads",
        "device",
        "devices",
        "compile",
        "checkpoint",
        "log",
        "clips.cache",
        "clips.synthetic_keep",
        "export_cut",
        "export_strides",
        "epochs",
    }
)


def check(config: TrainConfig) -> None:
    """Refuse what cannot be run.

    Errors: UsageError naming the key, its value and what it may be.
    """

    def demand(good: bool, key: str, value: Any, expected: str) -> None:
        if not good:
            raise UsageError(f"{key} is {value}; expected {expected}.")

    if config.method not in METHODS:
        hint = did_you_mean(config.method, METHODS)
        raise UsageError(f"method is {config.method!r}{hint}; expected one of {', '.join(METHODS)}.")
    for name, method in METHODS.items():
        default = flatten(method.config())
        changed = [key for key, value in flatten(getattr(config, name)).items() if value != default[key]]
        if name != config.method and changed:
            raise UsageError(
                f"{name}.{changed[0]} is set, but the method is {config.method}. "
                f"Leave it out, or set method to {name}."
            )
    demand(bool(config.out), "out", repr(config.out), "a folder for the run")
    demand(
        (config.steps is None) != (config.epochs is None),
        "steps / epochs",
        f"{config.steps} / {config.epochs}",
        "exactly one of the two",
    )
    for key, value in (
        ("steps", config.steps if config.steps is not None else 1),
        ("batch_size", config.batch_size),
        ("accumulate", config.accumulate),
        ("devices", config.devices),
        ("checkpoint.every", config.checkpoint.every),
        ("checkpoint.keep", config.checkpoint.keep),
        ("log.every", config.log.every),
    ):
        demand(value >= 1, key, value, "a whole number of at least 1")
    for key, value in (
        ("workers", config.workers),
        ("threads", config.threads),
        ("log.probe", config.log.probe),
    ):
        demand(value >= 0, key, value, "0 or more")
    demand(0 <= config.seed < 2**63, "seed", config.seed, "a whole number from 0 to 2^63 - 1")
    demand(config.encoder.width > 0, "encoder.width", config.encoder.width, "a number above 0")
    layers = LAYERS[: LAYERS.index(config.encoder.cut) + 1] if config.encoder.cut in LAYERS else LAYERS
    demand(
        config.export_cut is None or config.export_cut in layers,
        "export_cut",
        config.export_cut,
        f"one of the trained layers, {', '.join(layers)}, or null",
    )
    demand(
        config.export_strides is None or min(config.export_strides) >= 1,
        "export_strides",
        config.export_strides,
        "four numbers of at least 1, or null",
    )
    demand(config.epochs is None or config.epochs > 0, "epochs", config.epochs, "a number above 0")
    demand(0 <= config.ema < 1, "ema", config.ema, "a decay from 0 (off) to below 1")
    demand(config.optimizer.lr > 0, "optimizer.lr", config.optimizer.lr, "a number above 0")
    demand(config.optimizer.clip >= 0, "optimizer.clip", config.optimizer.clip, "0 (off) or a largest norm")
    demand(config.schedule.warmup >= 0, "schedule.warmup", config.schedule.warmup, "0 or more steps")
    clips = config.clips
    demand(
        (clips.fps is None) != (clips.stride is None),
        "clips.fps / clips.stride",
        f"{clips.fps} / {clips.stride}",
        "exactly one of the two (set the other to null)",
    )
    demand(
        clips.synthetic_per_scene >= 1, "clips.synthetic_per_scene", clips.synthetic_per_scene, "at least 1"
    )
    demand(clips.per_video is None or clips.per_video >= 1, "clips.per_video", clips.per_video, "at least 1")
    demand(
        clips.short_side == 0 or clips.short_side >= 16,
        "clips.short_side",
        clips.short_side,
        "at least 16 pixels, or 0 for the size of the footage",
    )
    demand(clips.fps is None or clips.fps > 0, "clips.fps", clips.fps, "a number above 0")
    demand(clips.stride is None or clips.stride >= 1, "clips.stride", clips.stride, "at least 1")
    for key, weight in (
        ("clips.footage_weight", clips.footage_weight),
        ("clips.synthetic_weight", clips.synthetic_weight),
    ):
        demand(weight >= 0 and math.isfinite(weight), key, weight, "0 or more")
    footage = bool(config.data) and clips.footage_weight > 0
    if not footage and clips.synthetic_weight == 0:
        raise UsageError(
            "There is nothing to train on: give footage with --data PATH (a video, a folder or a list file; its weight "
            "is clips.footage_weight), or set clips.synthetic_weight above 0 to train on generated scenes."
        )
    schedule = config.schedule
    for key, passes, steps in (
        ("warmup", schedule.warmup_epochs is not None, schedule.warmup != 0),
        ("milestones", bool(schedule.milestone_epochs), bool(schedule.milestones)),
    ):
        demand(not (passes and steps), f"schedule.{key}", "given in steps and in passes", "one of the two")
    counts_passes = (
        config.epochs is not None or schedule.warmup_epochs is not None or bool(schedule.milestone_epochs)
    )
    if clips.images and config.clip_length != 1:
        raise UsageError(
            f"clips.images is true, but {config.method} wants clips of {config.clip_length} frames. "
            "Give videos or frame folders, and set clips.images to false."
        )
    try:
        check_batch(config.method_config, config.batch_size)
    except ValueError as error:
        raise UsageError(f"batch_size is {config.batch_size}: {error}.") from error
    if counts_passes and clips.per_video is None and not clips.images:
        raise UsageError(
            "epochs needs clips.per_video, which says how many clips a pass takes; or set steps."
        )
    if counts_passes and not footage:
        raise UsageError(
            "epochs counts passes over footage, and there is none: give it with --data PATH, or set steps."
        )


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> plain value, of a configuration or of its saved form."""
    items = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config  # type: ignore[arg-type]
    flat: dict[str, Any] = {}
    for key, value in items.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def to_plain(config: Any) -> dict[str, Any]:
    """A configuration as YAML and JSON know it: dicts, lists, numbers, strings.

    Of a TrainConfig, without the sections of the other methods.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    result: dict[str, Any] = plain(dataclasses.asdict(config))
    if isinstance(config, TrainConfig):
        for name in METHODS.keys() - {config.method}:
            del result[name]
    return result


_SHOWN = 8  # keys of another run that a sentence names
_HEADER = "# Resolved configuration of a run of retrace train; a recipe of its own\n"


def save_config(config: TrainConfig, path: Path) -> None:
    """Write the resolved configuration as YAML that `retrace train` reads."""
    with atomic_path(path) as temporary:
        temporary.write_text(_HEADER + yaml.safe_dump(to_plain(config), sort_keys=False))


def is_saved_config(path: Path) -> bool:
    """Whether `save_config` wrote this file."""
    with path.open("rb") as file:
        return file.read(len(_HEADER)) == _HEADER.encode()


def check_same_run(config: TrainConfig, path: Path) -> None:
    """Refuse to continue a run with a configuration that computes something else.

    Errors: UsageError naming the first keys that differ, or both methods; RetraceError when `path` cannot be read.
    """
    try:
        saved = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RetraceError(
            f"{path} cannot be read, so the run in its folder cannot be continued. Use another --out, or --overwrite."
        ) from error
    theirs = saved.get("method", config.method) if isinstance(saved, dict) else None
    if theirs != config.method:
        raise UsageError(
            f"{path.parent} holds a run of {theirs or 'something else'}, and this is {config.method}. "
            "Give another --out, or start anew with --overwrite."
        )
    # A key that the saved form does not know yet had the value that is now the default.
    before, now = (
        flatten(to_plain(TrainConfig(method=config.method))) | flatten(saved),
        flatten(to_plain(config)),
    )
    ignored = set(OPERATIONAL)
    if config.schedule.name not in ("cosine", "exponential") and (config.steps or 0) >= (
        before.get("steps") or 0
    ):
        ignored.add("steps")  # a longer run begins like the shorter one
    different = [
        f"{key} was {before.get(key)}, now {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not (key in ignored or key.split(".")[0] in ignored)
    ]
    if different:
        more = f"; and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        raise UsageError(
            f"{path.parent} holds another run ({'; '.join(different[:_SHOWN])}{more}). "
            "Continue it with its own settings, give another --out, or start anew with --overwrite."
        )
