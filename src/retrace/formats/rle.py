"""Run lengths of binary masks, as COCO, CVAT and Label Studio write them.

* **COCO** counts down the columns, the first run is of zeros. The compressed form (`pycocotools`) is text: each count,
  from the fourth on its difference to the count two before it, in groups of five bits from the lowest on; a sixth bit
  says that more groups follow, and 48 is added to make a printable character.
* **CVAT** counts along the rows of the mask's bounding box; the first run is of zeros.
* **Label Studio** counts along the rows of an RGBA image, all four channels equal, in the bit stream of thi.ng's
  rle-pack: 32 bits for the number of values, 5 for their size, four times 4 for the sizes of counts, then per run a
  one, two bits that choose a size of count, the count less one, and the value.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from retrace.errors import RetraceError

_CODES = 48
_COUNT_BITS = (3, 4, 8, 16)
"""Sizes of counts in Label Studio's stream."""
_VALUE_BITS = 8
_CHANNELS = 4


def runs(values: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a flat array, zeros first: 0 where it begins with a one. An empty array has none."""
    if values.size == 0:
        return []
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [values.size]])).tolist()
    return [0, *counts] if values[0] else counts


def from_runs(counts: Sequence[int], size: int) -> NDArray[np.bool_]:
    """The flat array (size,) of run lengths, zeros first.

    Errors: ValueError for negative counts, or counts that do not add up to `size`.
    """
    lengths = np.asarray(counts, dtype=np.int64).reshape(-1)
    if (lengths < 0).any() or lengths.sum() != size:
        raise ValueError(f"counts add up to {int(lengths.sum())}, expected {size}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def coco_text(counts: Sequence[int]) -> str:
    """Counts in COCO's compressed form."""
    text: list[str] = []
    for place, count in enumerate(counts):
        rest = count - (counts[place - 2] if place > 2 else 0)
        more = True
        while more:
            group = rest & 0x1F
            rest >>= 5
            # The rest is the sign alone, and the sign is what the group's highest bit says.
            more = rest != (-1 if group & 0x10 else 0)
            text.append(chr(group + (0x20 if more else 0) + _CODES))
    return "".join(text)


def coco_counts(text: str) -> list[int]:
    """Counts of COCO's compressed form.

    Errors: ValueError for other characters, or a text that breaks off.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - _CODES
        if not 0 <= code < 64:
            raise ValueError(f"{character!r} is no character of a compressed mask")
        value |= (code & 0x1F) << shift
        shift += 5
        if not code & 0x20:
            if code & 0x10:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the text of a compressed mask breaks off")
    return counts


def coco_rle(mask: NDArray[np.bool_]) -> dict[str, object]:
    """COCO's `segmentation` of a mask (H, W): `size` [H, W] and compressed `counts`."""
    return {"size": list(mask.shape), "counts": coco_text(runs(mask.ravel(order="F")))}


def coco_mask(size: tuple[int, int], counts: str | Sequence[int]) -> NDArray[np.bool_]:
    """The mask (H, W) of COCO's run lengths, compressed or not.

    Errors: RetraceError for counts that are none, or do not make a mask of that size.
    """
    height, width = size
    try:
        lengths = coco_counts(counts) if isinstance(counts, str) else counts
        return from_runs(lengths, height * width).reshape(width, height).T
    except (ValueError, TypeError, OverflowError) as error:
        raise RetraceError(
            f"The run lengths are no mask of {width}x{height} pixels ({error}). Export them again."
        ) from error


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x, y, w, h of the smallest box that holds a mask (H, W), which is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


def brush(mask: NDArray[np.bool_]) -> list[int]:
    """A mask (H, W) as the bytes of Label Studio's `rle`."""
    return list(_bytes(_brush_bits(mask)))


def brush_mask(rle: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (H, W) of Label Studio's `rle`: where the last of four channels is not 0.

    Errors: ValueError for a stream that breaks off, is of another size, or of other values than bytes.
    """
    height, width = size
    text = "".join(f"{int(byte):08b}" for byte in bytes(rle))
    place = 0

    def take(bits: int) -> int:
        nonlocal place
        if place + bits > len(text):
            raise ValueError("the stream of a brush breaks off")
        place += bits
        return int(text[place - bits : place], 2)

    total, value_bits = take(32), take(5) + 1
    if total != height * width * _CHANNELS:
        raise ValueError(f"a brush of {total} values, expected {_CHANNELS} x {height} x {width}")
    count_bits = [take(4) + 1 for _ in _COUNT_BITS]
    values = np.zeros(total, np.uint32)
    done = 0
    while done < total:
        repeated = take(1)
        count = take(count_bits[take(2)]) + 1
        if done + count > total:
            raise ValueError("the stream of a brush is longer than its mask")
        if repeated:
            values[done : done + count] = take(value_bits)
        else:
            values[done : done + count] = [take(value_bits) for _ in range(count)]
        done += count
    return np.asarray(values.reshape(height, width, _CHANNELS)[..., -1] != 0)


def _brush_bits(mask: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """(value, number of bits) of each part of the stream."""
    yield mask.size * _CHANNELS, 32
    yield _VALUE_BITS - 1, 5
    for bits in _COUNT_BITS:
        yield bits - 1, 4
    for place, count in enumerate(runs(mask.ravel())):
        left = count * _CHANNELS
        while left > 0:
            choice = next(
                (k for k, bits in enumerate(_COUNT_BITS) if left <= 1 << bits), len(_COUNT_BITS) - 1
            )
            part = min(left, 1 << _COUNT_BITS[choice])
            yield 1, 1
            yield choice, 2
            yield part - 1, _COUNT_BITS[choice]
            yield 255 * (place % 2), _VALUE_BITS
            left -= part


def _bytes(parts: Iterable[tuple[int, int]]) -> bytes:
    text = "".join(f"{value:0{bits}b}" for value, bits in parts)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[first:last], 2) for first, last in pairwise(range(0, len(text) + 1, 8)))
