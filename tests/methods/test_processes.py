"""Cross-sample terms on two processes: queue, negatives of the batch, shuffling. This file is also their script."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed
from torch import Tensor, nn

from retrace.encoders import momentum
from retrace.encoders.config import EncoderConfig
from retrace.errors import UsageError
from retrace.methods.moco import MoCo, MoCoConfig
from retrace.methods.vfs import VFS, VFSConfig

WORLD = 2
IN_BATCH = VFSConfig(
    clip_length=4, crop_size=32, negatives=True, projector_outputs=8, queue_length=32, batch_negatives=True
)
CONFIGS: dict[str, VFSConfig | MoCoConfig] = {
    "vfs-queue": dataclasses.replace(IN_BATCH, batch_negatives=False),
    "vfs-batch": IN_BATCH,
    "vfs-aligned": dataclasses.replace(IN_BATCH, pairs="aligned"),
    "vfs-without": VFSConfig(clip_length=4, crop_size=32),
    "moco": MoCoConfig(crop_size=32, projector_outputs=8, queue_length=32),
}


def method(name: str) -> nn.Module:
    """The method, batch normalisation by running statistics: what it does otherwise is no cross-sample term of ours."""
    torch.manual_seed(0)
    encoder = EncoderConfig(width=0.125, strides=(1, 2, 2, 1), cut="layer4").build()
    config = CONFIGS[name]
    built = (VFS(encoder, config) if isinstance(config, VFSConfig) else MoCo(encoder, config)).train()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
    return built


def views(name: str, part: slice) -> dict[str, Tensor]:
    """A part of a batch of four samples."""
    generator = torch.Generator().manual_seed(1)
    if name == "moco":
        pair = torch.randn(2, 4, 3, 32, 32, generator=generator)
        return {"query": pair[0, part], "key": pair[1, part]}
    return {"frames": torch.randn(4, 4, 3, 32, 32, generator=generator)[part]}


def outcome(name: str, part: slice) -> dict[str, Tensor]:
    """Loss of the second step, its gradient, and the queue after it, of the samples of one process."""
    built = method(name)
    for _ in range(2):
        if hasattr(built, "begin_step"):
            built.begin_step()
        losses = built(views(name, part))
        if hasattr(built, "end_step"):
            built.end_step()
    losses.total.backward()
    found = {"loss": losses.total.detach(), "grad": built.encoder.conv1.weight.grad}
    return found | {key: value for key, value in built.state_dict().items() if key.startswith("queue.")}


def process(rank: int, folder: Path) -> None:
    """What each of the two processes runs."""
    torch.distributed.init_process_group("gloo", f"file://{folder / 'meet'}", world_size=WORLD, rank=rank)
    size = 4 // WORLD
    found = {name: outcome(name, slice(rank * size, (rank + 1) * size)) for name in CONFIGS}
    images = torch.arange(6.0).view(6, 1, 1, 1)[rank * 3 : (rank + 1) * 3]
    seen: list[Tensor] = []

    def network(batch: Tensor) -> Tensor:
        seen.append(batch.flatten())
        return batch * 10

    torch.manual_seed(rank)  # the draw of process 0 counts
    found["shuffle"] = {"out": momentum.shuffled(network, images, 1).flatten(), "seen": seen[0]}
    try:
        momentum.NegativeQueue(2, 9).enqueue(torch.ones(3, 2))  # 9 is a multiple of 3, but not of 2 * 3
    except UsageError as error:
        found["refusal"] = str(error)
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What both processes found."""
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, __file__, str(folder)]
    running = [subprocess.Popen([*command, str(rank)]) for rank in range(WORLD)]
    assert [child.wait(timeout=300) for child in running] == [0] * WORLD
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", CONFIGS)
def test_two_processes_are_one_with_twice_the_batch(two, name):
    """Mean loss and mean gradient (which DistributedDataParallel takes); the same queue on both, with the same keys."""
    alone = outcome(name, slice(0, 4))
    for key in ("loss", "grad"):
        mean = torch.stack([found[name][key] for found in two]).mean(0)
        torch.testing.assert_close(mean, alone[key], rtol=1e-4, atol=1e-6)
    for key in alone.keys() - {"loss", "grad"}:
        assert torch.equal(two[0][name][key], two[1][name][key])
        torch.testing.assert_close(two[0][name][key], alone[key])


def test_shuffling_across_processes(two):
    """Each sees images of the other, every image is seen once, outputs come home."""
    seen = torch.cat([found["shuffle"]["seen"] for found in two])
    assert sorted(seen.tolist()) == list(range(6))
    assert set(two[0]["shuffle"]["seen"].tolist()) != {0, 1, 2}
    out = torch.cat([found["shuffle"]["out"] for found in two])
    assert out.tolist() == [0, 10, 20, 30, 40, 50]


def test_queue_counts_the_keys_of_all_processes(two):
    """A length that fits one process but not two is refused."""
    assert all("holds 9 negatives and 6 keys arrive" in found["refusal"] for found in two)


if __name__ == "__main__":
    torch.set_num_threads(1)
    process(int(sys.argv[2]), Path(sys.argv[1]))
