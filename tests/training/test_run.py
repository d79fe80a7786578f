"""Interrupted and resumed runs end with the weights of the uninterrupted run.

The run is of a fake method on made-up clips. This file is also the script of such a run, to be killed by its tests.
"""

import argparse
import copy
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from retrace.errors import RetraceError, UsageError
from retrace.methods.losses import Losses
from retrace.training import checkpoints
from retrace.training.config import CheckpointConfig, LogConfig, TrainConfig
from retrace.training.curves import read_curves
from retrace.training.processes import Place, own_device
from retrace.training.run import FitResult, fit
from retrace.training.schedule import OptimizerConfig, ScheduleConfig


class TinyMethod(nn.Module):
    """Conv, batch norm, dropout, a queue and a momentum encoder: everything a resume can get wrong."""

    def __init__(self, seed: int = 0, at_step: Callable[[int], None] | None = None) -> None:
        """`at_step` is called with the number of the forward pass."""
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, 4, 1)
        self.momentum = copy.deepcopy(self.encoder).requires_grad_(False)
        self.register_buffer("queue", torch.randn(12, 4))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))
        self.calls = 0
        self.at_step = at_step

    def forward(self, views: dict[str, Tensor]) -> Losses:
        """Loss of a batch."""
        self.calls += 1
        if self.at_step is not None:
            self.at_step(self.calls)
        maps = nn.functional.dropout(self.head(self.encoder(views["image"])), 0.2)
        found = maps.mean(dim=(2, 3))
        total = (found - views["target"]).square().mean() + 0.1 * (
            found @ self.queue.clone().T
        ).square().mean()
        with torch.no_grad():
            for mean, value in zip(self.momentum.parameters(), self.encoder.parameters(), strict=True):
                mean.lerp_(value, 0.1)
            keys = self.head(self.momentum(views["image"])).mean(dim=(2, 3))
            self.queue[int(self.place) : int(self.place) + len(keys)] = keys
            self.place.add_(len(keys)).remainder_(len(self.queue))
        return Losses(total, {"mean": maps.detach().mean()})


class TinyClips(Dataset[dict[str, Tensor]]):
    """Item i depends on i alone."""

    def __init__(self, broken_from: int | None = None) -> None:
        """From item `broken_from` on, a video counts as broken."""
        self.sources = [self]
        self.failures: dict[str, str] = {}
        self.broken_from = broken_from

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Random image and target."""
        if self.broken_from is not None and index >= self.broken_from:
            self.failures["bad.mp4"] = "truncated"
        generator = torch.Generator().manual_seed(index)
        return {
            "image": torch.randn(3, 12, 10, generator=generator),
            "target": torch.randn(4, generator=generator),
        }


def tiny_config(out: Path, **changes: object) -> TrainConfig:
    """Six steps of three."""
    settings: dict[str, object] = {
        "steps": 6,
        "batch_size": 3,
        "workers": 0,
        "threads": 1,
        "device": "cpu",
        "ema": 0.9,
        "optimizer": OptimizerConfig(name="adamw", lr=1e-2, weight_decay=0.01, clip=1.0),
        "schedule": ScheduleConfig(name="cosine", warmup=2),
        "checkpoint": CheckpointConfig(every=2, keep=2),
        "log": LogConfig(every=2, tensorboard=False),
        "out": str(out),
    }
    settings.update(changes)
    return TrainConfig(**settings)  # type: ignore[arg-type]


def tiny_fit(
    out: Path, at_step: Callable[[int], None] | None = None, overwrite: bool = False, **changes: object
) -> FitResult:
    """Run it."""
    config = tiny_config(out, **changes)
    return fit(TinyMethod(config.seed, at_step), TinyClips(), config, overwrite=overwrite, progress=False)


class PowerCut(BaseException):
    """Something nobody catches."""


def cut_at(call: int):
    """Something that cuts the power in a forward pass."""

    def at_step(calls: int) -> None:
        if calls == call:
            raise PowerCut

    return at_step


def weights(result: FitResult) -> dict[str, torch.Tensor]:
    """Everything the run ended with."""
    return result.module.state_dict()


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Equal to the bit."""
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


