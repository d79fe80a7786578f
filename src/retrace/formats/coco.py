"""COCO: JSON of images, annotations and categories.

Masks are compressed run lengths, boxes x, y, w, h. Keypoints are x, y, v of pixels counted from 0 at their centres, so
0.5 is taken off; v = 2 was found, 0, 0, 0 was not. `score` is the confidence, as in COCO's result files.

Source: cocodataset.org, "Data format".
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from retrace.files import atomic_path
from retrace.formats.carried import Carried, CarriedFrame, found, objects
from retrace.formats.rle import bounding_box, coco_rle


def write_coco(path: Path, carried: Carried) -> int:
    """Write a result as COCO; returns the number of annotations.

    Errors: RetraceError when the file cannot be written.
    """
    height, width = carried.size
    head = {
        "info": {"description": "Labels carried by Retrace", "version": "1.0"},
        "images": [
            {"id": index + 1, "file_name": file, "width": width, "height": height}
            for index, file in carried.images
        ],
        "categories": _categories(carried),
    }
    number = 0
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        out.write(json.dumps(head)[:-1] + ', "annotations": [')
        for frame in carried.frames():
            for content in _annotations(carried, frame):
                number += 1
                entry = {"id": number, "image_id": frame.index + 1, **content, "iscrowd": 0}
                out.write((",\n" if number > 1 else "\n") + json.dumps(entry))
        out.write("\n]}\n")
    return number


def _categories(carried: Carried) -> list[dict[str, Any]]:
    if carried.kind == "keypoints":
        return [
            {
                "id": 1,
                "name": "object",
                "supercategory": "",
                "keypoints": list(carried.names),
                "skeleton": [[i + 1, j + 1] for i, j in carried.skeleton],
            }
        ]
    return [{"id": k, "name": name, "supercategory": ""} for k, name in enumerate(carried.labels, start=1)]


def _annotations(carried: Carried, frame: CarriedFrame) -> Iterator[dict[str, Any]]:
    def category(position: int) -> int:
        return carried.labels.index(carried.names[position]) + 1

    if frame.keypoints is not None:
        yield from _keypoints(frame)
    elif frame.boxes is not None:
        for position, (x, y, w, h) in found(frame.boxes):
            yield {
                "category_id": category(position),
                "bbox": [x, y, w, h],
                "area": round(w * h, 4),
                "segmentation": [],
                "score": frame.confidence[position],
            }
    else:
        for position, mask in objects(carried, frame):
            yield {
                "category_id": category(position),
                "bbox": list(bounding_box(mask)),
                "area": int(mask.sum()),
                "segmentation": coco_rle(mask),
                "score": frame.confidence[position],
            }


def _keypoints(frame: CarriedFrame) -> Iterator[dict[str, Any]]:
    assert frame.keypoints is not None
    seen = dict(found(frame.keypoints))
    if not seen:
        return
    flat: list[float] = []
    for position in range(len(frame.keypoints)):
        x, y = seen.get(position, [0.5, 0.5])
        flat += [round(x - 0.5, 3), round(y - 0.5, 3), 2 if position in seen else 0]
    places = np.array(list(seen.values()))
    low, extent = places.min(axis=0), np.ptp(places, axis=0)
    yield {
        "category_id": 1,
        "keypoints": flat,
        "num_keypoints": len(seen),
        "bbox": [round(float(v), 3) for v in (*low, *extent)],
        "area": round(float(extent.prod()), 3),
        "segmentation": [],
        "score": round(sum(frame.confidence[k] for k in seen) / len(seen), 4),
    }
