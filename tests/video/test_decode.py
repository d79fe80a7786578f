"""Decoding: what comes out of every kind of file, and what is said about the broken ones."""

import os
import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from retrace.datasets.records import Video
from retrace.errors import RetraceError
from retrace.video import decode
from retrace.video.decode import BrokenVideo, DirectFrames, fitted_size, open_video, probe, resized

RED, BLUE = (200, 40, 40), (40, 40, 200)


def close(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 12) -> bool:
    """Whether a pixel has a colour, compression aside."""
    return bool(np.abs(pixel.astype(int) - colour).max() <= tolerance)


# --- every kind of file ----------------------------------------------------------------------------------------------

KINDS = [
    ("a.mp4", "libx264", "yuv420p"),
    ("a.mov", "libx264", "yuv420p"),
    ("a.mkv", "libx264", "yuv420p"),
    ("a.avi", "mpeg4", "yuv420p"),
    ("a.webm", "libvpx-vp9", "yuv420p"),
    ("vp8.webm", "libvpx", "yuv420p"),
    ("ten.mp4", "libx264", "yuv420p10le"),
    ("ten422.mkv", "libx264", "yuv422p10le"),
    ("full.mp4", "libx264", "yuvj420p"),
    ("hevc.mp4", "libx265", "yuv420p"),
    ("a.ts", "libx264", "yuv420p"),
    ("prores.mov", "prores_ks", "yuva444p10le"),
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), KINDS)
def test_containers_and_pixel_formats(make_video, number, name: str, codec: str, pix_fmt: str) -> None:
    """Containers and pixel formats."""
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    options = {"log-level": "none", "x265-params": "log-level=none"} if codec == "libx265" else None
    path = make_video(name, codec=codec, pix_fmt=pix_fmt, options=options)
    with open_video(path) as reader:
        frames = list(reader)
    assert (reader.height, reader.width) == (50, 90)
    assert reader.fps == pytest.approx(25)
    assert reader.damage is None
    assert not reader.names
    assert [frame.index for frame in frames] == list(range(12))
    assert [number(frame.image) for frame in frames] == list(range(12))
    assert [frame.name for frame in frames[:2]] == ["00000", "00001"]
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(12)], abs=2e-3)
    image = frames[3].image
    assert image.dtype == np.uint8
    assert image.shape == (50, 90, 3)
    assert image.flags.c_contiguous
    assert close(image[40, 10], RED)
    assert close(image[40, 80], BLUE)
    assert probe(path)[0] == Video(path, 12, 50, 90, reader.fps)


def test_grey(make_video, number) -> None:
    """Grey."""
    path = make_video("grey.mkv", codec="libx264", pix_fmt="gray")
    frames = list(open_video(path))
    assert [number(frame.image) for frame in frames] == list(range(12))
    assert np.ptp(frames[0].image, axis=2).max() == 0  # grey stays grey
    assert (
        abs(int(frames[0].image[40, 45, 0]) - 128) <= 3
    )  # and as bright as it was: the range is not stretched twice


def test_gif(make_video, number) -> None:
    """Gif."""
    path = make_video("a.gif", codec="gif", pix_fmt="rgb8", rate=10)
    frames = list(open_video(path))
    assert [number(frame.image) for frame in frames] == list(range(12))
    assert frames[5].time == pytest.approx(0.5, abs=0.02)


def test_transparent_gif_lies_on_white(tmp_path: Path) -> None:
    """Transparent gif lies on white."""
    picture = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    picture.paste((200, 40, 40, 255), (10, 10, 20, 20))
    moved = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    moved.paste((200, 40, 40, 255), (20, 10, 30, 20))
    picture.save(tmp_path / "a.gif", save_all=True, append_images=[moved], duration=100, disposal=2)
    first, second = open_video(tmp_path / "a.gif")
    assert close(first.image[2, 2], (255, 255, 255))
    assert close(first.image[15, 15], RED)
    assert close(second.image[15, 12], (255, 255, 255))
    assert close(second.image[15, 25], RED)


@pytest.mark.parametrize(("height", "width"), [(51, 91), (50, 91), (51, 90)])
def test_odd_sizes(make_video, number, height: int, width: int) -> None:
    """Odd sizes."""
    path = make_video("odd.mkv", pix_fmt="yuv444p", height=height, width=width)
    frames = list(open_video(path))
    assert all(frame.image.shape == (height, width, 3) for frame in frames)
    assert [number(frame.image) for frame in frames] == list(range(12))


