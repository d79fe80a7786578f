"""Label Studio's JSON: tasks with predictions, which a person accepts or corrects.

Masks are brush strokes (`brushlabels`) and keypoints points (`keypointlabels`) of one task per frame. Boxes are one
`videorectangle` per thing in one task for the video; where the frames are images they are `rectanglelabels` of one
task per frame. Coordinates are percent of the frame's width and height, frames of a video count from 1.

`interface` gives the labelling interface that the file fits, to be pasted into the project's settings.

Source: labelstud.io/guide/predictions and the tags' pages.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from retrace.files import atomic_path
from retrace.formats.carried import Carried, CarriedFrame, check_xml, found, objects
from retrace.formats.rle import brush

_POINT_WIDTH = 0.75
"""Percent of the frame's width that a point is drawn at."""


def write_labelstudio(path: Path, carried: Carried) -> int:
    """Write a result as tasks of Label Studio; returns the number of masks, points or boxes.

    Errors: RetraceError when the file cannot be written.
    """
    check_xml(carried.names, "name")
    number = 0
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        out.write("[")
        for place, task in enumerate(_tasks(carried)):
            number += sum(
                len(region["value"].get("sequence", [region])) for region in task["predictions"][0]["result"]
            )
            out.write((",\n" if place else "\n") + json.dumps(task))
        out.write("\n]\n")
    return number


def interface(carried: Carried) -> str:
    """The labelling interface of a project for this result."""
    labels = "".join(f"<Label value={quoteattr(name)}/>" for name in carried.labels)
    if _is_video(carried):
        return (
            f'<View><Video name="video" value="$video" framerate="{carried.fps:g}"/>'
            '<VideoRectangle name="box" toName="video"/>'
            f'<Labels name="labels" toName="video">{labels}</Labels></View>'
        )
    tag = {"mask": "BrushLabels", "keypoints": "KeyPointLabels", "boxes": "RectangleLabels"}[carried.kind]
    return (
        '<View><Image name="image" value="$image"/>'
        f'<{tag} name="label" toName="image">{labels}</{tag}></View>'
    )


def _is_video(carried: Carried) -> bool:
    """Whether the tasks are about a video; Label Studio has boxes alone in videos."""
    return carried.kind == "boxes" and carried.video is not None


def _tasks(carried: Carried) -> Iterator[dict[str, Any]]:
    if _is_video(carried):
        yield _task({"video": carried.video}, list(_rectangles(carried)))
        return
    for frame in carried.frames():
        yield _task({"image": frame.file}, list(_regions(carried, frame)))


def _task(data: dict[str, Any], regions: list[dict[str, Any]]) -> dict[str, Any]:
    scores = [region["score"] for region in regions]
    prediction = {
        "model_version": "retrace",
        "score": round(sum(scores) / len(scores), 4) if scores else 0.0,
        "result": regions,
    }
    return {"data": data, "predictions": [prediction]}


def _regions(carried: Carried, frame: CarriedFrame) -> Iterator[dict[str, Any]]:
    """What is in one frame."""
    height, width = carried.size
    for position, kind, value in _values(carried, frame):
        yield {
            "id": f"{frame.index}-{position}",
            "type": kind,
            "from_name": "label",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": frame.confidence[position],
            "value": {**value, kind: [carried.names[position]]},
        }


def _values(carried: Carried, frame: CarriedFrame) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Position, type and the rest of the value of each region."""
    if frame.masks is not None:
        for position, mask in objects(carried, frame):
            yield position, "brushlabels", {"format": "rle", "rle": brush(mask)}
    elif frame.keypoints is not None:
        for position, (x, y) in found(frame.keypoints):
            left, top = _percent(carried, x, y)
            yield position, "keypointlabels", {"x": left, "y": top, "width": _POINT_WIDTH}
    elif frame.boxes is not None:
        for position, box in found(frame.boxes):
            yield position, "rectanglelabels", _rectangle(carried, box)


def _rectangles(carried: Carried) -> Iterator[dict[str, Any]]:
    """One region for each box, through the whole video."""
    frames = list(carried.frames())
    for position, name in enumerate(carried.names):
        here = [
            (place, frame)
            for place, frame in enumerate(frames)
            if frame.boxes is not None and np.isfinite(frame.boxes[position]).all()
        ]
        if not here:
            continue
        followed = {place for place, _ in here}
        sequence = [
            {
                "frame": frame.index + 1,
                # A box that is not enabled is the last one until the next: nothing is drawn in between.
                "enabled": place + 1 in followed,
                **_rectangle(carried, frame.boxes[position].tolist()),
                "time": round(frame.index / carried.fps, 4),
            }
            for place, frame in here
            if frame.boxes is not None
        ]
        yield {
            "id": f"box-{position}",
            "type": "videorectangle",
            "from_name": "box",
            "to_name": "video",
            "score": round(sum(frame.confidence[position] for _, frame in here) / len(here), 4),
            "value": {
                "framesCount": carried.length,
                "duration": round(carried.length / carried.fps, 4),
                "sequence": sequence,
                "labels": [name],
            },
        }


def _rectangle(carried: Carried, box: list[float]) -> dict[str, Any]:
    x, y, w, h = box
    left, top = _percent(carried, x, y)
    width, height = _percent(carried, w, h)
    return {"x": left, "y": top, "width": width, "height": height, "rotation": 0}


def _percent(carried: Carried, x: float, y: float) -> tuple[float, float]:
    height, width = carried.size
    return round(100 * x / width, 4), round(100 * y / height, 4)
