"""VFS: views, both losses by loops, what a step moves and saves, every refusal."""

import dataclasses
import math
import pickle

import pytest
import torch
from torch import Tensor

from retrace.encoders.config import EncoderConfig
from retrace.encoders.model import IMAGENET_MEAN, IMAGENET_STD
from retrace.errors import UsageError
from retrace.methods.vfs import (
    COLOUR,
    VFS,
    VFSConfig,
    VFSViews,
    contrast,
    loss_without_negatives,
    pair_distances,
)
from retrace.video.sampling import ContinuousSampling, DistantSampling

SMALL = VFSConfig(clip_length=4, crop_size=32, queue_length=32)
NEGATIVES = dataclasses.replace(SMALL, negatives=True, projector_outputs=8)


def generator(seed: int = 0) -> torch.Generator:
    """Generator."""
    return torch.Generator().manual_seed(seed)


def rows(batch=2, length=3, channels=4, seed=0) -> Tensor:
    """Float64 (B, T, C)."""
    return torch.randn(batch, length, channels, generator=generator(seed), dtype=torch.float64)


def unit(x: Tensor) -> Tensor:
    """Unit rows."""
    return x / x.norm(dim=-1, keepdim=True)


def clip(length=4, height=40, width=60) -> Tensor:
    """Frames that can be told apart by their brightness, and left from right."""
    ramp = torch.arange(width).expand(3, height, width)
    return torch.stack([ramp + 40 * t for t in range(length)]).to(torch.uint8)


def module(config: VFSConfig, seed: int = 0) -> VFS:
    """A small network."""
    torch.manual_seed(seed)
    encoder = EncoderConfig(width=0.125, strides=(1, 2, 2, 1), cut="layer4", zero_init_residual=True)
    return VFS(encoder.build(), config)