def test_variable_frame_rate_keeps_time_stamps(make_video, number) -> None:
    """Variable frame rate keeps time stamps."""
    pts = [0, 1, 2, 10, 11, 30, 31, 32, 60, 61, 62, 75]
    path = make_video("vfr.mp4", pts=pts, rate=25)
    frames = list(open_video(path))
    assert [number(frame.image) for frame in frames] == list(range(12))  # nothing repeated, nothing dropped
    assert [frame.time for frame in frames] == pytest.approx([p / 25 for p in pts], abs=1e-3)
    reader = open_video(path)
    assert 0 < reader.fps < 25
    video = probe(path)[0]
    clip = DirectFrames().frames(video, [8, 3, 8])
    assert [number(image) for image in clip] == [8, 3, 8]


def test_time_starts_at_zero(make_video) -> None:
    """Time starts at zero."""
    path = make_video("late.mkv", pts=[100 + i for i in range(12)])
    assert next(iter(open_video(path))).time == 0.0


# --- orientation -----------------------------------------------------------------------------------------------------

MATRICES = {  # (a, b, c, d) of x' = a x + c y, y' = b x + d y -> what it does to an upright picture
    "0": ((1, 0, 0, 1), lambda image: image),
    "90 clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "180": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "90 counterclockwise": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "transposed": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
}


