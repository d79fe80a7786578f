"""One run of a study: train an encoder from a seed, take the numbers of every arm that reads it, a row for each."""

import base64
import dataclasses
import functools
import io
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retrace import encoders
from retrace.benchmarks.synthetic import CONFIG
from retrace.devices import choose_device
from retrace.encoders import Model
from retrace.errors import RetraceError
from retrace.propagation.baselines import BASELINES
from retrace.propagation.protocols import PROTOCOLS
from retrace.studies import Arm, Study, probes
from retrace.threads import end_with_parent
from retrace.training.checkpoints import LAST, read_checkpoint, step_path
from retrace.training.config import TrainConfig, flatten, to_plain
from retrace.training.curves import read_curves
from retrace.training.origin import commit
from retrace.verbs.evaluate import evaluate, machine
from retrace.verbs.train import encoder_state, load_config, make_model, train
from retrace.viz.pca import principal_components

SCENES = tuple(f"scene-{number:02d}" for number in range(4))
"""Of `retrace evaluate synthetic`, which no recipe draws: with 2, 3, 4 and 5 objects."""
SHORT_SIDE = 240
"""Of real clips, pixels."""
POINTS = 60
"""Points of a curve that results keep."""
SPEED = {"clips_per_s", "loader_wait", "peak_memory_mb", "lr", "grad_norm", "step"}
"""Columns of metrics.csv that results do not keep."""
FRAMES = "frames shown"
ENCODER = "encoder.safetensors"
AFTER = "$after"
"""In the flags of an arm: the encoder of the arm that it comes after."""
CLIPS = "clips"
"""Folder of a study in which the generated clips are kept while it runs: most arms of a seed draw the same ones."""
KEPT = 2e9
"""Bytes of clips of a run above which they are not kept."""
WHITE = 0.25
"""Probability that pictures of transitions show as white."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What one process does at a time.

    Attributes:
        study: at its size.
        run: the arm that is trained, or measured as it is.
        arms: the arms that read it (itself, mostly), without those that are done.
        seed: None for what has no seeds.
        out: folder of the study.
        device: as `retrace train --device`.
        videos: folder with davis2016/ and badja/; None leaves out what needs them.
        pictures: whether to keep pictures for the figure.
        before: arm -> its row, where only some groups of numbers are missing.
    """

    study: Study
    run: Arm
    arms: tuple[Arm, ...]
    seed: int | None
    out: Path
    device: str
    videos: Path | None
    pictures: bool
    before: Mapping[str, Row] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the run, and of its folder."""
        return self.run.name if self.seed is None else f"{self.run.name}-{self.seed}"


@dataclass(frozen=True)
class Done:
    """What a job came to: rows, and name of an arm (or `FRAMES`) -> pictures."""

    rows: list[Row]
    pictures: dict[str, dict[str, str]]


def config_of(arm: Arm, seed: int, out: str = "", device: str = "auto", after: str = AFTER) -> TrainConfig:
    """The run that trains an arm. Errors: UsageError for flags that its recipe does not take."""
    config = _configured(arm.recipe, tuple(word.replace(AFTER, after) for word in arm.words))
    log = dataclasses.replace(config.log, probe=0, tensorboard=False)
    return dataclasses.replace(config, seed=seed, out=out, device=device, log=log)


@functools.cache
def _configured(recipe: str, words: tuple[str, ...]) -> TrainConfig:
    """`load_config` takes a while, and a study asks for the same ones again and again."""
    return load_config(recipe, *words)


def reading(study: Study, arm: Arm) -> TrainConfig:
    """The configuration whose export an arm reads: its run's, with its own `export_cut` and `export_strides`."""
    if not arm.run:
        return config_of(arm, 0)
    run = study.arm(arm.run)
    return config_of(dataclasses.replace(run, flags={**run.flags, **arm.flags}), 0)


def settings(study: Study, arm: Arm) -> dict[str, Any]:
    """What decides the numbers of an arm: dotted key -> plain value, everything resolved."""
    decided: dict[str, Any] = {
        "model": arm.model,
        "untrained": arm.untrained,
        "after": arm.after,
        "during": study.during if arm.during else 0,
        "protocol": study.protocol,
    }
    if not arm.model:
        unfixed = {"seed", "out", "device", "workers", "threads", "devices"}
        plain = flatten(to_plain(reading(study, arm)))
        decided |= {key: value for key, value in plain.items() if key not in unfixed and key[:4] != "log."}
    return decided


def begin() -> None:
    """In a process of the pool: one thread, an end when the parent is gone, and one without a traceback at Ctrl-C.

    A training answers Ctrl-C itself: it saves.
    """
    end_with_parent()
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    torch.set_num_threads(1)


