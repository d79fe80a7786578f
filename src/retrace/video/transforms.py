"""What is done to frames before a method sees them: crops that know their matrix, and colour.

Clips are float (T, 3, H, W) in [0, 1], RGB. Every random number comes from the generator that is passed in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from retrace.walk import warp


def uniform(low: float, high: float, generator: torch.Generator, size: tuple[int, ...] = ()) -> Tensor:
    """Uniform draws in [low, high), float32 of shape `size`."""
    return low + (high - low) * torch.rand(size, generator=generator)


def random_resized_box(
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> tuple[int, int, int, int]:
    """A box as RandomResizedCrop draws it: uniform area, log-uniform aspect; ten tries, then the largest centred box.

    Args:
        height: of the frame, pixels.
        width: of the frame, pixels.
        area: range of the share of the frame's area.
        ratio: range of width / height.
        generator: randomness.

    Returns: x0, y0, w, h in whole pixels, at least 2 x 2.
    """
    for _ in range(10):
        pixels = height * width * float(uniform(*area, generator))
        aspect = math.exp(float(uniform(math.log(ratio[0]), math.log(ratio[1]), generator)))
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 2 <= w <= width and 2 <= h <= height:
            x0 = int(torch.randint(0, width - w + 1, (), generator=generator))
            y0 = int(torch.randint(0, height - h + 1, (), generator=generator))
            return x0, y0, w, h
    return _centred_box(height, width, ratio)


def random_resized_boxes(
    count: int,
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Many boxes drawn as `random_resized_box` draws one, all tries at once.

    Args:
        count: number of boxes.
        height: of the frame, pixels.
        width: of the frame, pixels.
        area: range of the share of the frame's area.
        ratio: range of width / height.
        generator: randomness.

    Returns: int64 (count, 4) x0, y0, w, h in whole pixels, at least 2 x 2.
    """
    pixels = height * width * uniform(*area, generator, (count, 10))
    aspect = uniform(math.log(ratio[0]), math.log(ratio[1]), generator, (count, 10)).exp()
    w, h = (pixels * aspect).sqrt().round(), (pixels / aspect).sqrt().round()
    fits = (w >= 2) & (w <= width) & (h >= 2) & (h <= height)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)  # the first try that fits, or 0
    sizes = torch.cat([w.gather(1, first), h.gather(1, first)], dim=1)  # (count, 2)
    room = torch.tensor([width, height]) - sizes + 1
    corners = (torch.rand(count, 2, generator=generator) * room).floor()
    boxes = torch.cat([corners, sizes], dim=1).long()
    return torch.where(fits.any(1, keepdim=True), boxes, torch.tensor(_centred_box(height, width, ratio)))


def _centred_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """The largest centred box whose width / height lies in the range."""
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    return (width - w) // 2, (height - h) // 2, w, h


