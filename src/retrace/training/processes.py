"""Several processes, one run: who is who, waiting for each other, and starting them on one machine.

A process learns its place from the environment variables that `torchrun` sets (RANK, LOCAL_RANK, WORLD_SIZE,
LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT). So a cluster starts runs with torchrun, and `launch` does the same for one
machine.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from retrace.devices import choose_device
from retrace.errors import RetraceError, UsageError

_LAUNCHED = "RETRACE_LAUNCHED"  # set where stdin is a pipe that ends with the process that launched us
_KEYS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
GRACE = 30.0  # seconds that the others get to end by themselves when one process has ended


@dataclass(frozen=True)
class Place:
    """Where a process stands.

    Attributes:
        rank: number of the process, 0 to world - 1; the first one writes.
        local_rank: its number on its machine, which is that of its GPU.
        world: processes of the run.
        local_world: processes on this machine.
    """

    rank: int = 0
    local_rank: int = 0
    world: int = 1
    local_world: int = 1


def place() -> Place:
    """Of this process, from the environment; the only one where nothing was set."""
    if not all(key in os.environ for key in _KEYS):
        return Place()
    rank, local_rank, world, local_world = (int(os.environ[key]) for key in _KEYS[:4])
    return Place(rank, local_rank, world, local_world)


def own_device(name: str, here: Place) -> torch.device:
    """The device of a process: of several on a machine with GPUs, each takes the one of its number.

    Errors: UsageError for a device that is not there, or one GPU named for several processes.
    """
    device = choose_device(name)
    if here.local_world == 1 or device.type != "cuda":
        return device
    if device.index is not None:
        raise UsageError(
            f"device is {name}, but {here.local_world} processes train here, each on a GPU of its own. "
            "Give auto, cuda or cpu."
        )
    return choose_device(f"cuda:{here.local_rank}")


@contextmanager
def joined(device: torch.device) -> Iterator[Place]:
    """Connect the processes of the run for the length of the block; nothing for a single one.

    Errors: RetraceError when another process has gone.
    """
    here = place()
    if here.world == 1 or dist.is_initialized():
        yield here
        return
    if _LAUNCHED in os.environ:
        threading.Thread(target=_stop_with_launcher, daemon=True).start()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", rank=here.rank, world_size=here.world
    )
    try:
        yield here
    except RuntimeError as error:
        if re.search(r"closed by peer|reset by peer|Broken pipe|remote process exited", str(error)) is None:
            raise
        raise RetraceError(
            f"Process {here.rank} of {here.world} lost contact with another one, which has ended, so it stopped. "
            "The last checkpoint stays; the same command continues from there."
        ) from error
    finally:
        dist.destroy_process_group()


@contextmanager
def first_one_first(here: Place) -> Iterator[None]:
    """The first process does the block, then all others do it: they find what the first has written."""
    if here.rank > 0:
        dist.barrier()
    yield
    if here.rank == 0 and here.world > 1:
        dist.barrier()


def mean(numbers: torch.Tensor) -> torch.Tensor:
    """Mean over the processes; a new tensor."""
    if not dist.is_initialized():
        return numbers.clone()
    total = numbers.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def any_of(decision: bool, device: torch.device) -> bool:
    """Whether any process says so; all of them learn it."""
    if not dist.is_initialized():
        return decision
    votes = torch.tensor(float(decision), device=device)
    dist.all_reduce(votes)
    return bool(votes > 0)


def collected(mine: dict[str, str]) -> dict[str, str]:
    """The dicts of all processes in one."""
    if not dist.is_initialized():
        return dict(mine)
    everybodys: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everybodys, mine)
    return {key: value for one in everybodys for key, value in one.items()}


def _stop_with_launcher() -> None:
    """When stdin ends, which nobody writes to, stop as on SIGTERM."""
    os.read(0, 1)  # not by `sys.stdin`, whose lock would be held when the interpreter ends
    os.kill(os.getpid(), signal.SIGTERM)


def launch(command: Sequence[str], count: int) -> int:
    """Run a command as `count` processes of one run on this machine; wait for them.

    The first one has our stdout and stderr. What another one says on stderr is shown when it is the first to fail. When
    one has ended with an error, the others are stopped after a while. They are sessions of their own, so that Ctrl-C in
    a terminal reaches this process alone, which hands it on as it does SIGTERM; when this process dies, they stop too.

    Returns: exit status of the first process that ended with an error, 1 where a signal ended it; 0 when all is well.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ExitStack() as stack:
            said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count - 1)]
            for rank in range(count):
                numbers = (rank, rank, count, count, "127.0.0.1", port)
                settings = {key: str(value) for key, value in zip(_KEYS, numbers, strict=True)} | {
                    _LAUNCHED: "1"
                }
                ends: dict[str, Any] = {"stdin": subprocess.PIPE, "start_new_session": True}
                if rank > 0:
                    ends |= {"stdout": subprocess.DEVNULL, "stderr": said[rank - 1]}
                children.append(subprocess.Popen(list(command), env={**os.environ, **settings}, **ends))
            failed = _wait(children)
            if failed is not None and failed > 0:
                said[failed - 1].seek(0)
                text = said[failed - 1].read().decode(errors="replace")
                sys.stderr.write(f"Process {failed} of {count}:\n{text}" if text else "")
            if failed is not None and children[failed].returncode < 0:
                sys.stderr.write(
                    f"Process {failed} of {count} was ended by signal {-children[failed].returncode}. Did memory run "
                    "out? The same command continues from the last checkpoint.\n"
                )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0 if failed is None else max(1, children[failed].returncode)


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Number of the child that was the first to end with an error, the first process if it is among them; or None."""
    failed: int | None = None
    deadline = float("inf")
    while any(child.poll() is None for child in children):
        bad = [rank for rank, child in enumerate(children) if child.poll() not in (None, 0)]
        if bad and failed is None:
            failed, deadline = bad[0], time.monotonic() + GRACE
        if time.monotonic() > deadline:
            for child in children:
                child.kill()
        time.sleep(0.05)
    bad = [rank for rank, child in enumerate(children) if child.returncode != 0]
    return failed if failed is not None else bad[0] if bad else None
