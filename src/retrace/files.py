"""Outputs appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
        reason = error.strerror or str(error)
        raise RetraceError(
            f"Cannot write {final}: {reason}. Choose a folder that is writable and has free space."
        ) from error
