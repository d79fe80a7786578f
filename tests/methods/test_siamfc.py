"""SiamFC's training: losses against loops, views that hold the target in the middle, an encoder that stays."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from retrace.encoders import EncoderConfig
from retrace.methods.siamfc import SiamFC, SiamFCConfig, SiamFCViews, balanced_loss, focal_loss
from retrace.walk.siamese import response_labels

SMALL = SiamFCConfig(exemplar_size=32, search_size=79)


def pair() -> tuple[Tensor, Tensor]:
    """A white square of 16 on grey that moves by (10, 5) between two frames of 60 x 90, and its boxes."""
    clip = torch.full((2, 3, 60, 90), 100, dtype=torch.uint8)
    boxes = torch.tensor([[30.0, 20, 16, 16], [40.0, 25, 16, 16]])
    for image, (x, y, w, h) in zip(clip, boxes.int().tolist(), strict=True):
        image[:, y : y + h, x : x + w] = 255
    return clip, boxes


def test_focal_loss_is_the_loop() -> None:
    """Weights (1 - p)^gamma, divided by their mean; gamma 0 is the plain cross-entropy; gradients agree."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = (torch.rand(2, 3, 4, generator=generator) > 0.7).double()
    weights, terms = [], []
    for logit, label in zip(logits.detach().flatten().tolist(), labels.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        right = p if label else 1 - p
        weights.append((1 - right) ** 2)
        terms.append(-weights[-1] * math.log(right))
    assert focal_loss(logits, labels).item() == pytest.approx(sum(terms) / sum(weights))
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(focal_loss(logits, labels, 0.0), plain)
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, labels), logits)
    assert torch.autograd.gradcheck(lambda x: balanced_loss(x, labels), logits)


def test_losses_of_sure_answers_are_finite() -> None:
    """Logits of 200 neither overflow nor divide by zero."""
    labels = torch.tensor([1.0, 0.0, 0.0])
    for loss in (focal_loss, balanced_loss):
        assert loss(torch.tensor([-200.0, 200, 3]), labels).isfinite()
        assert loss(torch.tensor([80.0, -80, -80]), labels) < 1e-3


def test_views_hold_the_target_in_the_middle() -> None:
    """Without shift and stretch exactly; with them within their ranges; boxes and clip are not changed."""
    clip, boxes = pair()
    kept = clip.clone(), boxes.clone()
    still = dataclasses.replace(SMALL, shift=0.0, stretch=0.0)
    views = SiamFCViews(still)(clip, boxes, torch.Generator().manual_seed(0))
    assert views["exemplar"].shape == (3, 32, 32)
    assert views["search"].shape == (3, 79, 79)
    for crop in views.values():
        rows, columns = torch.nonzero(crop[0] > 1.5, as_tuple=True)
        middle = (crop.shape[-1] - 1) / 2
        assert rows.float().mean() == pytest.approx(middle, abs=0.6)
        assert columns.float().mean() == pytest.approx(middle, abs=0.6)
        assert rows.max() - rows.min() == pytest.approx(15, abs=1), "half of the exemplar's 32"
    places = []
    for seed in range(20):
        crop = SiamFCViews(SMALL)(clip, boxes, torch.Generator().manual_seed(seed))["search"]
        rows, columns = torch.nonzero(crop[0] > 1.5, as_tuple=True)
        places.append([rows.float().mean() - 39, columns.float().mean() - 39])
    spread = torch.tensor(places)
    assert 2 < spread.abs().max() <= 5
    assert (spread.amax(0) > 0).all()
    assert (spread.amin(0) < 0).all()
    assert torch.equal(clip, kept[0])
    assert torch.equal(boxes, kept[1])


@pytest.mark.parametrize("loss", ["focal", "balanced"])
def test_only_the_head_learns(loss: str) -> None:
    """Steps lower the loss; the encoder, its statistics included, stays what it was."""
    torch.manual_seed(0)
    encoder = EncoderConfig(width=0.125).build()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    config = dataclasses.replace(SMALL, loss=loss, head_init="identity", out_scale=1e-2)
    method = SiamFC(encoder, config).train()
    assert not method.encoder.training
    assert method.head.training
    clip, boxes = pair()
    views = SiamFCViews(config)
    samples = [views(clip, boxes, torch.Generator().manual_seed(k)) for k in range(3)]
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    optimizer = torch.optim.Adam((p for p in method.parameters() if p.requires_grad), lr=1e-2)
    history = []
    for _ in range(12):
        losses = method(batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append(losses.total.item())
    assert history[-1] < history[0]
    assert 0 <= losses.terms["hits"] <= 1
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_identity_is_the_frozen_tracker() -> None:
    """The response of a fresh head is the plain correlation; PyTorch's initialisation is another one."""
    torch.manual_seed(0)
    encoder = EncoderConfig(width=0.125).build().eval()
    features = torch.randn(2, encoder.out_channels, 3, 4)
    head = SiamFC(encoder, dataclasses.replace(SMALL, head_init="identity")).head
    for out in head(features, features):
        torch.testing.assert_close(out, features)
    assert not torch.allclose(SiamFC(encoder, SMALL).head(features, features)[0], features)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "hinge"}, "loss is 'hinge'"),
        ({"head_init": "zero"}, "head_init is 'zero'"),
        ({"search_size": 60}, "exemplar_size is 120, search_size 60"),
        ({"stretch": 1.0}, "stretch is 1.0"),
        ({"max_distance": 1}, "max_distance is 1"),
    ],
)
def test_settings_that_do_not_exist(change: dict[str, object], message: str) -> None:
    """Named, with what they may be."""
    with pytest.raises(ValueError, match=message):
        SiamFCConfig(**change)  # type: ignore[arg-type]


def test_labels_of_the_published_response() -> None:
    """16 x 16: the 12 cells within 2 of the middle, which lies between cells."""
    assert response_labels(16, 16, 2.0).sum() == 12