def carry_out(job: Job) -> Done:
    """Train where that is asked for and not done, and measure.

    Errors: RetraceError when training or measuring fails; KeyboardInterrupt when it was stopped, and is saved.
    """
    started = time.perf_counter()
    folder = job.out / "runs" / job.name
    curve: dict[str, list[float]] = {}
    if job.run.trained:
        assert job.seed is not None
        _train(job, folder)
        curve = _curve(folder / "metrics.csv")
    trained = time.perf_counter()
    rows: list[Row] = []
    pictures: dict[str, dict[str, str]] = {}
    for arm in job.arms:
        begun = time.perf_counter()
        model = _model(job, arm, folder)
        before = job.before.get(arm.name)
        groups = [
            group for group in wanted(job.study, job.videos) if not before or group not in before["measures"]
        ]
        scores = measured(model, groups, _side(job.study, arm), job.videos, protocol=job.study.protocol)
        if before is not None:
            both = {**before["scores"], **scores}
            rows.append({**before, "scores": both, "measures": before["measures"] + groups})
            continue
        column = job.study.figure.curve
        if job.run.trained and (column in curve or "loss" in curve):
            tail = curve.get(column, curve.get("loss", []))
            scores["loss"] = float(np.mean(tail[-max(1, len(tail) // 10) :]))
        during = _during(job, arm, folder, scores) if arm.during and job.run.trained else []
        if job.pictures and isinstance(model, Model) and arm.name in job.study.figure.pictures:
            pictures[arm.name] = _pictures(model)
            frames = probes.shown_frames().permute(0, 2, 3, 1).numpy()
            pictures[FRAMES] = {str(k): _png(frame) for k, frame in enumerate(frames)}
        rows.append(
            {
                "arm": arm.name,
                "seed": job.seed,
                "scores": scores,
                "measures": groups,
                "curve": curve if not arm.run else {},
                "during": during,
                "seconds": {
                    "train": round(trained - started, 1),
                    "measure": round(time.perf_counter() - begun, 1),
                },
                "commit": commit(),
                "device": choose_device(job.device).type,
                "machine": machine(),
            }
        )
    _tidy(folder)
    return Done(rows, pictures)


def measured(
    model: str | Model, groups: Sequence[str], side: int, videos: Path | None, *, protocol: str
) -> dict[str, float | None]:
    """The numbers of some groups; None where a number does not exist.

    Args:
        model: a Model, or the name of a baseline, which has no features to ask.
        groups: of `studies.MEASURES`.
        side: of the crops that the model was trained on, pixels.
        videos: folder with davis2016/ and badja/; None leaves out what needs them.
        protocol: of the generated scenes; real clips have the benchmarks' own. All at plain detail.
    """
    scores: dict[str, float | None] = {}
    baseline = isinstance(model, str) and model in BASELINES
    # An encoder without padding begins inside the frame; all arms are to carry labels over the whole of it.
    whole: Any = model if isinstance(model, str) else probes.covering(model)
    for group in groups:
        if group == "scenes":
            # All arms are read alike: an encoder without padding has no closer nodes.
            # A published protocol names the size of DAVIS; generated scenes keep their own.
            own: Any = {} if baseline else {"detail": "plain"}
            if not baseline and PROTOCOLS[protocol].size is not None:
                own["size"] = CONFIG.height
            found = evaluate("synthetic", model=whole, sequences=SCENES, protocol=protocol, workers=1, **own)
            scores |= found.scores
        elif group == "position" and isinstance(model, Model):
            scores["position_r2"] = probes.position(model, side)
        elif group == "affinity" and isinstance(model, Model):
            stays = probes.walkers(model)
            scores |= {"stays_near": stays.near, "stays_unrelated": stays.unrelated}
        elif videos is not None and group in _CLIPS:
            clips = _CLIPS[group]
            size: Any = {} if baseline else {"size": SHORT_SIDE, "detail": "plain"}
            root = videos / clips.folder
            seen = evaluate(clips.benchmark, root=root, split=clips.split, model=whole, workers=1, **size)
            scores[clips.name] = seen.scores[clips.key]
    return {
        key: None if value is None or not np.isfinite(value) else float(value)
        for key, value in scores.items()
    }


@dataclass(frozen=True)
class _Clips:
    """A benchmark on real clips: its name, folder and split, its number, and the name of the number here."""

    benchmark: str
    folder: str
    split: str | None
    key: str
    name: str


_CLIPS = {
    "clips": _Clips("davis2016", "davis2016", None, "J", "clips_J"),
    "animals": _Clips("badja", "badja", None, "PCK_box@0.1", "animals_PCK"),
    "colours": _Clips("reconstruction", "davis2016", "all", "L1_5", "L1_5"),
}


def wanted(study: Study, videos: Path | None) -> list[str]:
    """The groups of numbers that can be taken: without videos, not those of real clips."""
    return [group for group in study.measures if videos is not None or group not in _CLIPS]


def _train(job: Job, folder: Path) -> None:
    """Train to the end; what is finished or begun in the folder is taken over."""
    if (folder / ENCODER).exists():
        return
    assert job.seed is not None
    after = AFTER if not job.run.after else str(job.out / "runs" / f"{job.run.after}-{job.seed}" / ENCODER)
    config = config_of(job.run, job.seed, str(folder), job.device, after)
    # The whole network is kept: every arm that reads this run cuts it as it likes.
    config = dataclasses.replace(config, export_cut=None, export_strides=None)
    if _clip_bytes(config) <= KEPT:
        clips = dataclasses.replace(config.clips, synthetic_keep=str(job.out / CLIPS))
        config = dataclasses.replace(config, clips=clips)
    if any(arm.during for arm in job.arms):
        assert config.steps is not None
        every = job.study.during
        checkpoint = dataclasses.replace(config.checkpoint, every=every, keep=config.steps // every + 1)
        config = dataclasses.replace(config, checkpoint=checkpoint)
    if train(config, recipe=job.run.recipe, progress=False).interrupted:
        raise KeyboardInterrupt


def _clip_bytes(config: TrainConfig) -> int:
    """Of all clips that a run draws."""
    assert config.steps is not None
    pixels = config.clips.synthetic_height * config.clips.synthetic_width
    return config.steps * config.batch_size * config.accumulate * config.clip_length * 3 * pixels


def _model(job: Job, arm: Arm, folder: Path) -> str | Model:
    if arm.model:
        return arm.model if arm.model in BASELINES else encoders.load(arm.model)
    if job.run.trained:
        return _read(job, arm, encoders.load(folder / ENCODER).encoder.state_dict())
    return _untrained(job, arm)


def _read(job: Job, arm: Arm, state: Mapping[str, Tensor]) -> Model:
    """The model that an arm sees in the weights of its run."""
    model = make_model(reading(job.study, arm), arm.name, "", 0, state, {}, {}, None)
    return model.to(choose_device(job.device))


def _untrained(job: Job, arm: Arm) -> Model:
    """The network with the weights that training begins with."""
    assert job.seed is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        state = config_of(job.run, job.seed).encoder.build().state_dict()
    return _read(job, arm, state)


def _during(
    job: Job, arm: Arm, folder: Path, last: Mapping[str, float | None]
) -> list[dict[str, float | None]]:
    """What the figure shows, at step 0 and at every checkpoint of the run."""
    config = config_of(job.run, 0)
    assert config.steps is not None
    found = []
    for step in range(0, config.steps, job.study.during):
        path = step_path(folder, step)
        if step == 0:
            model = _untrained(job, arm)
        elif path.exists():
            model = _read(job, arm, encoder_state(config, read_checkpoint(path)))
        else:
            raise RetraceError(
                f"{path} is not there, so what {arm.name} knew at that step cannot be measured. Delete {folder}, and "
                "run again."
            )
        scores = measured(model, ["scenes"], _side(job.study, arm), None, protocol=job.study.protocol)
        found.append({"step": float(step), **{key: scores[key] for key in job.study.figure.columns}})
    found.append({"step": float(config.steps), **{key: last[key] for key in job.study.figure.columns}})
    return found


def _side(study: Study, arm: Arm) -> int:
    """Of the crops that an arm is trained on, pixels; 128 for an encoder that was not."""
    if arm.model:
        return 128
    method = reading(study, arm).method_config
    return int(getattr(method, "crop_size", 0) or getattr(method, "image_size", 128))


def _curve(path: Path) -> dict[str, list[float]]:
    """The columns of metrics.csv that say how it went, thinned to `POINTS` rows by means of neighbours."""
    rows = read_curves(path)
    names = {name for row in rows for name in row} - SPEED
    rows = [row for row in rows if names <= row.keys()]
    if not rows:
        return {}
    parts = np.array_split(np.arange(len(rows)), min(POINTS, len(rows)))
    return {
        name: [round(float(np.mean([rows[i][name] for i in part])), 5) for part in parts]
        for name in ["step", *sorted(names)]
    }


def _pictures(model: Model) -> dict[str, str]:
    """PNGs, as text, of what the figure shows of an encoder."""
    seen = probes.shown(model)
    colours = principal_components(seen["features"]).rgb  # (2, h, w, 3)
    kept = {name: _png(_scaled(seen[name])) for name in ("near", "unrelated")}
    return kept | {f"features-{k}": _png((255 * colours[k]).round().astype(np.uint8)) for k in range(2)}


def _scaled(transition: Tensor) -> NDArray[np.uint8]:
    """(N, N) probabilities as grey: their square roots, as faint cells are the point; white is `WHITE` and more."""
    return np.asarray((255 * (transition.numpy() / WHITE).clip(0, 1) ** 0.5).round(), dtype=np.uint8)


def _png(image: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def picture(text: str) -> NDArray[np.uint8]:
    """The image that was kept as text: (H, W) or (H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def _tidy(folder: Path) -> None:
    """Leave the encoder and the curves of a finished run; checkpoints are large."""
    (folder / LAST).unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
