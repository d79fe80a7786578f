"""One training run: start or continue, train, and leave what is needed to continue or to use the encoder."""

import contextlib
import importlib.util
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn
from torch.utils.data import Dataset

from retrace import __version__
from retrace.errors import RetraceError, UsageError
from retrace.files import cannot_write, same_file
from retrace.training import checkpoints, processes
from retrace.training.callbacks import Average, Journal, Probe, Saver
from retrace.training.config import TrainConfig, check_same_run, save_config, to_plain
from retrace.training.curves import CurveLogger
from retrace.training.module import TrainingModule
from retrace.training.origin import commit
from retrace.training.stream import ClipStream
from retrace.training.sync_bn import synchronise
from retrace.video.loader import Views

Measure = Callable[[nn.Module], Mapping[str, float]]
"""From an encoder (in eval mode, on the CPU, its own to keep) to named numbers."""


_log = logging.getLogger(__name__)


@dataclass
class FitResult:
    """What a run did.

    Attributes:
        step: optimiser steps done so far, of `steps`.
        resumed_from: step this process started at.
        interrupted: whether a signal ended it before the last step.
        last: means of the last logged interval: loss, terms, grad_norm, lr, clips_per_s, loader_wait, peak_memory_mb.
        clips, seconds, waited: clips, wall seconds and seconds waiting for the loader of this process.
        failures: video -> reason, of what could not be read.
        module: the trained module, on the CPU.
    """

    step: int
    steps: int
    resumed_from: int
    interrupted: bool
    last: dict[str, float]
    clips: int
    seconds: float
    waited: float
    module: TrainingModule
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def step_clips_per_s(self) -> float | None:
        """Clips per second of the step alone, the loader's share taken out. None when nothing was trained."""
        busy = self.seconds - self.waited
        return self.clips / busy if busy > 0 and self.clips else None


