"""Clips for training: sample i is a function of (seed, i), whoever makes it and whenever."""

import gc
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from retrace.datasets.records import Video
from retrace.errors import RetraceError, UsageError
from retrace.video.cache import FrameCache
from retrace.video.decode import BrokenVideo, Pixels, open_video, probe
from retrace.video.loader import (
    ClipDataset,
    ClipSource,
    FootageSource,
    ImageSource,
    ResumableSampler,
    batches_of,
    sample_generator,
    seed_worker,
    throughput,
)
from retrace.video.sampling import EvenSampling


class Store:
    """A frame store without files: every pixel of frame i of video n is (n, i, 0); names with "bad" cannot be read."""

    def num_frames(self, video: Video) -> int:
        """As the record says."""
        return video.num_frames

    def frames(self, video: Video, indices: Sequence[int]) -> Pixels:
        """(T, H, W, 3)."""
        if "bad" in video.path.name:
            raise BrokenVideo(f"{video.path} is bad. Remove it.")
        clip = np.zeros((len(indices), video.height, video.width, 3), dtype=np.uint8)
        clip[..., 0] = int(video.path.stem[-1])
        clip[..., 1] = np.asarray(indices)[:, None, None]
        return clip


class Constant:
    """A source whose clips show one value."""

    def __init__(self, value: int) -> None:
        """The value."""
        self.value = value

    def clip(self, generator: torch.Generator) -> Tensor:
        """(2, 3, 4, 6)."""
        return torch.full((2, 3, 4, 6), self.value, dtype=torch.uint8)


