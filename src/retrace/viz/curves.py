"""Curves over training steps or over the frames of a video."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from retrace.viz.figure import add_heading, new_figure, show_image, style, styled


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: above the axes.
        x_label: with the unit, for instance "step" or "time (s)".
        y_label: with the unit; "" for a plain number that the title explains.
        lines: name -> (x, y), both 1-d of one length, in increasing x; y may hold nan, which leaves a gap.
        limits: lowest and highest y shown; None fits the data.
    """

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    limits: tuple[float, float] | None = None


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Centred mean over `window` neighbours (fewer at the ends; nan left out), so that a noisy loss shows its trend."""
    array = np.asarray(values, dtype=float)
    half = window // 2
    result = []
    for i in range(len(array)):
        near = array[max(0, i - half) : i + half + 1]
        near = near[np.isfinite(near)]
        result.append(float(near.mean()) if near.size else math.nan)
    return result


@styled()
def curves_figure(
    panels: Sequence[Panel],
    *,
    columns: int = 2,
    smooth: int = 1,
    heading: str = "",
    colours: Mapping[str, str] | None = None,
    pictures: Sequence[tuple[str, NDArray[np.uint8]]] = (),
) -> Figure:
    """Draw panels side by side, the same line in the same colour and dash everywhere, one legend.

    Args:
        panels: at least one.
        columns: panels in a row.
        smooth: window of a running mean, in points; above 1 the raw values stay visible behind it, faint.
        heading: above all.
        colours: of lines, by name, where they are to agree with another picture; the palette's else.
        pictures: (title, image (H, W, 3) of one size) in a row above the panels.
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    width, height = 4.4 * columns, 2.5 * rows + (0.5 if heading else 0.2)
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    looks = {name: style(number) for number, name in enumerate(names)}
    for name, colour in (colours or {}).items():
        looks[name]["color"] = colour
    strip = 0.0
    if pictures:
        strip = width / len(pictures) * pictures[0][1].shape[0] / pictures[0][1].shape[1] + 0.25
    figure = new_figure(width, height + strip)
    below: Figure | SubFigure = figure
    if pictures:
        parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[strip, height])
        below = parts[1, 0]
        for axes, (title, image) in zip(
            parts[0, 0].subplots(1, len(pictures), squeeze=False)[0], pictures, strict=True
        ):
            show_image(axes, image, title)
            axes.set_xticks([])
            axes.set_yticks([])
    cells = below.subplots(rows, columns, squeeze=False).flatten()
    handles: dict[str, Line2D] = {}
    for axes, panel in zip(cells, panels, strict=False):
        handles |= _draw(axes, panel, looks, smooth)
    for axes in cells[len(panels) :]:
        axes.set_axis_off()
    if len(names) > 1:
        below.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(names)), fontsize=8
        )
    if heading:
        add_heading(figure, heading)
    return figure


def _draw(axes: Axes, panel: Panel, looks: Mapping[str, dict[str, Any]], smooth: int) -> dict[str, Line2D]:
    """Fill one pair of axes; returns name -> line."""
    handles = {}
    for name, (x, y) in panel.lines.items():
        look = looks[name]
        if smooth > 1 and len(y) > 2 * smooth:
            axes.plot(x, y, color=look["color"], alpha=0.2, linewidth=0.8)
            y = running_mean(y, smooth)
        marker = "o" if len(x) == 1 else None  # a line through one point is invisible
        (handles[name],) = axes.plot(x, y, marker=marker, markersize=3, linewidth=1.4, **look)
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.grid(alpha=0.25, linewidth=0.6)
    if panel.limits:
        axes.set_ylim(*panel.limits)
    return handles
