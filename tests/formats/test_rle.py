"""Run lengths: what is written is read back by decoders written from the formats' descriptions alone."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from retrace.errors import RetraceError
from retrace.formats.rle import (
    bounding_box,
    brush,
    coco_counts,
    coco_mask,
    coco_rle,
    coco_text,
    from_runs,
    runs,
)


def disc_and_bars() -> NDArray[np.bool_]:
    """A disc, bars beside it and the first pixel, (37, 53)."""
    y, x = np.mgrid[:37, :53]
    mask = ((x - 20) ** 2 + (y - 15) ** 2 < 150) | ((x > 40) & (y > 3) & (y % 5 < 2))
    mask[0, 0] = True
    return mask


def masks() -> Iterator[NDArray[np.bool_]]:
    """Shapes, noise, stripes; empty, full, a single pixel; long runs that need several groups."""
    draw = np.random.default_rng(0)
    yield disc_and_bars()
    yield draw.random((29, 41)) < 0.5
    yield draw.random((31, 17)) < 0.02
    yield np.zeros((5, 7), dtype=bool)
    yield np.ones((5, 7), dtype=bool)
    yield np.ones((1, 1), dtype=bool)
    last = np.zeros((300, 401), dtype=bool)
    last[-1, -1] = True
    yield last
    middle = np.zeros((300, 401), dtype=bool)
    middle[7:280, 3:390] = True
    middle[100:110, 50:300] = False
    yield middle


def decode_coco(text: str, height: int, width: int) -> NDArray[np.bool_]:
    """Bit by bit: groups of six bits, two's complement, differences to the count two before from the fourth on."""
    groups = [f"{ord(c) - 48:06b}" for c in text]
    numbers: list[str] = []
    word = ""
    for group in groups:
        word = group[1:] + word  # the lowest five bits come first
        if group[0] == "0":
            numbers.append(word)
            word = ""
    assert word == ""
    signed = [int(w, 2) - (2 ** len(w) if w[0] == "1" else 0) for w in numbers]
    counts: list[int] = []
    for k, value in enumerate(signed):
        counts.append(value + counts[k - 2] if k >= 3 else value)
    column_by_column: list[bool] = []
    for k, count in enumerate(counts):
        column_by_column += [k % 2 == 1] * count
    mask = np.zeros((height, width), dtype=bool)
    for place, value in enumerate(column_by_column):
        mask[place % height, place // height] = value
    return mask


def decode_brush(stream: list[int]) -> list[int]:
    """The values of a stream of thi.ng's rle-pack, read from the front."""
    bits = "".join(f"{byte:08b}" for byte in stream)
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        is_run = read(1)
        count = read(sizes[read(2)]) + 1
        values += [read(word)] * count if is_run else [read(word) for _ in range(count)]
    assert len(bits) - at < 8
    return values


@pytest.mark.parametrize("mask", list(masks()), ids=lambda mask: "x".join(map(str, mask.shape)))
def test_there_and_back(mask: NDArray[np.bool_]) -> None:
    """COCO and Label Studio, by our decoder and by one that shares nothing with it."""
    written = coco_rle(mask)
    text = written["counts"]
    assert isinstance(text, str)
    assert written["size"] == list(mask.shape)
    np.testing.assert_array_equal(coco_mask(mask.shape, text), mask)
    np.testing.assert_array_equal(decode_coco(text, *mask.shape), mask)
    assert coco_text(coco_counts(text)) == text
    np.testing.assert_array_equal(coco_mask(mask.shape, runs(mask.T.ravel())), mask)
    channels = np.array(decode_brush(brush(mask))).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(channels, np.repeat(255 * mask[..., None], 4, axis=-1))


def test_equal_to_pycocotools() -> None:
    """What `pycocotools.mask.encode` 2.0.11 gives for a mask whose first run of zeros is empty."""
    bars = "0000000000020N" * 11
    assert coco_rle(disc_and_bars())["counts"] == (
        "01d94YG6K4M2N2N2O0O2O000O2O00000001N10001N101N2N2N3L5JS9MSF" + bars + "00000000000"
    )


def test_equal_to_label_studio() -> None:
    """The first bytes of what `label_studio_sdk.converter.brush.mask2rle` 2.1.2 gives."""
    assert brush(disc_and_bars())[:20] == [
        *(0, 0, 30, 164, 57, 27, 252, 127, 252, 10),
        *(252, 3, 9, 255, 235, 48, 12, 87, 255, 167),
    ]


def test_runs() -> None:
    """Zeros first, so a leading one is an empty run of zeros."""
    assert runs(np.array([0, 0, 1, 1, 1, 0], dtype=bool)) == [2, 3, 1]
    assert runs(np.array([1, 0], dtype=bool)) == [0, 1, 1]
    assert runs(np.array([], dtype=bool)) == []
    with pytest.raises(ValueError, match="add up to 5, expected 6"):
        from_runs([2, 3], 6)
    with pytest.raises(ValueError, match="add up"):
        from_runs([8, -2], 6)


def test_bounding_box() -> None:
    """Left, top, width, height."""
    mask = np.zeros((10, 20), dtype=bool)
    mask[3:5, 7] = mask[4, 12] = True
    assert bounding_box(mask) == (7, 3, 6, 2)


@pytest.mark.parametrize("counts", ["é", "52h", "o", [3, "x"], [3, 4], [], 7])
def test_what_is_no_mask(counts: object) -> None:
    """One sentence."""
    with pytest.raises(RetraceError, match="no mask of 4x3 pixels"):
        coco_mask((3, 4), counts)  # type: ignore[arg-type]
