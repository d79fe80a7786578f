"""Which frames of a video make a clip."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from retrace.errors import UsageError


class Sampling(Protocol):
    """A choice of frames. Picklable; everything random is drawn from the generator."""

    def indices(self, num_frames: int, fps: float, generator: torch.Generator) -> list[int]:
        """Frames of one clip, each in 0 .. num_frames - 1, always equally many, for any `num_frames` of at least 1."""

    def span(self, num_frames: int, fps: float) -> int:
        """Frames from the first to the last one of a clip, both included: how many clips a video holds side by side."""


@dataclass(frozen=True)
class EvenSampling:
    """Evenly spaced frames at a random place of the video, as `clip_indices` has it.

    Attributes:
        length: T, frames of a clip.
        sample_fps: frames per second of a clip; give this or stride.
        stride: distance of two frames of the clip, in frames of the video.
    """

    length: int
    sample_fps: float | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        """Errors: UsageError, as `clip_indices`."""
        _step(1.0, self.sample_fps, self.stride)
        if self.length < 1:
            raise UsageError(f"A clip of {self.length} frames was asked for; give a length of 1 or more.")

    def indices(self, num_frames: int, fps: float, generator: torch.Generator) -> list[int]:
        """See `Sampling`; exactly one number is drawn."""
        return clip_indices(
            num_frames,
            fps,
            length=self.length,
            sample_fps=self.sample_fps,
            stride=self.stride,
            generator=generator,
        )

    def span(self, num_frames: int, fps: float) -> int:
        """See `Sampling`."""
        return clip_span(fps, length=self.length, sample_fps=self.sample_fps, stride=self.stride)


@dataclass(frozen=True)
class ThinnedSampling:
    """Another choice, made among every so many frames of the video only.

    Frame k of the thinned video is frame round(k * step), with step = `stride`, or fps / sample_fps but at least 1.

    Attributes:
        inner: chooses among the thinned frames.
        sample_fps: frames per second of the thinned video; give this or stride.
        stride: distance of two thinned frames, in frames of the video.
    """

    inner: Sampling
    sample_fps: float | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        """Errors: UsageError when both or neither are given, or a number is out of range."""
        _step(1.0, self.sample_fps, self.stride)

    def indices(self, num_frames: int, fps: float, generator: torch.Generator) -> list[int]:
        """See `Sampling`."""
        step, left = self._thin(num_frames, fps)
        return [round(k * step) for k in self.inner.indices(left, fps / step, generator)]

    def span(self, num_frames: int, fps: float) -> int:
        """See `Sampling`."""
        step, left = self._thin(num_frames, fps)
        return round((self.inner.span(left, fps / step) - 1) * step) + 1

    def _thin(self, num_frames: int, fps: float) -> tuple[float, int]:
        """Step, and how many frames are left: the last one is at most num_frames - 1 after rounding."""
        step = _step(fps, self.sample_fps, self.stride)
        left = int((num_frames - 1) / step) + 1
        return step, left


@dataclass(frozen=True)
class OffsetSampling:
    """Frames at given distances from a random start (TimeCycle: 0, 2, 4, 6 and 15).

    A video too short for the last distance gives the same pattern on a smaller scale: it then spans `short_share` of
    the video, at a random place.

    Attributes:
        offsets: distances from the start, frames, ascending from 0; the last one must fit into the video.
        beyond: distances from the last of these frames to further ones; what lies past the end is the last frame.
        short_share: share of a short video that the offsets span, above 0 and at most 1.
    """

    offsets: tuple[int, ...]
    beyond: tuple[int, ...] = ()
    short_share: float = 2 / 3

    def __post_init__(self) -> None:
        """Errors: UsageError for offsets that do not ascend from 0, or a share out of range."""
        if not self.offsets or self.offsets[0] != 0 or list(self.offsets) != sorted(self.offsets):
            raise UsageError(f"Offsets of a clip are {self.offsets}; give distances that ascend from 0.")
        if min(self.beyond, default=0) < 0:
            raise UsageError(f"Frames beyond a clip are {self.beyond}; give distances of 0 or more.")
        if not 0 < self.short_share <= 1:
            raise UsageError(f"short_share is {self.short_share}; give a share above 0 and at most 1.")

    def indices(self, num_frames: int, fps: float, generator: torch.Generator) -> list[int]:
        """See `Sampling`; exactly one number is drawn."""
        span, reach = self.span(num_frames, fps), max(1, self.offsets[-1])
        draw = torch.rand((), generator=generator, dtype=torch.float64).item()
        start = int(draw * (num_frames - span + 1))
        distances = (*self.offsets, *(self.offsets[-1] + further for further in self.beyond))
        return [min(start + distance * (span - 1) // reach, num_frames - 1) for distance in distances]

    def span(self, num_frames: int, fps: float) -> int:
        """See `Sampling`; frames beyond do not count."""
        whole = self.offsets[-1] + 1
        return whole if num_frames >= whole else max(1, int(num_frames * self.short_share))


@dataclass(frozen=True)
class PairSampling:
    """Two different frames in their order, any two of those less than `max_distance` apart (SiamFC).

    Attributes:
        max_distance: frames, at least 2.
    """

    max_distance: int

    def __post_init__(self) -> None:
        """Errors: UsageError for a distance that leaves no pair."""
        if self.max_distance < 2:
            raise UsageError(f"max_distance is {self.max_distance}; expected at least 2 frames.")

    def indices(self, num_frames: int, fps: float, generator: torch.Generator) -> list[int]:
        """See `Sampling`; a video of one frame gives it twice."""
        longest = min(self.max_distance, num_frames) - 1
        if longest < 1:
            return [0, 0]
        # distance d has num_frames - d pairs: a number from all pairs, by increasing distance
        counts = torch.arange(num_frames - 1, num_frames - 1 - longest, -1).cumsum(0)
        pick = int(torch.randint(int(counts[-1]), (), generator=generator))
        distance = int(torch.searchsorted(counts, pick, right=True)) + 1
        first = pick - (int(counts[distance - 2]) if distance > 1 else 0)
        return [first, first + distance]

    def span(self, num_frames: int, fps: float) -> int:
        """See `Sampling`."""
        return min(self.max_distance, num_frames)


def clip_indices(
    num_frames: int,
    fps: float,
    *,
    length: int,
    sample_fps: float | None = None,
    stride: int | None = None,
    generator: torch.Generator,
) -> list[int]:
    """Indices of a clip of `length` frames, evenly spaced, at a random place of the video.

    The spacing is `stride` frames, or fps / sample_fps frames (indices rounded, at least one frame apart: a
    video slower than `sample_fps` gives consecutive frames). A video too short for that spacing gives frames
    spread evenly from its first to its last; frames repeat only when it has fewer than `length` of them.

    Args:
        num_frames: Frames of the video, at least 1.
        fps: Frames per second of the video; used with `sample_fps` only.
        length: Frames of the clip, at least 1.
        sample_fps: Frames per second of the clip. Give this or `stride`.
        stride: Distance of two frames of the clip, in frames of the video, at least 1.
        generator: Source of the random start; exactly one number is drawn, whatever the video.

    Returns: `length` indices in 0 .. num_frames - 1, never decreasing.

    Errors: UsageError when both or neither of `sample_fps` and `stride` are given, or a number is out of range.
    """
    step = _step(fps, sample_fps, stride)
    if num_frames < 1 or length < 1:
        raise UsageError(f"A clip of {length} frames of a video of {num_frames}: both must be at least 1.")
    span = round((length - 1) * step)
    if span > num_frames - 1:
        span, step = num_frames - 1, (num_frames - 1) / (length - 1)
    draw = torch.rand((), generator=generator, dtype=torch.float64).item()
    start = int(draw * (num_frames - span))
    return [start + round(k * step) for k in range(length)]


def clip_span(fps: float, *, length: int, sample_fps: float | None = None, stride: int | None = None) -> int:
    """Frames of the video that a clip covers, first and last included."""
    return round((length - 1) * _step(fps, sample_fps, stride)) + 1


def _step(fps: float, sample_fps: float | None, stride: int | None) -> float:
    if (sample_fps is None) == (stride is None):
        raise UsageError("Give either sample_fps (frames per second of a clip) or stride (frames), not both.")
    if stride is not None:
        if stride < 1:
            raise UsageError(f"stride is {stride}; it counts frames and must be at least 1.")
        return float(stride)
    assert sample_fps is not None
    if sample_fps <= 0:
        raise UsageError(f"sample_fps is {sample_fps}; it must be above 0.")
    return max(1.0, fps / sample_fps)


def distant_indices(
    num_frames: int, length: int, generator: torch.Generator, short: Literal["loop", "repeat_last"] = "loop"
) -> list[int]:
    """One frame from each of `length` equal segments of a video (VFS, Table 1: distant sampling).

    As the authors' code counts: segments are floor((L + 1) / n) frames long, L = num_frames, n = length, so the last
    one may reach frame L, which does not exist, or end before the video does. A video too short for a frame per segment
    (L < n - 1) gives frame round(j (L + 1) / n), half to even, for segment j, without randomness.

    Args:
        num_frames: L, at least 1.
        length: n, at least 1.
        generator: randomness; exactly `length` numbers are drawn, whatever the video.
        short: what becomes of an index j >= L: "loop" takes frame j mod L, "repeat_last" takes frame 0 (as the
            authors' option of that name does, which is why it is kept).

    Returns: `length` indices in 0 .. num_frames - 1.

    Errors: UsageError when a number is below 1 or `short` is something else.
    """
    _demand(num_frames, length)
    if short not in ("loop", "repeat_last"):
        raise UsageError(f'short is "{short}"; expected "loop" or "repeat_last".')
    draws = torch.rand(length, generator=generator, dtype=torch.float64).tolist()
    step = (num_frames + 1) // length
    if step > 0:
        indices = [j * step + int(draw * step) for j, draw in enumerate(draws)]
    else:
        indices = [round(j * (num_frames + 1) / length) for j in range(length)]
    return [j if j < num_frames else j % num_frames if short == "loop" else 0 for j in indices]


def continuous_indices(num_frames: int, length: int, interval: int, generator: torch.Generator) -> list[int]:
    """Frames at a fixed interval from a random start (VFS, Table 1: continuous sampling).

    As the authors' code counts: the start is uniform in 0 .. L - n * interval, both included (not (n - 1) * interval),
    or 0 in a shorter video; indices past the end begin again at frame 0. With interval 0 it is one frame, n times.

    Args:
        num_frames: L, at least 1.
        length: n, at least 1.
        interval: delta, frames from one to the next, at least 0.
        generator: randomness; exactly one number is drawn, whatever the video.

    Returns: `length` indices in 0 .. num_frames - 1.

    Errors: UsageError when a number is too small.
    """
    _demand(num_frames, length)
    if interval < 0:
        raise UsageError(f"interval is {interval}; it counts frames and must be at least 0.")
    draw = torch.rand((), generator=generator, dtype=torch.float64).item()
    start = int(draw * max(1, num_frames - length * interval + 1))
    return [(start + j * interval) % num_frames for j in range(length)]


@dataclass(frozen=True)
class DistantSampling:
    """One frame from each of `length` equal segments, as `distant_indices` has it.

    Attributes:
        length: n, frames of a clip.
        short: "loop" or "repeat_last".
    """

    length: int
    short: Literal["loop", "repeat_last"] = "loop"

    def indices(self, num_frames: int, fps: float, generator: torch.Generator) -> list[int]:
        """Frames of one clip; `fps` has no say."""
        return distant_indices(num_frames, self.length, generator, self.short)

    def span(self, num_frames: int, fps: float) -> int:
        """A clip covers the whole video."""
        return num_frames


@dataclass(frozen=True)
class ContinuousSampling:
    """Frames at a fixed interval, as `continuous_indices` has it.

    Attributes:
        length: n, frames of a clip.
        interval: delta, frames from one to the next; 0 takes one frame n times.
    """

    length: int
    interval: int

    def indices(self, num_frames: int, fps: float, generator: torch.Generator) -> list[int]:
        """Frames of one clip; `fps` has no say."""
        return continuous_indices(num_frames, self.length, self.interval, generator)

    def span(self, num_frames: int, fps: float) -> int:
        """Frames from the first to the last one, both included."""
        return min(num_frames, (self.length - 1) * self.interval + 1)


def _demand(num_frames: int, length: int) -> None:
    if num_frames < 1 or length < 1:
        raise UsageError(f"A clip of {length} frames of a video of {num_frames}: both must be at least 1.")
