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


class Jump:
    """Frames 0 and 9 of a scene of 10."""

    def indices(self, num_frames: int, fps: float, generator: torch.Generator) -> list[int]:
        """Whatever is drawn."""
        assert (num_frames, fps) == (10, 24.0)
        return [0, num_frames - 1]


def test_a_sampling_chooses_from_the_scene() -> None:
    """The same frames as a clip of ten shows at its ends."""
    config = SceneConfig(height=48, width=64, num_frames=10, lighting=0, noise=0, blur=0, motion_blur=0)
    chosen = SyntheticSource(config, length=2, stride=2, sampling=Jump()).clip(generator(3))
    whole = SyntheticSource(config, length=10, stride=2).clip(generator(3))
    assert torch.equal(chosen, whole[[0, 9]])


def test_clips_with_boxes() -> None:
    """The box of one object: its edges in the picture, the same object on every frame, drawn from the generator."""
    source = SyntheticSource(SceneConfig(height=96, width=128), length=2, stride=2)
    clip, boxes = source.boxed_clip(0, torch.Generator().manual_seed(4))
    again, same = source.boxed_clip(7, torch.Generator().manual_seed(4))
    assert torch.equal(clip, again)
    assert torch.equal(boxes, same)
    assert clip.shape == (2, 3, 96, 128)
    assert boxes.shape == (2, 4)
    assert (boxes[:, 2:] >= 12).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 0] + boxes[:, 2] <= 128).all()
    assert (boxes[:, 1] + boxes[:, 3] <= 96).all()
    moved = (boxes[1, :2] - boxes[0, :2]).abs().max()
    assert moved < 40, "two steps of one thing"


def test_samples_in_a_row_share_a_scene() -> None:
    """Samples in a row share a scene, whoever made which of them; each has frames of its own."""
    plain = SceneConfig(height=48, width=64, num_frames=12, noise=0)

    def shared(seed: int = 5) -> SyntheticSource:
        return SyntheticSource(plain, length=2, stride=1, per_scene=3, seed=seed)

    def frames(*numbers: int, source: SyntheticSource) -> list[torch.Tensor]:
        return [source.planned_clip(number, generator(number)) for number in numbers]

    in_order = frames(*range(6), source=shared())
    elsewhere = frames(5, 2, source=pickle.loads(pickle.dumps(shared())))
    assert torch.equal(elsewhere[0], in_order[5])
    assert torch.equal(elsewhere[1], in_order[2])
    assert not torch.equal(in_order[0], frames(0, source=shared(seed=6))[0])
    # Without noise, a frame of a scene is one picture: both scenes' twelve hold whatever their samples show.
    for first in (0, 3):
        starts = torch.stack([shared().planned_clip(first, generator(draw))[0] for draw in range(150)])
        whole = starts.unique(dim=0)
        assert len(whole) == plain.num_frames - 1  # the last frame begins no clip of two
        for clip in in_order[first : first + 3]:
            assert (whole == clip[0]).flatten(1).all(1).any()
        for clip in in_order[3 - first : 6 - first]:
            assert not (whole == clip[0]).flatten(1).all(1).any()


def test_a_shared_scene_leaves_the_choice_of_frames_to_a_method() -> None:
    """A shared scene leaves the choice of frames to a method that has one."""

    class Ends:
        def indices(self, num_frames: int, fps: float, generator: torch.Generator) -> list[int]:
            return [0, num_frames - 1]

    plain = SceneConfig(height=48, width=64, num_frames=9, noise=0)
    source = SyntheticSource(plain, length=2, stride=1, sampling=Ends(), per_scene=4)
    one, other = (source.planned_clip(number, generator(number)) for number in (0, 3))
    assert torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


def test_a_scene_for_each_sample_is_the_stream_of_clips() -> None:
    """A scene for each sample is the stream of clips as it was."""
    source = SyntheticSource(SMALL, length=2)
    assert torch.equal(source.planned_clip(17, generator(3)), source.clip(generator(3)))


def test_less_than_one_clip_of_a_scene_is_refused() -> None:
    """Less than one clip of a scene is refused."""
    with pytest.raises(UsageError, match="0 clips of a scene"):
        SyntheticSource(SMALL, per_scene=0)