@pytest.mark.parametrize(("workers", "accumulate"), [(0, 1), (2, 1), (0, 2), (2, 2)])
def test_resume_mid_epoch_is_bit_identical(tmp_path, workers, accumulate):
    """The promise, with and without workers and accumulation."""
    straight = tiny_fit(tmp_path / "straight", accumulate=accumulate)
    # Dies in step 5: steps 1-4 done, checkpoint of step 4 there, batches prefetched and lost.
    with pytest.raises(PowerCut):
        tiny_fit(tmp_path / "cut", cut_at(4 * accumulate + 1), workers=workers, accumulate=accumulate)
    resumed = tiny_fit(tmp_path / "cut", workers=workers, accumulate=accumulate)
    assert resumed.resumed_from == 4
    assert resumed.step == straight.step == 6
    assert_same(weights(straight), weights(resumed))
    assert [row["step"] for row in read_curves(tmp_path / "cut" / "metrics.csv")] == [1, 2, 4, 6]
    one, other = (read_curves(tmp_path / name / "metrics.csv") for name in ("straight", "cut"))
    for row, again in zip(one, other, strict=True):
        for key in ("loss", "mean", "grad_norm", "lr"):
            assert row[key] == again[key]


def test_death_between_checkpoints_repeats_the_lost_steps(tmp_path):
    """A checkpoint every two steps, dead after three."""
    straight = tiny_fit(tmp_path / "straight")
    with pytest.raises(PowerCut):
        tiny_fit(tmp_path / "cut", cut_at(4))  # step 3 is done and lost
    assert read_curves(tmp_path / "cut" / "metrics.csv")[-1]["step"] == 2
    resumed = tiny_fit(tmp_path / "cut")
    assert resumed.resumed_from == 2
    assert_same(weights(straight), weights(resumed))


def _start(out: Path, *flags: str) -> subprocess.Popen[bytes]:
    out.mkdir()
    return subprocess.Popen([sys.executable, __file__, str(out), *flags])


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "the run ended before it was interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 0)])
def test_signal_leaves_a_resumable_checkpoint(tmp_path, number, workers):
    """Ctrl-C and a scheduler's SIGTERM."""
    changes = {"steps": 8, "checkpoint": CheckpointConfig(every=3, keep=2)}
    straight = tiny_fit(tmp_path / "straight", **changes)
    process = _start(tmp_path / "run", "--workers", str(workers))
    _wait_for(tmp_path / "run" / "five", process)
    process.send_signal(number)
    (tmp_path / "run" / "go").touch()
    assert process.wait(120) == 130
    saved = checkpoints.read_checkpoint(tmp_path / "run" / "last.ckpt")["global_step"]
    assert saved == 5  # the step under way was finished, whatever `every` says
    resumed = tiny_fit(tmp_path / "run", **changes)
    assert resumed.resumed_from == saved
    assert_same(weights(straight), weights(resumed))


def test_kill_9_resumes_from_the_last_checkpoint(tmp_path):
    """Nothing can be written when that happens. While it lives, nobody else gets into its folder."""
    changes = {"steps": 8, "checkpoint": CheckpointConfig(every=3, keep=2)}
    straight = tiny_fit(tmp_path / "straight", **changes)
    process = _start(tmp_path / "run", "--workers", "2")
    _wait_for(tmp_path / "run" / "five", process)
    with pytest.raises(RetraceError, match="Another `retrace train` is writing"):
        tiny_fit(tmp_path / "run", **changes)
    process.kill()
    process.wait(120)
    resumed = tiny_fit(tmp_path / "run", **changes)
    assert resumed.resumed_from == 3
    assert_same(weights(straight), weights(resumed))


