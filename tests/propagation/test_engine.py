"""The engine: context rules, exactness against stored-everything propagation, bounded memory, protocols."""

import dataclasses

import pytest
import torch

from retrace import encoders
from retrace.encoders import EncoderConfig
from retrace.propagation.codecs import Geometry
from retrace.propagation.context import context_frames
from retrace.propagation.engine import Propagator, resize_image, stretch
from retrace.propagation.protocols import PROTOCOLS, SMALL_SHORT_SIDE, Protocol
from retrace.walk.nodes import normalise, whitening
from retrace.walk.readout import Rules, readout

SMALL = Protocol("small", "test", 3, rules=Rules(0.1, 4, "disc", 3))


@pytest.fixture(scope="module")
def model():
    """Model."""
    return encoders.load("random:resnet18", config=EncoderConfig(width=0.125))


def frames(count: int) -> torch.Tensor:
    """Frames."""
    return torch.randint(
        0, 255, (count, 3, 40, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def seed_labels(h: int = 5, w: int = 8) -> torch.Tensor:
    """Seed labels."""
    labels = torch.rand(3, h, w, generator=torch.Generator().manual_seed(1))
    return labels / labels.sum(0)


@pytest.mark.parametrize(
    ("recent", "add_first", "expected"),
    [
        ("repeated", True, {1: [0, 0, 0, 0], 2: [0, 0, 0, 1], 5: [0, 2, 3, 4]}),
        ("repeated", False, {1: [0, 0, 0], 5: [2, 3, 4]}),
        ("available", True, {1: [0, 0], 2: [0, 0, 1], 5: [0, 2, 3, 4]}),
        ("without_first", True, {1: [0], 2: [0, 1], 3: [0, 1, 2], 5: [0, 2, 3, 4]}),
    ],
)
def test_context(recent, add_first, expected):
    """Context."""
    for t, wanted in expected.items():
        assert context_frames(t, 3, recent, add_first) == wanted


@pytest.mark.parametrize(
    "protocol",
    [
        SMALL,
        dataclasses.replace(SMALL, recent="available", window_first=True),
        dataclasses.replace(SMALL, recent="without_first", num_context=2),
        dataclasses.replace(SMALL, add_first=False),
        dataclasses.replace(SMALL, num_context=0),
        dataclasses.replace(SMALL, feed_back="minmax"),
    ],
    ids=range(6),
)
def test_the_ring_equals_storing_everything(model, protocol):
    """The ring equals storing everything."""
    propagator = Propagator(model, protocol)
    nodes = [propagator.encode(frame) for frame in frames(9)]
    propagator.seed(nodes[0], seed_labels())
    keys = torch.stack([normalise(node, dim=-1) for node in nodes])
    values = torch.zeros(9, 5, 8, 3)
    values[0] = seed_labels().permute(1, 2, 0)
    for t in range(1, 9):
        step = propagator.step(nodes[t])
        context = context_frames(t, protocol.num_context, protocol.recent, protocol.add_first)
        free = [
            protocol.add_first and not protocol.window_first and place == 0 for place in range(len(context))
        ]
        labels = readout(keys[t], keys, values, context=context, free=free, rules=protocol.rules).labels
        if protocol.feed_back == "minmax":
            labels = stretch(labels.permute(2, 0, 1)).permute(1, 2, 0)
        values[t] = labels
        torch.testing.assert_close(step.labels.permute(1, 2, 0), labels)
        assert step.confidence.shape == (5, 8)
        assert ((step.confidence >= 0) & (step.confidence <= 1)).all()


def test_whitened_nodes_are_those_of_the_seed_frame(model):
    """Later frames are centred and scaled by the numbers of the frame that carries the labels."""
    protocol = dataclasses.replace(SMALL, whiten=0.5)
    propagator = Propagator(model, protocol)
    nodes = [propagator.encode(frame) for frame in frames(3)]
    propagator.seed(nodes[0], seed_labels())
    change = whitening(nodes[0].flatten(0, 1), 0.5)
    keys = torch.stack([normalise(change(node), dim=-1) for node in nodes])
    values = torch.zeros(3, 5, 8, 3)
    values[0] = seed_labels().permute(1, 2, 0)
    expected = readout(
        keys[1], keys, values, context=[0] * 4, free=[True] + [False] * 3, rules=protocol.rules
    ).labels
    torch.testing.assert_close(propagator.step(nodes[1]).labels.permute(1, 2, 0), expected)


@pytest.mark.parametrize("subcell", [False, True])
def test_closer_nodes_are_searched_coarse_to_fine(model, subcell):
    """The engine's nodes are those of the encoder read closer, and its readout is the coarse-to-fine one of these."""
    rules = Rules(0.1, 4, "disc", 3, subcell=subcell)
    protocol = dataclasses.replace(SMALL, rules=rules, detail="closer")
    rules = dataclasses.replace(rules, finer=2)
    propagator = Propagator(model, protocol)
    assert (propagator.model.stride, propagator.grid(40, 64)) == (4, (10, 16))
    nodes = [propagator.encode(frame) for frame in frames(4)]
    keys = normalise(torch.stack(nodes), -1)
    values = torch.zeros(4, 10, 16, 3)
    values[0] = propagator.seed(nodes[0], seed_labels(10, 16)).labels.permute(1, 2, 0)
    for time, context in ((1, [0, 0, 0, 0]), (2, [0, 0, 0, 1]), (3, [0, 0, 1, 2])):
        free = [True, False, False, False]
        expected = readout(keys[time], keys, values, context=context, free=free, rules=rules).labels
        values[time] = propagator.step(nodes[time]).labels.permute(1, 2, 0)
        torch.testing.assert_close(values[time], expected)


def test_detail_is_chosen_for_a_size(model):
    """By the short side; plain where the encoder or the rules have no way; what is no choice stays as it is."""
    chosen = dataclasses.replace(SMALL, detail="by_size")
    with pytest.raises(ValueError, match="choose it for the frames first"):
        Propagator(model, chosen)
    assert chosen.seen_at(SMALL_SHORT_SIDE, 900, model).detail == "closer"
    assert chosen.seen_at(900, SMALL_SHORT_SIDE + 1, model).detail == "both_sizes"
    per_frame = dataclasses.replace(chosen, rules=Rules(0.1, 4, "disc", 3, joint=False))
    assert per_frame.seen_at(200, 300, model).detail == "plain"
    assert per_frame.seen_at(400, 300, model).detail == "both_sizes"
    assert chosen.seen_at(400, 300, encoders.load("lab-patches")).detail == "plain"
    assert chosen.seen_at(400, 300, model, outlines=False).detail == "plain"
    assert chosen.seen_at(200, 300, model, outlines=False).detail == "closer"
    assert SMALL.seen_at(400, 300, model) is SMALL
    both = Propagator(model, chosen.seen_at(400, 300, model))
    assert both.encode(frames(1)[0]).shape == (5, 8, 2 * model.channels)


def test_a_still_video_keeps_its_labels(model):
    """A still video keeps its labels."""
    propagator = Propagator(model, dataclasses.replace(SMALL, rules=Rules(0.01, 1, "disc", 3)))
    nodes = propagator.encode(frames(1)[0])
    propagator.seed(nodes, seed_labels())
    for _ in range(6):
        step = propagator.step(nodes)
    torch.testing.assert_close(step.labels, seed_labels())


def test_seeding_again_forgets(model):
    """Seeding again forgets."""
    propagator = Propagator(model, SMALL)
    nodes = [propagator.encode(frame) for frame in frames(4)]
    propagator.seed(nodes[0], seed_labels())
    propagator.step(nodes[1])
    propagator.seed(nodes[2], seed_labels().flip(0))
    again = propagator.step(nodes[3]).labels
    fresh = Propagator(model, SMALL)
    fresh.seed(nodes[2], seed_labels().flip(0))
    torch.testing.assert_close(again, fresh.step(nodes[3]).labels)


def test_relabelling_needs_a_frame_after_the_seed(model):
    """Also where the seed frame has read itself."""
    propagator = Propagator(model, dataclasses.replace(SMALL, reread_first=True))
    nodes = propagator.encode(frames(1)[0])
    propagator.seed(nodes, seed_labels())
    with pytest.raises(ValueError, match="call step"):
        propagator.relabel(seed_labels())
    propagator.step(nodes)
    propagator.relabel(seed_labels())


def test_protocol_leaves_finer_to_detail():
    """One way to say it."""
    with pytest.raises(ValueError, match="detail 'closer' sets it"):
        dataclasses.replace(SMALL, rules=Rules(0.1, 4, "disc", 3, finer=2))


def test_relabelled_frames_are_read_as_given(model):
    """What a frame read is replaced for those after it, and only there."""
    nodes = [Propagator(model, SMALL).encode(frame) for frame in frames(4)]
    once, plain = Propagator(model, SMALL), Propagator(model, SMALL)
    other = seed_labels().flip(0)
    for propagator in (once, plain):
        with pytest.raises(ValueError, match="call step"):
            propagator.relabel(other)
        propagator.seed(nodes[0], seed_labels())
        with pytest.raises(ValueError, match="call step"):
            propagator.relabel(other)
    first = once.step(nodes[1]).labels
    torch.testing.assert_close(plain.step(nodes[1]).labels, first)
    with pytest.raises(ValueError, match="another number or grid"):
        once.relabel(other[:2])
    once.relabel(other)
    values = torch.stack([seed_labels(), other]).permute(0, 2, 3, 1)
    keys = normalise(torch.stack(nodes[:2]), -1)
    expected = readout(
        normalise(nodes[2], -1),
        keys,
        values,
        context=[0, 0, 0, 1],
        free=[True, False, False, False],
        rules=SMALL.rules,
    ).labels
    torch.testing.assert_close(once.step(nodes[2]).labels.permute(1, 2, 0), expected)
    assert not torch.allclose(plain.step(nodes[2]).labels.permute(1, 2, 0), expected)


def test_stored_frames_do_not_grow(model):
    """Stored frames do not grow."""
    propagator = Propagator(model, SMALL)
    nodes = propagator.encode(frames(1)[0])
    propagator.seed(nodes, seed_labels())
    sizes = set()
    for _ in range(12):
        propagator.step(nodes)
        sizes.add((propagator._keys.numel(), propagator._values.numel()))
    assert len(sizes) == 1
    assert len(propagator._slots) <= SMALL.num_context + 1


def test_wrong_order_and_wrong_grid(model):
    """Wrong order and wrong grid."""
    propagator = Propagator(model, SMALL)
    nodes = propagator.encode(frames(1)[0])
    with pytest.raises(ValueError, match="seed"):
        propagator.step(nodes)
    with pytest.raises(ValueError, match="expected"):
        propagator.seed(nodes, seed_labels(4, 8))
    propagator.seed(nodes, seed_labels())
    with pytest.raises(ValueError, match=r"kinds of \[1\] channels"):
        propagator.steps(nodes, [1])
    with pytest.raises(ValueError, match="nodes"):
        propagator.step(nodes[:-1])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_runs(model, name):
    """Every protocol runs."""
    protocol = PROTOCOLS[name]
    assert protocol.name == name
    assert protocol.source
    propagator = Propagator(model, protocol.seen_at(300, 400, model))
    nodes = [propagator.encode(frame) for frame in frames(3)]
    propagator.seed(nodes[0], seed_labels())
    for frame in nodes[1:]:
        step = propagator.step(frame)
    assert torch.isfinite(step.labels).all()


def test_bfloat16_is_near(model):
    """Bfloat16 is near."""
    nodes = Propagator(model, SMALL).encode(frames(1)[0])
    half = Propagator(model, SMALL, dtype=torch.bfloat16)
    near = half.encode(frames(1)[0])
    assert near.dtype == torch.bfloat16
    torch.testing.assert_close(normalise(near.float(), -1), normalise(nodes, -1), atol=0.05, rtol=0)
    half.seed(near, seed_labels())
    assert half.step(near).labels.dtype == torch.float32


@pytest.mark.parametrize(("size", "expected"), [(None, (48, 80)), (24, (24, 40)), ((32, 40), (32, 40))])
def test_resize(size, expected):
    """Resize."""
    image = torch.randint(0, 255, (3, 48, 80), dtype=torch.uint8)
    resized = resize_image(image, size)
    assert resized.shape[-2:] == expected
    assert resized.dtype == torch.uint8


def test_stretch_leaves_empty_classes_alone():
    """Stretch leaves empty classes alone."""
    labels = torch.tensor([[[0.2, 0.4]], [[0.0, 0.0]]])
    assert torch.equal(stretch(labels), torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]]))


