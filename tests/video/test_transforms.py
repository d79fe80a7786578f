"""What is done to frames before a method sees them."""

import pytest
import torch

from retrace.video import transforms
from retrace.video.transforms import ColourAugmentation, random_resized_box, random_resized_boxes


def generator(seed: int = 0) -> torch.Generator:
    """A CPU generator."""
    return torch.Generator().manual_seed(seed)


def ramps(frames: int = 3, height: int = 20, width: int = 30) -> torch.Tensor:
    """Channel 0 is x, channel 1 is y, channel 2 the number of the frame."""
    ys, xs = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([torch.stack([xs, ys, torch.full_like(xs, float(t))]) for t in range(frames)])


def test_crop_each_reads_its_box() -> None:
    """Corners of each crop are corners of a box of the asked area and ratio, mirrored or not; frames stay in order."""
    flipped = 0
    for seed in range(30):
        out = transforms.crop_each(ramps(), 9, (0.3, 0.6), (0.7, 1.4), 0.5, generator(seed))
        assert out.shape == (3, 3, 9, 9)
        for t, crop in enumerate(out):
            torch.testing.assert_close(crop[2], torch.full((9, 9), float(t)))
            x0, x1 = sorted((crop[0, 0, 0].item(), crop[0, 0, -1].item()))
            width, height = x1 - x0 + 1, (crop[1, -1, 0] - crop[1, 0, 0]).item() + 1
            assert 0.25 < width * height / 600 < 0.66
            assert 0.6 < width / height < 1.6
            flipped += crop[0, 0, 0] > crop[0, 0, -1]
    assert 25 < flipped < 65


def test_squash_keeps_the_corners() -> None:
    """The whole frame, whatever its shape."""
    clip = ramps()
    out = transforms.squash(clip, 11)
    assert out.shape == (3, 3, 11, 11)
    corners = out[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    torch.testing.assert_close(corners, clip[..., [0, 0, -1, -1], [0, -1, 0, -1]], atol=1e-4, rtol=0)


def test_colour_of_each_frame_is_its_own_draw() -> None:
    """As the frames one after another from the same generator."""
    colour = ColourAugmentation((0.4, 0.4, 0.4, 0.1), 0.8, grey_probability=0.3)
    clip = torch.rand(4, 3, 8, 10, generator=generator())
    one, expected = generator(1), generator(1)
    found = colour.each(clip, one)
    for frame, given in zip(found, clip, strict=True):
        torch.testing.assert_close(frame, colour(given[None], expected)[0])


def test_many_boxes_are_drawn_like_one() -> None:
    """Inside the frame, in the ranges, and distributed alike: means of area, aspect and place."""
    arguments = (60, 90, (0.2, 0.7), (0.5, 1.5))
    many = random_resized_boxes(4000, *arguments, generator()).double()
    g = generator(1)
    single = torch.tensor([random_resized_box(*arguments, g) for _ in range(4000)]).double()
    for boxes in (many, single):
        x0, y0, w, h = boxes.unbind(1)
        assert (boxes[:, :2] >= 0).all()
        assert (x0 + w).max() <= 90
        assert (y0 + h).max() <= 60
        area, aspect = w * h / 5400, w / h
        assert area.min() > 0.18
        assert area.max() < 0.73
        assert aspect.min() > 0.47
        assert aspect.max() < 1.56
    for measure in (lambda b: b[:, 0], lambda b: b[:, 1], lambda b: b[:, 2], lambda b: b[:, 2] / b[:, 3]):
        mean, spread = float(measure(single).mean()), float(measure(single).std())
        assert float(measure(many).mean()) == pytest.approx(mean, abs=4 * spread * (2 / 4000) ** 0.5)


def test_boxes_that_cannot_fit_are_the_largest_centred_one() -> None:
    """A frame far wider than the widest box."""
    boxes = random_resized_boxes(5, 20, 400, (0.9, 1.0), (0.5, 2.0), generator())
    assert boxes.tolist() == [[180, 0, 40, 20]] * 5
    assert random_resized_box(20, 400, (0.9, 1.0), (0.5, 2.0), generator()) == (180, 0, 40, 20)
