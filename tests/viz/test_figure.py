"""Saving figures: by suffix, whole or not at all, the same bytes each time."""

from pathlib import Path

import pytest

from retrace.errors import RetraceError, UsageError
from retrace.viz.figure import add_heading, check_suffix, new_figure, save_figure, style


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_the_same_figure_gives_the_same_file(tmp_path: Path, suffix: str) -> None:
    """No date and no random ids inside."""
    contents = []
    for name in ("a", "b"):
        figure = new_figure(2, 1)
        figure.subplots().plot([0, 1], [1, 0])
        contents.append(save_figure(figure, tmp_path / f"{name}{suffix}").read_bytes())
    assert contents[0] == contents[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"]


def test_vectors_stay_vectors(tmp_path: Path) -> None:
    """An .svg holds paths, not a picture of the plot."""
    figure = new_figure(2, 1)
    figure.subplots().plot([0, 1], [1, 0])
    text = save_figure(figure, tmp_path / "lines.svg").read_text()
    assert "<path" in text
    assert "<image" not in text


def test_another_suffix_is_refused() -> None:
    """Before any work, with what to do."""
    with pytest.raises(UsageError, match=r"'fig\.jpg'.*\.png"):
        check_suffix("fig.jpg")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """One sentence, and nothing is left."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RetraceError, match="Cannot write"):
        save_figure(new_figure(1, 1), tmp_path / "file" / "figure.png")


def test_lines_differ_in_more_than_colour() -> None:
    """The first seven have a colour and a dash each of their own."""
    looks = [style(index) for index in range(7)]
    assert len({look["color"] for look in looks}) == 7
    assert len({str(look["linestyle"]) for look in looks}) == 7
    assert style(7) == style(0)


@pytest.mark.parametrize(
    "name", ["short", "a/very/long/path/" * 12 + "encoder.safetensors", "W" * 90, "cost $x_1$ " * 9]
)
def test_a_heading_is_never_clipped(name: str) -> None:
    """However long the name of a model is, the heading stays inside the figure, and keeps every letter."""
    figure = new_figure(3.0, 2.0)
    add_heading(figure, f"{name}: features")
    figure.canvas.draw()
    heading = figure.get_suptitle()
    assert heading.replace("\n", "").replace(" ", "") == f"{name}: features".replace(" ", "")
    (text,) = figure.texts
    extent = text.get_window_extent()
    assert extent.x0 >= 0
    assert extent.x1 <= figure.bbox.width
