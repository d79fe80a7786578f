"""VFS: video frame-level similarity.

Xu, Wang: "Rethinking Self-supervised Correspondence Learning: A Video Frame-level Similarity Perspective", ICCV 2021
(`papers/vfs.txt`).

| paper | here | shape |
|---|---|---|
| f_i | clip | (n, 3, H, W), uint8; frames 0 .. n/2 - 1 are the first half, the rest the second |
| P (predictor encoder) | encoder, head | |
| T (target encoder) | encoder and the head's projector, or target_encoder and target_head with negatives | |
| p_i | p1, p2 (without), queries (with negatives) | (B, n/2, C) |
| z_j | z1, z2 (without), keys (with negatives) | (B, n/2, C) |
| affinity matrix (Figure 2) | pair_distances, own | (B, n/2, n/2) |
| U, K | queue | (C, K) |
| xi, theta (Eq. 2) | parameters of target_*, of encoder and head | |
| L, n, delta (Table 1) | num_frames, clip_length, interval | |
| tau, m | temperature, momentum | |

Departures, and what the released code does otherwise (options in brackets):

1. Frames are counted from 0 here, from 1 in the paper.
2. Without negatives the paper writes one direction (Eq. 5); as in the SimSiam that it cites, and in the released code,
   the loss is the mean of both: each half predicts the other. Gradients stop at z.
3. All n/2 x n/2 pairs between the halves count, pairs inside a half never [`pairs="aligned"`: frame i with frame i].
4. Each half is a forward pass of its own, with batch statistics of its own, as in the released code.
5. With negatives, the paper's bank U holds other videos' features (Eq. 4): a queue. The authors' configuration also
   counts the keys of the other videos of the batch as negatives [`batch_negatives=True`]. Either way all keys of a
   video are positives, one -log term each, and a query's other positives are not in its denominator.
6. With negatives the loss is not symmetric: queries are the second half, keys the first (the authors' configuration).
7. The paper does not say how to count segments. We count as the released code does, which is off by one frame at the
   video's end and leaves a few frames out (`video.sampling`).
8. The strengths of the colours are not in the paper. `colour="paper"` has MoCo v2's, which it cites; the released code
   has a blur of sigma U(.1, .2), which is hardly any [`colour="released"`].
9. Without spatial augmentation the whole frame is squashed to the crop's square, as in the released code.
10. Shuffled batch normalisation needs several batches. On one process it does nothing, unless `batch_groups` splits the
    batch into parts with statistics of their own, as many GPUs would.
11. An optimiser step of several forward passes (`accumulate`) is one large batch: the target encoder moves once, before
    the first pass, and the keys enter the queue after the last one, so that all queries meet the same negatives.
12. Ours alone: crops bilinear in one corner convention; `check_batch` refuses what BatchNorm or the queue cannot work
    with.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from retrace.encoders import momentum
from retrace.encoders.heads import ContrastiveHead, SimSiamHead
from retrace.encoders.model import IMAGENET_MEAN, IMAGENET_STD
from retrace.encoders.resnet import ResNet
from retrace.errors import UsageError
from retrace.methods.checks import check_choices
from retrace.methods.losses import Losses
from retrace.video import transforms
from retrace.video.sampling import ContinuousSampling, DistantSampling
from retrace.video.transforms import ColourAugmentation
from retrace.walk.affinity import affinity
from retrace.walk.similarity import contrastive_terms, cosine_distance, spread

# Sigmas are pixels of the 224-pixel crop in both sources; ours are for 256 and shrink with the crop.
_JITTER: dict[str, Any] = {"jitter": (0.4, 0.4, 0.4, 0.1), "jitter_probability": 0.8}
COLOUR: dict[str, ColourAugmentation] = {
    "none": ColourAugmentation(),
    "paper": ColourAugmentation(
        **_JITTER,
        grey_probability=0.2,
        blur_probability=0.5,
        blur_sigma=(0.1 * 256 / 224, 2.0 * 256 / 224),
    ),
    "released": ColourAugmentation(
        **_JITTER,
        grey_probability=0.2,
        blur_probability=0.5,
        blur_sigma=(0.1 * 256 / 224, 0.2 * 256 / 224),
    ),
}


@dataclass(frozen=True)
class VFSConfig:
    """Everything the paper names. The defaults are its best setting for fine correspondence (Tables 4 and 7).

    Attributes:
        negatives: learn with negative pairs (Eq. 4) or without (Eq. 5): Table 5.
        clip_length: n, frames of a video that are compared, even: Table 4.
        frames: "distant" (one from each of n segments), "continuous" (every `interval` frames) or "same" (one frame n
            times): Table 3, and "different frame" of Table 2.
        interval: delta, frames, of "continuous".
        short: what "distant" does with an index past the end: "loop", or "repeat_last" of the released code.
        pairs: "all" pairs of the two halves, or "aligned": frame i of one with frame i of the other.
        spatial: crop and flip at random (Table 2), or take the whole frame, squashed.
        crop_size: S, pixels.
        crop_area: range of the crop's share of the frame's area.
        crop_ratio: range of width / height.
        flip_probability: of mirroring.
        colour: "none", "paper" or "released": "color aug" of Tables 2, 4, 5 and 6.
        projector_hidden: width of the projector's hidden layers; None is the encoder's channels.
        projector_outputs: its outputs; None is the encoder's channels without negatives, 128 with.
        predictor_hidden: width of the predictor's hidden layer; None is a quarter of projector_outputs.
        temperature: tau of Eq. 4.
        queue_length: K of Eq. 4.
        momentum: m of Eq. 2.
        batch_negatives: also count the keys of the batch's other videos as negatives; departure 5. With aligned pairs,
            every key of the batch but the positive one.
        batch_groups: with negatives, parts of a process's batch that have batch statistics of their own; departure 10.
    """

    negatives: bool = False
    clip_length: int = 8
    frames: str = "distant"
    interval: int = 8
    short: str = "loop"
    pairs: str = "all"
    spatial: bool = True
    crop_size: int = 224
    crop_area: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5
    colour: str = "none"
    projector_hidden: int | None = None
    projector_outputs: int | None = None
    predictor_hidden: int | None = None
    temperature: float = 0.2
    queue_length: int = 65536
    momentum: float = 0.999
    batch_negatives: bool = False
    batch_groups: int = 1

    def __post_init__(self) -> None:
        """Errors: ValueError naming the field, what it was and what it may be."""
        check_choices(
            self,
            {
                "frames": ("distant", "continuous", "same"),
                "short": ("loop", "repeat_last"),
                "pairs": ("all", "aligned"),
                "colour": tuple(COLOUR),
            },
        )
        if self.clip_length < 2 or self.clip_length % 2 != 0:
            raise ValueError(
                f"clip_length is {self.clip_length}; VFS compares two halves, so an even number of at least 2 frames"
            )
        if self.crop_size < 16:
            raise ValueError(f"crop_size is {self.crop_size}; expected at least 16 pixels")
        if self.interval < 0:
            raise ValueError(f"interval is {self.interval}; expected 0 or more frames")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; expected a number above 0")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum is {self.momentum}; expected a number from 0 to 1")
        for name in ("queue_length", "batch_groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")

    def sampling(self) -> DistantSampling | ContinuousSampling:
        """Which frames of a video make a clip (Table 1)."""
        if self.frames == "distant":
            return DistantSampling(self.clip_length, "loop" if self.short == "loop" else "repeat_last")
        return ContinuousSampling(self.clip_length, self.interval if self.frames == "continuous" else 0)

    def check_batch(self, batch_size: int) -> None:
        """Errors: ValueError for a number of clips that batch normalisation or the queue cannot work with."""
        rows = batch_size * (self.clip_length // 2)
        groups = self.batch_groups if self.negatives else 1
        if rows % groups != 0 or rows // groups < 2:
            parts = f", in {groups} groups" if groups > 1 else ""
            raise ValueError(
                f"frames in a half of the batch: {rows}{parts}; batch normalisation needs at least 2 in each group, "
                "and groups of equal size"
            )
        if self.negatives and self.queue_length % rows != 0:
            raise ValueError(
                f"queue_length is {self.queue_length}; expected a multiple of the {rows} keys of a batch "
                f"({batch_size} clips x {self.clip_length // 2} frames)"
            )


class VFSViews:
    """From a clip to its augmented frames. Picklable; draws everything from the generator."""

    def __init__(self, config: VFSConfig) -> None:
        """`config` decides crops, flips and colour."""
        self.config = config

    def __call__(self, clip: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Every frame by itself.

        Args:
            clip: uint8 (n, 3, H, W), RGB.
            generator: randomness.

        Returns:
            frames: (n, 3, S, S), ImageNet-normalised.
        """
        config = self.config
        frames = clip.float() / 255
        if config.spatial:
            frames = transforms.crop_each(
                frames,
                config.crop_size,
                config.crop_area,
                config.crop_ratio,
                config.flip_probability,
                generator,
            )
        else:
            frames = transforms.squash(frames, config.crop_size)
        frames = COLOUR[config.colour].each(frames, generator)
        return {"frames": transforms.standardise(frames, IMAGENET_MEAN, IMAGENET_STD)}


