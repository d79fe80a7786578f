"""Writing videos: what is written is read back, and nothing is left behind when it fails."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from retrace.errors import RetraceError, UsageError
from retrace.video.decode import open_video
from retrace.video.encode import VideoWriter, frame_rate


@pytest.mark.parametrize(("height", "width"), [(50, 90), (51, 91), (50, 91), (51, 90), (1, 1)])
@pytest.mark.parametrize("fps", [24, 29.97, 7.3])
def test_round_trip(tmp_path: Path, numbered, number, height: int, width: int, fps: float) -> None:
    """Frames, size made even by repeating the edge, and rate come back."""
    path = tmp_path / "out" / "a.mp4"
    big = numbered(0, max(height, 50), max(width, 90))
    with VideoWriter(path, height=height, width=width, fps=fps) as writer:
        for index in range(5):
            writer.write(numbered(index, *big.shape[:2])[:height, :width])
    with open_video(path) as reader:
        frames = list(reader)
    assert (reader.height, reader.width) == (height + height % 2, width + width % 2)
    assert reader.fps == pytest.approx(fps, rel=1e-4)
    assert len(frames) == 5
    assert frames[4].time == pytest.approx(4 / fps, rel=1e-3)
    if height > 1:
        assert [number(frame.image) for frame in frames] == list(range(5))
        edge = frames[2].image.astype(int)
        assert np.abs(edge[height - 1, :width] - edge[-1, :width]).max() < 12
        assert np.abs(edge[:height, width - 1] - edge[:height, -1]).max() < 12


def test_colours_survive(tmp_path: Path) -> None:
    """The matrix that is used is the one that is written in the file."""
    colours = np.array(
        [(200, 30, 40), (20, 180, 60), (30, 60, 220), (250, 250, 250), (5, 5, 5)], dtype=np.uint8
    )
    image = np.repeat(np.repeat(colours[None], 32, axis=0), 32, axis=1)
    before = image.copy()
    with VideoWriter(tmp_path / "a.mp4", height=32, width=160, fps=24) as writer:
        writer.write(image)
    np.testing.assert_array_equal(image, before)
    (frame,) = open_video(tmp_path / "a.mp4")
    assert np.abs(frame.image[16, 16::32].astype(int) - colours).max() <= 4
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert next(container.decode(video=0)).colorspace == 1  # BT.709


def test_plays_everywhere(tmp_path: Path, numbered) -> None:
    """H.264, yuv420p, the index in front of the pictures."""
    path = tmp_path / "a.mp4"
    with VideoWriter(path, height=50, width=90, fps=24) as writer:
        writer.write(numbered(0))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_nothing_appears_before_the_end(tmp_path: Path, numbered) -> None:
    """The file has its name only when it is whole; an older one is kept until then."""
    path = tmp_path / "a.mp4"
    path.write_text("older")
    with VideoWriter(path, height=50, width=90, fps=24) as writer:
        writer.write(numbered(0))
        assert path.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert len(list(open_video(path))) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_nothing_is_left_after_a_failure(tmp_path: Path, numbered, error: type[BaseException]) -> None:
    """The caller's exception passes unchanged, also one that looks like trouble with the file."""
    path = tmp_path / "a.mp4"

    def fail() -> None:
        with VideoWriter(path, height=50, width=90, fps=24) as writer:
            writer.write(numbered(0))
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_no_frames(tmp_path: Path) -> None:
    """A video without frames is refused."""
    with (
        pytest.raises(RetraceError, match="No frames"),
        VideoWriter(tmp_path / "a.mp4", height=50, width=90, fps=24),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_wrong_frames(tmp_path: Path, numbered) -> None:
    """Another shape or dtype is refused with a sentence."""
    for image in (numbered(0)[:40], numbered(0).astype(np.float32), numbered(0)[..., 0]):
        with (
            pytest.raises(UsageError, match=r"expected \(50, 90, 3\) uint8"),
            VideoWriter(tmp_path / "a.mp4", height=50, width=90, fps=24) as writer,
        ):
            writer.write(image)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place(tmp_path: Path) -> None:
    """A file where a folder is needed."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RetraceError, match=r"Cannot write .*Choose a folder"),
        VideoWriter(tmp_path / "file" / "a.mp4", height=50, width=90, fps=24),
    ):
        pass


def test_full_disk(tmp_path: Path) -> None:
    """What does not fit is a sentence, and nothing stays; a limit on the size of files stands for the disk."""
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)

    def write() -> None:
        with VideoWriter(tmp_path / "a.mp4", height=200, width=300, fps=24) as writer:
            for _ in range(60):
                writer.write(noise)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(RetraceError, match=r"Cannot write the video .*free space"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("height", "width", "fps"), [(0, 90, 24), (50, -1, 24), (50, 90, 0), (50, 90, float("nan"))]
)
def test_wrong_sizes_and_rates(tmp_path: Path, height: int, width: int, fps: float) -> None:
    """Sizes and rates that no video has."""
    with pytest.raises(UsageError, match="cannot be written"):
        VideoWriter(tmp_path / "a.mp4", height=height, width=width, fps=fps)


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (29.97, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (30, Fraction(30)),
        (24.0, Fraction(24)),
        (12.5, Fraction(25, 2)),
        (1 / 3, Fraction(1, 3)),
        (29.9, Fraction(299, 10)),
        (1e-9, Fraction(1, 1000)),
    ],
)
def test_frame_rate(fps: float, expected: Fraction) -> None:
    """Broadcast rates become the exact fractions."""
    assert frame_rate(fps) == expected
