"""TimeCycle: patches cut where theta says, tracks and losses by loops, gradients that are right."""

import dataclasses
import pickle

import pytest
import torch
from torch import Tensor, nn

from retrace.encoders.config import EncoderConfig
from retrace.encoders.heads import Localizer
from retrace.encoders.model import IMAGENET_MEAN, IMAGENET_STD
from retrace.methods.timecycle import (
    SCALE,
    TimeCycle,
    TimeCycleConfig,
    TimeCycleViews,
    motion_scores,
    paper,
    timecycle_loss,
    track,
)
from retrace.video.sampling import OffsetSampling
from retrace.walk import warp

SMALL = TimeCycleConfig(
    crop_size=72, short_side=80, temperature=0.3, localizer_channels=(4, 3), localizer_kernel=2
)


def generator(seed: int = 0) -> torch.Generator:
    """A CPU generator."""
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Non-negative maps, float64."""
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


def maps(count=3, batch=2, channels=3, image=(6, 7), patch=(3, 4)) -> dict[str, Tensor]:
    """Past, target, patch and theta, all random, h != w."""
    parameters = torch.tensor([[0.2, -0.3, 0.4], [-0.5, 0.1, -0.2]], dtype=torch.float64)[:batch]
    return {
        "past": draw(batch, count, channels, *image, seed=1),
        "target": draw(batch, channels, *image, seed=2),
        "patch": draw(batch, channels, *patch, seed=3),
        "theta": warp.placement(parameters, SCALE),
    }


def localizer(image=(6, 7), patch=(3, 4)) -> Localizer:
    """A g whose answers differ from query to query."""
    torch.manual_seed(0)
    g = Localizer(image[0] * image[1], patch, (4, 3), 2).double()
    nn.init.normal_(g.conv1.weight)
    nn.init.normal_(g.linear.weight, std=0.3)
    return g


def moving_clip(length=6, height=90, width=120) -> Tensor:
    """A static gradient; in the last frame a square of 24 pixels has turned white."""
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    clip = torch.stack([2 * xs, 2 * ys, xs + ys]).to(torch.uint8).repeat(length, 1, 1, 1)
    clip[-1, :, 20:44, 70:94] = 255
    return clip


# Views


@pytest.mark.parametrize("choice", ["motion", "uniform"])
def test_the_patch_is_the_target_read_at_theta(choice):
    """Reading the target frame's colours at theta by hand gives the patch."""
    config = dataclasses.replace(SMALL, patch_choice=choice)
    assert config.clip_length == (6 if choice == "motion" else 5)
    for seed in range(5):
        views = TimeCycleViews(config)(moving_clip(config.clip_length), generator(seed))
        assert views["past"].shape == (4, 3, 72, 72)
        assert views["patch"].shape == (3, 24, 24)
        for row, column in ((0, 0), (5, 20), (23, 23)):
            point = torch.tensor([column / 23 * 2 - 1, row / 23 * 2 - 1, 1.0])
            x, y = ((views["theta"] @ point + 1) / 2 * 71).tolist()
            if 0 <= x <= 71 and 0 <= y <= 71:
                left, top = min(int(x), 70), min(int(y), 70)
                a, b = x - left, y - top
                square = views["target"][:, top : top + 2, left : left + 2]
                expected = (1 - b) * ((1 - a) * square[:, 0, 0] + a * square[:, 0, 1]) + b * (
                    (1 - a) * square[:, 1, 0] + a * square[:, 1, 1]
                )
                torch.testing.assert_close(views["patch"][:, row, column], expected, atol=1e-4, rtol=0)
        determinant = torch.linalg.det(views["theta"][:, :2])
        assert determinant.item() == pytest.approx(SCALE**2)


