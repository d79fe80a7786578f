"""An optimiser step is the same however its batch is dealt: in one pass, in several (`accumulate`), to two processes.

Where that is mathematically so: batch normalisation uses its running statistics here, or is synchronised; nothing is
drawn in the main process. docs/tutorials/train.md says what is not equal. This file is also the script that the
processes run.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from retrace.encoders import EncoderConfig
from retrace.methods import METHODS, rebuilding
from retrace.methods.crw import CRWConfig
from retrace.methods.moco import MoCoConfig
from retrace.methods.retrace import RetraceConfig
from retrace.methods.stfc3 import STFC3Config
from retrace.methods.stt import StTConfig
from retrace.methods.timecycle import TimeCycleConfig
from retrace.methods.vfs import VFSConfig
from retrace.training import checkpoints, processes
from retrace.training.config import CheckpointConfig, LogConfig, TrainConfig
from retrace.training.curves import read_curves
from retrace.training.run import fit
from retrace.training.schedule import OptimizerConfig

STEPS, CLIPS = 2, 4  # clips per optimiser step


@dataclass(frozen=True)
class Case:
    """A method at a size of nothing, without draws."""

    method: str
    config: Any
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(width=0.125, cut="layer2"))
    sync_bn: bool = False
    lr: float = 0.05


_PROJECTOR = {"projector_hidden": 16, "projector_outputs": 8}
_MOCO = {"crop_size": 32, "projector_outputs": 8, "momentum": 0.5}
_DEEP = EncoderConfig(width=0.125, strides=(1, 2, 2, 1), cut="layer4")
CASES = {
    "stfc3": Case(
        "stfc3", STFC3Config(clip_length=2, crop_size=32, edge_dropout=0.0, colour="none", **_PROJECTOR)
    ),
    "crw": Case(
        "crw",
        CRWConfig(
            clip_length=3, image_size=48, patch_size=24, patch_stride=12, edge_dropout=0.0, head_outputs=8
        ),
    ),
    "retrace": Case(
        "retrace",
        RetraceConfig(clip_length=3, crop_size=32, radius=2),
        EncoderConfig(width=0.125, strides=(1, 2, 1, 1), stem_pool=False, cut="layer3"),
    ),
    "timecycle": Case(
        "timecycle",
        TimeCycleConfig(num_past=2, crop_size=48, short_side=48, patch_choice="uniform", localizer_kernel=1),
        EncoderConfig(width=0.125, cut="layer2", reduction=8),
        lr=0.005,
    ),
    "stt": Case(
        "stt",
        StTConfig(crop_size=32, radius=(2, 1), beta=0.0, alpha=1.0),
        EncoderConfig(width=0.125, strides=(1, 2, 2, 1), stem_pool=False, cut="layer3"),
    ),
    "vfs-sync": Case("vfs", VFSConfig(clip_length=4, crop_size=32), _DEEP, sync_bn=True, lr=0.005),
    "vfs-queue": Case("vfs", VFSConfig(clip_length=4, negatives=True, queue_length=32, **_MOCO), _DEEP),
    "moco": Case("moco", MoCoConfig(queue_length=16, **_MOCO), _DEEP),
}


class Clips(Dataset[dict[str, Tensor]]):
    """Views of smooth noise; item i depends on i alone."""

    def __init__(self, case: Case) -> None:
        """Of the case's method."""
        self.sources = ()
        self.case = case

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Of a clip of frames of 56 x 72."""
        generator = torch.Generator().manual_seed(index)
        small = torch.rand(self.case.config.clip_length, 3, 14, 18, generator=generator)
        clip = (nn.functional.interpolate(small, scale_factor=4, mode="bilinear") * 255).to(torch.uint8)
        return METHODS[self.case.method].views(self.case.config)(clip, generator)


def built(case: Case) -> nn.Module:
    """The method, the same every time; batch normalisation as in evaluation unless it is synchronised."""
    torch.manual_seed(0)
    method = METHODS[case.method].module(case.encoder.build(), case.config).train()
    for module in method.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and not case.sync_bn:
            module.eval()
            module.train = MethodType(lambda self, mode=True: self, module)  # type: ignore[method-assign]
    return method


def train(name: str, out: Path, *, accumulate: int = 1, sync_bn: bool | None = None) -> None:
    """A run in this process, or its share of it."""
    case = CASES[name]
    rebuilding.DROPPABLE = (1,)  # always the same channel
    config = TrainConfig(
        method=case.method,
        **{case.method: case.config},
        encoder=case.encoder,
        steps=STEPS,
        batch_size=CLIPS // accumulate,
        accumulate=accumulate,
        sync_bn=case.sync_bn if sync_bn is None else sync_bn,
        workers=0,
        threads=1,
        device="cpu",
        optimizer=OptimizerConfig(name="sgd", lr=case.lr),
        checkpoint=CheckpointConfig(every=STEPS, keep=1),
        log=LogConfig(every=1, tensorboard=False, probe=0),
        out=str(out),
    )
    fit(built(case), Clips(case), config, progress=False)


@pytest.fixture(scope="module", autouse=True)
def droppable():
    """As it was."""
    before = rebuilding.DROPPABLE
    yield
    rebuilding.DROPPABLE = before


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Every case in one process, one pass per step."""
    out = tmp_path_factory.mktemp("whole")
    for name in CASES:
        train(name, out / name)
    return out


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """Every case in two processes, one after the other."""
    out = tmp_path_factory.mktemp("shared")
    assert processes.launch([sys.executable, __file__, str(out)], 2) == 0
    return out


