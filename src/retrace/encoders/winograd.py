"""3x3 convolutions with four times fewer multiplications, for training on a CPU.

Lavin and Gray: "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, F(4 x 4, 3 x 3): a tile of 4 x 4 outputs
is a product in 6 x 6 transformed places where a direct convolution multiplies 9 * 16 times.

| paper | here | shape |
|---|---|---|
| d | tiles, which overlap by 2 cells | (36, tiles, C) |
| U = G g G^T | filters | (36, C, O) |
| V = B^T d B | spread | (36, tiles, C) |
| Y = A^T (U V) A | cells | (16, tiles, O) |

All of it is linear, so the way back is the same three steps transposed. Against float64, results are off by 2e-6 of
their standard deviation (root mean square), those of a direct convolution by 8e-7.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CHANNELS = 256  # of input and output, from which on the products outweigh the transforms of the maps
TILES_PER_CHANNEL = 0.5  # from which on they outweigh that of the filters
FILLED = 0.8  # share of the tiles' cells that lie in the map
TILES = 512  # worked on at once: enough to multiply fast, few enough that memory does not grow with the batch
_SIDE, _OUT = 6, 4  # cells of a tile, and of what it gives

_B = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_G: list[list[float]] = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_A = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether `convolve` is the faster way: many channels and tiles in float32 on a CPU, in training.

    Without gradients the direct convolution stays: what encodes a video keeps its features to the last bit.
    """
    batch, _, h, w = x.shape
    tiles = batch * -(-h // _OUT) * -(-w // _OUT)
    return (
        torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and min(weight.shape[:2]) >= CHANNELS
        and tiles >= TILES_PER_CHANNEL * max(weight.shape[:2])
        and batch * h * w >= FILLED * _OUT**2 * tiles
    )


def convolve(x: Tensor, weight: Tensor, padding_mode: str) -> Tensor:
    """3x3 convolution of stride 1 that keeps the size.

    Args:
        x: (B, C, h, w) float32 or float64.
        weight: (O, C, 3, 3) of the same dtype.
        padding_mode: "zeros", "reflect" or "replicate", by one cell.

    Returns: (B, O, h, w), channels last; once differentiable in both.
    """
    out: Tensor = _Winograd.apply(x, weight, padding_mode)  # type: ignore[no-untyped-call]
    return out


class _Winograd(Function):
    """Keeps what it was given, and neither the padded map nor anything transformed, for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding_mode: str) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding_mode = padding_mode
        batch, _, h, w = x.shape
        padded = _padded(x, padding_mode)  # (B, H + 2, W + 2, C), H and W multiples of 4
        filters = _filters(weight)
        collect = _matrix(_A, x)  # (16, 36)
        out = x.new_empty(batch, padded.shape[1] - 2, padded.shape[2] - 2, len(weight))
        for images in _chunks(padded):
            products = torch.bmm(_spread(padded[images]), filters)  # (36, tiles, O)
            cells = (collect @ products.flatten(1)).view(_OUT, _OUT, *_cells(out[images]).shape[2:])
            _cells(out[images]).copy_(cells)
        return out[:, :h, :w].permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        _, _, h, w = x.shape
        wants_x, wants_weight, _ = ctx.needs_input_grad
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            padded = _padded(leaf, ctx.padding_mode)
        filters = _filters(weight).transpose(1, 2)  # (36, O, C)
        collect, spread = _matrix(_A, x), _matrix(_B, x)
        beyond = padded.shape[1] - 2 - h, padded.shape[2] - 2 - w
        arriving = F.pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, beyond[1], 0, beyond[0])).contiguous()
        to_padded = torch.zeros_like(padded)
        to_filters = torch.zeros_like(filters)
        for images in _chunks(padded):
            products = collect.t() @ _cells(arriving[images]).reshape(_OUT**2, -1)  # (36, tiles * O)
            products = products.view(_SIDE**2, -1, len(weight))
            if wants_weight:
                to_filters.baddbmm_(products.transpose(1, 2), _spread(padded.detach()[images]))
            if wants_x:
                tiles = spread.t() @ torch.bmm(products, filters).flatten(1)
                overlapping = _tiles(to_padded[images])
                tiles = tiles.view(overlapping.shape)
                for i in range(_SIDE):
                    for j in range(_SIDE):  # places of one (i, j) are all different
                        overlapping[i, j] += tiles[i, j]
        to_x = torch.autograd.grad(padded, leaf, to_padded)[0] if wants_x else None
        to_weight = None
        if wants_weight:
            to_weight = _matrix(_G, x).t() @ to_filters.flatten(1)  # (9, O * C)
            to_weight = to_weight.view(3, 3, *weight.shape[:2]).permute(2, 3, 0, 1)
        return to_x, to_weight, None


def _padded(x: Tensor, padding_mode: str) -> Tensor:
    """(B, C, h, w) -> (B, H + 2, W + 2, C): a cell around, and zeros to a multiple of a tile."""
    h, w = x.shape[-2:]
    mode = "constant" if padding_mode == "zeros" else padding_mode
    padded = F.pad(F.pad(x, (1, 1, 1, 1), mode), (0, -w % _OUT, 0, -h % _OUT))
    return padded.permute(0, 2, 3, 1).contiguous()  # free for channels-last maps


def _spread(padded: Tensor) -> Tensor:
    """V: tiles of a padded map (B, H + 2, W + 2, C), transformed: (36, tiles, C)."""
    spread = _matrix(_B, padded) @ _tiles(padded).reshape(_SIDE**2, -1)
    return spread.view(_SIDE**2, -1, padded.shape[-1])


def _filters(weight: Tensor) -> Tensor:
    """U: (O, C, 3, 3) -> (36, C, O)."""
    outputs, inputs = weight.shape[:2]
    return (_matrix(_G, weight) @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(-1, inputs, outputs)


def _tiles(padded: Tensor) -> Tensor:
    """The overlapping tiles of a contiguous map (B, H + 2, W + 2, C): a view (6, 6, B, H / 4, W / 4, C)."""
    batch, height, width, channels = padded.shape
    b, y, x, c = padded.stride()
    size = (_SIDE, _SIDE, batch, height // _OUT, width // _OUT, channels)
    return padded.as_strided(size, (y, x, b, _OUT * y, _OUT * x, c))


def _cells(out: Tensor) -> Tensor:
    """What tiles give, in a contiguous map (B, H, W, O): a view (4, 4, B, H / 4, W / 4, O)."""
    batch, height, width, channels = out.shape
    tiles = out.view(batch, height // _OUT, _OUT, width // _OUT, _OUT, channels)
    return tiles.permute(2, 4, 0, 1, 3, 5)


def _chunks(padded: Tensor) -> list[slice]:
    """Cover the batch with pieces of about TILES tiles."""
    batch, height, width, _ = padded.shape
    count = max(1, TILES // ((height // _OUT) * (width // _OUT)))
    return [slice(start, min(start + count, batch)) for start in range(0, batch, count)]


def _matrix(one_axis: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """A transform of one axis as the transform of two, on flattened tiles: the Kronecker product with itself."""
    matrix = torch.tensor(one_axis, dtype=torch.float64)
    return torch.kron(matrix, matrix).to(like)
