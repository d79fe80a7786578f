"""Which frames make a clip."""

from collections import Counter
from itertools import pairwise

import pytest
import torch

from retrace.errors import UsageError
from retrace.video.sampling import (
    ContinuousSampling,
    DistantSampling,
    EvenSampling,
    OffsetSampling,
    PairSampling,
    ThinnedSampling,
    clip_indices,
    clip_span,
    continuous_indices,
    distant_indices,
)


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


def test_even_sampling_is_clip_indices() -> None:
    """The same draws under the name of an object; wrong use is refused when it is made."""
    for settings in ({"sample_fps": 8.0}, {"stride": 3}):
        sampling = EvenSampling(4, **settings)
        expected = clip_indices(50, 24.0, length=4, generator=generator(3), **settings)
        assert sampling.indices(50, 24.0, generator(3)) == expected
        assert (
            sampling.span(50, 24.0) == clip_span(24.0, length=4, **settings) == expected[-1] - expected[0] + 1
        )
    for length, settings in (
        (4, {}),
        (4, {"sample_fps": 8.0, "stride": 3}),
        (0, {"stride": 3}),
        (4, {"stride": 0}),
    ):
        with pytest.raises(UsageError):
            EvenSampling(length, **settings)
    with pytest.raises(UsageError):
        ThinnedSampling(EvenSampling(2, stride=1))


@pytest.mark.parametrize(
    ("fps", "settings"), [(30.0, {"sample_fps": 12.0}), (5.0, {"sample_fps": 12.0}), (24.0, {"stride": 5})]
)
@pytest.mark.parametrize("num_frames", [1, 2, 13, 60, 61])
def test_thinned_frames_are_those_of_the_thinned_video(fps: float, settings: dict, num_frames: int) -> None:
    """Brute force: write down the thinned video, and look at which places of it were chosen."""
    step = float(settings.get("stride") or max(1.0, fps / settings["sample_fps"]))
    thinned = [round(k * step) for k in range(num_frames) if k * step <= num_frames - 1]
    sampling = ThinnedSampling(EvenSampling(3, stride=2), **settings)
    for seed in range(20):
        chosen = sampling.indices(num_frames, fps, generator(seed))
        inner = EvenSampling(3, stride=2).indices(len(thinned), fps / step, generator(seed))
        assert chosen == [thinned[index] for index in inner]
        assert max(chosen) < num_frames
    assert sampling.span(num_frames, fps) == round(4 * step) + 1


@pytest.mark.parametrize(("num_frames", "length"), [(300, 8), (16, 2), (15, 8), (8, 8), (7, 8)])
def test_distant_covers_every_frame_of_every_segment(num_frames: int, length: int) -> None:
    """Slot j is any of floor((L + 1) / n) frames from j times that on, and no other; L itself begins again at 0."""
    step = (num_frames + 1) // length
    g = generator()
    draws = [distant_indices(num_frames, length, g) for _ in range(60 * step)]
    for j in range(length):
        segment = {index % num_frames for index in range(j * step, (j + 1) * step)}
        assert {draw[j] for draw in draws} == segment


def test_distant_of_a_video_with_too_few_frames() -> None:
    """No randomness; halves to even; past the end from the start again, or frame 0."""
    for seed in range(5):
        assert distant_indices(3, 8, generator(seed)) == [
            0,
            0,
            1,
            2,
            2,
            2,
            0,
            1,
        ]  # 0 .5 1 1.5 2 2.5 3 3.5, rounded
        assert distant_indices(3, 8, generator(seed), "repeat_last") == [0, 0, 1, 2, 2, 2, 0, 0]
        assert distant_indices(1, 4, generator(seed)) == [0, 0, 0, 0]


def test_continuous_starts() -> None:
    """All of 0 .. L - n * delta, which leaves delta - 1 frames more than needed; then every delta-th frame."""
    g = generator()
    draws = [continuous_indices(20, 3, 5, g) for _ in range(300)]
    assert {draw[0] for draw in draws} == set(range(6))
    assert all(draw == [draw[0], draw[0] + 5, draw[0] + 10] for draw in draws)
    assert continuous_indices(12, 3, 5, g) == [0, 5, 10]
    assert continuous_indices(7, 3, 5, g) == [0, 5, 3]


