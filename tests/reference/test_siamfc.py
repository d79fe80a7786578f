"""SiamFC against what VFS's code and siamfc-pytorch computed (reference/README_vfs.md)."""

import numpy as np
import pytest
import torch

from retrace.datasets.boxed import usable_frames
from retrace.encoders.heads import SiamFCHead
from retrace.methods.siamfc import balanced_loss, focal_loss
from retrace.tracking.siamfc import SiamFCConfig, respond, start, update
from retrace.walk.siamese import response_labels, square_crop


def edges(box) -> tuple[float, float, float, float]:
    """A box of the files (left, top counted from pixel 1; width, height) as ours: x, y, w, h of its edges."""
    left, top, width, height = (float(v) for v in box)
    return left - 1, top - 1, width, height


@pytest.mark.parametrize("rounding", ["vfs", "upstream"])
def test_crops(reference, rounding):
    """Square sides, and the pixels of exemplar and search crops of both codes, also beyond the image."""
    data = reference("vfs_siamfc_crop.npz")
    image = torch.from_numpy(data["image"].round().astype(np.uint8)).permute(2, 0, 1)
    sizes = int(data["exemplar_sz"]), int(data["instance_sz"])
    config = SiamFCConfig(exemplar_size=sizes[0], search_size=sizes[1], context=float(data["context"]))
    prefix = "upstream_" if rounding == "upstream" else ""
    for i, box in enumerate(data["boxes"]):
        state = start(edges(box), config)
        found = (
            state.y - 0.5,
            state.x - 0.5,
            state.height,
            state.width,
            state.side,
            state.search_side(config),
        )
        np.testing.assert_allclose(found, data["state_cy_cx_h_w_zsz_xsz"][i], rtol=1e-6)
        searches = data[f"{prefix}search_{i}"]
        searches = searches[None] if searches.ndim == 3 else searches
        factors = data["scale_factors"].tolist() if len(searches) > 1 else [1.0]
        wanted = [(data[f"{prefix}exemplar_{i}"], state.side, sizes[0])]
        wanted += [
            (s, state.search_side(config) * f, sizes[1]) for s, f in zip(searches, factors, strict=True)
        ]
        for expected, side, size in wanted:
            crop = square_crop(image, (state.x, state.y), side, size, rounding=rounding)
            difference = np.abs(crop.permute(1, 2, 0).numpy().astype(float) - expected)
            assert difference.max() <= 2
            assert (difference > 1).mean() < 1e-3


@pytest.mark.parametrize("kind", ["r18", "r17"])
def test_from_response_to_box(reference, kind):
    """Correlation, best scale, peak, and the state carried over all steps, the released 18-cell oddity included."""
    data = reference("vfs_siamfc_track.npz")
    config = SiamFCConfig(
        exemplar_size=int(data["exemplar_sz"]),
        search_size=int(data["instance_sz"]),
        scale_step=float(data["scale_step"]),
        scale_rate=float(data["scale_lr"]),
        scale_penalty=float(data["scale_penalty"]),
        window_influence=float(data["window_influence"]),
        response_size=int(data["response_sz"]),
        response_up=int(data["response_up"]),
        stride=int(data["total_stride"]),
        out_scale=float(data["out_scale"]),
    )
    kernel = torch.from_numpy(data[f"{kind}_kernel"])
    state = start(edges(data[f"{kind}_box0"]), config)
    np.testing.assert_allclose(_numbers(state, config), data[f"{kind}_state0"], rtol=1e-5)
    for step, features in enumerate(data[f"{kind}_search_feats"]):
        responses = respond(kernel, torch.from_numpy(features)[None], config)[0]
        np.testing.assert_allclose(responses, data[f"{kind}_responses"][step], rtol=1e-4, atol=1e-6)
        state, peak = update(state, responses, config)
        assert peak.scale == data[f"{kind}_scale_id"][step]
        assert [peak.row, peak.column] == data[f"{kind}_peak_yx"][step].tolist()
        np.testing.assert_allclose(_numbers(state, config), data[f"{kind}_states"][step], rtol=1e-5)
        x, y, width, height = state.box
        np.testing.assert_allclose([x + 1, y + 1, width, height], data[f"{kind}_boxes"][step], rtol=1e-5)


def _numbers(state, config) -> list[float]:
    return [
        state.y - 0.5,
        state.x - 0.5,
        state.height,
        state.width,
        state.side,
        state.search_side(config),
    ]


def test_head_of_two_convolutions(reference):
    """1x1 convolutions of their own for exemplar and search; one exemplar may meet several searches."""
    data = reference("vfs_siamfc_track.npz")
    exemplar, search = (torch.from_numpy(data[f"convhead_{name}"]) for name in "zx")
    head = SiamFCHead(exemplar.shape[1])
    names = {"z_convs.0": "exemplar", "x_convs.0": "search"}
    state = {
        f"{ours}.{part}": torch.from_numpy(data[f"convhead.{theirs}.{part}"])
        for theirs, ours in names.items()
        for part in ("weight", "bias")
    }
    head.load_state_dict(state)
    config = SiamFCConfig(out_scale=float(data["out_scale"]))
    with torch.no_grad():
        pairs = respond(exemplar, search[:, None], config, head=head)
        torch.testing.assert_close(pairs, torch.from_numpy(data["convhead_out"]), rtol=1e-4, atol=1e-6)
        both = respond(exemplar[:1], search[None], config, head=head)[0][:, None]
        torch.testing.assert_close(both, torch.from_numpy(data["convhead_out_1to2"]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["a", "b"])
def test_losses_and_labels(reference, kind):
    """Labels of a response, focal and balanced loss with their gradients."""
    data = reference("vfs_siamfc_train.npz")
    logits = torch.from_numpy(data[f"logits_{kind}"]).requires_grad_()
    labels = torch.from_numpy(data[f"labels_{kind}"])
    own = response_labels(logits.shape[-2], logits.shape[-1], 2)
    torch.testing.assert_close(own.expand_as(labels), labels)
    for name, loss in (("focal", focal_loss), ("balanced", balanced_loss)):
        total = loss(logits, labels)
        assert total.item() == pytest.approx(float(data[f"{name}_{kind}"]), rel=1e-4)
        (gradient,) = torch.autograd.grad(total, logits)
        torch.testing.assert_close(
            gradient, torch.from_numpy(data[f"{name}_grad_{kind}"]), rtol=1e-4, atol=1e-8
        )


def test_frames_that_are_fit_for_training(reference):
    """The rule of pairs, with and without cover."""
    data = reference("vfs_siamfc_train.npz")
    height, width = (int(v) for v in data["filter_image_hw"])
    for cover, key in ((None, "filter_keep"), (data["filter_cover"], "filter_keep_with_cover")):
        found = usable_frames(data["filter_anno"], (height, width), cover)
        np.testing.assert_array_equal(found, data[key] > 0.5)
