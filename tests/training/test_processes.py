"""Two processes (gloo) train as one does with the same batch, where that is mathematically so.

STFC3 here, interrupted and continued, with clips that fail; every method in test_dealt_batches.py. Batch normalisation
uses its running statistics, nothing is drawn, and the loss is a mean over clips.

This file is also the script that the processes run.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from retrace.encoders import EncoderConfig
from retrace.errors import RetraceError, UsageError
from retrace.methods.stfc3 import STFC3, STFC3Config, STFC3Views
from retrace.training import checkpoints, processes
from retrace.training.config import CheckpointConfig, LogConfig, TrainConfig
from retrace.training.curves import read_curves
from retrace.training.processes import Place
from retrace.training.run import FitResult, check_processes, fit
from retrace.training.schedule import OptimizerConfig

CONFIG = STFC3Config(
    clip_length=2,
    crop_size=32,
    edge_dropout=0.0,
    colour="none",
    direct_weight=1.0,
    projector_hidden=16,
    projector_outputs=8,
)


class Frozen(STFC3):
    """Batch normalisation as in evaluation, so that a clip's loss does not depend on the others."""

    def train(self, mode: bool = True) -> "Frozen":
        """All but the normalisation."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class Clips(Dataset[dict[str, Tensor]]):
    """Smooth noise; item i depends on i alone. One clip is broken."""

    def __init__(self, gate: Path | None = None) -> None:
        """Nothing broken yet. From the third batch on, say so at the gate and wait until it opens."""
        self.gate = gate
        self.sources = [self]
        self.failures: dict[str, str] = {}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Views of a clip of two frames, 40 x 56."""
        generator = torch.Generator().manual_seed(index)
        if self.gate is not None and index >= 16:
            (self.gate / "waits").touch()
            while not (self.gate / "open").exists():
                time.sleep(0.02)
        if index == 5:
            self.failures["five.mp4"] = "truncated"
        small = torch.rand(2, 3, 10, 14, generator=generator)
        clip = nn.functional.interpolate(small, scale_factor=4, mode="bilinear") * 255
        return STFC3Views(CONFIG)(clip.to(torch.uint8), generator)


def train(out: Path, steps: int, accumulate: int = 1, gate: Path | None = None) -> FitResult:
    """A run of batches of four, in this process or its share of it."""
    config = TrainConfig(
        stfc3=CONFIG,
        steps=steps,
        batch_size=4,
        accumulate=accumulate,
        workers=0,
        threads=1,
        device="cpu",
        optimizer=OptimizerConfig(name="sgd", lr=0.05),
        checkpoint=CheckpointConfig(every=2, keep=1),
        log=LogConfig(every=1, tensorboard=False),
        out=str(out),
    )
    torch.manual_seed(0)
    method = Frozen(EncoderConfig(width=0.125, cut="layer2").build(), CONFIG).train()
    result = fit(method, Clips(gate), config, progress=False)
    assert result.failures == ({"five.mp4": "truncated"} if result.resumed_from == 0 else {})
    assert result.clips == 4 * accumulate * (result.step - result.resumed_from)
    return result


