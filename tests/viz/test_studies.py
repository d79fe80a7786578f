"""Figures of studies show every seed, the mean and the spread, and name their axes."""

import numpy as np
import pytest

from retrace.viz.studies import Line, Seen, Values, dots_figure, lines_figure, shortcut_figure


def test_dots_show_every_seed_and_the_mean() -> None:
    """Marker places are the numbers; an arm without numbers keeps its row."""
    panel = Values("J", {"one": [0.2, 0.4], "two": [0.5]})
    figure = dots_figure([panel], ["one", "none", "two"], groups={"one": "a", "two": "b"}, heading="title")
    axes = figure.axes[0]
    assert axes.get_xlabel() == "J"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "none", "two"]
    drawn = [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]
    assert ([0.2, 0.4], [0, 0]) in drawn
    assert ([0.5], [2]) in drawn
    means = [x for x, y in drawn if len(x) == 1 and y == [0]]
    assert any(x == pytest.approx([0.3]) for x in means)


def test_dots_with_what_was_measured_meanwhile() -> None:
    """A panel per number on the right; numbers that nobody measured get none."""
    panel = Values("J", {"one": [0.2, 0.4]})
    during = {"J": {"one": Line([0, 50], [[0.1, 0.3], [0.2, 0.4]])}, "F": {}}
    figure = dots_figure([panel], ["one"], groups={}, during=during)
    assert [axes.get_ylabel() for axes in figure.axes] == ["", "J"]
    assert figure.axes[1].lines[0].get_ydata().tolist() == pytest.approx([0.2, 0.3])


def test_lines_have_the_spread_and_the_levels() -> None:
    """Means over the setting; baselines as horizontal lines; a panel too many is empty."""
    line = Line([0.01, 0.1, 1], [[1.0, 3.0], [2.0, 2.0], [0.0, 4.0]])
    panels = [(name, {"colour": line}) for name in "abcd"]
    figure = lines_figure(panels, x_label="share", log=True, levels=[{"random": 0.5}] * 4)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert axes.lines[0].get_ydata().tolist() == [2, 2, 2]
    assert any(np.ptp(drawn.get_ydata()) == 0 and drawn.get_ydata()[0] == 0.5 for drawn in axes.lines)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("share", "a")
    assert sum(cell.axison for cell in figure.axes) == 4
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["colour"]


def test_the_shortcut_figure_has_its_four_parts() -> None:
    """Loss, numbers, transitions of N x N and features of h x w, h unlike w; without pictures the first two."""
    rng = np.random.default_rng(0)

    def picture(*shape: int) -> np.ndarray:
        return rng.integers(0, 256, shape, dtype=np.uint8)

    curves = {"FC3": Line([1, 2, 3], [[3.0, 4.0], [2.0, 2.5], [1.0, 1.2]])}
    values = [Values("J", {"FC3": [0.1, 0.2], "random": [0.3]})]
    seen = [Seen("FC3", picture(12, 12), picture(12, 12), [picture(3, 4, 3), picture(3, 4, 3)])]
    frames = [picture(24, 32, 3) for _ in range(3)]
    figure = shortcut_figure(curves, values, ["FC3", "random"], seen, frames, curve_label="nats")
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("step", "nats")
    assert figure.axes[0].lines[0].get_ydata().tolist() == pytest.approx([3.5, 2.25, 1.1])
    shapes = [axes.images[0].get_array().shape for axes in figure.axes if axes.images]
    assert shapes == [(24, 32, 3)] * 3 + [(12, 12)] * 2 + [(3, 4, 3)] * 2
    plain = shortcut_figure(curves, values, ["FC3", "random"], [], [], curve_label="nats")
    assert len(plain.axes) == 2
