"""Checkpoints that appear whole or not at all, and finding the one to continue from."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from retrace.errors import RetraceError
from retrace.files import atomic_path

LAST = "last.ckpt"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of `retrace train`, on the CPU; pickled code is never executed.

    Errors: RetraceError when the file is damaged or something else.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for every way a file can be wrong
        raise RetraceError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}). "
            f"Copy an older file from {path.parent / 'checkpoints'} over it, or start anew with --overwrite."
        ) from error
    if not isinstance(loaded, dict) or "global_step" not in loaded or "retrace" not in loaded:
        raise RetraceError(
            f"{path} is no checkpoint of `retrace train`. Give a folder that one wrote, or start anew with --overwrite."
        )
    return loaded


def publish(step_file: Path, out: Path, keep: int) -> None:
    """Make `step_file` the last checkpoint of `out` and delete all but the `keep` latest step files.

    `last.ckpt` is a hard link where the file system has them, a copy elsewhere.
    """
    with atomic_path(out / LAST) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(step_file, temporary)
        except OSError:  # no hard links here
            shutil.copyfile(step_file, temporary)
    step_files = sorted(step_file.parent.glob("step-*.ckpt"))
    for old in step_files[: len(step_files) - keep]:
        old.unlink(missing_ok=True)


def restore_last(out: Path, keep: int) -> bool:
    """Make the latest step file the last checkpoint, where a run was killed between the two; False without any."""
    step_files = sorted((out / "checkpoints").glob("step-*.ckpt"))
    if step_files:
        publish(step_files[-1], out, keep)
    return bool(step_files)


def step_path(out: Path, step: int) -> Path:
    """Where the checkpoint of a step goes."""
    return out / "checkpoints" / f"step-{step:08d}.ckpt"


def clear_leftovers(out: Path) -> None:
    """Remove temporary files that a killed run left behind."""
    for folder in (out, out / "checkpoints"):
        for leftover in folder.glob(".*.partial*"):
            leftover.unlink(missing_ok=True)
