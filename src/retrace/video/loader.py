"""Clips for training: sources that give clips, the dataset that turns them into views, the order they are taken in.

Everything about sample number i, the video, the frames, the augmentation, follows from (seed, i) alone. So
neither the number of workers nor an interruption changes what the network sees, and resuming is a start position.
"""

import gc
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from retrace.datasets.records import Video
from retrace.errors import RetraceError, UsageError
from retrace.video.decode import BrokenVideo, FrameStore, fitted_size, read_image, resized
from retrace.video.sampling import Sampling

_log = logging.getLogger(__name__)

Views = dict[str, Tensor]
"""What a method sees of one clip."""

_ATTEMPTS = 100


@runtime_checkable
class ClipSource(Protocol):
    """Anything that gives clips."""

    def clip(self, generator: torch.Generator) -> Tensor:
        """(T, 3, H, W) uint8 RGB; everything random is drawn from `generator`."""
        ...


@runtime_checkable
class PlannedSource(Protocol):
    """A source whose choice depends on the sample's number as well, to keep a promise about a whole epoch."""

    def planned_clip(self, number: int, generator: torch.Generator) -> Tensor:
        """(T, 3, H, W) uint8 RGB of sample `number`; everything else random is drawn from `generator`."""
        ...


@runtime_checkable
class BoxedSource(Protocol):
    """A source that also knows where one thing is."""

    def boxed_clip(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Of sample `number`: (T, 3, H, W) uint8 RGB, and (T, 4) float32 x, y, w, h, pixels of its edges."""
        ...


class FootageSource:
    """Clips of videos. A clip that cannot be read is replaced by another draw from the same generator.

    Args:
        videos: What to draw from.
        store: Gives the frames: a `cache.FrameCache`, or `decode.DirectFrames` for frame folders and
            intra-only formats.
        sampling: Chooses the T frames of a clip, such as `sampling.EvenSampling(4, sample_fps=8)`.
        weighting: "frames" draws every frame equally often (a long video gives more clips), "videos" every
            video equally often.
        clips_per_video: None, or at most this many clips of a video in one epoch (5 in STFC3). The epoch,
            `epoch_length` samples long, then takes min(clips_per_video, number of clips that fit without
            overlap) clips of each video, in an order that is shuffled anew each time; `weighting` is not used.
        seed: Of that shuffling.
        boxes: Of one thing, per video (num_frames, 4) x, y, w, h, pixels of its edges at the video's own size; NaN on
            frames that no clip may hold: another draw takes the place of such a clip.

    Attributes:
        failures: Path of the video -> sentence, of what this process could not read.
        num_failures: Draws that had to be repeated, in this process.

    Errors: UsageError when there are no videos or the arguments contradict each other.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        store: FrameStore,
        sampling: Sampling,
        *,
        weighting: Literal["frames", "videos"] = "frames",
        clips_per_video: int | None = None,
        seed: int = 0,
        boxes: Sequence[NDArray[np.float32]] | None = None,
    ) -> None:
        """See the class."""
        if not videos:
            raise UsageError(
                "There are no videos to draw clips from. Give footage with at least one readable video."
            )
        if weighting not in ("frames", "videos"):
            raise UsageError(f'weighting is "{weighting}"; expected "frames" or "videos".')
        if clips_per_video is not None and clips_per_video < 1:
            raise UsageError(
                f"clips_per_video is {clips_per_video}; it must be at least 1, or None for no limit."
            )
        if boxes is not None and [(v.num_frames, 4) for v in videos] != [b.shape for b in boxes]:
            raise UsageError("The boxes do not fit the videos. Give (num_frames, 4) for each.")
        self.videos = list(videos)
        self.boxes = None if boxes is None else list(boxes)
        self.store = store
        self.sampling = sampling
        self.seed = seed
        self.failures: dict[str, str] = {}
        self.num_failures = 0
        sizes = [video.num_frames if weighting == "frames" else 1 for video in self.videos]
        self._cumulative = np.cumsum(np.asarray(sizes, dtype=np.float64))
        self._slots: np.ndarray[Any, np.dtype[np.int64]] | None = (
            None  # video of each clip of an epoch, unshuffled
        )
        if clips_per_video is not None:
            fits = [max(1, v.num_frames // sampling.span(v.num_frames, v.fps)) for v in self.videos]
            self._slots = np.repeat(np.arange(len(fits)), np.minimum(fits, clips_per_video)).astype(np.int64)
        self._shuffled: tuple[int, np.ndarray[Any, np.dtype[np.int64]]] = (-1, np.empty(0, dtype=np.int64))

    @property
    def epoch_length(self) -> int | None:
        """Samples of an epoch when `clips_per_video` is set."""
        return None if self._slots is None else len(self._slots)

    def clip(self, generator: torch.Generator) -> Tensor:
        """(T, 3, H, W) uint8 of a random clip; `clips_per_video` has no say here.

        Errors: RetraceError when none of 100 draws can be read.
        """
        return self._clip(None, generator)

    def planned_clip(self, number: int, generator: torch.Generator) -> Tensor:
        """(T, 3, H, W) uint8 of sample `number`, counted over all epochs. Without `clips_per_video` the same as `clip`.

        A video that cannot be read is replaced by a random other one.

        Errors: RetraceError when none of 100 draws can be read.
        """
        return self._clip(self._planned(number), generator)

    def boxed_clip(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The clip of `planned_clip`, and the box of each frame: (T, 4) float32 x, y, w, h, pixels of the clip.

        Errors: RetraceError as `planned_clip`; UsageError when the footage has no boxes.
        """
        if self.boxes is None:
            raise UsageError("This footage has no boxes. Give videos with boxes, in GOT-10k's layout.")
        clip, which, indices = self._draw(self._planned(number), generator)
        video = self.videos[which]
        scale = torch.tensor([clip.shape[3] / video.width, clip.shape[2] / video.height], dtype=torch.float32)
        return clip, torch.from_numpy(self.boxes[which][indices]) * scale.repeat(2)

    def _planned(self, number: int) -> int | None:
        """The video of sample `number`; None leaves it to the generator."""
        if self._slots is None:
            return None
        epoch, place = divmod(number, len(self._slots))
        if self._shuffled[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(self._slots)
            self._shuffled = (epoch, order)
        return int(self._shuffled[1][place])

    def _clip(self, chosen: int | None, generator: torch.Generator) -> Tensor:
        return self._draw(chosen, generator)[0]

    def _draw(self, chosen: int | None, generator: torch.Generator) -> tuple[Tensor, int, list[int]]:
        """A clip (T, 3, H, W), the position of its video, its frames."""
        for _ in range(_ATTEMPTS):
            drawn = torch.rand((), generator=generator, dtype=torch.float64).item() * self._cumulative[-1]
            which = int(np.searchsorted(self._cumulative, drawn, side="right")) if chosen is None else chosen
            chosen = None
            which = min(which, len(self.videos) - 1)
            video = self.videos[which]
            try:
                indices = self._indices(which, generator)
                clip = self.store.frames(video, indices)  # (T, H, W, 3)
            except BrokenVideo as error:
                self.num_failures += 1
                if str(video.path) not in self.failures:
                    self.failures[str(video.path)] = str(error)
                    _log.warning("Another clip is used instead of one that cannot be read: %s", error)
                continue
            return torch.from_numpy(clip).permute(0, 3, 1, 2), which, indices  # (T, 3, H, W)
        path, reason = next(reversed(self.failures.items()))
        raise RetraceError(
            f"{_ATTEMPTS} clips in a row could not be read, the last of {path}: {reason} "
            "Check the footage: retrace data check."
        )

    def _indices(self, which: int, generator: torch.Generator) -> list[int]:
        """Frames of a clip, where boxes are known only such with a box."""
        video = self.videos[which]
        count = self.store.num_frames(video)
        if self.boxes is None:
            return self.sampling.indices(count, video.fps, generator)
        boxed = np.isfinite(self.boxes[which].sum(axis=1))
        for _ in range(_ATTEMPTS):
            indices = self.sampling.indices(count, video.fps, generator)
            if boxed[indices].all():
                return indices
        raise BrokenVideo(f"{video.path}: in {_ATTEMPTS} draws no clip had a box on every frame.")


class ImageSource:
    """Single images as clips of one frame. An image that cannot be read is replaced by another draw.

    Args:
        images: Image files.
        short_side: Images whose shorter side is longer are reduced to this many pixels there; None keeps them.
        seed: Of the order of an epoch, which takes every image once and is shuffled anew each time.

    Attributes:
        failures: Path of the image -> sentence, of what this process could not read.
        num_failures: Draws that had to be repeated, in this process.

    Errors: UsageError when there are no images.
    """

    def __init__(self, images: Sequence[Path], *, short_side: int | None = None, seed: int = 0) -> None:
        """See the class."""
        if not images:
            raise UsageError("There are no images to draw from. Give at least one image.")
        # Bytes in one array: a worker process shares them, where a list of a million objects would be copied.
        self._paths = np.asarray([os.fsencode(path) for path in images], dtype=np.bytes_)
        self.short_side = short_side
        self.seed = seed
        self.failures: dict[str, str] = {}
        self.num_failures = 0
        self._shuffled: tuple[int, np.ndarray[Any, np.dtype[np.int64]]] = (-1, np.empty(0, dtype=np.int64))

    @property
    def epoch_length(self) -> int:
        """Images."""
        return len(self._paths)

    def clip(self, generator: torch.Generator) -> Tensor:
        """(1, 3, H, W) uint8 of a random image.

        Errors: RetraceError when none of 100 draws can be read.
        """
        return self._clip(None, generator)

    def planned_clip(self, number: int, generator: torch.Generator) -> Tensor:
        """(1, 3, H, W) uint8 of sample `number`, counted over all epochs; a random other one where it cannot be read.

        Errors: RetraceError when none of 100 draws can be read.
        """
        epoch, place = divmod(number, len(self._paths))
        if self._shuffled[0] != epoch:
            self._shuffled = (epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self._paths)))
        return self._clip(int(self._shuffled[1][place]), generator)

    def _clip(self, chosen: int | None, generator: torch.Generator) -> Tensor:
        for _ in range(_ATTEMPTS):
            if chosen is None:
                chosen = int(torch.randint(len(self._paths), (), generator=generator))
            path, chosen = Path(os.fsdecode(bytes(self._paths[chosen]))), None
            try:
                image = read_image(path)
            except BrokenVideo as error:
                self.num_failures += 1
                if str(path) not in self.failures:
                    self.failures[str(path)] = str(error)
                    _log.warning("Another image is used instead of one that cannot be read: %s", error)
                continue
            height, width = fitted_size(image.shape[0], image.shape[1], self.short_side)
            return torch.from_numpy(resized(image, height, width)).permute(2, 0, 1)[None]  # (1, 3, H, W)
        broken, reason = next(reversed(self.failures.items()))
        raise RetraceError(
            f"{_ATTEMPTS} images in a row could not be read, the last of {broken}: {reason} Check the images."
        )


class ClipDataset(Dataset[Views]):
    """Views of clips by sample number, for a DataLoader. Picklable when the sources and views are.

    Args:
        sources: Where clips come from.
        weights: Chance of each source, at least 0, not all 0; they need not sum to 1.
        views: A method's views: called with a clip (T, 3, H, W) uint8 and a generator, gives a dict of tensors. Those
            with an attribute `wants_boxes` that is True are called with clip, boxes (T, 4) and generator.
        seed: With the sample's number it determines the sample.
        length: Samples of an epoch, `len(dataset)`. Larger numbers are fine: they are the samples of later epochs.

    Errors: UsageError when the weights do not fit the sources.
    """

    def __init__(
        self,
        sources: Sequence[ClipSource],
        weights: Sequence[float],
        views: Callable[..., Views],
        seed: int,
        length: int,
    ) -> None:
        """See the class."""
        if len(sources) == 0 or len(sources) != len(weights):
            raise UsageError(
                f"{len(sources)} clip sources with {len(weights)} weights. Give one weight for each source."
            )
        if min(weights) < 0 or sum(weights) <= 0:
            raise UsageError(
                f"Weights of clip sources are {list(weights)}; none may be negative and one must be above 0."
            )
        self._boxed: bool = getattr(views, "wants_boxes", False)
        if self._boxed and not all(isinstance(source, BoxedSource) for source in sources):
            raise UsageError("This method learns from boxes, and a source of its clips has none.")
        self.sources = list(sources)
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.views = views
        self.seed = seed
        self.length = length

    def __len__(self) -> int:
        """Samples of an epoch."""
        return self.length

    def __getitem__(self, number: int) -> Views:
        """Views of sample `number`, a function of (seed, number) alone."""
        generator = sample_generator(self.seed, number)
        if len(self.sources) == 1:
            source = self.sources[0]
        else:
            source = self.sources[int(torch.multinomial(self.weights, 1, generator=generator))]
        if self._boxed:
            assert isinstance(source, BoxedSource)  # __init__ checked
            return self.views(*source.boxed_clip(number, generator), generator)
        if isinstance(source, PlannedSource):
            clip = source.planned_clip(number, generator)
        else:
            clip = source.clip(generator)
        return self.views(clip, generator)


def sample_generator(seed: int, number: int) -> torch.Generator:
    """A CPU generator for sample `number` of a run with `seed`; neighbouring numbers give unrelated streams."""
    state = np.random.SeedSequence([seed, number]).generate_state(2, dtype=np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


class ResumableSampler(Sampler[int]):
    """Sample numbers of one process, from wherever the run stands; its whole state is one integer.

    `position` is the number of samples that all processes together have finished since the run began. Iterating yields
    position + rank, position + rank + world, ... to the end of the epoch that `position` lies in (to no end
    when `length` is None). Iterating changes nothing, because a DataLoader asks for samples long before they
    are used: whoever uses them says so with `advance`, and saves `state_dict()` with the weights.

    Args:
        length: Samples of an epoch over all processes, rounded down to a multiple of `world`; None never ends.
        position: Where to start.
        rank: Number of this process, 0 to world - 1.
        world: Number of processes.
    """

    def __init__(
        self, length: int | None = None, *, position: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        """See the class."""
        if not 0 <= rank < world:
            raise UsageError(f"rank {rank} of {world} processes: it must be between 0 and {world - 1}.")
        if length is not None and length < world:
            raise UsageError(
                f"An epoch of {length} samples for {world} processes. Make it at least {world} long."
            )
        if position < 0:
            raise UsageError(f"position is {position}; it counts finished samples and cannot be negative.")
        self.length = None if length is None else length // world * world
        self.position = position
        self.rank = rank
        self.world = world

    def __iter__(self) -> Iterator[int]:
        """Numbers from `position` to the end of its epoch."""
        start = self.position + self.rank
        if self.length is None:
            return count(start, self.world)
        return iter(range(start, self._end(), self.world))

    def __len__(self) -> int:
        """Samples that this process has left in the epoch."""
        if self.length is None:
            raise TypeError("an endless sampler has no length")
        return len(range(self.position + self.rank, self._end(), self.world))

    def _end(self) -> int:
        assert self.length is not None
        return (self.position // self.length + 1) * self.length

    def advance(self, samples: int) -> None:
        """Say that all processes together have finished `samples` more samples (batch size x processes for a step)."""
        self.position += samples

    def state_dict(self) -> dict[str, int]:
        """{"position": samples finished}."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` was taken; rank and world may be others than then."""
        self.position = int(state["position"])


def batches_of(loader: DataLoader[Any]) -> Iterator[Any]:
    """`iter(loader)`, safe for decoders that this process has forgotten in reference cycles.

    A worker is a copy of this process without its threads. Its garbage collector would close such a decoder, and wait
    for ever for the decoding threads. So they are closed here first; `seed_worker` sees to the rest.
    """
    gc.collect()
    return iter(loader)


def seed_worker(worker: int) -> None:
    """`worker_init_fn` of a DataLoader: one thread per worker, so that workers do not fight for the cores.

    Seeds numpy's and Python's global generators from torch's (which the DataLoader seeds per worker), for
    third-party views; the package itself draws from the generators it is given.

    What the worker inherited is left alone by its garbage collector; see `batches_of`.
    """
    gc.freeze()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # 0: run in the calling thread
    np.random.seed(torch.initial_seed() % 2**32)  # noqa: NPY002 - it is the global generator that third-party code uses


@dataclass(frozen=True)
class Throughput:
    """What a loader delivers when nobody computes."""

    clips_per_second: float
    clips: int
    """Clips that were counted."""
    seconds: float
    """Time they took, without the start of the workers."""
    workers: int


def throughput(
    dataset: Dataset[Views], workers: int = 0, seconds: float = 5.0, *, start: int = 0
) -> Throughput:
    """Clips per second of the loader alone: the samples from number `start` on, made for about `seconds`.

    The warm-up (starting the workers, their first two samples each) is not counted.
    """
    loader: DataLoader[Views] = DataLoader(
        dataset,
        batch_size=None,
        sampler=ResumableSampler(position=start),
        num_workers=workers,
        worker_init_fn=seed_worker,
        prefetch_factor=2 if workers else None,
    )
    clips = batches_of(loader)
    for _ in range(2 * max(workers, 1)):
        next(clips)
    began, made = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        next(clips)
        made += 1
    took = time.perf_counter() - began
    return Throughput(made / took, made, took, workers)
