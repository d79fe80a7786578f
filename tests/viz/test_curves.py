"""Curves: running means and panels."""

import math

import numpy as np

from retrace.viz.curves import Panel, curves_figure, running_mean


def test_running_mean_by_hand() -> None:
    """Centred, shorter at the ends, nan left out."""
    assert running_mean([1, 2, 6, 4], 3) == [1.5, 3.0, 4.0, 5.0]
    assert running_mean([1, math.nan, 3], 3) == [1.0, 2.0, 3.0]
    assert running_mean([1, 2], 1) == [1.0, 2.0]
    assert math.isnan(running_mean([math.nan], 3)[0])


def test_a_line_looks_the_same_in_every_panel() -> None:
    """Run b keeps its colour in the panel where run a is missing."""
    steps = [0.0, 1.0, 2.0]
    figure = curves_figure(
        [
            Panel("loss", "step", "", {"a": (steps, [3.0, 2.0, 1.0]), "b": (steps, [3.0, 3.0, 3.0])}),
            Panel("accuracy", "step", "share", {"b": (steps, [0.0, 0.5, 1.0])}, limits=(0, 1)),
            Panel("speed", "step", "clips / s", {"a": (steps, [1.0, 1.0, 1.0])}),
        ]
    )
    loss, accuracy, speed, unused = figure.axes
    assert loss.lines[1].get_color() == accuracy.lines[0].get_color() != loss.lines[0].get_color()
    assert loss.lines[0].get_color() == speed.lines[0].get_color()
    assert accuracy.get_ylim() == (0, 1)
    assert speed.get_ylabel() == "clips / s"
    assert not unused.axison
    assert len(figure.legends) == 1


def test_smoothing_keeps_the_raw_values_visible() -> None:
    """Two lines for one run; without smoothing one."""
    steps = list(np.arange(100.0))
    panel = Panel("loss", "step", "", {"run": (steps, list(np.sin(steps)))})
    assert len(curves_figure([panel], smooth=9).axes[0].lines) == 2
    assert len(curves_figure([panel]).axes[0].lines) == 1
