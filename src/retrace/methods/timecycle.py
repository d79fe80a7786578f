"""TimeCycle: learning correspondence by tracking a patch back and forth in time.

Wang, Jabri, Efros: "Learning Correspondence from the Cycle-consistency of Time", CVPR 2019 (`papers/timecycle.txt`).

| paper | here | shape |
|---|---|---|
| I_{t-k} ... I_{t-1}, I_t | past, target | (B, k, 3, S, S), (B, 3, S, S) |
| p_t | patch | (B, 3, s, s), s = S / 3 |
| x^I | maps, nodes (L2-normalised) | (B, C, H, W), (B, N, C) |
| x^p | crop; normalised: query | (B, Q, C, h, w) |
| A = f(x^I, x^p) (Eq. 1) | walk, its transpose: row i says where cell i of the patch goes | (B Q, n, N) |
| g(A) | localizer(...) | (B Q, 3) |
| theta | theta | (B, Q, 2, 3) |
| h(x^I, theta) | read(...) | (B, Q, C, h, w) |
| T^(-i), T^(i) | tracks.back, tracks.forward | |
| l_theta | warp.alignment_error | (B,) |
| L_long, L_skip, L_sim | long, skip, similarity | |

Frames are counted from 0: the past frames are 0 .. k-1, the paper's I_{t-i} is past frame k - i.

Departures, and what the released code does otherwise (options in brackets). The published numbers come from the
released code, so its losses are the defaults; `paper(config)` turns to the text.

1. The paper's Eq. 1 has no temperature; the released code divides by 512**-0.5, whatever C [`temperature=1.0`].
2. L_sim: the paper has the negative inner product of patch and direct match, the released code the soft inlier score
   that the paper mentions [`similarity="inner_product"`].
3. The paper sums over the k cycles with weights 1, 0.1, 0.1; the released code averages over them and has 1, 0.1, 0.02
   [`reduction="sum"`, `similarity_weight`, `skip_weight`, `long_weight`].
4. The released code multiplies translations by 227/210 when it samples under Python 3, and by 1 under Python 2, which
   its authors ran: 227 // 210 [`translation_factor`]. l_theta is without it in both.
5. Its localizer counts image nodes column by column, ours row by row: a permutation of its input channels.
6. Its patch is mirrored to the wrong place when the frame is flipped; ours lies where motion is.
7. Where a video is short, its past frames crowd together (steps of span / 16, with the target at the end of the span);
   ours shrink all distances alike [`video.sampling.OffsetSampling`].
8. A theta made for pixels is applied to maps as it is, as in the released code: the last node is not on the last pixel.
9. A cycle of length 1 is the skip cycle over the last past frame, and the direct match in that frame is the first step
   of every longer one: each is computed once. Cycles of different lengths share a pass through g, frame by frame.
10. Not in the paper: `self_weight` adds the cycle of length 0, from the patch straight into its own target frame. It
   teaches g what positions are from the first step on (docs/methods/timecycle.md).
11. Ours alone: ResNet-18 (its numbers are in the paper, its code was never released); a frame is cropped and resized in
    one bilinear reading without anti-aliasing; `localizer_kernel`, for maps smaller than the paper's.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrace.encoders.heads import Localizer
from retrace.encoders.model import IMAGENET_MEAN, IMAGENET_STD
from retrace.encoders.resnet import ResNet
from retrace.methods.checks import check_choices
from retrace.methods.losses import Losses
from retrace.video import transforms
from retrace.video.sampling import OffsetSampling
from retrace.walk import warp
from retrace.walk.affinity import affinity, transition
from retrace.walk.nodes import normalise, to_map, to_nodes

SCALE = 1 / 3  # of a patch: its side as a share of the frame's, fixed in paper and released code
_CELLS = 9  # the frame's side in cells of motion; a patch covers 3 x 3 of them, which leaves 7 x 7 places
_PLACES = _CELLS - 2
_HOME = 1 / 6  # a cycle is home when its centre is this near to the patch's: a quarter of the patch's side


@dataclass(frozen=True)
class TimeCycleConfig:
    """Everything that the paper and the released code name.

    Attributes:
        num_past: k, past frames.
        past_stride: from one past frame to the next, in frames of the recipe's rate (12 per second).
        target_gap: from the last past frame to the target frame.
        motion_gap: from the target frame to the frame that it is compared with to see what moves.
        crop_size: S, pixels; patches have a third of it.
        short_side: size of the frame's short side that crop_size is meant for, pixels.
        flip_probability: of mirroring the clip.
        patch_choice: "motion" takes one of the most moving places, "uniform" any place.
        moving_places: how many of the 49 places count as the most moving.
        patch_jitter: largest shift of a place, as a share of the way from the first to the last place.
        max_rotation: of the patch, degrees.
        temperature: that affinities are divided by; departure 1.
        similarity: "soft_inliers" or "inner_product"; departure 2.
        reduction: over the cycles, "mean" (released) or "sum" (paper).
        similarity_weight: of L_sim.
        skip_weight: of L_skip.
        long_weight: of L_long.
        self_weight: of the patch found in its own frame; departure 10. 0 is the paper.
        cycle_lengths: lengths of the cycles of L_long, each 1 to k; None takes all.
        translation_factor: on translations when features are sampled; departure 4.
        alignment_points: points on a side of the grid of l_theta.
        localizer_channels: of the two convolutions of g.
        localizer_kernel: their side, nodes.
    """

    num_past: int = 4
    past_stride: int = 2
    target_gap: int = 9
    motion_gap: int = 2
    crop_size: int = 240
    short_side: int = 256
    flip_probability: float = 0.5
    patch_choice: str = "motion"
    moving_places: int = 10
    patch_jitter: float = 1 / 12
    max_rotation: float = 45.0
    temperature: float = 512**-0.5
    similarity: str = "soft_inliers"
    reduction: str = "mean"
    similarity_weight: float = 1.0
    skip_weight: float = 0.1
    long_weight: float = 0.02
    self_weight: float = 0.0
    cycle_lengths: tuple[int, ...] | None = None
    translation_factor: float = 1.0
    alignment_points: int = 20
    localizer_channels: tuple[int, int] = (128, 64)
    localizer_kernel: int = 4

    def __post_init__(self) -> None:
        """Errors: ValueError naming the field, what it was and what it may be."""
        check_choices(
            self,
            {
                "patch_choice": ("motion", "uniform"),
                "similarity": ("soft_inliers", "inner_product"),
                "reduction": ("mean", "sum"),
            },
        )
        for name in ("num_past", "past_stride", "target_gap", "motion_gap", "localizer_kernel"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.crop_size < 24 or self.crop_size % 3:
            raise ValueError(f"crop_size is {self.crop_size}; expected a multiple of 3, at least 24 pixels")
        if self.short_side < self.crop_size:
            raise ValueError(
                f"short_side is {self.short_side}; expected at least crop_size, {self.crop_size}"
            )
        if not 1 <= self.moving_places <= _PLACES**2:
            raise ValueError(f"moving_places is {self.moving_places}; expected 1 to {_PLACES**2}")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; expected a number above 0")
        if self.alignment_points < 2:
            raise ValueError(f"alignment_points is {self.alignment_points}; expected at least 2")
        for name in ("similarity_weight", "skip_weight", "long_weight", "self_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")
        lengths = self.lengths
        if not lengths or not all(1 <= length <= self.num_past for length in lengths):
            raise ValueError(
                f"cycle_lengths is {self.cycle_lengths}; expected lengths from 1 to num_past, {self.num_past}"
            )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of the cycles of L_long, ascending."""
        if self.cycle_lengths is None:
            return tuple(range(1, self.num_past + 1))
        return tuple(sorted(set(self.cycle_lengths)))

    @property
    def patch_size(self) -> int:
        """Side of a patch, s, pixels."""
        return self.crop_size // 3

    @property
    def clip_length(self) -> int:
        """Frames of a clip: the past ones, the target, and one more where motion chooses the patch."""
        return self.num_past + (2 if self.patch_choice == "motion" else 1)

    def sampling(self) -> OffsetSampling:
        """Past frames from a random start on, the target frame after the gap, and the frame that shows what moves."""
        past = [index * self.past_stride for index in range(self.num_past)]
        target = past[-1] + self.target_gap
        beyond = (self.motion_gap,) if self.patch_choice == "motion" else ()
        return OffsetSampling((*past, target), beyond=beyond)