@pytest.mark.parametrize(
    ("field", "value"), [("recent", "all"), ("output", "max"), ("seed", "cubic"), ("num_context", -1)]
)
def test_protocol_refuses_what_means_nothing(field, value):
    """Protocol refuses what means nothing."""
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SMALL, **{field: value})


def test_the_seed_frame_reads_itself_first(model):
    """It is frame 1 of the context rules then, with what it read; nothing else differs from giving it twice."""
    once = dataclasses.replace(SMALL, reread_first=True, feed_back="minmax")
    twice = dataclasses.replace(once, reread_first=False)
    first, second = Propagator(model, once), Propagator(model, twice)
    nodes = [first.encode(frame) for frame in frames(6)]
    given = first.seed(nodes[0], seed_labels()).labels
    torch.testing.assert_close(given, seed_labels())
    second.seed(nodes[0], seed_labels())
    second.step(nodes[0])
    plain = Propagator(model, twice)
    plain.seed(nodes[0], seed_labels())
    for frame in nodes[1:]:
        labels = first.step(frame).labels
        torch.testing.assert_close(labels, second.step(frame).labels)
        assert not torch.equal(labels, plain.step(frame).labels)


def test_a_protocol_makes_its_codecs():
    """The codecs have the protocol's rules."""
    geometry = Geometry((40, 64), (32, 48), (4, 6), 8)
    for protocol in PROTOCOLS.values():
        masks, points = protocol.mask_codec([1], geometry), protocol.keypoint_codec(["a"], geometry)
        for name in ("seed", "output", "seed_at", "read_at", "min_pixels"):
            assert getattr(masks, name) == getattr(protocol, name)
        assert points.dialect == protocol.keypoints
