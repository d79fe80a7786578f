"""Curves over training steps or over the frames of a video."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from retrace.viz.figure import new_figure, style, styled


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
def curves_figure(panels: Sequence[Panel], *, columns: int = 2, smooth: int = 1, heading: str = "") -> Figure:
    """Draw panels side by side, the same line in the same colour and dash everywhere, one legend.

    Args:
        panels: at least one.
        columns: panels in a row.
        smooth: window of a running mean, in points; above 1 the raw values stay visible behind it, faint.
        heading: above all.
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(4.4 * columns, 2.5 * rows + (0.5 if heading else 0.2))
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    cells = figure.subplots(rows, columns, squeeze=False).flatten()
    handles = {}
    for axes, panel in zip(cells, panels, strict=False):
        for name, (x, y) in panel.lines.items():
            look = style(names.index(name))
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
    for axes in cells[len(panels) :]:
        axes.set_axis_off()
    if len(names) > 1:
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(names)), fontsize=8
        )
    if heading:
        figure.suptitle(heading, fontsize=9)
    return figure
