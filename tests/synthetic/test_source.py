"""The stream of training clips."""

import pickle

import pytest
import torch

from retrace.errors import UsageError
from retrace.synthetic import SceneConfig, SyntheticSource
from retrace.video.loader import ClipSource

SMALL = SceneConfig(height=48, width=64)


def generator(seed: int) -> torch.Generator:
    """A fresh generator."""
    return torch.Generator().manual_seed(seed)


def test_clips_are_bytes_and_change_with_the_generator_only() -> None:
    """Clips are bytes and change with the generator only."""
    source = SyntheticSource(SMALL, length=3)
    checked: ClipSource = source
    clip = checked.clip(generator(1))
    assert (clip.shape, clip.dtype) == ((3, 3, 48, 64), torch.uint8)
    assert not clip.is_inference()
    assert torch.equal(clip, pickle.loads(pickle.dumps(source)).clip(generator(1)))
    assert not torch.equal(clip, source.clip(generator(2)))


def test_one_generator_gives_an_endless_stream() -> None:
    """One generator gives an endless stream."""
    source, stream = SyntheticSource(SMALL, length=2), generator(0)
    clips = [source.clip(stream) for _ in range(4)]
    assert not any(torch.equal(a, b) for i, a in enumerate(clips) for b in clips[:i])


def test_a_longer_stride_moves_further() -> None:
    """A longer stride moves further."""
    still = SceneConfig(height=48, width=64, lighting=0, noise=0, blur=0, motion_blur=0)

    def change(stride: int) -> float:
        source = SyntheticSource(still, length=2, stride=stride)
        clips = torch.stack([source.clip(generator(seed)) for seed in range(12)]).float()
        return float((clips[:, 1] - clips[:, 0]).abs().mean())

    assert change(6) > 1.5 * change(1) > 0


def test_a_clip_of_stride_one_and_of_four_share_their_first_frame() -> None:
    """A clip of stride one and of four share their first frame."""
    one = SyntheticSource(SMALL, length=2, stride=1).clip(generator(7))
    four = SyntheticSource(SMALL, length=2, stride=4).clip(generator(7))
    assert torch.equal(one[0], four[0])
    assert not torch.equal(one[1], four[1])


@pytest.mark.parametrize(("length", "stride"), [(0, 1), (4, 0), (4, (3, 2))])
def test_wrong_arguments_are_refused(length: int, stride: int | tuple[int, int]) -> None:
    """Wrong arguments are refused."""
    with pytest.raises(UsageError, match=r"length|stride"):
        SyntheticSource(SMALL, length=length, stride=stride)
