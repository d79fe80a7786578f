"""Which frames of a video make a clip."""

import torch

from retrace.errors import UsageError


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
