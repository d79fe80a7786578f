"""Any label a person can give, brought to one shape: which frames are labelled, and with what."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrace.errors import RetraceError, UsageError
from retrace.files import open_image
from retrace.formats.boxes import Boxes, boxes_from_object, read_boxes
from retrace.formats.davis_png import Mask, mask_from_array, read_mask
from retrace.formats.keypoints import Keypoints, keypoints_from_object, read_keypoints
from retrace.formats.tables import read_any_json, read_json, read_text
from retrace.formats.textures import Texture, read_texture, texture_from_array
from retrace.formats.tools import is_tool_json, read_tool_json, read_tool_xml

Kind = Literal["mask", "parts", "keypoints", "boxes", "texture"]
"""What a label is. "parts" are masks whose ids are classes (VIP); they are carried exactly like objects."""
Label = Mask | Keypoints | Boxes | Texture
IMAGE_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".jpg", ".jpeg")
FLAT_COLOURS = 8
"""An RGBA image with at most so many opaque colours is a mask, with more a painted texture."""


@dataclass(frozen=True)
class LabelSet:
    """Labelled frames of one video: position from 0 -> label, in order; `sha256` identifies what was given."""

    kind: Kind
    frames: dict[int, Label]
    source: str
    sha256: str

    @property
    def first(self) -> int:
        """Position of the earliest labelled frame."""
        return next(iter(self.frames))


def read_labels(
    labels: str | Path | NDArray[np.generic] | Mapping[Any, Any],
    *,
    size: tuple[int, int],
    num_frames: int | None = None,
    names: Sequence[str] | None = None,
    kind: Kind | Literal["auto"] = "auto",
) -> LabelSet:
    """Read labels from whatever a person has.

    Args:
        labels: an image (mask, part map, RGBA texture) for frame 0; a folder of masks named like frames (frame
            folder) or by
            frame number (video); a keypoint or box file (JSON, CSV); what a labelling tool exported (COCO and Label
            Studio as JSON, CVAT as XML, see `formats.tools`); ids (H, W), colours (H, W, 3) or texture
            (H, W, 4) as array; the content of such a JSON as dict; a dict of frame position -> array.
        size: (H, W) of the frames.
        num_frames: length of the video when known; labels beyond it are refused.
        names: frame names in order, for a folder of frames; None for a video file.
        kind: what the labels are; "auto" tells by the file.

    Errors: RetraceError for wrong content (see the readers), frames that the video does not have, more
        labelled frames than frames;
        UsageError for a `kind` that does not fit the file.
    """
    if kind != "auto" and kind not in get_args(Kind):
        raise UsageError(f"Label kind {kind!r} is unknown. Choose from auto, {', '.join(get_args(Kind))}.")
    if isinstance(labels, (str, Path)):
        path = Path(labels)
        if not path.exists():
            raise RetraceError(
                f"There are no labels at {path}. Give a mask PNG, a folder of masks, or a JSON or CSV file."
            )
        found = (
            _from_folder(path, size, names, num_frames, kind)
            if path.is_dir()
            else _from_file(path, size, kind, names)
        )
    elif isinstance(labels, np.ndarray):
        found = LabelSet(
            _array_kind(labels, kind), {0: _array_label(labels, size, kind)}, "array", _array_sha(labels)
        )
    elif isinstance(labels, Mapping):
        found = _from_mapping(labels, size, kind)
    else:
        raise UsageError(
            f"Labels of type {type(labels).__name__} are not understood. Give a path, an array or a dict."
        )
    if num_frames is not None:
        if len(found.frames) > num_frames:
            raise RetraceError(
                f"{found.source} labels {len(found.frames)} frames, the video has {num_frames}. Give the "
                "labels of this video."
            )
        last = max(found.frames)
        if last >= num_frames:
            raise RetraceError(
                f"{found.source} labels frame {last}, but the video's frames are 0 to {num_frames - 1}. "
                "Give the labels of this video."
            )
    return found


def _from_file(path: Path, size: tuple[int, int], kind: str, frames: Sequence[str] | None) -> LabelSet:
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    suffix = path.suffix.lower()
    if suffix not in (".json", ".csv", ".xml", *IMAGE_SUFFIXES):
        raise RetraceError(
            f"Labels {path} have the ending {suffix or '(none)'}, which is no label format. Give a mask or "
            "texture PNG, a JSON or CSV, or CVAT's XML."
        )
    content = read_any_json(path, "label") if suffix == ".json" else None
    if suffix == ".xml" or is_tool_json(content):
        if kind == "texture":
            raise UsageError(f"{path} holds no painted texture, which is an image. Choose another --kind.")
        told, labels = (
            read_tool_xml(read_text(path, "label"), str(path), size=size, names=frames, kind=kind)
            if suffix == ".xml"
            else read_tool_json(content, str(path), size=size, names=frames, kind=kind)
        )
        return LabelSet("parts" if kind == "parts" else told, dict(labels), str(path), sha)
    actual = _file_kind(path, suffix, kind)
    if suffix in (".json", ".csv"):
        if actual not in ("keypoints", "boxes"):
            raise UsageError(
                f"{path} is a {suffix[1:].upper()} file; labels of kind {actual} are images. Choose another --kind."
            )
        found: Mapping[int, Label] = (
            read_boxes(path, size=size) if actual == "boxes" else read_keypoints(path, size=size)
        )
        return LabelSet(actual, dict(found), str(path), sha)
    if actual in ("keypoints", "boxes"):
        raise UsageError(
            f"{path} is an image; labels of kind {actual} are JSON or CSV. Choose another --kind."
        )
    label: Label = read_texture(path, size=size) if actual == "texture" else read_mask(path, size=size)
    return LabelSet(actual, {0: label}, str(path), sha)


def _file_kind(path: Path, suffix: str, kind: str) -> Kind:
    if kind != "auto":
        return kind  # type: ignore[return-value]  # checked against Kind by the caller
    if suffix == ".json":
        content = read_json(path, "label")
        return _object_kind(content, f"{path}")
    if suffix == ".csv":
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            columns = {c.strip().lower() for c in file.readline().split(",")}
        return "boxes" if {"w", "h"} <= columns else "keypoints"
    return "texture" if _looks_painted(open_image(path, "label")) else "mask"


def _looks_painted(image: Image.Image) -> bool:
    """Tell a painted RGBA texture (many colours on transparent ground) from a mask that happens to have alpha."""
    if image.mode not in ("RGBA", "LA"):
        return False
    rgba = np.asarray(image.convert("RGBA"))
    opaque = rgba[..., 3] == 255
    if opaque.all():
        return False
    return len(np.unique(rgba[opaque][:, :3], axis=0)) > FLAT_COLOURS


def _object_kind(content: Mapping[Any, Any], where: str) -> Kind:
    frames = content.get("frames")
    entry = (
        frames[0] if isinstance(frames, Sequence) and frames and isinstance(frames[0], Mapping) else content
    )
    if "boxes" in entry:
        return "boxes"
    if "keypoints" in entry or "annotations" in content:
        return "keypoints"
    raise RetraceError(
        f'{where} has neither "keypoints" nor "boxes". Give {{"keypoints": [...]}} or {{"boxes": [...]}}.'
    )


def _from_folder(
    path: Path, size: tuple[int, int], names: Sequence[str] | None, num_frames: int | None, kind: str
) -> LabelSet:
    if kind not in ("auto", "mask", "parts"):
        raise UsageError(
            f"{path} is a folder, which holds masks; labels of kind {kind} are one file. Name that file."
        )
    files = sorted(
        p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
    )
    if not files:
        raise RetraceError(
            f"Label folder {path} holds no images. Put masks there, named like the frames they label."
        )
    if num_frames is not None and len(files) > num_frames:
        raise RetraceError(
            f"Label folder {path} holds {len(files)} masks, the video has {num_frames} frames. Remove the others."
        )
    places: dict[int, Path] = {}
    where = {name: i for i, name in enumerate(names)} if names is not None else None
    for file in files:
        if where is not None:
            position = where.get(file.stem)
            expected = (
                f"a frame of that name; frames are called {names[0]} to {names[-1]}"
                if names
                else "a frame of that name"
            )
        else:
            position = int(file.stem) if file.stem.isascii() and file.stem.isdigit() else None
            expected = "its frame number, as in 00000.png"
        if position is None:
            raise RetraceError(f"Mask {file} belongs to no frame: expected {expected}. Rename or remove it.")
        if position in places:
            raise RetraceError(
                f"Masks {places[position].name} and {file.name} in {path} label the same frame. Keep one."
            )
        places[position] = file
    digest = hashlib.sha256()
    frames: dict[int, Label] = {}
    for position, file in sorted(places.items()):
        frames[position] = read_mask(file, size=size, allow_empty=bool(frames))
        digest.update(f"{position}:".encode() + file.read_bytes())
    return LabelSet("parts" if kind == "parts" else "mask", frames, str(path), digest.hexdigest())


def _from_mapping(labels: Mapping[Any, Any], size: tuple[int, int], kind: str) -> LabelSet:
    if labels and all(isinstance(key, (int, np.integer)) for key in labels):
        frames: dict[int, Label] = {}
        digest = hashlib.sha256()
        kinds: set[Kind] = set()
        for position, array in sorted(labels.items()):
            if position < 0 or not isinstance(array, np.ndarray):
                raise RetraceError(
                    f"Label of frame {position} is {type(array).__name__}; expected an array for a frame from 0 on."
                )
            frames[int(position)] = _array_label(
                array, size, kind, allow_empty=bool(frames), name=f"Label of frame {position}"
            )
            kinds.add(_array_kind(array, kind))
            digest.update(f"{position}:{_array_sha(array)}".encode())
        if len(kinds) > 1:
            raise RetraceError(
                f"The labelled frames mix {' and '.join(sorted(kinds))}. Give one kind of label per run."
            )
        return LabelSet(kinds.pop(), frames, "dict of arrays", digest.hexdigest())
    actual = _object_kind(labels, "The label dict") if kind == "auto" else kind
    if actual not in ("keypoints", "boxes"):
        raise UsageError(f"Labels of kind {actual} are arrays or images, not a dict. Choose another kind.")
    text = json.dumps(labels, sort_keys=True, default=float).encode()
    sha = hashlib.sha256(text).hexdigest()
    if actual == "boxes":
        return LabelSet("boxes", dict(boxes_from_object(labels, size=size)), "The list of boxes", sha)
    return LabelSet("keypoints", dict(keypoints_from_object(labels, size=size)), "The list of keypoints", sha)


def _array_kind(array: NDArray[Any], kind: str) -> Kind:
    if kind in ("keypoints", "boxes"):
        raise UsageError(f"Labels of kind {kind} are a dict or a file, not an array. Choose another kind.")
    if kind == "auto":
        return "texture" if array.ndim == 3 and array.shape[2] == 4 else "mask"
    return kind  # type: ignore[return-value]  # checked against Kind by the caller


def _array_label(
    array: NDArray[Any],
    size: tuple[int, int],
    kind: str,
    *,
    allow_empty: bool = False,
    name: str = "The label array",
) -> Label:
    if _array_kind(array, kind) == "texture":
        return texture_from_array(array, size=size, name=name)
    return mask_from_array(array, size=size, allow_empty=allow_empty, name=name)


def _array_sha(array: NDArray[Any]) -> str:
    head = f"{array.shape}{array.dtype}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()
