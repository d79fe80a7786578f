"""Projection heads: what stands between the encoder and the loss, and is thrown away afterwards."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from retrace.walk.nodes import normalise


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


class SimSiamHead(nn.Module):
    """Learning without negatives: a projector of three linear layers and a predictor of two, on the mean of the map.

    Projector: linear, BN, ReLU; linear, BN, ReLU; linear, BN. Predictor: linear, BN, ReLU; linear. All linear layers
    have biases and all BNs are affine, the projector's last one too, as in VFS (SimSiam's is not).
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, bottleneck: int) -> None:
        """`hidden` and `outputs` of the projector, `bottleneck` of the predictor; PyTorch's own initialisation."""
        super().__init__()
        self.projector = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, outputs),
            nn.BatchNorm1d(outputs),
        )
        self.predictor = nn.Sequential(
            nn.Linear(outputs, bottleneck),
            nn.BatchNorm1d(bottleneck),
            nn.ReLU(inplace=True),
            nn.Linear(bottleneck, outputs),
        )

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """(M, inputs, h, w) -> projections z (M, outputs) and predictions p (M, outputs), not normalised."""
        z: Tensor = self.projector(feature_map.mean((-2, -1)))
        return z, self.predictor(z)


class ContrastiveHead(nn.Module):
    """Learning with negatives: linear, ReLU, linear on the map's mean, L2-normalised (MoCo v2); or one linear (v1)."""

    def __init__(self, inputs: int, hidden: int | None, outputs: int = 128) -> None:
        """`hidden` None leaves out the first linear layer; PyTorch's own initialisation."""
        super().__init__()
        first = [] if hidden is None else [nn.Linear(inputs, hidden), nn.ReLU(inplace=True)]
        self.projector = nn.Sequential(*first, nn.Linear(hidden or inputs, outputs))

    def forward(self, feature_map: Tensor) -> Tensor:
        """(M, inputs, h, w) -> (M, outputs), unit rows, float32."""
        return normalise(self.projector(feature_map.mean((-2, -1))).float(), -1)


class SiamFCHead(nn.Module):
    """VFS's tracking head (Table 8): two separate 1x1 convolutions with bias, for the exemplar and for the search."""

    def __init__(self, channels: int) -> None:
        """PyTorch's own initialisation; as many channels out as in."""
        super().__init__()
        self.exemplar = nn.Conv2d(channels, channels, 1)
        self.search = nn.Conv2d(channels, channels, 1)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "SiamFCHead | None":
        """The head with the tensors of a model's `head`; None when these are of another one."""
        if set(tensors) != {
            f"{part}.{kind}" for part in ("exemplar", "search") for kind in ("weight", "bias")
        }:
            return None
        head = cls(len(tensors["exemplar.bias"]))
        head.load_state_dict(tensors)
        return head

    def forward(self, exemplar: Tensor, search: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (..., channels, h, w) of both kinds -> the same shapes."""
        return _on_maps(self.exemplar, exemplar), _on_maps(self.search, search)


def _on_maps(layer: nn.Module, maps: Tensor) -> Tensor:
    """A layer on (..., C, h, w), whatever comes before the channels."""
    out: Tensor = layer(maps.flatten(0, -4))
    return out.reshape(*maps.shape[:-3], *out.shape[1:])


def node_head(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    """CRW's head on every node: linear layers with ReLU between them, `depth` of them hidden and as wide as the input.

    depth 0 is one linear layer, as published; -1 is no head at all. Maps (..., inputs) to (..., outputs).
    """
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(inputs, inputs), nn.ReLU()]
    if depth >= 0:
        layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)


class Localizer(nn.Module):
    """TimeCycle's g: from the affinity of a patch with an image to where the patch lies in the image."""

    def __init__(
        self, nodes: int, size: tuple[int, int], channels: tuple[int, int] = (128, 64), kernel: int = 4
    ) -> None:
        """Convolutions Kaiming fan-out, linear layer N(0, 0.01) with bias 0, as released.

        Args:
            nodes: N of the image.
            size: (h, w) of the patch, at least 2 * kernel - 1 each.
            channels: of the two convolutions.
            kernel: their side.

        Errors: ValueError for a patch that is too small for the kernels.
        """
        super().__init__()
        left = [cells - 2 * (kernel - 1) for cells in size]
        if min(left) < 1:
            raise ValueError(
                f"a patch of {size[0]} x {size[1]} nodes is too small for two kernels of {kernel}; "
                f"expected at least {2 * kernel - 1} nodes on a side"
            )
        self.conv1 = nn.Conv2d(nodes, channels[0], kernel, bias=False)
        self.conv2 = nn.Conv2d(channels[0], channels[1], kernel, bias=False)
        self.linear = nn.Linear(channels[1] * left[0] * left[1], 3)
        for convolution in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, affinity_map: Tensor) -> Tensor:
        """Affinities (B, N, h, w), one channel per image node row by row, -> (B, 3): tx, ty, angle in radians."""
        x = F.leaky_relu(self.conv1(affinity_map), 0.1)
        x = F.leaky_relu(self.conv2(x), 0.1)
        out: Tensor = self.linear(x.flatten(1))
        return out


def take_over(head: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Load the head that weights were trained with into `head`, where its names and shapes are the same.

    Args:
        head: changed only when everything fits.
        tensors: name -> tensor, as `Model.head` holds them; empty where a model brings none.

    Returns: whether it was loaded.
    """

    def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in state.items()}

    same = shapes(head.state_dict()) == shapes(tensors)
    if same:
        head.load_state_dict(tensors)
    return same
