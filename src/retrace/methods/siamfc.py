"""SiamFC on a frozen encoder: two 1x1 convolutions that make its features fit for tracking (VFS, Table 8).

Xu, Wang: "Rethinking Self-supervised Correspondence Learning: A Video Frame-level Similarity Perspective", ICCV 2021
(`papers/vfs.txt`), after Bertinetto et al., "Fully-Convolutional Siamese Networks for Object Tracking", ECCV workshops
2016. What is trained here is used by `retrace track`.

| paper, code | here | shape |
|---|---|---|
| z | exemplar: crop round the target of the first frame of a pair | (B, 3, exemplar_size, exemplar_size) |
| x | search: crop round the target of the second frame | (B, 3, search_size, search_size) |
| response | logits | (B, r, r) |
| y | labels: 1 within label_radius of the middle | (r, r) |

A clip is a pair of frames with the target's box on both; the target is in the middle of both crops, so one label serves
all pairs. The paper gives the optimisation and no equation; the losses are those of its released code.

Departures:

1. VFS crops with a whole-pixel shift of up to 4 pixels out of a larger crop that was resized by up to 5 percent before.
   Here crops are cut once, with a shift and a stretch of the same size drawn from continuous ranges.
2. [open] How VFS begins the convolutions is not said: PyTorch's own way here. Ours alone: `head_init="identity"` begins
   with the tracker that the frozen features make, which a short training needs.
3. Ours alone: `loss="balanced"` is siamfc-pytorch's; which frames of a video make a pair is drawn anew until both are
   usable, instead of listing the usable ones.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrace.encoders.heads import SiamFCHead
from retrace.encoders.model import IMAGENET_MEAN, IMAGENET_STD
from retrace.encoders.resnet import ResNet
from retrace.methods.checks import check_choices
from retrace.methods.losses import Losses
from retrace.video import transforms
from retrace.video.sampling import PairSampling, Sampling
from retrace.walk.siamese import context_side, correlate, response_labels, square_crop


@dataclass(frozen=True)
class SiamFCConfig:
    """Everything that the training names.

    Attributes:
        exemplar_size: the target with its surroundings is resized to so many pixels.
        search_size: pixels of the search crop, at the same scale.
        context: share of width + height that surrounds the target on each axis.
        max_distance: the frames of a pair are less than so many frames apart.
        shift: largest shift of a crop, pixels of the crop.
        stretch: largest change of the scale of a crop.
        label_radius: cells, abs(dx) + abs(dy) from the middle, that count as the target.
        out_scale: factor on responses; that of the tracker.
        loss: "focal" (VFS) or "balanced" (siamfc-pytorch).
        gamma: power of the focal loss's weights.
        head_init: "pytorch" or "identity"; departure 2.
    """

    exemplar_size: int = 120
    search_size: int = 239
    context: float = 0.5
    max_distance: int = 100
    shift: float = 4.0
    stretch: float = 0.05
    label_radius: float = 2.0
    out_scale: float = 1e-3
    loss: str = "focal"
    gamma: float = 2.0
    head_init: str = "pytorch"

    def __post_init__(self) -> None:
        """Errors: ValueError naming the field, what it was and what it may be."""
        check_choices(self, {"loss": ("focal", "balanced"), "head_init": ("pytorch", "identity")})
        if not 16 <= self.exemplar_size <= self.search_size:
            raise ValueError(
                f"exemplar_size is {self.exemplar_size}, search_size {self.search_size}; expected at least 16 pixels, "
                "and the search no smaller than the exemplar"
            )
        if not 0 <= self.stretch < 1:
            raise ValueError(f"stretch is {self.stretch}; expected a share from 0 to below 1")
        if self.max_distance < 2:
            raise ValueError(f"max_distance is {self.max_distance}; expected at least 2 frames")

    @property
    def clip_length(self) -> int:
        """A pair."""
        return 2

    def sampling(self) -> Sampling:
        """Two frames, less than `max_distance` apart."""
        return PairSampling(self.max_distance)


class SiamFCViews:
    """From a pair of frames and the target's boxes to exemplar and search. Picklable."""

    wants_boxes = True

    def __init__(self, config: SiamFCConfig) -> None:
        """`config` decides sizes, shift and stretch."""
        self.config = config

    def __call__(self, clip: Tensor, boxes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Both crops.

        Args:
            clip: uint8 (2, 3, H, W), RGB.
            boxes: (2, 4) x, y, w, h of the target, pixels of its edges.
            generator: randomness.

        Returns: exemplar (3, exemplar_size, exemplar_size), search (3, search_size, search_size), ImageNet-normalised.
        """
        config = self.config
        sizes = {"exemplar": config.exemplar_size, "search": config.search_size}
        views = {}
        for image, box, (name, size) in zip(clip, boxes.tolist(), sizes.items(), strict=True):
            x, y, width, height = box
            draw = torch.rand(3, generator=generator, dtype=torch.float64) * 2 - 1
            side = context_side(width, height, config.context) * size / config.exemplar_size
            side *= 1 + config.stretch * float(draw[0])
            dx, dy = (draw[1:] * config.shift * side / size).tolist()
            centre = (x + width / 2 + dx, y + height / 2 + dy)
            crop = square_crop(image, centre, side, size).float() / 255
            views[name] = transforms.standardise(crop, IMAGENET_MEAN, IMAGENET_STD)
        return views


class SiamFC(nn.Module):
    """Frozen encoder, head and the loss."""

    def __init__(self, encoder: ResNet, config: SiamFCConfig) -> None:
        """`encoder` is not trained, its BatchNorm keeps the statistics it came with."""
        super().__init__()
        self.config = config
        self.encoder = encoder.requires_grad_(False)
        self.head = SiamFCHead(encoder.out_channels)
        if config.head_init == "identity":
            for layer in (self.head.exemplar, self.head.search):
                nn.init.dirac_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def train(self, mode: bool = True) -> "SiamFC":
        """The encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, views: dict[str, Tensor], generator: torch.Generator | None = None) -> Losses:
        """Loss of a batch.

        Args:
            views: a batch of `SiamFCViews`: exemplar and search (B, 3, S, S).
            generator: not used.

        Returns: Losses; terms: hits (share of pairs whose best cell counts as the target).
        """
        with torch.no_grad():
            exemplar, search = self.encoder(views["exemplar"]), self.encoder(views["search"])
        exemplar, search = self.head(exemplar, search[:, None])
        with torch.autocast(exemplar.device.type, enabled=False):
            logits = correlate(exemplar.float(), search.float())[:, 0] * self.config.out_scale  # (B, r, r)
            h, w = logits.shape[-2:]
            labels = response_labels(h, w, self.config.label_radius).to(logits.device)
            if self.config.loss == "focal":
                total = focal_loss(logits, labels.expand_as(logits), self.config.gamma)
            else:
                total = balanced_loss(logits, labels.expand_as(logits))
        best = logits.detach().flatten(1).argmax(1)
        return Losses(total, {"hits": labels.flatten()[best].mean()})


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Cross-entropy whose terms weigh (1 - p of the right answer) ** gamma, divided by the mean weight.

    The division is part of the gradient, as in the released code.

    Args:
        logits: any shape.
        labels: the same shape, 0 or 1.
        gamma: 0 is the plain cross-entropy.

    Returns: scalar, mean over everything.
    """
    right = torch.where(labels > 0.5, logits, -logits).flatten()
    # (1 - p) ** gamma over their sum, without the underflow of weights that are all tiny
    share = torch.softmax(gamma * F.logsigmoid(-right), dim=0)
    return -(share * F.logsigmoid(right)).sum()


def balanced_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Half the mean cross-entropy of the cells with label 1, half that of the cells with label 0.

    Args:
        logits: any shape.
        labels: the same shape, 0 or 1; both occur.

    Returns: scalar.
    """
    terms = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    positive = labels > 0.5
    return (terms[positive].mean() + terms[~positive].mean()) / 2