class VFS(nn.Module):
    """Encoder, head, with negatives also their slow copies and the queue, and the loss."""

    def __init__(self, encoder: ResNet, config: VFSConfig) -> None:
        """`encoder` ends at layer4 in the paper; its map is averaged."""
        super().__init__()
        self.config = config
        self.encoder = encoder
        channels = encoder.out_channels
        hidden = config.projector_hidden or channels
        outputs = config.projector_outputs or (128 if config.negatives else channels)
        self.head: SimSiamHead | ContrastiveHead
        if config.negatives:
            self.head = ContrastiveHead(channels, hidden, outputs)
            self.target_encoder = momentum.slow_copy(encoder)
            self.target_head = momentum.slow_copy(self.head)
            self.queue = momentum.NegativeQueue(outputs, config.queue_length)
        else:
            self.head = SimSiamHead(
                channels, hidden, outputs, config.predictor_hidden or max(1, outputs // 4)
            )

    def begin_step(self) -> None:
        """Before the first forward pass of an optimiser step: with negatives the target encoder follows."""
        if self.config.negatives:
            momentum.momentum_step(self.target_encoder, self.encoder, self.config.momentum)  # Eq. (2)
            momentum.momentum_step(self.target_head, self.head, self.config.momentum)

    def end_step(self) -> None:
        """After its last forward pass: with negatives the keys of all its passes enter the queue."""
        if self.config.negatives:
            self.queue.enqueue_waiting()

    def forward(self, views: dict[str, Tensor], generator: torch.Generator | None = None) -> Losses:
        """Loss of a batch. In training with negatives its keys wait for `end_step`.

        Args:
            views: a batch of `VFSViews`: frames (B, n, 3, S, S).
            generator: randomness of the shuffling with negatives, on the device of the views; None is torch's
                global one.

        Returns: Losses; terms: see `loss_without_negatives` and `loss_with_negatives`; and feature_std: `spread` of the
            embeddings z, or of the queries with negatives.

        Errors: UsageError for a batch that leaves batch normalisation one frame, or does not fit the queue.
        """
        config = self.config
        frames = views["frames"]
        batch, length = frames.shape[:2]
        if self.training:
            try:
                config.check_batch(batch)
            except ValueError as error:
                raise UsageError(f"{error}.") from error
        halves = frames[:, : length // 2], frames[:, length // 2 :]
        first, second = (half.flatten(0, 1) for half in halves)  # (B * n/2, 3, S, S)
        if config.negatives:
            return self._with_negatives(first, second, batch, generator)
        assert isinstance(self.head, SimSiamHead)
        z1, p1 = self.head(self.encoder(first))
        z2, p2 = self.head(self.encoder(second))
        p1, z1, p2, z2 = (rows.float().unflatten(0, (batch, -1)) for rows in (p1, z1, p2, z2))
        with torch.autocast(frames.device.type, enabled=False):
            losses = loss_without_negatives(p1, z1, p2, z2, config)
        losses.terms["feature_std"] = spread(torch.cat([z1, z2]))
        return losses

    def _with_negatives(
        self, first: Tensor, second: Tensor, batch: int, generator: torch.Generator | None
    ) -> Losses:
        """Queries from the second half, keys from the first."""
        config = self.config
        groups = config.batch_groups if self.training else 1
        queries = self.head(momentum.in_groups(self.encoder, second, groups))
        with torch.no_grad():
            maps = momentum.shuffled(self.target_encoder, first, groups, generator)
            keys = self.target_head(maps)
        queries = queries.unflatten(0, (batch, -1))  # (B, n/2, C)
        everybody = momentum.gather_rows(keys.unflatten(0, (batch, -1)))  # (videos of all processes, n/2, C)
        rank, _ = momentum.world()
        bank = self.queue.embeddings.clone()  # the queue itself is overwritten before the backward pass
        with torch.autocast(queries.device.type, enabled=False):
            losses = loss_with_negatives(queries, everybody, bank, config, own=rank * batch)
        if self.training:
            self.queue.wait(keys)
        losses.terms["feature_std"] = spread(queries)
        return losses


def pair_distances(p1: Tensor, z1: Tensor, p2: Tensor, z2: Tensor) -> Tensor:
    """Distances between the frames of two halves, mean of both directions (Eq. 5, departure 2).

    Args:
        p1: (B, T, C), predictions of the first half, not normalised.
        z1: (B, T, C), projections of the first half; no gradient flows back.
        p2: (B, T, C), predictions of the second half.
        z2: (B, T, C), projections of the second half.

    Returns: (B, T, T); [b, i, j] is of frame i of the first half and frame j of the second, 0 to 4.
    """
    ahead = cosine_distance(p1, z2.detach())  # Eq. (5)
    back = cosine_distance(p2, z1.detach()).transpose(-2, -1)
    return (ahead + back) / 2


def loss_without_negatives(p1: Tensor, z1: Tensor, p2: Tensor, z2: Tensor, config: VFSConfig) -> Losses:
    """Loss from projections and predictions on.

    Args:
        p1: (B, T, C); see `pair_distances`.
        z1: (B, T, C).
        p2: (B, T, C).
        z2: (B, T, C).
        config: which pairs.

    Returns: Losses; terms: similarity (cosine of predictions and targets, mean over the pairs, -1 to 1).
    """
    distances = pair_distances(p1, z1, p2, z2)
    if config.pairs == "aligned":
        distances = distances.diagonal(dim1=-2, dim2=-1)
    total = distances.mean()
    return Losses(total, {"similarity": 1 - total.detach() / 2})


def contrast(queries: Tensor, keys: Tensor, queue: Tensor, config: VFSConfig, own: int = 0) -> Tensor:
    """Every query against its positives, one at a time, and its negatives (Eq. 4; departure 5).

    Args:
        queries: (B, T, C), unit vectors.
        keys: (V, T, C), unit vectors, of the B videos of the queries and of any others (of other processes).
        queue: (C, K), unit columns.
        config: temperature, pairs, batch_negatives.
        own: index in `keys` of the first video of `queries`.

    Returns: (B * T, P), row b * T + t; P = T positives with all pairs, 1 with aligned ones.
    """
    (batch, length, _), videos = queries.shape, len(keys)
    scores = affinity(queries.flatten(0, 1), keys.flatten(0, 1))  # (B * T, V * T)
    scores = scores.view(batch, length, videos, length)
    mine = torch.arange(batch, device=queries.device)
    positives = scores[mine, :, own + mine]  # (B, T, T)
    if config.pairs == "aligned":
        positives = positives.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)  # (B, T, 1)
    negatives = queries @ queue  # (B, T, K)
    if config.batch_negatives:
        same = mine[:, None] + own == torch.arange(videos, device=queries.device)  # (B, V)
        same = same[:, None, :, None].expand_as(scores)
        if config.pairs == "aligned":
            same = same & torch.eye(length, dtype=torch.bool, device=queries.device)[:, None, :]
        others = scores.masked_fill(same, -torch.inf).flatten(2)  # (B, T, V * T)
        negatives = torch.cat([negatives, others], -1)
    return contrastive_terms(positives, negatives, config.temperature).flatten(0, 1)  # Eq. (4)


def loss_with_negatives(
    queries: Tensor, keys: Tensor, queue: Tensor, config: VFSConfig, own: int = 0
) -> Losses:
    """Loss from embeddings on: the mean of `contrast`, whose arguments it has.

    Returns: Losses; terms: similarity (cosine of queries and their positives, -1 to 1).
    """
    total = contrast(queries, keys, queue, config, own).mean()
    with torch.no_grad():
        near = affinity(queries, keys[own : own + len(queries)])  # (B, T, T)
        if config.pairs == "aligned":
            near = near.diagonal(dim1=-2, dim2=-1)
    return Losses(total, {"similarity": near.mean()})
