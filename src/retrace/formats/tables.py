"""Small JSON and CSV helpers that keypoints and boxes share: reading with clear errors, writing frame by frame."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from retrace.errors import RetraceError
from retrace.files import atomic_path


def read_json(path: Path, what: str) -> Mapping[str, Any]:
    """Read a JSON file that must hold an object.

    Errors: RetraceError naming the file, the line where it breaks, and what was expected.
    """
    content = read_any_json(path, what)
    if not isinstance(content, dict):
        raise RetraceError(
            f"{path} holds a JSON {type(content).__name__}, expected an object {{...}} with the {what}s of a frame."
        )
    return content


def read_any_json(path: Path, what: str) -> Any:
    """Read a JSON file, whatever it holds.

    Errors: RetraceError naming the file and the line where it breaks.
    """
    text = read_text(path, what)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise RetraceError(f"{path} nests JSON lists thousands deep. Correct or export it again.") from error
    except json.JSONDecodeError as error:
        raise RetraceError(
            f"{path} is not valid JSON (line {error.lineno}: {error.msg}). Correct or export it again."
        ) from error


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV file with a header that has at least `columns`; cells are stripped text.

    Errors: RetraceError when columns are missing, a row is short, or there is no row.
    """
    reader = csv.reader(read_lines(path, "label"))
    header = [cell.strip().lower() for cell in next(reader, [])]
    missing = [c for c in columns if c not in header]
    if missing:
        raise RetraceError(
            f"{path} has the columns {', '.join(header) or '(none)'}; expected a header with {','.join(columns)}."
        )
    twice = [c for c in columns if header.count(c) > 1]
    if twice:
        raise RetraceError(f"{path} has the column {twice[0]} twice. Keep one of them.")
    rows = []
    for line, cells in enumerate(reader, start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise RetraceError(
                f"{path}, line {line} has {len(cells)} cells, the header has {len(header)}. Correct the line."
            )
        rows.append(dict(zip(header, (cell.strip() for cell in cells), strict=True)))
    if not rows:
        raise RetraceError(f"{path} has a header but no rows. Label at least one frame.")
    return rows


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file that a person named as their `what`.

    Errors: RetraceError when it is missing, no text, or cannot be read.
    """
    return read_text(path, what).splitlines()


def number(value: Any, where: str) -> float:
    """Turn a JSON number or CSV cell into a float that can be a place in pixels: finite, a thousand million at most.

    Errors: RetraceError naming `where`.
    """
    try:
        result = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not abs(result) <= 1e9:  # NaN is not
        raise RetraceError(
            f"{where} is {_short(value)}; expected a number{' of pixels' if abs(result) > 1e9 else ''}."
        )
    return result


def frame_number(text: str, where: str) -> int:
    """Turn a CSV cell into the position of a frame; an empty one is frame 0.

    Errors: RetraceError naming `where`.
    """
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise RetraceError(f"{where}: frame {_short(text)} is not a whole number from 0 on.")
    return int(text or "0")


def entries(content: Mapping[str, Any], key: str, where: str) -> Sequence[Any]:
    """The list under `key`; an empty one when there is none or null.

    Errors: RetraceError when something else is there.
    """
    value = content.get(key)
    if value is None:
        return ()
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise RetraceError(f'{where}: "{key}" is {_short(value)}; expected a list.')
    return value


def labelled_frames(content: Mapping[str, Any], key: str, where: str) -> dict[int, Any]:
    """Position -> what stands under `key` of each entry of "frames", in order of the positions.

    Errors: RetraceError for an empty list, an entry without `key`, a position that is none or stands twice.
    """
    frames: dict[int, Any] = {}
    for k, frame in enumerate(entries(content, "frames", where)):
        if not isinstance(frame, Mapping) or key not in frame:
            raise RetraceError(
                f'{where}: entry {k} of "frames" has no "{key}". Give {{"index": 0, "{key}": [...]}}.'
            )
        index = frame.get("index", k)
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise RetraceError(f"{where}: frame index {index!r} is not a whole number from 0 on.")
        if index in frames:
            raise RetraceError(f"{where} labels frame {index} twice. Keep one of the entries.")
        frames[index] = frame[key]
    if not frames:
        raise RetraceError(f'{where} has an empty "frames" list. Label at least one frame.')
    return dict(sorted(frames.items()))


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not print whole numbers of thousands of digits
        return "a huge number"
    return text if len(text) <= 60 else text[:57] + "..."


class FrameTable:
    """A JSON file ``{head..., "frames": [...]}`` and a CSV file that grow frame by frame in constant memory.

    Both are written under temporary names. They appear, whole and valid, when the `with` block ends normally or is
    interrupted (KeyboardInterrupt, GeneratorExit), and not at all after any other exception.

    Args:
        json_path, csv_path: the files.
        kind: key of what each frame lists, "keypoints" or "boxes".
        columns: of the CSV after the frame.
        names: of what is listed.
        size: (H, W) of the frames.
        fps: frames per second, for the reader of the file.
        coordinates: what numbers mean, in words.
        head: what else the JSON begins with.
    """

    def __init__(
        self,
        json_path: str | Path,
        csv_path: str | Path,
        *,
        kind: str,
        columns: Sequence[str],
        names: Sequence[str],
        size: tuple[int, int],
        fps: float,
        coordinates: str,
        head: Mapping[str, Any] | None = None,
    ) -> None:
        """See the class."""
        whole = {"width": size[1], "height": size[0], "fps": fps, "coordinates": coordinates}
        whole |= {"names": list(names), **(head or {})}
        self._paths = (Path(json_path), Path(csv_path))
        self._kind = kind
        self._head = json.dumps(whole, indent=1)[:-2]  # without the closing newline and brace
        self._columns = ("frame", *columns)
        self._stack = ExitStack()
        self._frames = 0
        self._json: TextIO
        self._csv: TextIO

    def __enter__(self) -> "FrameTable":
        """Begin both files under temporary names. Errors: RetraceError when they cannot be written."""
        with ExitStack() as opening:
            json_path = opening.enter_context(atomic_path(self._paths[0]))
            self._json = opening.enter_context(open(json_path, "w", encoding="utf-8"))
            csv_path = opening.enter_context(atomic_path(self._paths[1]))
            self._csv = opening.enter_context(open(csv_path, "w", encoding="utf-8", newline=""))
            self._json.write(self._head + ',\n "frames": [')
            csv.writer(self._csv).writerow(self._columns)
            self._stack = opening.pop_all()
        return self

    def write(
        self,
        index: int,
        name: str,
        time: float,
        listed: Sequence[Mapping[str, Any]],
        cells: Iterable[Sequence[Any]],
    ) -> None:
        """Add one frame.

        Args:
            index: its position.
            name: of the frame.
            time: seconds.
            listed: what the JSON lists.
            cells: of each row of the CSV after the frame; None is an empty one.
        """
        frame = {"index": index, "name": name, "time": round(time, 6), self._kind: listed}
        self._json.write(("," if self._frames else "") + "\n  " + json.dumps(frame))
        csv.writer(self._csv).writerows((index, *row) for row in cells)
        self._frames += 1

    def __exit__(self, kind: type[BaseException] | None, *details: Any) -> None:
        """Finish the files and give them their names; drop them after an error."""
        if kind is not None and not issubclass(kind, (KeyboardInterrupt, GeneratorExit)):
            self._stack.__exit__(kind, *details)
            return
        self._json.write("\n ]\n}\n")
        self._stack.close()


def read_text(path: Path, what: str) -> str:
    """A text file that a person named as their `what`. Errors: RetraceError when it is missing, or no text."""
    if not path.is_file():
        raise RetraceError(f"There is no {what} file {path}. Check the path.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RetraceError(
            f"{path} is not a text file. Give a {what} file as JSON or CSV (UTF-8)."
        ) from error
    except OSError as error:
        raise RetraceError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
