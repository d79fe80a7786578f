"""What an encoder writes into its features, asked directly: where a node is, and whether a walker looks or stays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrace.encoders import Model
from retrace.synthetic import SceneConfig, render
from retrace.walk import neighborhood
from retrace.walk.affinity import affinity, transition
from retrace.walk.nodes import normalise, to_nodes

FIT, TEST = range(30_000, 30_064), range(30_064, 30_080)
"""Seeds of the scenes that the read-out is fitted on and judged by; no recipe and no benchmark draws them."""
RIDGE = 1e-2
"""Weight of the penalty beside the mean squared error, for features of unit variance."""
PAIRS = range(30_080, 30_088)
"""Seeds of the scenes that walkers stay or move in."""
FRAME = (96, 128)
"""Height and width of their frames, pixels."""
TEMPERATURE = 0.05
"""Of their transitions, as in training."""


class _Mirrored(nn.Module):
    """An encoder without padding that is shown its frames mirrored at their borders."""

    def __init__(self, encoder: nn.Module, margin: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.margin = margin

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder(F.pad(images, (self.margin,) * 4, mode="reflect"))
        return features


def covering(model: Model) -> Model:
    """A model whose map covers the whole frame, so that it can be compared with the others.

    The map of an encoder without padding begins where its first window fits. Frames are mirrored by that much at their
    borders, once, before the encoder sees them; a model with padding is returned as it is.

    Args:
        model: to be measured; frames must have sides above its `origin`.
    """
    if model.origin < model.stride:
        return model
    return replace(model, encoder=_Mirrored(model.encoder, round(model.origin - 0.5)), origin=0.5)


def places(h: int, w: int) -> Tensor:
    """(h * w, 2) row and column of every node, each from -1 (first) to 1 (last)."""
    rows, columns = torch.linspace(-1, 1, h), torch.linspace(-1, 1, w)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).reshape(-1, 2)  # (N, 2)


def read_out(
    fit: Tensor, fit_places: Tensor, test: Tensor, test_places: Tensor, *, ridge: float = RIDGE
) -> float:
    """How well a linear map from features to places, fitted on some nodes, tells the places of others.

    Args:
        fit: (n, C) features.
        fit_places: (n, 2).
        test: (m, C).
        test_places: (m, 2).
        ridge: weight of the squared coefficients beside the mean squared error; features are brought to unit variance.

    Returns: R² of the places of `test`, over both coordinates: 1 is exact, 0 is as good as the middle of the frame;
        below 0 the map misleads.
    """
    fit, test, fit_places, test_places = (value.double() for value in (fit, test, fit_places, test_places))
    mean, deviation = fit.mean(0), fit.std(0)
    deviation = deviation.where(deviation > 1e-9, 1.0)  # a channel that never varies says nothing
    inputs, held = (fit - mean) / deviation, (test - mean) / deviation
    middle = fit_places.mean(0)
    gram = inputs.T @ inputs / len(inputs) + ridge * torch.eye(inputs.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, inputs.T @ (fit_places - middle) / len(inputs))  # (C, 2)
    missed = (held @ weights + middle - test_places).square().sum()
    return float(1 - missed / (test_places - test_places.mean(0)).square().sum())


def position(model: Model, side: int) -> float:
    """R² of `read_out` on generated frames of side x side pixels, as training showed them.

    Args:
        model: on the CPU or a GPU.
        side: of the crops it was trained on, pixels.
    """
    fit, test = ([_nodes(model, _frames(seed, side, side, 1)) for seed in seeds] for seeds in (FIT, TEST))
    where = places(*model.grid(side, side))
    return read_out(torch.cat(fit), where.repeat(len(fit), 1), torch.cat(test), where.repeat(len(test), 1))


@dataclass(frozen=True)
class Walkers:
    """Where walkers go from the first frame of a scene.

    Attributes:
        near: share of the walk that ends within one node of where it began, in the next frame of the scene.
        unrelated: the same in a frame of another scene, where nothing but the place is alike.
    """

    near: float
    unrelated: float


def walkers(model: Model) -> Walkers:
    """The mean over nodes and scenes; a walker that goes anywhere stays with a probability of about 9 / N."""
    model = covering(model)
    clips = [_frames(seed, *FRAME, 2) for seed in PAIRS]
    stay = neighborhood.square(*model.grid(*FRAME), 1).float()  # (N, N)
    near: list[float] = []
    unrelated: list[float] = []
    for clip, other in zip(clips, [*clips[1:], clips[0]], strict=True):
        for found, frames in ((near, clip), (unrelated, torch.stack([clip[0], other[0]]))):
            found.append(float((between(model, frames) * stay).sum(-1).mean()))
    return Walkers(sum(near) / len(near), sum(unrelated) / len(unrelated))


def between(model: Model, frames: Tensor) -> Tensor:
    """(N, N) transition (STFC3, Eq. 3) from the first of two frames uint8 (2, 3, H, W) to the second."""
    first, second = _features(model, frames)
    return transition(affinity(first, second), TEMPERATURE)


def shown(model: Model) -> dict[str, Tensor]:
    """What the figure shows of an encoder, of the first two scenes of `PAIRS`.

    Returns:
        near, unrelated: (N, N) transitions from the first scene's first frame to its next, and to the other scene.
        features: (2, C, h, w) of the two scenes' first frames, L2-normalised.
    """
    model = covering(model)
    scene, other = (_frames(seed, *FRAME, 2) for seed in PAIRS[:2])
    apart = torch.stack([scene[0], other[0]])
    maps = normalise(model.features(apart.to(_device(model))).float().cpu(), dim=1)
    return {"near": between(model, scene), "unrelated": between(model, apart), "features": maps}


def shown_frames() -> Tensor:
    """uint8 (3, 3, H, W): the frames of `shown`: the scene's first and second frame, and the other scene's first."""
    scene, other = (_frames(seed, *FRAME, 2) for seed in PAIRS[:2])
    return torch.cat([scene, other[:1]])


def _frames(seed: int, height: int, width: int, count: int) -> Tensor:
    """uint8 (count, 3, H, W)."""
    return render(seed, SceneConfig(height=height, width=width, num_frames=count)).frames


def _device(model: Model) -> torch.device:
    return next(model.encoder.parameters()).device


def _features(model: Model, frames: Tensor) -> Sequence[Tensor]:
    """(N, C) L2-normalised nodes of each frame, on the CPU."""
    maps = normalise(model.features(frames.to(_device(model))).float().cpu(), dim=1)
    return to_nodes(maps).unbind(0)


def _nodes(model: Model, frames: Tensor) -> Tensor:
    return torch.cat(list(_features(model, frames)))
