"""Every sequence of a benchmark, in one process or several: what is done is kept, what is bad is told.

Each sequence is computed by one process with one torch thread (on a CPU), so that results do not depend on how many
processes there are.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from retrace.benchmarks.records import CLASSIFIER, Job, SequenceResult, Store
from retrace.datasets.records import Sequence
from retrace.errors import RetraceError
from retrace.threads import end_with_parent


@dataclass
class Outcome:
    """What a run came to."""

    results: list[SequenceResult] = field(default_factory=list)
    """In the order of the data set."""
    failures: dict[str, str] = field(default_factory=dict)
    """Sequence -> why it could not be evaluated."""
    kept: int = 0
    """Sequences that an earlier run had finished."""
    notes: list[str] = field(default_factory=list)
    """What was odd before the first sequence."""


class Bench:
    """The benchmark inside one process: its sequences, its carrier."""

    def __init__(self, job: Job) -> None:
        """Load data and model. Errors: RetraceError."""
        self.job = job
        self.benchmark = job.find(job.benchmark)
        self.store = Store(job.folder, job.fingerprint)
        self._sequences: dict[str, Sequence[Any]] = {
            sequence.name: sequence for sequence in self.benchmark.load(job.root, job.split).sequences
        }
        self._carrier = job.carrier.build(
            lambda model: self.benchmark.encoder(model, job.options), job.folder / CLASSIFIER
        )

    def run(self, name: str) -> SequenceResult:
        """Carry, score and keep one sequence. Errors: RetraceError when it is bad."""
        start = time.perf_counter()
        submission = self.store.submission()
        try:
            with one_thread(self.job.carrier.device):
                result = self.benchmark.score(
                    self._sequences[name], self._carrier, submission, self.job.options
                )
        except RetraceError:
            submission.discard()
            raise
        result = replace(result, seconds=time.perf_counter() - start, peak_megabytes=peak_megabytes())
        self.store.save(result, submission)
        return result


def run(
    job: Job, names: list[str], *, workers: int, progress: Callable[[str, SequenceResult | str], None]
) -> Outcome:
    """Evaluate sequences; those that an earlier run finished are taken over.

    Args:
        job: what to do.
        names: of the sequences, in the order of the data set.
        workers: processes; 1 works in this one.
        progress: called with every sequence's name and its result, or why it has none.

    Errors: RetraceError when the model or the data cannot be loaded, or a process dies. What was finished is kept.
    """
    store = Store(job.folder, job.fingerprint)
    found: dict[str, SequenceResult] = {}
    for name in names:
        if (kept := store.read(name)) is not None:
            found[name] = kept
            progress(name, kept)
    outcome = Outcome(kept=len(found))
    waiting = [name for name in names if name not in found]
    prepare = job.find(job.benchmark).prepare
    if prepare is not None:
        with one_thread(job.carrier.device):
            outcome.notes = prepare(job, names)
    for name, result in _done(job, waiting, workers):
        if isinstance(result, str):
            outcome.failures[name] = result
        else:
            found[name] = result
        progress(name, result)
    outcome.results = [found[name] for name in names if name in found]
    return outcome


def _done(job: Job, names: list[str], workers: int) -> Iterator[tuple[str, SequenceResult | str]]:
    """Name and result of every sequence as it is finished, or the sentence of why it is bad."""
    if not names:
        return
    if workers == 1:
        bench = Bench(job)
        for name in names:
            yield name, _result_of(bench, name)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(names)), context, initializer=_begin, initargs=(job,)) as pool:
        try:
            waiting: dict[Future[SequenceResult | str], str] = {
                pool.submit(_in_process, name): name for name in names
            }
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool as error:
            raise RetraceError(
                "A worker process died, most likely for want of memory. What was finished is kept: run again, with "
                'fewer --workers. (A script of one\'s own has to call this under `if __name__ == "__main__":`.)'
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _result_of(bench: Bench, name: str) -> SequenceResult | str:
    """The result, or the sentence of a sequence that is bad; everything else that goes wrong is no sequence's fault."""
    try:
        return bench.run(name)
    except RetraceError as error:
        return str(error)


_bench: Bench | None = None


def _begin(job: Job) -> None:
    global _bench
    end_with_parent()
    _bench = Bench(job)


def _in_process(name: str) -> SequenceResult | str:
    assert _bench is not None
    return _result_of(_bench, name)


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """One torch thread on a CPU meanwhile: sums are then added in one order, however many processes there are."""
    before = torch.get_num_threads()
    if torch.device(device).type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_megabytes() -> float:
    """Largest memory that this process had."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
