"""Take carried labels to a labelling tool: the library function behind `retrace data export`."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from retrace.datasets.masks import read_ids
from retrace.datasets.records import frame_files
from retrace.errors import RetraceError, UsageError
from retrace.formats.carried import EXPORTS, Carried, CarriedFrame, renamed
from retrace.formats.coco import write_coco
from retrace.formats.cvat import write_cvat
from retrace.formats.deeplabcut import write_deeplabcut, write_deeplabcut_labels
from retrace.formats.labelstudio import interface, write_labelstudio
from retrace.formats.tables import read_json
from retrace.verbs.output import RESULT

Progress = Callable[[Iterable[CarriedFrame]], Iterable[CarriedFrame]]

_KINDS: dict[str, Literal["mask", "keypoints", "boxes"]] = {
    "mask": "mask",
    "parts": "mask",
    "keypoints": "keypoints",
    "boxes": "boxes",
}
"""Kind of a run -> what the tools know; they have no word for a texture."""


@dataclass(frozen=True)
class _Tool:
    """How to write for a tool: the writer, which kinds it knows, what it calls frame `index` of a video of n frames."""

    write: Callable[[Path, Carried], int]
    kinds: tuple[str, ...] = ("mask", "keypoints", "boxes")
    frame: Callable[[int, int], str] = lambda index, count: f"{index:05d}.png"
    takes_prefix: bool = True


def _deeplabcut_image(index: int, count: int) -> str:
    """DeepLabCut's own name for a frame that it took out of a video."""
    return f"img{index:0{max(1, math.ceil(math.log10(count)))}d}.png"


TOOLS = {
    "coco": _Tool(write_coco),
    "cvat": _Tool(write_cvat, frame=lambda index, count: f"frame_{index:06d}"),
    "labelstudio": _Tool(write_labelstudio),
    "deeplabcut": _Tool(write_deeplabcut, kinds=("keypoints",), takes_prefix=False),
    "deeplabcut-labels": _Tool(
        write_deeplabcut_labels, kinds=("keypoints",), frame=_deeplabcut_image, takes_prefix=False
    ),
}
"""Name on the command line -> how."""


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: the file.
        tool: a key of `TOOLS`.
        frames: of the result.
        labels: masks, boxes or found keypoints in the file.
        names: that the tool must know.
        interface: for Label Studio, the labelling interface that fits the file; None for the others.
    """

    path: str
    tool: str
    frames: int
    labels: int
    names: list[str]
    interface: str | None = None


def export(
    result: str | Path,
    to: str,
    *,
    out: str | Path | None = None,
    rename: Mapping[str, str] | None = None,
    prefix: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Write the labels of a finished run of `propagate` or `track` as a file of a labelling tool.

    Args:
        result: the folder that the run wrote (its `--out`).
        to: "coco", "cvat", "labelstudio", "deeplabcut" (keypoints of the whole video) or "deeplabcut-labels"
            (labelled images).
        out: the file; None names it after the tool and puts it into `result`.
        rename: old name -> name in the file. Objects of a mask are called by their ids, "1", "2", ...; two of
            them may get one name.
        prefix: what comes before the names of frames and video in the file, such as the address where Label
            Studio finds them.
        overwrite: replace a file that is there.
        progress: wraps the frames while they are written, such as tqdm.

    Errors: UsageError for an unknown tool or name, a prefix where there is none, a file name of another kind;
        RetraceError for a folder that holds no finished run, files of it that are missing or damaged, a kind of
        label that the tool does not know, or an output that cannot be written.
    """
    if to not in TOOLS:
        raise UsageError(f"There is no export to {to!r}. Choose from {', '.join(TOOLS)}.")
    tool = TOOLS[to]
    if prefix is not None and not tool.takes_prefix:
        raise UsageError(f"The file for {to} names no images by an address. Leave out the prefix.")
    folder = Path(result)
    path = folder / EXPORTS[to] if out is None else Path(out)
    if path.suffix.lower() != Path(EXPORTS[to]).suffix:
        raise UsageError(
            f"{path} does not end in {Path(EXPORTS[to]).suffix}, which a file for {to} is. Give another name."
        )
    head = _head(folder)
    if path.is_dir():
        raise UsageError(f"{path} is a folder. Give the name of a file.")
    if path.exists() and not overwrite:
        raise RetraceError(f"{path} is there already. Give another name, or replace it with --overwrite.")
    carried = _carried(folder, head, to, tool, dict(rename or {}), prefix or "")
    if progress is not None:
        frames, watched = carried.frames, progress
        carried = replace(carried, frames=lambda: iter(watched(frames())))
    count = tool.write(path, carried)
    return Export(
        str(path),
        to,
        len(carried.images),
        count,
        list(carried.labels),
        interface(carried) if to == "labelstudio" else None,
    )


def _head(folder: Path) -> Mapping[str, Any]:
    """The content of `result.json` of a finished run."""
    if not folder.is_dir():
        raise RetraceError(f"There is no folder {folder}. Give the --out of a run of propagate or track.")
    if not (folder / RESULT).exists():
        raise RetraceError(
            f"{folder} holds no {RESULT}, so no finished run of propagate or track. Run it, or finish it by the same "
            "command."
        )
    content = read_json(folder / RESULT, "result")
    if content.get("status") == "partial":
        raise RetraceError(
            f"The run in {folder} is not finished. Finish it by the same command, then export it."
        )
    return content


def _damaged(path: Path) -> RetraceError:
    return RetraceError(
        f"{path} is not what a run of propagate or track writes. Run it again with --overwrite."
    )


