"""The folder that `propagate` or `track` writes: who may write there, and the files that grow frame by frame.

`run.json` is written first and says which run the folder belongs to; `result.json` is written last. A folder
with the first and not the second (or with status "partial") holds an unfinished run: masks in it are whole,
but not all are there.
"""

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from retrace.errors import RetraceError
from retrace.files import atomic_path, cannot_write, check_owner, is_leftover, same_file, scratch_file
from retrace.formats.boxes import BoxWriter
from retrace.formats.carried import EXPORTS
from retrace.formats.davis_png import write_mask
from retrace.formats.keypoints import KeypointWriter
from retrace.formats.mot import MotWriter
from retrace.formats.textures import write_texture
from retrace.propagation.codecs import FrameLabels
from retrace.threads import Worker
from retrace.video.encode import VideoWriter
from retrace.viz.overlay import Overlay

Fingerprint = dict[str, str]
RUN, RESULT, LOCK, FRAMES = "run.json", "result.json", ".lock", ".frames.partial.jsonl"
MOT = "boxes_mot.txt"
OURS = (
    "masks",
    "textures",
    "keypoints.json",
    "keypoints.csv",
    "boxes.json",
    "boxes.csv",
    MOT,
    "overlay.mp4",
    RESULT,
    FRAMES,
    *EXPORTS.values(),
)


