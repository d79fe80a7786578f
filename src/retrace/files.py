"""Outputs appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TextIO

from retrace.errors import RetraceError


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
