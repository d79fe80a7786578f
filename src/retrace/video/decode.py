"""Frames of a video file or a frame folder, upright and in RGB: one after the other, or a few by index.

What every frame has been through:

* rotation and mirroring written in the file (display matrix, EXIF orientation) are applied;
* 10-bit, grey and palette pictures become 8-bit RGB; transparent ones are laid on white. High dynamic range
  is not tone-mapped;
* pixels are taken as they are stored: no deinterlacing, no correction of pixels that are not square.

A break (a damaged packet, a file that ends too early) ends the iteration after the last frame before it and is told in
`VideoReader.damage`. FFmpeg conceals damage by inventing pixels; frames that it marks so are not given out, because
labels would ride on them. What nobody can notice is damage that decodes to some picture: a few bytes inside a frame of
VP8 or VP9 often do, in H.264 at most the last frame before the reported break does.
"""

import heapq
import mmap
import os
import re
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

import av
import av.container
import av.error
import av.video.stream
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from retrace.datasets import records
from retrace.datasets.records import FRAME_FOLDER_FPS, IMAGE_SUFFIXES, Video, frame_files
from retrace.errors import RetraceError

Pixels = NDArray[np.uint8]

_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,mpegvideo,flv,asf,ogg,h264,hevc,m4v,"
    "mjpeg,dv,rm,nut,ivf,yuv4mpegpipe,mxf"
)
# FFmpeg chooses a demuxer by content. Play lists would open other files and addresses, and the text demuxers
# turn a list of videos into a picture of its letters, so only real containers are allowed, and only local files.
_OPEN_OPTIONS = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}

# Decoders that return an error, in order, before they give out a frame they found corrupt; others run on one thread.
HELD_BACK = 8  # frames that a damaged one may run ahead of its error: as many as an encoder reorders
_THREADED = frozenset(
    {"h264", "hevc", "vp9", "vp8", "av1", "libdav1d", "prores", "mjpeg", "ffv1", "dnxhd", "gif"}
)

# Decoders that never mark a frame as corrupt: only their errors tell.
_NO_MARKS = frozenset({"hevc"})

_ONE_FRAME_PER_PACKET = frozenset(
    {"h264", "hevc", "mjpeg", "prores", "gif", "vp9", "av1", "libdav1d", "ffv1"}
)


class BrokenVideo(RetraceError):
    """A video or a part of it that cannot be read. The message names the file, the reason and what to do."""


class _Break(Exception):
    """Decoding cannot go on; the text says why, without the file's name."""


class _Suspect(Exception):
    """Multi-threaded decoding met an error; where exactly is found by decoding again, one packet at a time."""


@dataclass(frozen=True)
class Frame:
    """One frame, upright."""

    index: int
    """0 for the first frame."""
    time: float
    """Seconds since the first frame, from the file's own time stamps; index / fps where there are none."""
    name: str
    """File stem in a frame folder, "%05d" of the index in a video."""
    image: Pixels
    """(H, W, 3) RGB uint8."""


class _Source(Protocol):
    height: int
    width: int
    fps: float
    num_frames: int | None

    def frames(self) -> Iterator[Frame]: ...  # raises _Break


class VideoReader:
    """Iterates over the frames of one video with bounded memory. Every iteration starts at the first frame.

    Attributes:
        path: What was opened.
        height: Pixels, upright.
        width: Pixels, upright.
        fps: Frames per second, the average when the rate varies; 24 for a frame folder.
        num_frames: What the container announces (a progress bar's length); None when it does not say.
        names: True when frames carry file names (frame folder), False for numbered frames of a video.
        damage: None, or after the iteration reached a break a sentence that says where and why; frames
            before it were given out.
    """

    def __init__(self, path: Path, source: _Source, *, names: bool) -> None:
        """Use `open_video`."""
        self.path = path
        self._source = source
        self.height = source.height
        self.width = source.width
        self.fps = source.fps
        self.num_frames = source.num_frames
        self.names = names
        self.damage: str | None = None
        self._running: list[Iterator[Frame]] = []

    def __iter__(self) -> Iterator[Frame]:
        """Frames from the first on. Errors: BrokenVideo when the file is no longer what was opened."""
        iterator = self._iterate()
        self._running.append(iterator)
        return iterator

    def _iterate(self) -> Iterator[Frame]:
        self.damage = None
        given = 0
        try:
            with closing(cast("_Closable", self._source.frames())) as frames:
                for frame in frames:
                    yield frame
                    given += 1
        except _Break as reason:
            expected = (
                f" of {self.num_frames}" if self.num_frames is not None and self.num_frames > given else ""
            )
            self.damage = (
                f"{self.path} is damaged after {given}{expected} frames: {reason}. The frames before it were read; "
                "copy the file again or repair it to get the rest."
            )

    def close(self) -> None:
        """Release the file. Iterations still under way end."""
        for iterator in self._running:
            cast("_Closable", iterator).close()
        self._running.clear()

    def __enter__(self) -> Self:
        """The reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `close`."""
        self.close()


