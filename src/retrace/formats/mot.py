"""Boxes in the text format of the MOTChallenge, in and out.

One line per box and frame, ``frame,id,left,top,width,height,confidence,-1,-1,-1``. Frames and ids count from 1, and so
do pixels: a box at the frame's left top corner has left = top = 1, and is 0, 0 here. A box that is lost has no line.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from retrace.errors import RetraceError
from retrace.files import atomic_path
from retrace.formats.boxes import Boxes
from retrace.formats.tables import number, read_lines

_CONFIDENCE = 6
"""Column; in ground truth 0 there says that a box does not count."""


class MotWriter:
    """Write boxes frame by frame; the file appears when the `with` block ends, also when interrupted.

    Args:
        path: the text file.
    """

    def __init__(self, path: str | Path) -> None:
        """See the class."""
        self._path = Path(path)
        self._stack = ExitStack()
        self._file: TextIO

    def __enter__(self) -> "MotWriter":
        """Begin the file. Errors: RetraceError when it cannot be written."""
        with ExitStack() as opening:
            temporary = opening.enter_context(atomic_path(self._path))
            self._file = opening.enter_context(open(temporary, "w", encoding="ascii"))
            self._stack = opening.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: Any) -> None:
        """Finish the file and give it its name; drop it after an error."""
        if kind is not None and not issubclass(kind, (KeyboardInterrupt, GeneratorExit)):
            self._stack.__exit__(kind, *details)
            return
        self._stack.close()

    def write(self, index: int, xywh: NDArray[np.floating[Any]], confidence: Sequence[float]) -> None:
        """Add the frame of position `index` from 0: `xywh` (N, 4) pixels, NaN for a lost box; N values in 0..1."""
        for k, (box, sure) in enumerate(zip(xywh.tolist(), confidence, strict=True)):
            if all(np.isfinite(box)):
                x, y, w, h = box
                self._file.write(
                    f"{index + 1},{k + 1},{x + 1:.2f},{y + 1:.2f},{w:.2f},{h:.2f},{sure:.4f},-1,-1,-1\n"
                )


def read_mot(path: str | Path) -> dict[int, Boxes]:
    """Read boxes from a MOT file, ground truth or a tracker's.

    Args:
        path: text file; cells between commas, at least six per line; lines of confidence 0 do not count.

    Returns: frame position from 0 -> Boxes, in order, all with the same names: the ids as text, smallest first.

    Errors: RetraceError for a missing or malformed file, a frame or id that is no whole number from 1 on, a box
        without a size, an id that a frame has twice, or no box at all.
    """
    path = Path(path)
    found: dict[int, dict[int, list[float]]] = {}
    for line, text in enumerate(read_lines(path, "box"), start=1):
        if not text.strip():
            continue
        where = f"{path}, line {line}"
        cells = text.split(",")
        if len(cells) < _CONFIDENCE:
            raise RetraceError(
                f"{where} has {len(cells)} cells; expected frame,id,left,top,width,height and more behind commas."
            )
        values = [number(cell, where) for cell in cells[: _CONFIDENCE + 1]]
        if len(values) > _CONFIDENCE and values[_CONFIDENCE] == 0:
            continue
        frame, name = values[:2]
        if frame < 1 or name < 1 or frame % 1 or name % 1:
            raise RetraceError(
                f"{where}: frame {frame:g} and id {name:g}; both are whole numbers from 1 on in MOT files."
            )
        if values[4] <= 0 or values[5] <= 0:
            raise RetraceError(
                f"{where}: the box is {values[4]:g} wide and {values[5]:g} high; both must be above 0."
            )
        boxes = found.setdefault(int(frame) - 1, {})
        if int(name) in boxes:
            raise RetraceError(f"{where}: frame {frame:g} has id {name:g} twice. Keep one of the lines.")
        boxes[int(name)] = [values[2] - 1, values[3] - 1, values[4], values[5]]
    if not found:
        raise RetraceError(f"{path} holds no box. Give a file with lines frame,id,left,top,width,height,...")
    ids = sorted({name for boxes in found.values() for name in boxes})
    lost = [np.nan] * 4
    return {
        frame: Boxes(
            tuple(str(name) for name in ids),
            np.asarray([boxes.get(name, lost) for name in ids], dtype=np.float32),
        )
        for frame, boxes in sorted(found.items())
    }
