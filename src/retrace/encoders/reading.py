"""Checkpoint files: every tensor in them, by name, without ever running code of theirs.

Pickles are read as plain data: tensors, arrays, numbers, text, dicts, lists and `argparse.Namespace`. A file that
holds anything else is refused with the name of what it holds.
"""

import _codecs
import argparse
import json
import pickle
import re
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from retrace.encoders.colour import COLOURS
from retrace.errors import RetraceError

FORMAT = "retrace-encoder-1"
SKIPPED = ("optimizer", "lr_sched", "scheduler", "loops", "callbacks", "amp")
"""Entries of a checkpoint whose names begin so are the training's state, not the network's."""

_RECONSTRUCT = np.zeros(1).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]
# What published files hold beside tensors. Each of them is data: calling it runs nothing of the file's.
_PLAIN: dict[str, Any] = {
    "argparse.Namespace": argparse.Namespace,
    "collections.Counter": Counter,
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _codecs.encode,
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    **{f"numpy.{core}.multiarray._reconstruct": _RECONSTRUCT for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _SCALAR for core in ("core", "_core")},
}
_DTYPES = [getattr(np.dtypes, name) for name in np.dtypes.__all__]
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # the first thing in a file of torch before 1.6


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors of a checkpoint file, flat, and our header if it is one of ours.

    Args:
        path: .safetensors, a file of torch.save (.pth, .pt, .ckpt, .tar) or a pickle of arrays (.pkl of detectron2).

    Returns: (tensors, header); nested names are joined by dots.

    Errors: RetraceError for a file that is no checkpoint or whose pickle holds anything but plain data.
    """
    if path.stat().st_size == 0:
        raise RetraceError(f"{path} is empty; expected a checkpoint. Download or export it again.")
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except safetensors.SafetensorError as error:
            raise RetraceError(
                f"{path} is no readable safetensors file ({error}). Download or export it again."
            ) from error
        return tensors, _header(metadata.get("retrace", "{}"), path)
    content = _unpickled(path)
    if not isinstance(content, Mapping):
        raise RetraceError(f"{path} holds a {type(content).__name__}; expected a state dict of tensors.")
    header = content.get("retrace", {})
    return _flatten(content), header if isinstance(header, dict) else {}


def _unpickled(path: Path) -> Any:
    with path.open("rb") as file:
        magic = file.read(2)
    if magic != b"PK" and magic[:1] != b"\x80":  # neither torch's archive nor a pickle
        raise RetraceError(
            f"{path} is no checkpoint: it starts like no file of torch. Give a .pth, .ckpt or .safetensors."
        )
    try:
        if magic != b"PK":
            with path.open("rb") as file:
                first = _PlainUnpickler(file, encoding="latin1").load()
            if first != _TORCH_MAGIC:
                return first
        allowed = [(value, name) for name, value in _PLAIN.items()]
        with warnings.catch_warnings(), torch.serialization.safe_globals([*allowed, *_DTYPES]):
            warnings.simplefilter("ignore")  # of torch, about odd pickles; what is wrong is said below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None and zipfile.is_zipfile(path):
            raise RetraceError(f"{path} is no readable checkpoint. Download it again.") from error
        what = f"an object of {named[1]}" if named else "something that is no plain tensor, or is damaged"
        raise RetraceError(
            f"{path} holds {what}; reading it would run code, which Retrace never does with a file. Where that file is "
            "at home and trusted, save its tensors alone, torch.save(checkpoint['state_dict'], 'plain.pth'), and give "
            "that file."
        ) from error
    except Exception as error:  # torch raises a different type for every way a file can be wrong
        raise RetraceError(
            f"{path} is no readable checkpoint ({type(error).__name__}). Download it again."
        ) from error


class _PlainUnpickler(pickle.Unpickler):
    """Reads a pickle of plain data and refuses every other class or function by name."""

    def find_class(self, module: str, name: str) -> Any:
        """One of the harmless few, or an error."""
        if f"{module}.{name}" not in _PLAIN:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return _PLAIN[f"{module}.{name}"]


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """All tensors and arrays of nested dicts, names joined by dots; the state of the training stays outside."""
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}{key}"] = value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            tensors[f"{prefix}{key}"] = torch.from_numpy(value.copy())
        elif isinstance(value, Mapping) and not str(key).startswith(SKIPPED):
            tensors.update(_flatten(value, f"{prefix}{key}."))
    return tensors


def _header(text: str, path: Path) -> dict[str, Any]:
    """Our header in a safetensors file; {} for files of others.

    Errors: RetraceError when it says that it is ours and is not whole.
    """
    try:
        header = json.loads(text)
    except ValueError as error:
        raise RetraceError(f"{path} has a damaged header ({error}). Download or export it again.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        return {}
    wanted: dict[str, type] = {"name": str, "mean": list, "std": list, "card": dict}
    wrong = [key for key, kind in wanted.items() if not isinstance(header.get(key), kind)]
    wrong += ["known colour"] if header.get("colour", "rgb") not in COLOURS else []
    if wrong:
        raise RetraceError(f"{path} has a damaged header (no {wrong[0]}). Download or export it again.")
    return header