def _carried(
    folder: Path, head: Mapping[str, Any], to: str, tool: _Tool, rename: dict[str, str], prefix: str
) -> Carried:
    try:
        kind = str(head["labels"]["kind"])
        names = [str(name) for name in head["labels"]["names"]]
        video = Path(head["video"]["path"])
        size = (int(head["video"]["height"]), int(head["video"]["width"]))
        fps = float(head["video"]["fps"])
        records = [
            (
                int(frame["index"]),
                str(frame["name"]),
                float(frame["time"]),
                tuple(float(frame["confidence"][name]) for name in names),
            )
            for frame in head["frames"]
        ]
        ids = tuple(int(name) for name in names) if _KINDS.get(kind) == "mask" else ()
        in_order = all(a[0] < b[0] for a, b in zip(records, records[1:], strict=False))
        if not (names and records and records[0][0] >= 0 and in_order and fps > 0 and min(size) > 0):
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(folder / RESULT) from error
    if _KINDS.get(kind) not in tool.kinds:
        others = [name for name, other in TOOLS.items() if _KINDS.get(kind) in other.kinds]
        raise RetraceError(
            f"{folder} holds labels of kind {kind}, and {to} takes {', '.join(tool.kinds)}. "
            f"{'Choose from ' + ', '.join(others) if others else 'Take the files in the folder as they are'}."
        )
    known = _KINDS[kind]
    unknown = [name for name in rename if name not in names]
    if unknown:
        raise UsageError(f"There is no {unknown[0]!r} in {folder}; its names are {', '.join(names)}.")
    new_names = renamed(names, rename)
    twice = [name for name, count in Counter(new_names).items() if count > 1]
    if twice and known == "keypoints":
        raise UsageError(f"Two keypoints would be called {twice[0]!r}. Give each a name of its own.")
    is_video = not video.is_dir()
    files = _files(video, [(index, name) for index, name, _, _ in records], to, tool, prefix)
    read = _reader(folder, known, names, records, size)
    return Carried(
        kind=known,
        names=new_names,
        ids=ids,
        skeleton=_skeleton(folder, names) if known == "keypoints" else (),
        video=f"{prefix}{video.name}" if is_video else None,
        size=size,
        fps=fps,
        images=tuple((index, file) for (index, *_), file in zip(records, files, strict=True)),
        frames=lambda: (
            CarriedFrame(index, name, file, time, sure, **read(place, name))
            for place, ((index, name, time, sure), file) in enumerate(zip(records, files, strict=True))
        ),
    )


def _files(video: Path, frames: Sequence[tuple[int, str]], to: str, tool: _Tool, prefix: str) -> list[str]:
    """What the tool calls the image of each frame (index, name)."""
    if video.is_dir():
        endings = {file.stem: file.name for file in frame_files(video)}
        lost = [name for _, name in frames if name not in endings]
        if lost:
            raise RetraceError(
                f"{video} has no frame {lost[0]} any more, which the run was made on. Put the frames back: the file "
                "names their images."
            )
        plain = [endings[name] for _, name in frames]
    elif video.suffix and all(name == f"{index:05d}" for index, name in frames):
        plain = [tool.frame(index, frames[-1][0] + 1) for index, _ in frames]
    else:
        raise RetraceError(
            f"The frames of the run were in {video}, which is gone. Put them back: the file names their images."
        )
    if to == "deeplabcut-labels":
        prefix = f"labeled-data/{video.name if video.is_dir() else video.stem}/"
    return [f"{prefix}{name}" for name in plain]


def _reader(
    folder: Path, kind: str, names: Sequence[str], records: Sequence[tuple[Any, ...]], size: tuple[int, int]
) -> Callable[[int, str], dict[str, Any]]:
    """(place in the result, name of the frame) -> the labels of that frame, as the fields of CarriedFrame."""
    if kind == "mask":

        def mask(place: int, name: str) -> dict[str, Any]:
            path = folder / "masks" / f"{name}.png"
            ids = read_ids(path)
            if ids.shape != size:
                raise _damaged(path)
            return {"masks": ids}

        return mask
    axes = ("x", "y") if kind == "keypoints" else ("x", "y", "w", "h")
    path = folder / f"{kind}.json"
    table = _table(path, kind, axes, names, [index for index, *_ in records])
    return lambda place, name: {kind: table[place]}


def _table(
    path: Path, kind: str, axes: Sequence[str], names: Sequence[str], indices: Sequence[int]
) -> NDArray[np.float64]:
    """(frames, names, axes) of keypoints.json or boxes.json, NaN where lost."""
    frames = read_json(path, "result").get("frames")
    try:
        if [frame["index"] for frame in cast(Any, frames)] != list(indices):
            raise ValueError
        rows = [
            [[math.nan if row[axis] is None else float(row[axis]) for axis in axes] for row in frame[kind]]
            for frame in cast(Any, frames)
        ]
        if any([row["name"] for row in frame[kind]] != list(names) for frame in cast(Any, frames)):
            raise ValueError
        return np.array(rows, dtype=np.float64).reshape(len(indices), len(names), len(axes))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error


def _skeleton(folder: Path, names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    path = folder / "keypoints.json"
    try:
        edges = [(int(i), int(j)) for i, j in read_json(path, "result").get("skeleton", ())]
    except (TypeError, ValueError) as error:
        raise _damaged(path) from error
    if any(not 0 <= end < len(names) for edge in edges for end in edge):
        raise _damaged(path)
    return tuple(edges)