class _Closable(Protocol):
    def close(self) -> None: ...
    def __iter__(self) -> Iterator[Frame]: ...


def open_video(path: str | Path, *, threads: int = 0) -> VideoReader:
    """Open a video file or a frame folder and look at its first frame.

    Args:
        path: mp4, mov, avi, mkv, webm, gif and other containers, or a folder of images (natural order of names).
        threads: Decoder threads, 0 for as many as cores.

    Errors: BrokenVideo (a RetraceError) when the path is missing, the folder holds no images or images of
        several sizes, the file is empty, cut off before its first frame, without pictures (audio only), not
        a video, or damaged at its first frame.
    """
    path = Path(path)
    try:
        is_folder, exists, size = path.is_dir(), path.exists(), path.stat().st_size if path.exists() else 0
    except OSError as error:
        raise BrokenVideo(
            f"Cannot look at {path}: {error.strerror}. Check the path and its permissions."
        ) from error
    if not exists:
        raise BrokenVideo(
            f"There is no file or folder {path}. Give the path of a video or of a folder of frames."
        )
    if is_folder:
        return VideoReader(path, _FrameFolder(path), names=True)
    if size == 0:
        raise BrokenVideo(f"{path} is empty (0 bytes). Copy or record the video again.")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise BrokenVideo(f"{path} is a single image. Give a video, or the folder that holds the frames.")
    return VideoReader(path, _VideoFile(path, threads), names=False)


def frames_of(sequence: records.Sequence[Any]) -> Iterator[Pixels]:
    """The frames (H, W, 3) uint8 RGB of an item of a benchmark, one after the other, wherever they are.

    Errors: BrokenVideo when one cannot be read, or a video file ends before its annotation.
    """
    if isinstance(sequence.frames, np.ndarray):
        yield from sequence.frames
    elif isinstance(sequence.frames, records.Made):
        yield from sequence.frames.make()
    elif isinstance(sequence.frames, tuple):
        for file in sequence.frames:
            yield read_image(file)
    elif isinstance(sequence.frames, records.Encoded):
        for number, data in enumerate(sequence.frames.images):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            if image is None:
                raise BrokenVideo(
                    f"Frame {number} of {sequence.name} is not an image. Download the file again."
                )
            yield np.asarray(image, dtype=np.uint8)
    else:
        count = 0
        with open_video(sequence.frames) as reader:
            for frame in islice(reader, sequence.num_frames):
                count += 1
                yield frame.image
        if count < sequence.num_frames:
            raise BrokenVideo(
                f"{sequence.frames} has only {count} frames, its annotation needs {sequence.num_frames}. "
                "Download the video again."
            )


# ---------------------------------------------------------------------------------------------------------------------
# Frame folders


class _FrameFolder:
    def __init__(self, folder: Path) -> None:
        try:
            self.files = frame_files(folder)
        except OSError as error:
            raise BrokenVideo(f"Cannot list {folder}: {error.strerror}. Check its permissions.") from error
        if not self.files:
            raise BrokenVideo(
                f"{folder} holds no images. A frame folder holds one image per frame (jpg, png, bmp, webp, tiff)."
            )
        try:
            self.height, self.width = _read_image(self.files[0]).shape[:2]
        except _Break as reason:
            raise BrokenVideo(f"The first frame of {folder}, {reason}. Replace or remove it.") from reason
        for file in self.files[1:]:
            try:
                found = _image_size(file)
            except _Break:
                continue  # the iteration ends there and says so; the frames before it are good
            if found != (self.height, self.width):
                raise BrokenVideo(
                    f"The frames of {folder} differ in size: {self.files[0].name} is {self.width}x{self.height}, "
                    f"{file.name} is {found[1]}x{found[0]}. Keep the frames of one video only, all of one size."
                )
        self.fps = FRAME_FOLDER_FPS
        self.num_frames: int | None = len(self.files)

    def frames(self) -> Iterator[Frame]:
        for index, file in enumerate(self.files):
            image = _read_image(file)
            if image.shape[:2] != (self.height, self.width):
                raise _Break(f"{file.name} has another size now")
            yield Frame(index, index / self.fps, file.stem, image)


