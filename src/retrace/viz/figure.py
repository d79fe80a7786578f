"""What every figure of the project shares: colours for colour-blind readers too, fonts, and how it is saved."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from numpy.typing import NDArray

from retrace.errors import UsageError
from retrace.files import atomic_path

# Okabe and Ito's palette (2008), without yellow, which is too faint for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Lines also differ in dash, for print in grey.
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)))
SUFFIXES = (".png", ".pdf", ".svg")

_STYLE: dict[Any, Any] = {
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "retrace",  # the same figure gives the same file
    "pdf.fonttype": 42,
}


def check_suffix(path: str | Path) -> Path:
    """Return `path` as a Path when a figure can be saved under it.

    Errors: UsageError for a suffix other than .png, .pdf, .svg. Call it before the work, not after.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"Cannot save a figure as '{path.name}': its suffix is '{path.suffix}'. "
            "Use .png for pixels, .pdf or .svg for vectors."
        )
    return path


@contextmanager
def styled() -> Iterator[None]:
    """Fonts, lines and spines of every figure; draw inside it. Matplotlib's global settings come back at its end."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches, belonging to no screen and no global state."""
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 160) -> Path:
    """Write a figure whole or not at all; the suffix decides the format, vectors for .pdf and .svg.

    Args:
        figure: to write.
        path: where; .png, .pdf or .svg.
        dpi: pixels per inch, of a PNG and of the images inside a vector file.

    Errors: UsageError for another suffix; RetraceError when it cannot be written.
    """
    path = check_suffix(path)
    # Without a date the same figure gives the same bytes.
    undated = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}[path.suffix.lower()]
    with atomic_path(path) as temporary, styled():
        figure.savefig(temporary, dpi=dpi, metadata=undated)
    return path


def show_image(axes: Axes, image: NDArray[np.uint8], title: str) -> None:
    """Draw an image (H, W, 3) with pixel axes, the centre of the first pixel at (0.5, 0.5)."""
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), interpolation="antialiased")
    axes.set_title(title)
    axes.set_xticks([0, width])
    axes.set_yticks([0, height])
    axes.tick_params(length=2, labelsize=7)


def add_heading(figure: Figure, text: str) -> None:
    """Write a heading above a figure, in as many lines as its width asks for; names without a space are broken too."""
    size, room = 9.0, 72 * figure.get_figwidth() - 12  # points
    length = len(text)
    lines = [text]

    def width(line: str) -> float:
        return float(TextPath((0, 0), line.replace("$", r"\$"), size=size).get_extents().width)

    while length > 1 and (widest := max(map(width, lines))) > room:
        length = max(1, min(length - 1, int(length * room / widest)))
        lines = textwrap.wrap(text, length)
    # A dollar sign in a name begins no formula.
    figure.suptitle("\n".join(lines), fontsize=size, parse_math=False)


def style(index: int) -> dict[str, Any]:
    """Colour and dash of the line number `index` (they repeat after seven)."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}
