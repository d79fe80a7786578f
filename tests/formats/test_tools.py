"""Files of labelling tools as labels: polygons by brute force, things told apart, sentences for what does not fit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from retrace.errors import RetraceError, UsageError
from retrace.formats.labels import LabelSet, read_labels
from retrace.formats.rle import brush, brush_mask
from retrace.formats.tools import polygon_mask

H, W = 12, 18
STAR = [[2.2, 1.0], [15.7, 3.3], [6.1, 10.9], [9.0, 0.4], [12.6, 11.5]]
"""A polygon that crosses itself."""


def inside(points: list[list[float]]) -> NDArray[np.bool_]:
    """Even-odd rule at every pixel's centre, one by one."""
    mask = np.zeros((H, W), bool)
    for row in range(H):
        for column in range(W):
            x, y, odd = column + 0.5, row + 0.5, False
            for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
                if (y0 <= y) != (y1 <= y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
                    odd = not odd
            mask[row, column] = odd
    return mask


def labels(tmp_path: Path, content: Any, **settings: Any) -> LabelSet:
    """Read from a file, XML where a text is given."""
    path = tmp_path / ("labels.xml" if isinstance(content, str) else "labels.json")
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_labels(path, size=(H, W), **settings)


def coco(*annotations: dict[str, Any], files: tuple[str, ...] = ("frame_000003.jpg",)) -> dict[str, Any]:
    """Images of our size and the categories 7, dog, and 9, cat."""
    return {
        "images": [{"id": k, "file_name": f, "width": W, "height": H} for k, f in enumerate(files)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 9, "name": "cat"}],
        "annotations": [{"image_id": 0, **annotation} for annotation in annotations],
    }


def cvat(body: str) -> str:
    """One image of our size, or tracks."""
    return f"<?xml version='1.0'?><annotations><version>1.1</version>{body}</annotations>"


def image(shapes: str, name: str = "a/frame_000003.png", width: int = W) -> str:
    """An image of CVAT."""
    return f"<image id='0' name='{name}' width='{width}' height='{H}'>{shapes}</image>"


def task(*regions: dict[str, Any], name: str = "/data/upload/1/0a1b2c3d-00003.png") -> dict[str, Any]:
    """A task of Label Studio with one annotation."""
    whole = [{"id": "r", "original_width": W, "original_height": H, **region} for region in regions]
    return {"data": {"image": name}, "annotations": [{"result": whole}]}


FLAT = [v for point in STAR for v in point]
PERCENT = [[100 * x / W, 100 * y / H] for x, y in STAR]
POLYGON = ";".join(f"{x},{y}" for x, y in STAR)
SQUARE = [0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0, 4.0]


def test_polygon_is_what_lies_inside() -> None:
    """A star, and one that reaches out of the frame on all sides."""
    np.testing.assert_array_equal(polygon_mask(np.array(STAR), (H, W)), inside(STAR))
    wide = [[-4.0, 5.0], [8.0, -4.5], [22.0, 6.0], [9.0, 15.0]]
    np.testing.assert_array_equal(polygon_mask(np.array(wide), (H, W)), inside(wide))
    assert 0 < inside(wide).sum() < H * W


@pytest.mark.parametrize("content", ["coco", "cvat", "labelstudio"])
def test_a_polygon_of_each_tool(tmp_path: Path, content: str) -> None:
    """The same pixels, on the frame that the image's name says; one object, called 1."""
    given = {
        "coco": coco({"category_id": 7, "segmentation": [FLAT], "bbox": [1, 2, 3, 4]}),
        "cvat": cvat(image(f"<tag label='day'/><polygon label='dog' points='{POLYGON}'/>")),
        "labelstudio": [
            task(
                {"type": "choices", "value": {"choices": ["day"]}},
                {"type": "polygonlabels", "value": {"points": PERCENT, "polygonlabels": ["dog"]}},
            )
        ],
    }[content]
    found = labels(tmp_path, given)
    assert (found.kind, list(found.frames)) == ("mask", [3])
    np.testing.assert_array_equal(found.frames[3].ids, inside(STAR))
    names = [f"frame_{t:06d}" if content != "labelstudio" else f"{t:05d}" for t in range(2, 9)]
    assert list(labels(tmp_path, given, names=names).frames) == [1]


def test_things_of_one_name(tmp_path: Path) -> None:
    """Two dogs are two objects in one frame; in several, without a word about who is who, that is refused."""
    two = [{"category_id": 7, "segmentation": [[v + d for v in SQUARE]]} for d in (0, 5)]
    ids = labels(tmp_path, coco(*two)).frames[3].ids
    assert ids[1, 1] == 1
    assert ids[6, 6] == 2
    boxes = [{"category_id": 7, "bbox": [d, 1, 4, 3]} for d in (0, 5)]
    assert labels(tmp_path, coco(*boxes)).frames[3].names == ("dog", "dog 2")
    files = ("f1.png", "f2.png")
    with pytest.raises(RetraceError, match="several 'dog' in frame 1"):
        labels(tmp_path, coco(*two, {**two[0], "image_id": 1}, files=files))
    one = labels(tmp_path, coco(two[0], {**two[1], "image_id": 1}, files=files))
    assert [one.frames[1].ids[1, 1], one.frames[2].ids[6, 6]] == [1, 1]
    shape = "<box frame='{}' keyframe='{}' outside='{}' xtl='1' ytl='2' xbr='{}' ybr='4'/>"
    tracks = [
        "<track id='0' label='dog'>" + shape.format(2, 1, 0, 9) + shape.format(3, 0, 0, 9) + "</track>",
        "<track id='1' label='dog'>" + shape.format(2, 1, 0, 7) + shape.format(5, 1, 1, 7) + "</track>",
        "<track id='2' label='cat'>" + shape.format(5, 1, 0, 8) + "</track>",
    ]
    told = labels(tmp_path, cvat("".join(tracks)))
    assert list(told.frames) == [2, 5]
    assert told.frames[2].names == ("dog", "dog 2", "cat")
    np.testing.assert_array_equal(told.frames[2].xywh, [[1, 2, 8, 2], [1, 2, 6, 2], [np.nan] * 4])


