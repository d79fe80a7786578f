"""The plain losses that steps are timed against are the same mathematics."""

from dataclasses import replace

import torch

from benchmarks import steps
from retrace.methods.crw import CRWConfig, crw_loss
from retrace.methods.stfc3 import STFC3Config, stfc3_loss
from retrace.methods.stt import StTConfig, stt_loss
from retrace.walk.nodes import normalise


def test_plain_stfc3_loss() -> None:
    """All cycles and the direct term, with the mask."""
    config = STFC3Config(clip_length=3, edge_dropout=0.0, direct_weight=0.7)
    generator = torch.Generator().manual_seed(0)
    forward, backward = torch.randn(2, 2, 3, 8, 4, 6, generator=generator)
    reading = torch.tensor([[[0.8, 0.0, 0.3], [0.0, 0.7, -0.1]], [[-0.6, 0.0, 0.0], [0.0, 1.2, 0.2]]])
    ours = stfc3_loss(forward, backward, reading, config).total
    torch.testing.assert_close(steps.plain_stfc3_loss(forward, backward, reading, config).total, ours)


def test_plain_crw_loss() -> None:
    """Palindromes from the second frame on."""
    config = CRWConfig(clip_length=4, edge_dropout=0.0, shortest_turn=1)
    nodes = normalise(torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0)), -1)
    torch.testing.assert_close(steps.plain_crw_loss(nodes, config).total, crw_loss(nodes, config).total)


def test_plain_stt_loss() -> None:
    """Both levels and the distillation of the kept queries."""
    config = replace(StTConfig(beta=0.0), radius=(3, 2))
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 2, 5, *size, generator=generator) for size in ((8, 12), (4, 6))]
    lab = torch.randn(2, 2, 3, 32, 48, generator=generator)
    ours = stt_loss(maps, (4, 8), lab, torch.tensor([2]), config).total
    torch.testing.assert_close(steps.plain_stt_loss(maps, (4, 8), lab, torch.tensor([2]), config).total, ours)