def standardise(frames: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Subtract the mean of each channel and divide by its standard deviation; (..., 3, H, W) keeps its shape."""
    return (frames - frames.new_tensor(mean).view(-1, 1, 1)) / frames.new_tensor(std).view(-1, 1, 1)


def crop(clip: Tensor, matrices: Tensor, size: int) -> Tensor:
    """Resample frames through their matrices in one bilinear reading, without anti-aliasing.

    Args:
        clip: (T, 3, H, W).
        matrices: (T, 3, 3) or (3, 3), frame -> crop, from `walk.warp.crop_matrix` (products of such are fine).
        size: side of the square crop, pixels.

    Returns: (T, 3, size, size).
    """
    inverse = torch.linalg.inv(matrices)[..., :2, :].to(clip.dtype)
    return warp.read(clip, inverse.expand(clip.shape[0], 2, 3), (size, size))


def crop_each(
    clip: Tensor,
    size: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
    flip_probability: float,
    generator: torch.Generator,
) -> Tensor:
    """A crop and flip of its own for every frame, resampled to `size` x `size`.

    Args:
        clip: (T, 3, H, W).
        size: side of the crops, pixels.
        area: range of the crop's share of the frame's area.
        ratio: range of width / height.
        flip_probability: of mirroring a crop.
        generator: randomness.

    Returns: (T, 3, size, size).
    """
    frames, _, height, width = clip.shape
    boxes = [random_resized_box(height, width, area, ratio, generator) for _ in range(frames)]
    flips = torch.rand(frames, generator=generator) < flip_probability
    return crop(clip, warp.crop_matrix(torch.tensor(boxes), flips, height, width), size)


def squash(clip: Tensor, size: int) -> Tensor:
    """The whole frames (T, 3, H, W), brought to (T, 3, size, size) whatever their shape."""
    height, width = clip.shape[-2:]
    matrix = warp.crop_matrix(torch.tensor([0, 0, width, height]), torch.tensor(False), height, width)
    return crop(clip, matrix, size)


@dataclass(frozen=True)
class ColourAugmentation:
    """A recipe of colour changes, drawn for every frame by itself, done in the order of the attributes.

    Attributes:
        jitter: strengths of brightness, contrast, saturation, hue (hue in turns).
        jitter_probability: of any jitter at all.
        grey_probability: of turning grey.
        blur_probability: of a Gaussian blur.
        blur_sigma: range of its standard deviation, in pixels of a 256-pixel crop; scaled with the crop's size.
        solarize_probability: of inverting all values above one half.
    """

    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_probability: float = 0.0
    grey_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_probability: float = 0.0

    def __call__(self, clip: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a clip (T, 3, H, W) in [0, 1]; returns a new one of the same shape and range."""
        frames = clip.shape[0]
        out = clip
        if self.jitter_probability > 0:
            chosen = self._choose(self.jitter_probability, frames, generator)
            out = torch.where(chosen, self._jitter(out, generator), out)
        if self.grey_probability > 0:
            chosen = self._choose(self.grey_probability, frames, generator)
            out = torch.where(chosen, _grey(out).expand_as(out), out)
        if self.blur_probability > 0:
            chosen = self._choose(self.blur_probability, frames, generator).flatten()
            sigma = uniform(*self.blur_sigma, generator, (frames, 1)) * clip.shape[-1] / 256
            if chosen.any():
                kernel = 2 * max(1, math.ceil(3 * float(sigma[chosen].max()))) + 1
                out = out.clone()
                import kornia.filters  # a second of importing that only training pays

                out[chosen] = kornia.filters.gaussian_blur2d(out[chosen], kernel, sigma[chosen].expand(-1, 2))
        if self.solarize_probability > 0:
            chosen = self._choose(self.solarize_probability, frames, generator)
            out = torch.where(chosen & (out > 0.5), 1 - out, out)
        return out

    def each(self, clip: Tensor, generator: torch.Generator) -> Tensor:
        """As calling it, with the order of the jitter's four changes drawn for every frame by itself as well."""
        return torch.cat([self(frame, generator) for frame in clip.chunk(len(clip))])

    @staticmethod
    def _choose(probability: float, frames: int, generator: torch.Generator) -> Tensor:
        return (torch.rand(frames, generator=generator) < probability).view(frames, 1, 1, 1)

    def _jitter(self, clip: Tensor, generator: torch.Generator) -> Tensor:
        """Brightness, contrast, saturation and hue as torchvision's ColorJitter defines them.

        Strengths are drawn for every frame, the order of the four once for the clip.
        """
        frames = clip.shape[0]
        factors = [
            uniform(max(0.0, 1 - strength), 1 + strength, generator, (frames, 1, 1, 1))
            for strength in self.jitter[:3]
        ]
        turns = uniform(-self.jitter[3], self.jitter[3], generator, (frames, 1, 1))
        changes: list[Callable[[Tensor], Tensor]] = [
            lambda x: x * factors[0],
            lambda x: torch.lerp(_grey(x).mean((-2, -1), keepdim=True).expand_as(x), x, factors[1]),
            lambda x: torch.lerp(_grey(x).expand_as(x), x, factors[2]),
            lambda x: _turn_hue(x, turns) if self.jitter[3] > 0 else x,
        ]
        for index in torch.randperm(4, generator=generator).tolist():
            clip = changes[index](clip).clamp(0, 1)
        return clip


def _grey(clip: Tensor) -> Tensor:
    """Luma (T, 1, H, W) of RGB (T, 3, H, W) by ITU-R 601-2, as Pillow has it."""
    return (clip * clip.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(-3, keepdim=True)


def _turn_hue(clip: Tensor, turns: Tensor) -> Tensor:
    """Shift hue by `turns` (T, 1, 1) whole turns of the colour circle."""
    import kornia.color  # see above

    hue, saturation, value = kornia.color.rgb_to_hsv(clip).unbind(-3)  # hue in radians
    hue = torch.remainder(hue + 2 * math.pi * turns, 2 * math.pi)
    out: Tensor = kornia.color.hsv_to_rgb(torch.stack([hue, saturation, value], -3))
    return out