class TimeCycleViews:
    """From a clip to past frames, target frame and patch. Picklable; draws everything from the generator."""

    def __init__(self, config: TimeCycleConfig) -> None:
        """`config` decides crop, flip and how the patch is chosen."""
        self.config = config

    def __call__(self, clip: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """One crop for all frames, and a turned patch of the target frame.

        Args:
            clip: uint8 (T, 3, H, W), RGB: the k past frames, the target frame, and where motion chooses the patch one
                more.
            generator: randomness.

        Returns:
            past: (k, 3, S, S), ImageNet-normalised, in the order of time.
            target: (3, S, S).
            patch: (3, s, s), 0 (the mean colour) where it hangs over the frame.
            theta: (2, 3), where the patch was read in the target frame.
        """
        config, size = self.config, self.config.patch_size
        frames = transforms.standardise(clip.float() / 255, IMAGENET_MEAN, IMAGENET_STD)
        frames = transforms.crop(frames, self._crop_matrix(frames, generator), config.crop_size)
        target = frames[config.num_past]
        theta = self._place_patch(frames, generator)
        patch = warp.read(target[None], theta[None], (size, size))[0]
        return {"past": frames[: config.num_past], "target": target, "patch": patch, "theta": theta}

    def _crop_matrix(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """One crop and flip for all frames: (3, 3), frame -> crop."""
        config = self.config
        height, width = frames.shape[-2:]
        side = round(min(height, width) * config.crop_size / config.short_side)
        x0 = int(torch.randint(0, width - side + 1, (), generator=generator))
        y0 = int(torch.randint(0, height - side + 1, (), generator=generator))
        flip = torch.rand((), generator=generator) < config.flip_probability
        return warp.crop_matrix(torch.tensor([x0, y0, side, side]), flip, height, width)

    def _place_patch(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Where the patch is read in the target frame: (2, 3)."""
        config = self.config
        if config.patch_choice == "uniform":
            place = torch.rand(2, generator=generator)  # x, y; 0 is the first place, 1 the last
        else:
            scores = motion_scores(frames[config.num_past], frames[config.num_past + 1])
            best = scores.flatten().topk(config.moving_places).indices
            chosen = int(best[torch.randint(0, len(best), (), generator=generator)])
            place = torch.tensor([chosen % _PLACES, chosen // _PLACES]) / (_PLACES - 1)
            shift = transforms.uniform(-config.patch_jitter, config.patch_jitter, generator, (2,))
            place = (place + shift).clamp(0, 1)
        angle = math.radians(config.max_rotation) * transforms.uniform(-1, 1, generator, (1,))
        return warp.placement(torch.cat([(2 * place - 1) * (1 - SCALE), angle]), SCALE)


def motion_scores(target: Tensor, later: Tensor) -> Tensor:
    """How much moves in each of the 7 x 7 places that a patch may have.

    Args:
        target: (3, S, S), S at least 9.
        later: (3, S, S), a frame soon after it.

    Returns: (7, 7) mean absolute difference of the frames; row y, column x.
    """
    cell = target.shape[-1] // _CELLS
    difference = (target - later).abs().sum(0, keepdim=True)  # (1, S, S)
    scores = F.avg_pool2d(difference[..., : _CELLS * cell, : _CELLS * cell], 3 * cell, stride=cell)
    return scores[0]  # (7, 7)


@dataclass(frozen=True)
class Tracks:
    """Where the patch was found; matrices that say where to read it.

    Attributes:
        direct: (B, k, 2, 3), in each past frame, by the patch itself.
        skip: (B, k, 2, 3), in the target frame, by what was found directly in each past frame.
        back: (B, c, 2, 3), in past frames k-1, k-2, ..., k-c, each by what was found in the one before; c is the
            longest cycle's length.
        forward: length -> (B, length, 2, 3), of the cycle of that length on its way forward in past frames
            k - length + 1, ..., k-1 and the target frame.
        walk: (B, k, n, N), transitions of the direct matches (Eq. 1, transposed).
        crops: (B, k, C, h, w), features of the direct matches, not normalised.
        own: (B, 2, 3), in the target frame, by the patch itself.
    """

    direct: Tensor
    skip: Tensor
    back: Tensor
    forward: dict[int, Tensor]
    walk: Tensor
    crops: Tensor
    own: Tensor


class TimeCycle(nn.Module):
    """Encoder, localizer and the losses."""

    def __init__(self, encoder: ResNet, config: TimeCycleConfig) -> None:
        """`encoder` ends at layer3 with stride 1 and a reduction to 512 channels in the paper; `head` is g.

        Errors: ValueError for an encoder whose map of a patch is too small for the localizer.
        """
        super().__init__()
        self.config = config
        self.encoder = encoder
        image, patch = (_map_size(encoder, side) for side in (config.crop_size, config.patch_size))
        self.head = Localizer(image[0] * image[1], patch, config.localizer_channels, config.localizer_kernel)

    def forward(self, views: dict[str, Tensor], generator: torch.Generator | None = None) -> Losses:
        """Loss of a batch.

        Args:
            views: a batch of `TimeCycleViews`: past (B, k, 3, S, S), target (B, 3, S, S), patch (B, 3, s, s),
                theta (B, 2, 3).
            generator: not used: nothing is drawn here.

        Returns: Losses; terms as in `timecycle_loss`, and feature_std (standard deviation of the normalised features of
            the frames over everything but channels, mean over channels: 0 when all nodes look the same).
        """
        past = self.encoder(views["past"].flatten(0, 1)).float()
        past = past.reshape(*views["past"].shape[:2], *past.shape[1:])  # (B, k, C, H, W)
        target = self.encoder(views["target"]).float()
        patch = self.encoder(views["patch"]).float()
        with torch.autocast(past.device.type, enabled=False):
            losses = timecycle_loss(past, target, patch, views["theta"], self.head, self.config)
        with torch.no_grad():
            losses.terms["feature_std"] = normalise(past, dim=2).std(dim=(0, 1, 3, 4)).mean()
        return losses


def _map_size(encoder: ResNet, side: int) -> tuple[int, int]:
    """Size (h, w) of the map of a square picture."""
    training = encoder.training
    with torch.no_grad():
        feature_map = encoder.eval()(next(encoder.parameters()).new_zeros(1, 3, side, side))
    encoder.train(training)
    return feature_map.shape[-2], feature_map.shape[-1]


def timecycle_loss(
    past: Tensor,
    target: Tensor,
    patch: Tensor,
    theta: Tensor,
    localizer: nn.Module,
    config: TimeCycleConfig,
) -> Losses:
    """The loss from feature maps on (section 3.1.2).

    Args:
        past: (B, k, C, H, W), 0 or more, not normalised, in the order of time.
        target: (B, C, H, W).
        patch: (B, C, h, w).
        theta: (B, 2, 3), where the patch was read in the target frame.
        localizer: g; affinities (B, H W, h, w) -> (B, 3).
        config: temperature, cycles, similarity, weights.

    Returns: Losses; terms: long, skip, similarity (each before its weight) and accuracy, the share of cycles of L_long
        whose centre comes back to within a quarter of the patch's side.
    """
    tracks = track(past, target, patch, localizer, config)
    ends = torch.stack([thetas[:, -1] for thetas in tracks.forward.values()], dim=1)  # (B, cycles, 2, 3)
    long = warp.alignment_error(ends, theta[:, None], config.alignment_points)  # L_long by l_theta
    skip = warp.alignment_error(tracks.skip, theta[:, None], config.alignment_points)  # L_skip, (B, k)
    similarity = _similarity(tracks, patch, (past.shape[-2], past.shape[-1]), config)  # L_sim, (B, k)
    over_cycles = torch.sum if config.reduction == "sum" else torch.mean
    terms = {
        name: over_cycles(term.mean(0))
        for name, term in (("long", long), ("skip", skip), ("similarity", similarity))
    }
    total = (
        config.similarity_weight * terms["similarity"]
        + config.skip_weight * terms["skip"]
        + config.long_weight * terms["long"]
    )  # L, the last formula of section 3.1.2
    if config.self_weight > 0:
        terms["self"] = warp.alignment_error(tracks.own, theta, config.alignment_points).mean()
        total = total + config.self_weight * terms["self"]
    terms = {name: term.detach() for name, term in terms.items()}
    with torch.no_grad():
        distance = (ends - theta[:, None])[..., 2].norm(dim=-1)  # (B, cycles), between the centres
        terms["accuracy"] = (distance < _HOME).to(distance.dtype).mean()
    return Losses(total, terms)


def track(
    past: Tensor, target: Tensor, patch: Tensor, localizer: nn.Module, config: TimeCycleConfig
) -> Tracks:
    """Track the patch along all cycles (section 3.1.1), every step that cycles share done once.

    Args:
        past: (B, k, C, H, W), not normalised.
        target: (B, C, H, W).
        patch: (B, C, h, w).
        localizer: g.
        config: temperature, translation_factor and cycle lengths.
    """
    batch, count = past.shape[:2]
    size = (patch.shape[-2], patch.shape[-1])
    past_nodes = to_nodes(normalise(past, dim=2))  # (B, k, N, C)
    query = normalise(patch, dim=1)[:, None]  # (B, 1, C, h, w)

    def read(maps: Tensor, theta: Tensor) -> Tensor:  # h(x^I, theta)
        return warp.read_many(maps, _sampled(theta, config), size)  # (B, Q, C, h, w)

    def locate(nodes: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        return _locate(nodes, queries, localizer, config.temperature)

    # Straight into every past frame.
    theta, walk = locate(past_nodes.flatten(0, 1), query.repeat_interleave(count, dim=0))
    crops = read(past.flatten(0, 1), theta).reshape(batch, count, *patch.shape[1:])
    direct = theta.reshape(batch, count, 2, 3)
    found = normalise(crops, dim=2)  # (B, k, C, h, w), queries from the direct matches

    # Backwards, T^(-i). The first step is the direct match in the last past frame.
    longest = max(config.lengths)
    back, queries = [direct[:, -1]], [found[:, -1:]]
    for frame in range(count - 2, count - 1 - longest, -1):
        theta, _ = locate(past_nodes[:, frame], queries[-1])
        back.append(theta[:, 0])
        queries.append(normalise(read(past[:, frame], theta), dim=2))

    # Forwards, T^(i). At each frame the cycle that starts there joins those under way, the longest first.
    paths: dict[int, list[Tensor]] = {length: [] for length in config.lengths}
    under_way: list[int] = []
    moving = found[:, :0]  # (B, cycles under way, C, h, w)
    for frame in range(count - longest + 1, count):
        joining = count - frame + 1
        if joining in paths:
            under_way.append(joining)
            moving = torch.cat([moving, queries[joining - 1]], dim=1)
        theta, _ = locate(past_nodes[:, frame], moving)
        for place, length in enumerate(under_way):
            paths[length].append(theta[:, place])
        moving = normalise(read(past[:, frame], theta), dim=2)

    # Into the target frame: the cycles, the skip cycles over every past frame, and the patch itself.
    theta, _ = locate(to_nodes(normalise(target, dim=1)), torch.cat([moving, found, query], dim=1))
    for place, length in enumerate(under_way):
        paths[length].append(theta[:, place])
    skip = theta[:, len(under_way) : -1]
    if 1 in paths:
        paths[1].append(skip[:, -1])
    forward = {length: torch.stack(path, dim=1) for length, path in paths.items()}
    walk = walk.reshape(batch, count, *walk.shape[1:])
    return Tracks(direct, skip, torch.stack(back, dim=1), forward, walk, crops, theta[:, -1])


def _locate(
    nodes: Tensor, queries: Tensor, localizer: nn.Module, temperature: float
) -> tuple[Tensor, Tensor]:
    """Find patches in an image: theta = g(f(x^I, x^p)).

    Args:
        nodes: (B, N, C) of the image, normalised.
        queries: (B, Q, C, h, w), normalised.
        localizer: g.
        temperature: of the affinity.

    Returns: theta (B, Q, 2, 3), and the transitions (B Q, h w, N).
    """
    batch, count = queries.shape[:2]
    cells = to_nodes(queries).flatten(1, 2)  # (B, Q n, C)
    walk = transition(affinity(cells, nodes), temperature)  # Eq. (1): A(j, i) is row i, column j
    walk = walk.reshape(batch * count, -1, nodes.shape[1])  # (B Q, n, N)
    parameters = localizer(to_map(walk, *queries.shape[-2:]))  # g(A), (B Q, 3)
    return warp.placement(parameters, SCALE).reshape(batch, count, 2, 3), walk


def _sampled(theta: Tensor, config: TimeCycleConfig) -> Tensor:
    """Theta as features are sampled with it: translations times `translation_factor` (departure 4)."""
    return theta * theta.new_tensor([1.0, 1.0, config.translation_factor])


def _similarity(tracks: Tracks, patch: Tensor, source: tuple[int, int], config: TimeCycleConfig) -> Tensor:
    """L_sim of every direct match, (B, k): smaller is more alike."""
    batch, count = tracks.direct.shape[:2]
    if config.similarity == "inner_product":
        alike = normalise(tracks.crops, dim=2) * normalise(patch, dim=1)[:, None]
        return -alike.sum((-3, -2, -1))
    theta = _sampled(tracks.direct, config).flatten(0, 1)
    scores = warp.soft_inliers(tracks.walk.flatten(0, 1), theta, source, (patch.shape[-2], patch.shape[-1]))
    return -scores.reshape(batch, count)


def paper(config: TimeCycleConfig) -> TimeCycleConfig:
    """The same configuration with the losses as the paper's text has them (departures 1 to 3)."""
    return replace(
        config,
        temperature=1.0,
        similarity="inner_product",
        reduction="sum",
        similarity_weight=1.0,
        skip_weight=0.1,
        long_weight=0.1,
    )
