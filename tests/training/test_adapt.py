"""Adapting trains a copy, and only a copy."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from retrace import encoders
from retrace.encoders import EncoderConfig
from retrace.errors import RetraceError, UsageError
from retrace.methods.stfc3 import STFC3Config
from retrace.training.adapt import AdaptConfig, adapt_model

CONFIG = AdaptConfig(
    stfc3=STFC3Config(
        clip_length=2, crop_size=32, projector_hidden=16, projector_outputs=8, direct_weight=1.0
    ),
    batch_size=2,
    short_side=40,
)
TINY = EncoderConfig(width=0.125, cut="layer2")


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """Eight frames, 48 x 60, of a texture that moves."""
    texture = np.random.default_rng(0).integers(0, 255, (64, 90, 3), dtype=np.uint8)
    texture = cv2.GaussianBlur(texture, (5, 5), 2)
    folder = tmp_path / "clip"
    folder.mkdir()
    for t in range(8):
        cv2.imwrite(str(folder / f"{t:03}.png"), texture[t : t + 48, 2 * t : 2 * t + 60])
    return folder


def test_a_copy_learns_and_the_argument_stays(footage: Path) -> None:
    """Same seed, same result; another model, another name; the global generator untouched."""
    model = encoders.load("random:resnet18", config=TINY)
    before = {key: value.clone() for key, value in model.encoder.state_dict().items()}
    torch.manual_seed(5)
    adapted = adapt_model(model, footage, 3, seed=1, progress=False, config=CONFIG)
    drawn = torch.rand(())
    torch.manual_seed(5)
    assert drawn == torch.rand(())
    assert all(torch.equal(value, before[key]) for key, value in model.encoder.state_dict().items())
    assert adapted.sha256 != model.sha256
    assert adapted.name == "random:resnet18+adapt3"
    assert adapted.card["adapted"] == {"video": "clip", "steps": 3, "seed": 1}
    assert not adapted.encoder.training
    assert adapted.features(torch.zeros(1, 3, 48, 60)).shape == (1, 16, 6, 8)
    again = adapt_model(model, footage, 3, seed=1, progress=False, config=CONFIG)
    assert again.sha256 == adapted.sha256


def test_no_steps_change_nothing(footage: Path) -> None:
    """The border of the range."""
    model = encoders.load("random:resnet18", config=TINY)
    assert adapt_model(model, footage, 0, progress=False, config=CONFIG).sha256 == model.sha256


def test_what_cannot_be_adapted_gets_a_sentence(footage: Path, tmp_path: Path) -> None:
    """A model without parameters, a negative number, a missing video."""
    with pytest.raises(UsageError, match="no ResNet"):
        adapt_model(encoders.load("lab-patches"), footage, 1, progress=False)
    model = encoders.load("random:resnet18", config=TINY)
    with pytest.raises(UsageError, match="-1 steps"):
        adapt_model(model, footage, -1, progress=False, config=CONFIG)
    with pytest.raises(RetraceError, match=r"gone\.mp4"):
        adapt_model(model, tmp_path / "gone.mp4", 1, progress=False, config=CONFIG)
