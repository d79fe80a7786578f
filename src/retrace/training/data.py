"""From a configuration to the data set of a run: footage, generated scenes, or both."""

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from retrace.datasets import footage, got10k
from retrace.datasets.boxed import boxed_videos
from retrace.datasets.records import Video
from retrace.errors import RetraceError, UsageError
from retrace.methods import METHODS, sampling_of
from retrace.synthetic import KeptClips, SceneConfig, SyntheticSource
from retrace.training.config import TrainConfig
from retrace.video import decode
from retrace.video.cache import FrameCache
from retrace.video.loader import ClipDataset, ClipSource, FootageSource, ImageSource
from retrace.video.sampling import EvenSampling, Sampling, ThinnedSampling
from retrace.video.shards import ShardStore, read_shard

_log = logging.getLogger(__name__)

ENDLESS = 2**62  # samples; a run ends by its steps


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on.

    Attributes:
        dataset: item i is the views of sample i.
        videos: number of footage videos, or of images.
        broken: (path, reason) of footage left out because it cannot be read.
        description: one sentence, for the card; it names no path.
        identity: digest of the footage; "" where there is none.
        footage: the source of footage clips.
    """

    dataset: ClipDataset
    videos: int
    broken: list[tuple[str, str]]
    description: str
    identity: str
    footage: FootageSource | ImageSource | None


def cache_folder(config: TrainConfig) -> Path:
    """Where decoded frames are kept: the configured folder, or the user's cache."""
    if config.clips.cache:
        return Path(config.clips.cache)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "retrace" / "frames"


def build(config: TrainConfig, *, progress: bool = True) -> TrainingData:
    """Index the footage and put the sources of clips together.

    Args:
        config: checked.
        progress: draw a progress bar on stderr while footage is looked at.

    Errors: RetraceError when a path does not exist or none of the footage can be read.
    """
    clips = config.clips
    sources: list[ClipSource] = []
    weights: list[float] = []
    parts = []
    found = footage.Index()
    own: FootageSource | ImageSource | None = None
    identity, count = "", 0
    views = METHODS[config.method].views(config.method_config)
    broken: list[tuple[Path, str]] = []
    if config.data and clips.footage_weight > 0:
        if getattr(views, "wants_boxes", False):
            own, broken = _boxed_footage(config)
            identity, count = _digest((v.path.name, v.num_frames) for v in own.videos), len(own.videos)
            parts.append(f"{count} videos with boxes")
        elif clips.images:
            images = footage.find_images(list(config.data))
            own = ImageSource(images, short_side=clips.short_side or None, seed=config.seed)
            identity, count = _digest((path.parent.name, path.name) for path in images), len(images)
            parts.append(f"{count} images")
        else:
            found = _index(config, progress)
            _look_for_short(config, found.videos)
            own = FootageSource(
                found.videos,
                Frames(FrameCache(cache_folder(config), short_side=clips.short_side or None)),
                footage_sampling(config),
                weighting=clips.weighting,
                clips_per_video=clips.per_video,
                seed=config.seed,
            )
            identity, count = _identity(found), len(found.videos)
            parts.append(f"{count} videos ({found.num_frames} frames, {found.seconds / 60:.1f} minutes)")
        sources.append(own)
        weights.append(clips.footage_weight)
    if clips.synthetic_weight > 0:
        scene = SceneConfig(height=clips.synthetic_height, width=clips.synthetic_width)
        generated = SyntheticSource(
            scene,
            config.clip_length,
            clips.synthetic_stride,
            sampling_of(config.method_config),
            per_scene=clips.synthetic_per_scene,
            seed=config.seed,
        )
        sources.append(KeptClips(generated, clips.synthetic_keep) if clips.synthetic_keep else generated)
        weights.append(clips.synthetic_weight)
        parts.append(f"generated scenes ({scene.height} x {scene.width})")
    shares = [f"{weight / sum(weights):.0%} {part}" for weight, part in zip(weights, parts, strict=True)]
    return TrainingData(
        dataset=ClipDataset(sources, weights, views, config.seed, ENDLESS),
        videos=count,
        broken=[(str(path), reason) for path, reason in (*found.broken, *broken)],
        description=", ".join(shares),
        identity=identity,
        footage=own,
    )


def _boxed_footage(config: TrainConfig) -> tuple[FootageSource, list[tuple[Path, str]]]:
    """Videos with a target's boxes, and those that cannot be used.

    Errors: RetraceError when there are none.
    """
    if config.clips.images:
        raise UsageError(f"clips.images is true, but {config.method} trains on videos with boxes.")
    found, broken = [], []
    for root in config.data:
        videos, left_out = boxed_videos(got10k.load(Path(root)))
        found += videos
        broken += left_out
    if not found:
        path, reason = broken[0]
        raise RetraceError(
            f"None of the {len(broken)} sequences can be trained on; the first is {path}: {reason}."
        )
    source = FootageSource(
        [one.video for one in found],
        decode.DirectFrames(short_side=config.clips.short_side or None),
        footage_sampling(config),
        weighting=config.clips.weighting,
        clips_per_video=config.clips.per_video,
        seed=config.seed,
        boxes=[one.boxes for one in found],
    )
    return source, broken


