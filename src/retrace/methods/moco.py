"""MoCo: momentum contrast on single images, the first stage of Spatial-then-Temporal.

He, Fan, Wu, Xie, Girshick: "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020 (v1); Chen,
Fan, Girshick, He: "Improved Baselines with Momentum Contrastive Learning", 2020 (v2). Spatial-then-Temporal
(`papers/spatial_then_temporal.txt`, section 4.1) trains this on ImageNet before it sees any video.

| paper | here | shape |
|---|---|---|
| x^q, x^k | query, key | (B, 3, S, S): two crops of one image |
| f_q | encoder, head | |
| f_k, moved by momentum (Eq. 2 of MoCo) | key_encoder, key_head | |
| q, k+ (Eq. 1 of MoCo) | queries, keys | (B, C), unit rows |
| k_i, K | queue | (C, K), unit columns |
| tau, m | temperature, momentum | |

Departures (options in brackets):

1. The first stage's code was not released. The paper says "contrastive loss" and follows MoCo's settings. We take MoCo
   v2 [v1: `mlp=False`, `temperature=0.07`, `colour="v1"`]. Published weights of MoCo, DetCo or SimSiam load with `init`
   instead.
2. An image is a clip of one frame, so folders of images, videos and generated scenes all serve.
3. Shuffled batch normalisation needs several batches. On one process it does nothing, unless `batch_groups` splits the
   batch into parts with statistics of their own, as many GPUs would.
4. v1 turns images grey before it jitters their colours; here it comes after, as in v2.
5. An optimiser step of several forward passes (`accumulate`) is one large batch: the key encoder moves once, before the
   first pass, and the keys enter the queue after the last one, so that all queries meet the same negatives.
6. Ours alone: crops bilinear without anti-aliasing in one corner convention.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retrace.encoders import momentum
from retrace.encoders.heads import ContrastiveHead
from retrace.encoders.model import IMAGENET_MEAN, IMAGENET_STD
from retrace.encoders.resnet import ResNet
from retrace.errors import UsageError
from retrace.methods.checks import check_choices
from retrace.methods.losses import Losses
from retrace.video import transforms
from retrace.video.transforms import ColourAugmentation
from retrace.walk.similarity import contrastive_terms, spread

COLOUR: dict[str, ColourAugmentation] = {
    "none": ColourAugmentation(),
    "v1": ColourAugmentation((0.4, 0.4, 0.4, 0.4), 1.0, grey_probability=0.2),
    "v2": ColourAugmentation(
        (0.4, 0.4, 0.4, 0.1),
        0.8,
        grey_probability=0.2,
        blur_probability=0.5,
        blur_sigma=(0.1 * 256 / 224, 2.0 * 256 / 224),  # ours are for a 256-pixel crop, MoCo's is 224
    ),
}


@dataclass(frozen=True)
class MoCoConfig:
    """Everything the papers name; the defaults are v2.

    Attributes:
        crop_size: S, pixels.
        crop_area: range of the crop's share of the image's area.
        crop_ratio: range of width / height.
        flip_probability: of mirroring.
        colour: "v2", "v1" or "none".
        mlp: a head of two layers (v2), or one linear layer (v1).
        projector_hidden: width of the two-layer head; None is the encoder's channels.
        projector_outputs: C, channels of an embedding.
        temperature: tau, 0.2 in v2, 0.07 in v1.
        queue_length: K.
        momentum: m.
        batch_groups: parts of a process's batch that have batch statistics of their own; departure 3.
    """

    crop_size: int = 224
    crop_area: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5
    colour: str = "v2"
    mlp: bool = True
    projector_hidden: int | None = None
    projector_outputs: int = 128
    temperature: float = 0.2
    queue_length: int = 65536
    momentum: float = 0.999
    batch_groups: int = 1

    def __post_init__(self) -> None:
        """Errors: ValueError naming the field, what it was and what it may be."""
        check_choices(self, {"colour": tuple(COLOUR)})
        if self.crop_size < 16:
            raise ValueError(f"crop_size is {self.crop_size}; expected at least 16 pixels")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; expected a number above 0")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum is {self.momentum}; expected a number from 0 to 1")
        for name in ("queue_length", "batch_groups", "projector_outputs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")

    @property
    def clip_length(self) -> int:
        """One frame: the image."""
        return 1

    def check_batch(self, batch_size: int) -> None:
        """Errors: ValueError for a number of images that batch normalisation or the queue cannot work with."""
        if batch_size % self.batch_groups != 0 or batch_size // self.batch_groups < 2:
            parts = f", in {self.batch_groups} groups" if self.batch_groups > 1 else ""
            raise ValueError(
                f"images in the batch: {batch_size}{parts}; batch normalisation needs at least 2 in each group, and "
                "groups of equal size"
            )
        if self.queue_length % batch_size != 0:
            raise ValueError(
                f"queue_length is {self.queue_length}; expected a multiple of the {batch_size} keys of a batch"
            )


class MoCoViews:
    """From an image to two augmented crops. Picklable; draws everything from the generator."""

    def __init__(self, config: MoCoConfig) -> None:
        """`config` decides crops, flips and colour."""
        self.config = config

    def __call__(self, clip: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Two crops.

        Args:
            clip: uint8 (1, 3, H, W), RGB.
            generator: randomness.

        Returns:
            query: (3, S, S), ImageNet-normalised.
            key: likewise, drawn for itself.
        """
        config = self.config
        pair = (clip.float() / 255).expand(2, -1, -1, -1)
        pair = transforms.crop_each(
            pair, config.crop_size, config.crop_area, config.crop_ratio, config.flip_probability, generator
        )
        pair = transforms.standardise(
            COLOUR[config.colour].each(pair, generator), IMAGENET_MEAN, IMAGENET_STD
        )
        return {"query": pair[0], "key": pair[1]}


