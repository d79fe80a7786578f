"""Labels that labelling tools exported, in: COCO's JSON, CVAT's XML 1.1, Label Studio's JSON.

* **COCO**: `segmentation` (polygons, run lengths), or `bbox` where an annotation has none; `keypoints`.
* **CVAT**, "for images" and "for video": `mask`, `polygon`, `box`, `points` of one point. Of a track the key frames
  that are not outside count.
* **Label Studio**: `brushlabels`, `polygonlabels`, `rectanglelabels`, `keypointlabels` of images, `videorectangle` of
  videos; of a task the first annotation that was not skipped, or without one the first prediction.

Which frame an image is says its name: in a folder of frames it is the name of one, in a video the number at its end
(`frame_000012.png`) is the frame's, counted from 0. One image without a number is frame 0.

What is called the same in several frames is the same thing; several things of one name are told apart where the file
labels one frame, or says which is which (CVAT's tracks, regions of videos): they are "dog", "dog 2", and so on. In a
mask, names that are numbers from 1 to 254 are the ids; otherwise ids count from 1 in the order of the file. Where masks
overlap the later one is in front. A pixel belongs to a polygon when its centre is inside (even-odd rule).

Source: cocodataset.org "Data format"; docs.cvat.ai "XML annotation format"; labelstud.io's export format and tags.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from retrace.errors import RetraceError, UsageError
from retrace.formats.boxes import Boxes, boxes_from_object
from retrace.formats.davis_png import MAX_ID, Mask, davis_palette
from retrace.formats.keypoints import Keypoints, keypoints_from_object
from retrace.formats.rle import brush_mask, coco_mask, from_runs

Kind = Literal["mask", "keypoints", "boxes"]
Size = tuple[int, int]


@dataclass(frozen=True)
class _Thing:
    """One object, keypoint or box of a frame."""

    kind: Kind
    label: str
    value: Any
    """A mask's bits, row by row (a file may hold thousands of masks); x, y; or x, y, w, h. Pixels, the left top corner
    of the frame is 0, 0."""
    owner: str | None = None
    """Which thing it is in every frame, where the file says so."""


def _drawn(label: str, mask: NDArray[np.bool_], owner: str | None = None) -> _Thing:
    return _Thing("mask", label, np.packbits(mask), owner)


@dataclass(frozen=True)
class _Image:
    """What is labelled in one frame."""

    name: str
    frame: int | None
    """Its position, where the file counts frames."""
    things: list[_Thing] = field(default_factory=list)


def is_tool_json(content: Any) -> bool:
    """Whether a JSON file is of such a tool: Label Studio's list of tasks, or COCO.

    COCO with the keypoints of one image is a keypoint file, which `formats.keypoints` reads.
    """
    if isinstance(content, list):
        return True
    found = content.get("annotations") if isinstance(content, Mapping) else None
    if not isinstance(found, list):
        return False
    posed = [a for a in found if isinstance(a, Mapping) and a.get("keypoints")]
    return not posed or len({str(a.get("image_id")) for a in posed}) > 1


def read_tool_json(
    content: Any, where: str, *, size: Size, names: Sequence[str] | None, kind: str = "auto"
) -> tuple[Kind, dict[int, Mask] | dict[int, Keypoints] | dict[int, Boxes]]:
    """Labels of a COCO or Label Studio file.

    Args:
        content: of the JSON, for which `is_tool_json` holds.
        where: what messages call it.
        size: (H, W) of the frames.
        names: of the frames of a folder; None for a video.
        kind: "mask", "parts", "keypoints" or "boxes" where the file holds several; "auto" takes the only one.

    Returns: the kind, and frame -> label, in order.

    Errors: RetraceError for content that is none of the tool's, images of another size, frames that are not there,
        things that cannot be told apart; UsageError for a kind that the file does not have, or when it has several.
    """
    tool = "Label Studio" if isinstance(content, list) else "COCO"
    try:
        images = list((_labelstudio if isinstance(content, list) else _coco)(content, where, size))
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise _foreign(where, tool, error) from error
    return _labels(images, where, size, names, kind)


def read_tool_xml(
    text: str, where: str, *, size: Size, names: Sequence[str] | None, kind: str = "auto"
) -> tuple[Kind, dict[int, Mask] | dict[int, Keypoints] | dict[int, Boxes]]:
    """Labels of a CVAT file; arguments, result and errors as of `read_tool_json`, but for the text of the XML."""
    try:
        images = list(_cvat(ElementTree.fromstring(text), where, size))
    except (ElementTree.ParseError, KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
        raise _foreign(where, "CVAT (XML 1.1)", error) from error
    return _labels(images, where, size, names, kind)


def polygon_mask(xy: NDArray[np.floating[Any]], size: Size) -> NDArray[np.bool_]:
    """The pixels (H, W) whose centres lie inside a polygon (n, 2) of pixels, left top corner 0, 0; even-odd rule."""
    mask = np.zeros(size, np.bool_)
    x, y = xy.astype(np.float64).T
    x2, y2 = np.roll(x, -1), np.roll(y, -1)
    for row in range(max(0, math.floor(y.min())), min(size[0], math.ceil(y.max()))):
        centre = row + 0.5
        crossing = (y <= centre) != (y2 <= centre)
        ends = x[crossing] + (centre - y[crossing]) / (y2 - y)[crossing] * (x2 - x)[crossing]
        columns = np.ceil(np.sort(ends) - 0.5).clip(0, size[1]).astype(int)
        for first, last in zip(columns[::2], columns[1::2], strict=True):
            mask[row, first:last] = True
    return mask


def _coco(content: Mapping[str, Any], where: str, size: Size) -> Iterator[_Image]:
    names = {c["id"]: c for c in content.get("categories", [])}
    images: dict[Any, _Image] = {}
    for image in content["images"]:
        _check_size(f"{where}, image {image['file_name']}", image.get("width"), image.get("height"), size)
        images[image["id"]] = _Image(str(image["file_name"]), None)
    for annotation in content["annotations"]:
        category = names.get(annotation["category_id"], {})
        label = str(category.get("name", annotation["category_id"]))
        things = images[annotation["image_id"]].things
        if annotation.get("keypoints"):
            points = np.array(annotation["keypoints"], dtype=np.float64).reshape(-1, 3)
            joints = category.get("keypoints") or range(len(points))
            for joint, (x, y, seen) in zip(joints, points.tolist(), strict=True):
                if seen > 0:
                    things.append(_Thing("keypoints", str(joint), (x + 0.5, y + 0.5)))
        elif outline := annotation.get("segmentation"):
            things.append(_drawn(label, _coco_outline(outline, size)))
        elif annotation.get("bbox"):
            things.append(_Thing("boxes", label, annotation["bbox"]))
    yield from images.values()


def _coco_outline(outline: Any, size: Size) -> NDArray[np.bool_]:
    if isinstance(outline, Mapping):
        height, width = outline["size"]
        if (height, width) != size:
            raise ValueError(f"a mask of {width}x{height} pixels, expected {size[1]}x{size[0]}")
        return coco_mask(size, outline["counts"])
    parts = [polygon_mask(np.array(flat, dtype=np.float64).reshape(-1, 2), size) for flat in outline]
    return np.asarray(np.any(parts, axis=0))


def _cvat(root: ElementTree.Element, where: str, size: Size) -> Iterator[_Image]:
    if root.tag != "annotations":
        raise ValueError(f"it begins with <{root.tag}>, expected <annotations>")
    whole = root.find(".//original_size")
    if whole is not None:
        _check_size(where, whole.findtext("width"), whole.findtext("height"), size)
    for image in root.iterfind("image"):
        _check_size(f"{where}, image {image.get('name')}", image.get("width"), image.get("height"), size)
        things = [thing for shape in image for thing in _cvat_shape(shape, shape.get("label"), None, size)]
        yield _Image(str(image.attrib["name"]), None, things)
    tracked: dict[int, _Image] = {}
    for track in root.iterfind("track"):
        for shape in track:
            if shape.get("outside") == "1" or shape.get("keyframe", "1") == "0":
                continue
            frame = int(shape.attrib["frame"])
            here = tracked.setdefault(frame, _Image(f"frame {frame}", frame))
            here.things.extend(_cvat_shape(shape, track.get("label"), track.attrib["id"], size))
    yield from tracked.values()


def _cvat_shape(
    shape: ElementTree.Element, label: str | None, owner: str | None, size: Size
) -> Iterator[_Thing]:
    name = label or ""
    if shape.tag == "mask":
        x, y, w, h = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
        if min(x, y, w, h) < 0 or x + w > size[1] or y + h > size[0]:
            raise ValueError(f"a mask at {x}, {y} of {w}x{h} pixels, outside the {size[1]}x{size[0]} frame")
        mask = np.zeros(size, np.bool_)
        counts = [int(count) for count in shape.attrib["rle"].split(",")]
        mask[y : y + h, x : x + w] = from_runs(counts, w * h).reshape(h, w)
        yield _drawn(name, mask, owner)
    elif shape.tag == "polygon":
        yield _drawn(name, polygon_mask(_cvat_points(shape), size), owner)
    elif shape.tag == "box":
        x0, y0, x1, y1 = (float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        yield _Thing("boxes", name, (x0, y0, x1 - x0, y1 - y0), owner)
    elif shape.tag == "points":
        points = _cvat_points(shape)
        if len(points) != 1:
            raise ValueError(f"{name} has {len(points)} points in one shape; expected a shape for each point")
        yield _Thing("keypoints", name, tuple(points[0].tolist()), owner)
    elif shape.tag != "tag":  # which is about the whole image
        raise ValueError(f"{name} is a {shape.tag}; expected masks, polygons, boxes or points")


def _cvat_points(shape: ElementTree.Element) -> NDArray[np.float64]:
    pairs = [pair.split(",") for pair in shape.attrib["points"].split(";")]
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


def _labelstudio(tasks: list[Any], where: str, size: Size) -> Iterator[_Image]:
    for task in tasks:
        done = [a for a in task.get("annotations") or [] if not a.get("was_cancelled")]
        done = done or task.get("predictions") or [{"result": []}]
        address = next((str(v) for v in task["data"].values() if isinstance(v, str)), "")
        image = _Image(address, None)
        tracked: dict[int, _Image] = {}
        for region in done[0]["result"]:
            kind = region["type"]
            if kind in _NO_PLACE:
                continue
            value = region["value"]
            _check_size(
                f"{where}, {address}", region.get("original_width"), region.get("original_height"), size
            )
            if kind == "videorectangle":
                for box in value["sequence"]:
                    frame = int(box["frame"]) - 1
                    here = tracked.setdefault(frame, _Image(f"frame {frame}", frame))
                    label = str(value["labels"][0])
                    here.things.append(_Thing("boxes", label, _percent_box(box, size), str(region["id"])))
            elif kind in _REGIONS:
                image.things.append(_region(kind, value, size))
            else:
                raise ValueError(
                    f"a region is of type {kind}; expected {', '.join(_REGIONS)} or videorectangle"
                )
        yield image
        yield from tracked.values()


_REGIONS = ("brushlabels", "polygonlabels", "rectanglelabels", "keypointlabels")
_NO_PLACE = ("choices", "textarea", "rating", "number", "datetime", "taxonomy", "relation", "timelinelabels")
"""Types of results that say something about a task and lie nowhere in a frame."""


def _region(kind: str, value: Mapping[str, Any], size: Size) -> _Thing:
    label = str(value[kind][0])
    scale = np.array([size[1], size[0]]) / 100
    if kind == "brushlabels":
        return _drawn(label, brush_mask(value["rle"], size))
    if kind == "polygonlabels":
        points = np.array(value["points"], dtype=np.float64).reshape(-1, 2)
        return _drawn(label, polygon_mask(points * scale, size))
    if kind == "rectanglelabels":
        return _Thing("boxes", label, _percent_box(value, size))
    xy = np.array([value["x"], value["y"]], dtype=np.float64) * scale
    return _Thing("keypoints", label, tuple(xy.tolist()))


def _percent_box(value: Mapping[str, Any], size: Size) -> tuple[float, ...]:
    if value.get("rotation"):
        raise ValueError(f"a box is turned by {value['rotation']} degrees; boxes here are upright")
    percent = np.array([value[key] for key in ("x", "y", "width", "height")], dtype=np.float64)
    return tuple((percent * [size[1], size[0], size[1], size[0]] / 100).tolist())


def _labels(
    images: Sequence[_Image], where: str, size: Size, names: Sequence[str] | None, kind: str
) -> tuple[Kind, dict[int, Mask] | dict[int, Keypoints] | dict[int, Boxes]]:
    """The things of one kind as labels of frames."""
    there = [k for k in get_args(Kind) if any(thing.kind == k for image in images for thing in image.things)]
    wanted = "mask" if kind == "parts" else kind
    if not there:
        raise RetraceError(f"{where} labels nothing. Label at least one frame and export it again.")
    if wanted == "auto" and len(there) > 1:
        raise UsageError(f"{where} holds {' and '.join(there)}. Choose one with --kind.")
    if wanted not in ("auto", *there):
        raise UsageError(f"{where} holds {' and '.join(there)}, no {kind}. Choose another --kind.")
    chosen: Kind = there[0] if wanted == "auto" else wanted  # type: ignore[assignment]  # it is one of `there`
    labelled = [image for image in images if any(thing.kind == chosen for thing in image.things)]
    frames: dict[int, list[_Thing]] = {}
    for image in labelled:
        frame = _position(image, where, names, alone=len(labelled) == 1)
        if frame in frames:
            raise RetraceError(f"{where} labels frame {frame} twice, as {image.name} too. Keep one of them.")
        frames[frame] = [thing for thing in image.things if thing.kind == chosen]
    called = _called(dict(sorted(frames.items())), where)
    if chosen == "mask":
        return chosen, _masks(called, where, size)
    listed = []
    for frame, things in called.items():
        keys = ("x", "y") if chosen == "keypoints" else ("x", "y", "w", "h")
        entries = [{"name": name, **dict(zip(keys, v, strict=True))} for name, v in things]
        listed.append({"index": frame, chosen: entries})
    if chosen == "keypoints":
        return chosen, keypoints_from_object({"frames": listed}, size=size, name=where)
    return chosen, boxes_from_object({"frames": listed}, size=size, name=where)


def _position(image: _Image, where: str, names: Sequence[str] | None, *, alone: bool) -> int:
    """Which frame an image is."""
    stem = re.split(r"[/\\=]", image.name)[-1].rpartition(".")[0] or image.name
    if names is not None:
        places = {name: position for position, name in enumerate(names)}
        if image.frame is not None:
            return image.frame
        bare = re.sub(r"^[0-9a-f]{8}-", "", stem)  # Label Studio puts this before what was uploaded
        found = next((places[name] for name in (stem, bare) if name in places), None)
        if found is None:
            raise RetraceError(
                f"{where} labels {image.name}, which is no frame; frames are called {names[0]} to {names[-1]}. "
                "Give the frames that were labelled."
            )
        return found
    number = re.search(r"([0-9]{1,9})$", stem)
    if image.frame is None and number is None and not alone:
        raise RetraceError(
            f"{where} labels several images, and {image.name} does not end in the number of its frame, as "
            "frame_000012.png does. Label one frame, or give a folder of frames with these names."
        )
    return image.frame if image.frame is not None else int(number[1]) if number is not None else 0


def _called(frames: Mapping[int, list[_Thing]], where: str) -> dict[int, list[tuple[str, Any]]]:
    """Frame -> name and value of every thing, the same thing by the same name in every frame."""
    names: dict[tuple[str, str], str] = {}  # label and owner -> name
    taken: set[str] = set()
    result: dict[int, list[tuple[str, Any]]] = {}
    for frame, things in frames.items():
        result[frame] = []
        count: dict[str, int] = {}
        for thing in things:
            count[thing.label] = number = count.get(thing.label, 0) + 1
            if thing.owner is None and number > 1 and len(frames) > 1:
                raise RetraceError(
                    f"{where} has several {thing.label!r} in frame {frame}, and does not say which is which in "
                    "other frames. Give each a label of its own, or export one labelled frame."
                )
            key = (thing.label, thing.owner or f"#{number}")
            if key not in names:
                tries = (thing.label if k == 1 else f"{thing.label} {k}" for k in range(1, len(taken) + 2))
                names[key] = next(name for name in tries if name not in taken)
                taken.add(names[key])
            result[frame].append((names[key], thing.value))
    return result


def _masks(frames: Mapping[int, list[tuple[str, Any]]], where: str, size: Size) -> dict[int, Mask]:
    names = list(dict.fromkeys(name for things in frames.values() for name, _ in things))
    numbered = all(re.fullmatch(r"[1-9][0-9]{0,2}", name) and int(name) <= MAX_ID for name in names)
    if len(names) > MAX_ID:
        raise RetraceError(f"{where} has {len(names)} objects; {MAX_ID} can be carried. Label fewer.")
    ids = {name: int(name) if numbered else k for k, name in enumerate(names, start=1)}
    palette = davis_palette()
    masks = {}
    for frame, things in frames.items():
        drawn = np.zeros(size, np.uint8)
        for name, bits in things:
            drawn[np.unpackbits(bits, count=drawn.size).reshape(size) > 0] = ids[name]
        red_green_blue = {int(i): tuple(map(int, palette[i])) for i in np.unique(drawn) if i}
        masks[frame] = Mask(drawn, red_green_blue)  # type: ignore[arg-type]  # three numbers each
        if len(masks) == 1 and not drawn.any():
            raise RetraceError(f"{where}: no object of frame {frame} has a pixel. Label at least one.")
    return masks


def _check_size(where: str, width: Any, height: Any, size: Size) -> None:
    if width is None or height is None:
        return
    if (int(height), int(width)) != size:
        raise RetraceError(
            f"{where} is {int(width)}x{int(height)} pixels, the video's frames are {size[1]}x{size[0]}. Label the "
            "frames at their own size."
        )


def _foreign(where: str, tool: str, error: Exception) -> RetraceError:
    return RetraceError(
        f"{where} is not what {tool} exports ({type(error).__name__}: {error}). Export it again."
    )
