"""Tiny videos whose frames say their own number, in every container and pixel format that is tested."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

BLOCK = 10  # pixels; the number is written as 8 black or white blocks along the top


def numbered_frame(number: int, height: int = 50, width: int = 90) -> NDArray[np.uint8]:
    """(H, W, 3): the number in binary in the first row of blocks; below red on the left, blue on the right."""
    image = np.full((height, width, 3), 128, dtype=np.uint8)
    for bit in range(8):
        image[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 235 if number >> bit & 1 else 20
    image[2 * BLOCK :, : width // 3] = (200, 40, 40)
    image[2 * BLOCK :, -width // 3 :] = (40, 40, 200)
    return image


def read_number(image: NDArray[np.uint8], scale: float = 1.0) -> int:
    """The number in a frame made by `numbered_frame`, possibly resized by `scale`."""
    centres = [(bit + 0.5) * BLOCK * scale for bit in range(8)]
    row = round(0.5 * BLOCK * scale)
    return sum(int(image[row, int(x)].mean() > 128) << bit for bit, x in enumerate(centres))


@pytest.fixture
def numbered() -> Callable[..., NDArray[np.uint8]]:
    """`numbered_frame`."""
    return numbered_frame


@pytest.fixture
def number() -> Callable[..., int]:
    """`read_number`."""
    return read_number


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Write numbered frames with PyAV; returns the path."""

    def make(
        name: str,
        *,
        frames: int = 12,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        rate: Fraction | int = 25,
        height: int = 50,
        width: int = 90,
        pts: Sequence[int] | None = None,
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
        noise: bool = False,
    ) -> Path:
        path = tmp_path / name
        random = np.random.default_rng(0)
        with av.open(str(path), "w", options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=rate, options=options or {})
            stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
            stream.codec_context.thread_count = (
                1  # the same bytes every time, so damage falls in the same place
            )
            for index in range(frames):
                image = numbered_frame(index, height, width)
                if noise:  # makes the file large enough to be damaged in a chosen place
                    image[2 * BLOCK :] = random.integers(0, 256, image[2 * BLOCK :].shape, dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)
                frame.pts = index if pts is None else pts[index]
                frame.time_base = 1 / Fraction(rate)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make
