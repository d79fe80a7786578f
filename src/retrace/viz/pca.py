"""What an encoder sees: the three strongest directions of its features as red, green, blue (STFC3 paper, Figure 7)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from retrace.viz.figure import add_heading, new_figure, show_image, styled


@dataclass(frozen=True)
class Components:
    """Principal components of the features of several frames.

    Attributes:
        rgb: float32 (T, h, w, 3) in 0..1. One basis and one scale for all frames: the same colour is the same feature.
        share: the part of the variance that each of the three components carries, (3,), in 0..1, falling.
    """

    rgb: NDArray[np.float32]
    share: NDArray[np.float64]


def principal_components(features: Tensor) -> Components:
    """Project the nodes of all frames together onto their three strongest directions.

    Each component is scaled so that its 1st and 99th percentile over all frames become 0 and 1, and clipped there.
    Its sign is fixed by making the largest weight positive, so the colours do not change from run to run.

    Args:
        features: float (T, C, h, w), C >= 1, at any scale; L2-normalise them first to see what propagation sees.

    Returns:
        Components. With fewer than three channels, or features that do not vary, the missing components are grey (0.5).
    """
    frames, channels, h, w = features.shape
    nodes = features.detach().double().cpu().permute(0, 2, 3, 1).reshape(-1, channels)  # (T*h*w, C)
    centred = nodes - nodes.mean(dim=0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))  # ascending
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    count = min(3, channels)
    basis = vectors[:, :count]
    largest = basis.gather(0, basis.abs().argmax(dim=0, keepdim=True))  # (1, count)
    projected = centred @ (basis * largest.sign())  # (T*h*w, count)
    low, high = np.quantile(projected.numpy(), [0.01, 0.99], axis=0)
    rgb = np.full((len(centred), 3), 0.5)
    total = float(values.sum())
    share = np.zeros(3)
    for k in range(count):
        # Below this a component is rounding noise; stretching it to full contrast would show a picture of nothing.
        if values[k] > 1e-12 * max(total, 1e-300) and high[k] > low[k]:
            rgb[:, k] = ((projected[:, k].numpy() - low[k]) / (high[k] - low[k])).clip(0, 1)
            share[k] = float(values[k]) / total
    return Components(rgb.reshape(frames, h, w, 3).astype(np.float32), share)


@styled()
def pca_figure(
    images: Sequence[NDArray[np.uint8]], components: Components, titles: Sequence[str], model_name: str
) -> Figure:
    """Frames above, their components below.

    Args:
        images: T frames, uint8 (H, W, 3).
        components: of the same frames.
        titles: T titles, for instance "frame 10".
        model_name: named in the heading.
    """
    count = len(images)
    height, width = images[0].shape[:2]
    panel = 2.6
    figure = new_figure(panel * count + 0.3, 2 * panel * height / width + 0.8)
    cells = figure.subplots(2, count, squeeze=False)
    for column, (image, title) in enumerate(zip(images, titles, strict=True)):
        show_image(cells[0, column], image, title)
        axes = cells[1, column]
        h, w = components.rgb.shape[1:3]
        axes.imshow(components.rgb[column], extent=(0, w, h, 0), interpolation="nearest")
        axes.set_xticks([0, w])
        axes.set_yticks([0, h])
        axes.tick_params(length=2, labelsize=7)
        axes.set_aspect(height / width * w / h)
    cells[0, 0].set_ylabel("pixels")
    cells[1, 0].set_ylabel("cells")
    shares = " + ".join(f"{100 * part:.0f}" for part in components.share)
    add_heading(
        figure,
        f"{model_name}: top 3 principal components, one basis for all frames ({shares} % of the variance)",
    )
    return figure
