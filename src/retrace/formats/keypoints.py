"""Keypoints as JSON and CSV, in and out.

Coordinates are (x, y) pixels, the centre of the first pixel at (0.5, 0.5): the frame spans 0..W and 0..H.

JSON in: ``{"keypoints": [{"name": "nose", "x": 101.5, "y": 40.0, "visible": true}, ...], "skeleton": [["nose",
"neck"], [1, 2]]}``. `name` and `visible` may be left out; skeleton ends are names or 0-based positions. Also taken:

* ``"keypoints": [[x, y], ...]`` with an optional ``"names": [...]``;
* several labelled frames: ``{"names": [...], "skeleton": [...], "frames": [{"index": 0, "keypoints": [...]},
  ...]}``, which is also what Retrace writes (there each keypoint carries a `confidence` in 0..1);
* COCO: an annotation file of one image, or ``"keypoints": [x, y, v, x, y, v, ...]``. COCO counts pixels from 0
  at their centres, so 0.5 is added; v = 0 means not labelled; COCO's skeleton is 1-based.

CSV in: a header with ``name,x,y`` and optionally ``frame`` (position from 0) and ``visible``. CSV out:
``frame,name,x,y,confidence``; empty x and y = not found.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrace.errors import RetraceError
from retrace.formats.tables import (
    FrameTable,
    entries,
    frame_number,
    labelled_frames,
    number,
    read_json,
    read_rows,
)

Edge = tuple[int, int]


@dataclass(frozen=True)
class Keypoints:
    """One frame: `xy` (K, 2) float32 pixels (NaN: not labelled), `visible` (K,) bool, `skeleton` pairs of positions."""

    names: tuple[str, ...]
    xy: NDArray[np.float32]
    visible: NDArray[np.bool_]
    skeleton: tuple[Edge, ...] = ()


def read_keypoints(path: str | Path, *, size: tuple[int, int] | None = None) -> dict[int, Keypoints]:
    """Read a keypoint file.

    Args:
        path: `.json` or `.csv`.
        size: (H, W) of the frames; None does not check that points are inside.

    Returns: labelled frame position -> Keypoints, in order; every frame has the same names and skeleton.

    Errors: RetraceError for a missing or malformed file, no visible keypoint, or a keypoint outside the frame.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return _from_rows(read_rows(path, ("name", "x", "y")), f"Keypoint file {path}", size)
    return keypoints_from_object(read_json(path, "keypoint"), size=size, name=f"Keypoint file {path}")


def keypoints_from_object(
    content: Mapping[str, Any], *, size: tuple[int, int] | None = None, name: str = "The keypoints"
) -> dict[int, Keypoints]:
    """Take what a keypoint JSON file holds, under the same rules.

    Errors: RetraceError as `read_keypoints`.
    """
    if "annotations" in content:
        return _checked({0: _from_coco(content, name)}, name, size)
    if "frames" in content:
        common = entries(content, "names", name)
        frames = {
            index: _one_frame(points, common, (), f"{name}, frame {index}")
            for index, points in labelled_frames(content, "keypoints", name).items()
        }
        return _checked(frames, name, size, entries(content, "skeleton", name))
    if "keypoints" not in content:
        raise RetraceError(
            f'{name} has no "keypoints". Give {{"keypoints": [{{"name": "nose", "x": 10.5, "y": 20.5}}]}}.'
        )
    names = entries(content, "names" if "names" in content else "keypoint_names", name)
    return _checked(
        {0: _one_frame(content["keypoints"], names, entries(content, "skeleton", name), name)}, name, size
    )


