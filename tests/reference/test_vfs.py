"""VFS against what its authors' code computed (reference/README_vfs.md)."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from retrace.encoders import momentum
from retrace.encoders.heads import ContrastiveHead, SimSiamHead
from retrace.methods.vfs import (
    VFSConfig,
    contrast,
    loss_with_negatives,
    loss_without_negatives,
    pair_distances,
)
from retrace.video.sampling import continuous_indices, distant_indices

THEIRS = {"projector": "projection_fcs", "predictor": "predictor_fcs"}


def tensors(data) -> dict[str, Tensor]:
    """Tensors."""
    return {key: torch.from_numpy(np.asarray(value)) for key, value in data.items()}


def halves(data, *names: str) -> list[Tensor]:
    """Rows (B * T, C) as (B, T, C) leaves."""
    videos = int(data["num_videos"])
    return [data[name].unflatten(0, (videos, -1)).clone().requires_grad_() for name in names]


def config(pairs: str = "all", **settings) -> VFSConfig:
    """Config."""
    return VFSConfig(pairs=pairs, **settings)


@pytest.mark.parametrize("name", ["allpairs", "aligned"])
def test_loss_without_negatives(reference, name):
    """Loss and gradients; no gradient reaches z."""
    data = tensors(reference("vfs_simsiam.npz"))
    p1, z1, p2, z2 = halves(data, "p1", "z1", "p2", "z2")
    losses = loss_without_negatives(p1, z1, p2, z2, config("all" if name == "allpairs" else "aligned"))
    assert losses.total.item() == pytest.approx(data[f"loss_{name}"].item(), rel=1e-5)
    losses.total.backward()
    assert z1.grad is None
    assert z2.grad is None
    for rows, key in ((p1, f"grad_p1_{name}"), (p2, f"grad_p2_{name}")):
        torch.testing.assert_close(rows.grad.flatten(0, 1), data[key], rtol=1e-4, atol=1e-7)


def test_terms_without_negatives(reference):
    """Their term s pairs frame t of the first half with frame (t - s) mod T of the second."""
    data = tensors(reference("vfs_simsiam.npz"))
    distances = pair_distances(*halves(data, "p1", "z1", "p2", "z2"))  # (B, T, T)
    length = int(data["frames_per_half"])
    frames = torch.arange(length)
    for shift, expected in enumerate(data["loss_terms_allpairs"]):
        terms = distances[:, frames, (frames - shift) % length].flatten() / length
        torch.testing.assert_close(terms, expected, rtol=1e-4, atol=1e-6)


def fill(head: nn.Module, data: dict[str, Tensor], prefix: str, names: dict[str, str]) -> dict[str, str]:
    """Load their weights; returns our parameter name -> their name."""
    known = {}
    for ours, parameter in head.named_parameters():
        module, rest = ours.split(".", 1)
        known[ours] = f"{names[module]}.{rest}"
        parameter.data.copy_(data[f"{prefix}.{known[ours]}"])
    return known


def test_head_without_negatives(reference):
    """Projections, predictions, every gradient, running statistics: one call per half."""
    data = tensors(reference("vfs_simsiam.npz"))
    weights = {key.removeprefix("w."): value for key, value in data.items() if key.startswith("w.")}
    head = SimSiamHead(
        inputs=weights["projection_fcs.0.weight"].shape[1],
        hidden=weights["projection_fcs.0.weight"].shape[0],
        outputs=weights["projection_fcs.6.weight"].shape[0],
        bottleneck=weights["predictor_fcs.0.weight"].shape[0],
    )
    names = fill(head, data, "w", THEIRS)
    assert set(names.values()) == set(weights)
    x1, x2 = (data[key].clone().requires_grad_() for key in ("x1", "x2"))
    (z1, p1), (z2, p2) = head(x1), head(x2)
    for found, key in ((z1, "head_z1"), (p1, "head_p1"), (z2, "head_z2"), (p2, "head_p2")):
        torch.testing.assert_close(found, data[key], rtol=1e-4, atol=1e-5)
    videos = int(data["num_videos"])
    rows = [part.unflatten(0, (videos, -1)) for part in (p1, z1, p2, z2)]
    total = loss_without_negatives(*rows, config()).total
    assert total.item() == pytest.approx(data["head_loss"].item(), rel=1e-5)
    total.backward()
    for x, key in ((x1, "head_grad_x1"), (x2, "head_grad_x2")):
        torch.testing.assert_close(x.grad, data[key], rtol=1e-3, atol=1e-7)
    for ours, parameter in head.named_parameters():  # biases before BN have a true gradient of zero
        torch.testing.assert_close(parameter.grad, data[f"g.{names[ours]}"], rtol=1e-3, atol=2e-6)
    buffers = {
        key.removeprefix("bn_after."): value for key, value in data.items() if key.startswith("bn_after.")
    }
    for ours, buffer in head.named_buffers():
        if not ours.endswith("num_batches_tracked"):
            module, rest = ours.split(".", 1)
            torch.testing.assert_close(buffer, buffers.pop(f"{THEIRS[module]}.{rest}"), rtol=1e-4, atol=1e-6)
    assert not buffers


@pytest.mark.parametrize("negatives", ["inbatch", "queueonly"])
@pytest.mark.parametrize("pairs", ["allpairs", "aligned"])
def test_loss_with_negatives(reference, pairs, negatives):
    """Terms, loss and gradient of all four forms."""
    data = tensors(reference("vfs_moco.npz"))
    queries, keys = (data[name].transpose(1, 2) for name in ("q", "k"))  # (B, T, C)
    queries = queries.clone().requires_grad_()
    chosen = config(
        "all" if pairs == "allpairs" else "aligned",
        negatives=True,
        temperature=float(data["temperature"]),
        batch_negatives=negatives == "inbatch",
    )
    name = f"{pairs}_{negatives}"
    terms = contrast(queries, keys, data["queue"], chosen)
    torch.testing.assert_close(terms.flatten(), data[f"terms_{name}"].flatten(), rtol=1e-4, atol=1e-5)
    total = loss_with_negatives(queries, keys, data["queue"], chosen).total
    assert total.item() == pytest.approx(data[f"loss_{name}"].item(), rel=1e-5)
    total.backward()
    torch.testing.assert_close(queries.grad.transpose(1, 2), data[f"grad_q_{name}"], rtol=1e-4, atol=1e-6)


def test_queue(reference):
    """Two batches enter; the pointer wraps."""
    data = tensors(reference("vfs_moco.npz"))
    channels, length = data["queue"].shape
    queue = momentum.NegativeQueue(channels, length)
    queue.embeddings.copy_(data["queue"])
    queue.pointer.fill_(int(data["queue_ptr_before"]))
    keys = data["k"].transpose(1, 2)  # (B, T, C)
    for step, batch in ((1, keys), (2, keys.flip(0))):
        queue.enqueue(batch.flatten(0, 1))
        torch.testing.assert_close(queue.embeddings, data[f"queue_after{step}"], rtol=0, atol=0)
        assert int(queue.pointer) == int(data[f"queue_ptr_after{step}"])


def test_head_and_momentum_with_negatives(reference):
    """Embeddings of both networks, and the slow one after a step."""
    data = tensors(reference("vfs_moco.npz"))
    hidden, inputs = data["wq.fcs.0.weight"].shape
    fast = ContrastiveHead(inputs, hidden, data["wq.fcs.2.weight"].shape[0])
    slow = momentum.slow_copy(fast)
    names = fill(fast, data, "wq", {"projector": "fcs"})
    fill(slow, data, "wk", {"projector": "fcs"})
    torch.testing.assert_close(fast(data["x"]), data["embed_q"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(slow(data["x"]), data["embed_k"], rtol=1e-4, atol=1e-6)
    stored = [key.split(".fcs.")[0] for key in data if key.startswith("wk_after_m")]
    (prefix,) = set(stored)
    momentum.momentum_step(slow, fast, float(prefix.removeprefix("wk_after_m")))
    for ours, parameter in slow.named_parameters():
        torch.testing.assert_close(parameter, data[f"{prefix}.{names[ours]}"], rtol=1e-6, atol=1e-7)


THEIR_DRAWS = 20000  # behind each of their frequencies


def enough(frames: int) -> int:
    """Draws that meet every frame of a segment many times."""
    return max(3000, 30 * frames)


def chances(draws: list[list[int]], slot: int, size: int) -> Tensor:
    """Relative frequency of every index in one slot."""
    return torch.bincount(torch.tensor(draws)[:, slot], minlength=size) / len(draws)


def agree(found: Tensor, expected: Tensor, draws: int) -> None:
    """Within five standard deviations of both samplings."""
    size = max(len(found), len(expected))
    found, expected = (torch.nn.functional.pad(part, (0, size - len(part))) for part in (found, expected))
    mean = (found + expected) / 2
    noise = (mean * (1 - mean) * (1 / draws + 1 / THEIR_DRAWS)).sqrt()
    assert ((found - expected).abs() <= 5 * noise + 1 / draws).all()


def test_distant_sampling(reference):
    """Frequencies per slot; their examples are possible."""
    data = tensors(reference("vfs_sampling.npz"))
    generator = torch.Generator().manual_seed(0)
    for number, (frames, length, loop) in enumerate(data["distant_cases_L_n_loop"].int().tolist()):
        short = "loop" if loop else "repeat_last"
        draws = [distant_indices(frames, length, generator, short) for _ in range(enough(frames))]
        expected = data[f"distant_{number}_freq"]
        for slot in range(length):
            found = chances(draws, slot, expected.shape[1])
            agree(found, expected[slot], len(draws))
            examples = data[f"distant_{number}_examples"][:, slot].int()
            assert (found[examples] > 0).all()


def test_continuous_sampling(reference):
    """Frequencies of the first index; their examples follow from their first index."""
    data = tensors(reference("vfs_sampling.npz"))
    generator = torch.Generator().manual_seed(0)
    for number, (frames, length, interval) in enumerate(data["continuous_cases_L_n_delta"].int().tolist()):
        draws = [continuous_indices(frames, length, interval, generator) for _ in range(enough(frames))]
        expected = data[f"continuous_{number}_first_freq"]
        agree(chances(draws, 0, len(expected)), expected, len(draws))
        ours = {draw[0]: draw for draw in draws}
        for example in data[f"continuous_{number}_examples"].int().tolist():
            assert ours[example[0]] == example