def footage_sampling(config: TrainConfig) -> Sampling:
    """Which frames of a video make a clip: the method's choice among the frames of the recipe's rate or stride."""
    clips, own = config.clips, sampling_of(config.method_config)
    if own is None:
        return EvenSampling(config.clip_length, clips.fps, clips.stride)
    return ThinnedSampling(own, clips.fps, clips.stride)


def _look_for_short(config: TrainConfig, videos: Sequence[Video]) -> None:
    """Say how many videos have fewer frames than a clip has different ones: theirs are repeated.

    Errors: RetraceError when all of them are that short.
    """
    drawn = footage_sampling(config).indices(100_000, 24.0, torch.Generator().manual_seed(0))
    wanted = len(set(drawn))  # one, where a method compares a frame with itself
    short = [video for video in videos if video.num_frames < wanted]
    if not short:
        return
    longest = max(video.num_frames for video in videos)
    if len(short) == len(videos):
        raise RetraceError(
            f"A clip of {config.method} has {wanted} frames, and the longest of {len(videos)} videos has {longest}. "
            "Give longer videos; images are trained on by moco alone."
        )
    _log.warning(
        "%d of %d videos have fewer than the %d frames of a clip, such as %s with %d; their clips repeat frames.",
        len(short),
        len(videos),
        wanted,
        short[0].path,
        short[0].num_frames,
    )


def resolve_steps(config: TrainConfig, data: TrainingData) -> TrainConfig:
    """The configuration with steps in the place of everything that counts passes over the footage."""
    schedule = config.schedule
    if config.epochs is None and schedule.warmup_epochs is None and not schedule.milestone_epochs:
        return config
    assert data.footage is not None
    assert data.footage.epoch_length is not None
    share = config.clips.footage_weight / (config.clips.footage_weight + config.clips.synthetic_weight)
    per_epoch = data.footage.epoch_length / share / (config.batch_size * config.accumulate)
    if config.epochs is not None:
        config = replace(config, steps=max(1, round(config.epochs * per_epoch)), epochs=None)
    if schedule.warmup_epochs is not None:
        schedule = replace(schedule, warmup=round(schedule.warmup_epochs * per_epoch), warmup_epochs=None)
    if schedule.milestone_epochs:
        milestones = tuple(round(epoch * per_epoch) for epoch in schedule.milestone_epochs)
        schedule = replace(schedule, milestones=milestones, milestone_epochs=())
    return replace(config, schedule=schedule)


class Frames:
    """Frames of videos in shards from there, of all others from the cache; a `decode.FrameStore`."""

    def __init__(self, cache: FrameCache) -> None:
        """`cache`: of the videos that are not in shards."""
        self.cache = cache
        self.shards = ShardStore()

    def num_frames(self, video: Video) -> int:
        """Frames that can be asked for."""
        return self._store(video).num_frames(video)

    def frames(self, video: Video, indices: Sequence[int]) -> decode.Pixels:
        """(T, H, W, 3) RGB uint8 of the frames at `indices`."""
        return self._store(video).frames(video, indices)

    def _store(self, video: Video) -> decode.FrameStore:
        return self.shards if video.path.parent.suffix.lower() == ".tar" else self.cache


def _index(config: TrainConfig, progress: bool) -> footage.Index:
    """Look at all footage; what is known from the last time is kept in the run's folder."""
    shards, rest = footage.split_shards(list(config.data))

    def bar(paths: Iterable[Path]) -> Iterable[Path]:
        return tqdm(paths, desc="footage", unit="video", disable=not progress, dynamic_ncols=True)

    found = footage.Index()
    if rest:
        found = footage.index(rest, decode.probe, file=Path(config.out) / "footage.json", progress=bar)
    for shard in bar(shards):
        try:
            found.videos.extend(read_shard(shard))
        except decode.BrokenVideo as error:
            found.broken.append((shard, str(error)))
    if not found.videos:
        path, reason = found.broken[0]
        images = " Single images are trained on with --clips.images true." if config.clip_length == 1 else ""
        raise RetraceError(
            f"None of the {len(found.broken)} videos of --data can be read; the first is {path}: {reason} "
            f"`retrace data check` looks at every one.{images}"
        )
    return found


def _identity(found: footage.Index) -> str:
    """Digest of what the footage is: names, sizes and lengths in order, which decide what sample i is."""
    return _digest(
        (video.path.name, video.num_frames, video.height, video.width, round(video.fps, 3))
        for video in found.videos
    )


def _digest(items: Iterable[tuple[object, ...]]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(item).encode())
    return digest.hexdigest()