class KeypointWriter:
    """Write keypoints frame by frame as JSON and CSV; both files appear on `close`, whole, also after an interruption.

    Use as a context manager. When its block ends with an exception that is not an interruption the files do
    not appear.

    Args:
        json_path, csv_path: the files.
        names: K keypoint names.
        skeleton: pairs of positions.
        size: (H, W) of the frames.
        fps: frames per second, for the reader of the file.
    """

    def __init__(
        self,
        json_path: str | Path,
        csv_path: str | Path,
        *,
        names: Sequence[str],
        skeleton: Sequence[Edge],
        size: tuple[int, int],
        fps: float,
    ) -> None:
        """See the class."""
        self._names = tuple(names)
        self._table = FrameTable(
            json_path,
            csv_path,
            kind="keypoints",
            columns=("name", "x", "y", "confidence"),
            names=names,
            size=size,
            fps=fps,
            coordinates="pixels, x to the right, y down, centre of the first pixel at (0.5, 0.5)",
            head={"skeleton": [list(edge) for edge in skeleton]},
        )

    def __enter__(self) -> "KeypointWriter":
        """Begin both files. Errors: RetraceError when they cannot be written."""
        self._table.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        """Finish the files and give them their names; drop them after an error."""
        self._table.__exit__(*details)

    def write(
        self, index: int, name: str, time: float, xy: NDArray[np.floating[Any]], confidence: Sequence[float]
    ) -> None:
        """Add one frame: `xy` (K, 2) pixels, NaN when not found; `confidence` K values in 0..1."""
        points = []
        rows = []
        for label, (x, y), sure in zip(self._names, xy.tolist(), confidence, strict=True):
            found = math.isfinite(x) and math.isfinite(y)
            x, y = (round(x, 3), round(y, 3)) if found else (None, None)
            points.append(
                {"name": label, "x": x, "y": y, "visible": found, "confidence": round(float(sure), 4)}
            )
            rows.append((label, x, y, round(float(sure), 4)))
        self._table.write(index, name, time, points, rows)


def _one_frame(points: Any, names: Any, skeleton: Any, where: str) -> Keypoints:
    if not isinstance(points, Sequence) or isinstance(points, str) or not points:
        raise RetraceError(
            f'{where} has no list of keypoints. Give [{{"name": "nose", "x": 10.5, "y": 20.5}}, ...].'
        )
    if all(isinstance(p, (int, float)) for p in points):
        return _from_flat(points, names, skeleton, where)
    found_names, xy, visible = [], [], []
    for k, point in enumerate(points):
        if isinstance(point, Mapping):
            label = str(point.get("name", names[k] if names and k < len(names) else k))
            seen = (
                bool(point.get("visible", True)) and point.get("x") is not None and point.get("y") is not None
            )
            values = (point.get("x"), point.get("y"))
        elif isinstance(point, Sequence) and not isinstance(point, str) and len(point) == 2:
            label, seen, values = str(names[k] if names and k < len(names) else k), True, (point[0], point[1])
        else:
            raise RetraceError(
                f'{where}: keypoint {k} is {point!r}; expected {{"name", "x", "y"}} or [x, y].'
            )
        found_names.append(label)
        visible.append(seen)
        xy.append([number(v, f"{where}: keypoint {label}") for v in values] if seen else [math.nan, math.nan])
    return _build(found_names, xy, visible, _edges(skeleton, found_names, where, first=0), where)


def _from_flat(values: Sequence[float], names: Any, skeleton: Any, where: str) -> Keypoints:
    if len(values) % 3:
        raise RetraceError(
            f"{where}: a flat list of keypoints is COCO's x, y, v; {len(values)} numbers do not divide by 3."
        )
    numbers = [number(value, f"{where}: entry {k} of the keypoints") for k, value in enumerate(values)]
    table = np.asarray(numbers, dtype=np.float64).reshape(-1, 3)
    labels = [str(names[k] if names and k < len(names) else k) for k in range(len(table))]
    visible = table[:, 2] > 0
    xy = np.where(visible[:, None], table[:, :2] + 0.5, np.nan)  # COCO counts from pixel centres
    return _build(labels, xy.tolist(), visible.tolist(), _edges(skeleton, labels, where, first=1), where)


def _from_coco(content: Mapping[str, Any], where: str) -> Keypoints:
    people = [
        a for a in entries(content, "annotations", where) if isinstance(a, Mapping) and a.get("keypoints")
    ]
    images = {a.get("image_id") for a in people}
    if len(images) != 1:
        raise RetraceError(
            f"{where} is a COCO file with keypoints on {len(images)} images; keep the one that is labelled."
        )
    categories = {c.get("id"): c for c in entries(content, "categories", where) if isinstance(c, Mapping)}
    names: list[str] = []
    xy: list[list[float]] = []
    visible: list[bool] = []
    edges: list[Edge] = []
    for number_, person in enumerate(people):
        category = categories.get(person.get("category_id"), {})
        points, labels, joints = (
            entries(*source, where)
            for source in ((person, "keypoints"), (category, "keypoints"), (category, "skeleton"))
        )
        part = _from_flat(points, labels, joints, where)
        prefix = f"{number_ + 1}/" if len(people) > 1 else ""
        edges += [(i + len(names), j + len(names)) for i, j in part.skeleton]
        names += [prefix + label for label in part.names]
        xy += part.xy.tolist()
        visible += part.visible.tolist()
    return _build(names, xy, visible, edges, where)