def test_what_was_skipped_does_not_count(tmp_path: Path) -> None:
    """Of a task's annotations the first that its annotator kept."""
    square = {"type": "rectanglelabels", "value": {"x": 0, "y": 0, "width": 50, "height": 25}}
    square["value"] |= {"rectanglelabels": ["dog"]}
    done = task({**square})
    done["annotations"] = [
        {"was_cancelled": True, "result": [{"type": "ellipselabels"}]},
        *done["annotations"],
    ]
    np.testing.assert_array_equal(labels(tmp_path, [done]).frames[3].xywh, [[0, 0, W / 2, H / 4]])


def test_brush_of_literal_values() -> None:
    """The stream may hold values one by one; ours has runs only. The last channel counts."""
    bits = f"{8:032b}{7:05b}" + "".join(f"{b - 1:04b}" for b in (3, 4, 8, 16))
    bits += "0" + "00" + f"{7:03b}" + "".join(f"{v:08b}" for v in (9, 9, 9, 0, 0, 0, 0, 255))
    data = [int(bits[k : k + 8].ljust(8, "0"), 2) for k in range(0, len(bits), 8)]
    assert brush_mask(data, (1, 2)).tolist() == [[False, True]]
    mask = inside(STAR)
    np.testing.assert_array_equal(brush_mask(brush(mask), (H, W)), mask)
    with pytest.raises(ValueError, match="breaks off"):
        brush_mask(brush(mask)[:-4], (H, W))


@pytest.mark.parametrize(
    ("content", "settings", "sentence"),
    [
        ("<svg/>", {}, "begins with <svg>"),
        ("<annotations><image", {}, "not what CVAT"),
        (cvat(""), {}, "labels nothing"),
        (cvat(image("", width=W + 1)), {}, f"is {W + 1}x{H} pixels"),
        (cvat(image("<polyline label='dog' points='1,1;2,2'/>")), {}, "dog is a polyline"),
        (cvat(image("<points label='dog' points='1,1;2,2'/>")), {}, "2 points in one shape"),
        (cvat(image("<mask label='a' rle='1,2' left='0' top='0' width='2' height='2'/>")), {}, "add up to 3"),
        (cvat(image("<mask label='a' rle='4' left='17' top='0' width='2' height='2'/>")), {}, "outside the"),
        (cvat(image("<box label='a' xtl='1' ytl='1' xbr='5' ybr='x'/>")), {}, "not what CVAT"),
        (cvat(image("<points label='a' points='99,1'/>")), {}, "outside the 18x12 frame"),
        (cvat(image("<polygon label='a' points='1,1;inf,2;3,inf'/>")), {}, "not what CVAT"),
        ([1], {}, "not what Label Studio"),
        ([], {}, "labels nothing"),
        ([task({"type": "ellipselabels", "value": {}})], {}, "type ellipselabels"),
        ([task({"type": "brushlabels", "value": {"rle": [1, 2], "brushlabels": ["a"]}})], {}, "breaks off"),
        ({"annotations": []}, {}, "not what COCO"),
        (coco({"category_id": 7, "segmentation": {"size": [W, H], "counts": "0"}}), {}, "mask of 12x18"),
        (coco({"category_id": 7, "segmentation": [[0.0, 0, 0.1, 0, 0, 0.1]]}), {}, "has a pixel"),
        (coco({"category_id": 7, "bbox": [1, 1, 2, 2]}), {"names": ["x", "y"]}, "which is no frame"),
        (coco({"category_id": 7, "bbox": [1, 1, 2, 2]}), {"num_frames": 3}, "labels frame 3"),
        (coco({"category_id": 7, "bbox": [1, 1, 2, 2]}), {"kind": "mask"}, "no mask. Choose another"),
        (
            coco(
                {"category_id": 7, "bbox": [1, 1, 2, 2]},
                {"category_id": 7, "bbox": [1, 1, 2, 2], "image_id": 1},
                files=("a.png", "b.png"),
            ),
            {},
            "does not end in the number of its frame",
        ),
        (
            coco({"category_id": 7, "bbox": [1, 1, 2, 2]}, {"category_id": 9, "segmentation": [SQUARE]}),
            {},
            "holds mask and boxes. Choose one",
        ),
    ],
)
def test_what_does_not_fit(tmp_path: Path, content: Any, settings: dict[str, Any], sentence: str) -> None:
    """One sentence, which names the file."""
    with pytest.raises(RetraceError, match=sentence) as caught:
        labels(tmp_path, content, **settings)
    assert "labels." in str(caught.value)
    assert isinstance(caught.value, UsageError) == ("Choose" in sentence)
