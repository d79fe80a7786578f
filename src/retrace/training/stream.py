"""The endless stream of batches a run eats, from any global sample number on."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from retrace.errors import RetraceError
from retrace.video.loader import ResumableSampler, Views, batches_of, seed_worker


@dataclass(frozen=True)
class _Item:
    """What a worker has to say about a sample: its views, or why there are none; and videos that newly failed."""

    views: Views
    failures: dict[str, str]
    error: str | None = None

    def pin_memory(self) -> "_Item":
        """For the DataLoader, which asks every batch of an unknown type."""
        return replace(self, views={name: value.pin_memory() for name, value in self.views.items()})


class _WithFailures(Dataset[_Item]):
    """Items of a dataset together with what went wrong while they were made.

    The sources live in the worker processes; this is how what they met gets out. An error travels as a sentence,
    because torch would send it with the worker's traceback in its message.
    """

    def __init__(self, dataset: Dataset[Views]) -> None:
        self._dataset = dataset
        self._reported: set[str] = set()

    def __getitem__(self, index: int) -> _Item:
        try:
            views = self._dataset[index]
        except RetraceError as error:
            return _Item({}, {}, str(error))
        failures = {}
        for source in getattr(self._dataset, "sources", ()):
            for path, reason in getattr(source, "failures", {}).items():
                if path not in self._reported:
                    failures[str(path)] = str(reason)
        self._reported.update(failures)
        return _Item(views, failures)


def _collate(items: list[_Item]) -> _Item:
    error = next((item.error for item in items if item.error is not None), None)
    failures = {path: reason for item in items for path, reason in item.failures.items()}
    return _Item({} if error else default_collate([item.views for item in items]), failures, error)


def _prepare_worker(worker: int) -> None:
    """One thread per worker; a Ctrl-C in the terminal reaches every process, and is the main process's to answer."""
    seed_worker(worker)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class ClipStream:
    """Batches of views, in the order of their global sample numbers, whatever the number of workers.

    Each of several processes takes its share of every batch, so that together they eat the same samples as one would.
    It has no length and no epochs: item i is a function of (seed, i) alone, and a run of n steps eats the items
    0 ... n * batch_size * accumulate - 1. Resuming is a start position. Batches that were prefetched but not used
    before an interruption are simply made again.

    Attributes:
        waited: seconds the consumer has waited for batches so far.
        failures: video -> reason, of everything that could not be read so far.
    """

    def __init__(
        self,
        dataset: Dataset[Views],
        *,
        batch_size: int,
        start: int = 0,
        workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`start`: global number of the first sample. Process `rank` of `world` takes every world-th sample."""
        self._loader: DataLoader[Any] = DataLoader(
            _WithFailures(dataset),
            batch_size=batch_size,
            sampler=ResumableSampler(position=start, rank=rank, world=world),
            num_workers=workers,
            collate_fn=_collate,
            worker_init_fn=_prepare_worker,
            pin_memory=pin_memory,
            prefetch_factor=4 if workers else None,
            # The base seed of workers comes from here and not from the global generator, whose draws are the
            # method's; items seed themselves anyway.
            generator=torch.Generator().manual_seed(0),
        )
        self.waited = 0.0
        self.failures: dict[str, str] = {}

    def __iter__(self) -> Iterator[Views]:
        """Endless. Workers are stopped when the iterator is closed or collected.

        Errors: RetraceError when a sample cannot be made.
        """
        batches = batches_of(self._loader)
        while True:
            began = time.perf_counter()
            batch = next(batches)
            self.waited += time.perf_counter() - began
            self.failures.update(batch.failures)
            if batch.error is not None:
                raise RetraceError(batch.error)
            yield batch.views


def failures_by_reason(failures: dict[str, str]) -> list[tuple[str, int]]:
    """Reasons with how many videos each, the most frequent first."""
    return Counter(failures.values()).most_common()
