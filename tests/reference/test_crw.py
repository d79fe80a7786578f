"""CRW's loss against what its authors' code computed (reference/README_stfc3.md)."""

import numpy as np
import pytest
import torch

from retrace.methods.crw import CRWConfig, crw_loss, released
from retrace.walk import cycles
from retrace.walk.affinity import affinity, transition


@pytest.fixture
def data(reference):
    """The file, as tensors."""
    return {key: torch.from_numpy(np.asarray(value)) for key, value in reference("stfc3_crw.npz").items()}


def suffixes(data) -> list[str]:
    """The temperatures of the file, as its keys say them: t05 is 0.05."""
    found = [key.removeprefix("palindrome_") for key in data if key.startswith("palindrome_")]
    assert found
    return found


def test_loss_accuracy_and_gradient(data):
    """The loss of the method itself, for each temperature."""
    for suffix in suffixes(data):
        q = data["q"].clone().requires_grad_()
        nodes = q.permute(0, 2, 3, 1)  # (B, T, N, C)
        turns = data["turn_frame"].tolist()
        config = CRWConfig(
            clip_length=nodes.shape[1],
            temperature=int(suffix[1:]) / 100,
            edge_dropout=0.0,
            shortest_turn=turns[0],
        )
        assert turns == list(range(released(config).shortest_turn, nodes.shape[1]))
        losses = crw_loss(nodes, config)
        assert losses.total.item() == pytest.approx(data[f"loss_{suffix}"].item(), abs=1e-5)
        for turn, expected in zip(turns, data[f"loss_per_palindrome_{suffix}"], strict=True):
            assert losses.terms[f"cycle_{turn}"].item() == pytest.approx(expected.item(), abs=1e-5)
        accuracy = data[f"acc_{suffix}"].mean().item()
        assert losses.terms["accuracy"].item() == pytest.approx(accuracy, abs=1e-5)
        losses.total.backward()
        torch.testing.assert_close(q.grad, data[f"grad_q_{suffix}"], atol=1e-5, rtol=1e-3)


def test_palindromes(data):
    """Every entry of every palindrome."""
    nodes = data["q"].permute(0, 2, 3, 1)
    ahead = affinity(nodes[:, :-1], nodes[:, 1:])  # (B, T - 1, N, N)
    for suffix in suffixes(data):
        temperature = int(suffix[1:]) / 100
        pairs = cycles.prefix_palindromes(
            transition(ahead, temperature).unbind(1),
            transition(ahead.transpose(-2, -1), temperature).unbind(1),
        )
        for index, turn in enumerate(data["turn_frame"].tolist()):
            out, home = pairs[turn - 1]
            torch.testing.assert_close(out @ home, data[f"palindrome_{suffix}"][index], atol=3e-6, rtol=0)