def _image_size(file: Path) -> tuple[int, int]:
    """(height, width) of the upright image, from its header."""
    try:
        with Image.open(file) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5-8 swap the sides
            return (image.width, image.height) if turned else (image.height, image.width)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _Break(_image_reason(file, error)) from error


def read_image(file: Path) -> Pixels:
    """(H, W, 3) RGB uint8, upright, transparency laid on white, 16-bit reduced to 8.

    Errors: BrokenVideo when the image cannot be read.
    """
    try:
        return _read_image(file)
    except _Break as reason:
        raise BrokenVideo(f"In {file.parent}, {reason}. Replace or remove it.") from reason


def _read_image(file: Path) -> Pixels:
    """`read_image`, with _Break and the reason alone."""
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("I", "I;16", "I;16B", "I;16L"):
                # Pillow would clip instead of scale; "I" is how it opens some 16-bit PNGs
                grey = (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            if "A" in upright.getbands() or "transparency" in upright.info:
                white = Image.new("RGBA", upright.size, (255, 255, 255, 255))
                upright = Image.alpha_composite(white, upright.convert("RGBA"))
            return np.array(upright.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _Break(_image_reason(file, error)) from error


def _image_reason(file: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"{file.name} is not an image that can be read"
    if isinstance(error, OSError) and error.strerror:
        return f"{file.name} cannot be read ({error.strerror})"
    return f"{file.name} cannot be read ({error})"


# ---------------------------------------------------------------------------------------------------------------------
# Video files


class _VideoFile:
    def __init__(self, path: Path, threads: int) -> None:
        self.path = path
        self.threads = threads
        self.cut_off = _cut_off(path)
        self.damaged_from: int | None = None  # first byte that makes no sense
        with _open(path, self.cut_off) as container:
            stream = _video_stream(container, path)
            self.fps = _frame_rate(stream)
            self.num_frames: int | None = stream.frames or None
            self.codec = stream.codec_context.name
            self.format = container.format.name
        self.height, self.width = 0, 0  # not known before the first frame: rotation is written beside it
        try:
            first = next(self._carefully(), None)
        except _Break as reason:
            raise BrokenVideo(
                f"{path} is damaged at its first frame: {reason}. Copy or record it again."
            ) from reason
        if first is None:
            raise BrokenVideo(
                f"{path} holds no frame that can be shown. Check that it plays in a video player."
            )
        self.height, self.width = first.image.shape[:2]

    def frames(self) -> Iterator[Frame]:
        if self.damaged_from is None and ("matroska" in self.format or self.format == "avi"):
            self.damaged_from = _damaged_from(self.path)
        if self.cut_off is not None or self.damaged_from is not None or self.codec not in _THREADED:
            yield from self._trusted()
            return
        # A frame leaves the decoder before the thread that finds it corrupt has said so: the last ones are held back
        # until later frames have come out well, and are decoded again, carefully, if one has not.
        given = 0
        held: deque[Frame] = deque()
        try:
            for frame in self._fast():
                held.append(frame)
                if len(held) > HELD_BACK + (self.threads or os.cpu_count() or 1):
                    yield held.popleft()
                    given += 1
        except _Suspect:
            yield from islice(self._trusted(), given, None)
        except _Break:
            yield from held
            raise
        else:
            yield from held

    def _trusted(self) -> Iterator[Frame]:
        """Frames of `_carefully` without the last one before damage.

        FFmpeg conceals the first damage it meets: that frame can be partly invented, and carries no mark. Damage found
        in the container can begin in the frame before as well, where the first random bytes look like an element.
        """
        held: Frame | None = None
        try:
            for frame in self._carefully():
                if held is not None:
                    yield held
                held = frame
        except _Break:
            if held is not None and self.cut_off is not None and self.damaged_from is None:
                yield held  # an end that is missing damages nothing before it
            raise
        if held is not None:
            yield held

    def _fast(self) -> Iterator[Frame]:
        """Decode on several threads. An error surfaces some packets after its cause: here it is only a suspicion.

        A frame can leave the decoder before the thread that finds it corrupt has marked it, so the decoder is told to
        fail instead of concealing. That is too strict a judge (harmless faults are common): `_carefully` judges.
        """
        clock = _Clock(self.fps)
        packets = 0
        with _open(self.path, None) as container:
            stream = _video_stream(container, self.path)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = self.threads
            stream.codec_context.options = {"err_detect": "explode"}
            try:
                for packet in container.demux(stream):
                    if packet.is_corrupt:
                        raise _Suspect
                    packets += packet.size > 0 and not packet.is_discard
                    for picture in packet.decode():
                        if picture.is_corrupt:
                            raise _Suspect
                        yield self._frame(picture, clock)
            except av.error.FFmpegError as error:
                raise _Suspect from error
        if clock.count < packets and self.codec in _ONE_FRAME_PER_PACKET:
            raise _Suspect

    def _carefully(self) -> Iterator[Frame]:
        """Decode on one thread, packet by packet, so that the place of a break does not depend on the machine."""
        clock = _Clock(self.fps)
        with _open(self.path, self.cut_off) as container:
            stream = _video_stream(container, self.path)
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            if self.codec in _NO_MARKS:
                stream.codec_context.options = {"err_detect": "explode"}
            pending = _Pending() if self.codec in _ONE_FRAME_PER_PACKET else None
            broken_at: int | None = None
            reason: str | None = None
            try:
                for packet in container.demux(stream):
                    broken_at = packet.pts
                    if self.damaged_from is not None and (packet.pos or 0) >= self.damaged_from:
                        break
                    if packet.is_corrupt:
                        reason = "a part of the file is missing or does not fit its checksum"
                        break
                    if pending is not None and packet.size > 0 and not packet.is_discard:
                        pending.sent(packet.pts)
                    for picture in packet.decode():
                        if pending is not None and pending.lost(picture.pts):
                            raise _Break("a frame is missing here")
                        yield self._frame(picture, clock)
            except av.error.FFmpegError as error:
                reason = f"a packet cannot be decoded ({_reason(error)})"
            if self.damaged_from is not None:
                reason = f"the file makes no sense from byte {self.damaged_from} on"
            if reason is not None:
                yield from self._drain(stream, broken_at, clock)
        if self.cut_off is not None:
            reason = self.cut_off
        if reason is not None:
            raise _Break(reason)

    def _drain(
        self, stream: av.video.stream.VideoStream, broken_at: int | None, clock: "_Clock"
    ) -> Iterator[Frame]:
        """Frames the decoder still holds, up to the first that the break left out (B-frames arrive out of order)."""
        try:
            held = stream.codec_context.decode(None)
        except av.error.FFmpegError:
            return  # the break itself, reported by the caller
        for picture in held:
            gap = clock.gap(picture)
            if (broken_at is not None and picture.pts is not None and picture.pts >= broken_at) or gap > 1.5:
                return
            yield self._frame(picture, clock)

    def _frame(self, picture: av.VideoFrame, clock: "_Clock") -> Frame:
        if picture.is_corrupt:
            raise _Break("the picture data are corrupt")
        image = _upright_rgb(picture)
        if self.height and image.shape[:2] != (self.height, self.width):
            raise _Break(
                f"the frame size changes from {self.width}x{self.height} to {image.shape[1]}x{image.shape[0]}"
            )
        index, time = clock.tick(picture)
        return Frame(index, time, f"{index:05d}", image)


class _Pending:
    """Finds frames that went into the decoder and did not come out: all after them would have wrong numbers."""

    def __init__(self) -> None:
        self.times: list[int] = []  # a heap
        self.first: int | None = None  # time of the first frame that came out

    def sent(self, time: int | None) -> None:
        """A packet with this time stamp went in."""
        if time is not None:
            heapq.heappush(self.times, time)

    def lost(self, time: int | None) -> bool:
        """Whether a frame before this one did not come out. What is left out at the start is no loss."""
        if time is None:
            return False
        self.first = time if self.first is None else self.first
        earlier = 0
        while self.times and self.times[0] <= time:
            earlier += self.first < heapq.heappop(self.times) < time
        return earlier > 0


class _Clock:
    """Numbers frames and turns their time stamps into seconds since the first."""

    def __init__(self, fps: float) -> None:
        self.fps = fps
        self.count = 0
        self.start: float | None = None
        self.last = 0.0

    def _seconds(self, picture: av.VideoFrame) -> float:
        stamp = (
            None
            if picture.pts is None or picture.time_base is None
            else float(picture.pts * picture.time_base)
        )
        if stamp is None:
            return self.count / self.fps
        return stamp - (stamp if self.start is None else self.start)

    def gap(self, picture: av.VideoFrame) -> float:
        """Frame intervals between the last frame and this one."""
        return 0.0 if self.count == 0 else (self._seconds(picture) - self.last) * self.fps

    def tick(self, picture: av.VideoFrame) -> tuple[int, float]:
        seconds = self._seconds(picture)
        if self.start is None and picture.pts is not None and picture.time_base is not None:
            self.start = float(picture.pts * picture.time_base)
        self.last = seconds
        self.count += 1
        return self.count - 1, seconds


def _open(path: Path, cut_off: str | None) -> av.container.InputContainer:
    try:
        return av.open(str(path), mode="r", options=_OPEN_OPTIONS, metadata_errors="ignore")
    except PermissionError as error:
        raise BrokenVideo(f"{path} cannot be read: permission denied. Change its permissions.") from error
    except av.error.FFmpegError as error:
        if cut_off is not None:
            raise BrokenVideo(f"{path} cannot be played: {cut_off}. Copy or record it again.") from error
        raise BrokenVideo(
            f"{path} is not a video that can be read ({_reason(error)}). "
            "Give an mp4, mov, avi, mkv, webm or gif file, or a folder of images."
        ) from error


def _reason(error: av.error.FFmpegError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _video_stream(container: av.container.InputContainer, path: Path) -> av.video.stream.VideoStream:
    # cover art of a music file is a video stream too, of one picture
    streams = [s for s in container.streams.video if not s.disposition & type(s.disposition).attached_pic]
    if not streams:
        what = "holds sound but no pictures" if container.streams.audio else "holds no pictures"
        raise BrokenVideo(f"{path} {what}. Give a file with a video track.")
    stream = streams[0]
    if getattr(stream, "codec_context", None) is None:
        raise BrokenVideo(
            f"{path} uses a video codec that this FFmpeg cannot decode. "
            "Convert it to H.264: ffmpeg -i IN -c:v libx264 OUT.mp4."
        )
    return stream


def _frame_rate(stream: av.video.stream.VideoStream) -> float:
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and 0 < rate <= 1000:  # raw streams announce their clock's rate, such as 90000
            return float(rate)
    return FRAME_FOLDER_FPS


def _upright_rgb(picture: av.VideoFrame) -> Pixels:
    """(H, W, 3) RGB uint8 with alpha laid on white and the display matrix applied."""
    if any(component.is_alpha for component in picture.format.components):
        rgba = cast(Pixels, picture.to_ndarray(format="rgba"))
        alpha = rgba[..., 3:].astype(np.uint16)
        image: Pixels = ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    else:
        image = cast(
            Pixels, np.ascontiguousarray(picture.to_ndarray(format="rgb24"))
        )  # PyAV's rows are padded
    matrix = picture.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        image = _apply_display_matrix(image, np.frombuffer(cast(bytes, matrix), dtype=np.int32)[:9])
    return image


def _apply_display_matrix(image: Pixels, matrix: NDArray[np.int32]) -> Pixels:
    """Turn by quarter turns and mirror as the 3x3 display matrix says; other angles go to the nearest of these.

    FFmpeg's layout is (a, b, u, c, d, v, x, y, w) with x' = a x + c y, y' = b x + d y, y pointing down.
    """
    a, b, c, d = (int(matrix[k]) for k in (0, 1, 3, 4))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        flip_x, flip_y = a < 0, d < 0
    else:
        image = image.transpose(1, 0, 2)  # (W, H, 3)
        flip_x, flip_y = c < 0, b < 0
    image = image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(image)


def _cut_off(path: Path) -> str | None:
    """A reason when the container's own sizes say that the end of the file is missing; None when nothing is known.

    FFmpeg plays what is there and ends as if all were well, so the sizes are read here: boxes of mp4 and
    mov, RIFF chunks of avi, the segment of mkv and webm.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            head = file.read(64)
            if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
                return _cut_off_boxes(file, size)
            if head[:4] == b"RIFF":
                return _cut_off_riff(file, size)
            if head[:4] == b"\x1a\x45\xdf\xa3":
                header, used = _ebml_size(head[4:])
                segment = 4 + used + (header or 0)
                file.seek(segment)
                start = file.read(12)
                if start[:4] == b"\x18\x53\x80\x67":
                    length, used = _ebml_size(start[4:])
                    return None if length is None else _missing(size, segment + 4 + used + length)
    except OSError as error:
        raise BrokenVideo(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    return None


def _cut_off_boxes(file: "_Bytes", size: int) -> str | None:
    position, has_index = 0, False
    while position + 8 <= size:
        file.seek(position)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        elif length == 0:
            length = size - position
        if length < 8:
            break  # not a box: padding behind the video
        has_index = has_index or kind in (b"moov", b"moof")
        if position + length > size and kind in (b"mdat", b"moov", b"moof", b"free"):
            return _missing(size, position + length)
        position += length
    if not has_index:
        return "its index (moov) is missing, so the recording was not finished or the file was cut off"
    return None


def _cut_off_riff(file: "_Bytes", size: int) -> str | None:
    position = 0  # large files are several RIFF chunks one behind the other
    while position + 8 <= size:
        file.seek(position)
        header = file.read(8)
        if header[:4] != b"RIFF":
            return None  # something was appended behind the video
        length = int.from_bytes(header[4:], "little")
        if length == 0:
            return "the recording was not finished (the size in its header is 0)"
        position += 8 + length + length % 2
    return _missing(size, position - 1)  # a last padding byte is often left out


# Elements of Matroska that may stand in a segment or in a cluster; clusters are entered, others passed over.
_CLUSTER = 0x1F43B675
_ELEMENTS = frozenset(
    {_CLUSTER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1043A770, 0x1941A469, 0x1254C367, 0xEC, 0xBF}
    | {0xE7, 0xA3, 0xA0, 0xAB, 0xA7, 0x5854, 0xAF}
)


# Chunks of an avi: frames and sound of a numbered stream (00dc, 01wb), indexes, lists of headers, and filling.
_CHUNK = re.compile(rb"[0-9]{2}[A-Za-z]{2}|ix[0-9]{2}|idx1|LIST|JUNK|JUNQ|IDIT|ISMP|strn|strd|indx|vprp")


def _damaged_from(path: Path) -> int | None:
    """Where the last whole element of an mkv, webm or avi begins before its chain of elements breaks, or None.

    FFmpeg searches for the next cluster or chunk after such a place, or gives up, and says nothing in either case.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _damaged_chunk(data) if data[:4] == b"RIFF" else _damaged_element(data)


def _damaged_element(data: mmap.mmap) -> int | None:
    """`_damaged_from` of Matroska."""
    size, used = _ebml_size(data[4:12])
    position = 4 + used + (size or 0)  # of the segment
    if data[position : position + 4] != b"\x18\x53\x80\x67":
        return None
    size, used = _ebml_size(data[position + 4 : position + 12])
    position += 4 + used
    previous = position
    end = len(data) if size is None else min(position + size, len(data))
    while position < end:
        head = data[position : position + 12]
        width = 9 - head[0].bit_length()
        kind = int.from_bytes(head[:width], "big")
        size, used = _ebml_size(head[width:])
        if kind not in _ELEMENTS or (size is None and kind != _CLUSTER):
            return previous  # its length led here, so it is in the damage as well
        previous = position
        position += width + used + (0 if kind == _CLUSTER else size or 0)
    return None


def _damaged_chunk(data: mmap.mmap) -> int | None:
    """`_damaged_from` of RIFF: four letters and a 32-bit length, the frames of a video in lists called "movi"."""
    position, previous, end = 0, 0, 0
    while position + 8 <= len(data):
        kind, length = (
            data[position : position + 4],
            int.from_bytes(data[position + 4 : position + 8], "little"),
        )
        if kind == b"RIFF" and (position == 0 or data[position + 8 : position + 12] == b"AVIX"):
            previous, position, end = position, position + 12, position + 8 + length
        elif kind == b"LIST" and data[position + 8 : position + 12] in (b"movi", b"rec "):
            previous, position = position, position + 12  # entered
        elif _CHUNK.fullmatch(kind):
            previous, position = position, position + 8 + length
            if length % 2 and not _CHUNK.fullmatch(data[position : position + 4]):
                position += 1  # the byte of padding that some writers leave out
        else:
            # anything may be appended behind the index; before it, the length of the previous chunk led here
            return None if data[previous : previous + 4] == b"idx1" else previous
    return previous if position > end + 1 else None  # a length that leads out of the file


class _Bytes(Protocol):
    def seek(self, position: int, /) -> int: ...
    def read(self, count: int, /) -> bytes: ...


def _ebml_size(data: bytes) -> tuple[int | None, int]:
    """A variable-length size of Matroska: (value or None for "unknown", bytes used)."""
    if not data or data[0] == 0:
        return None, 1
    used = 9 - data[0].bit_length()
    value = int.from_bytes(data[:used], "big") & ((1 << (7 * used)) - 1)
    return (None if value == (1 << (7 * used)) - 1 else value), used


def _missing(size: int, announced: int) -> str | None:
    if size >= announced:
        return None
    return f"the file is cut off ({size} of {announced} bytes are there)"


# ---------------------------------------------------------------------------------------------------------------------
# Looking at a video for an index


def probe(path: str | Path, *, thorough: bool = False) -> tuple[Video, str | None]:
    """Record of a video, and a sentence when it breaks after some frames (the record counts those before).

    Reads the header and the first frame; counts frames from the container's index or its packets. `thorough`
    decodes every frame, which is the only way to find damage in the middle. A file that is cut off is always
    decoded to find its last frame.

    Errors: BrokenVideo as `open_video`.
    """
    path = Path(path)
    with open_video(path) as reader:
        source = reader._source
        if isinstance(source, _FrameFolder):
            count = len(source.files)
        else:
            source = cast(_VideoFile, source)
            # hidden frames of vp8 are packets that show nothing
            thorough = thorough or source.cut_off is not None or source.codec == "vp8"
            count = 0 if thorough else _count_packets(path)
        if thorough:
            count = sum(1 for _ in reader)
        return Video(path, max(count, 1), reader.height, reader.width, reader.fps), reader.damage


def _count_packets(path: Path) -> int:
    with _open(path, None) as container:
        stream = _video_stream(container, path)
        entries = getattr(stream, "index_entries", None)
        if entries is not None and "mp4" in container.format.name and len(entries) > 0:
            return sum(1 for entry in entries if not entry.is_discard)
        return len(_packet_times(container, stream))


def _packet_times(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> list[int | None]:
    times: list[int | None] = []
    try:
        for packet in container.demux(stream):
            if packet.size > 0 and not packet.is_discard:
                times.append(packet.pts)
    except av.error.FFmpegError:
        pass  # the packets before the error are what there is; decoding them reports the break
    return times


# ---------------------------------------------------------------------------------------------------------------------
# A few frames by index


class FrameStore(Protocol):
    """Frames of a video by index: `DirectFrames` from the video itself, `cache.FrameCache` from decoded copies."""

    def num_frames(self, video: Video) -> int:
        """Frames that can be asked for."""
        ...

    def frames(self, video: Video, indices: Sequence[int]) -> Pixels:
        """(T, H, W, 3) RGB uint8 of the T indices, in their order. Errors: BrokenVideo."""
        ...


class DirectFrames:
    """Frames by index from the video itself: frame folders file by file, videos by a seek to the key frame before.

    Made for frame folders and for formats where every frame is a key frame; in an ordinary H.264 file a clip
    costs the decoding of everything since the last key frame, often 250 frames: use `FrameCache` there.

    Args:
        short_side: Frames whose shorter side is longer are made smaller (area interpolation) to this many
            pixels; never enlarged.
        threads: Decoder threads, 0 for as many as cores.
    """

    def __init__(self, *, short_side: int | None = None, threads: int = 1) -> None:
        """See the class."""
        self.short_side = short_side
        self.threads = threads
        self._times: OrderedDict[Path, list[int] | None] = OrderedDict()  # per video, a few only

    def num_frames(self, video: Video) -> int:
        """Frames that can be asked for: what the record says."""
        return video.num_frames

    def frames(self, video: Video, indices: Sequence[int]) -> Pixels:
        """(T, H', W', 3) RGB uint8 of the frames at `indices` (T of them, any order, repeats allowed).

        Errors: BrokenVideo when one of them cannot be read; RetraceError when an index is outside the video.
        """
        check_indices(video, indices, video.num_frames)
        wanted = sorted(set(indices))
        height, width = fitted_size(video.height, video.width, self.short_side)
        read = self._from_folder if video.path.is_dir() else self._from_file
        found = {index: resized(image, height, width) for index, image in read(video, wanted)}
        return np.stack([found[index] for index in indices])  # (T, H', W', 3)

    def _from_folder(self, video: Video, wanted: list[int]) -> Iterator[tuple[int, Pixels]]:
        files = frame_files(video.path)
        for index in wanted:
            try:
                image = _read_image(files[index])
            except _Break as reason:
                raise BrokenVideo(
                    f"Frame {index} of {video.path} is damaged: {reason}. Replace it."
                ) from reason
            except IndexError:
                raise BrokenVideo(
                    f"{video.path} has {len(files)} frames now, not {video.num_frames}. "
                    "Index it again: retrace data index."
                ) from None
            yield index, image

    def _from_file(self, video: Video, wanted: list[int]) -> Iterator[tuple[int, Pixels]]:
        times = self._time_stamps(video.path)
        found: list[tuple[int, Pixels]] = []
        if times is not None and wanted[-1] < len(times):
            found = self._seek(video.path, times, wanted)
        if len(found) < len(
            wanted
        ):  # time stamps missing, or a file whose key frames are not where its index says
            found = self._from_the_start(video.path, wanted)
        if len(found) < len(wanted):
            raise BrokenVideo(
                f"Frame {wanted[len(found)]} of {video.path} cannot be decoded. Check the file: retrace data check."
            )
        yield from found

    def _time_stamps(self, path: Path) -> list[int] | None:
        """Presentation time of every frame in order, or None when the file does not tell."""
        if path not in self._times:
            with _open(path, None) as container:
                stamps = _packet_times(container, _video_stream(container, path))
            known = sorted(stamp for stamp in stamps if stamp is not None)
            usable = len(known) == len(stamps) == len(set(known))
            self._times[path] = known if usable else None
            if len(self._times) > 256:
                self._times.popitem(last=False)
        return self._times[path]

    def _seek(self, path: Path, times: list[int], wanted: list[int]) -> list[tuple[int, Pixels]]:
        by_time = {times[index]: index for index in wanted}
        found: list[tuple[int, Pixels]] = []
        with _open(path, None) as container:
            stream = _video_stream(container, path)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = self.threads
            try:
                container.seek(times[wanted[0]], stream=stream, backward=True)
                for picture in container.decode(stream):
                    index = by_time.get(cast(int, picture.pts))
                    if picture.is_corrupt or (index is not None and index != wanted[len(found)]):
                        return []
                    if index is not None:
                        found.append((index, _upright_rgb(picture)))
                        if len(found) == len(wanted):
                            break
            except av.error.FFmpegError:
                return []  # read from the start, which says where it breaks
        return found

    def _from_the_start(self, path: Path, wanted: list[int]) -> list[tuple[int, Pixels]]:
        chosen = set(wanted)
        with open_video(path, threads=self.threads) as reader:
            return [(f.index, f.image) for f in islice(reader, wanted[-1] + 1) if f.index in chosen]


def check_indices(video: Video, indices: Sequence[int], num_frames: int) -> None:
    """Errors: RetraceError when there are no indices or one lies outside 0 .. num_frames - 1."""
    if len(indices) == 0 or min(indices) < 0 or max(indices) >= num_frames:
        raise RetraceError(
            f"Frames {list(indices)} were asked of {video.path}, which has frames 0 to {num_frames - 1}. "
            "Ask for frames inside the video."
        )


def fitted_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """(height, width) with the shorter side at most `short_side` pixels and the proportions kept; never enlarged."""
    shorter = min(height, width)
    if short_side is None or shorter <= short_side:
        return height, width
    return max(1, round(height * short_side / shorter)), max(1, round(width * short_side / shorter))


def resized(image: Pixels, height: int, width: int) -> Pixels:
    """The image (H, W, 3) at a smaller size by area interpolation; the same array when the size is right already."""
    if image.shape[:2] == (height, width):
        return image
    return cast(Pixels, cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
