"""Projection heads: what stands between the encoder and the loss, and is thrown away afterwards."""

from torch import Tensor, nn


class Projector(nn.Module):
    """STFC3's two fully connected layers on every node, as 1x1 convolutions: conv (bias), ReLU, BN, conv (no bias)."""

    def __init__(self, inputs: int, hidden: int = 2048, outputs: int = 512) -> None:
        """PyTorch's own initialisation."""
        super().__init__()
        self.proj1 = nn.Conv2d(inputs, hidden, 1)
        self.relu = nn.ReLU(inplace=True)
        self.projbn = nn.BatchNorm2d(hidden)
        self.proj2 = nn.Conv2d(hidden, outputs, 1, bias=False)

    def forward(self, feature_map: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        out: Tensor = self.proj2(self.projbn(self.relu(self.proj1(feature_map))))
        return out