def write_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Overwrite the display matrix in the track header (tkhd) of an mp4, as a phone writes it."""
    data = bytearray(path.read_bytes())
    box = data.index(b"tkhd")
    assert data[box + 4] == 0, "version 0 header"
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    data[box + 44 : box + 80] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrix_is_applied(make_video, name: str) -> None:
    """Display matrix is applied."""
    path = make_video("phone.mp4", frames=3)
    plain = [frame.image for frame in open_video(path)]
    matrix, expected = MATRICES[name]
    write_matrix(path, *matrix)
    with open_video(path) as reader:
        turned = [frame.image for frame in reader]
    assert (reader.height, reader.width) == expected(plain[0]).shape[:2]
    for before, after in zip(plain, turned, strict=True):
        np.testing.assert_array_equal(after, expected(before))
    video, damage = probe(path)
    assert damage is None
    assert (video.height, video.width) == expected(plain[0]).shape[:2]
    np.testing.assert_array_equal(DirectFrames().frames(video, [2])[0], turned[2])


def test_matrix_agrees_with_ffmpegs_angle(make_video) -> None:
    """Matrix agrees with ffmpegs angle."""
    path = make_video("phone.mp4", frames=1)
    write_matrix(path, 0, 1, -1, 0)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation == -90  # degrees counterclockwise


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_frames(tmp_path: Path, orientation: int) -> None:
    """Exif orientation of frames."""
    stored = np.zeros((24, 40, 3), dtype=np.uint8)
    stored[:12, :20] = 255  # top left corner of what is stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    for index in range(2):
        Image.fromarray(stored).save(tmp_path / f"{index}.jpg", exif=exif, quality=95)
    corner = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[
        orientation
    ]
    with open_video(tmp_path) as reader:
        image = next(iter(reader)).image
    assert image.shape == ((24, 40, 3) if orientation < 5 else (40, 24, 3))
    assert (reader.height, reader.width) == image.shape[:2]
    h, w = image.shape[:2]
    halves = image.mean(axis=2)
    means = {
        (i, j): halves[i * h // 2 :, j * w // 2 :][: h // 2, : w // 2].mean() for i in (0, 1) for j in (0, 1)
    }
    assert max(means, key=means.__getitem__) == corner


# --- frame folders ---------------------------------------------------------------------------------------------------


def test_frame_folder_natural_order_and_names(tmp_path: Path, numbered, number) -> None:
    """Frame folder natural order and names."""
    names = ["frame1.png", "frame2.png", "frame10.bmp", "frame11.webp", "frame100.jpg", "other.PNG"]
    for index, name in reversed(list(enumerate(names))):
        options = {"lossless": True} if name.endswith("webp") else {}
        Image.fromarray(numbered(index)).save(tmp_path / name, **options)
    (tmp_path / ".hidden.png").write_bytes(b"not an image")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "folder.png").mkdir()
    with open_video(tmp_path) as reader:
        frames = list(reader)
    assert reader.names
    assert reader.num_frames == 6
    assert reader.fps == 24
    assert [frame.name for frame in frames] == ["frame1", "frame2", "frame10", "frame11", "frame100", "other"]
    assert [number(frame.image) for frame in frames] == list(range(6))
    assert frames[3].time == pytest.approx(3 / 24)


def test_images_of_every_mode(tmp_path: Path) -> None:
    """Images of every mode."""
    height, width = 6, 8
    grey = np.full((height, width), 100, dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "0_grey.png")
    Image.fromarray(np.full((height, width), 100 * 257, dtype=np.uint16)).save(tmp_path / "1_grey16.png")
    half = np.zeros((height, width, 4), dtype=np.uint8)
    half[..., 3] = 128
    Image.fromarray(half, "RGBA").save(tmp_path / "2_alpha.png")
    Image.fromarray(np.stack([grey, np.zeros_like(grey)], axis=-1), "LA").save(tmp_path / "3_grey_alpha.png")
    palette = Image.fromarray(np.ones((height, width), dtype=np.uint8), "P")
    palette.putpalette([0, 0, 0, 200, 40, 40])
    palette.save(tmp_path / "4_palette.png")
    palette.save(tmp_path / "5_palette_clear.png", transparency=1)
    Image.fromarray(np.full((height, width, 4), 60, dtype=np.uint8), "CMYK").save(tmp_path / "6_cmyk.jpg")
    Image.fromarray(grey > 50).save(tmp_path / "7_bits.png")
    images = [frame.image for frame in open_video(tmp_path)]
    assert all(image.shape == (height, width, 3) and image.dtype == np.uint8 for image in images)
    pixels = [tuple(int(v) for v in image[3, 3]) for image in images]
    assert pixels[0] == pixels[1] == (100, 100, 100)
    assert pixels[2] == (127, 127, 127)
    assert pixels[3] == pixels[5] == pixels[7] == (255, 255, 255)
    assert pixels[4] == RED
    assert 100 < pixels[6][0] < 180


def test_frames_of_several_sizes_are_refused(tmp_path: Path) -> None:
    """Frames of several sizes are refused."""
    Image.new("RGB", (40, 30)).save(tmp_path / "0.png")
    Image.new("RGB", (30, 40)).save(tmp_path / "1.png")
    with pytest.raises(BrokenVideo, match=r"0\.png is 40x30, 1\.png is 30x40"):
        open_video(tmp_path)


def test_two_images_with_one_name_are_refused(tmp_path: Path) -> None:
    """Two images with one name are refused."""
    Image.new("RGB", (40, 30)).save(tmp_path / "0.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "0.jpg")
    with pytest.raises(RetraceError, match="both"):
        open_video(tmp_path)


def test_broken_image_in_a_folder_ends_it(tmp_path: Path, numbered) -> None:
    """Broken image in a folder ends it."""
    for index in range(5):
        Image.fromarray(numbered(index)).save(tmp_path / f"{index}.jpg", quality=100)
    data = (tmp_path / "3.jpg").read_bytes()
    (tmp_path / "3.jpg").write_bytes(data[: len(data) // 2])
    with open_video(tmp_path) as reader:
        assert [frame.name for frame in reader] == ["0", "1", "2"]
    assert "damaged after 3 of 5 frames" in reader.damage
    assert "3.jpg" in reader.damage
    assert "truncated" in reader.damage
    (tmp_path / "0.jpg").write_bytes(b"")
    with pytest.raises(BrokenVideo, match=r"first frame.*0\.jpg is not an image"):
        open_video(tmp_path)


# --- wrong input -----------------------------------------------------------------------------------------------------


def test_missing_path(tmp_path: Path) -> None:
    """Missing path."""
    with pytest.raises(BrokenVideo, match="There is no file or folder"):
        open_video(tmp_path / "nothing.mp4")


def test_empty_folder(tmp_path: Path) -> None:
    """Empty folder."""
    with pytest.raises(BrokenVideo, match="holds no images"):
        open_video(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    """Empty file."""
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(BrokenVideo, match="is empty"):
        open_video(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.gif"])
def test_text_is_not_a_video(tmp_path: Path, name: str) -> None:
    """Text is not a video."""
    # FFmpeg would draw a .txt as a picture of its letters
    (tmp_path / name).write_text("clips/one.mp4\nclips/two.mp4\n" * 50)
    with pytest.raises(BrokenVideo, match="is not a video that can be read"):
        open_video(tmp_path / name)


def test_play_lists_open_nothing(tmp_path: Path, make_video) -> None:
    """Play lists open nothing."""
    make_video("real.mp4")
    (tmp_path / "a.mp4").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nreal.mp4\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(BrokenVideo, match="is not a video"):
        open_video(tmp_path / "a.mp4")


def test_single_image(tmp_path: Path) -> None:
    """Single image."""
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    with pytest.raises(BrokenVideo, match="single image"):
        open_video(tmp_path / "a.png")


def test_sound_only(tmp_path: Path) -> None:
    """Sound only."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for index in range(8):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), "fltp", "mono")
            sound.sample_rate, sound.pts = 16000, index * 1024
            container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(BrokenVideo, match="holds sound but no pictures"):
        open_video(path)


