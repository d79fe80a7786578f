"""CVAT's XML, version 1.1.

Masks are written "for images", a `mask` per object and frame, because CVAT has no masks in tracks. Boxes and keypoints
are written "for video", a `track` each with every frame a key frame; where one is lost it is `outside`. Coordinates are
pixels, the left top corner of the first pixel is 0, 0. In CVAT, the task needs labels of the same names.

Source: docs.cvat.ai, "XML annotation format".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from xml.sax.saxutils import escape, quoteattr

from retrace.files import atomic_path
from retrace.formats.carried import Carried, CarriedFrame, check_xml, found, objects
from retrace.formats.rle import bounding_box, runs

_TYPES = {"mask": "mask", "boxes": "rectangle", "keypoints": "points"}


def write_cvat(path: Path, carried: Carried) -> int:
    """Write a result as CVAT's XML; returns the number of shapes.

    Errors: RetraceError when the file cannot be written, or a name holds what XML cannot hold.
    """
    check_xml(carried.names, "name")
    check_xml((file for _, file in carried.images), "frame name")
    with _document(path, carried) as out:
        return _write_images(out, carried) if carried.kind == "mask" else _write_tracks(out, carried)


@contextmanager
def _document(path: Path, carried: Carried) -> Iterator[TextIO]:
    height, width = carried.size
    mode = "annotation" if carried.kind == "mask" else "interpolation"
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        out.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        out.write(f"  <meta>\n    <task>\n      <size>{carried.length}</size>\n      <mode>{mode}</mode>\n")
        out.write("      <labels>\n")
        for name in carried.labels:
            out.write(
                f"        <label><name>{escape(name)}</name><type>{_TYPES[carried.kind]}</type>"
                "<attributes></attributes></label>\n"
            )
        out.write("      </labels>\n")
        out.write(
            f"      <original_size><width>{width}</width><height>{height}</height></original_size>\n"
            "    </task>\n  </meta>\n"
        )
        yield out
        out.write("</annotations>\n")


def _write_images(out: TextIO, carried: Carried) -> int:
    height, width = carried.size
    number = 0
    for frame in carried.frames():
        out.write(
            f'  <image id="{frame.index}" name={quoteattr(frame.file)} width="{width}" height="{height}">\n'
        )
        for position, mask in objects(carried, frame):
            x, y, w, h = bounding_box(mask)
            counts = ", ".join(map(str, runs(mask[y : y + h, x : x + w].ravel())))
            out.write(
                f'    <mask label={quoteattr(carried.names[position])} source="auto" occluded="0" rle="{counts}" '
                f'left="{x}" top="{y}" width="{w}" height="{h}" z_order="0"></mask>\n'
            )
            number += 1
        out.write("  </image>\n")
    return number


def _write_tracks(out: TextIO, carried: Carried) -> int:
    shapes: list[list[str]] = [[] for _ in carried.names]
    last: dict[int, list[float]] = {}
    number = 0
    for frame in carried.frames():
        here = dict(_places(frame))
        number += len(here)
        for position in {**last, **here}:  # before it was seen a thing has no shape, after that always one
            place = here.get(position, last.get(position, []))
            shapes[position].append(_shape(carried.kind, frame.index, place, lost=position not in here))
        last |= here
    for position, lines in enumerate(shapes):
        if lines:
            out.write(f'  <track id="{position}" label={quoteattr(carried.names[position])} source="auto">\n')
            out.writelines(lines)
            out.write("  </track>\n")
    return number


def _places(frame: CarriedFrame) -> Iterator[tuple[int, list[float]]]:
    places = frame.keypoints if frame.keypoints is not None else frame.boxes
    assert places is not None
    return found(places)


def _shape(kind: str, frame: int, place: list[float], *, lost: bool) -> str:
    common = f'frame="{frame}" keyframe="1" outside="{int(lost)}" occluded="0"'
    if kind == "boxes":
        x, y, w, h = place
        return (
            f'    <box {common} xtl="{x:.2f}" ytl="{y:.2f}" xbr="{x + w:.2f}" ybr="{y + h:.2f}" z_order="0">'
            "</box>\n"
        )
    x, y = place
    return f'    <points {common} points="{x:.2f},{y:.2f}" z_order="0"></points>\n'