def test_the_crop_is_one_for_all_frames_and_keeps_the_scale():
    """A crop of 72 of a short side of 80 is 81 of the 90 pixels here; flips mirror everything."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    signs = set()
    for seed in range(12):
        views = TimeCycleViews(SMALL)(moving_clip(), generator(seed))
        assert torch.equal(views["past"][0], views["past"][3])
        red = ((views["target"] * std + mean) * 255)[0]
        slope = (red[:, -1] - red[:, 0]).mean()
        assert slope.abs().item() == pytest.approx(2 * 80, rel=1e-3)
        signs.add(bool(slope > 0))
    assert signs == {True, False}


def test_the_patch_lies_where_something_moves():
    """Also in mirrored clips, where the released code misses it."""
    config = dataclasses.replace(SMALL, moving_places=1, patch_jitter=0.0)
    uniform = dataclasses.replace(SMALL, patch_choice="uniform")
    seen = []
    for seed in range(20):
        clip = moving_clip()
        marked = clip.clone()
        marked[4] = marked[5]  # the white square shows in the target: its share of the patch can be counted
        views = TimeCycleViews(config)(clip, generator(seed))
        target = TimeCycleViews(config)(marked, generator(seed))["target"]
        patch = warp.read(target[None], views["theta"][None], (24, 24))[0]
        seen.append(float((patch > 2).all(0).float().mean()))
    assert min(seen) > 0.15
    places = [TimeCycleViews(uniform)(moving_clip(5), generator(seed))["theta"][:, 2] for seed in range(60)]
    spread = torch.stack(places)
    assert spread.abs().max() <= 2 / 3
    assert (spread.amax(0) - spread.amin(0) > 1).all()


def test_motion_scores_by_loops():
    """7 x 7 boxes of 3 x 3 cells."""
    target, later = torch.rand(2, 3, 40, 40, generator=generator()).unbind(0)
    scores = motion_scores(target, later)
    assert scores.shape == (7, 7)
    for row in range(7):
        for column in range(7):
            box = (slice(None), slice(4 * row, 4 * row + 12), slice(4 * column, 4 * column + 12))
            expected = (target[box] - later[box]).abs().sum() / 144
            assert scores[row, column].item() == pytest.approx(expected.item(), rel=1e-4)


def test_views_repeat_with_the_generator_pickle_and_leave_the_clip_alone():
    """Views are a function of clip and generator."""
    clip = moving_clip()
    before = clip.clone()
    views = pickle.loads(pickle.dumps(TimeCycleViews(SMALL)))
    one, two, other = (views(clip, generator(seed)) for seed in (5, 5, 6))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["patch"], other["patch"])
    assert torch.equal(clip, before)


def test_rotation_stays_in_its_range():
    """45 degrees either way, and none if none is wanted."""
    thetas = torch.stack([TimeCycleViews(SMALL)(moving_clip(), generator(s))["theta"] for s in range(40)])
    angles = torch.atan2(thetas[:, 1, 0], thetas[:, 0, 0]).rad2deg()
    assert angles.abs().max() <= 45.01
    assert angles.max() > 25
    assert angles.min() < -25
    straight = TimeCycleViews(dataclasses.replace(SMALL, max_rotation=0.0))(moving_clip(), generator())
    assert straight["theta"][0, 1] == 0


def test_frames_as_published():
    """Past frames at 0, 2, 4, 6, the target at 15, and one 2 later for the motion."""
    assert TimeCycleConfig().sampling() == OffsetSampling((0, 2, 4, 6, 15), beyond=(2,))
    assert dataclasses.replace(SMALL, patch_choice="uniform", num_past=2).sampling().offsets == (0, 2, 11)


# Tracks and losses


def one_step(
    image: Tensor, query: Tensor, g: nn.Module, config: TimeCycleConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """The tracker by the paper: image (C, H, W), query (C, h, w) not normalised -> theta, crop, A (N, n)."""
    flat = torch.nn.functional.normalize(image, dim=0).flatten(1)
    cells = torch.nn.functional.normalize(query, dim=0).flatten(1)
    a = (flat.T @ cells / config.temperature).softmax(0)
    theta = warp.placement(g(a.reshape(1, -1, *query.shape[1:]))[0], SCALE)
    moved = theta.clone()
    moved[:, 2] = moved[:, 2] * config.translation_factor
    crop = warp.read(image[None], moved[None], tuple(query.shape[1:]))[0]
    return theta, crop, a


@pytest.mark.parametrize("lengths", [None, (1,), (3,), (1, 3), (2,)])
def test_tracks_by_the_paper_step_by_step(lengths):
    """Sharing steps between cycles changes nothing."""
    config = dataclasses.replace(SMALL, num_past=3, translation_factor=1.1, cycle_lengths=lengths)
    data, g = maps(), localizer()
    with torch.no_grad():
        tracks = track(data["past"], data["target"], data["patch"], g, config)
        assert set(tracks.forward) == set(config.lengths)
        for b in range(2):
            past, target, patch = data["past"][b], data["target"][b], data["patch"][b]
            for i in range(3):
                theta, crop, a = one_step(past[i], patch, g, config)
                torch.testing.assert_close(tracks.direct[b, i], theta)
                torch.testing.assert_close(tracks.walk[b, i], a.T)
                torch.testing.assert_close(tracks.crops[b, i], crop)
                torch.testing.assert_close(tracks.skip[b, i], one_step(target, crop, g, config)[0])
            for length in config.lengths:
                crop = patch
                for step, frame in enumerate(range(2, 2 - length, -1)):
                    theta, crop, _ = one_step(past[frame], crop, g, config)
                    torch.testing.assert_close(tracks.back[b, step], theta)
                path = []
                for frame in range(3 - length + 1, 3):
                    theta, crop, _ = one_step(past[frame], crop, g, config)
                    path.append(theta)
                path.append(one_step(target, crop, g, config)[0])
                torch.testing.assert_close(tracks.forward[length][b], torch.stack(path))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("similarity", ["soft_inliers", "inner_product"])
def test_loss_is_put_together_as_it_says(reduction, similarity):
    """Over batch and cycles, with the weights."""
    config = dataclasses.replace(
        SMALL,
        num_past=3,
        reduction=reduction,
        similarity=similarity,
        similarity_weight=0.5,
        skip_weight=2.0,
        long_weight=3.0,
    )
    data, g = maps(), localizer()
    with torch.no_grad():
        tracks = track(data["past"], data["target"], data["patch"], g, config)
        losses = timecycle_loss(*data.values(), g, config)
    long = skip = alike = 0.0
    for b in range(2):
        for i in range(3):
            truth = data["theta"][b]
            long += warp.alignment_error(tracks.forward[i + 1][b, -1], truth) / 2
            skip += warp.alignment_error(tracks.skip[b, i], truth) / 2
            if similarity == "inner_product":
                one, other = (
                    torch.nn.functional.normalize(x, dim=0) for x in (data["patch"][b], tracks.crops[b, i])
                )
                alike -= (one * other).sum() / 2
            else:
                score = warp.soft_inliers(tracks.walk[b, i][None], tracks.direct[b, i][None], (6, 7), (3, 4))
                alike -= score[0] / 2
    over = 1 if reduction == "sum" else 3
    torch.testing.assert_close(losses.terms["long"], long / over)
    torch.testing.assert_close(losses.terms["skip"], skip / over)
    torch.testing.assert_close(losses.terms["similarity"], alike / over)
    torch.testing.assert_close(losses.total, (0.5 * alike + 2 * skip + 3 * long) / over)


@pytest.mark.parametrize("text", [False, True])
def test_gradients(text):
    """Of the released losses and of the paper's, through every step of every cycle."""
    config = dataclasses.replace(SMALL, num_past=2, translation_factor=1.08)
    config = paper(config) if text else config
    data, g = maps(count=2, batch=1, channels=2, image=(4, 5), patch=(3, 3)), localizer((4, 5), (3, 3))
    inputs = [data[name].requires_grad_() for name in ("past", "target", "patch")]
    weights = g.linear.weight
    assert torch.autograd.gradcheck(
        lambda past, target, patch, _: timecycle_loss(past, target, patch, data["theta"], g, config).total,
        (*inputs, weights),
        atol=1e-6,
    )


