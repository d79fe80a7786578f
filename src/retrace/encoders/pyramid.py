"""An encoder that sees an image at its full and at half its size, and stands what it sees side by side."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrace.encoders.resnet import ResNet, a_trous
from retrace.walk.nodes import normalise

KERNEL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""Burt and Adelson's, of a Gaussian pyramid."""


def halved(images: Tensor) -> Tensor:
    """Every second pixel of images (B, C, H, W), blurred: (B, C, ceil(H / 2), ceil(W / 2)).

    Pixel (i, j) of the result sits on pixel (2 i, 2 j), so that nodes at pixels 0, s, 2 s ... of it sit at 0, 2 s, 4 s.
    """
    channels = images.shape[1]
    taps = images.new_tensor(KERNEL)
    kernel = (taps[:, None] * taps).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), kernel, stride=2, groups=channels)


class BothSizes(nn.Module):
    """(B, 3, H, W) -> (B, 2 C, h, w): a node's features in the image, and in the image at half its size.

    Each of the two has unit length. Seen at half its size, the image has nodes twice as close (`resnet.a_trous`), so
    both have the same ones.

    Attributes:
        stride: pixels from node to node, that of the encoder.
        out_channels: 2 C.
    """

    def __init__(self, encoder: ResNet) -> None:
        """Errors: ValueError for an encoder whose nodes cannot be closer."""
        super().__init__()
        self.at_full = encoder
        self.at_half = a_trous(encoder)
        self.stride = encoder.stride
        self.out_channels = 2 * encoder.out_channels

    def forward(self, images: Tensor) -> Tensor:
        """See the class; images are normalised by the model's mean and std."""
        both = self.at_full(images), self.at_half(halved(images))
        return torch.cat([normalise(one, dim=1) for one in both], dim=1)
