"""Which frames make a clip."""

from itertools import pairwise

import pytest
import torch

from retrace.errors import UsageError
from retrace.video.sampling import clip_indices, clip_span


def generator(seed: int = 0) -> torch.Generator:
    """A CPU generator."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("fps", [8, 12, 23.976, 29.97, 60])
def test_sample_fps(fps: float) -> None:
    """Frames lie 1/8 s apart, up to rounding, anywhere in the video."""
    starts = set()
    for seed in range(200):
        indices = clip_indices(60, fps, length=4, sample_fps=8, generator=generator(seed))
        assert indices[0] >= 0
        assert indices[-1] <= 59
        for k, index in enumerate(indices):
            assert abs((index - indices[0]) / fps - k / 8) <= 0.5 / fps + 1e-9
        assert indices[-1] - indices[0] + 1 == clip_span(fps, length=4, sample_fps=8)
        starts.add(indices[0])
    assert min(starts) <= 2
    assert max(starts) >= 60 - clip_span(fps, length=4, sample_fps=8) - 2


def test_stride_covers_every_start() -> None:
    """All starts occur and no other."""
    starts = {clip_indices(10, 25, length=3, stride=4, generator=generator(s))[0] for s in range(100)}
    assert starts == {0, 1}
    assert clip_indices(9, 25, length=3, stride=4, generator=generator()) == [0, 4, 8]


def test_slow_video_gives_consecutive_frames() -> None:
    """A video slower than the clip's rate repeats nothing."""
    indices = clip_indices(30, 5, length=4, sample_fps=8, generator=generator())
    assert [b - a for a, b in pairwise(indices)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("num_frames", "expected"), [(8, [0, 2, 5, 7]), (4, [0, 1, 2, 3]), (2, [0, 0, 1, 1]), (1, [0, 0, 0, 0])]
)
def test_short_videos(num_frames: int, expected: list[int]) -> None:
    """Evenly from the first to the last; frames repeat only when there are too few."""
    assert clip_indices(num_frames, 25, length=4, stride=5, generator=generator()) == expected


def test_one_draw_whatever_the_video() -> None:
    """So that what is drawn afterwards does not depend on the video."""
    after = set()
    for num_frames in (1, 5, 1000):
        g = generator()
        clip_indices(num_frames, 25, length=4, stride=5, generator=g)
        after.add(torch.rand((), generator=g).item())
    assert len(after) == 1


def test_clip_of_one_frame() -> None:
    """Any single frame of any video."""
    assert {clip_indices(3, 25, length=1, stride=5, generator=generator(s))[0] for s in range(50)} == {
        0,
        1,
        2,
    }


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"sample_fps": 8.0, "stride": 2},
        {"stride": 0},
        {"sample_fps": 0.0},
        {"stride": 1, "length": 0},
        {"stride": 1, "num_frames": 0},
    ],
)
def test_wrong_use(arguments: dict) -> None:
    """Each wrong argument is refused with a sentence."""
    with pytest.raises(UsageError):
        clip_indices(**({"num_frames": 10, "fps": 25, "length": 4, "generator": generator()} | arguments))
