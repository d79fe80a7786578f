"""SiamFC on frozen features: a box is found again in every frame by sliding its first look over where it was.

Bertinetto et al., "Fully-Convolutional Siamese Networks for Object Tracking", ECCV workshops 2016, as Xu and Wang judge
features with it: "Rethinking Self-Supervised Correspondence Learning: A Video Frame-Level Similarity Perspective"
(VFS), ICCV 2021, section 4.2 and Table 8 (`papers/vfs.txt`).

| paper, code | here | shape |
|---|---|---|
| z | exemplar: features of the labelled frame's crop, never changed | (C, a, b) |
| x | search: features of the crops of n scales of a frame | (n, C, h, w) |
| response | responses | (n, r, r) |
| target size, z_sz, x_sz | State.width and height, side, search_side | pixels |

The steps are pure: `start` makes the state of a box, `exemplar_crop` and `search_crops` cut, `respond` correlates,
`update` moves and scales the state. `Tracker` strings them together for the frames of a video.

Departures:

1. The papers' codes count boxes from pixel (1, 1) and positions from the centre of the first pixel. Here a box is the
   x, y, w, h of its edges, and the centre of the first pixel is (0.5, 0.5). The numbers are the same but for that.
2. Ours alone, off in the published settings: `centred`, `normalise`, `target_only`. Three quarters of an exemplar are
   background, and features of a shallow layer follow that. `response_size=None` takes the size that a response really
   has, while VFS resizes 18 cells as if they were 17.
3. Ours alone: the confidence. It does not act on the tracking.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from retrace.encoders.heads import SiamFCHead
from retrace.encoders.model import Model
from retrace.walk.nodes import normalise
from retrace.walk.siamese import Rounding, context_side, correlate, mean_colour, square_crop


@dataclass(frozen=True)
class SiamFCConfig:
    """Settings of the tracker; the defaults are VFS's for ResNet-18 (protocols.md section 3).

    Attributes:
        exemplar_size: the target with its surroundings is resized to so many pixels.
        search_size: pixels of a search crop, which shows the same scale.
        context: share of width + height that surrounds the target on each axis.
        num_scales: search crops per frame, an odd number.
        scale_step: factor from one scale to the next.
        scale_rate: share of the way that the size goes to the best scale.
        scale_penalty: factor on the responses of scales other than the present one.
        window_influence: share of the Hanning window in the final score.
        response_size: cells that `response_up` counts from, whatever size the response has; None is its own size.
        response_up: pixels of the resized response per cell.
        stride: pixels of the search crop from cell to cell.
        out_scale: factor on responses.
        rounding: how a square becomes pixels, "vfs" or "upstream" (`walk.siamese.square_crop`).
        centred: take the mean feature of the labelled frame's search crop off all features.
        normalise: compare directions only: each node has length 1.
        target_only: of the exemplar's cells only those on the target count; the others give context to the encoder.
    """

    exemplar_size: int = 120
    search_size: int = 255
    context: float = 0.5
    num_scales: int = 3
    scale_step: float = 1.0375
    scale_rate: float = 0.59
    scale_penalty: float = 0.9745
    window_influence: float = 0.176
    response_size: int | None = 17
    response_up: int = 16
    stride: int = 8
    out_scale: float = 1e-3
    rounding: Rounding = "vfs"
    centred: bool = False
    normalise: bool = False
    target_only: bool = False

    def __post_init__(self) -> None:
        """Errors: ValueError naming the field, what it was and what it may be."""
        if self.num_scales < 1 or self.num_scales % 2 == 0:
            raise ValueError(f"num_scales is {self.num_scales}; expected an odd number from 1 on")
        if not 16 <= self.exemplar_size <= self.search_size:
            raise ValueError(
                f"exemplar_size is {self.exemplar_size}, search_size {self.search_size}; expected at least 16 pixels, "
                "and the search no smaller than the exemplar"
            )
        if not 0 <= self.window_influence <= 1:
            raise ValueError(f"window_influence is {self.window_influence}; expected a share from 0 to 1")
        if not 0 <= self.scale_rate <= 1:
            raise ValueError(f"scale_rate is {self.scale_rate}; expected a share from 0 to 1")
        if not self.scale_step > 0:
            raise ValueError(f"scale_step is {self.scale_step}; expected a factor above 0")
        if not self.scale_penalty >= 0:
            raise ValueError(f"scale_penalty is {self.scale_penalty}; expected a factor from 0 on")

    @property
    def scales(self) -> tuple[float, ...]:
        """Factors on the side of the search crop, smallest first."""
        half = self.num_scales // 2
        return tuple(self.scale_step**k for k in range(-half, half + 1))


@dataclass(frozen=True)
class State:
    """What is carried from frame to frame. Pixels, the centre of the first pixel at (0.5, 0.5).

    Attributes:
        x: of the target's centre.
        y: likewise.
        width: of the target.
        height: likewise.
        side: of the exemplar's square; it and the search's grow and shrink with the target.
    """

    x: float
    y: float
    width: float
    height: float
    side: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x, y, w, h: left and top edge, width and height in pixels; not cut at the frame."""
        return self.x - self.width / 2, self.y - self.height / 2, self.width, self.height

    def search_side(self, config: SiamFCConfig) -> float:
        """Side of the search's square at the present scale, pixels."""
        return self.side * config.search_size / config.exemplar_size


