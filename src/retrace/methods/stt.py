"""Spatial-then-Temporal, the temporal step: reconstructing frames in a pyramid, with two distillations of correlation.

"Spatial-then-Temporal Self-Supervised Learning for Video Correspondence" (`papers/spatial_then_temporal.txt`; CVPR
2023). The spatial step, contrastive learning from images, is `methods.moco` or any published checkpoint of that kind;
this file takes its weights as the teacher, and as `init` of the student where the run says so. With one level and no
distillation it is the reconstruction of Colorization, CorrFlow and MAST.

| paper | here | shape |
|---|---|---|
| I_r, I_t | frames[:, 0], frames[:, 1]: reference first, target second | (B, 3, H, W) |
| I^l | a channel of Lab at every stride-th pixel | (B, 1, h, w) |
| phi, phi_t | encoder, teacher | |
| F^l_t, F^l_r | maps[l][:, 1], maps[l][:, 0]; finest level first | (B, C, h, w) |
| N(i), r^l | the square window, radius[l] | |
| c^l (Eq. 4) | volume, a `walk.correlation` volume | (B, h, w, K, K), K = 2 r + 1 |
| c^t | pooled | (B, h, w, K, K) |
| T(c, I_r) (Eq. 5) | correlation.reconstruct | (B, 1, h, w) |
| H(i) (Eq. 8), m | entropy, kept | (B, h, w) |
| a, a^t (Eq. 2) | student, taught | (B, N, N) |
| T, alpha, beta, tau | keep_fraction, alpha, beta, temperature | |

Departures, and what the released code does otherwise (options in brackets):

1. tau is nowhere given. As in the released code, dot products are divided by sqrt(C) [`temperature` multiplies that].
2. Eq. 6-7 leave the reduction of the L1 norm open: here the mean. The paper does not give alpha and beta either; those
   of the released code, 1000 and 50, stand beside a reconstruction of values times 20, so ours is scaled too
   [`value_scale`].
3. The released code enlarges the reconstruction bilinearly to the size of the frame and compares it with all pixels by
   smooth L1 (threshold 1) [`reconstruction="released"`].
4. "r pixels" may be a radius or a width. Here, as released, |dy| and |dx| are at most `radius` cells.
5. Correlation down-sampling takes the mean over 2 x 2 keys and 2 x 2 queries, as released: rows of c^t sum to 1/4,
   those of c to 1. The reference for it, RAFT, pools keys only. c^t has no gradient.
6. Eq. 8 as printed has no c before the logarithm, and the released code follows it, on dot products that are not
   divided by sqrt(C), with positions outside the frame as zeros [`entropy="literal"`]. That score is high for *peaked*
   windows, the opposite of what the text wants and of the default, the entropy itself [`entropy="true"`].
7. The text's threshold T is here the share of the queries that is kept, those with the highest scores of each map
   [`selection="flat"`]. The released code sorts the rows of the map, not the map [`selection="as_released"`].
8. Eq. 9 is divided by the number of kept queries times all keys, and Eq. 3 by all entries, as released.
9. Eq. 2 has one tau. As released, the student has sqrt(C) and the teacher 0.07 on features that are not normalised
   [`teacher_temperature`, `teacher_normalise`].
10. Dropout of channels, as released: always exactly one of a and b, the same for the whole batch (each process of
    several draws its own); what is left is multiplied by 1.5, and only the dropped channel is reconstructed.
11. Lab is OpenCV's, `encoders.colour.rgb_to_lab`. Crops are bilinear without anti-aliasing.
12. Learning without forgetting, the comparison of Table 1b, was not released [`distillation="lwf"`]. Ours: the
    teacher's projection of each frame is the target of the student's, through a head that starts as the teacher's and
    is trained with it; mean squared distance of the unit vectors, times beta.
13. How the stride-4 network was trained was not released. Levels of equal size are distilled without down-sampling.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrace import encoders
from retrace.encoders.colour import LAB_MEAN, LAB_STD, to_input
from retrace.encoders.heads import ContrastiveHead
from retrace.encoders.model import Model
from retrace.encoders.resnet import LAYERS, ResNet
from retrace.encoders.weights import described
from retrace.methods.checks import check_choices
from retrace.methods.losses import Losses
from retrace.methods.rebuilding import draw_channel, drop_channel
from retrace.walk import correlation
from retrace.walk.affinity import affinity, transition
from retrace.walk.nodes import normalise, to_nodes


@dataclass(frozen=True)
class StTConfig:
    """Everything the paper names.

    Attributes:
        crop_size: pixels of a side.
        crop_area: range of the crop's share of the frame's area.
        crop_ratio: range of width / height of the crop, which is then made square.
        flip_probability: of mirroring both frames.
        levels: layers whose maps reconstruct (Eq. 7), finest first; the paper's res3 and res4. One level is Eq. 6.
        radius: r of each level, cells.
        temperature: tau of Eq. 4 and of the student's Eq. 2, in units of sqrt(C); departure 1.
        reconstruction: "paper" (L1 at each level) or "released"; departure 3.
        value_scale: factor on Lab values in the reconstruction; departure 2.
        alpha: weight of the local correlation distillation (Eq. 9); 0 leaves it out.
        entropy: "true" or "literal"; departure 6.
        selection: "flat" or "as_released"; departure 7.
        keep_fraction: T, share of the queries that Eq. 9 keeps; 1 leaves the selection out.
        beta: weight of the distillation from the teacher (Eq. 10); 0 leaves it out, and the teacher is not loaded.
        distillation: "correlation" (Eq. 3) or "lwf"; departure 12.
        teacher: weights of the spatial step: a path, or a name that `retrace weights list` knows.
        teacher_strides: of layer1 ... layer4 of the teacher, with which its map has the grid of the student's.
        teacher_temperature: tau of the teacher's Eq. 2.
        teacher_normalise: whether the teacher's features are L2-normalised first.
        global_layer: layer that the teacher speaks about, of both networks; the paper's res5.
    """

    crop_size: int = 256
    crop_area: tuple[float, float] = (0.6, 1.0)
    crop_ratio: tuple[float, float] = (1.5, 2.0)
    flip_probability: float = 0.5
    levels: tuple[str, ...] = ("layer2", "layer3")
    radius: tuple[int, ...] = (12, 6)
    temperature: float = 1.0
    reconstruction: str = "paper"
    value_scale: float = 20.0
    alpha: float = 1000.0
    entropy: str = "true"
    selection: str = "flat"
    keep_fraction: float = 0.7
    beta: float = 50.0
    distillation: str = "correlation"
    teacher: str | None = None
    teacher_strides: tuple[int, int, int, int] = (1, 2, 2, 2)
    teacher_temperature: float = 0.07
    teacher_normalise: bool = False
    global_layer: str = "layer4"

    def __post_init__(self) -> None:
        """Errors: ValueError naming the field, what it was and what it may be."""
        check_choices(
            self,
            {
                "reconstruction": ("paper", "released"),
                "entropy": ("true", "literal"),
                "selection": ("flat", "as_released"),
                "distillation": ("correlation", "lwf"),
                "global_layer": LAYERS,
            },
        )
        if self.levels not in {(a,) for a in LAYERS} | {(a, b) for a in LAYERS for b in LAYERS if a < b}:
            raise ValueError(
                f"levels is {list(self.levels)}; expected one or two of {', '.join(LAYERS)}, in this order"
            )
        if len(self.radius) != len(self.levels) or min(self.radius) < 1:
            raise ValueError(
                f"radius is {list(self.radius)}; expected a number of at least 1 for each of {list(self.levels)}"
            )
        if self.alpha > 0 and len(self.levels) < 2:
            raise ValueError(
                f"alpha is {self.alpha} with the level {self.levels[0]} alone; "
                "local distillation is from one level to the next: set alpha to 0, or give two levels"
            )
        for name in ("temperature", "value_scale", "teacher_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number above 0")
        for name in ("alpha", "beta"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a weight of 0 or more")
        if not 0 < self.keep_fraction <= 1:
            raise ValueError(f"keep_fraction is {self.keep_fraction}; expected a share above 0, at most 1")
        if self.crop_size < 16:
            raise ValueError(f"crop_size is {self.crop_size}; expected at least 16 pixels")

    @property
    def clip_length(self) -> int:
        """Two frames: reference and target."""
        return 2


class StT(nn.Module):
    """Student, teacher and the loss.

    Attributes:
        encoder: the student, which sees Lab.
        teacher: the encoder of the spatial step, frozen, in eval mode; None where beta is 0.
        head: the student's projector in "lwf"; None otherwise.
        teacher_head: the teacher's, frozen.
    """

    colour = "lab"

    def __init__(self, encoder: ResNet, config: StTConfig) -> None:
        """`encoder` ends at the last layer that is used: `global_layer`, or the last of `levels` where beta is 0.

        Errors: ValueError for an encoder that does not fit the configuration, and for a teacher that is missing,
        untrained, or does not fit; RetraceError for a file that cannot be read.
        """
        super().__init__()
        self.config = config
        self.encoder = encoder
        _check_student(encoder, config)
        self.teacher: nn.Module | None = None
        self.head: ContrastiveHead | None = None
        self.teacher_head: ContrastiveHead | None = None
        if config.beta > 0:
            self._taught_by(_load_teacher(config))

    def _taught_by(self, model: Model) -> None:
        config = self.config
        assert isinstance(model.encoder, ResNet)
        self.teacher = model.encoder.requires_grad_(False)
        self._teacher_input = (model.colour, model.mean, model.std)
        own, taught = self.encoder.stride, model.encoder.stride
        if config.distillation == "correlation" and own != taught:
            raise ValueError(
                f"at {config.global_layer} the teacher's stride is {taught} and the student's {own}, so their "
                "correlations cannot be compared; choose teacher_strides and encoder.strides that agree"
            )
        if config.distillation == "lwf":
            self.head, self.teacher_head = (
                _stage_one_head(model.head, self.encoder.out_channels, str(config.teacher)) for _ in range(2)
            )
            self.teacher_head.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "StT":
        """As of every module, but the teacher stays in eval mode: its statistics are those of the spatial step."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, views: dict[str, Tensor], generator: torch.Generator | None = None) -> Losses:
        """Loss of a batch.

        Args:
            views: a batch of `OneCrop`: frames (B, 2, 3, H, W), H and W multiples of the strides of the levels.
            generator: randomness of the dropped channel, on the device of the views; None is torch's global one.

        Returns: Losses; terms as in `stt_loss`, and global (beta times Eq. 3, or the distance of LwF).
        """
        config = self.config
        frames = views["frames"]
        lab = to_input(frames, self.colour, LAB_MEAN, LAB_STD)
        dropped = draw_channel(lab.device, generator)
        seen = drop_channel(lab, dropped).flatten(0, 1)  # (2B, 3, H, W)
        layers = [*config.levels] + ([config.global_layer] if config.beta > 0 else [])
        wanted = sorted(set(layers))
        found = dict(zip(wanted, self.encoder.pyramid(seen, wanted), strict=True))
        maps = {name: m.unflatten(0, frames.shape[:2]).float() for name, m in found.items()}  # type: ignore[no-untyped-call]
        strides = [self.encoder.stride_after[level] for level in config.levels]
        # A softmax over hundreds of dot products of hundreds of channels: half precision ends at the encoder.
        with torch.autocast(frames.device.type, enabled=False):
            losses = stt_loss([maps[level] for level in config.levels], strides, lab, dropped, config)
        if self.teacher is not None:
            taught = self._teach(frames)
            if self.head is None:
                with torch.autocast(frames.device.type, enabled=False):
                    distance = global_distillation(
                        maps[config.global_layer], taught.float(), config
                    )  # Eq. (3)
            else:
                distance = (self.head(found[config.global_layer]) - taught).square().sum(-1).mean()
            losses.total = losses.total + config.beta * distance  # Eq. (10)
            losses.terms["global"] = config.beta * distance.detach()
        return losses

    @torch.no_grad()
    def _teach(self, frames: Tensor) -> Tensor:
        """What the teacher says: maps (B, 2, C, h, w), or projections (2B, C) where there is a head."""
        assert self.teacher is not None
        maps: Tensor = self.teacher(to_input(frames.flatten(0, 1), *self._teacher_input))
        if self.teacher_head is not None:
            projections: Tensor = self.teacher_head(maps)
            return projections
        return maps.view(*frames.shape[:2], *maps.shape[1:])


