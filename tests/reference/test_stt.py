"""Spatial-then-Temporal against its authors' code: values, losses and gradients."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from retrace.encoders.colour import LAB_MEAN, LAB_STD, rgb_to_lab, to_input
from retrace.methods import stt
from retrace.methods.rebuilding import drop_channel
from retrace.methods.stt import StTConfig
from retrace.walk import correlation


def tensors(data):
    """All arrays as tensors."""
    return {key: torch.from_numpy(np.asarray(value)) for key, value in data.items()}


def close(found, expected, *, relative=1e-4):
    """Within `relative` of the largest expected value."""
    torch.testing.assert_close(found, expected, atol=relative * float(expected.abs().max()), rtol=0)


def dense(volume):
    """(B, h, w, K, K) -> (B, h w, h w), one window position at a time."""
    batch, h, w, size, _ = volume.shape
    radius = size // 2
    out = volume.new_zeros(batch, h, w, h, w)
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    for i in range(size):
        for j in range(size):
            y, x = rows + i - radius, columns + j - radius
            there = (y >= 0) & (y < h) & (x >= 0) & (x < w)
            assert (volume[:, ~there, i, j] == 0).all()
            out[:, rows[there], columns[there], y[there], x[there]] = volume[:, there, i, j]
    return out.reshape(batch, h * w, h * w)


def windows(matrix, h, w, radius):
    """The opposite of `dense`; everything outside the windows must be zero."""
    volume = matrix.new_zeros(len(matrix), h, w, 2 * radius + 1, 2 * radius + 1)
    full = matrix.reshape(-1, h, w, h, w)
    for y in range(h):
        for x in range(w):
            top, left = max(y - radius, 0), max(x - radius, 0)
            part = full[:, y, x, top : y + radius + 1, left : x + radius + 1]
            i, j = top - y + radius, left - x + radius
            volume[:, y, x, i : i + part.shape[1], j : j + part.shape[2]] = part
    torch.testing.assert_close(volume.sum(), matrix.sum())
    return volume


def released(data, **settings):
    """The released loss at the sizes of a file, without a teacher."""
    config = StTConfig(levels=("layer2", "layer3"), radius=tuple(data["radius"].tolist()), **settings)
    return stt.released(config)


def test_local_correlation(reference):
    """Softmax over the window, exact zeros outside; raw scores for the entropy."""
    data = tensors(reference("stt_f_local_correlation.npz"))
    target, ref, radius = data["target_feat"], data["ref_feat"], int(data["radius"])
    volume = correlation.local_correlation(target, ref, radius, math.sqrt(target.shape[1]))
    close(dense(volume), data["corr"])
    assert ((dense(volume) == 0) == (data["corr"] == 0)).all()
    close(correlation.window_scores(target, ref, radius).permute(0, 3, 4, 1, 2), data["window_logits"])


def test_reconstruction(reference):
    """What the encoder sees, both levels rebuilt, both losses."""
    data = tensors(reference("stt_g_reconstruction.npz"))
    config = released(data)
    dropped = data["dropped_channel"].reshape(1)
    close(drop_channel(data["lab_target"], dropped), data["net_input_target"], relative=1e-6)
    small, full = (data[name].index_select(1, dropped) for name in ("lab_ref", "lab_target"))
    for level, stride, radius in zip(("fine", "coarse"), data["stride"].tolist(), config.radius, strict=True):
        target, ref = data[f"target_feat_{level}"], data[f"ref_feat_{level}"]
        volume = correlation.local_correlation(target, ref, radius, math.sqrt(target.shape[1]))
        rebuilt = correlation.reconstruct(volume, small[..., ::stride, ::stride])
        close(rebuilt, data[f"recon_{level}"])
        close(stt.reconstruction_loss(rebuilt, full, stride, config), data[f"loss_{level}"])


def test_correlation_down_sampling(reference):
    """In the window of the fine level and half of it."""
    data = tensors(reference("stt_h_corr_downsample.npz"))
    target, ref, radius = data["target_feat"], data["ref_feat"], int(data["radius"])
    fine = correlation.local_correlation(target, ref, radius, math.sqrt(target.shape[1]))
    close(dense(fine), data["corr_fine"])
    close(dense(correlation.pool_volume(fine, (radius + 1) // 2)), data["corr_pooled"])


@pytest.mark.parametrize(("selection", "suffix"), [("as_released", "as_run"), ("flat", "flat")])
def test_local_distillation(reference, selection, suffix):
    """Score of Eq. (8) to the letter, both masks, the loss with each and without any."""
    data = tensors(reference("stt_i_local_distill.npz"))
    logits = data["window_logits"].permute(0, 3, 4, 1, 2)  # (B, h, w, K, K)
    h, w = logits.shape[1:3]
    radius = logits.shape[-1] // 2
    score = stt.literal_entropy(logits)
    close(score, data["entropy_score"])
    keep = float(data["keep_fraction"])
    config = StTConfig(entropy="literal", selection=selection, keep_fraction=round(keep, 6))
    kept = stt.select(data["entropy_score"], config)
    assert (kept != data[f"mask_{suffix}"]).float().mean() <= 1e-3
    assert (stt.select(score, config) != kept).float().mean() <= 1e-3
    volume = windows(data["corr_coarse"], h, w, radius)
    pooled = windows(data["corr_target"], h, w, max(h, w) - 1)  # reaches as far as it likes
    close(stt.local_distillation(volume, pooled, data[f"mask_{suffix}"]), data[f"loss_{suffix}"])
    everything = stt.select(score, StTConfig(keep_fraction=1.0))
    close(stt.local_distillation(volume, pooled, everything), data["loss_unmasked"])


@pytest.mark.parametrize("option", ["", "teacher_l2norm"])
def test_global_distillation(reference, option):
    """Student and teacher correlations, and their distance."""
    data = tensors(reference("stt_j_global_distill.npz"))
    student = torch.stack([data["student_ref"], data["student_target"]], 1)
    teacher = torch.stack([data["teacher_ref"], data["teacher_target"]], 1)
    config = StTConfig(teacher_temperature=float(data["teacher_temperature"]), teacher_normalise=bool(option))
    own = stt.global_correlation(student, math.sqrt(student.shape[2]))
    close(own, data["corr_student"])
    close(stt.taught_correlation(teacher, config), data[f"corr_teacher{option.removeprefix('teacher')}"])
    close(stt.global_distillation(student, teacher, config), data[f"loss_{option}" if option else "loss"])


def test_lab_and_dropout(reference):
    """OpenCV's Lab, standardised; each channel dropped."""
    data = tensors(reference("stt_k_lab_dropout.npz"))
    images = data["rgb"].permute(0, 3, 1, 2) / 255
    unit = torch.tensor([100.0, 256.0, 256.0]) / (1 << 14)  # of OpenCV's table
    found = rgb_to_lab(images).permute(0, 2, 3, 1)
    assert ((found - data["lab"]).abs() <= 1.001 * unit).all()
    assert ((found - data["lab"]).abs() > 1e-4).sum() <= 3 + 3e-3 * found.numel()
    seen = to_input(images, "lab", LAB_MEAN, LAB_STD)
    close(seen.permute(0, 2, 3, 1), data["lab_norm"], relative=2e-4)
    given = data["lab_norm"].permute(0, 3, 1, 2)
    for channel, name in ((1, "lab_drop_a"), (2, "lab_drop_b")):
        found = drop_channel(given, torch.tensor([channel]))
        close(found.permute(0, 2, 3, 1), data[name], relative=1e-6)


@pytest.mark.parametrize("selection", ["as_released", "flat"])
def test_total_loss(reference, selection):
    """Every term with both masks; the gradients of the sum as it was run."""
    data = tensors(reference("stt_o_total_loss.npz"))
    config = released(data)
    config = replace(config, selection=selection)
    maps = [data[name].clone().requires_grad_() for name in ("feat_fine", "feat_coarse", "feat_res5")]
    losses = stt.stt_loss(
        maps[:2], data["stride"].tolist(), data["lab"], data["dropped_channel"].reshape(1), config
    )
    distance = stt.global_distillation(maps[2], data["teacher_res5"], config)
    terms = [losses.terms[f"reconstruction_{level}"] for level in config.levels]
    terms += [losses.terms["local"], config.beta * distance]
    expected = data["losses" if selection == "as_released" else "losses_flat_mask"]
    close(torch.stack(terms), expected)
    total = losses.total + config.beta * distance
    close(total, expected.sum())
    if selection == "as_released":
        close(total, data["total"])
        total.backward()
        for features, name in zip(maps, ("feat_fine", "feat_coarse", "feat_res5"), strict=True):
            close(features.grad, data[f"grad_{name}"], relative=1e-3)
