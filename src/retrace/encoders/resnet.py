"""ResNets that keep their resolution, with torchvision's parameter names, so that published checkpoints load by name.

The papers' res2 ... res5 are `layer1` ... `layer4`.
"""

import copy
from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from retrace.encoders import winograd
from retrace.errors import UsageError

PaddingMode = Literal["zeros", "reflect", "replicate"]
PADDING_MODES = (*get_args(PaddingMode), "none")
DILATED = ("all", "released")
LAYERS = ("layer1", "layer2", "layer3", "layer4")
POOLS = {"max": nn.MaxPool2d, "mean": nn.AvgPool2d}


class _Convolution(nn.Conv2d):
    """A convolution that takes the faster of two ways to the same numbers."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002 - torch's name
        fits = self.kernel_size == (3, 3) and self.padding == self.dilation == self.stride == (1, 1)
        if fits and bias is None and winograd.pays(input, weight):
            return winograd.convolve(input, weight, self.padding_mode)
        height, width = input.shape[-2:]
        if self.padding_mode == "reflect" and min(height, width) <= self.dilation[0] * (
            self.kernel_size[0] // 2
        ):
            raise UsageError(
                f"Inside the encoder a map of {height}x{width} is too small to be padded by reflection. Give larger "
                "images, crops or patches, or an encoder with smaller strides or another padding_mode."
            )
        direct: Tensor = super()._conv_forward(input, weight, bias)
        return direct


def _conv(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, padding_mode: str
) -> nn.Conv2d:
    """Convolution without bias that keeps the size at stride 1, unless `padding_mode` is "none"."""
    padding = 0 if padding_mode == "none" else dilation * (kernel // 2)
    mode = cast(PaddingMode, "zeros" if padding == 0 else padding_mode)
    return _Convolution(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        bias=False,
        padding_mode=mode,
    )


def _centre_crop(x: Tensor, like: Tensor) -> Tensor:
    """Crop x (B, C, H, W) to the size of `like`; start = floor((big - small) / 2). A no-op when sizes agree."""
    (height, width), (h, w) = x.shape[-2:], like.shape[-2:]
    top, left = (height - h) // 2, (width - w) // 2
    return x[..., top : top + h, left : left + w]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        planes: int,
        *,
        stride: int,
        dilation: int,
        padding_mode: str,
        second_dilation: int | None = None,
    ) -> None:
        """`inputs` channels in, `planes` out; `second_dilation` of conv2, None is that of conv1."""
        super().__init__()
        second = dilation if second_dilation is None else second_dilation
        self.conv1 = _conv(inputs, planes, 3, stride=stride, dilation=dilation, padding_mode=padding_mode)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, dilation=second, padding_mode=padding_mode)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, planes, h', w')."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        identity = x if self.downsample is None else self.downsample(x)
        return F.relu(out + _centre_crop(identity, out), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (ResNet-50 and -101); the 3x3 carries the stride, as in torchvision."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        planes: int,
        *,
        stride: int,
        dilation: int,
        padding_mode: str,
        second_dilation: int | None = None,
    ) -> None:
        """`inputs` channels in, `4 * planes` out; there is no second 3x3 that `second_dilation` could be for."""
        super().__init__()
        self.conv1 = _conv(inputs, planes, 1, padding_mode=padding_mode)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, stride=stride, dilation=dilation, padding_mode=padding_mode)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv(planes, planes * 4, 1, padding_mode=padding_mode)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = _shortcut(inputs, planes * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, 4 * planes, h', w')."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        identity = x if self.downsample is None else self.downsample(x)
        return F.relu(out + _centre_crop(identity, out), inplace=True)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """1x1 projection where size or channels change, as torchvision has it."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


def check_settings(*, cut: str, padding_mode: str, pool: str, dilated: str, reduction: int) -> None:
    """Refuse settings of a ResNet that do not exist.

    Errors: ValueError naming the setting and what it may be.
    """
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"padding_mode {padding_mode!r}; expected one of {', '.join(PADDING_MODES)}")
    if dilated not in DILATED:
        raise ValueError(f"dilated {dilated!r}; expected one of {', '.join(DILATED)}")
    if cut not in LAYERS:
        raise ValueError(f"cut {cut!r}; expected one of {', '.join(LAYERS)}")
    if pool not in POOLS:
        raise ValueError(f"pool {pool!r}; expected one of {', '.join(POOLS)}")
    if reduction < 0:
        raise ValueError(f"reduction {reduction}; expected a number of channels, or 0 for none")