def test_a_finished_run_is_left_alone_and_overwrite_starts_anew(tmp_path):
    """The same command again is harmless."""
    first = tiny_fit(tmp_path)
    again = tiny_fit(tmp_path)
    assert (again.resumed_from, again.step, again.clips, again.interrupted) == (6, 6, 0, False)
    assert_same(weights(first), weights(again))
    anew = tiny_fit(tmp_path, overwrite=True)
    assert anew.resumed_from == 0
    assert_same(weights(first), weights(anew))


def test_another_configuration_is_refused_by_key(tmp_path):
    """What matters may not change, what does not may."""
    tiny_fit(tmp_path, steps=2)
    with pytest.raises(UsageError, match=r"optimizer.lr was 0.01, now 0.5"):
        tiny_fit(
            tmp_path, steps=2, optimizer=OptimizerConfig(name="adamw", lr=0.5, weight_decay=0.01, clip=1.0)
        )
    with pytest.raises(UsageError, match=r"steps was 2, now 4"):  # a cosine is stretched by more steps
        tiny_fit(tmp_path, steps=4)
    tiny_fit(tmp_path, steps=2, workers=1, log=LogConfig(every=1, tensorboard=False))


def test_nan_stops_with_a_sentence_and_keeps_the_good_checkpoint(tmp_path):
    """The step, the term, and the state before."""

    class Nan(TinyMethod):
        def forward(self, views):
            """NaN in the fourth step."""
            losses = super().forward(views)
            if self.calls == 4:
                losses.total = losses.total * float("nan")
            return losses

    config = tiny_config(tmp_path)
    with pytest.raises(RetraceError, match=r"Step 4: loss is nan, .* Its samples are 9 to 11\."):
        fit(Nan(), TinyClips(), config, progress=False)
    loaded = checkpoints.read_checkpoint(tmp_path / "last.ckpt")
    assert loaded["global_step"] == 2
    assert all(value.isfinite().all() for value in loaded["state_dict"].values())


def test_nan_in_a_pass_of_several_names_the_samples_of_that_pass(tmp_path):
    """Steps of two passes of three: the seventh pass is the first one of step 4."""

    class Nan(TinyMethod):
        def forward(self, views):
            """NaN in the seventh pass."""
            losses = super().forward(views)
            losses.total = losses.total * (float("nan") if self.calls == 7 else 1)
            return losses

    with pytest.raises(RetraceError, match=r"Step 4: loss is nan, .* Its samples are 18 to 20\."):
        fit(Nan(), TinyClips(), tiny_config(tmp_path, accumulate=2), progress=False)
    assert checkpoints.read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 2


def test_compile_without_a_compiler_is_said_and_left_out(tmp_path, monkeypatch, caplog):
    """The run is the same. What compiling does is torch's, and takes too long for a test."""
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    compiled = tiny_fit(tmp_path / "compiled", steps=2, compile=True)
    said = [record.getMessage() for record in caplog.records if "compile" in record.getMessage()]
    assert len(said) == 1
    assert f"no C++ compiler ({tmp_path / 'no-compiler'}; the variable CXX names another)" in said[0]
    assert_same(weights(compiled), weights(tiny_fit(tmp_path / "plain", steps=2)))


def test_no_room_for_a_checkpoint_keeps_the_one_before(tmp_path):
    """A file may not grow beyond half of what a checkpoint needs: what a full disk looks like to a process."""
    straight = tiny_fit(tmp_path / "straight")
    out = tmp_path / "run"
    size = (tmp_path / "straight" / "last.ckpt").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fills_up(call: int) -> None:
        if call == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))

    try:
        with pytest.raises(
            RetraceError, match=r"Cannot write .*step-00000004.ckpt: File too large\. Choose a folder"
        ):
            tiny_fit(out, fills_up)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000002.ckpt"]
    assert checkpoints.read_checkpoint(out / "last.ckpt")["global_step"] == 2
    resumed = tiny_fit(out)
    assert resumed.resumed_from == 2
    assert_same(weights(straight), weights(resumed))