def test_a_perfect_tracker_comes_home():
    """A g that always answers the truth has no alignment loss and full accuracy; one that is far off has none."""
    data = maps()
    parameters = torch.tensor([[0.2, -0.3, 0.4], [-0.5, 0.1, -0.2]], dtype=torch.float64)

    class Oracle(nn.Module):
        """Knows where the patch is."""

        def forward(self, affinity_map: Tensor) -> Tensor:
            """The truth, for every query of every clip."""
            return parameters.repeat_interleave(len(affinity_map) // 2, dim=0) + self.error

    oracle = Oracle()
    oracle.error = 0.0
    config = dataclasses.replace(SMALL, num_past=3)
    losses = timecycle_loss(*data.values(), oracle, config)
    assert losses.terms["long"] == losses.terms["skip"] == 0
    assert losses.terms["accuracy"] == 1
    oracle.error = torch.tensor([0.3, 0.0, 0.0])
    assert timecycle_loss(*data.values(), oracle, config).terms["accuracy"] == 0


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_module_trains(architecture):
    """A batch goes through and every parameter learns."""
    torch.manual_seed(0)
    encoder = EncoderConfig(architecture, width=0.125, reduction=8).build()
    module = TimeCycle(encoder, SMALL)
    assert module.encoder.training
    items = [TimeCycleViews(SMALL)(moving_clip(), generator(seed)) for seed in range(2)]
    batch = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    losses = module(batch, generator())
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())
    assert not any(term.requires_grad for term in losses.terms.values())
    assert {"long", "skip", "similarity", "accuracy", "feature_std"} == set(losses.terms)


