"""Label propagation in the dialects of VFS, Spatial-then-Temporal and TimeCycle, by the engine that everybody uses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from retrace import encoders
from retrace.encoders import EncoderConfig
from retrace.propagation.codecs import Geometry, KeypointCodec, best_cells, gaussian_stamp, nearest
from retrace.propagation.context import context_frames
from retrace.propagation.engine import Propagator
from retrace.propagation.protocols import PROTOCOLS, Protocol
from retrace.walk.neighborhood import disc, square
from retrace.walk.nodes import normalise
from retrace.walk.readout import Rules, readout

Load = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def model():
    """An encoder that is never asked: the features come from the files."""
    return encoders.load("random:resnet18", config=EncoderConfig(width=0.125))


def carried(model, protocol: Protocol, nodes: Tensor, labels: Tensor) -> Tensor:
    """Soft labels (T - 1, L, h, w) of frames 1 to T - 1, of nodes (T, h, w, C) and seed labels (L, h, w)."""
    propagator = Propagator(model, protocol, tile=(4, 5))
    propagator.seed(nodes[0], labels)
    return torch.stack([propagator.step(frame).labels for frame in nodes[1:]])


def pixels_equal(found: np.ndarray, expected: np.ndarray) -> float:
    """Share of equal pixels."""
    assert found.shape == expected.shape
    return float((found == np.round(expected)).mean())


# ---------------------------------------------------------------------------------------------------------------------
# VFS


def test_vfs_windows(reference: Load) -> None:
    """Range / 2, rounded down, is the radius: strictly inside of the disc, inclusive of the square."""
    data = reference("vfs_attention.npz")
    h, w = data["query"].shape[-2:]
    circle, edge = int(data["mask_circle_range"]), int(data["mask_square_range"])
    np.testing.assert_array_equal(disc(h, w, circle // 2).numpy(), data["mask_circle"] > 0.5)
    np.testing.assert_array_equal(square(h, w, edge // 2).numpy(), data["mask_square"][0] > 0.5)
    np.testing.assert_array_equal(disc(h, w, 3 // 2).numpy(), data["mask_circle_range3"] > 0.5)


@pytest.mark.parametrize("tile", [(3, 4), None])
def test_vfs_one_step(reference: Load, tile) -> None:
    """Every variant of the masked top-k attention."""
    data = reference("vfs_attention.npz")
    keys = torch.from_numpy(data["key"][0]).permute(1, 2, 3, 0).contiguous()  # (T, h, w, C)
    query = torch.from_numpy(data["query"][0]).permute(1, 2, 0).contiguous()  # (h, w, C)
    values = torch.from_numpy(data["value"][0]).permute(1, 2, 3, 0).contiguous()  # (T, h, w, K)
    circle = int(data["mask_circle_range"]) // 2
    edge = int(data["mask_square_range"]) // 2
    everywhere = [False] * len(keys)
    cases = {
        "circle_top10_t007": (Rules(0.07, 10, "disc", circle), everywhere, True),
        "circle_top10_t007_firstfree": (
            Rules(0.07, 10, "disc", circle),
            [place == 0 for place in range(len(keys))],
            True,
        ),
        "nomask_top5_t02": (Rules(0.2, 5, "disc", None), everywhere, True),
        "circle_notopk_t007": (Rules(0.07, None, "disc", circle), everywhere, True),
        "range3_top10_t007": (Rules(0.07, 10, "disc", 3 // 2), everywhere, True),
        "square_top10_t007_firstkeyonly": (Rules(0.07, 10, "square", edge), [False], True),
        "circle_top10_t1_nonorm": (Rules(1.0, 10, "disc", circle), everywhere, False),
    }
    assert {f"out_{name}" for name in cases} == {key for key in data if key.startswith("out_")}
    for name, (rules, free, unit) in cases.items():
        reading = readout(
            normalise(query, -1) if unit else query,
            normalise(keys, -1) if unit else keys,
            values,
            context=list(range(len(free))),
            free=free,
            rules=rules,
            tile=tile,
        )
        expected = torch.from_numpy(data[f"out_{name}"][0]).permute(1, 2, 0)
        torch.testing.assert_close(reading.labels, expected, atol=2e-5, rtol=1e-4, msg=name)


def vfs_cases(data: dict[str, Any]) -> dict[str, Protocol]:
    """The four ways a sequence was run, as protocols."""
    radius = int(data["neighbor_range"]) // 2
    release = replace(
        PROTOCOLS["vfs-r18-davis"],
        num_context=int(data["precede_frames"]),
        rules=Rules(float(data["temperature"]), int(data["topk"]), "disc", radius),
    )
    return {
        "release": release,
        "firstfree": replace(release, window_first=False),
        "nofirst": replace(release, add_first=False),
        "nomask": replace(release, rules=Rules(0.2, 5, "disc", None)),
    }


def vfs_geometry(data: dict[str, Any], labels: str) -> Geometry:
    """Frames, encoder's input and cells of the file."""
    frame = (int(data["original_hw"][0]), int(data["original_hw"][1]))
    network, grid = data[labels].shape[-2:], data["feats"].shape[2:]
    return Geometry(frame, network, grid, network[0] // grid[0])


@pytest.mark.parametrize("case", ["release", "firstfree", "nofirst", "nomask"])
def test_vfs_sequence(reference: Load, model, case: str) -> None:
    """Context, soft labels and label maps of a whole sequence."""
    data = reference("vfs_propagate.npz")
    protocol = vfs_cases(data)[case]
    nodes = torch.from_numpy(data["feats"]).permute(1, 2, 3, 0).contiguous()  # (T, h, w, C)
    seed = torch.from_numpy(data["onehot_first"])
    counts = [
        len(context_frames(t, protocol.num_context, protocol.recent, protocol.add_first))
        for t in range(1, len(nodes))
    ]
    assert counts == data[f"num_key_frames_{case}"].astype(int).tolist()
    soft = carried(model, protocol, nodes, seed)
    torch.testing.assert_close(soft, torch.from_numpy(data[f"soft_{case}"]), atol=2e-5, rtol=1e-4)
    geometry = vfs_geometry(data, "seg_first")
    codec = protocol.mask_codec(range(1, len(seed)), geometry)
    maps = [codec.decode(labels, torch.ones(geometry.grid)).masks for labels in soft]
    assert pixels_equal(np.stack(maps), data[f"pred_{case}"][1:]) > 0.999


def test_vfs_seed_labels(reference: Load) -> None:
    """The nearest pixel's id at the encoder's input size; frame 0 comes back by plain nearest neighbour."""
    data = reference("vfs_propagate.npz")
    first = np.round(data["seg_first"]).astype(np.uint8)
    geometry = replace(
        vfs_geometry(data, "seg_first"), frame=first.shape
    )  # the labels are given at that size
    codec = PROTOCOLS["vfs-r18-davis"].mask_codec(range(1, len(data["onehot_first"])), geometry)
    np.testing.assert_array_equal(codec.encode(first).numpy(), data["onehot_first"])
    size = tuple(int(v) for v in data["original_hw"])
    for case in vfs_cases(data):
        np.testing.assert_array_equal(nearest(first, size), data[f"pred_{case}"][0])


def test_vfs_heat_maps(reference: Load, model) -> None:
    """Poses: maps go down and up by bilinear resizing, nothing is scaled."""
    import cv2

    data = reference("vfs_propagate.npz")
    geometry = vfs_geometry(data, "heat_first")
    (h, w), (height, width) = geometry.grid, geometry.frame
    small = np.stack([cv2.resize(m, (w, h), interpolation=cv2.INTER_LINEAR) for m in data["heat_first"]])
    np.testing.assert_allclose(small, data["heat_small_first"], atol=1e-5)
    nodes = torch.from_numpy(data["feats"]).permute(1, 2, 3, 0).contiguous()
    protocol = replace(vfs_cases(data)["release"], rules=Rules(float(data["temperature"]), 10, "disc", None))
    soft = carried(model, protocol, nodes, torch.from_numpy(data["heat_small_first"]))
    torch.testing.assert_close(soft, torch.from_numpy(data["heat_soft"]), atol=2e-5, rtol=1e-4)
    expected = data["heat_pred_last"]
    large = [cv2.resize(m, (width, height), interpolation=cv2.INTER_LINEAR) for m in soft[-1].numpy()]
    np.testing.assert_allclose(np.stack(large), expected, atol=1e-4)
    names = [str(k) for k in range(len(expected))]
    found = KeypointCodec(names, geometry, dialect="vfs").decode(soft[-1], torch.ones(h, w)).keypoints
    # One of the five pixels may tie with a sixth, which moves the mean by a fifth of a pixel or so.
    np.testing.assert_allclose(found, best_cells(expected, 5) + 0.5, atol=0.5)


def test_vfs_pose_labels_and_positions(reference: Load) -> None:
    """Gaussians at truncated pixels, the five best pixels."""
    data = reference("vfs_pose_parts.npz")
    maps = data["label_maps"]
    grid = maps.shape[1:]
    for (x, y), expected in zip(data["pts_xy"].T, maps, strict=True):
        np.testing.assert_allclose(gaussian_stamp(x, y, grid, sigma=4), expected, atol=1e-6)
    for t, heat in enumerate(data["pred_heat"]):
        np.testing.assert_allclose(best_cells(heat, 5).T, data["coords_xy"][..., t], atol=1e-3)
    # The codec draws the same at the encoder's input size; our (x, y) is half a pixel further than a count from 0.
    codec = KeypointCodec([str(k) for k in range(len(maps))], Geometry(grid, grid, grid, 1), dialect="vfs")
    np.testing.assert_allclose(codec.encode(data["pts_xy"].T + np.float32(0.5)).numpy(), maps, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Spatial-then-Temporal


def test_stt_pose_labels_and_positions(reference: Load) -> None:
    """The same Gaussian and the same five pixels as VFS."""
    data = reference("stt_m_jhmdb_pck.npz")
    x, y = data["label_point"]
    drawn = gaussian_stamp(x, y, data["label_map"].shape, sigma=4)
    np.testing.assert_allclose(drawn, data["label_map"], atol=1e-6)
    for heatmaps, coordinates in zip(data["heatmaps"], data["coords"], strict=True):
        for t, heat in enumerate(heatmaps):
            np.testing.assert_allclose(best_cells(heat, 5).T, coordinates[..., t], atol=1e-3)


def test_stt_sequence(reference: Load, model) -> None:
    """Seed labels, the square window, soft labels and label maps."""
    data = reference("stt_n_label_propagation.npz")
    nodes = torch.from_numpy(data["frame_feat"]).permute(0, 2, 3, 1).contiguous()  # (T, h, w, C)
    _, h, w, _ = nodes.shape
    radius = int(data["neighbor_range"]) // 2
    np.testing.assert_array_equal(square(h, w, radius).numpy(), data["neighbor_mask"])
    protocol = replace(
        PROTOCOLS["stt-davis"],
        num_context=int(data["precede_frames"]),
        rules=Rules(float(data["temperature"]), int(data["topk"]), "square", radius),
    )
    first = data["first_label"]
    geometry = Geometry(first.shape, first.shape, (h, w), first.shape[0] // h)
    codec = protocol.mask_codec(range(1, data["soft_labels"].shape[1]), geometry)
    soft = carried(model, protocol, nodes, codec.encode(first))
    torch.testing.assert_close(soft, torch.from_numpy(data["soft_labels"]), atol=2e-5, rtol=1e-4)
    maps = [codec.decode(labels, torch.ones(h, w)).masks for labels in soft]
    assert pixels_equal(np.stack(maps), data["pred_labels"][1:]) > 0.999


# ---------------------------------------------------------------------------------------------------------------------
# TimeCycle


def timecycle_codec(data: dict[str, Any]):
    """The codec, the ids of frame 0, and the protocol; colours are numbered as the file lists them."""
    rgb = data["first_label_rgb"]
    colours = [tuple(int(v) for v in colour) for colour in data["label_colors"]]
    others = sorted({tuple(int(v) for v in colour) for colour in rgb.reshape(-1, 3)} - set(colours))
    ids = np.zeros(rgb.shape[:2], np.uint8)
    for number, colour in enumerate([*colours, *others]):
        ids[(rgb == colour).all(-1)] = number
    h, w = data["first_label_coarse"].shape[:2]
    protocol = replace(
        PROTOCOLS["timecycle-davis"],
        num_context=int(data["num_refs"]) - 1,
        rules=Rules(
            float(data["temperature"]), int(data["topk"]), "disc", None, joint=False, softmax="frame"
        ),
    )
    geometry = Geometry(ids.shape, ids.shape, (h, w), ids.shape[0] // h)
    return protocol.mask_codec(range(1, len(colours) + len(others)), geometry), ids, protocol, len(colours)


def test_timecycle_seed_labels(reference: Load) -> None:
    """Bilinear planes; colours of too few pixels have none, and leave no background in their place."""
    data = reference("timecycle_e_label_propagation.npz")
    codec, ids, _, kept = timecycle_codec(data)
    planes = codec.encode(ids).numpy()
    np.testing.assert_allclose(planes[:kept], data["first_label_coarse"].transpose(2, 0, 1), atol=1e-5)
    assert not planes[kept:].any()


def test_timecycle_sequence(reference: Load, model) -> None:
    """A whole video: frame 0 reads itself first, each reference has its softmax, labels are stretched."""
    data = reference("timecycle_e_label_propagation.npz")
    codec, ids, protocol, kept = timecycle_codec(data)
    nodes = torch.from_numpy(data["frame_feat"]).relu().permute(0, 2, 3, 1).contiguous()  # (F, h, w, C)
    seed = codec.encode(ids)
    expected = torch.from_numpy(data["pred_label_coarse"]).permute(0, 3, 1, 2)
    soft = carried(model, protocol, nodes, seed)
    torch.testing.assert_close(soft[:, :kept], expected[1:], atol=1e-4, rtol=1e-4)
    plain = Propagator(model, replace(protocol, reread_first=False))
    plain.seed(nodes[0], seed)
    again = plain.step(nodes[0]).labels
    torch.testing.assert_close(again[:kept], expected[0], atol=1e-4, rtol=1e-4)

    colours = data["label_colors"]
    for labels, painted in zip([again, *soft], data["pred_mask_rgb"], strict=True):
        masks = codec.decode(labels, torch.ones(labels.shape[1:])).masks
        assert masks.max() < kept
        assert (colours[masks] == painted).all(-1).mean() > 0.999


def test_timecycle_affinity(reference: Load) -> None:
    """One softmax per reference over its whole frame; the file counts positions column by column."""
    data = reference("timecycle_e_label_propagation.npz")
    nodes = normalise(torch.from_numpy(data["frame_feat"]).relu().permute(0, 2, 3, 1), -1)  # (F, h, w, C)
    _, h, w, _ = nodes.shape
    affinity = torch.from_numpy(data["affinity_frame1"])  # (L, w * h, h, w)
    by_row = affinity.unflatten(1, (w, h)).transpose(1, 2)  # (L, h, w of the key, h, w of the query)
    rules = Rules(float(data["temperature"]), None, "disc", None)
    one_hot = torch.eye(h * w).view(1, h, w, h * w)
    read = readout(
        nodes[1].contiguous(), nodes[:1].contiguous(), one_hot, context=[0], free=[True], rules=rules
    ).labels  # (h, w, h * w)
    for reference_frame in by_row:  # all references of frame 1 have the features of frame 0
        expected = reference_frame.permute(2, 3, 0, 1).flatten(2)
        torch.testing.assert_close(read, expected, atol=1e-6, rtol=1e-4)