LAUNCH = (
    "import sys; from retrace.training import processes; raise SystemExit(processes.launch(sys.argv[1:], 2))"
)


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def launched(command: list[str], ready: list[Path]) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A process that launches two of a command, and these two, once the files are there."""
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCH, *command])
    while not all(path.exists() for path in ready):
        assert launcher.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    assert len(children) == 2
    return launcher, [int(child) for child in children]


def assert_gone(children: list[int]) -> None:
    """Soon."""
    deadline = time.monotonic() + 60
    while any(map(alive, children)):
        assert time.monotonic() < deadline, "a process of the run outlived its launcher"
        time.sleep(0.02)


by_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes by /proc")


@by_proc
def test_two_processes_are_one_with_the_same_batch(tmp_path):
    """Losses of every step and the weights; interrupted by Ctrl-C, which leaves one checkpoint and no process."""
    steps, out, gate = 6, tmp_path / "two", tmp_path / "gate"
    train(tmp_path / "one", steps, accumulate=2)
    gate.mkdir()
    command = [sys.executable, __file__, str(out), "--steps", str(steps), "--accumulate", "2"]
    launcher, children = launched([*command, "--gate", str(gate)], [gate / "waits"])
    launcher.send_signal(signal.SIGINT)
    time.sleep(0.2)
    (gate / "open").touch()
    assert launcher.wait(60) == 130
    assert_gone(children)
    step = checkpoints.read_checkpoint(out / "last.ckpt")["global_step"]
    assert 1 <= step < steps
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step-{step:08d}.ckpt"]
    assert not list(out.rglob(".*"))

    assert processes.launch(command, 2) == 0
    one, two = (read_curves(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    assert [row["step"] for row in two] == list(range(1, steps + 1))
    for row, other in zip(one, two, strict=True):
        for key in ("loss", "cycle", "direct", "grad_norm"):
            assert other[key] == pytest.approx(row[key], rel=1e-3), (row["step"], key)
    alone, shared = (checkpoints.read_checkpoint(tmp_path / name / "last.ckpt") for name in ("one", "two"))
    before = Frozen(EncoderConfig(width=0.125, cut="layer2").build(), CONFIG).state_dict()
    moved = 0
    for key, value in alone["state_dict"].items():
        torch.testing.assert_close(shared["state_dict"][key], value, rtol=1e-3, atol=1e-5)
        moved += not torch.equal(value, before[key.removeprefix("method.")])
    assert moved > 10


WAITING = """
import sys, time, torch
from pathlib import Path
from retrace.training import processes
with processes.joined(torch.device("cpu")) as here:
    (Path(sys.argv[1]) / str(here.rank)).touch()
    time.sleep(600)
"""


@by_proc
def test_a_killed_launcher_leaves_no_process(tmp_path):
    """They notice, and stop as when asked by SIGTERM."""
    command = [sys.executable, "-c", WAITING, str(tmp_path)]
    launcher, children = launched(command, [tmp_path / "0", tmp_path / "1"])
    launcher.kill()
    assert launcher.wait(60) == -signal.SIGKILL
    assert_gone(children)


FAILING = """
import os, time
if os.environ["RANK"] == "1":
    raise SystemExit("this process fails on purpose")
time.sleep(600)
"""


def test_a_process_that_fails_ends_the_others(capfd, monkeypatch):
    """What it said is shown; nobody waits for it for ever."""
    monkeypatch.setattr(processes, "GRACE", 0.1)
    assert processes.launch([sys.executable, "-c", FAILING], 2) == 1
    said = capfd.readouterr().err
    assert "Process 1 of 2" in said
    assert "on purpose" in said


KILLED = """
import os, sys, time, torch, torch.distributed as dist
from retrace.errors import RetraceError
from retrace.training import processes
try:
    with processes.joined(torch.device("cpu")) as here:
        if here.rank == 1:
            os.kill(os.getpid(), 9)
        dist.barrier()
except RetraceError as error:
    raise SystemExit(str(error))
"""


def test_a_process_that_is_killed_is_a_sentence_of_the_others(capfd):
    """And the status is 1."""
    assert processes.launch([sys.executable, "-c", KILLED], 2) == 1
    said = capfd.readouterr().err
    assert "Process 0 of 2 lost contact with another one, which has ended" in said
    assert "Process 1 of 2 was ended by signal 9." in said
    assert "Traceback" not in said


def test_place_is_what_torchrun_says(monkeypatch):
    """All of it or nothing."""
    assert processes.place() == Place()
    monkeypatch.setenv("RANK", "3")
    assert processes.place() == Place()
    for key, value in {"LOCAL_RANK": 1, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": 1}.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert processes.place() == Place(3, 1, 4, 2)
    assert processes.own_device("cpu", processes.place()) == torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "here", "sentence"),
    [
        ({"batch_size": 7}, Place(0, 0, 2, 2), "batch_size is 7, over 2 processes; expected a multiple of 2"),
        ({"devices": 2}, Place(), "trains alone or among 1"),
    ],
)
def test_what_cannot_be_shared_is_refused(changes, here, sentence):
    """By the name of the key."""
    config = TrainConfig(steps=1, out="x", **changes)
    with pytest.raises(UsageError, match=sentence):
        check_processes(config, here)
    assert issubclass(UsageError, RetraceError)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--gate", type=Path)
    options = parser.parse_args()
    done = train(options.out, options.steps, options.accumulate, options.gate)
    raise SystemExit(130 if done.interrupted else 0)
