"""Where a walker goes from one frame to another: the transition matrix and rows of it (STFC3 paper, Figure 3)."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor

from retrace.viz.figure import COLOURS, add_heading, new_figure, show_image, styled
from retrace.walk.affinity import affinity, transition
from retrace.walk.nodes import normalise, to_nodes

Point = tuple[float, float]


def interesting_points(image: NDArray[np.uint8], count: int) -> list[Point]:
    """Pick corners of an image, far from each other, that are worth following.

    Args:
        image: uint8 (H, W, 3).
        count: how many at most.

    Returns:
        (x, y) pixels, centre of the first pixel at (0.5, 0.5). The image's centre where it has no corner at all.
    """
    height, width = image.shape[:2]
    margin = min(height, width) // 10  # what is at the border is soon out of the picture
    inner = np.zeros((height, width), np.uint8)
    inner[margin : height - margin, margin : width - margin] = 1
    corners = cv2.goodFeaturesToTrack(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
        maxCorners=count,
        qualityLevel=0.02,
        minDistance=0.3 * min(height, width),
        mask=inner,
        blockSize=max(3, min(height, width) // 24),
    )
    if corners is None:
        return [(width / 2, height / 2)]
    return [(float(x) + 0.5, float(y) + 0.5) for x, y in corners.reshape(-1, 2)]


def node_at(point: Point, stride: int, grid_hw: tuple[int, int]) -> int:
    """The node (row-major index) whose cell holds a point (x, y) in pixels; points outside take the nearest cell.

    Args:
        point: (x, y) pixels.
        stride: pixels from node to node.
        grid_hw: cells (h, w).
    """
    h, w = grid_hw
    column = min(max(int(point[0] // stride), 0), w - 1)
    row = min(max(int(point[1] // stride), 0), h - 1)
    return row * w + column


def transition_between(features: Tensor, temperature: float) -> Tensor:
    """Transition of Eq. (3) from the nodes of the first frame to those of the second.

    Args:
        features: (2, C, h, w), not normalised.
        temperature: of the softmax.

    Returns: (N, N), rows sum to 1, N = h * w.
    """
    nodes = to_nodes(normalise(features.detach().float().cpu(), dim=1))  # (2, N, C)
    return transition(affinity(nodes[0], nodes[1]), temperature)


@styled()
def affinity_figure(
    images: Sequence[NDArray[np.uint8]],
    features: Tensor,
    titles: Sequence[str],
    points: Sequence[Point],
    *,
    stride: int,
    temperature: float,
    model_name: str,
) -> Figure:
    """Two frames, the transition matrix from one to the other, and where single points go.

    Args:
        images: two frames of one size, uint8 (H, W, 3).
        features: (2, C, h, w) of these frames.
        titles: of the two frames.
        points: (x, y) pixels in the first frame; one heat map each.
        stride: pixels from node to node.
        temperature: of the softmax.
        model_name: named in the heading.
    """
    height, width = images[0].shape[:2]
    h, w = features.shape[-2:]
    matrix = transition_between(features, temperature)  # (N, N)

    panel = 3.0
    columns = max(3, len(points))
    picture = panel * height / width
    figure = new_figure(panel * columns + 0.4, panel + picture + 0.9)
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[panel, picture + 0.2])
    top, bottom = halves[0, 0], halves[1, 0]
    left, right, square = top.subplots(1, 3, width_ratios=[1, 1, 1])
    show_image(left, images[0], f"{titles[0]}, with the points asked for")
    show_image(right, images[1], f"{titles[1]}, with the likeliest places")
    left.set_ylabel("pixels")

    # Square root: a row of P holds one bright cell and many faint ones, which are the point of the figure.
    shown = matrix.sqrt().numpy()
    mesh = square.imshow(
        shown,
        cmap="magma",
        vmin=0,
        vmax=float(np.quantile(shown.max(axis=1), 0.9)),
        interpolation="antialiased",
    )
    square.set_title(f"transition P, temperature {temperature:g}")
    square.set_xlabel(f"node of {titles[1]}")
    square.set_ylabel(f"node of {titles[0]} ({h} x {w}, row by row)")
    square.set_xticks([0, h * w])
    square.set_yticks([0, h * w])
    figure.colorbar(mesh, ax=square, label="square root of P", shrink=0.8)

    maps = bottom.subplots(1, columns, squeeze=False)[0]
    grey = np.repeat(cv2.cvtColor(images[1], cv2.COLOR_RGB2GRAY)[..., None].astype(np.uint8), 3, axis=2)
    for number, axes in enumerate(maps):
        if number >= len(points):
            axes.set_axis_off()
            continue
        point, colour = points[number], COLOURS[number % len(COLOURS)]
        row = matrix[node_at(point, stride, (h, w))]  # (N,)
        best = int(torch.argmax(row))
        place = (min((best % w + 0.5) * stride, width), min((best // w + 0.5) * stride, height))
        show_image(axes, grey, f"point {number + 1}: highest P {float(row.max()):.2g}")
        heat = row.reshape(h, w).sqrt().numpy()
        heat = heat / max(float(heat.max()), 1e-12)
        axes.imshow(
            heat,
            cmap="magma",
            alpha=0.75,
            extent=(0, w * stride, h * stride, 0),
            interpolation="nearest",
            vmin=0,
            vmax=1,
        )
        axes.set_xlim(0, width)  # the last cells reach over the border
        axes.set_ylim(height, 0)
        for target, (x, y) in ((left, point), (right, place), (axes, place)):
            target.plot(x, y, "o", color=colour, markeredgecolor="white", markersize=6)
            target.annotate(
                str(number + 1),
                (x, y),
                xytext=(5, 4),
                textcoords="offset points",
                color=colour,
                weight="bold",
                path_effects=[withStroke(linewidth=2, foreground="white")],
            )
    add_heading(figure, f"{model_name}: from {titles[0]} to {titles[1]}")
    return figure
