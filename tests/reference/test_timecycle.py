"""TimeCycle against what its authors' code computed (reference/README_timecycle_stt.md)."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from retrace.encoders.heads import Localizer
from retrace.methods.timecycle import SCALE, TimeCycleConfig, timecycle_loss, track
from retrace.walk import warp
from retrace.walk.affinity import affinity, transition
from retrace.walk.nodes import to_map, to_nodes

PY3 = 227 / 210
LOSS_FILES = ("timecycle_d_cycle_loss_small.npz", "timecycle_d_cycle_loss_full.npz")


def tensors(data) -> dict[str, Tensor]:
    """Arrays as tensors."""
    return {key: torch.from_numpy(np.asarray(value)) for key, value in data.items()}


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Equal to within a share of the largest expected value, as the README suggests."""
    bound = tolerance * float(expected.abs().max())
    torch.testing.assert_close(actual, expected.to(actual.dtype), atol=bound, rtol=0)


def by_row(channels: Tensor, dim: int, side: int) -> Tensor:
    """Image positions counted column by column, as released, -> row by row, as ours."""
    order = torch.arange(side * side).reshape(side, side).T.flatten()
    return channels.index_select(dim, order)


def test_affinity(reference):
    """Eq. 1 with the released temperature: one patch in T frames, and T patches in one frame."""
    data = tensors(reference("timecycle_a_affinity.npz"))
    temperature, side = float(data["temperature"]), data["image_feat"].shape[-1]
    assert temperature == pytest.approx(TimeCycleConfig().temperature)
    size = data["patch_feat"].shape[-2:]
    images = to_nodes(data["image_feat"].transpose(1, 2))  # (B, T, N, C)
    walk = transition(affinity(to_nodes(data["patch_feat"])[:, None], images), temperature)
    close(to_map(walk, *size), by_row(data["affinity"], 2, side))
    crops = to_nodes(data["crop_feat"].transpose(1, 2))  # (B, T, n, C)
    back = transition(affinity(crops, to_nodes(data["target_feat"])[:, None]), temperature)
    close(to_map(back, *size), by_row(data["affinity_back"], 2, side))


def test_placement_and_sampling(reference):
    """Theta from what the localizer puts out, and reading through it under Python 2 and 3."""
    data = tensors(reference("timecycle_b_theta_grid_sample.npz"))
    theta = warp.placement(data["params"], SCALE)
    close(theta, data["theta"])
    assert float(data["offset_py3"]) == pytest.approx(PY3)
    for version, factor in (("py2", 1.0), ("py3", PY3)):
        moved = theta * torch.tensor([1.0, 1.0, factor])
        size = data[f"patch_{version}"].shape[-2:]
        grid = torch.nn.functional.affine_grid(moved, [len(moved), 1, *size], align_corners=True)
        close(grid, data[f"grid_{version}"])
        close(warp.read(data["feat"], moved, tuple(size)), data[f"patch_{version}"])
        close(warp.read_many(data["feat"], moved[:, None], tuple(size))[:, 0], data[f"patch_{version}"])
    patch = warp.read(data["image"], data["image_theta"], tuple(data["image_patch"].shape[-2:]))
    close(patch, data["image_patch"])


def test_alignment(reference):
    """l_theta without its grid."""
    data = tensors(reference("timecycle_c_alignment_loss.npz"))
    close(warp.alignment_error(data["theta_a"], data["theta_b"]), data["loss_each"])
    close(warp.alignment_error(data["theta_a"], data["theta_b"]).mean(), data["loss_batch"])
    close(warp.alignment_error(data["theta_c"], data["theta_d"]).mean(), data["loss_cd_batch"])


def test_soft_inliers(reference):
    """The soft inlier score without the identity volume."""
    data = tensors(reference("timecycle_d_inlier_score.npz"))
    side = math.isqrt(data["matches"].shape[1])
    size = tuple(data["matches"].shape[-2:])
    walk = to_nodes(by_row(data["matches"], 1, side))  # (N, n, S S)
    moved = data["theta"] * torch.tensor([1.0, 1.0, PY3])
    score = warp.soft_inliers(walk, moved, (side, side), size)
    close(score, data["score"])
    close(-score.mean(), data["loss"])


def made_weight(shape: list[int], amplitude: float) -> Tensor:
    """A weight of the full file, as the README says it is made."""
    count = np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
    u = ((count * 2654435761) % 2**32).astype(np.float64) / 2.0**32
    return torch.from_numpy(((2 * u - 1) * amplitude).astype(np.float32)).reshape(shape)


def localizer(data: dict[str, Tensor]) -> Localizer:
    """G with the file's weights, its input channels brought into our order."""
    names = ("w_conv1", "w_conv2", "w_fc")
    if "w_conv1" in data:
        weights = [data[name] for name in names]
    else:
        weights = [
            made_weight([int(size) for size in shape if size], float(amplitude))
            for shape, amplitude in zip(data["weight_shapes"], data["weight_amplitudes"], strict=True)
        ]
        close(weights[0].flatten()[:8], data["w_conv1_first8"])
        close(weights[2].flatten()[:8], data["w_fc_first8"])
        for weight, total in zip(weights, data["weight_sums"], strict=True):
            assert weight.double().sum().item() == pytest.approx(float(total), abs=1e-4)
    side, size = data["target_feat"].shape[-1], tuple(data["patch_feat"].shape[-2:])
    built = Localizer(side * side, size, (weights[0].shape[0], weights[1].shape[0]), weights[0].shape[-1])
    built.load_state_dict(
        {
            "conv1.weight": by_row(weights[0], 1, side),
            "conv2.weight": weights[1],
            "linear.weight": weights[2],
            "linear.bias": data["b_fc"],
        }
    )
    return built


@pytest.mark.parametrize("name", LOSS_FILES)
def test_tracks_losses_and_gradients(reference, name):
    """Every theta of every cycle, each loss, their sum, and its gradients."""
    data = tensors(reference(name))
    count = data["base_feat"].shape[1]
    config = TimeCycleConfig(num_past=count, temperature=float(data["temperature"]), translation_factor=PY3)
    raw = {key: data[f"{key}_feat"].clone().requires_grad_() for key in ("base", "target", "patch")}
    past, target, patch = (value.relu() for value in raw.values())
    g = localizer(data)

    tracks = track(past, target, patch, g, config)
    close(tracks.direct, data["theta_direct"])
    close(tracks.skip, data["theta_skip"])
    close(torch.cat([tracks.back[:, :c] for c in range(1, count + 1)], dim=1), data["theta_back"])
    close(torch.cat([tracks.forward[c] for c in range(1, count + 1)], dim=1), data["theta_forw"])
    for c, expected in enumerate(data["loss_long"], start=1):
        close(warp.alignment_error(tracks.forward[c][:, -1], data["theta_gt"]).mean(), expected)

    losses = timecycle_loss(past, target, patch, data["theta_gt"], g, config)
    close(losses.terms["long"], data["loss_long"].mean())
    close(losses.terms["skip"], data["loss_skip"])
    close(losses.terms["similarity"], data["loss_inlier"])
    close(losses.total.detach(), data["loss_total"])

    losses.total.backward()
    gradients = {
        **{f"grad_{key}_feat": value.grad for key, value in raw.items()},
        "grad_w_fc": g.linear.weight.grad,
        "grad_b_fc": g.linear.bias.grad,
        "grad_w_conv2": g.conv2.weight.grad,
    }
    there = [key for key in gradients if key in data]
    assert there or "full" in name
    for key in there:
        close(gradients[key], data[key], 1e-3)