def test_collapse_is_said_once(tmp_path, caplog):
    """With the number, what it was, and where to look."""

    class Collapsing(TinyMethod):
        def forward(self, views):
            """All features alike from the third step on."""
            losses = super().forward(views)
            losses.terms["feature_std"] = torch.tensor(0.3 if self.calls < 3 else 0.01)
            return losses

    fit(Collapsing(), TinyClips(), tiny_config(tmp_path, steps=5, log=LogConfig(1, False)), progress=False)
    said = [record.getMessage() for record in caplog.records if "collapse" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("Step 3: feature_std is 0.01, it was 0.3: all nodes look alike")
    assert "optimizer.lr" in said[0]


def test_measurements_stand_in_the_curves(tmp_path):
    """Before the first step, every second one and after the last; of the exported encoder; off by one flag."""
    seen = []

    def measure(encoder: nn.Module) -> dict[str, float]:
        assert not encoder.training
        seen.append(encoder.state_dict()["0.weight"].clone())
        return {"score": float(len(seen))}

    config = tiny_config(tmp_path / "on", steps=5, log=LogConfig(1, False, probe=2))
    result = fit(TinyMethod(), TinyClips(), config, progress=False, measure=measure)
    rows = read_curves(tmp_path / "on" / "metrics.csv")
    assert [row.get("score") for row in rows] == [1, 2, None, 3, 4]
    assert torch.equal(seen[-1], result.module.export_encoder().state_dict()["0.weight"])
    assert_same(
        weights(result), weights(tiny_fit(tmp_path / "off", steps=5, log=LogConfig(1, False, probe=0)))
    )
    count = len(seen)
    fit(
        TinyMethod(),
        TinyClips(),
        tiny_config(tmp_path / "never", log=LogConfig(1, False, probe=0)),
        progress=False,
        measure=measure,
    )
    assert len(seen) == count


def test_failures_come_out_of_the_workers(tmp_path):
    """Workers meet broken videos; the run knows."""
    config = tiny_config(tmp_path, workers=2)
    result = fit(TinyMethod(), TinyClips(broken_from=9), config, progress=False)
    assert result.failures == {"bad.mp4": "truncated"}


def test_checkpoints_kept_and_average_exported(tmp_path):
    """The latest two, and the averaged encoder."""
    result = tiny_fit(tmp_path, steps=7)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000006.ckpt", "step-00000007.ckpt"]
    encoder, averaged = result.module.export_encoder().state_dict(), result.module.averaged
    assert averaged is not None
    assert_same(encoder, dict(averaged.state_dict()))
    assert not torch.equal(encoder["0.weight"], result.module.encoder.state_dict()["0.weight"])
    assert result.step_clips_per_s is not None


def test_damaged_checkpoint_gets_a_sentence(tmp_path):
    """Half a file."""
    tiny_fit(tmp_path, steps=2)
    last = tmp_path / "last.ckpt"
    data = last.read_bytes()
    last.unlink()
    last.write_bytes(data[: len(data) // 2])
    with pytest.raises(RetraceError, match="cannot be read as a checkpoint"):
        tiny_fit(tmp_path, steps=2)


@pytest.mark.parametrize("device", ["cpuu", "mps", "cuda:99"])
def test_impossible_devices_are_refused(device):
    """Before anything is written."""
    with pytest.raises(UsageError, match="Device"):
        own_device(device, Place())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()

    def stop_in_five(call: int) -> None:
        """In the fifth step, say so and wait for the test."""
        if call == 5:
            (options.out / "five").touch()
            while not (options.out / "go").exists():
                time.sleep(0.02)

    result = tiny_fit(
        options.out,
        stop_in_five,
        workers=options.workers,
        steps=options.steps,
        checkpoint=CheckpointConfig(every=3, keep=2),
    )
    raise SystemExit(130 if result.interrupted else 0)