def stt_loss(
    maps: Sequence[Tensor], strides: Sequence[int], lab: Tensor, dropped: Tensor, config: StTConfig
) -> Losses:
    """Reconstruction and local distillation (L_t), from maps on (Eq. 4-9).

    Args:
        maps: of each level, finest first: (B, 2, C, h, w), reference and target.
        strides: of each level, pixels.
        lab: (B, 2, 3, H, W), standardised, nothing dropped.
        dropped: int64 (1,), the channel that the encoder did not see.
        config: radius, temperature, distillation.

    Returns: Losses; terms: reconstruction_<level> as it stands in the total, local (alpha times Eq. 9), kept (share of
    the
        queries that Eq. 9 keeps), copy (what the last level's reconstruction would be worth if the reference stood
        there unchanged: below that, something is matched) and feature_std (standard deviation of the last level's
        normalised features over everything but channels, mean over channels: 0 when all nodes look the same).
    """
    reference, target = lab.index_select(2, dropped).unbind(1)  # (B, 1, H, W) each
    volumes, total, terms = [], lab.new_zeros(()), {}
    for level, features, stride, radius in zip(config.levels, maps, strides, config.radius, strict=True):
        temperature = config.temperature * math.sqrt(features.shape[2])
        volume = correlation.pair_correlation(features, radius, temperature)  # Eq. (4)
        small = reference[..., ::stride, ::stride]
        rebuilt = correlation.reconstruct(volume, small)  # Eq. (5)
        loss = reconstruction_loss(rebuilt, target, stride, config)  # Eq. (6)
        total = total + loss  # Eq. (7)
        terms[f"reconstruction_{level}"] = loss.detach()
        volumes.append(volume)
    if config.alpha > 0:
        kept = select(_score(maps[-1], volumes[-1], config), config)
        distance = local_distillation(volumes[-1], pooled_target(volumes), kept)  # Eq. (9)
        total = total + config.alpha * distance
        terms |= {"local": config.alpha * distance.detach(), "kept": kept.mean()}
    with torch.no_grad():
        terms["copy"] = reconstruction_loss(small, target, stride, config)
        terms["feature_std"] = normalise(maps[-1], dim=2).std(dim=(0, 1, 3, 4)).mean()
    return Losses(total, terms)