class MoCo(nn.Module):
    """Encoder, head, their slow copies, the queue, and the loss."""

    def __init__(self, encoder: ResNet, config: MoCoConfig) -> None:
        """`encoder` ends at layer4 in the papers; its map is averaged."""
        super().__init__()
        self.config = config
        self.encoder = encoder
        hidden = (config.projector_hidden or encoder.out_channels) if config.mlp else None
        self.head = ContrastiveHead(encoder.out_channels, hidden, config.projector_outputs)
        self.key_encoder = momentum.slow_copy(encoder)
        self.key_head = momentum.slow_copy(self.head)
        self.queue = momentum.NegativeQueue(config.projector_outputs, config.queue_length)

    def begin_step(self) -> None:
        """Before the first forward pass of an optimiser step: the key encoder follows."""
        momentum.momentum_step(self.key_encoder, self.encoder, self.config.momentum)  # Eq. (2)
        momentum.momentum_step(self.key_head, self.head, self.config.momentum)

    def end_step(self) -> None:
        """After its last forward pass: the keys of all its passes enter the queue."""
        self.queue.enqueue_waiting()

    def forward(self, views: dict[str, Tensor], generator: torch.Generator | None = None) -> Losses:
        """Loss of a batch. In training its keys wait for `end_step`.

        Args:
            views: a batch of `MoCoViews`: query and key (B, 3, S, S).
            generator: randomness of the shuffling, on the device of the views; None is torch's global one.

        Returns: Losses; terms: accuracy (share of queries that are nearer to their key than to any negative),
            batch_accuracy (than to any other key of the batch; no negatives, but as new as their own key, so that
            knowing how old a key is does not help), similarity (cosine of queries and their keys, -1 to 1), feature_std
            (`spread` of the queries).

        Errors: UsageError for a batch that leaves batch normalisation one image, or does not fit the queue.
        """
        config = self.config
        groups = config.batch_groups if self.training else 1
        if self.training:
            try:
                config.check_batch(len(views["query"]))
            except ValueError as error:
                raise UsageError(f"{error}.") from error
        queries = self.head(momentum.in_groups(self.encoder, views["query"], groups))  # (B, C)
        with torch.no_grad():
            keys = self.key_head(
                momentum.shuffled(self.key_encoder, views["key"], groups, generator)
            )  # (B, C)
        bank = self.queue.embeddings.clone()  # the queue itself is overwritten before the backward pass
        with torch.autocast(queries.device.type, enabled=False):
            positives = (queries * keys).sum(-1, keepdim=True)  # (B, 1)
            negatives = queries @ bank  # (B, K)
            total = contrastive_terms(positives, negatives, config.temperature).mean()  # Eq. (1)
        if self.training:
            self.queue.wait(keys)
        with torch.no_grad(), torch.autocast(queries.device.type, enabled=False):
            own = torch.arange(len(keys), device=keys.device)
            terms = {
                "accuracy": (positives > negatives.amax(-1, keepdim=True)).float().mean(),
                "batch_accuracy": ((queries @ keys.T).argmax(-1) == own).float().mean(),
                "similarity": positives.mean(),
                "feature_std": spread(queries),
            }
        return Losses(total, terms)