@dataclass(frozen=True)
class Peak:
    """Where a response is best: `scale` (position in `SiamFCConfig.scales`), row and column once resized."""

    scale: int
    row: int
    column: int


def start(box: Sequence[float], config: SiamFCConfig) -> State:
    """The state of a target whose box x, y, w, h (pixels, edges) is known."""
    x, y, width, height = (float(v) for v in box)
    return State(x + width / 2, y + height / 2, width, height, context_side(width, height, config.context))


def exemplar_crop(image: Tensor, state: State, config: SiamFCConfig) -> Tensor:
    """The target with its surroundings, (3, exemplar_size, exemplar_size), from an image (3, H, W)."""
    return square_crop(image, (state.x, state.y), state.side, config.exemplar_size, rounding=config.rounding)


def search_crops(image: Tensor, state: State, config: SiamFCConfig) -> Tensor:
    """Where the target is looked for, (num_scales, 3, search_size, search_size), from an image (3, H, W)."""
    fill = mean_colour(image)
    side = state.search_side(config)
    return torch.stack(
        [
            square_crop(
                image,
                (state.x, state.y),
                side * factor,
                config.search_size,
                rounding=config.rounding,
                fill=fill,
            )
            for factor in config.scales
        ]
    )


def on_target(state: State, config: SiamFCConfig, a: int, b: int) -> Tensor:
    """Which of an exemplar's a x b cells lie on the target: (a, b) float32, 1 or 0; at least one cell does.

    Cell (i, j) is taken to sit on pixel (i * stride, j * stride) of the crop, as the encoders' padding has it.
    """
    middle = (config.exemplar_size - 1) / 2
    per_pixel = config.exemplar_size / state.side
    axes = []
    for cells, length in ((a, state.height), (b, state.width)):
        distance = (torch.arange(cells) * config.stride - middle).abs()
        axes.append(distance <= max(length * per_pixel / 2, float(distance.min())))
    return (axes[0][:, None] & axes[1]).float()