def test_continuous_without_interval_is_one_frame() -> None:
    """Any frame, n times."""
    g = generator()
    draws = [continuous_indices(4, 3, 0, g) for _ in range(100)]
    assert {tuple(draw) for draw in draws} == {(k, k, k) for k in range(4)}


def test_draws_do_not_depend_on_the_video() -> None:
    """So that what is drawn afterwards does not either."""
    after = set()
    for num_frames in (1, 5, 1000):
        g = generator()
        DistantSampling(4).indices(num_frames, 25.0, g)
        ContinuousSampling(4, 3).indices(num_frames, 25.0, g)
        after.add(torch.rand((), generator=g).item())
    assert len(after) == 1


def test_spans() -> None:
    """A distant clip covers the video, a continuous one its interval times the gaps."""
    assert DistantSampling(4).span(50, 25.0) == 50
    assert ContinuousSampling(4, 3).span(50, 25.0) == 10
    assert ContinuousSampling(4, 30).span(50, 25.0) == 50


def test_wrong_use_of_distant_and_continuous() -> None:
    """Each wrong argument is refused with a sentence."""
    with pytest.raises(UsageError, match="both must be at least 1"):
        distant_indices(0, 4, generator())
    with pytest.raises(UsageError, match="loop"):
        distant_indices(5, 4, generator(), "last")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="both must be at least 1"):
        continuous_indices(5, 0, 1, generator())
    with pytest.raises(UsageError, match="interval is -1"):
        continuous_indices(5, 2, -1, generator())


TIMECYCLE = OffsetSampling((0, 2, 4, 6, 15), beyond=(2,))


def test_offsets_from_every_start() -> None:
    """Past frames and target where the published sampler has them; what lies past the end is the last frame."""
    chosen = {tuple(TIMECYCLE.indices(17, 12.0, generator(seed))) for seed in range(50)}
    assert chosen == {(0, 2, 4, 6, 15, 16), (1, 3, 5, 7, 16, 16)}
    assert TIMECYCLE.span(17, 12.0) == 16


@pytest.mark.parametrize("num_frames", [1, 2, 3, 9, 15])
def test_short_videos_shrink_the_offsets(num_frames: int) -> None:
    """All of them alike, over two thirds of the video, wherever these lie."""
    span = max(1, int(num_frames * 2 / 3))
    assert TIMECYCLE.span(num_frames, 12.0) == span
    starts = set()
    for seed in range(100):
        *past, target, later = TIMECYCLE.indices(num_frames, 12.0, generator(seed))
        assert target - past[0] == span - 1
        assert [frame - past[0] for frame in past] == [k * (span - 1) // 15 for k in (0, 2, 4, 6)]
        assert target <= later <= num_frames - 1
        starts.add(past[0])
    assert starts == set(range(num_frames - span + 1))


@pytest.mark.parametrize(
    "arguments",
    [
        {"offsets": ()},
        {"offsets": (1, 2)},
        {"offsets": (0, 3, 2)},
        {"offsets": (0, 1), "beyond": (-1,)},
        {"offsets": (0, 1), "short_share": 0.0},
    ],
)
def test_wrong_offsets(arguments: dict) -> None:
    """Refused with a sentence."""
    with pytest.raises(UsageError):
        OffsetSampling(**arguments)


def test_pairs_are_all_equally_likely() -> None:
    """Every ordered pair of different frames less than max_distance apart, and no other."""
    generator = torch.Generator().manual_seed(0)
    sampling = PairSampling(3)
    drawn = Counter(tuple(sampling.indices(5, 24.0, generator)) for _ in range(7000))
    assert set(drawn) == {(0, 1), (1, 2), (2, 3), (3, 4), (0, 2), (1, 3), (2, 4)}
    assert all(abs(count - 1000) < 150 for count in drawn.values())
    assert sampling.indices(1, 24.0, generator) == [0, 0]
    assert sampling.indices(2, 24.0, generator) == [0, 1]
    assert (sampling.span(100, 24.0), sampling.span(2, 24.0)) == (3, 2)
    with pytest.raises(UsageError, match="max_distance is 1"):
        PairSampling(1)
