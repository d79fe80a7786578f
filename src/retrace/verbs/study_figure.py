"""The figure of a study, from its results alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from retrace.studies import COLUMNS, Study
from retrace.studies.summary import Rows, values
from retrace.verbs.study_runs import FRAMES, picture
from retrace.viz.figure import save_figure
from retrace.viz.studies import Line, Seen, Values, dots_figure, lines_figure, shortcut_figure

DPI = 160


def draw(study: Study, rows: Rows, pictures: Mapping[str, Mapping[str, str]], paths: Sequence[Path]) -> None:
    """Draw the figure and save it under every path.

    Args:
        study: decides the kind.
        rows: of the results, in the study's order.
        pictures: arm -> name -> PNG as text.
        paths: .png, .svg or .pdf.
    """
    figure = {"shortcut": _shortcut, "dots": _dots, "lines": _lines}[study.figure.kind](study, rows, pictures)
    for path in paths:
        save_figure(figure, path, dpi=DPI)


def _values(study: Study, rows: Rows) -> list[Values]:
    """A panel per number of the figure that some arm has."""
    panels = []
    for key in study.figure.columns:
        seeds = {arm.label: values(rows, arm.name, key) for arm in study.arms}
        if any(seeds.values()):
            panels.append(Values(COLUMNS[key].label, seeds))
    return panels


def _labels(study: Study, rows: Rows) -> list[str]:
    """Of the arms that have a row."""
    there = {row["arm"] for row in rows}
    return [arm.label for arm in study.arms if arm.name in there]


def _dots(study: Study, rows: Rows, pictures: Mapping[str, Any]) -> Figure:
    groups = {arm.label: arm.group for arm in study.arms}
    return dots_figure(
        _values(study, rows),
        _labels(study, rows),
        groups=groups,
        heading=study.title,
        during={COLUMNS[key].label: _during(study, rows, key) for key in study.figure.columns},
    )


def _lines(study: Study, rows: Rows, pictures: Mapping[str, Any]) -> Figure:
    """Arms with a place are lines over it, the others levels."""
    panels, levels = [], []
    for key in study.figure.columns:
        lines: dict[str, list[tuple[float, list[float]]]] = {}
        level = {}
        for arm in study.arms:
            numbers = values(rows, arm.name, key)
            if numbers and arm.x is not None:
                lines.setdefault(arm.group, []).append((arm.x, numbers))
            elif numbers:
                level[arm.label] = float(np.mean(numbers))
        panels.append((COLUMNS[key].label, {name: _line(points) for name, points in lines.items()}))
        levels.append(level)
    return lines_figure(
        panels, x_label=study.figure.x_label, log=study.figure.log, levels=levels, heading=study.title
    )


def _line(points: Sequence[tuple[float, list[float]]]) -> Line:
    ordered = sorted(points, key=lambda point: point[0])
    return Line([x for x, _ in ordered], [numbers for _, numbers in ordered])


def _during(study: Study, rows: Rows, key: str) -> dict[str, Line]:
    """A number over the steps of training, of the arms that were measured meanwhile."""
    lines = {}
    for arm in study.arms:
        runs = [row["during"] for row in rows if row["arm"] == arm.name and row["during"]]
        if runs:
            numbers = [[run[k][key] for run in runs if run[k][key] is not None] for k in range(len(runs[0]))]
            lines[arm.label] = Line([point["step"] for point in runs[0]], numbers)
    return lines


def _shortcut(study: Study, rows: Rows, pictures: Mapping[str, Any]) -> Figure:
    curves = {}
    for arm in study.arms:
        runs = [row["curve"] for row in rows if row["arm"] == arm.name and row["curve"]]
        if runs:
            column = study.figure.curve
            curves[arm.label] = Line(runs[0]["step"], list(zip(*(run[column] for run in runs), strict=True)))
    frames = [picture(text) for _, text in sorted(pictures.get(FRAMES, {}).items())]
    seen = []
    for name in study.figure.pictures:
        if name in pictures:
            own = {key: picture(text) for key, text in pictures[name].items()}
            features = [own["features-0"], own["features-1"]]
            seen.append(Seen(study.arm(name).label, own["near"], own["unrelated"], features))
    return shortcut_figure(
        curves, _values(study, rows), _labels(study, rows), seen, frames, curve_label="cycle loss (nats)"
    )
