"""Outputs appear whole or not at all; an image that cannot be opened says why."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO

from retrace.errors import RetraceError

if TYPE_CHECKING:
    from PIL import Image


@contextmanager
def atomic_path(final: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `final`; rename it onto `final` when the block ends well, else remove it.

    The temporary name keeps the suffix of `final`, because writers choose a format by suffix.

    Errors: RetraceError when the folder cannot be made or written, or the disk is full.
    """
    final = Path(final)
    temporary = final.with_name(f".{final.stem}.{os.getpid()}.partial{final.suffix}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.filename is not None and Path(error.filename) not in {temporary, final, final.parent}:
            raise  # some other file's trouble, not the output's
        raise cannot_write(final, error) from error


@contextmanager
def scratch_file(path: Path) -> Iterator[TextIO]:
    """Yield a text file for writing and reading (UTF-8) that is gone after the block, whatever happens in it.

    Errors: RetraceError when it cannot be made or the disk is full.
    """
    try:
        file = open(path, "w+", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield file
    except OSError as error:
        if error.filename is not None:
            raise  # some other file's trouble; writing to an open file names none
        raise cannot_write(path, error) from error
    finally:
        with suppress(
            OSError
        ):  # what is left in the buffer may not fit on the disk; nobody needs it any more
            file.close()
        path.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether a file is a temporary one of `atomic_path` or `scratch_file`, which a killed process left."""
    return path.name.startswith(".") and ".partial" in path.name


def check_owner(folder: Path, is_ours: Callable[[set[str]], bool], what: str) -> None:
    """Refuse an output folder in which there is something of somebody else's.

    Args:
        folder: need not exist; an empty one is nobody's, and so are locks and leftovers.
        is_ours: whether a folder with these names in it was written by the verb that asks.
        what: the verb, for the message.

    Errors: RetraceError when it is a file, cannot be looked into, or holds something and is not ours.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RetraceError(f"{folder} is a file, not a folder. Give another --out.")
    try:
        names = {path.name for path in folder.iterdir() if path.name != ".lock" and not is_leftover(path)}
    except OSError as error:
        raise RetraceError(f"Cannot look into {folder}: {error.strerror}. Choose another folder.") from error
    if names and not is_ours(names):
        raise RetraceError(
            f"{folder} holds files that are not a result of retrace {what} ({sorted(names)[0]}, ...). "
            "Choose a new or empty folder."
        )


def same_file(file: IO[str], path: Path) -> bool:
    """Whether `path` still names the open file. A lock on a file that was removed meanwhile guards nothing."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def cannot_write(path: Path, error: OSError) -> RetraceError:
    """The sentence for an output that the system refuses."""
    reason = error.strerror or str(error)
    return RetraceError(
        f"Cannot write {path}: {reason}. Choose a folder that is writable and has free space."
    )


def open_image(path: Path, what: str, *, whole: bool = True) -> "Image.Image":
    """Open an image file that is somebody's `what` ("mask", "texture", "frame").

    Args:
        path: the file.
        what: for the sentences.
        whole: decode it, which closes the file; otherwise only the header is read.

    Errors: RetraceError when it is missing, a folder, not an image, or damaged.
    """
    from PIL import (
        Image,
        UnidentifiedImageError,
    )  # this module is imported by everything; Pillow takes its time

    if not path.exists():
        raise RetraceError(f"There is no {what} file {path}. Check the path.")
    if path.is_dir():
        raise RetraceError(f"{path} is a folder, not a {what} file. Name one image in it.")
    try:
        image = Image.open(path)
        if whole:
            image.load()
    except UnidentifiedImageError as error:
        raise RetraceError(f"{path} is not an image that can be read as a {what}. Save it as PNG.") from error
    except Image.DecompressionBombError as error:
        raise RetraceError(
            f"{path} is too large for a {what} ({error}). Give it the size of the frame."
        ) from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's decoders raise all three on damaged data
        raise RetraceError(
            f"{path} is damaged and cannot be read as a {what} ({error}). Export it again."
        ) from error
    return image