def _from_rows(rows: list[dict[str, str]], where: str, size: tuple[int, int] | None) -> dict[int, Keypoints]:
    grouped: dict[int, list[dict[str, Any]]] = {}
    for line, row in enumerate(rows, start=2):
        frame = frame_number(row.get("frame") or "", f"{where}, line {line}")
        if not row["name"]:
            raise RetraceError(
                f"{where}, line {line} names no keypoint. Give each keypoint a name of its own."
            )
        missing = not row["x"].strip() or not row["y"].strip()
        hidden = (row.get("visible") or "1").strip().lower() in ("0", "false", "no")
        xy = (
            (None, None)
            if missing
            else tuple(number(row[a], f"{where}, line {line}, {a}") for a in ("x", "y"))
        )
        grouped.setdefault(frame, []).append(
            {"name": row["name"], "x": xy[0], "y": xy[1], "visible": not hidden}
        )
    frames = {i: _one_frame(points, None, (), f"{where}, frame {i}") for i, points in sorted(grouped.items())}
    return _checked(frames, where, size)


def _build(
    names: Sequence[str],
    xy: Sequence[Sequence[float]],
    visible: Sequence[bool],
    edges: Sequence[Edge],
    where: str,
) -> Keypoints:
    twice = {n for n in names if list(names).count(n) > 1}
    if twice:
        raise RetraceError(
            f"{where} names keypoint {sorted(twice)[0]!r} twice. Give each keypoint a name of its own."
        )
    return Keypoints(
        tuple(names),
        np.asarray(xy, dtype=np.float32).reshape(-1, 2),
        np.asarray(visible, dtype=bool),
        tuple(edges),
    )


def _edges(skeleton: Any, names: Sequence[str], where: str, *, first: int) -> list[Edge]:
    """Turn skeleton ends (names, or positions counted from `first`) into 0-based positions."""
    edges = []
    for edge in skeleton:
        ends = []
        for end in edge if isinstance(edge, Sequence) and not isinstance(edge, str) else [edge]:
            if isinstance(end, str) and end in names:
                ends.append(list(names).index(end))
            elif isinstance(end, int) and not isinstance(end, bool) and first <= end < len(names) + first:
                ends.append(end - first)
        if len(ends) != 2:
            raise RetraceError(
                f"{where}: skeleton entry {edge!r} does not join two of the {len(names)} keypoints."
            )
        edges.append((ends[0], ends[1]))
    return edges


def _checked(
    frames: dict[int, Keypoints], where: str, size: tuple[int, int] | None, skeleton: Any = ()
) -> dict[int, Keypoints]:
    """Bring all frames to one list of names and check that something is labelled, and inside the frame."""
    first = next(iter(frames.values()))
    names = list(first.names)
    for keypoints in frames.values():
        names += [n for n in keypoints.names if n not in names]
    edges = first.skeleton or tuple(_edges(skeleton, names, where, first=0))
    result = {}
    for index, keypoints in frames.items():
        xy = np.full((len(names), 2), np.nan, dtype=np.float32)
        visible = np.zeros(len(names), dtype=bool)
        for k, label in enumerate(keypoints.names):
            xy[names.index(label)] = keypoints.xy[k]
            visible[names.index(label)] = keypoints.visible[k]
        if size is not None:
            for k in (int(i) for i in np.flatnonzero(visible)):
                x, y = float(xy[k, 0]), float(xy[k, 1])
                if not (0 <= x <= size[1] and 0 <= y <= size[0]):
                    raise RetraceError(
                        f"{where}: keypoint {names[k]} of frame {index} is at x {x:g}, y {y:g}, outside the "
                        f"{size[1]}x{size[0]} frame. "
                        'Correct it, or mark it "visible": false.'
                    )
        result[index] = Keypoints(tuple(names), xy, visible, edges)
    if not next(iter(result.values())).visible.any():
        raise RetraceError(f"{where} has no visible keypoint on its first frame. Label at least one.")
    return result
