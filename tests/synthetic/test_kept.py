"""Clips that are kept are the clips that would be made."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from retrace.errors import RetraceError
from retrace.synthetic import KeptClips, SceneConfig, SyntheticSource

SMALL = SceneConfig(height=48, width=64, num_frames=6)


def generator(seed: int) -> torch.Generator:
    """A fresh generator."""
    return torch.Generator().manual_seed(seed)


def files(folder: Path) -> list[Path]:
    """What is kept."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_kept_clip_and_what_is_drawn_after_it_are_bit_for_bit_those_of_the_source(tmp_path: Path) -> None:
    """The first time, and when it is read; also in another process's copy."""
    source = SyntheticSource(SMALL, length=3)
    kept = KeptClips(source, tmp_path)

    def drawn(these: SyntheticSource | KeptClips) -> list[Tensor]:
        stream = generator(3)
        clip = these.planned_clip(8, stream)
        return [clip, torch.rand(5, generator=stream), these.clip(stream), torch.rand(5, generator=stream)]

    expected = drawn(source)
    made = drawn(kept)
    assert len(files(tmp_path)) == 2
    read = drawn(pickle.loads(pickle.dumps(kept)))
    for a, b, c in zip(expected, made, read, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    assert len(files(tmp_path)) == 2
    assert all(not path.name.startswith(".") for path in files(tmp_path))


def test_what_is_kept_is_read_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a source that can make nothing any more."""
    kept = KeptClips(SyntheticSource(SMALL, length=2), tmp_path)
    first = kept.clip(generator(1))

    def broken(self: SyntheticSource, stream: torch.Generator) -> Tensor:
        raise AssertionError("made again")

    monkeypatch.setattr(SyntheticSource, "clip", broken)
    assert torch.equal(first, kept.clip(generator(1)))
    with pytest.raises(AssertionError, match="made again"):
        kept.clip(generator(2))


@pytest.mark.parametrize(
    "other",
    [
        SyntheticSource(SMALL, length=2),
        SyntheticSource(SceneConfig(height=48, width=64, num_frames=6, noise=0.0), length=3),
        SyntheticSource(SMALL, length=3, stride=5),
    ],
)
def test_other_settings_do_not_read_these_clips(tmp_path: Path, other: SyntheticSource) -> None:
    """From the same folder and the same generator."""
    KeptClips(SyntheticSource(SMALL, length=3), tmp_path).clip(generator(4))
    assert torch.equal(KeptClips(other, tmp_path).clip(generator(4)), other.clip(generator(4)))
    assert len(files(tmp_path)) == 2


def test_clips_of_shared_scenes_are_told_apart_by_their_scene(tmp_path: Path) -> None:
    """Samples of different scenes, and runs of different seeds, from generators in one state."""
    for seed in (0, 1):
        source = SyntheticSource(SMALL, length=2, per_scene=2, seed=seed)
        for number in (0, 1, 2):
            expected = source.planned_clip(number, generator(9))
            assert torch.equal(KeptClips(source, tmp_path).planned_clip(number, generator(9)), expected)
    assert (
        len(files(tmp_path)) == 4
    )  # samples 0 and 1 are one clip, as their generators are in one state here


def test_boxes_are_kept_with_their_clip(tmp_path: Path) -> None:
    """Made and read."""
    source = SyntheticSource(SMALL, length=2)
    clip, box = source.boxed_clip(0, generator(5))
    for _ in range(2):
        again = KeptClips(source, tmp_path).boxed_clip(0, generator(5))
        assert torch.equal(again[0], clip)
        assert torch.equal(again[1], box)


def test_a_damaged_clip_is_named(tmp_path: Path) -> None:
    """With the folder to delete."""
    kept = KeptClips(SyntheticSource(SMALL, length=2), tmp_path)
    kept.clip(generator(1))
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RetraceError, match=r"kept clip .* cannot be read .*Delete the folder"):
        kept.clip(generator(1))