def test_no_frames(make_video, tmp_path: Path) -> None:
    """No frames."""
    path = make_video("none.mkv", frames=0)
    with pytest.raises(BrokenVideo):
        open_video(path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_no_permission(make_video) -> None:
    """No permission."""
    path = make_video("a.mp4")
    path.chmod(0)
    with pytest.raises(BrokenVideo, match="permission"):
        open_video(path)


# --- damage ----------------------------------------------------------------------------------------------------------


def cut(path: Path, part: float) -> Path:
    """A copy that ends too early."""
    shorter = path.with_name(f"cut_{path.name}")
    data = path.read_bytes()
    shorter.write_bytes(data[: int(len(data) * part)])
    return shorter


def flip(path: Path, part: float, count: int) -> Path:
    """A copy with random bytes in the middle."""
    broken = path.with_name(f"flip_{path.name}")
    data = bytearray(path.read_bytes())
    start = int(len(data) * part)
    data[start : start + count] = np.random.default_rng(0).integers(0, 256, count, dtype=np.uint8).tobytes()
    broken.write_bytes(data)
    return broken


CUT = [
    ("a.mp4", "libx264", {"movflags": "faststart"}),
    ("a.mkv", "libx264", None),
    ("a.webm", "libvpx-vp9", None),
    ("a.avi", "mpeg4", None),
]


@pytest.mark.parametrize(("name", "codec", "container_options"), CUT)
@pytest.mark.parametrize("threads", [1, 0])
def test_cut_off(make_video, number, name: str, codec: str, container_options, threads: int) -> None:
    """Cut off."""
    whole = make_video(name, codec=codec, frames=24, container_options=container_options, noise=True)
    path = cut(whole, 0.6)
    with open_video(path, threads=threads) as reader:
        frames = list(reader)
    assert 4 <= len(frames) <= 18
    assert [number(frame.image) for frame in frames] == list(range(len(frames)))
    good = [frame.image for frame in open_video(whole)]
    for frame in frames:
        np.testing.assert_array_equal(frame.image, good[frame.index])
    assert f"damaged after {len(frames)}" in reader.damage
    assert "cut off" in reader.damage
    video, damage = probe(path)
    assert video.num_frames == len(frames)
    assert damage == reader.damage
    assert open_video(whole).damage is None


def test_cut_off_without_index(make_video) -> None:
    """Cut off without index."""
    path = cut(make_video("a.mp4", frames=24, noise=True), 0.6)  # the index of an mp4 is at its end
    with pytest.raises(BrokenVideo, match=r"cut off.*Copy or record it again"):
        open_video(path)


def test_index_missing(make_video, tmp_path: Path) -> None:
    """Index missing."""
    data = make_video("a.mp4", frames=24).read_bytes()
    path = tmp_path / "b.mp4"
    path.write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(BrokenVideo, match=r"index \(moov\) is missing"):
        open_video(path)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")])
@pytest.mark.parametrize("part", [0.42, 0.5, 0.61, 0.7])
def test_damage_in_the_middle_keeps_the_frames_before(
    make_video, number, name: str, codec: str, part: float
) -> None:
    """Damage in the middle keeps the frames before, wherever in a frame or an element it begins."""
    whole = make_video(name, codec=codec, frames=24, noise=True)
    path = flip(whole, part, 4000)
    good = [frame.image for frame in open_video(whole)]
    counts = set()
    for threads in (0, 1, 3):
        with open_video(path, threads=threads) as reader:
            frames = list(reader)
        assert 1 <= len(frames) <= 22
        for frame in frames:
            np.testing.assert_array_equal(frame.image, good[frame.index])  # nothing that FFmpeg invented
        assert f"damaged after {len(frames)}" in reader.damage
        assert "repair" in reader.damage
        counts.add(len(frames))
    assert len(counts) == 1  # the place of the break does not depend on the machine
    assert probe(path)[1] is None  # a quick look does not see it
    video, damage = probe(path, thorough=True)
    assert video.num_frames == len(frames)
    assert damage == reader.damage


@pytest.mark.parametrize("padded", [True, False])
def test_an_avi_of_odd_chunks_is_whole(make_video, padded: bool) -> None:
    """Writers that leave out the padding of odd chunks, and what is appended behind the video, are no damage."""
    whole = make_video("a.avi", codec="mpeg4", frames=24, noise=True)
    data = whole.read_bytes()
    index = data.index(b"idx1")
    chunk = b"JUNK" + (3).to_bytes(4, "little") + b"abc" + (b"\0" if padded else b"")
    path = whole.with_name("odd.avi")
    path.write_bytes(data[:index] + chunk + data[index:] + b"an appended tag")
    with open_video(path) as reader:
        frames = list(reader)
    assert (len(frames), reader.damage) == (24, None)


def test_zeroed_half(make_video) -> None:
    """A download whose space was reserved and never filled."""
    whole = make_video("a.mp4", frames=24, container_options={"movflags": "faststart"}, noise=True)
    data = bytearray(whole.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path = whole.with_name("zero.mp4")
    path.write_bytes(data)
    good = [frame.image for frame in open_video(whole)]
    with open_video(path) as reader:
        frames = list(reader)
    assert 4 <= len(frames) <= 18
    for frame in frames:
        np.testing.assert_array_equal(frame.image, good[frame.index])
    assert reader.damage is not None


def test_damage_is_of_the_last_iteration(make_video, tmp_path: Path) -> None:
    """Damage is of the last iteration."""
    path = flip(make_video("a.mp4", frames=24, noise=True), 0.5, 4000)
    reader = open_video(path)
    assert len(list(reader)) > 0
    assert reader.damage is not None
    iterator = iter(reader)
    next(iterator)
    assert reader.damage is None


def test_size_change_in_the_middle(make_video, tmp_path: Path) -> None:
    """Size change in the middle."""
    first, second = make_video("a.h264", frames=4), make_video("b.h264", frames=4, height=60, width=80)
    path = tmp_path / "c.h264"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    with open_video(path) as reader:
        assert len(list(reader)) == 4
    assert "size changes from 90x50 to 80x60" in reader.damage


# --- the reader itself -----------------------------------------------------------------------------------------------


def test_reader_can_be_iterated_again_and_closed(make_video, number) -> None:
    """Reader can be iterated again and closed."""
    path = make_video("a.mp4")
    with open_video(path) as reader:
        first, second = iter(reader), iter(reader)
        assert [next(first).index for _ in range(3)] == [0, 1, 2]
        assert [next(second).index for _ in range(2)] == [0, 1]
        assert next(first).index == 3
        assert len(list(reader)) == 12
    with pytest.raises(StopIteration):
        next(first)


def test_reading_starts_no_writes(make_video) -> None:
    """Reading starts no writes."""
    path = make_video("a.mp4")
    before = (path.stat().st_mtime_ns, sorted(path.parent.iterdir()))
    list(open_video(path))
    assert (path.stat().st_mtime_ns, sorted(path.parent.iterdir())) == before


# --- frames by index -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "8"}),
        ("a.mkv", "libx264", {"g": "250"}),
        ("a.avi", "mpeg4", None),
        ("a.webm", "libvpx-vp9", {"g": "8"}),
        ("a.gif", "gif", None),
        ("a.ts", "libx264", {"g": "8"}),
    ],
)
def test_direct_frames_are_those_of_the_reader(make_video, number, name: str, codec: str, options) -> None:
    """Direct frames are those of the reader."""
    path = make_video(
        name,
        codec=codec,
        frames=40,
        options=options,
        pix_fmt="rgb8" if codec == "gif" else "yuv420p",
        rate=20,
    )
    every = [frame.image for frame in open_video(path)]
    video, _ = probe(path)
    assert video.num_frames == 40
    store = DirectFrames()
    assert store.num_frames(video) == 40
    for indices in ([0], [39], [7, 8, 9], [30, 5, 30, 12]):
        clip = store.frames(video, indices)
        assert clip.shape == (len(indices), 50, 90, 3)
        for image, index in zip(clip, indices, strict=True):
            np.testing.assert_array_equal(image, every[index])