@contextlib.contextmanager
def _only_run(out: Path) -> Iterator[None]:
    """Keep a second process out of the same folder.

    A POSIX record lock: it belongs to this process alone, so forked loader workers that outlive a killed run do not
    hold it, and it vanishes with the process. Windows goes without.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        stream = (out / ".lock").open("w")
    except OSError as error:
        raise cannot_write(out, error) from error
    with stream:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not same_file(stream, out / ".lock"):
                    raise BlockingIOError  # its owner has just removed it
            except OSError as error:
                raise RetraceError(
                    f"Another `retrace train` is writing into {out}. Wait for it, stop it, or give another --out."
                ) from error
        try:
            yield
        finally:
            (out / ".lock").unlink(missing_ok=True)  # while it is held, so that nobody's new lock is unlinked


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's advertising and device report go to INFO; what matters to a user is a warning or an error."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Lightning calls this torch function in its own loop; nobody at the keyboard can change it.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=DeprecationWarning)
        warnings.filterwarnings(
            "ignore", message=".*module\\(s\\) in eval mode.*"
        )  # a teacher is meant to be
        yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def remove_run(out: Path, *, index: bool = True) -> None:
    """Delete what a run wrote into its folder, and nothing else; the index of the footage only where asked for."""
    names = ["config.yaml", "metrics.csv", checkpoints.LAST, "encoder.safetensors", "summary.json"]
    for name in [*names, "footage.json"] if index else names:
        (out / name).unlink(missing_ok=True)
    for name in ("checkpoints", "tensorboard"):
        shutil.rmtree(out / name, ignore_errors=True)


def fit(
    method: nn.Module,
    dataset: Dataset[Views],
    config: TrainConfig,
    *,
    data_id: str = "",
    overwrite: bool = False,
    progress: bool = True,
    measure: Measure | None = None,
) -> FitResult:
    """Train `method` on `dataset` until `config.steps`, from the last checkpoint in `config.out` when there is one.

    The weights at the end are the same, bit for bit on one CPU setting, however often the run was interrupted and
    whatever the number of workers: item i of the data set is a function of (seed, i), the stream continues at
    item step * batch_size * accumulate, and the draws of a step are seeded from (seed, step).

    Args:
        method: nn.Module with an `encoder`, called with a batch of views, returns Losses. Trained in place.
        dataset: map style, endless: item i gives the views of sample i. Failures of its `sources` are collected.
        config: a checked configuration with `steps` set.
        data_id: names the content of the data; a run continues only on the data it began with.
        overwrite: delete the run in `config.out` first.
        progress: draw a progress bar on stderr.
        measure: from an encoder to named numbers, every `config.log.probe` steps, for the curves.

    Several processes (`training.processes`) that call this together train one run: each takes its share of every
    batch, gradients are averaged (DDP), so the loss is the mean of the shares' losses; docs/tutorials/train.md says
    where that is what one process computes. The first process writes.

    Writes: config.yaml, metrics.csv, last.ckpt, checkpoints/, tensorboard/ in `config.out`.

    Errors: UsageError when the folder holds a run with other settings; RetraceError when a loss is not finite, the
    folder is in use or not writable, a checkpoint is damaged, or there is no room for one (the one before stays).
    """
    assert config.steps is not None
    out = Path(config.out)
    here = processes.place()
    device = processes.own_device(config.device, here)
    check_processes(config, here)
    with contextlib.ExitStack() as stack:
        for context in (processes.joined(device), _quiet_lightning(), _threads(config.threads)):
            stack.enter_context(context)
        with processes.first_one_first(here):
            if here.rank == 0:
                stack.enter_context(_only_run(out))
                _prepare(config, out, overwrite)
            start = _continues_from(out, data_id)
            if here.rank == 0:
                save_config(config, out / "config.yaml")
        module = TrainingModule(
            method,
            optimizer=config.optimizer,
            schedule=config.schedule,
            steps=config.steps,
            seed=config.seed,
            accumulate=config.accumulate,
            ema=config.ema,
            channels_last=config.channels_last,
        )
        if config.sync_bn and here.world > 1:
            synchronise(module, device)
        if config.compile:
            _compile(module.encoder, device)
        plain = to_plain(config)
        note = {
            "version": __version__,
            "commit": commit(),
            "encoder": plain["encoder"],
            "config": plain,
            "colour": getattr(method, "colour", "rgb"),
            "data_id": data_id,
        }
        return _fit(module, dataset, config, out, device, here, start, note, progress, measure)


def _compile(encoder: nn.Module, device: torch.device) -> None:
    """Have torch compile a network when it is first called; where nothing can be compiled, say so and leave it."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        lacking = f"no C++ compiler ({compiler}; the variable CXX names another)"
    elif device.type == "cuda" and importlib.util.find_spec("triton") is None:
        lacking = "no Triton (the Python package triton)"
    else:
        encoder.compile()
        return
    _log.warning(
        "compile is true, but there is %s, so the encoder is trained without being compiled.", lacking
    )


def check_processes(config: TrainConfig, here: processes.Place) -> None:
    """Refuse what cannot be shared among the processes there are.

    Errors: UsageError naming the key.
    """
    if config.devices > 1 and here.local_world != config.devices:
        raise UsageError(
            f"devices is {config.devices}, but this process trains alone or among {here.local_world}. Processes are "
            "started by the command line (retrace train ... --devices) or by torchrun; within Python, set devices to 1."
        )
    if config.batch_size % here.world:
        raise UsageError(
            f"batch_size is {config.batch_size}, over {here.world} processes; expected a multiple of {here.world}."
        )


def _prepare(config: TrainConfig, out: Path, overwrite: bool) -> None:
    """Bring the folder into the state that the run goes on from; by the first process alone."""
    if overwrite:
        remove_run(out)
    checkpoints.clear_leftovers(out)
    if not (out / checkpoints.LAST).exists() and not checkpoints.restore_last(out, config.checkpoint.keep):
        remove_run(out, index=False)  # it ended before its first checkpoint: there is nothing to continue
    elif (out / "config.yaml").exists():
        check_same_run(config, out / "config.yaml")


