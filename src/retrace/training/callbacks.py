"""What happens around a step: measuring, refusing to go on from a NaN, saving, stopping on request."""

import logging
import math
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from torch import Tensor
from tqdm import tqdm

from retrace.errors import RetraceError
from retrace.files import atomic_path
from retrace.training import processes
from retrace.training.checkpoints import publish, step_path
from retrace.training.curves import RunningMeans
from retrace.training.module import TrainingModule
from retrace.training.stream import ClipStream

_log = logging.getLogger(__name__)


def peak_memory_mb(device: torch.device) -> float:
    """Highest memory so far: allocated on a GPU, resident of this process otherwise; in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@dataclass(frozen=True)
class _Pass:
    """A forward pass: optimiser steps done after it, the step it belongs to, its samples, rate and numbers."""

    done: int
    step: int
    samples: range
    rate: float
    terms: dict[str, Tensor]


class Journal(L.Callback):
    """Reads the numbers of every step, one step late so that a GPU is not kept waiting; writes curves; draws the bar.

    A number that is not finite ends the run; features that all look alike are reported once. `settle` brings the
    journal up to date, and is called before anything is saved, so no checkpoint is ever made of a step that went wrong.

    Attributes:
        last: the means of the last logged interval.
        clips: clips trained on by this process.
        seconds, waited: wall time of this process's training loop, and the part of it spent waiting for the loader.
    """

    def __init__(
        self, stream: ClipStream, *, clips_per_step: int, every: int, steps: int, start: int, progress: bool
    ) -> None:
        """`clips_per_step`: of all processes and passes; `start`: steps before; `every`: steps between two rows."""
        self._stream = stream
        self._clips_per_step = clips_per_step
        self._every = every
        self._shown = start
        self._pending: _Pass | None = None
        self._means = RunningMeans()
        self._begun: tuple[int, float, float] = (0, 0.0, 0.0)
        self._mark = self._begun
        self._extra: dict[str, float] = {}
        self._spread: float | None = None  # feature_std of the first row
        self._warned = False
        self.last: dict[str, float] = {}
        self.clips = 0
        self.seconds = 0.0
        self.waited = 0.0
        interactive = sys.stderr.isatty()
        self._bar = tqdm(
            total=steps,
            initial=start,
            unit="step",
            desc="train",
            disable=not progress,
            dynamic_ncols=True,
            mininterval=0.5 if interactive else 30.0,  # a log file wants a line now and then
        )

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start the clock."""
        self._begun = self._mark = (trainer.global_step, time.perf_counter(), self._stream.waited)

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        """Read the step before."""
        self.settle(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the numbers of this forward pass without waiting for them."""
        assert isinstance(module, TrainingModule)
        part, clips = batch_idx % module.accumulate, self._clips_per_step // module.accumulate
        done = trainer.global_step
        step = done if part == module.accumulate - 1 else done + 1
        first = (step - 1) * self._clips_per_step + part * clips
        self._pending = _Pass(done, step, range(first, first + clips), module.rate, module.terms)

    def note(self, values: Mapping[str, float]) -> None:
        """Numbers that were measured now and then, for the next row."""
        self._extra.update(values)

    def settle(self, trainer: L.Trainer) -> None:
        """Read the pending numbers.

        Errors: RetraceError when one is not finite.
        """
        if self._pending is None:
            return
        latest, self._pending = self._pending, None
        numbers = processes.mean(
            torch.stack([value.float().reshape(()) for value in latest.terms.values()])
        ).tolist()
        values = dict(zip(latest.terms, numbers, strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                raise RetraceError(
                    f"Step {latest.step}: {name} is {value}, so training stopped; the last checkpoint is from before. "
                    f"Its samples are {latest.samples[0]} to {latest.samples[-1]}. "
                    "Lower optimizer.lr, set optimizer.clip, or use precision 32, and continue or start anew."
                )
        self._means.add(values)
        step = latest.done
        now = time.perf_counter()
        self.seconds = now - self._begun[1]
        self.waited = self._stream.waited - self._begun[2]
        self.clips = (step - self._begun[0]) * self._clips_per_step
        self._bar.update(step - self._shown)
        self._shown = step
        done, marked, waited = self._mark
        if step > done and (step % self._every == 0 or step == 1):
            seconds, clips = now - marked, (step - done) * self._clips_per_step
            wait = min(self._stream.waited - waited, seconds)
            self.last = {
                **self._means.take(),
                **self._extra,
                "lr": latest.rate,
                "clips_per_s": clips / seconds,
                "loader_wait": wait / seconds,
                "peak_memory_mb": peak_memory_mb(trainer.strategy.root_device),
            }
            self._extra = {}
            self._look_for_collapse(step)
            self._mark = (step, now, self._stream.waited)
            for logger in trainer.loggers:
                logger.log_metrics(self.last, step)
            self._bar.set_postfix_str(
                f"loss {self.last['loss']:.3f}, {clips / seconds:.1f} clips/s, waiting {wait / seconds:.0%}",
                refresh=False,
            )

    def _look_for_collapse(self, step: int) -> None:
        """Say so once when the features' spread has fallen to nothing, or to a twentieth of what it was."""
        spread = self.last.get("feature_std")
        if spread is None:
            return
        self._spread = self._spread or spread
        if not self._warned and spread < max(1e-4, self._spread / 20):
            self._warned = True
            _log.warning(
                "Step %d: feature_std is %.2g, it was %.2g: all nodes look alike to the encoder (collapse). The usual "
                "cause is a learning rate that is too high for the first steps (optimizer.lr, schedule.warmup); after "
                "that, a loss that equal features satisfy (no negatives and no predictor, a temperature too high).",
                step,
                spread,
                self._spread,
            )

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


class Average(L.Callback):
    """Moves the averaged weights once per optimiser step; listed before everything that saves."""

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update when the optimiser has stepped."""
        assert isinstance(module, TrainingModule)
        if (batch_idx + 1) % module.accumulate == 0:
            module.update_average()


class Probe(L.Callback):
    """Measures the encoder before the first step, every N steps and after the last, and notes it in the journal."""

    def __init__(
        self, measure: Callable[[torch.nn.Module], Mapping[str, float]], journal: Journal, *, every: int
    ) -> None:
        """`measure`: from an encoder (in eval mode, its own to keep) to named numbers."""
        self._measure = measure
        self._journal = journal
        self._every = every

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Where it begins."""
        if trainer.global_step == 0:
            self._note(trainer, module)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """When the optimiser has stepped."""
        assert isinstance(module, TrainingModule)
        step = trainer.global_step
        if (batch_idx + 1) % module.accumulate == 0 and (step % self._every == 0 or step == module.steps):
            self._note(trainer, module)

    def _note(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        if trainer.is_global_zero:
            self._journal.note(self._measure(module.export_encoder()))


class Saver(L.Callback):
    """Saves every N steps, at the end, and when asked to stop.

    Ctrl-C (SIGINT) and SIGTERM ask: the step under way is finished, a checkpoint is written, training ends. A second
    Ctrl-C ends at once; the checkpoint before stays. Only the main thread can listen for signals. Of several processes,
    one that is asked is enough: all save after the same step.

    Attributes:
        interrupted: whether a signal ended the run.
    """

    def __init__(
        self, out: Path, journal: Journal, *, every: int, keep: int, start: int, note: dict[str, Any]
    ) -> None:
        """`start`: step of the checkpoint the run continues from; `note`: goes into every checkpoint, as `retrace`."""
        self._out = out
        self._journal = journal
        self._every = every
        self._keep = keep
        self._saved = start
        self._note = note
        self._asked_to_stop = False
        self.interrupted = False

    def listen(self) -> Callable[[], None]:
        """Take the signals; returns what gives them back."""
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, self._asked)

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        return restore

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self._asked_to_stop and number == signal.SIGINT:
            raise RetraceError(
                f"Stopped at once; {self._out} holds the checkpoint of step {self._saved}. "
                "The same command continues from there."
            )
        self._asked_to_stop = True

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time or asked."""
        assert isinstance(module, TrainingModule)
        if (batch_idx + 1) % module.accumulate != 0:
            return
        step = trainer.global_step
        self.interrupted = processes.any_of(self._asked_to_stop, trainer.strategy.root_device)
        if step % self._every == 0 or self.interrupted or step == module.steps:
            self._save(trainer, step)
        if self.interrupted:
            trainer.should_stop = True

    def on_save_checkpoint(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Mark the file as ours."""
        checkpoint["retrace"] = self._note

    def _save(self, trainer: L.Trainer, step: int) -> None:
        if step == self._saved:
            return
        self._journal.settle(trainer)
        final = step_path(self._out, step)
        if trainer.is_global_zero:
            with atomic_path(final) as temporary:
                trainer.save_checkpoint(temporary)
            publish(final, self._out, self._keep)
        else:
            trainer.save_checkpoint(final)  # writes nothing, and waits until the first process has written
        self._saved = step