def respond(
    exemplar: Tensor,
    search: Tensor,
    config: SiamFCConfig,
    *,
    head: SiamFCHead | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Responses of searches to their exemplars.

    Args:
        exemplar: (B, C, a, b) features.
        search: (B, n, C, h, w) features.
        config: for `out_scale` and `normalise`.
        head: 1x1 convolutions on both, before the correlation.
        weight: (a, b) factors on the exemplar's cells, from `on_target`; None is 1 everywhere.

    Returns: (B, n, h - a + 1, w - b + 1).
    """
    if head is not None:
        exemplar, search = head(exemplar, search)
    if config.normalise:
        exemplar, search = normalise(exemplar, dim=-3), normalise(search, dim=-3)
    if weight is not None:
        exemplar = exemplar * weight
    return correlate(exemplar, search) * config.out_scale


def resized(responses: Tensor, config: SiamFCConfig) -> Tensor:
    """Responses (n, r, r) at response_size * response_up pixels, bicubic (OpenCV's: a = -0.75, half-pixel centres)."""
    size = (config.response_size or responses.shape[-1]) * config.response_up
    return F.interpolate(responses[None], size=(size, size), mode="bicubic", align_corners=False)[0]


def update(state: State, responses: Tensor, config: SiamFCConfig) -> tuple[State, Peak]:
    """Move and scale the target to where the responses are best.

    Args:
        state: of the frame before.
        responses: (num_scales, r, r).
        config: of the tracker.

    Returns: the new state, and the peak that decided it.
    """
    maps = resized(responses.float(), config)  # (n, s, s)
    half = config.num_scales // 2
    penalty = [1.0 if k == half else config.scale_penalty for k in range(config.num_scales)]
    maps = maps * maps.new_tensor(penalty)[:, None, None]
    best = int(maps.flatten(1).amax(1).argmax())
    score = maps[best].double()
    score = score - score.min()
    score = score / (score.sum() + 1e-16)
    size = score.shape[-1]
    hann = torch.hann_window(size, periodic=False, dtype=torch.float64, device=score.device)
    window = hann[:, None] * hann
    score = (1 - config.window_influence) * score + config.window_influence * window / window.sum()
    row, column = divmod(int(score.argmax()), size)

    factor = config.scales[best]
    pixels = config.stride / config.response_up * state.search_side(config) * factor / config.search_size
    middle = (size - 1) / 2
    growth = 1 - config.scale_rate + config.scale_rate * factor
    moved = State(
        state.x + (column - middle) * pixels,
        state.y + (row - middle) * pixels,
        state.width * growth,
        state.height * growth,
        state.side * growth,
    )
    return moved, Peak(best, row, column)


def similarity(exemplar: Tensor, search: Tensor, weight: Tensor) -> Tensor:
    """Mean cosine similarity of an exemplar's cells with what lies under them, everywhere in a search.

    Args:
        exemplar: (C, a, b).
        search: (C, h, w).
        weight: (a, b) of the exemplar's cells.

    Returns: (h - a + 1, w - b + 1), -1 to 1.
    """
    kernel = normalise(exemplar, dim=0) * (weight / weight.sum())
    return correlate(kernel[None], normalise(search, dim=0)[None, None])[0, 0]


@dataclass(frozen=True)
class Tracked:
    """A frame's boxes.

    Attributes:
        boxes: (N, 4) float64 x, y, w, h, pixels, not cut at the frame.
        confidence: (N,) float64, 0 to 1: how much the target looks like its exemplar, as the mean cosine similarity of
            its cells, the mean feature taken off; 0 for what is no more alike than an average place.
    """

    boxes: NDArray[np.float64]
    confidence: NDArray[np.float64]


@dataclass
class _Target:
    """One box under way."""

    state: State
    exemplar: Tensor  # (C, a, b)
    weight: Tensor  # (a, b)
    mean: Tensor  # (C, 1, 1) over the labelled frame's search crop


class Tracker:
    """Finds boxes again, frame by frame; holds one exemplar per box, so memory does not grow.

    Args:
        model: frozen; its map at `config.stride` is what is compared.
        config: of the tracker.
        head: 1x1 convolutions trained for it (`retrace train siamfc-got10k`).
        device: where the work is done.
        dtype: of the encoder's weights.

    Errors: ValueError when the model's stride is not the config's, or the head is made for another map.
    """

    def __init__(
        self,
        model: Model,
        config: SiamFCConfig,
        *,
        head: SiamFCHead | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """See the class."""
        if model.stride != config.stride:
            raise ValueError(f"the model has stride {model.stride}, the tracker's settings {config.stride}")
        if head is not None and len(head.search.weight) != model.channels:
            raise ValueError(
                f"the model's map has {model.channels} channels, its tracking head {len(head.search.weight)}"
            )
        self.device = torch.device(device)
        self.config = config
        self._model = model.to(self.device, dtype)
        self._head = None if head is None else head.to(self.device).eval()
        self._targets: list[_Target | None] = []

    def start(self, image: Tensor, boxes: NDArray[np.floating]) -> None:
        """Forget all targets and begin with the boxes of a frame that a person labelled.

        Args:
            image: (3, H, W) uint8 RGB.
            boxes: (N, 4) x, y, w, h, pixels; a target whose row is NaN is not there yet.
        """
        self._targets = [None] * len(boxes)
        self.correct(image, boxes)

    def correct(self, image: Tensor, boxes: NDArray[np.floating]) -> None:
        """Take what a person labelled on a later frame: from here on those targets look as they do here.

        Args:
            image: (3, H, W) uint8 RGB.
            boxes: (N, 4) x, y, w, h, pixels; a row of NaN leaves that target as it is.
        """
        image = image.to(self.device)
        for number, box in enumerate(boxes.tolist()):
            if not all(np.isfinite(box)):
                continue
            state = start(box, self.config)
            exemplar = self._features(exemplar_crop(image, state, self.config)[None])[0]
            weight = on_target(state, self.config, *exemplar.shape[-2:]).to(self.device)
            here = search_crops(image, state, self.config)[self.config.num_scales // 2]
            mean = self._features(here[None])[0].mean((-2, -1), keepdim=True)
            self._targets[number] = _Target(state, exemplar, weight, mean)

    def step(self, image: Tensor) -> Tracked:
        """Find the targets in the next frame.

        Args:
            image: (3, H, W) uint8 RGB.

        Returns: a row per target; NaN and confidence 0 for those that are not there yet.
        """
        image = image.to(self.device)
        boxes, confidence = np.full((len(self._targets), 4), np.nan), np.zeros(len(self._targets))
        for number, target in enumerate(self._targets):
            if target is None:
                continue
            search = self._features(search_crops(image, target.state, self.config))  # (scales, C, h, w)
            target.state, peak = update(target.state, self._respond(target, search), self.config)
            alike = similarity(target.exemplar - target.mean, search[peak.scale] - target.mean, target.weight)
            alike = resized(alike[None], self.config)[0]
            boxes[number] = target.state.box
            confidence[number] = min(max(float(alike[peak.row, peak.column]), 0.0), 1.0)
        return Tracked(boxes, confidence)

    def _features(self, crops: Tensor) -> Tensor:
        return self._model.features(crops).float()

    def _respond(self, target: _Target, search: Tensor) -> Tensor:
        """(num_scales, r, r)."""
        weight = target.weight if self.config.target_only else None
        mean = target.mean if self.config.centred else torch.zeros_like(target.mean)
        exemplar, search = (target.exemplar - mean)[None], (search - mean)[None]
        with torch.inference_mode():
            return respond(exemplar, search, self.config, head=self._head, weight=weight)[0]


def track_boxes(tracker: Tracker, frames: Iterable[Tensor], box: Sequence[float]) -> Iterator[Tracked]:
    """Track one box through a sequence; the first frame is given out as labelled.

    Args:
        tracker: forgets what it tracked before.
        frames: (3, H, W) uint8 RGB, one after the other.
        box: x, y, w, h in the first frame, pixels of its edges.

    Yields: one Tracked of one box per frame.
    """
    first = np.asarray(box, dtype=np.float64)[None]
    for index, image in enumerate(frames):
        if index == 0:
            tracker.start(image, first)
            yield Tracked(first, np.ones(1))
        else:
            yield tracker.step(image)


PROTOCOLS: dict[str, SiamFCConfig] = {
    "default": SiamFCConfig(num_scales=5, response_size=None, centred=True, normalise=True, target_only=True),
    "trained": SiamFCConfig(num_scales=5, response_size=None),
    "vfs-r18": SiamFCConfig(),
    "vfs-r50": SiamFCConfig(out_scale=1e-5),
    "siamfc": SiamFCConfig(exemplar_size=127, rounding="upstream"),
}
"""Named settings: ours, on frozen features and with a trained head; VFS's for ResNet-18 and ResNet-50 (section 4.2,
protocols.md section 3); siamfc-pytorch's."""
