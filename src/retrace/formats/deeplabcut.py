"""DeepLabCut's CSV of keypoints, with its header of three rows: scorer, bodyparts, coords.

`write_deeplabcut` gives what `analyze_videos` leaves beside a video: x, y and likelihood of every frame.
`write_deeplabcut_labels` gives `CollectedData_<scorer>.csv`, x and y of labelled images, which `convertcsv2h5` takes.
DeepLabCut counts pixels from 0 at their centres, so 0.5 is taken off. An empty cell was not found.

Source: DeepLabCut's documentation and the layout of `labeled-data` in its example projects.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrace.files import atomic_path
from retrace.formats.carried import Carried, found

SCORER = "retrace"


def write_deeplabcut(path: Path, carried: Carried) -> int:
    """Write keypoints as DeepLabCut writes those of a whole video; returns how many were found.

    Frames before the first one of the result have empty cells, so that rows are frames.

    Errors: RetraceError when the file cannot be written.
    """
    number = 0
    with _table(path, carried.names, ("x", "y", "likelihood"), index_columns=1) as rows:
        for frame in range(carried.images[0][0]):
            rows.writerow([frame, *("", "", 0.0) * len(carried.names)])
        for place in carried.frames():
            assert place.keypoints is not None
            seen = dict(found(place.keypoints))
            number += len(seen)
            cells = [(*_centred(seen.get(k)), sure) for k, sure in enumerate(place.confidence)]
            rows.writerow([place.index, *(cell for group in cells for cell in group)])
    return number


def write_deeplabcut_labels(path: Path, carried: Carried) -> int:
    """Write keypoints as DeepLabCut writes labelled images; returns how many were found.

    Errors: RetraceError when the file cannot be written.
    """
    number = 0
    with _table(path, carried.names, ("x", "y"), index_columns=3) as rows:
        for place in carried.frames():
            assert place.keypoints is not None
            seen = dict(found(place.keypoints))
            number += len(seen)
            cells = [_centred(seen.get(k)) for k in range(len(carried.names))]
            rows.writerow([*place.file.split("/"), *(cell for group in cells for cell in group)])
    return number


@contextmanager
def _table(
    path: Path, names: Sequence[str], coordinates: Sequence[str], *, index_columns: int
) -> Iterator[Any]:
    """A CSV writer behind the three rows of the header; `index_columns` come before the first keypoint."""

    def header(title: str, cells: Iterable[str]) -> list[str]:
        return [title, *[""] * (index_columns - 1), *cells]

    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(header("scorer", [SCORER] * (len(names) * len(coordinates))))
        rows.writerow(header("bodyparts", [name for name in names for _ in coordinates]))
        rows.writerow(header("coords", [*coordinates] * len(names)))
        yield rows


def _centred(place: list[float] | None) -> tuple[float | str, float | str]:
    return ("", "") if place is None else (round(place[0] - 0.5, 3), round(place[1] - 0.5, 3))
