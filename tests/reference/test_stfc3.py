"""STFC3 and CRW's patch nodes against what their authors' code computed (reference/README_stfc3.md)."""

import zlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from retrace.encoders.config import EncoderConfig
from retrace.encoders.heads import Projector
from retrace.encoders.resnet import ResNet
from retrace.methods.stfc3 import STFC3Config, stfc3_loss
from retrace.propagation.context import context_frames
from retrace.walk import cycles, neighborhood, warp
from retrace.walk.affinity import affinity, transition
from retrace.walk.nodes import normalise, to_nodes
from retrace.walk.readout import Rules, readout

TARGETS = {"rad0": (0.0, 1.0), "rad01": (0.1, 1.0), "rad1": (1.0, 1.0), "rad15l2": (1.5, 2.0)}
NAMES = ("stfc3_loss.npz", "stfc3_loss_small.npz")


def tensors(data) -> dict[str, Tensor]:
    """Tensors."""
    return {
        key: torch.from_numpy(np.asarray(value)) for key, value in data.items() if value.dtype.kind in "fiu"
    }


def released(data, target: str) -> STFC3Config:
    """Released."""
    radius, norm = TARGETS[target]
    return STFC3Config(
        clip_length=data["feat_forward"].shape[1],
        temperature=float(data["temperature"]),
        edge_dropout=0.0,
        cycles="released",
        reduction="masked_nodes",
        target_radius=radius,
        target_norm=norm,
    )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_released_loss_and_accuracy(reference, name, target):
    """Released loss and accuracy."""
    data = tensors(reference(name))
    losses = stfc3_loss(
        data["feat_forward"], data["feat_backward"], data["affine_f2b"], released(data, target)
    )
    assert losses.total.item() == pytest.approx(data[f"loss_total_{target}"].item(), abs=3e-6)
    assert losses.terms["accuracy"].item() == pytest.approx(data[f"acc_{target}"].item(), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_warped_features_mask_and_cycles(reference, name):
    """Warped features mask and cycles."""
    data = tensors(reference(name))
    h, w = data["grid_hw"].tolist()
    count = data["warped_feat"].shape[1]
    length = data["feat_forward"].shape[1]
    forward, backward = normalise(data["feat_forward"], 2), normalise(data["feat_backward"], 2)
    raw = torch.stack([warp.read(forward[:, t], data["affine_f2b"]) for t in range(count)], 1)
    torch.testing.assert_close(raw, data["warped_feat_raw"], atol=3e-6, rtol=0)
    torch.testing.assert_close(normalise(raw, 2), data["warped_feat"], atol=3e-6, rtol=0)
    torch.testing.assert_close(warp.inside_mask(data["affine_f2b"], (h, w)), data["mask"])

    def step(queries: Tensor, keys: Tensor) -> Tensor:
        return transition(affinity(to_nodes(queries), to_nodes(keys)), float(data["temperature"]))

    homes = cycles.nested_homes(
        [step(forward[:, t], forward[:, t + 1]) for t in range(1, length - 1)],
        step(forward[:, -1], backward[:, 0]),
        [step(backward[:, t], backward[:, t + 1]) for t in range(length - 1)],
    )
    for index, start in enumerate(data["cycle_start_frame"].tolist()):
        warped = normalise(warp.read(forward[:, start], data["affine_f2b"]), 1)
        cycle = step(warped, forward[:, start + 1]) @ homes[start]
        torch.testing.assert_close(
            cycle.diagonal(dim1=1, dim2=2), data["cycle_diag"][index], atol=3e-6, rtol=0
        )
        torch.testing.assert_close(cycle.sum(-1), data["cycle_row_sum"][index], atol=1e-5, rtol=0)
        if "cycle_matrix" in data:
            torch.testing.assert_close(cycle, data["cycle_matrix"][index], atol=3e-6, rtol=0)
        probability = cycles.return_probability(step(warped, forward[:, start + 1]), homes[start])
        loss = cycles.cycle_cross_entropy(probability, data["mask"], reduction="masked_nodes")
        assert loss.item() == pytest.approx(data["loss_per_cycle_rad0"][index].item(), abs=3e-6)


@pytest.mark.parametrize("name", NAMES)
def test_paper_loss_on_the_same_cycles(reference, name):
    """Eq. 13 as the paper writes it, summed over the cycles that the released code keeps."""
    data = tensors(reference(name))
    config = STFC3Config(
        clip_length=data["feat_forward"].shape[1],
        temperature=float(data["temperature"]),
        edge_dropout=0.0,
        cycles="released",
        reduction="all_nodes",
    )
    losses = stfc3_loss(data["feat_forward"], data["feat_backward"], data["affine_f2b"], config)
    assert losses.total.item() == pytest.approx(data["loss_paper_eq13_same_cycles"].item(), abs=1e-5)


def test_gradients_and_labels(reference):
    """Gradients and labels."""
    data = tensors(reference("stfc3_loss_small.npz"))
    forward = data["feat_forward"].clone().requires_grad_()
    backward = data["feat_backward"].clone().requires_grad_()
    stfc3_loss(forward, backward, data["affine_f2b"], released(data, "rad0")).total.backward()
    torch.testing.assert_close(forward.grad, data["grad_feat_forward"], atol=3e-6, rtol=0)
    torch.testing.assert_close(backward.grad, data["grad_feat_backward"], atol=3e-6, rtol=0)
    h, w = data["grid_hw"].tolist()
    for target in ("rad1", "rad15l2"):
        label = neighborhood.neighbours(h, w, *TARGETS[target])
        torch.testing.assert_close(label.float(), data[f"label_{target}"])


def test_affine_matrices_and_masks(reference):
    """Affine matrices and masks."""
    data = tensors(reference("stfc3_affine.npz"))
    size, grid = int(data["size"]), int(data["feature_size"])
    matrices = {
        way: warp.crop_matrix(data[f"box_{way}"], data[f"flip_{way}"], size, size)
        for way in ("forward", "backward")
    }
    for way, matrix in matrices.items():
        torch.testing.assert_close(matrix.float(), data[f"mat_{way}"], atol=1e-5, rtol=1e-5)
    reading = warp.reading_matrix(matrices["forward"], matrices["backward"]).float()
    torch.testing.assert_close(reading, data["affine_f2b"], atol=1e-5, rtol=1e-5)
    threshold = float(data["mask_threshold"])
    mask = warp.inside_mask(reading, (grid, grid), threshold)
    sure = (data["mask_soft"] - threshold).abs() > 1e-5
    assert torch.equal(mask[sure], data["mask"][sure])
    small = warp.inside_mask(data["img_affine_f2b"], (int(data["img_feature_size"]),) * 2, threshold)
    assert (small != data["img_mask"]).float().mean() < 0.02


def named_weights(module: nn.Module, prefix: str, names: dict[str, str]) -> None:
    """Fill a module with the weights that README_stfc3.md makes from names; `names` maps our prefix to theirs."""
    state = module.state_dict()
    for ours, tensor in state.items():
        if ours.endswith("num_batches_tracked"):
            continue
        theirs = next(
            (new + ours.removeprefix(old) for old, new in names.items() if ours.startswith(old)), ours
        )
        seed = zlib.crc32((prefix + theirs).encode())
        z = np.random.default_rng(seed).standard_normal(tuple(tensor.shape)).astype(np.float32)
        leaf = theirs.rsplit(".", 1)[1]
        if z.ndim == 4:
            value = z * np.sqrt(2 / (z.shape[0] * z.shape[2] * z.shape[3]))
        elif z.ndim == 2:
            value = z * np.sqrt(1 / z.shape[1])
        elif leaf == "running_var":
            value = 1 + 0.1 * np.abs(z)
        elif leaf == "weight":
            value = 1 + 0.1 * z
        else:
            value = 0.1 * z
        state[ours] = torch.from_numpy(value.astype(np.float32))
    module.load_state_dict(state)


def encoder(prefix: str, padding_mode: str, cut: str) -> ResNet:
    """Encoder."""
    built = EncoderConfig(cut=cut, padding_mode=padding_mode).build()
    named_weights(built, prefix, {})
    return built.eval()


def image(array: np.ndarray) -> Tensor:
    """Image."""
    return torch.from_numpy(array).movedim(-1, -3).float() / 255


@torch.no_grad()
def test_encoder(reference):
    """Encoder."""
    data = reference("stfc3_encoder.npz")
    prefix = str(data["weight_prefix"])
    x = image(data["image"])[None]
    for mode in ("reflect", "zeros", "replicate"):
        out = encoder(prefix, mode, "layer3")(x)[0]
        torch.testing.assert_close(out, torch.from_numpy(data[f"layer3_{mode}"]), atol=1e-4, rtol=1e-4)
    out = encoder(prefix, "none", "layer4")(image(data["image_nopad"])[None])[0]
    torch.testing.assert_close(out, torch.from_numpy(data["layer4_nopad"]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_projector(reference):
    """Projector."""
    data = reference("stfc3_encoder.npz")
    prefix = str(data["weight_prefix"])
    backbone = encoder(prefix, "reflect", "layer4")
    head = Projector(backbone.out_channels).eval()
    named_weights(head, prefix, {})
    x = image(data["image"])[None]
    torch.testing.assert_close(
        head(backbone(x))[0], torch.from_numpy(data["proj_reflect"]), atol=1e-4, rtol=1e-4
    )
    batch = torch.cat([x, 0.7 * x.flip(-1)])
    trained = head.train()(backbone.train()(batch))[:, ::8]
    torch.testing.assert_close(
        trained, torch.from_numpy(data["proj_reflect_trainmode"]), atol=1e-3, rtol=1e-3
    )


@torch.no_grad()
def test_patch_nodes(reference):
    """CRW's node: layer4 averaged over the patch, a linear layer, L2-normalised."""
    data = reference("stfc3_encoder.npz")
    prefix = str(data["weight_prefix"])
    backbone = encoder(prefix, "reflect", "layer4")
    head = nn.Linear(backbone.out_channels, data["crw_nodes"].shape[0])
    named_weights(head, prefix, {"": "head."})
    nodes = normalise(head(backbone(image(data["patches"])).mean((-2, -1))), 1)  # (patches, C)
    torch.testing.assert_close(nodes.T, torch.from_numpy(data["crw_nodes"]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["stfc3_labelprop.npz", "stfc3_labelprop_rect.npz"])
def test_label_propagation(reference, name):
    """Label propagation."""
    data = tensors(reference(name))
    nodes = normalise(data["feats"], 0).permute(1, 2, 3, 0).contiguous()  # (T, h, w, C)
    configs = sorted(int(key.removeprefix("cfg_")) for key in data if key.startswith("cfg_"))
    assert configs
    for number in configs:
        m, radius, k, temperature, first = data[f"cfg_{number}"].tolist()
        rules = Rules(temperature, int(k), "disc", radius)
        values = torch.zeros(*nodes.shape[:3], data["label0"].shape[-1])
        values[0] = data["label0"]
        expected = data[f"pred_{number}"]
        for t in range(1, len(nodes)):
            context = context_frames(t, int(m), "repeated", bool(first))
            free = [bool(first) and position == 0 for position in range(len(context))]
            reading = readout(nodes[t], nodes, values, context=context, free=free, rules=rules, tile=(5, 7))
            values[t] = reading.labels
        torch.testing.assert_close(values, expected, atol=1e-5, rtol=0)
    hard = torch.nn.functional.interpolate(
        data["pred_0"].permute(0, 3, 1, 2),
        size=data["hard_0"].shape[1:],
        mode="bilinear",
        align_corners=False,
    ).argmax(1)
    assert (hard != data["hard_0"]).float().mean() < 1e-3


def test_top_k_weights(reference):
    """The k kept weights of config 0, for the first two target frames (indices may differ between equal copies)."""
    for name in ("stfc3_labelprop.npz", "stfc3_labelprop_rect.npz"):
        data = tensors(reference(name))
        nodes = normalise(data["feats"], 0).permute(1, 2, 3, 0)  # (T, h, w, C)
        _, h, w, _ = nodes.shape
        m, radius, k, temperature, first = data["cfg_0"].tolist()
        for t in range(1, data["topk_weight_0"].shape[0]):
            context = context_frames(t, int(m), "repeated", bool(first))
            scores = torch.stack([affinity(nodes[t].flatten(0, 1), nodes[c].flatten(0, 1)) for c in context])
            inside = neighborhood.disc(h, w, radius)
            scores[int(first) :] = scores[int(first) :].masked_fill(~inside, -torch.inf)
            kept = scores.transpose(0, 1).flatten(1).topk(int(k), dim=1).values  # (N, k)
            weights = (kept / temperature).softmax(1).T
            torch.testing.assert_close(weights, data["topk_weight_0"][t], atol=1e-5, rtol=0)
