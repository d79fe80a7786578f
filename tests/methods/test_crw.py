"""CRW: patches that are where they should be, losses that equal loops, options that do what they say."""

import dataclasses
import pickle

import pytest
import torch

from retrace.encoders.config import EncoderConfig
from retrace.encoders.heads import node_head
from retrace.encoders.model import IMAGENET_MEAN, IMAGENET_STD
from retrace.methods.crw import CRW, CRWConfig, CRWViews, crw_loss, released
from retrace.walk.sinkhorn import sinkhorn

SMALL = CRWConfig(
    image_size=48, patch_size=16, patch_stride=8, edge_dropout=0.0, temperature=0.4, head_outputs=6
)


def generator(seed: int = 0) -> torch.Generator:
    """A CPU generator."""
    return torch.Generator().manual_seed(seed)


def draw_nodes(batch=2, length=4, count=6, channels=5, seed=0) -> torch.Tensor:
    """Unit vectors (B, T, N, C), float64."""
    drawn = torch.randn(batch, length, count, channels, generator=generator(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=-1)


def coordinate_clip(length=4, height=60, width=90) -> torch.Tensor:
    """Red grows with x, green with y, blue with t; each 2 per pixel."""
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    frames = [torch.stack([2 * xs, 2 * ys, torch.full_like(xs, 50 * t)]) for t in range(length)]
    return torch.stack(frames).to(torch.uint8)


def pixels(views: torch.Tensor) -> torch.Tensor:
    """Undo the normalisation: values 0 to 255."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (views * std + mean) * 255


def test_patches_lie_on_their_grid():
    """Node i is patch (i // columns, i % columns) of the resized frame, somewhere inside and nearly as large."""
    config = dataclasses.replace(SMALL, patch_area=(0.7, 0.9))
    views = CRWViews(config)(coordinate_clip(), generator())["patches"]
    assert views.shape == (4, 25, 3, 16, 16)
    colours = pixels(views)
    for t in range(4):
        assert (colours[t, :, 2] - 50 * t).abs().max() < 0.1
        for node in range(25):
            x0, y0 = node % 5 * 8, node // 5 * 8
            for channel, first, scale in (
                (0, x0, 89 / 47),
                (1, y0, 59 / 47),
            ):  # 48 pixels show the whole frame
                low, high = colours[t, node, channel].aminmax()
                assert 2 * scale * first - 0.1 <= low < high <= 2 * scale * (first + 15) + 0.1
                assert high - low > 2 * scale * 8  # at least half of the patch is kept
    assert not torch.equal(views[0, 0], views[1, 0])  # each patch has a crop of its own


def test_whole_frames_and_their_jitter():
    """Cells as nodes need no patches; with the jitter every frame has a crop of its own."""
    config = dataclasses.replace(SMALL, nodes="cells")
    whole = pixels(CRWViews(config)(coordinate_clip(), generator())["frames"])
    assert whole.shape == (4, 3, 48, 48)
    corners = torch.tensor([[0.0, 178.0], [0.0, 178.0]])
    torch.testing.assert_close(whole[0, 0][[0, -1]][:, [0, -1]], corners, atol=0.1, rtol=0)
    jittered = pixels(
        CRWViews(dataclasses.replace(config, frame_jitter=True))(coordinate_clip(), generator())["frames"]
    )
    spans = [frame[0].max() - frame[0].min() for frame in jittered]
    assert len({tuple(frame[:2, [0, -1], [0, -1]].flatten().tolist()) for frame in jittered}) == 4
    assert all(60 < span < 178.1 for span in spans)


def test_colour_jitter_changes_frames_apart():
    """A strength of 0.1, as the released option."""
    config = dataclasses.replace(SMALL, nodes="cells", colour_jitter=0.1)
    clip = torch.full((4, 3, 50, 60), 128, dtype=torch.uint8)
    values = pixels(CRWViews(config)(clip, generator())["frames"]).mean((1, 2, 3))
    assert values.unique().numel() == 4
    assert (values - 128).abs().max() < 128 * 0.1 + 1


def test_views_repeat_with_the_generator_pickle_and_leave_the_clip_alone():
    """Views are a function of clip and generator."""
    clip = coordinate_clip()
    before = clip.clone()
    views = pickle.loads(
        pickle.dumps(CRWViews(dataclasses.replace(SMALL, frame_jitter=True, colour_jitter=0.1)))
    )
    one, two, other = (views(clip, generator(seed))["patches"] for seed in (5, 5, 6))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(clip, before)


def loops(nodes: torch.Tensor, config: CRWConfig) -> torch.Tensor:
    """Eq. 1-2 with loops: clip by clip, palindrome by palindrome, node by node."""
    batch, length, count, _ = nodes.shape
    losses = []
    for turn in range(config.shortest_turn, length):
        surprise = 0.0
        for b in range(batch):
            order = [*range(turn + 1), *reversed(range(turn))]
            steps = [
                (nodes[b, here] @ nodes[b, there].T / config.temperature).softmax(1)
                for here, there in zip(order, order[1:], strict=False)
            ]
            if config.product == "flipped":
                steps = steps[::-1]
            walk = torch.eye(count, dtype=nodes.dtype)
            for step in steps:
                walk = walk @ step
            surprise = surprise - walk.diagonal().log().mean() / batch
        losses.append(surprise)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("shortest_turn", [1, 2, 3])
@pytest.mark.parametrize("product", ["right", "flipped"])
def test_loss_by_loops(shortest_turn, product):
    """Every palindrome, in both orders of multiplication."""
    config = dataclasses.replace(SMALL, shortest_turn=shortest_turn, product=product)
    nodes = draw_nodes()
    losses = crw_loss(nodes, config)
    torch.testing.assert_close(losses.total, loops(nodes, config))
    assert {name for name in losses.terms if name.startswith("cycle")} == {
        f"cycle_{turn}" for turn in range(shortest_turn, 4)
    }


@pytest.mark.parametrize(
    "changes", [{}, {"product": "flipped"}, {"targets": "sinkhorn"}, {"transition": "sinkhorn"}]
)
def test_gradients(changes):
    """Right to float64's precision, whatever the option."""
    config = dataclasses.replace(SMALL, **changes)
    nodes = draw_nodes(batch=1, count=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: crw_loss(x, config).total, (nodes,))


def test_sinkhorn_targets_by_loops():
    """Targets are the argmax of the evened walk; the loss is the surprise of the plain walk at them."""
    config = dataclasses.replace(SMALL, targets="sinkhorn", clip_length=3)
    nodes = draw_nodes(length=3)
    total = 0.0
    with torch.no_grad():
        sure = sinkhorn(nodes[:, :-1] @ nodes[:, 1:].transpose(2, 3) / config.temperature)
    for b in range(2):
        plain, evened = torch.eye(6, dtype=nodes.dtype), torch.eye(6, dtype=nodes.dtype)
        for t in range(2):
            plain = plain @ (nodes[b, t] @ nodes[b, t + 1].T / config.temperature).softmax(1)
            evened = evened @ sure[b, t]
        for _ in range(10):
            evened = evened / evened.sum(0, keepdim=True)
            evened = evened / evened.sum(1, keepdim=True)
        for i in range(6):
            total -= plain[i, evened[i].argmax()].log() / 12
    losses = crw_loss(nodes, config)
    torch.testing.assert_close(losses.total, total)
    assert 0 <= losses.terms["accuracy"] <= 1


def lost(config: CRWConfig) -> tuple[float, float]:
    """Shares of edges that the way out and the way back lose."""
    from retrace.methods.crw import _transitions

    out, home = _transitions(torch.zeros(1, 1, 300, 200), config, generator())
    return float((out == 0).float().mean()), float((home == 0).float().mean())


def test_edge_dropout_as_meant_and_as_released():
    """10 % each way; as released the way back loses the way out's edges too: 1 - 0.9^2."""
    config = dataclasses.replace(SMALL, edge_dropout=0.1)
    assert lost(config) == pytest.approx((0.1, 0.1), abs=0.005)
    assert lost(dataclasses.replace(config, edge_draws="released")) == pytest.approx((0.1, 0.19), abs=0.005)


@pytest.mark.parametrize("nodes", ["patches", "cells"])
@pytest.mark.parametrize("transition", ["softmax", "sinkhorn"])
def test_module_trains(nodes, transition):
    """A batch goes through and every parameter learns."""
    torch.manual_seed(0)
    config = dataclasses.replace(
        SMALL, nodes=nodes, transition=transition, edge_dropout=0.1, feature_dropout=0.2
    )
    module = CRW(EncoderConfig(width=0.125, cut="layer4", padding_mode="reflect").build(), config)
    items = [CRWViews(config)(coordinate_clip(), generator(seed)) for seed in range(2)]
    batch = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    losses, again = (module(batch, generator(3)) for _ in range(2))
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert torch.equal(losses.total, again.total)  # what is dropped follows the generator
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())
    assert not any(term.requires_grad for term in losses.terms.values())
    assert losses.terms["feature_std"] > 0


def test_feature_dropout_drops_its_share_and_keeps_the_mean():
    """And nothing in evaluation."""
    config = dataclasses.replace(SMALL, feature_dropout=0.3)
    module = CRW(EncoderConfig(width=0.125).build(), config)
    ones = torch.ones(20, 30, 20, 10)
    dropped = module._dropped(ones, generator())
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert module.eval()._dropped(ones, generator()) is ones


def test_a_patch_is_a_node_however_many_cells_it_has():
    """The node of a patch is the head of its mean feature."""
    config = dataclasses.replace(SMALL, clip_length=3)
    torch.manual_seed(0)
    module = CRW(EncoderConfig(width=0.125).build(), config).eval()
    batch = {"patches": CRWViews(config)(coordinate_clip(3), generator())["patches"][None]}
    with torch.no_grad():
        feature = module.encoder(batch["patches"][0, 1, 7:8])[0].flatten(1).mean(1)  # frame 1, node 7
        expected = torch.nn.functional.normalize(module.head(feature), dim=0)
        nodes = torch.nn.functional.normalize(
            module.head(module.encoder(batch["patches"][0].flatten(0, 1)).mean((-2, -1))), dim=1
        ).reshape(1, 3, 25, -1)
        torch.testing.assert_close(nodes[0, 1, 7], expected)
        torch.testing.assert_close(module(batch).total, crw_loss(nodes, config).total)


def test_depth_of_the_head():
    """No head, one linear layer, hidden layers."""
    x = torch.randn(2, 3, 8)
    assert torch.equal(node_head(8, 4, -1)(x), x)
    assert node_head(8, 4, 0)(x).shape == (2, 3, 4)
    assert [type(layer).__name__ for layer in node_head(8, 4, 1)] == ["Linear", "ReLU", "Linear"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nodes", "pixels"),
        ("edge_draws", "wrong"),
        ("product", "left"),
        ("targets", "none"),
        ("transition", "hard"),
        ("shortest_turn", 0),
        ("shortest_turn", 4),
        ("patch_size", 48),
        ("patch_stride", 0),
        ("temperature", 0.0),
        ("edge_dropout", 1.0),
        ("feature_dropout", -0.1),
        ("head_depth", -2),
    ],
)
def test_config_refuses_what_means_nothing(field, value):
    """With the name of the field."""
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SMALL, **{field: value})


def test_released_decides_every_departure():
    """Nothing that only we have, or that is an experiment, is left in it."""
    ours = dataclasses.replace(
        SMALL, shortest_turn=1, product="flipped", targets="sinkhorn", transition="sinkhorn"
    )
    assert released(ours) == released(SMALL)
    assert released(SMALL).frame_jitter
    assert released(SMALL).edge_draws == "released"


@pytest.mark.parametrize("changes", [{}, {"targets": "sinkhorn", "temperature": 2.0}])
def test_the_loss_of_a_batch_is_the_mean_over_its_clips(changes):
    """So processes may share a batch."""
    config, nodes = dataclasses.replace(SMALL, **changes), draw_nodes(batch=4)
    halves = [crw_loss(half, config).total for half in nodes.split(2)]
    torch.testing.assert_close(crw_loss(nodes, config).total, torch.stack(halves).mean())