def test_direct_frames_resized(make_video, number) -> None:
    """Direct frames resized."""
    video, _ = probe(make_video("a.mp4"))
    clip = DirectFrames(short_side=25).frames(video, [4, 11])
    assert clip.shape == (2, 25, 45, 3)
    assert [number(image, 0.5) for image in clip] == [4, 11]


def test_direct_frames_of_a_folder(tmp_path: Path, numbered, number) -> None:
    """Direct frames of a folder."""
    for index in range(6):
        Image.fromarray(numbered(index)).save(tmp_path / f"{index}.png")
    video, damage = probe(tmp_path)
    assert (video.num_frames, video.height, video.width, damage) == (6, 50, 90, None)
    assert [number(image) for image in DirectFrames().frames(video, [5, 0])] == [5, 0]
    (tmp_path / "5.png").unlink()
    with pytest.raises(BrokenVideo, match="has 5 frames now, not 6"):
        DirectFrames().frames(video, [5])


def test_direct_frames_outside(make_video) -> None:
    """Direct frames outside."""
    video, _ = probe(make_video("a.mp4"))
    for indices in ([12], [-1], []):
        with pytest.raises(RetraceError, match="frames 0 to 11"):
            DirectFrames().frames(video, indices)


def test_direct_frames_behind_damage(make_video, number) -> None:
    """Direct frames behind damage."""
    path = flip(make_video("a.mp4", frames=24, noise=True), 0.5, 4000)
    video, _ = probe(path)
    assert number(DirectFrames().frames(video, [2])[0]) == 2
    with pytest.raises(BrokenVideo, match="cannot be decoded"):
        DirectFrames().frames(video, [23])


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((480, 854), 288, (288, 512)),
        ((854, 480), 240, (427, 240)),
        ((100, 200), 288, (100, 200)),
        ((9, 5), None, (9, 5)),
    ],
)
def test_fitted_size(size: tuple[int, int], short_side: int | None, expected: tuple[int, int]) -> None:
    """Fitted size."""
    assert fitted_size(*size, short_side) == expected


