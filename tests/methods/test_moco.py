"""MoCo: two crops of one image, the loss as a cross-entropy, what a step moves, every refusal."""

import dataclasses
import pickle

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from retrace.encoders.config import EncoderConfig
from retrace.errors import UsageError
from retrace.methods.moco import MoCo, MoCoConfig, MoCoViews

SMALL = MoCoConfig(crop_size=32, projector_outputs=8, queue_length=24)


def generator(seed: int = 0) -> torch.Generator:
    """Generator."""
    return torch.Generator().manual_seed(seed)


def image(seed: int = 0, height: int = 40, width: int = 60) -> Tensor:
    """A clip of one frame of noise."""
    return torch.randint(0, 256, (1, 3, height, width), generator=generator(seed)).to(torch.uint8)


def module(config: MoCoConfig) -> MoCo:
    """A small network."""
    torch.manual_seed(0)
    return MoCo(EncoderConfig(width=0.125, strides=(1, 2, 2, 1), cut="layer4").build(), config)


def batch(config: MoCoConfig, size: int = 4) -> dict[str, Tensor]:
    """Views of noise."""
    items = [MoCoViews(config)(image(n), generator(n)) for n in range(size)]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def test_views_are_two_crops_that_repeat_with_the_generator():
    """Of one image; picklable; the image stays as it is."""
    views = pickle.loads(pickle.dumps(MoCoViews(SMALL)))
    given = image()
    before = given.clone()
    one, two, other = (views(given, generator(seed)) for seed in (5, 5, 6))
    assert set(one) == {"query", "key"}
    assert one["query"].shape == one["key"].shape == (3, 32, 32)
    assert not torch.equal(one["query"], one["key"])
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["query"], other["query"])
    assert torch.equal(given, before)


@pytest.mark.parametrize(
    "config", [SMALL, dataclasses.replace(SMALL, mlp=False, temperature=0.07, colour="v1")]
)
def test_loss_is_the_cross_entropy_of_the_key_among_the_queue(config):
    """Eq. 1, with a key from the key encoder after its step; v2 and v1."""
    method, views = module(config), batch(config)
    queue = method.queue.embeddings.clone()
    method.begin_step()
    losses = method(views)
    assert torch.equal(method.queue.embeddings, queue)
    method.end_step()
    method.eval()  # nothing moves any more; batch statistics are needed all the same
    for part in (method.encoder, method.key_encoder):
        part.train()
    q = normalize(method.head.projector(method.encoder(views["query"]).mean((2, 3))), dim=1)
    k = normalize(method.key_head.projector(method.key_encoder(views["key"]).mean((2, 3))), dim=1)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue], 1) / config.temperature
    torch.testing.assert_close(losses.total, cross_entropy(logits, torch.zeros(4, dtype=torch.long)))
    assert losses.terms["accuracy"] == (logits.argmax(1) == 0).float().mean()
    right = [all(q[i] @ k[i] > q[i] @ k[j] for j in range(4) if j != i) for i in range(4)]
    assert losses.terms["batch_accuracy"] == sum(right) / 4
    torch.testing.assert_close(method.queue.embeddings[:, :4], k.T)
    torch.testing.assert_close(losses.terms["feature_std"], q.std(0, correction=0).mean())


def test_module_trains_and_the_key_encoder_follows():
    """Gradients for the query side only; the key side moves by momentum."""
    method = module(SMALL)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    method.begin_step()
    losses = method(batch(SMALL), generator())
    method.end_step()
    losses.total.backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == (not name.startswith("key_")), name
    optimizer.step()
    old = method.key_encoder.conv1.weight.clone()
    method.begin_step()
    method(batch(SMALL), generator())
    method.end_step()
    new = 0.999 * old + 0.001 * method.encoder.conv1.weight
    torch.testing.assert_close(method.key_encoder.conv1.weight, new)
    assert int(method.queue.pointer) == 8


def test_eval_moves_nothing():
    """Evaluation has no side effects, and takes a single image."""
    method = module(SMALL).eval()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    assert torch.isfinite(method(batch(SMALL, size=1)).total)
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())


def test_groups_change_the_statistics():
    """Two groups of a batch are normalised apart."""
    whole, parted = (module(dataclasses.replace(SMALL, batch_groups=groups)) for groups in (1, 2))
    views = batch(SMALL)
    assert whole(views, generator()).total != parted(views, generator()).total


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("colour", "v3"),
        ("crop_size", 8),
        ("temperature", 0.0),
        ("momentum", -0.1),
        ("queue_length", 0),
        ("projector_outputs", 0),
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
        ({}, 1, "images in the batch: 1; batch normalisation needs at least 2"),
        ({"queue_length": 30}, 4, "queue_length is 30; expected a multiple of the 4 keys"),
        ({"batch_groups": 4}, 4, "images in the batch: 4, in 4 groups"),
    ],
)
def test_batches_that_cannot_be_trained_with(settings, size, sentence):
    """Refused before the run by `check_batch`, and by the module itself."""
    config = dataclasses.replace(SMALL, **settings)
    with pytest.raises(ValueError, match=sentence):
        config.check_batch(size)
    with pytest.raises(UsageError, match=sentence):
        module(config)(batch(config, size))