def assert_same_run(one: Path, other: Path, name: str) -> None:
    """Losses of every step, and what the run ends with; the queue holds the same keys, whatever their order."""
    for row, again in zip(*(read_curves(out / "metrics.csv") for out in (one, other)), strict=True):
        assert again["step"] == row["step"]
        assert again["loss"] == pytest.approx(row["loss"], rel=1e-4), row["step"]
    state, found = (checkpoints.read_checkpoint(out / "last.ckpt")["state_dict"] for out in (one, other))
    assert state.keys() == found.keys()
    before = built(CASES[name]).state_dict()
    moved = 0
    for key, value in state.items():
        if key.endswith("queue.embeddings"):
            value, again = (
                tensor[:, tensor[0].argsort()] for tensor in (value, found[key])
            )  # one column per key
            torch.testing.assert_close(again, value, rtol=1e-3, atol=1e-4)
        else:
            torch.testing.assert_close(
                found[key], value, rtol=1e-3, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}"
            )
        moved += value.is_floating_point() and not torch.equal(value, before[key.removeprefix("method.")])
    assert moved > 10


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one_with_the_same_batch(whole, shared, name):
    """Gradients averaged, keys gathered, batch normalisation synchronised where that is asked for."""
    assert_same_run(whole / name, shared / name, name)


@pytest.mark.parametrize("name", [name for name in CASES if not CASES[name].sync_bn])
def test_two_passes_are_one_with_twice_the_batch(whole, tmp_path, name):
    """The momentum encoder moves once, before the first pass; all queries meet the same queue."""
    train(name, tmp_path / name, accumulate=2)
    assert_same_run(whole / name, tmp_path / name, name)


def test_sync_bn_of_one_process_changes_nothing(whole, tmp_path):
    """To the bit."""
    train("vfs-sync", tmp_path, sync_bn=False)
    one, other = (
        checkpoints.read_checkpoint(out / "last.ckpt")["state_dict"] for out in (whole / "vfs-sync", tmp_path)
    )
    assert all(torch.equal(one[key], other[key]) for key in one.keys() | other.keys())


if __name__ == "__main__":
    torch.set_num_threads(1)
    with processes.joined(torch.device("cpu")):
        for case_name in CASES:
            train(case_name, Path(sys.argv[1]) / case_name)
