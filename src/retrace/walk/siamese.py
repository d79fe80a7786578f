"""What a Siamese tracker is made of: square crops, template correlation, the labels of a response.

Positions are (x, y) pixels with the centre of the first pixel at (0.5, 0.5).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Rounding = Literal["vfs", "upstream"]
"""How a square of any side becomes pixels, see `square_crop`."""


def context_side(width: float, height: float, context: float = 0.5) -> float:
    """Side of the square round a target, pixels: the geometric mean of its sides, each with `context` (w + h) more.

    Args:
        width: of the target, pixels.
        height: likewise.
        context: share of w + h that is added to both sides.
    """
    margin = context * (width + height)
    return float(((width + margin) * (height + margin)) ** 0.5)


def mean_colour(image: Tensor) -> Tensor:
    """Mean over an image (C, H, W) per channel, (C,) float32, rounded when the image is uint8."""
    mean = image.double().mean((-2, -1))
    return (mean.round() if image.dtype == torch.uint8 else mean).float()


def square_crop(
    image: Tensor,
    centre: tuple[float, float],
    side: float,
    size: int,
    *,
    rounding: Rounding = "vfs",
    fill: Tensor | None = None,
) -> Tensor:
    """Cut a square out of an image and resize it, bilinear; outside the image is the image's mean colour.

    * "vfs" (VFS): corners round(centre +- side / 2); the part inside the image is resized and laid on the mean
      colour. A square wholly outside gives zeros.
    * "upstream" (siamfc-pytorch): side and left top corner are rounded, the image is continued with its mean colour,
      and the square is resized as a whole.

    All rounding is half to even.

    Args:
        image: (3, H, W), uint8 or float; not changed.
        centre: (x, y), pixels.
        side: of the square, pixels, above 0.
        size: of the result, pixels.
        rounding: see above.
        fill: (3,) float32 colour outside the image; None is its mean.

    Returns: (3, size, size) in the dtype of the image; uint8 is rounded.
    """
    height, width = image.shape[-2:]
    x, y = centre[0] - 0.5, centre[1] - 0.5  # both papers' codes count from the centre of the first pixel
    fill = mean_colour(image) if fill is None else fill
    if rounding == "vfs":
        left, right = round(x - side / 2), round(x + side / 2)
        top, bottom = round(y - side / 2), round(y + side / 2)
        inside = image[..., max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        if inside.shape[-2] == 0 or inside.shape[-1] == 0:
            return torch.zeros(3, size, size, dtype=image.dtype, device=image.device)
        canvas = fill[:, None, None].expand(3, size, size).clone()
        rows, row = _share(top, bottom, height, size)
        columns, column = _share(left, right, width, size)
        if rows > 0 and columns > 0:
            part = canvas[:, row : row + rows, column : column + columns]
            part.copy_(_resized(inside, rows, columns)[:, : part.shape[-2], : part.shape[-1]])
    else:
        whole = max(1, round(side))
        left, top = round(x - (whole - 1) / 2), round(y - (whole - 1) / 2)
        square = fill[:, None, None].expand(3, whole, whole).clone()
        row, column = max(-top, 0), max(-left, 0)
        inside = image[..., max(top, 0) : max(top + whole, 0), max(left, 0) : max(left + whole, 0)]
        square[:, row : row + inside.shape[-2], column : column + inside.shape[-1]] = inside
        canvas = _resized(square, size, size)
    return canvas.round().clamp(0, 255).to(torch.uint8) if image.dtype == torch.uint8 else canvas.to(image)


def _share(low: int, high: int, length: int, size: int) -> tuple[int, int]:
    """Along one axis: pixels of the result that show the image, and the first of them."""
    whole = high - low
    start = int(-low * size / whole) if low < 0 else 0
    return round(size * (min(high, length) - max(low, 0)) / whole), start


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    """(3, H, W) at another size as float32: bilinear, half-pixel centres, no anti-aliasing (OpenCV's INTER_LINEAR)."""
    return F.interpolate(image[None].float(), size=(height, width), mode="bilinear", align_corners=False)[0]


def correlate(exemplar: Tensor, search: Tensor) -> Tensor:
    """Slide each exemplar over its own searches: dot products over channels and places, no padding.

    Args:
        exemplar: (B, C, a, b).
        search: (B, n, C, h, w), n searches per exemplar; h >= a, w >= b.

    Returns: (B, n, h - a + 1, w - b + 1).
    """
    batch, count, channels, h, w = search.shape
    stacked = search.transpose(0, 1).reshape(count, batch * channels, h, w)
    return F.conv2d(stacked, exemplar, groups=batch).transpose(0, 1)  # (B, n, h', w')


def response_labels(h: int, w: int, radius: float) -> Tensor:
    """1 where a cell of a response counts as the target, 0 elsewhere: abs(dx) + abs(dy) <= radius from the middle.

    Args:
        h: rows; the middle is (h - 1) / 2, between two cells when h is even.
        w: columns.
        radius: in cells.

    Returns: (h, w) float32.
    """
    rows = (torch.arange(h) - (h - 1) / 2).abs()
    columns = (torch.arange(w) - (w - 1) / 2).abs()
    return (rows[:, None] + columns <= radius).float()