class RunFolder:
    """An output folder that belongs to one run.

    Args:
        path: the folder; made when it is not there.
        fingerprint: what decides the result, as name -> text a person can compare.
        verb: that writes here, for messages; a folder of another verb is another run.
        overwrite: replace another run's results, and redo a finished one.

    Attributes:
        finished: the content of `result.json` when this very run is already done; nothing is locked or written then.

    Errors: RetraceError when the folder cannot be written, belongs to somebody else, holds another run, or another
        process is writing there.
    """

    def __init__(self, path: str | Path, fingerprint: Fingerprint, *, verb: str, overwrite: bool) -> None:
        """See the class."""
        self.path = Path(path)
        self.finished: dict[str, Any] | None = None
        self._verb = verb
        self._fingerprint = {"verb": verb, **fingerprint}
        self._lock: IO[str] | None = None
        self._overwrite = overwrite
        self._made: list[Path] = []
        check_owner(self.path, lambda names: RUN in names, verb)
        try:
            self._acquire()
            found = self._found() if not overwrite else None
            if found is not None:
                self._compare(found)
                self.finished = self._complete()
            if self.finished is not None:
                self.release()
        except BaseException:
            self.release()
            raise

    def begin(self) -> None:
        """Take the folder (again) for this run, remove what an earlier run left, and sign it.

        Errors: RetraceError when another process writes there or has made it another run's folder in between.
        """
        self._acquire()
        found = None if self._overwrite else self._found()
        if found is not None:
            self._compare(found)
        self._overwrite = False  # only what was there when the person said so
        try:
            self.clear()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        with atomic_path(self.path / RUN) as temporary:
            temporary.write_text(json.dumps({"fingerprint": self._fingerprint}, indent=1) + "\n")

    def discard(self) -> None:
        """Leave nothing of a run that wrote no frame; call while the folder is held, then `release`."""
        self.clear()
        (self.path / RUN).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what an earlier run of ours left: the files we write and temporary ones, nothing else."""
        for name in OURS:
            target = self.path / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        for left in filter(is_leftover, self.path.iterdir()):
            left.unlink(missing_ok=True)

    def release(self) -> None:
        """Let another process write here; folders that were made for a run that came to nothing go again."""
        if self._lock is not None:
            (self.path / LOCK).unlink(
                missing_ok=True
            )  # while it is held, so that nobody's new lock is unlinked
            self._lock.close()
            self._lock = None
        with suppress(OSError):  # not empty: something came of it
            while self._made:
                self._made[-1].rmdir()
                self._made.pop()
        self._made = []

    def _acquire(self) -> None:
        """Make the folder and lock it; nothing when this object holds the lock already."""
        if self._lock is not None:
            return
        try:
            lock = self._open_lock()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not same_file(lock, self.path / LOCK):  # its owner has just removed it; it would guard nothing
                raise BlockingIOError
        except ImportError:
            pass  # Windows: the folder is not guarded against a second process
        except OSError as error:
            lock.close()
            raise RetraceError(
                f"Another retrace {self._verb} is writing into {self.path}. Wait for it, or choose another folder."
            ) from error
        self._lock = lock

    def _open_lock(self) -> IO[str]:
        """Make the folder, noting which parents were missing, and open the lock file in it."""
        missing = [p for p in (self.path, *self.path.parents) if not p.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self._made.append(folder)
        try:
            return open(self.path / LOCK, "w")
        except OSError:
            self.release()
            raise

    def _found(self) -> Fingerprint | None:
        path = self.path / RUN
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text())["fingerprint"]
            return {str(key): str(value) for key, value in found.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RetraceError(
                f"{path} is not readable as the record of a run. Choose another folder, or add --overwrite."
            ) from error

    def _compare(self, found: Fingerprint) -> None:
        wanted = self._fingerprint
        differing = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
        if differing:
            key = differing[0]
            others = f" (and {', '.join(differing[1:])})" if differing[1:] else ""
            raise RetraceError(
                f"{self.path} holds another run: its {key} is {found.get(key, 'not set')}, now it is "
                f"{wanted.get(key, 'not set')}{others}. Choose another folder, or replace it with --overwrite."
            )

    def _complete(self) -> dict[str, Any] | None:
        path = self.path / RESULT
        if not path.exists():
            return None
        with suppress(OSError, ValueError):
            content = json.loads(path.read_text())
            if isinstance(content, dict) and content.get("status") == "complete":
                return content
        return None


class ResultWriter:
    """Writes the files of a run as frames come, on two threads (labels, overlay).

    Args:
        folder: that this run may write into.
        kind: of the labels.
        names: of objects, keypoints or boxes.
        skeleton: pairs of keypoint positions.
        size: (H, W) of the frames.
        fps: frames per second.
        overlay: also write `overlay.mp4`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: str,
        names: Sequence[str],
        skeleton: Sequence[tuple[int, int]],
        size: tuple[int, int],
        fps: float,
        overlay: bool,
    ) -> None:
        """See the class."""
        self.folder = folder
        self.names = list(names)
        self.frames = 0
        self._stack = ExitStack()
        self._keypoints: KeypointWriter | None = None
        self._boxes: tuple[BoxWriter, MotWriter] | None = None
        self._video: VideoWriter | None = None
        with ExitStack() as opening:
            if kind == "keypoints":
                self._keypoints = opening.enter_context(
                    KeypointWriter(
                        folder / "keypoints.json",
                        folder / "keypoints.csv",
                        names=names,
                        skeleton=skeleton,
                        size=size,
                        fps=fps,
                    )
                )
            if kind == "boxes":
                self._boxes = (
                    opening.enter_context(
                        BoxWriter(
                            folder / "boxes.json", folder / "boxes.csv", names=names, size=size, fps=fps
                        )
                    ),
                    opening.enter_context(MotWriter(folder / MOT)),
                )
            if overlay:
                self._painter = Overlay(names, skeleton=skeleton)
                self._video = opening.enter_context(
                    VideoWriter(folder / "overlay.mp4", height=size[0], width=size[1], fps=fps)
                )
            scratch = opening.enter_context(ExitStack())
            self._spool = scratch.enter_context(scratch_file(folder / FRAMES))
            self._scratch = scratch.pop_all()
            self._stack = opening.pop_all()
        self._labels: Worker[Any] = Worker(self._write_labels)
        self._drawing: Worker[Any] | None = Worker(self._write_overlay) if overlay else None

    def write(self, frame: Any) -> None:
        """Add a FrameResult. Errors: RetraceError when a file cannot be written."""
        self._labels.put(frame)
        if self._drawing is not None:
            self._drawing.put(frame)

    def abandon(self) -> None:
        """Leave no file of a run that was stopped before its first frame."""
        stopped = RetraceError("stopped before the first frame")
        with self._scratch, suppress(RetraceError):
            self._stack.__exit__(RetraceError, stopped, None)
        self._labels.close()
        if self._drawing is not None:
            self._drawing.close()

    def finish(self, head: Callable[[], Mapping[str, Any]]) -> None:
        """Complete all files, `result.json` last.

        Args:
            head: gives the content of `result.json` but for the frames; called when everything else is written.

        Errors: RetraceError when a file cannot be written; temporary files are then removed.
        """
        with self._scratch:
            try:
                try:
                    self._labels.close()
                finally:
                    if self._drawing is not None:
                        self._drawing.close()
                self._spool.flush()
            except BaseException as error:
                self._stack.__exit__(type(error), error, error.__traceback__)
                raise
            self._stack.close()
            with atomic_path(self.folder / RESULT) as temporary:
                with open(temporary, "w", encoding="utf-8") as file:
                    file.write(json.dumps(dict(head()), indent=1)[:-2] + ',\n "frames": [')
                    self._spool.seek(0)
                    for k, line in enumerate(self._spool):
                        file.write(("," if k else "") + "\n  " + line.rstrip("\n"))
                    file.write("\n ]\n}\n")

    @property
    def seconds(self) -> dict[str, float]:
        """Time spent on the two threads so far."""
        return {"write": self._labels.seconds, "overlay": self._drawing.seconds if self._drawing else 0.0}

    def _write_labels(self, frame: Any) -> None:
        sure = [float(frame.confidence.get(name, 0.0)) for name in self.names]
        if frame.masks is not None:
            write_mask(self.folder / "masks" / f"{frame.name}.png", frame.masks)
        if frame.texture is not None:
            write_texture(self.folder / "textures" / f"{frame.name}.png", frame.texture)
        if self._keypoints is not None and frame.keypoints is not None:
            self._keypoints.write(frame.index, frame.name, frame.time, frame.keypoints, sure)
        if self._boxes is not None and frame.boxes is not None:
            table, mot = self._boxes
            table.write(frame.index, frame.name, frame.time, frame.boxes, sure)
            mot.write(frame.index, frame.boxes, sure)
        record = {
            "index": frame.index,
            "name": frame.name,
            "time": round(frame.time, 6),
            "labelled": frame.labelled,
            "confidence": {name: round(value, 4) for name, value in zip(self.names, sure, strict=True)},
        }
        self._spool.write(json.dumps(record) + "\n")
        self.frames += 1

    def _write_overlay(self, frame: Any) -> None:
        assert self._video is not None
        labels = FrameLabels(frame.masks, frame.keypoints, frame.boxes, frame.texture, frame.confidence)
        self._video.write(self._painter.draw(frame.image, labels, index=frame.index, time=frame.time))


def video_identity(path: Path) -> str:
    """Path, size and time of a video file or frame folder, as one line."""
    path = path.resolve()
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    states = [os.stat(p) for p in files]
    newest = max((s.st_mtime_ns for s in states), default=0)
    return f"{path} ({len(files)} file(s), {sum(s.st_size for s in states)} bytes, changed {newest})"


def plain(value: Any) -> Any:
    """A value as JSON knows it, mappings and lists inside too. JSON has no NaN: null says that there is no number."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