def test_a_patch_too_small_for_the_localizer_is_refused():
    """Before training, with the sizes."""
    config = dataclasses.replace(SMALL, localizer_kernel=4)
    with pytest.raises(ValueError, match="a patch of 3 x 3 nodes is too small for two kernels of 4"):
        TimeCycle(EncoderConfig(width=0.125).build(), config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_past", 0),
        ("past_stride", 0),
        ("target_gap", 0),
        ("motion_gap", 0),
        ("localizer_kernel", 0),
        ("crop_size", 73),
        ("crop_size", 21),
        ("short_side", 71),
        ("patch_choice", "best"),
        ("moving_places", 50),
        ("temperature", 0.0),
        ("similarity", "cosine"),
        ("reduction", "max"),
        ("skip_weight", -1.0),
        ("cycle_lengths", (5,)),
        ("cycle_lengths", ()),
        ("alignment_points", 1),
    ],
)
def test_config_refuses_what_means_nothing(field, value):
    """With the name of the field."""
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SMALL, **{field: value})


def test_the_cycle_of_length_0_is_the_patch_in_its_own_frame():
    """Off by default; its weight adds it and changes nothing else."""
    data, g = maps(), localizer()
    config = dataclasses.replace(SMALL, num_past=3)
    with torch.no_grad():
        tracks = track(data["past"], data["target"], data["patch"], g, config)
        for b in range(2):
            torch.testing.assert_close(
                tracks.own[b], one_step(data["target"][b], data["patch"][b], g, config)[0]
            )
        without = timecycle_loss(*data.values(), g, config)
        losses = timecycle_loss(*data.values(), g, dataclasses.replace(config, self_weight=0.5))
    expected = warp.alignment_error(tracks.own, data["theta"]).mean()
    assert "self" not in without.terms
    torch.testing.assert_close(losses.terms["self"], expected)
    torch.testing.assert_close(losses.total, without.total + 0.5 * expected)


@pytest.mark.parametrize("text", [False, True])
def test_the_loss_of_a_batch_is_the_mean_over_its_clips(text):
    """So processes may share a batch."""
    config = dataclasses.replace(SMALL, num_past=3, self_weight=1.0)
    config = paper(config) if text else config
    data, g = maps(), localizer()
    with torch.no_grad():
        whole = timecycle_loss(*data.values(), g, config).total
        each = [timecycle_loss(*(x[b : b + 1] for x in data.values()), g, config).total for b in range(2)]
    torch.testing.assert_close(whole, torch.stack(each).mean())
