"""Lab as OpenCV has it, and models that take it."""

import cv2
import numpy as np
import pytest
import torch

from retrace.encoders import EncoderConfig, from_state_dict, load, save, with_colour
from retrace.encoders.colour import LAB_MEAN, LAB_STD, rgb_to_lab, to_input
from retrace.errors import RetraceError
from retrace.files import atomic_path


def lab_by_opencv(images):
    """(B, 3, H, W) float -> the same by cv2."""
    return torch.stack(
        [
            torch.from_numpy(cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2Lab)).permute(2, 0, 1)
            for image in images
        ]
    )


def test_lab_is_opencvs():
    """All but one value in a thousand equal, and those one unit off; far nearer than the formula."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 40, 61, generator=generator)
    images[1] = torch.randint(0, 256, (3, 40, 61), generator=generator) / 255
    before = images.clone()
    lab, expected = rgb_to_lab(images), lab_by_opencv(images)
    assert (images == before).all()
    assert lab.shape == images.shape
    difference = (lab - expected).abs()
    unit = torch.tensor([100.0, 256.0, 256.0]).view(3, 1, 1) / (1 << 14)
    assert (difference <= 1.001 * unit).all()
    assert (difference > 1e-4).float().mean() < 3e-3
    corners = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]).view(1, 3, 1, 2)  # black, white
    torch.testing.assert_close(rgb_to_lab(corners), lab_by_opencv(corners), atol=1e-5, rtol=0)


def test_lab_of_values_outside_is_clipped():
    """As OpenCV clips them."""
    wild = torch.tensor([-0.5, 0.3, 1.7]).view(1, 3, 1, 1)
    torch.testing.assert_close(rgb_to_lab(wild), rgb_to_lab(wild.clamp(0, 1)), atol=0, rtol=0)
    torch.testing.assert_close(rgb_to_lab(wild), lab_by_opencv(wild), atol=0.02, rtol=0)


def test_shapes_and_dtypes_are_kept():
    """Clips of clips, half precision."""
    clip = torch.rand(2, 3, 3, 4, 5)
    lab = rgb_to_lab(clip)
    assert lab.shape == clip.shape
    torch.testing.assert_close(lab[1, 2], rgb_to_lab(clip[1, 2]))
    assert rgb_to_lab(clip.bfloat16()).dtype == torch.bfloat16
    assert not rgb_to_lab(clip.requires_grad_()).requires_grad
    plain = to_input(clip.detach(), "rgb", (0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    torch.testing.assert_close(plain[..., 0, :, :], (clip.detach()[..., 0, :, :] - 0.5) * 4)


@pytest.fixture
def lab_model():
    """A narrow random encoder that takes Lab."""
    config = EncoderConfig(width=0.125)
    return with_colour(from_state_dict(config, config.build().state_dict(), name="small"), "lab")


def test_a_lab_model_sees_standardised_lab(lab_model):
    """Without dropout, from uint8 and from float alike."""
    images = torch.randint(0, 256, (2, 3, 24, 40), dtype=torch.uint8)
    lab = rgb_to_lab(images / 255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (LAB_MEAN, LAB_STD))
    with torch.no_grad():
        expected = lab_model.encoder((lab - mean) / std)
    torch.testing.assert_close(lab_model.features(images), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(lab_model.features(images / 255), expected, atol=1e-4, rtol=1e-4)
    assert lab_model.to("cpu").colour == "lab"


def test_the_colour_is_saved(lab_model, tmp_path):
    """And files from before it was are RGB."""
    path = tmp_path / "model.safetensors"
    save(lab_model, path)
    again = load(path)
    assert (again.colour, again.mean, again.std) == ("lab", LAB_MEAN, LAB_STD)
    images = torch.randint(0, 256, (1, 3, 24, 40), dtype=torch.uint8)
    torch.testing.assert_close(again.features(images), lab_model.features(images))
    assert load("default").colour == "rgb"


def test_an_unknown_colour_is_damage(lab_model, tmp_path):
    """Not something to guess about."""
    path = tmp_path / "model.safetensors"
    save(lab_model, path)
    content = path.read_bytes()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.replace(b'\\"lab\\"', b'\\"lob\\"'))
    with pytest.raises(RetraceError, match="damaged header"):
        load(path)


def test_features_of_an_rgb_model_are_as_before():
    """ImageNet's numbers, worked out by hand."""
    model = load("random:resnet18")
    images = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    values = images.numpy().astype(np.float32) / 255
    mean, std = (np.asarray(v, np.float32).reshape(3, 1, 1) for v in (model.mean, model.std))
    with torch.no_grad():
        expected = model.encoder(torch.from_numpy((values - mean) / std))
    torch.testing.assert_close(model.features(images), expected, atol=1e-4, rtol=1e-4)
