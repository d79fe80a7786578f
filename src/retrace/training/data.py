"""From a configuration to the data set of a run: footage, generated scenes, or both."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from retrace.datasets import footage
from retrace.errors import RetraceError
from retrace.methods.stfc3 import STFC3Views
from retrace.synthetic import SceneConfig, SyntheticSource
from retrace.training.config import TrainConfig
from retrace.video import decode
from retrace.video.cache import FrameCache
from retrace.video.loader import ClipDataset, ClipSource, FootageSource

ENDLESS = 2**62  # samples; a run ends by its steps


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on.

    Attributes:
        dataset: item i is the views of sample i.
        videos: number of footage videos.
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
    footage: FootageSource | None


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
    if config.data and clips.footage_weight > 0:
        found = _index(config, progress)
        sources.append(
            FootageSource(
                found.videos,
                FrameCache(cache_folder(config), short_side=clips.short_side or None),
                length=config.clip_length,
                sample_fps=clips.fps,
                stride=clips.stride,
                weighting=clips.weighting,
                clips_per_video=clips.per_video,
                seed=config.seed,
            )
        )
        weights.append(clips.footage_weight)
        parts.append(
            f"{len(found.videos)} videos ({found.num_frames} frames, {found.seconds / 60:.1f} minutes)"
        )
    if clips.synthetic_weight > 0:
        scene = SceneConfig(height=clips.synthetic_height, width=clips.synthetic_width)
        sources.append(SyntheticSource(scene, config.clip_length, clips.synthetic_stride))
        weights.append(clips.synthetic_weight)
        parts.append(f"generated scenes ({scene.height} x {scene.width})")
    shares = [f"{weight / sum(weights):.0%} {part}" for weight, part in zip(weights, parts, strict=True)]
    return TrainingData(
        dataset=ClipDataset(sources, weights, STFC3Views(config.stfc3), config.seed, ENDLESS),
        videos=len(found.videos),
        broken=[(str(path), reason) for path, reason in found.broken],
        description=", ".join(shares),
        identity=_identity(found) if found.videos else "",
        footage=next((source for source in sources if isinstance(source, FootageSource)), None),
    )


def resolve_steps(config: TrainConfig, data: TrainingData) -> TrainConfig:
    """The configuration with `steps` in the place of `epochs`."""
    if config.epochs is None:
        return config
    assert data.footage is not None
    assert data.footage.epoch_length is not None
    share = config.clips.footage_weight / (config.clips.footage_weight + config.clips.synthetic_weight)
    samples = config.epochs * data.footage.epoch_length / share
    steps = max(1, round(samples / (config.batch_size * config.accumulate)))
    return replace(config, steps=steps, epochs=None)


def _index(config: TrainConfig, progress: bool) -> footage.Index:
    """Look at all footage; what is known from the last time is kept in the run's folder."""

    def bar(paths: Iterable[Path]) -> Iterable[Path]:
        return tqdm(paths, desc="footage", unit="video", disable=not progress, dynamic_ncols=True)

    found = footage.index(
        list(config.data), decode.probe, file=Path(config.out) / "footage.json", progress=bar
    )
    if not found.videos:
        path, reason = found.broken[0]
        raise RetraceError(
            f"None of the {len(found.broken)} videos of --data can be read; the first is {path}: {reason} "
            "`retrace data check` looks at every one."
        )
    return found


def _identity(found: footage.Index) -> str:
    """Digest of what the footage is: names, sizes and lengths in order, which decide what sample i is."""
    digest = hashlib.sha256()
    for video in found.videos:
        fields = (video.path.name, video.num_frames, video.height, video.width, round(video.fps, 3))
        digest.update(repr(fields).encode())
    return digest.hexdigest()
