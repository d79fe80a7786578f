"""The colours that an encoder sees: RGB or Lab, standardised."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LAB_MEAN = (50.0, 0.0, 0.0)
LAB_STD = (50.0, 127.0, 127.0)

# Colour space -> mean and standard deviation that the methods standardise it with.
COLOURS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "rgb": (IMAGENET_MEAN, IMAGENET_STD),
    "lab": (LAB_MEAN, LAB_STD),
}

# OpenCV's table of Lab: nodes per axis of RGB, steps between two nodes, steps of a stored value.
_NODES, _STEPS, _UNITS = 33, 16, 1 << 14


def to_input(
    images: Tensor, colour: str, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """What an encoder takes.

    Args:
        images: (..., 3, H, W) RGB float in [0, 1].
        colour: "rgb" or "lab".
        mean: of the channels of that colour space.
        std: likewise.

    Returns: (..., 3, H, W), new.
    """
    if colour == "lab":
        images = rgb_to_lab(images)
    return (images - images.new_tensor(mean).view(3, 1, 1)) / images.new_tensor(std).view(3, 1, 1)


def rgb_to_lab(images: Tensor) -> Tensor:
    """CIE Lab (D65) as OpenCV converts float images: L 0 .. 100, a and b about -128 .. 127.

    OpenCV reads Lab off a table of 33 x 33 x 33 colours of 14 bits, by trilinear interpolation in 16 steps, which is up
    to 0.3 off the formula. Networks were trained on that, so this is the same table read in the same way. It agrees
    with `cv2.cvtColor(image, cv2.COLOR_RGB2Lab)` but for one unit (0.006 of L, 0.016 of a and b) in one value of a
    thousand.

    Args:
        images: (..., 3, H, W) RGB float; values outside [0, 1] are clipped.

    Returns: (..., 3, H, W) of the same dtype, on the same device, without gradient.
    """
    with torch.no_grad():
        pixels = images.detach().float().movedim(-3, -1)  # (..., H, W, 3)
        units = (pixels.clamp(0, 1) * _UNITS).round()
        steps = (units * ((_NODES - 1) * _STEPS / _UNITS)).floor()  # 0 .. 512
        grid = (steps / ((_NODES - 1) * _STEPS / 2) - 1).reshape(
            1, 1, 1, -1, 3
        )  # x is red: the table's last axis
        table = _lab_table().to(images.device)
        found = F.grid_sample(table, grid, mode="bilinear", padding_mode="border", align_corners=True)
        found = found.view(3, *pixels.shape[:-1]).movedim(0, -3)  # (..., 3, H, W)
        scale, shift = found.new_tensor([100.0, 256.0, 256.0]), found.new_tensor([0.0, 128.0, 128.0])
        lab = (found + 0.5).floor() / _UNITS * scale.view(3, 1, 1) - shift.view(3, 1, 1)
        return lab.to(images.dtype)


@cache
def _lab_table() -> Tensor:
    """(1, 3, blue, green, red) float32: L / 100, (a + 128) / 256, (b + 128) / 256 in whole units."""
    axis = torch.arange(_NODES, dtype=torch.float64) / (_NODES - 1)
    linear = torch.where(axis <= 0.04045, axis / 12.92, ((axis + 0.055) / 1.055) ** 2.4)  # of sRGB
    blue, green, red = torch.meshgrid(linear, linear, linear, indexing="ij")
    to_xyz = torch.tensor(
        [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]],
        dtype=torch.float64,
    )
    white = torch.tensor([0.950456, 1.0, 1.088754], dtype=torch.float64)
    xyz = torch.einsum("ic,c...->i...", to_xyz / white[:, None], torch.stack([red, green, blue]))
    x, y, z = torch.where(xyz > 216 / 24389, xyz ** (1 / 3), xyz * (841 / 108) + 16 / 116)
    lightness = torch.where(xyz[1] > 216 / 24389, 116 * y - 16, 903.3 * xyz[1])
    lab = torch.stack([lightness / 100, (500 * (x - y) + 128) / 256, (200 * (y - z) + 128) / 256])
    return (lab * _UNITS).round().float()[None]
