"""Figures of studies: seeds as dots, means with their spread, lines over a setting, and the shortcut of STFC3."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from retrace.viz.figure import COLOURS, add_heading, new_figure, styled

Pixels = NDArray[np.uint8]
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#777777"


@dataclass(frozen=True)
class Values:
    """A number of every arm, over seeds.

    Attributes:
        label: of the axis, with the unit.
        seeds: arm's label -> numbers, one per seed; an arm without any is left out.
    """

    label: str
    seeds: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Line:
    """A number over something else, over seeds.

    Attributes:
        x: (n,).
        seeds: n lists of numbers, one per seed.
    """

    x: Sequence[float]
    seeds: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Seen:
    """What an encoder makes of a few frames.

    Attributes:
        label: of the arm.
        near: (N, N) grey, transition to the next frame.
        unrelated: (N, N) grey, transition to a frame of another scene.
        features: (h, w, 3) components of the features, of the first and the other scene.
    """

    label: str
    near: Pixels
    unrelated: Pixels
    features: Sequence[Pixels]


@styled()
def dots_figure(
    panels: Sequence[Values],
    labels: Sequence[str],
    *,
    groups: Mapping[str, str],
    during: Mapping[str, Mapping[str, Line]] | None = None,
    heading: str = "",
) -> Figure:
    """A row per arm, a panel per number: every seed a dot, the mean a line with its standard deviation.

    Args:
        panels: at least one.
        labels: of the arms, from above.
        groups: arm's label -> group; groups have a colour and a marker each.
        during: axis label -> arm's label -> number over the steps of training, in panels on the right.
        heading: above all.
    """
    drawn = {label: lines for label, lines in (during or {}).items() if lines}
    width, extra = 2.0 + 1.9 * len(panels), 2.9 if drawn else 0.0
    figure = new_figure(width + extra, max(1.1 + 0.24 * len(labels), 1.9 * len(drawn)))
    halves: Any = figure.subfigures(1, 2, width_ratios=[width, extra]) if drawn else [figure]
    cells = halves[0].subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, panel in zip(cells, panels, strict=True):
        rows(axes, panel, labels, groups, list(dict.fromkeys(groups.get(label, "") for label in labels)))
    if drawn:
        right = halves[1].subplots(len(drawn), 1, squeeze=False)[:, 0]
        for axes, (label, lines) in zip(right, drawn.items(), strict=True):
            for k, (name, line) in enumerate(lines.items()):
                spread_line(axes, line, k)
                axes.plot([], [], label=_plain(name), **_look(k))
            axes.set_xlabel("step")
            axes.set_ylabel(label)
            axes.grid(alpha=0.25, linewidth=0.6)
            axes.legend(fontsize=7)
    add_heading(figure, heading)
    return figure


def rows(
    axes: Axes, panel: Values, labels: Sequence[str], groups: Mapping[str, str], coloured: Sequence[str]
) -> None:
    """Draw one panel of `dots_figure`; groups have colours in the order of `coloured`, the others are grey."""
    for k, label in enumerate(labels):
        numbers = np.asarray(panel.seeds.get(label, ()), dtype=float)
        if not numbers.size:
            continue
        group = groups.get(label, "")
        look = _look(coloured.index(group)) if group in coloured else {"color": "0.45", "marker": "o"}
        colour, marker = look["color"], look["marker"]
        spread = numbers.std(ddof=1) if numbers.size > 1 else 0.0
        axes.errorbar(
            numbers.mean(), k, xerr=spread, fmt="|", color=colour, markersize=11, capsize=2.5, linewidth=1.2
        )
        axes.plot(numbers, np.full(numbers.size, k), marker, color=colour, markersize=3.2, alpha=0.6)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_yticks(range(len(labels)), [_plain(label) for label in labels])
    axes.set_xlabel(textwrap.fill(panel.label, 20))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.tick_params(axis="y", length=0)


@styled()
def lines_figure(
    panels: Sequence[tuple[str, Mapping[str, Line]]],
    *,
    x_label: str,
    log: bool = False,
    columns: int = 3,
    levels: Sequence[Mapping[str, float]] = (),
    heading: str = "",
) -> Figure:
    """Numbers over a setting, or over the steps of training; mean with the standard deviation over seeds.

    Args:
        panels: (axis label, line's name -> Line) each.
        x_label: with the unit.
        log: a logarithmic axis.
        columns: panels in a row.
        levels: for each panel, name -> height of a grey horizontal line (a baseline).
        heading: above all.
    """
    across = min(columns, len(panels))
    down = -(-len(panels) // across)
    figure = new_figure(2.7 * across, 2.3 * down + 0.6)
    cells = list(figure.subplots(down, across, squeeze=False).flat)
    names = list(dict.fromkeys(name for _, lines in panels for name in lines))
    for k, axes in enumerate(cells):
        if k >= len(panels):
            axes.set_axis_off()
            continue
        label, lines = panels[k]
        for name, line in lines.items():
            spread_line(axes, line, names.index(name))
        for name, height in (levels[k] if levels else {}).items():
            axes.axhline(height, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)))
            axes.annotate(
                _plain(name),
                (0.01, height),
                xycoords=("axes fraction", "data"),
                color=GREY,
                fontsize=6,
                va="bottom",
            )
        axes.set_xlabel(textwrap.fill(x_label, 30))
        axes.set_ylabel(label)
        axes.grid(alpha=0.25, linewidth=0.6)
        if log:
            axes.set_xscale("log")
            ticks = sorted({x for line in lines.values() for x in line.x})
            axes.xaxis.set_major_locator(FixedLocator(ticks))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.tick_params(axis="x", labelsize=6.5)
    handles = [_handle(k) for k in range(len(names))]
    figure.legend(
        handles, [_plain(name) for name in names], loc="outside lower center", ncols=min(4, len(names))
    )
    add_heading(figure, heading)
    return figure


def spread_line(axes: Axes, line: Line, index: int) -> None:
    """A mean over seeds, a band of one standard deviation, a marker per point."""
    means = np.array([np.mean(seeds) for seeds in line.seeds])
    spreads = np.array([np.std(seeds, ddof=1) if len(seeds) > 1 else 0.0 for seeds in line.seeds])
    look = _look(index)
    many = len(line.x) > 12
    axes.plot(line.x, means, linewidth=1.4, markersize=0 if many else 4, **look)
    if many:
        axes.fill_between(
            line.x, means - spreads, means + spreads, color=look["color"], alpha=0.18, linewidth=0
        )
    else:
        axes.errorbar(line.x, means, spreads, color=look["color"], linewidth=0, elinewidth=1, capsize=2)


@styled()
def shortcut_figure(
    curves: Mapping[str, Line],
    scores: Sequence[Values],
    labels: Sequence[str],
    seen: Sequence[Seen],
    frames: Sequence[Pixels],
    *,
    curve_label: str,
) -> Figure:
    """The shortcut in the paper's form: it learns fast (a), carries badly (b), and stays in place (c, d).

    Args:
        curves: arm's label -> loss over steps.
        scores: numbers of all arms, for (b).
        labels: of the arms, from above; those without a curve are grey.
        seen: encoders shown in (c) and (d).
        frames: the scene's frame, its next, and that of the other scene; uint8 (H, W, 3).
        curve_label: of the loss's axis.
    """
    upper, lower = 1.3 + 0.22 * len(labels), 0.45 + 1.35 * max(len(seen), 1)
    figure = new_figure(7.4, upper + (lower if seen else 0))
    parts = figure.subfigures(2, 1, height_ratios=[upper, lower], squeeze=False)[:, 0] if seen else [figure]
    left, *others = parts[0].subplots(1, 1 + len(scores), width_ratios=[1.5, *[1] * len(scores)])
    for k, line in enumerate(curves.values()):
        spread_line(left, line, k)
    left.set_title("(a) training loss", loc="left")
    left.set_xlabel("step")
    left.set_ylabel(curve_label)
    left.grid(alpha=0.25, linewidth=0.6)
    own = {label: label for label in labels}
    for k, (axes, values) in enumerate(zip(others, scores, strict=True)):
        rows(axes, values, labels, own, list(curves))
        axes.set_title("(b) what was learned; colours as in (a)" if k == 0 else "", loc="left")
        if k:
            axes.set_yticklabels([])
    if seen:
        _shown(parts[1], seen, frames)
    return figure


def _shown(figure: Any, seen: Sequence[Seen], frames: Sequence[Pixels]) -> None:
    """Frames on the left, one below the other; then a row per encoder: two transitions, two maps of features."""
    left, right = figure.subfigures(1, 2, width_ratios=[1, 4.6])
    cells = left.subplots(len(frames), 1, squeeze=False)[:, 0]
    for axes, frame, name in zip(cells, frames, ("frame", "next frame", "other scene"), strict=True):
        axes.imshow(frame, interpolation="none")
        axes.set_ylabel(name, fontsize=7)
        _bare(axes)
    titles = ("(c) P, to the next frame", "P, to the other scene", "(d) features, frame", "other scene")
    grid = right.subplots(len(seen), 4, squeeze=False)
    for encoder, row in zip(seen, grid, strict=True):
        for axes, picture in zip(row, [encoder.near, encoder.unrelated, *encoder.features], strict=True):
            shape = {"aspect": "auto"} if picture.ndim == 2 else {}
            axes.imshow(picture, cmap="magma", interpolation="none", vmin=0, vmax=255, **shape)
            _bare(axes)
        row[0].set_ylabel(_plain(encoder.label))
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, loc="left", fontsize=8)
    for axes in grid[-1][:2]:
        axes.set_xlabel("node")


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])


def _look(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def _handle(index: int) -> Line2D:
    return Line2D([], [], linewidth=1.4, markersize=4, **_look(index))


def _plain(text: str) -> str:
    """A dollar sign begins no formula."""
    return text.replace("$", r"\$")