def batch(config: VFSConfig, size: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Views of noise."""
    views = VFSViews(config)
    noise = torch.randint(0, 256, (size, config.clip_length, 3, 40, 60), generator=generator(seed))
    items = [views(one.to(torch.uint8), generator(seed + n)) for n, one in enumerate(noise)]
    return {"frames": torch.stack([item["frames"] for item in items])}


def plain(frames: Tensor) -> Tensor:
    """Back to [0, 255]."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (frames * std + mean) * 255


def test_views_without_augmentation_are_the_whole_frames():
    """Squashed to the square: corners stay corners (Table 2, first row)."""
    config = dataclasses.replace(SMALL, spatial=False)
    frames = plain(VFSViews(config)(clip(), generator())["frames"])
    assert frames.shape == (4, 3, 32, 32)
    for t, frame in enumerate(frames):
        torch.testing.assert_close(frame[:, :, 0], torch.full((3, 32), 40.0 * t), atol=0.1, rtol=0)
        torch.testing.assert_close(frame[:, :, -1], torch.full((3, 32), 40.0 * t + 59), atol=0.1, rtol=0)


def test_every_frame_has_its_own_crop_flip_and_colour():
    """Four copies of one frame come out different; flips in about half of them."""
    copies = clip(1).expand(4, -1, -1, -1)
    flips = []
    for seed in range(40):
        frames = plain(VFSViews(SMALL)(copies, generator(seed))["frames"])
        assert all(not torch.equal(frames[0], other) for other in frames[1:])
        flips += [bool(frame[0, 0, 0] > frame[0, 0, -1]) for frame in frames]
    assert 50 < sum(flips) < 110
    coloured = dataclasses.replace(SMALL, spatial=False, colour="paper")
    frames = VFSViews(coloured)(copies, generator(3))["frames"]
    assert len({round(float(frame.sum()), 2) for frame in frames}) > 1


def test_views_repeat_with_the_generator_pickle_and_do_not_write():
    """Views repeat with the generator, pickle and do not write."""
    views = pickle.loads(pickle.dumps(VFSViews(dataclasses.replace(SMALL, colour="released"))))
    before = clip()
    given = before.clone()
    one, two, other = (views(given, generator(seed))["frames"] for seed in (5, 5, 6))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(given, before)


def test_released_blur_is_hardly_any():
    """What the table in the documentation says of it."""
    blurs = {}
    edge = torch.zeros(1, 3, 224, 224)
    edge[..., 112:] = 1
    for name in ("paper", "released"):
        only = dataclasses.replace(COLOUR[name], jitter_probability=0, grey_probability=0, blur_probability=1)
        blurs[name] = max(float((only(edge, generator(seed)) - edge).abs().max()) for seed in range(5))
    assert blurs["released"] < 0.01
    assert blurs["paper"] > 0.2


@pytest.mark.parametrize("pairs", ["all", "aligned"])
def test_loss_without_negatives_by_loops(pairs):
    """Half of each direction, over the pairs between the halves."""
    p1, z1, p2, z2 = (unit(rows(seed=seed)) for seed in range(4))
    config = dataclasses.replace(SMALL, pairs=pairs)
    found = loss_without_negatives(3 * p1, 2 * z1, p2, 5 * z2, config)
    terms, cosines = [], []
    for b in range(2):
        for i in range(3):
            for j in range(3):
                if pairs == "all" or i == j:
                    cosines += [p1[b, i] @ z2[b, j], p2[b, j] @ z1[b, i]]
                    terms.append(0.5 * (2 - 2 * cosines[-2]) + 0.5 * (2 - 2 * cosines[-1]))
    torch.testing.assert_close(found.total, torch.stack(terms).mean())
    torch.testing.assert_close(found.terms["similarity"], torch.stack(cosines).mean())


def test_gradient_stops_at_projections():
    """Gradients of p are right, z gets none."""
    p1, z1, p2, z2 = (rows(seed=seed).requires_grad_() for seed in range(4))
    assert torch.autograd.gradcheck(lambda a, b: pair_distances(a, z1.detach(), b, z2.detach()), (p1, p2))
    pair_distances(p1, z1, p2, z2).sum().backward()
    assert z1.grad is None
    assert z2.grad is None


@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("in_batch", [False, True])
@pytest.mark.parametrize("pairs", ["all", "aligned"])
def test_contrast_by_loops(pairs, in_batch, own):
    """Eq. 4 and the authors' form; with keys of another process's videos before and behind our own."""
    queries, keys, queue = unit(rows()), unit(rows(batch=4, seed=1)), unit(rows(1, 6, seed=2))[0].T
    config = dataclasses.replace(NEGATIVES, pairs=pairs, batch_negatives=in_batch, temperature=0.4)
    found = contrast(queries, keys, queue, config, own)
    expected = []
    for b in range(2):
        for i in range(3):
            positives = range(3) if pairs == "all" else [i]
            others = []
            if in_batch:
                for v in range(4):
                    for j in range(3):
                        mine = v == b + own and (pairs == "all" or j == i)
                        others += [] if mine else [keys[v, j]]
            crowd = sum(math.exp(queries[b, i] @ n / 0.4) for n in [*queue.T, *others])
            for j in positives:
                score = math.exp(queries[b, i] @ keys[b + own, j] / 0.4)
                expected.append(-math.log(score / (score + crowd)))
    torch.testing.assert_close(found.flatten(), torch.tensor(expected, dtype=torch.float64))


def test_contrast_gradients():
    """Gradients, where some negatives are masked."""
    keys, queue = unit(rows(seed=1)), unit(rows(1, 6, seed=2))[0].T
    for pairs in ("all", "aligned"):
        config = dataclasses.replace(NEGATIVES, pairs=pairs, batch_negatives=True, temperature=0.4)
        assert torch.autograd.gradcheck(
            lambda q, c=config: contrast(q, keys, queue, c), (unit(rows()).requires_grad_(),)
        )


@pytest.mark.parametrize("length", [2, 4, 8])
@pytest.mark.parametrize("negatives", [False, True])
def test_module_trains(negatives, length):
    """Every parameter that wants a gradient gets one; terms are numbers worth a curve."""
    config = dataclasses.replace(NEGATIVES if negatives else SMALL, clip_length=length, queue_length=64)
    method = module(config)
    losses = method(batch(config), generator())
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert set(losses.terms) == {"similarity", "feature_std"}
    assert not any(term.requires_grad for term in losses.terms.values())
    for parameter in method.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad


def test_halves_are_two_forward_passes():
    """The running statistics are those of the first half, then the second."""
    method = module(SMALL)
    frames = batch(SMALL)["frames"]
    method({"frames": frames})
    again = module(SMALL)
    for half in (frames[:, :2], frames[:, 2:]):
        again.head(again.encoder(half.flatten(0, 1)))
    for name, buffer in again.named_buffers():
        torch.testing.assert_close(method.get_buffer(name), buffer)


def test_step_with_negatives_moves_the_target_then_fills_the_queue():
    """The queue holds the keys of the first halves, from the target encoder after its step (Eq. 2)."""
    method = module(NEGATIVES)
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(0.1)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    views = batch(NEGATIVES)
    method.begin_step()
    method(views, generator())
    assert torch.equal(method.queue.embeddings, before["queue.embeddings"])
    method.end_step()
    for name, parameter in method.encoder.named_parameters():
        expected = 0.999 * before[f"target_encoder.{name}"] + 0.001 * parameter
        torch.testing.assert_close(method.target_encoder.get_parameter(name), expected)
    keys = method.target_head(method.target_encoder(views["frames"][:, :2].flatten(0, 1)))
    torch.testing.assert_close(method.queue.embeddings[:, :4], keys.T)
    assert torch.equal(method.queue.embeddings[:, 4:], before["queue.embeddings"][:, 4:])
    assert int(method.queue.pointer) == 4


def test_target_starts_as_the_encoder_and_nothing_moves_in_eval_mode():
    """Weights given by `init` reach the target too; evaluation has no side effects."""
    method = module(NEGATIVES)
    for name, tensor in method.encoder.state_dict().items():
        assert torch.equal(tensor, method.target_encoder.state_dict()[name])
    method.eval()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    one = method(batch(NEGATIVES, size=1))
    assert torch.isfinite(one.total)
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())