def views(clip: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """The clip and a number that tells whether the generator is in the same state."""
    return {"clip": clip, "draw": torch.rand(2, generator=generator)}


def footage(*counts: int) -> list[Video]:
    """Videos of these lengths."""
    return [Video(Path(f"v{n}"), count, 4, 6, 24.0) for n, count in enumerate(counts)]


def drawn(source: FootageSource, count: int) -> Counter[int]:
    """How often each video is drawn."""
    return Counter(int(source.clip(sample_generator(1, i))[0, 0, 0, 0]) for i in range(count))


# --- FootageSource ---------------------------------------------------------------------------------------------------


def test_clip_shape_and_frames() -> None:
    """(T, 3, H, W) uint8 with the frames 8 per second."""
    source = FootageSource(footage(50), Store(), EvenSampling(4, sample_fps=8))
    assert isinstance(source, ClipSource)
    clip = source.clip(sample_generator(0, 0))
    assert clip.shape == (4, 3, 4, 6)
    assert clip.dtype == torch.uint8
    assert clip[:, 1, 0, 0].diff().tolist() == [3, 3, 3]


def test_weighting() -> None:
    """By frames a long video is drawn more often, by videos all are drawn alike."""
    videos = footage(20, 60)
    by_frames = drawn(FootageSource(videos, Store(), EvenSampling(2, stride=1)), 400)
    assert by_frames[0] / 400 == pytest.approx(0.25, abs=0.07)
    by_videos = drawn(FootageSource(videos, Store(), EvenSampling(2, stride=1), weighting="videos"), 400)
    assert by_videos[0] / 400 == pytest.approx(0.5, abs=0.08)


def test_at_most_five_clips_of_a_video_per_epoch() -> None:
    """Exactly min(5, what fits) of each in an epoch; another order in the next one."""
    source = FootageSource(
        footage(9, 100, 200), Store(), EvenSampling(4, stride=1), clips_per_video=5, seed=3
    )
    assert source.epoch_length == 2 + 5 + 5
    orders = []
    for epoch in range(3):
        numbers = range(epoch * 12, epoch * 12 + 12)
        order = [int(source.planned_clip(i, sample_generator(0, i))[0, 0, 0, 0]) for i in numbers]
        assert Counter(order) == {0: 2, 1: 5, 2: 5}
        orders.append(tuple(order))
    assert len(set(orders)) == 3
    alone = FootageSource(footage(9, 100, 200), Store(), EvenSampling(4, stride=1), clips_per_video=5, seed=3)
    assert int(alone.planned_clip(17, sample_generator(0, 17))[0, 0, 0, 0]) == orders[1][5]


def test_no_limit_means_no_plan() -> None:
    """Then the number has no say."""
    source = FootageSource(footage(30, 30), Store(), EvenSampling(4, stride=1))
    assert source.epoch_length is None
    assert torch.equal(source.planned_clip(5, sample_generator(0, 1)), source.clip(sample_generator(0, 1)))


def test_broken_video_is_replaced_and_counted() -> None:
    """By another draw of the same generator, so the sample is the same whoever makes it."""
    videos = [*footage(30, 30), Video(Path("bad2"), 60, 4, 6, 24.0)]
    source = FootageSource(videos, Store(), EvenSampling(4, stride=1))
    first = [source.clip(sample_generator(0, i)) for i in range(40)]
    assert {int(clip[0, 0, 0, 0]) for clip in first} == {0, 1}
    assert list(source.failures) == ["bad2"]
    assert "is bad" in source.failures["bad2"]
    assert 10 <= source.num_failures <= 100
    fresh = FootageSource(videos, Store(), EvenSampling(4, stride=1))
    assert torch.equal(fresh.clip(sample_generator(0, 39)), first[39])


def test_nothing_but_broken_videos() -> None:
    """Ends with a sentence, not in a loop."""
    source = FootageSource([Video(Path("bad0"), 60, 4, 6, 24.0)], Store(), EvenSampling(4, stride=1))
    with pytest.raises(RetraceError, match=r"100 clips in a row .* bad0: bad0 is bad"):
        source.clip(sample_generator(0, 0))


@pytest.mark.parametrize(
    "arguments",
    [
        {"videos": []},
        {"weighting": "length"},
        {"clips_per_video": 0},
    ],
)
def test_wrong_use_of_footage(arguments: dict) -> None:
    """Each wrong argument is refused when the source is made."""
    with pytest.raises(UsageError):
        FootageSource(
            **({"videos": footage(9), "store": Store(), "sampling": EvenSampling(4, stride=1)} | arguments)
        )


# --- ImageSource -----------------------------------------------------------------------------------------------------


def test_images_are_clips_of_one_frame(tmp_path: Path) -> None:
    """An epoch takes every image once, another epoch in another order; a broken one is replaced and named."""
    paths = []
    for k in range(6):
        path = tmp_path / f"bild ü{k}.png"
        assert cv2.imencode(".png", np.full((20 + k, 30, 3), 40 * k, np.uint8))[1].tofile(path) is None
        paths.append(path)
    source = ImageSource(paths, short_side=10, seed=1)
    assert source.epoch_length == 6
    orders = []
    for epoch in range(3):
        clips = [source.planned_clip(6 * epoch + k, sample_generator(0, k)) for k in range(6)]
        assert all(clip.dtype == torch.uint8 and clip.shape[:2] == (1, 3) for clip in clips)
        assert all(min(clip.shape[-2:]) == 10 for clip in clips)
        orders.append([int(clip[0, 0, 0, 0]) // 40 for clip in clips])
        assert sorted(orders[-1]) == list(range(6))
    assert orders[0] != orders[1] != orders[2]
    again = pickle.loads(pickle.dumps(source))
    assert torch.equal(
        again.planned_clip(3, sample_generator(0, 3)), source.planned_clip(3, sample_generator(0, 3))
    )
    paths[2].write_bytes(b"not an image")
    values = {int(source.planned_clip(k, sample_generator(0, k))[0, 0, 0, 0]) // 40 for k in range(6)}
    assert values == {0, 1, 3, 4, 5}
    assert list(source.failures) == [str(paths[2])]
    assert (
        "cannot be read" in source.failures[str(paths[2])] or "not an image" in source.failures[str(paths[2])]
    )
    assert source.num_failures == 1
    with pytest.raises(RetraceError, match="100 images in a row"):
        ImageSource([tmp_path / "gone.png"]).clip(sample_generator(0, 0))
    with pytest.raises(UsageError):
        ImageSource([])


# --- ClipDataset -----------------------------------------------------------------------------------------------------


def test_sample_depends_on_seed_and_number_alone() -> None:
    """Asked in any order, by any copy."""
    source = FootageSource(footage(50, 70), Store(), EvenSampling(4, sample_fps=8), clips_per_video=5)
    dataset = ClipDataset([source, Constant(9)], [2.0, 1.0], views, seed=5, length=10)
    assert len(dataset) == 10
    forward = [dataset[i] for i in range(30)]
    copy = pickle.loads(pickle.dumps(dataset))
    for i in reversed(range(30)):
        assert torch.equal(copy[i]["draw"], forward[i]["draw"])
        assert torch.equal(copy[i]["clip"], forward[i]["clip"])
    assert len({tuple(item["draw"].tolist()) for item in forward}) == 30
    other = ClipDataset([source, Constant(9)], [2.0, 1.0], views, seed=6, length=10)
    assert not torch.equal(other[0]["draw"], forward[0]["draw"])


def test_weights_of_sources() -> None:
    """Chances, not sums to one; 0 means never."""
    sources = [Constant(0), Constant(1), Constant(2)]
    dataset = ClipDataset(sources, [3, 1, 0], views, seed=0, length=1)
    counts = Counter(int(dataset[i]["clip"][0, 0, 0, 0]) for i in range(400))
    assert counts[0] / 400 == pytest.approx(0.75, abs=0.07)
    assert counts[2] == 0


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_wrong_weights(weights: list[float]) -> None:
    """Refused with a sentence."""
    with pytest.raises(UsageError, match="eights"):
        ClipDataset([Constant(0), Constant(1)], weights, views, seed=0, length=1)


class Collecting(Dataset):
    """Collects garbage in the worker."""

    def __getitem__(self, index: int) -> int:
        """Its number."""
        gc.collect()
        return index


def test_a_forgotten_decoder_does_not_stop_the_workers(make_video) -> None:
    """A decoder with threads, in a cycle that nobody has collected when the workers are forked."""
    gc.disable()
    try:
        reader = iter(open_video(make_video("a.mp4"), threads=4))
        next(reader)
        cycle: list[object] = [reader]
        cycle.append(cycle)
        del reader, cycle
        loader = DataLoader(
            Collecting(), sampler=range(2), num_workers=1, worker_init_fn=seed_worker, timeout=60
        )
        assert [int(number) for number in loader] == [0, 1]
    finally:
        gc.enable()
        gc.collect()


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(make_video, tmp_path: Path, workers: int) -> None:
    """A real cache, filled on demand by the workers, gives the samples that one process gives."""
    video, _ = probe(make_video("a.mp4"))
    source = FootageSource([video], FrameCache(tmp_path / "cache", short_side=25), EvenSampling(3, stride=2))
    dataset = ClipDataset([source], [1.0], views, seed=1, length=8)
    expected = [dataset[i] for i in range(8)]
    assert expected[0]["clip"].shape == (3, 3, 25, 45)
    fresh = FootageSource([video], FrameCache(tmp_path / "other", short_side=25), EvenSampling(3, stride=2))
    loader = DataLoader(
        ClipDataset([fresh], [1.0], views, seed=1, length=8),
        batch_size=2,
        sampler=ResumableSampler(8),
        num_workers=workers,
        worker_init_fn=seed_worker,
    )
    batches = list(batches_of(loader))
    assert len(batches) == 4
    for i, item in enumerate(expected):
        assert torch.equal(batches[i // 2]["clip"][i % 2], item["clip"])
        assert torch.equal(batches[i // 2]["draw"][i % 2], item["draw"])


def test_sample_generators_are_unrelated() -> None:
    """Neighbouring seeds and numbers share no stream."""
    draws = {
        torch.rand((), generator=sample_generator(seed, i), dtype=torch.float64).item()
        for seed in range(10)
        for i in range(100)
    }
    assert len(draws) == 1000
    assert np.mean(list(draws)) == pytest.approx(0.5, abs=0.05)


# --- ResumableSampler ------------------------------------------------------------------------------------------------


def test_epochs_continue() -> None:
    """The second epoch has the next numbers, once the first is said to be finished."""
    sampler = ResumableSampler(5)
    assert list(sampler) == [0, 1, 2, 3, 4]
    assert list(sampler) == [0, 1, 2, 3, 4]  # asking is not finishing
    sampler.advance(5)
    assert list(sampler) == [5, 6, 7, 8, 9]


def test_resume_in_the_middle() -> None:
    """Stopped after 3 of 5, the rest of the epoch follows, then whole ones."""
    sampler = ResumableSampler(5)
    sampler.advance(3)
    state = sampler.state_dict()
    assert state == {"position": 3}
    resumed = ResumableSampler(5)
    resumed.load_state_dict(state)
    assert len(resumed) == 2
    assert list(resumed) == [3, 4]
    resumed.advance(2)
    assert list(resumed) == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_an_epoch(world: int) -> None:
    """Each takes every world-th; together all, once; all the same number."""
    parts = []
    for rank in range(world):
        sampler = ResumableSampler(12, rank=rank, world=world)
        sampler.advance(6)
        parts.append(list(sampler))
        assert len(sampler) == len(parts[-1])
    assert sorted(sum(parts, [])) == [6, 7, 8, 9, 10, 11]
    assert len({len(part) for part in parts}) == 1
    assert parts[0][: 2 if world < 3 else 1] == list(range(6, 12, world))[: 2 if world < 3 else 1]


def test_uneven_epoch_is_rounded_down() -> None:
    """So that no process waits for another."""
    assert [list(ResumableSampler(7, rank=rank, world=2)) for rank in (0, 1)] == [[0, 2, 4], [1, 3, 5]]


def test_endless() -> None:
    """Without a length there is no end, and no length."""
    numbers = iter(ResumableSampler(position=10, rank=1, world=2))
    assert [next(numbers) for _ in range(3)] == [11, 13, 15]
    with pytest.raises(TypeError, match="endless"):
        len(ResumableSampler())


@pytest.mark.parametrize(
    "arguments", [{"rank": 2, "world": 2}, {"length": 1, "world": 2}, {"position": -1}, {"rank": -1}]
)
def test_wrong_use_of_sampler(arguments: dict) -> None:
    """Refused with a sentence."""
    with pytest.raises(UsageError):
        ResumableSampler(**arguments)


def test_throughput() -> None:
    """Counts clips, not batches."""
    dataset = ClipDataset([Constant(0)], [1.0], views, seed=0, length=1)
    result = throughput(dataset, seconds=0.1)
    assert result.clips > 0
    assert result.clips_per_second == pytest.approx(result.clips / result.seconds)


class Boxed:
    """Views that want boxes."""

    wants_boxes = True

    def __call__(self, clip: Tensor, boxes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """What came."""
        return {"frames": clip[:, 1, 0, 0], "boxes": boxes, "draw": torch.rand(1, generator=generator)}


def test_clips_with_boxes() -> None:
    """Frames that have one, the box of the very frame at the size of the clip; a function of (seed, i)."""

    class Half(Store):
        """Frames of half the size."""

        def frames(self, video: Video, indices: Sequence[int]) -> Pixels:
            return super().frames(video, indices)[:, ::2, ::2]

    videos = [Video(Path(f"v{k}"), 20, 8, 12, 24.0) for k in range(3)]
    boxes = [np.tile(np.arange(20, dtype=np.float32)[:, None], (1, 4)) * 2 for _ in videos]
    for known in boxes:
        known[::3] = np.nan
    source = FootageSource(videos, Half(), EvenSampling(2, stride=4), clips_per_video=1, seed=1, boxes=boxes)
    dataset = ClipDataset([source], [1.0], Boxed(), seed=5, length=3)
    for number in range(12):
        views = dataset[number]
        frames = views["frames"].tolist()
        assert all(frame % 3 for frame in frames)
        torch.testing.assert_close(views["boxes"], torch.tensor(frames).float()[:, None].expand(2, 4))
        again = dataset[number]
        assert all(torch.equal(views[name], again[name]) for name in views)


def test_boxes_that_are_missing() -> None:
    """A method that wants boxes refuses sources without; videos whose frames never have one are left out in the end."""
    videos = [Video(Path("v0"), 6, 4, 6, 24.0)]
    with pytest.raises(UsageError, match="learns from boxes"):
        ClipDataset([Constant(3)], [1.0], Boxed(), seed=0, length=3)
    plain = FootageSource(videos, Store(), EvenSampling(2, stride=1))
    with pytest.raises(UsageError, match="This footage has no boxes"):
        ClipDataset([plain], [1.0], Boxed(), seed=0, length=3)[0]
    with pytest.raises(UsageError, match="do not fit the videos"):
        FootageSource(videos, Store(), EvenSampling(2, stride=1), boxes=[np.zeros((5, 4), np.float32)])
    lost = [np.full((6, 4), np.nan, dtype=np.float32)]
    never = FootageSource(videos, Store(), EvenSampling(2, stride=1), boxes=lost)
    with pytest.raises(RetraceError, match="no clip had a box on every frame"):
        never.boxed_clip(0, torch.Generator().manual_seed(0))
