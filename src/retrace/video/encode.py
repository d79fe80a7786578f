"""Write a video that plays everywhere: H.264, yuv420p, mp4 with its index in front."""

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.container
import av.error
import av.video.codeccontext
import av.video.stream
import numpy as np

from retrace.errors import RetraceError, UsageError
from retrace.files import atomic_path
from retrace.video.decode import Pixels

_BT709 = 1  # the code of BT.709 in FFmpeg's tables of matrices, primaries and transfer curves
_LIMITED_RANGE = 1


class _Abandoned(Exception):
    """Tells `atomic_path` to remove the temporary file."""


class VideoWriter:
    """Writes frames one by one; the file appears under its name when the block ends well and not at all otherwise.

        with VideoWriter("out.mp4", height=480, width=854, fps=24) as writer:
            writer.write(image)

    Args:
        path: The mp4 (or mov, mkv) to make; an existing file is replaced at the end.
        height: Pixels. H.264 in yuv420p needs even sides: an odd side is made even by repeating the last row or column.
        width: Pixels.
        fps: Frames per second, above 0, at most 1000; 23.976, 29.97 and 59.94 become the exact fractions of 1001.
        crf: Quality, 0 (lossless) to 51; 18 is visually lossless.
        preset: x264's trade of speed for size; at crf 18 slower ones than this make files hardly smaller.

    Errors: UsageError for a size or rate out of range; entering and writing raise RetraceError when the file cannot
        be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        height: int,
        width: int,
        fps: float,
        crf: int = 18,
        preset: str = "superfast",
    ) -> None:
        """See the class."""
        if height < 1 or width < 1:
            raise UsageError(
                f"A video of {width}x{height} pixels cannot be written; both sides must be at least 1."
            )
        if not 0 < fps <= 1000:  # also refuses nan
            raise UsageError(
                f"A video of {fps} frames per second cannot be written; give a rate above 0, up to 1000."
            )
        self.path = Path(path)
        self.height = height
        self.width = width
        self.rate = frame_rate(fps)
        self.num_frames = 0
        self._options = {"crf": str(crf), "preset": preset}
        self._output = atomic_path(self.path)
        self._container: av.container.OutputContainer | None = None
        self._stream: av.video.stream.VideoStream | None = None

    def __enter__(self) -> Self:
        """Start the file under a temporary name beside `path`."""
        temporary = self._output.__enter__()
        try:
            self._container = av.open(str(temporary), mode="w", options={"movflags": "+faststart"})
            stream = self._container.add_stream("libx264", rate=self.rate, options=self._options)
            stream.height = self.height + self.height % 2
            stream.width = self.width + self.width % 2
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED_RANGE
            context.time_base = 1 / self.rate
            self._stream = stream
        except BaseException as error:
            self._abandon()
            raise self._sentence(error) from (
                error if isinstance(error, av.error.FFmpegError | OSError) else error
            )
        return self

    def write(self, image: Pixels) -> None:
        """Append a frame, (H, W, 3) RGB uint8 of the size given at the start.

        Errors: UsageError for another shape or dtype; RetraceError when the disk is full.
        """
        if image.shape != (self.height, self.width, 3) or image.dtype != np.uint8:
            raise UsageError(
                f"A frame of shape {image.shape} and type {image.dtype} was given to {self.path}; "
                f"expected ({self.height}, {self.width}, 3) uint8."
            )
        assert self._container is not None, "use VideoWriter in a with statement"
        assert self._stream is not None
        even = np.pad(image, ((0, self.height % 2), (0, self.width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts = self.num_frames
        frame.time_base = 1 / self.rate
        try:
            self._container.mux(self._stream.encode(frame))
        except (av.error.FFmpegError, OSError) as error:
            raise self._sentence(error) from error
        self.num_frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish and rename, or remove what was written when the block failed or wrote no frame."""
        if kind is not None:
            self._abandon()
            return
        if self.num_frames == 0:
            self._abandon()
            raise RetraceError(
                f"No frames were written to {self.path}, so there is no video. Write at least one."
            )
        assert self._container is not None
        assert self._stream is not None
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        except BaseException as failure:
            self._abandon()
            if isinstance(failure, av.error.FFmpegError | OSError):
                raise self._sentence(failure) from failure
            raise
        self._container = None
        self._output.__exit__(None, None, None)

    def _abandon(self) -> None:
        if self._container is not None:
            with suppress(av.error.FFmpegError, OSError):  # the file goes away, whatever its end looks like
                self._container.close()
            self._container = None
        # an exception of our own, because atomic_path takes an OSError of the block for one about its file
        abandoned = _Abandoned()
        self._output.__exit__(_Abandoned, abandoned, None)

    def _sentence(self, error: BaseException) -> RetraceError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return RetraceError(
            f"Cannot write the video {self.path}: {reason}. Choose a folder that is writable and has free space."
        )


def frame_rate(fps: float) -> Fraction:
    """The exact rate a decimal stands for: 29.97 is 30000/1001; others become a fraction with a small denominator."""
    whole = round(fps)
    broadcast = Fraction(whole * 1000, 1001)
    if whole > 0 and abs(fps - float(broadcast)) < 0.005 < abs(fps - whole) + 1e-9:
        return broadcast
    return max(Fraction(fps).limit_denominator(1000), Fraction(1, 1000))