def _continues_from(out: Path, data_id: str) -> int:
    """Step of the last checkpoint; 0 where there is none."""
    last = out / checkpoints.LAST
    if not last.exists():
        return 0
    saved = checkpoints.read_checkpoint(last)
    if saved["retrace"]["data_id"] != data_id:
        raise UsageError(
            f"{out} holds a run on other data: the videos under the same paths have changed since. "
            "Give another --out, or start anew with --overwrite."
        )
    return int(saved["global_step"])


def _fit(
    module: TrainingModule,
    dataset: Dataset[Views],
    config: TrainConfig,
    out: Path,
    device: torch.device,
    here: processes.Place,
    start: int,
    note: dict[str, Any],
    progress: bool,
    measure: Measure | None,
) -> FitResult:
    """The part of `fit` in which the folder is held and the processes are connected."""
    assert config.steps is not None
    per_step = config.batch_size * config.accumulate
    stream = ClipStream(
        dataset,
        batch_size=config.batch_size // here.world,
        start=start * per_step,
        workers=config.workers,
        pin_memory=device.type == "cuda",
        rank=here.rank,
        world=here.world,
    )
    loggers: list[Logger] = []
    if here.rank == 0:
        loggers.append(CurveLogger(out / "metrics.csv", resume_step=start))
    if here.rank == 0 and config.log.tensorboard:
        loggers.append(
            TensorBoardLogger(
                out,
                name="tensorboard",
                version="",
                default_hp_metric=False,
                purge_step=start + 1 if start else None,
            )
        )
    journal = Journal(
        stream,
        clips_per_step=per_step,
        every=config.log.every,
        steps=config.steps,
        start=start,
        progress=progress and here.rank == 0,
    )
    saver = Saver(
        out,
        journal,
        every=config.checkpoint.every,
        keep=config.checkpoint.keep,
        start=start,
        note=note,
    )
    callbacks: list[L.Callback] = [journal, Average(), saver]
    if measure is not None and config.log.probe:
        callbacks.insert(2, Probe(measure, journal, every=config.log.probe))
    trainer = L.Trainer(
        max_steps=config.steps,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        precision=_precision(config.precision, device),
        accumulate_grad_batches=config.accumulate,
        callbacks=callbacks,
        logger=loggers or False,
        default_root_dir=out,
        **_strategy(here, device),
        benchmark=device.type == "cuda",
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    restore_signals = saver.listen()
    try:
        trainer.fit(
            module,
            train_dataloaders=stream,
            ckpt_path=out / checkpoints.LAST if start else None,
            weights_only=True,
        )
        journal.settle(trainer)
    except (
        SIGTERMException
    ):  # Lightning's way to say that it saw the signal too, after our checkpoint was written
        saver.interrupted = True
    finally:
        restore_signals()
        journal.close()
        for logger in loggers:
            logger.finalize("done")
    step = trainer.global_step if trainer.global_step else start
    return FitResult(
        step=step,
        steps=config.steps,
        resumed_from=start,
        interrupted=saver.interrupted and step < config.steps,
        last=journal.last,
        clips=journal.clips,
        seconds=journal.seconds,
        waited=journal.waited,
        failures=processes.collected(stream.failures),
        module=module.cpu(),
    )


def _strategy(here: processes.Place, device: torch.device) -> dict[str, Any]:
    """What Lightning is told about the processes: what we know, so that it asks no scheduler."""
    if here.world == 1:
        devices: Any = [device.index or 0] if device.type == "cuda" else 1
        return {"devices": devices, "plugins": [LightningEnvironment()]}
    strategy = DDPStrategy(cluster_environment=TorchElasticEnvironment())
    return {"devices": here.local_world, "num_nodes": here.world // here.local_world, "strategy": strategy}


def _precision(name: str, device: torch.device) -> Any:
    if name == "bf16" or (name == "auto" and device.type == "cuda"):
        return "bf16-mixed"
    return "32-true"


@contextlib.contextmanager
def _threads(threads: int) -> Iterator[None]:
    """Torch's own threads in this process; 0 leaves them as they are."""
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    yield
    torch.set_num_threads(before)