class ResNet(nn.Module):
    """A residual network, cut after a layer, that returns a feature map.

    Attributes:
        out_channels: C of the map.
        stride: pixels from node to node; node (i, j) sits on pixel (origin + i * stride, origin + j * stride).
        origin: pixel of node 0, on both axes: 0 with padding. Without it, where the 3x3 convolutions put it; the
            centre-cropped shortcuts lie up to half a stride of their layer off.
        stride_after: the same after each layer that is built, by its name.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        *,
        strides: Sequence[int] = (1, 2, 1, 1),
        dilations: Sequence[int] = (1, 1, 1, 1),
        dilated: str = "all",
        cut: str = "layer3",
        padding_mode: str = "zeros",
        width: float = 1.0,
        stem_pool: bool = True,
        pool: str = "max",
        reduction: int = 0,
        zero_init_residual: bool = False,
    ) -> None:
        """Build with Kaiming fan-out initialisation.

        Args:
            block: BasicBlock or Bottleneck.
            depths: number of blocks of layer1 ... layer4.
            strides: of layer1 ... layer4; (1, 2, 2, 2) is the classifier, (1, 2, 1, 1) the correspondence encoders.
            dilations: of layer1 ... layer4.
            dilated: "all" dilates every 3x3 convolution of a layer; "released" (VFS's code, for tracking) gives the
                first block of a layer half of it, and 1 to the second convolution of a BasicBlock.
            cut: last layer that is built, "layer1" ... "layer4".
            padding_mode: "zeros", "reflect", "replicate" or "none". It holds for every padded convolution; the
                stem's pool keeps its own padding, except with "none", where nothing is padded and shortcuts are
                centre-cropped.
            width: factor on the channels, 1.0 is the published network (64 channels in layer1).
            stem_pool: False leaves out the stem's pool (stride 2 instead of 4 after the stem).
            pool: of the stem, "max" or "mean".
            reduction: channels of a 1x1 convolution without bias, and its ReLU, after the cut; 0 has none.
            zero_init_residual: start the weights of every block's last BatchNorm at 0.

        Errors: ValueError for an unknown padding mode, cut, pool or way to dilate, or a negative reduction.
        """
        super().__init__()
        check_settings(cut=cut, padding_mode=padding_mode, pool=pool, dilated=dilated, reduction=reduction)
        base = round(64 * width)
        padding = 0 if padding_mode == "none" else 3
        mode = cast(PaddingMode, "zeros" if padding == 0 else padding_mode)
        self.conv1 = nn.Conv2d(
            3,
            base,
            7,
            stride=2,
            padding=padding,
            bias=False,
            padding_mode=mode,
        )
        self.bn1 = nn.BatchNorm2d(base)
        self.maxpool = POOLS[pool](3, 2, 0 if padding_mode == "none" else 1) if stem_pool else nn.Identity()
        self.cut = cut
        self.stride = 2 * (2 if stem_pool else 1)
        self.stride_after: dict[str, int] = {}
        channels = base
        for index, name in enumerate(LAYERS[: LAYERS.index(cut) + 1]):
            planes = base * 2**index
            blocks = []
            for position in range(depths[index]):
                half = dilated == "released" and position == 0
                blocks.append(
                    block(
                        channels,
                        planes,
                        stride=strides[index] if position == 0 else 1,
                        dilation=max(1, dilations[index] // 2) if half else dilations[index],
                        padding_mode=padding_mode,
                        second_dilation=1 if dilated == "released" else None,
                    )
                )
                channels = planes * block.expansion
            self.add_module(name, nn.Sequential(*blocks))
            self.stride *= strides[index]
            self.stride_after[name] = self.stride
        self._windows = self._main_path() if padding_mode == "none" else None
        self.origin = 0
        jump = 1
        for extent, step in self._windows or ():
            self.origin += jump * (extent // 2)
            jump *= step
        self.reduction = nn.Conv2d(channels, reduction, 1, bias=False) if reduction else None
        self.out_channels = reduction or channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, BasicBlock | Bottleneck):
                    last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
                    nn.init.zeros_(last.weight)

    def _main_path(self) -> list[tuple[int, int]]:
        """(pixels covered, stride) of every convolution and pool on the way to the map, shortcuts aside."""
        windows = []
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and "downsample" not in name:
                windows.append((module.dilation[0] * (module.kernel_size[0] - 1) + 1, module.stride[0]))
            if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
                windows.append((int(module.kernel_size), int(module.stride)))  # type: ignore[arg-type]
        return windows

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Cells (h, w) of the map of an image of H x W pixels.

        Errors: UsageError for an image in which an encoder without padding has no room.
        """
        if self._windows is None:
            return -(-height // self.stride), -(-width // self.stride)
        cells = []
        for size in (height, width):
            for extent, step in self._windows:
                size = (size - extent) // step + 1 if size >= extent else 0
            cells.append(size)
        if min(cells) < 1:
            raise UsageError(
                f"An image of {height} x {width} pixels is too small for this encoder, which pads nothing. "
                "Take larger images, or an encoder with padding."
            )
        return cells[0], cells[1]

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), normalised by the model's mean and std -> map (B, C, h, w), (h, w) = grid(H, W).

        h = ceil(H / stride), w = ceil(W / stride); smaller with padding_mode "none".
        """
        (x,) = self.pyramid(images, [self.cut])
        return x if self.reduction is None else F.relu(self.reduction(x), inplace=True)

    def pyramid(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """The maps after several layers, before any reduction.

        Args:
            images: (B, 3, H, W), normalised.
            layers: names of layers, in the network's order; nothing beyond the last of them is computed.

        Returns: a map (B, C, h, w) per layer, h = ceil(H / stride_after[layer]).
        """
        x: Tensor = self.maxpool(F.relu(self.bn1(self.conv1(images)), inplace=True))
        maps = {}
        for name in LAYERS[: LAYERS.index(layers[-1]) + 1]:
            x = maps[name] = self.get_submodule(name)(x)
        return [maps[name] for name in layers]


def a_trous(encoder: ResNet) -> ResNet:
    """The same encoder with nodes twice as close: every second node, on both axes, keeps its features.

    The last stride of 2 becomes 1, and the 3x3 convolutions behind it are dilated twice as far, so that they meet what
    they met before. Only borders that are padded by reflection may differ.

    Errors: ValueError where `why_not_closer` has a reason.
    """
    if (reason := why_not_closer(encoder)) is not None:
        raise ValueError(reason)
    finer = copy.deepcopy(encoder)
    blocks = [block for name in finer.stride_after for block in finer.get_submodule(name).children()]
    first = max(place for place, block in enumerate(blocks) if max(_strides(block)) > 1)
    behind = False
    for block in blocks[first:]:
        # In the order in which a block applies them; its shortcut, 1x1, is beside them.
        for name, old in [item for item in block.named_modules() if isinstance(item[1], nn.Conv2d)]:
            strided = old.stride == (2, 2)
            block.set_submodule(name, _without_stride(old, 2 if behind and not strided else 1))
            behind = behind or strided
    for name in finer.stride_after:
        if finer.get_submodule(name)[0] in blocks[first:]:  # type: ignore[index]
            finer.stride_after[name] //= 2
    finer.stride //= 2
    return finer


def why_not_closer(encoder: ResNet) -> str | None:
    """Why `a_trous` cannot bring the nodes of an encoder closer; None where it can."""
    if encoder.conv1.padding == (0, 0):
        return "an encoder without padding cannot have its nodes closer: they would not stay in place"
    strides = [
        max(_strides(block))
        for name in encoder.stride_after
        for block in encoder.get_submodule(name).children()
    ]
    last = [stride for stride in strides if stride > 1][-1:]
    if not last:
        return "no layer of this encoder has a stride that could be left out"
    return None if last == [2] else f"the last stride is {last[0]}; only 2 can be left out"


def _strides(block: nn.Module) -> list[int]:
    """Of its convolutions."""
    return [layer.stride[0] for layer in block.modules() if isinstance(layer, nn.Conv2d)]


def _without_stride(old: nn.Conv2d, farther: int) -> nn.Conv2d:
    """A convolution with the weights of another, stride 1, dilated `farther` times as much."""
    new = _conv(
        old.in_channels,
        old.out_channels,
        old.kernel_size[0],
        dilation=old.dilation[0] * (farther if old.kernel_size[0] > 1 else 1),
        padding_mode=old.padding_mode,
    )
    new.weight = old.weight
    return new


DEPTHS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


def trains_channels_last(network: nn.Module) -> bool:
    """Whether a network may be trained in channels-last memory on a CPU.

    Not with a strided 1x1 convolution (a shortcut) of fewer than 16 input channels: in its backward pass oneDNN, as of
    3.12, writes past its workspace (oneDNN issue 6035), which crashes or spoils gradients. So networks of a width below
    a quarter keep torch's own order.
    """
    return not any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and max(layer.stride) > 1
        and layer.in_channels < 16
        for layer in network.modules()
    )
