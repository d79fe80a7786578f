"""Numeric arrays of MATLAB files, version 5 (what `save` writes by default, compressed or not).

JHMDB keeps its joints in such files. Fifty lines spare everybody the install of SciPy.

Source: MathWorks, "MAT-File Format", level 5.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrace.errors import RetraceError

_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x0800
_LIMIT = 1 << 30  # bytes that a compressed variable may unpack to


def read_mat(path: Path) -> dict[str, NDArray[np.generic]]:
    """Real numeric arrays of a file by name; structures, cells, texts and complex arrays are passed over.

    Errors: RetraceError when it is missing, damaged, or of another version (7.3 is HDF5).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RetraceError(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    if data[:8] == b"\x89HDF\r\n\x1a\n" or data.startswith(b"MATLAB 7.3"):
        raise RetraceError(
            f"{path} is a MATLAB 7.3 file (HDF5); expected version 5. Save it again in MATLAB with the option -v7."
        )
    if data[126:128] not in (b"IM", b"MI"):
        raise RetraceError(f"{path} is not a MATLAB file of version 5. Download it again.")
    order = "<" if data[126:128] == b"IM" else ">"
    found: dict[str, NDArray[np.generic]] = {}
    try:
        for kind, body in _elements(memoryview(data)[128:], order):
            if kind == _COMPRESSED:
                unpacker = zlib.decompressobj()
                unpacked = unpacker.decompress(body, _LIMIT)
                if not unpacker.eof:
                    raise ValueError("a compressed variable is cut off or too large")
                kind, body = next(_elements(memoryview(unpacked), order))
            if kind == _MATRIX and (variable := _array(body, order)) is not None:
                found[variable[0]] = variable[1]
    except (ValueError, KeyError, IndexError, StopIteration, struct.error, zlib.error) as error:
        raise RetraceError(
            f"{path} is damaged ({error or 'it ends too early'}). Download it again."
        ) from error
    return found


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """(type, bytes) of the elements that stand one after the other."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(order + "II", data, at)
        if kind >> 16:  # a small element: size and type share the first word, the bytes stand in the second
            kind, size, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            start = at + 8
            after = start + size if kind == _COMPRESSED else start + -(-size // 8) * 8
        if start + size > len(data):
            raise ValueError("it ends too early")
        yield kind, data[start : start + size]
        at = after


def _array(body: memoryview, order: str) -> tuple[str, NDArray[np.generic]] | None:
    """Name and values of a matrix element; None for what is not a real numeric array."""
    parts = _elements(body, order)
    flags = struct.unpack_from(order + "I", next(parts)[1])[0]
    if flags & 0xFF not in _CLASSES or flags & _COMPLEX:
        return None
    shape = np.frombuffer(next(parts)[1], order + "i4")
    name = bytes(next(parts)[1]).decode("ascii", errors="replace")
    kind, values = next(parts)
    stored = np.frombuffer(values, order + _STORED[kind])
    if shape.min() < 0 or stored.size != shape.prod():
        raise ValueError(f"{name} has {stored.size} values for the shape {shape.tolist()}")
    return name, stored.astype(_CLASSES[flags & 0xFF]).reshape(shape, order="F")
