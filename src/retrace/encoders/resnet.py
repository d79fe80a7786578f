"""ResNets that keep their resolution, with torchvision's parameter names, so that published checkpoints load by name.

The papers' res2 ... res5 are `layer1` ... `layer4`.
"""

from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch.nn.functional as F
from torch import Tensor, nn

PaddingMode = Literal["zeros", "reflect", "replicate"]
PADDING_MODES = (*get_args(PaddingMode), "none")
LAYERS = ("layer1", "layer2", "layer3", "layer4")


def _conv(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, padding_mode: str
) -> nn.Conv2d:
    """Convolution without bias that keeps the size at stride 1, unless `padding_mode` is "none"."""
    padding = 0 if padding_mode == "none" else dilation * (kernel // 2)
    mode = cast(PaddingMode, "zeros" if padding == 0 else padding_mode)
    return nn.Conv2d(
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
    """Two 3x3 convolutions and a shortcut (ResNet-18)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, *, stride: int, dilation: int, padding_mode: str) -> None:
        """`inputs` channels in, `planes` out."""
        super().__init__()
        self.conv1 = _conv(inputs, planes, 3, stride=stride, dilation=dilation, padding_mode=padding_mode)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, dilation=dilation, padding_mode=padding_mode)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, planes, h', w')."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        identity = x if self.downsample is None else self.downsample(x)
        return F.relu(out + _centre_crop(identity, out), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (ResNet-50); the 3x3 carries the stride, as in torchvision."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, *, stride: int, dilation: int, padding_mode: str) -> None:
        """`inputs` channels in, `4 * planes` out."""
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


class ResNet(nn.Module):
    """A residual network, cut after a layer, that returns a feature map.

    Attributes:
        out_channels: C of the map.
        stride: pixels from node to node; node (i, j) sits on pixel (i * stride, j * stride) of the padded variants.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        *,
        strides: Sequence[int] = (1, 2, 1, 1),
        dilations: Sequence[int] = (1, 1, 1, 1),
        cut: str = "layer3",
        padding_mode: str = "zeros",
        width: float = 1.0,
        stem_pool: bool = True,
    ) -> None:
        """Build with Kaiming fan-out initialisation.

        Args:
            block: BasicBlock or Bottleneck.
            depths: number of blocks of layer1 ... layer4.
            strides: of layer1 ... layer4; (1, 2, 2, 2) is the classifier, (1, 2, 1, 1) the correspondence encoders.
            dilations: of layer1 ... layer4.
            cut: last layer that is built, "layer1" ... "layer4".
            padding_mode: "zeros", "reflect", "replicate" or "none". It holds for every padded convolution; the
                max-pool keeps its own padding, except with "none", where nothing is padded and shortcuts are
                centre-cropped.
            width: factor on the channels, 1.0 is the published network (64 channels in layer1).
            stem_pool: False leaves out the max-pool (stride 2 instead of 4 after the stem).

        Errors: ValueError for an unknown padding mode or cut.
        """
        super().__init__()
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"padding_mode {padding_mode!r}; expected one of {', '.join(PADDING_MODES)}")
        if cut not in LAYERS:
            raise ValueError(f"cut {cut!r}; expected one of {', '.join(LAYERS)}")
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
        self.maxpool = nn.MaxPool2d(3, 2, 0 if padding_mode == "none" else 1) if stem_pool else nn.Identity()
        self.cut = cut
        self.stride = 2 * (2 if stem_pool else 1)
        channels = base
        for index, name in enumerate(LAYERS[: LAYERS.index(cut) + 1]):
            planes = base * 2**index
            blocks = []
            for position in range(depths[index]):
                blocks.append(
                    block(
                        channels,
                        planes,
                        stride=strides[index] if position == 0 else 1,
                        dilation=dilations[index],
                        padding_mode=padding_mode,
                    )
                )
                channels = planes * block.expansion
            self.add_module(name, nn.Sequential(*blocks))
            self.stride *= strides[index]
        self.out_channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), normalised by the model's mean and std -> map (B, C, h, w).

        h = ceil(H / stride), w = ceil(W / stride); smaller with padding_mode "none".
        """
        x: Tensor = self.maxpool(F.relu(self.bn1(self.conv1(images)), inplace=True))
        for name in LAYERS[: LAYERS.index(self.cut) + 1]:
            x = self.get_submodule(name)(x)
        return x


DEPTHS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