def test_resized_is_area_average() -> None:
    """Resized is area average."""
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    expected = image.reshape(3, 2, 4, 2, 3).mean(axis=(1, 3))
    assert np.abs(resized(image, 3, 4) - expected).max() <= 0.5 + 1e-9
    assert resized(image, 6, 8) is image


# --- container sizes -------------------------------------------------------------------------------------------------


def test_ebml_size() -> None:
    """Ebml size."""
    assert decode._ebml_size(b"\x81") == (1, 1)
    assert decode._ebml_size(b"\x40\x02") == (2, 2)
    assert decode._ebml_size(b"\x01\xff\xff\xff\xff\xff\xff\xff") == (None, 8)
    assert decode._ebml_size(b"\x01\x00\x00\x00\x00\x00\x01\x00") == (256, 8)


def test_bytes_behind_the_video_are_no_damage(make_video) -> None:
    """Bytes behind the video are no damage."""
    for name, codec in (("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mkv", "libx264")):
        path = make_video(name, codec=codec)
        with path.open("ab") as file:
            file.write(bytes(100))
        with open_video(path) as reader:
            assert len(list(reader)) == 12
        assert reader.damage is None, name


def test_rate_of_ntsc(make_video) -> None:
    """Rate of ntsc."""
    assert open_video(make_video("a.mp4", rate=Fraction(30000, 1001))).fps == pytest.approx(30000 / 1001)


# --- real clips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sleap/small_robot.mp4", (166, 320, 560, 30.0)), ("pysot_bag/bag.avi", (196, 360, 480, 25.0))],
)
def test_real_clips(videos: Path, name: str, expected: tuple[int, int, int, float]) -> None:
    """Real clips."""
    video, damage = probe(videos / name)
    assert damage is None
    assert (video.num_frames, video.height, video.width, video.fps) == expected
    with open_video(videos / name) as reader:
        times = [frame.time for frame in reader]
    assert reader.damage is None
    assert len(times) == expected[0]
    assert all(a < b for a, b in pairwise(times))


def test_real_folder(videos: Path) -> None:
    """Real folder."""
    folder = videos / "davis2016" / "JPEGImages" / "480p" / "dog"
    video, _ = probe(folder)
    assert (video.height, video.width) == (480, 854)
    with open_video(folder) as reader:
        assert next(iter(reader)).name == "00000"
