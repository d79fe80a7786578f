"""Boxes as JSON and CSV, in and out.

A box is ``x, y, w, h``: left and top edge, width and height in pixels; the whole frame is ``0, 0, W, H``.

JSON in: ``{"boxes": [{"name": "car", "x": 10, "y": 20, "w": 64, "h": 48}, ...]}`` (names may be left out;
``[x, y, w, h]`` is a box as well), or several labelled frames ``{"frames": [{"index": 0, "boxes": [...]},
...]}``, which is also what Retrace writes (there each box carries a `confidence` in 0..1 and null coordinates
when it is lost). CSV in: a header with ``x,y,w,h`` and optionally ``name`` and ``frame``. CSV out:
``frame,name,x,y,w,h,confidence``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrace.errors import RetraceError
from retrace.formats.tables import FrameTable, frame_number, labelled_frames, number, read_json, read_rows


@dataclass(frozen=True)
class Boxes:
    """Boxes of one frame: `xywh` (N, 4) float32 pixels, NaN for a box that this frame does not have."""

    names: tuple[str, ...]
    xywh: NDArray[np.float32]


def read_boxes(path: str | Path, *, size: tuple[int, int] | None = None) -> dict[int, Boxes]:
    """Read a box file.

    Args:
        path: `.json` or `.csv`.
        size: (H, W) of the frames; boxes are cut at its border. None does not check.

    Returns: labelled frame position -> Boxes, in order; every frame has the same names.

    Errors: RetraceError for a missing or malformed file, an empty box, or a box wholly outside the frame.
    """
    path = Path(path)
    name = f"Box file {path}"
    if path.suffix.lower() == ".csv":
        grouped: dict[int, list[dict[str, Any]]] = {}
        for line, row in enumerate(read_rows(path, ("x", "y", "w", "h")), start=2):
            frame = frame_number(row.get("frame") or "", f"{name}, line {line}")
            box: dict[str, Any] = {key: row[key] or None for key in ("x", "y", "w", "h")}
            if row.get("name"):
                box["name"] = row["name"]
            grouped.setdefault(frame, []).append(box)
        return _checked(
            {i: _one_frame(b, f"{name}, frame {i}") for i, b in sorted(grouped.items())}, name, size
        )
    return boxes_from_object(read_json(path, "box"), size=size, name=name)


def boxes_from_object(
    content: Mapping[str, Any], *, size: tuple[int, int] | None = None, name: str = "The boxes"
) -> dict[int, Boxes]:
    """Take what a box JSON file holds, under the same rules.

    Errors: RetraceError as `read_boxes`.
    """
    if "frames" in content:
        found = labelled_frames(content, "boxes", name)
        frames = {index: _one_frame(boxes, f"{name}, frame {index}") for index, boxes in found.items()}
        return _checked(frames, name, size)
    if "boxes" not in content:
        raise RetraceError(
            f'{name} has no "boxes". Give {{"boxes": [{{"name": "car", "x": 10, "y": 20, "w": 64, "h": 48}}]}}.'
        )
    return _checked({0: _one_frame(content["boxes"], name)}, name, size)


class BoxWriter:
    """Write boxes frame by frame as JSON and CSV; both appear when the `with` block ends, also when interrupted.

    Args:
        json_path, csv_path: the files.
        names: N box names.
        size: (H, W) of the frames.
        fps: frames per second, for the reader of the file.
    """

    def __init__(
        self,
        json_path: str | Path,
        csv_path: str | Path,
        *,
        names: Sequence[str],
        size: tuple[int, int],
        fps: float,
    ) -> None:
        """See the class."""
        self._names = tuple(names)
        self._table = FrameTable(
            json_path,
            csv_path,
            kind="boxes",
            columns=("name", "x", "y", "w", "h", "confidence"),
            names=names,
            size=size,
            fps=fps,
            coordinates="pixels, x and y of the left top corner, the frame is 0, 0, width, height",
        )

    def __enter__(self) -> "BoxWriter":
        """Begin both files. Errors: RetraceError when they cannot be written."""
        self._table.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        """Finish the files and give them their names; drop them after an error."""
        self._table.__exit__(*details)

    def write(
        self, index: int, name: str, time: float, xywh: NDArray[np.floating[Any]], confidence: Sequence[float]
    ) -> None:
        """Add one frame: `xywh` (N, 4) pixels, NaN for a lost box; `confidence` N values in 0..1."""
        boxes, rows = [], []
        for label, box, sure in zip(self._names, xywh.tolist(), confidence, strict=True):
            values = [round(v, 2) if math.isfinite(v) else None for v in box]
            boxes.append(
                {"name": label, **dict(zip("xywh", values, strict=True)), "confidence": round(float(sure), 4)}
            )
            rows.append((label, *values, round(float(sure), 4)))
        self._table.write(index, name, time, boxes, rows)


def _one_frame(boxes: Any, where: str) -> Boxes:
    if not isinstance(boxes, Sequence) or isinstance(boxes, str) or not boxes:
        raise RetraceError(
            f'{where} has no list of boxes. Give [{{"name": "car", "x": 10, "y": 20, "w": 64, "h": 48}}, ...].'
        )
    names: list[str] = []
    rows = []
    for k, box in enumerate(boxes):
        if isinstance(box, Mapping):
            values = [box.get(key) for key in ("x", "y", "w", "h")]
            label = str(box.get("name", k + 1))
        elif isinstance(box, Sequence) and not isinstance(box, str) and len(box) == 4:
            values, label = list(box), str(k + 1)
        else:
            raise RetraceError(
                f'{where}: box {k} is {box!r}; expected {{"x", "y", "w", "h"}} or [x, y, w, h].'
            )
        if label in names:
            raise RetraceError(f"{where} names box {label!r} twice. Give each box a name of its own.")
        names.append(label)
        lost = all(v is None for v in values)
        rows.append([math.nan] * 4 if lost else [number(v, f"{where}: box {label}") for v in values])
        if not lost and (rows[-1][2] <= 0 or rows[-1][3] <= 0):
            raise RetraceError(
                f"{where}: box {label} is {rows[-1][2]:g} wide and {rows[-1][3]:g} high; both must be above 0."
            )
    return Boxes(tuple(names), np.asarray(rows, dtype=np.float32))


def _checked(frames: dict[int, Boxes], where: str, size: tuple[int, int] | None) -> dict[int, Boxes]:
    """Bring all frames to one list of names, cut boxes at the frame's border, refuse those outside."""
    names: list[str] = []
    for boxes in frames.values():
        names += [n for n in boxes.names if n not in names]
    result = {}
    for index, boxes in frames.items():
        xywh = np.full((len(names), 4), np.nan, dtype=np.float32)
        for label, box in zip(boxes.names, boxes.xywh, strict=True):
            x0, y0, x1, y1 = box[0], box[1], box[0] + box[2], box[1] + box[3]
            if size is not None and not np.isnan(box).any():
                if x1 <= 0 or y1 <= 0 or x0 >= size[1] or y0 >= size[0]:
                    raise RetraceError(
                        f"{where}: box {label} of frame {index} spans x {x0:g} to {x1:g}, y {y0:g} to {y1:g}, "
                        f"outside the {size[1]}x{size[0]} frame. Correct it, or leave it out."
                    )
                x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(size[1])), min(y1, float(size[0]))
            xywh[names.index(label)] = (x0, y0, x1 - x0, y1 - y0)
        result[index] = Boxes(tuple(names), xywh)
    if np.isnan(next(iter(result.values())).xywh).any(axis=1).all():
        raise RetraceError(f"{where} has no box on its first frame. Draw at least one.")
    return result