def reconstruction_loss(rebuilt: Tensor, target: Tensor, stride: int, config: StTConfig) -> Tensor:
    """Distance of a reconstruction from the target frame (Eq. 6), mean over everything.

    Args:
        rebuilt: (B, 1, h, w).
        target: (B, 1, H, W).
        stride: pixels from cell to cell.
        config: which distance, and the scale of values.
    """
    scale = config.value_scale
    if config.reconstruction == "paper":
        return F.l1_loss(scale * rebuilt, scale * target[..., ::stride, ::stride])
    enlarged = F.interpolate(rebuilt, target.shape[-2:], mode="bilinear", align_corners=False)
    return F.smooth_l1_loss(scale * enlarged, scale * target)


@torch.no_grad()
def pooled_target(volumes: Sequence[Tensor]) -> Tensor:
    """c^t: the finer level's volume at the size of the coarser one, without gradient: (B, h, w, K, K)."""
    fine, coarse = volumes
    if fine.shape[1:3] == coarse.shape[1:3]:
        return fine.detach()
    radius = max(coarse.shape[-1] // 2, (fine.shape[-1] // 2 + 1) // 2)
    return correlation.pool_volume(fine.detach(), radius)


def _score(features: Tensor, volume: Tensor, config: StTConfig) -> Tensor:
    """Entropy, or Eq. (8) to the letter, of each query: (B, h, w), without gradient."""
    if config.entropy == "true":
        return true_entropy(volume.detach())
    radius = volume.shape[-1] // 2
    return literal_entropy(correlation.window_scores(features[:, 1], features[:, 0], radius))


def true_entropy(volume: Tensor) -> Tensor:
    """-sum c log c of each window of a volume (B, h, w, K, K): (B, h, w), nats."""
    entropy: Tensor = torch.special.entr(volume).sum((-2, -1))
    return entropy


def literal_entropy(scores: Tensor) -> Tensor:
    """Eq. (8) as printed and as released: -sum log c over the window of raw dot products (B, h, w, K, K): (B, h, w)."""
    return -(scores.flatten(-2).softmax(-1) + 1e-12).log().sum(-1)


def select(score: Tensor, config: StTConfig) -> Tensor:
    """m: 1 for the queries with the highest scores, 0 for the rest.

    "flat" sorts each map; "as_released" sorts each of its rows and takes one row of the result as thresholds of the
    columns.

    Args:
        score: (B, h, w).
        config: selection, and keep_fraction: 1 keeps all.

    Returns: (B, h, w) in the dtype of `score`.
    """
    if config.keep_fraction == 1:
        return torch.ones_like(score)

    def place(count: int) -> int:
        """Of the threshold, which is not kept itself, in a descending order."""
        return max(int(config.keep_fraction * count) - 1, 0)

    if config.selection == "flat":
        ordered = score.flatten(1).sort(dim=1, descending=True).values
        threshold = ordered[:, place(ordered.shape[1]), None, None]  # (B, 1, 1)
    else:
        ordered = score.sort(dim=-1, descending=True).values
        threshold = ordered[:, place(score.shape[1])][:, None]  # (B, 1, w)
    return (score > threshold).to(score.dtype)


def local_distillation(volume: Tensor, pooled: Tensor, kept: Tensor) -> Tensor:
    """Eq. (9): squared error of the kept queries over all keys, divided by kept queries x keys.

    Args:
        volume: c of the coarse level, (B, h, w, K, K).
        pooled: c^t, (B, h, w, K', K'); both windows are zero beyond their radius.
        kept: (B, h, w), 0 or 1.
    """
    margin = (pooled.shape[-1] - volume.shape[-1]) // 2
    volume, pooled = (F.pad(v, (max(m, 0),) * 4) for v, m in ((volume, margin), (pooled, -margin)))
    errors = (volume - pooled).square().sum((-2, -1))  # (B, h, w)
    keys = volume.shape[1] * volume.shape[2]
    return (kept * errors).sum() / (kept.sum().clamp(min=1) * keys)


def global_distillation(student: Tensor, teacher: Tensor, config: StTConfig) -> Tensor:
    """Eq. (3): mean squared error of the student's correlations of all nodes with all nodes.

    Args:
        student: maps (B, 2, C, h, w), reference and target.
        teacher: maps (B, 2, C', h, w), constant.
        config: temperatures.

    Errors: ValueError for grids of different size.
    """
    if student.shape[-2:] != teacher.shape[-2:]:
        raise ValueError(
            f"grids {tuple(student.shape[-2:])} and {tuple(teacher.shape[-2:])}; expected the same"
        )
    own = global_correlation(student, config.temperature * math.sqrt(student.shape[2]))
    return F.mse_loss(own, taught_correlation(teacher, config))


def global_correlation(maps: Tensor, temperature: float) -> Tensor:
    """a: transition of every target node over all reference nodes (Eq. 2): maps (B, 2, C, h, w) -> (B, N, N)."""
    reference, target = to_nodes(maps).unbind(1)  # (B, N, C) each
    return transition(affinity(target, reference), temperature)


def taught_correlation(maps: Tensor, config: StTConfig) -> Tensor:
    """a^t: the same of the teacher's maps (B, 2, C, h, w), at the teacher's temperature: (B, N, N)."""
    return global_correlation(
        normalise(maps, dim=2) if config.teacher_normalise else maps, config.teacher_temperature
    )


def released(config: StTConfig) -> StTConfig:
    """The same configuration, every departure decided as in the released code."""
    return replace(
        config,
        temperature=1.0,
        reconstruction="released",
        value_scale=20.0,
        entropy="literal",
        selection="as_released",
        teacher_temperature=0.07,
        teacher_normalise=False,
    )


def _check_student(encoder: ResNet, config: StTConfig) -> None:
    """Errors: ValueError when the encoder lacks a layer, has layers that nothing trains, or strides that do not fit."""
    last = max(*config.levels, config.global_layer) if config.beta > 0 else config.levels[-1]
    if encoder.cut != last or encoder.reduction is not None:
        whole = encoder.cut + ("" if encoder.reduction is None else " and a reduction")
        raise ValueError(
            f"the encoder ends with {whole}, the last layer that the losses look at is {last}; "
            f"set encoder.cut to {last} and encoder.reduction to 0, or change levels, global_layer or beta"
        )
    strides = [encoder.stride_after[level] for level in config.levels]
    if len(strides) == 2 and strides[1] not in (strides[0], 2 * strides[0]) and config.alpha > 0:
        raise ValueError(
            f"the levels have strides {strides[0]} and {strides[1]}; local distillation needs equal ones, "
            "or the second twice the first: change encoder.strides, or set alpha to 0"
        )
    if config.crop_size % strides[-1]:
        raise ValueError(
            f"crop_size is {config.crop_size}; expected a multiple of the last level's stride, {strides[-1]}"
        )


def _load_teacher(config: StTConfig) -> Model:
    """The teacher, up to `global_layer`, with its own strides."""
    way_out = "or set beta to 0 to train without"
    if config.teacher is None:
        raise ValueError(
            f"beta is {config.beta} and there is no teacher; give weights of the spatial step with --stt.teacher, "
            f"{way_out}"
        )
    if config.teacher.startswith("random:"):
        raise ValueError(
            f"the teacher {config.teacher!r} is untrained and has nothing to pass on; give weights of the spatial step "
            f"with --stt.teacher, {way_out}"
        )
    found = encoders.load(config.teacher)
    if not isinstance(found.encoder, ResNet):
        raise ValueError(
            f"the teacher {config.teacher!r} is no ResNet; give weights of the spatial step, {way_out}"
        )
    wanted = described(found.card, config.teacher, cut=config.global_layer)
    model = encoders.load(config.teacher, config=replace(wanted, strides=config.teacher_strides))
    return replace(model, head=found.head)


def _stage_one_head(tensors: Mapping[str, Tensor], inputs: int, teacher: str) -> ContrastiveHead:
    """The contrastive head that the teacher was trained with.

    Errors: ValueError when the file has none, or one for another width.
    """
    try:
        *first, last = (tensors[key] for key in sorted(tensors) if key.endswith(".weight"))
        head = ContrastiveHead(inputs, first[0].shape[0] if first else None, last.shape[0])
        head.load_state_dict(dict(tensors))
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"the teacher {teacher!r} has no contrastive head for {inputs} channels, which 'lwf' distils; give a "
            "checkpoint of the spatial step that `retrace train` wrote, for the student's architecture, or set "
            "distillation to correlation"
        ) from error
    return head