@pytest.mark.parametrize("config", [SMALL, dataclasses.replace(NEGATIVES, batch_negatives=True)])
def test_a_saved_method_goes_on_exactly(config):
    """State and optimiser carry everything: two steps are one step, saved, loaded, and one more."""

    def step(method: VFS, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        optimizer.zero_grad()
        method(batch(config, seed=seed)).total.backward()
        optimizer.step()

    straight = module(config)
    optimizer = torch.optim.SGD([p for p in straight.parameters() if p.requires_grad], 0.05, momentum=0.9)
    step(straight, optimizer, 1)
    saved = pickle.dumps((straight.state_dict(), optimizer.state_dict()))
    step(straight, optimizer, 2)
    resumed = module(config, seed=9)
    other = torch.optim.SGD([p for p in resumed.parameters() if p.requires_grad], 0.05, momentum=0.9)
    weights, momenta = pickle.loads(saved)
    resumed.load_state_dict(weights)
    other.load_state_dict(momenta)
    step(resumed, other, 2)
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_sampling_of_every_table():
    """Tables 2 and 3: which frames."""
    assert SMALL.sampling() == DistantSampling(4, "loop")
    assert dataclasses.replace(SMALL, short="repeat_last").sampling() == DistantSampling(4, "repeat_last")
    continuous = dataclasses.replace(SMALL, frames="continuous", interval=16)
    assert continuous.sampling() == ContinuousSampling(4, 16)
    assert dataclasses.replace(continuous, frames="same").sampling() == ContinuousSampling(4, 0)


def test_widths_follow_the_encoder():
    """One flag changes the backbone or adds negatives; ResNet-18's published widths come out."""
    encoder = EncoderConfig(cut="layer4").build()
    head = VFS(encoder, VFSConfig()).head
    linear = [layer for part in head.children() for layer in part if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [512, 512, 512, 128, 512]
    head = VFS(encoder, VFSConfig(negatives=True, queue_length=64)).head
    assert [layer.out_features for layer in head.projector if isinstance(layer, torch.nn.Linear)] == [
        512,
        128,
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frames", "random"),
        ("short", "stop"),
        ("pairs", "some"),
        ("colour", "loud"),
        ("clip_length", 3),
        ("clip_length", 0),
        ("crop_size", 8),
        ("interval", -1),
        ("temperature", 0.0),
        ("momentum", 1.5),
        ("queue_length", 0),
        ("batch_groups", 0),
    ],
)
def test_config_refuses_what_means_nothing(field, value):
    """Config refuses what means nothing."""
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SMALL, **{field: value})


@pytest.mark.parametrize(
    ("settings", "size", "sentence"),
    [
        ({"clip_length": 2}, 1, "frames in a half of the batch: 1; .* at least 2"),
        ({"negatives": True, "queue_length": 30}, 4, "queue_length is 30; expected a multiple of the 8 keys"),
        ({"negatives": True, "batch_groups": 3}, 4, "half of the batch: 8, in 3 groups"),
    ],
)
def test_batches_that_cannot_be_trained_with(settings, size, sentence):
    """Refused before the run by `check_batch`, and by the module itself."""
    config = dataclasses.replace(SMALL, **settings)
    with pytest.raises(ValueError, match=sentence):
        config.check_batch(size)
    with pytest.raises(UsageError, match=sentence):
        module(config)(batch(config, size))
    dataclasses.replace(SMALL, negatives=True, clip_length=2, batch_groups=2).check_batch(4)
