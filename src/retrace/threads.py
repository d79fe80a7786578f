"""Work beside other work: a thread that follows behind, one that runs ahead, and processes that leave none behind."""

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Worker(Generic[Item]):
    """A thread that does one thing to every item, in order, at most `depth` items behind.

    Args:
        work: what to do.
        depth: items that may wait.

    Attributes:
        seconds: spent in `work`.
    """

    def __init__(self, work: Callable[[Item], None], *, depth: int = 4) -> None:
        """See the class."""
        self.seconds = 0.0
        self._work = work
        self._items: queue.Queue[Item | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand over an item; waits when `depth` are waiting. Errors: whatever `work` raised before."""
        if self._error is not None:
            raise self._error
        self._items.put(item)

    def close(self) -> None:
        """Wait until everything is done. Errors: whatever `work` raised."""
        if self._thread.is_alive():
            self._items.put(None)
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            if self._error is not None:
                continue  # after an error the rest is only taken off the queue, so that nobody waits for ever
            start = time.perf_counter()
            try:
                self._work(item)
            except BaseException as error:  # handed to the thread that calls put or close
                self._error = error
            self.seconds += time.perf_counter() - start


def ahead(frames: Iterator[Item], *, depth: int = 4) -> Iterator[tuple[Item, float]]:
    """Iterate on a background thread, at most `depth` items ahead; closing the generator ends the thread.

    Yields: the item, and the seconds that making it took.
    """
    ready: queue.Queue[tuple[Item, float] | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def give(item: tuple[Item, float] | BaseException | None) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def run() -> None:
        try:
            start = time.perf_counter()
            for item in frames:
                give((item, time.perf_counter() - start))
                if stop.is_set():
                    return
                start = time.perf_counter()
            give(None)
        except BaseException as error:  # raised again where the frames are used
            give(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        stop.set()
        thread.join()


def end_with_parent() -> None:
    """In a process of `multiprocessing`: end it when the process that started it is gone, however that ended.

    A pool's workers wait for work for ever when their parent is killed: nobody closes the queue.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
