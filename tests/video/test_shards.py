"""Videos in tar files: what went in comes out, wherever it is asked for, and damage is named."""

import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from retrace.datasets.footage import split_shards
from retrace.errors import RetraceError
from retrace.verbs import data
from retrace.video.decode import BrokenVideo, DirectFrames, FrameStore, probe
from retrace.video.loader import FootageSource
from retrace.video.sampling import EvenSampling
from retrace.video.shards import ShardStore, read_shard


@pytest.fixture
def shards(make_video, tmp_path: Path) -> Path:
    """Three videos of different sizes and one broken one, in small shards."""
    source = tmp_path / "footage"
    source.mkdir()
    for name, frames, height, width in (("a", 12, 50, 90), ("b", 5, 64, 90), ("c", 7, 50, 90)):
        make_video(f"{name}.mp4", frames=frames, height=height, width=width).rename(source / f"{name}.mp4")
    (source / "z.mp4").write_bytes(b"not a video")
    report = data.shard(source, tmp_path / "shards", short_side=None, shard_mb=1)
    assert (report.videos, report.kept, len(report.shards)) == (3, 0, 1)
    assert [path for path, _ in report.failures] == [str(source / "z.mp4")]
    return tmp_path / "shards"


@pytest.mark.parametrize("indexed", [True, False])
def test_frames_come_out_as_they_went_in(shards: Path, tmp_path: Path, indexed: bool, number) -> None:
    """Sizes, rates, every frame by its number, in any order; with the index beside the shard and without."""
    if not indexed:
        (shards / "shard-000000.npz").unlink()
    videos = read_shard(shards / "shard-000000.tar")
    assert [video.path.name[0] for video in videos] == ["a", "b", "c"]
    assert [(v.num_frames, v.height, v.width, v.fps) for v in videos] == [
        (12, 50, 90, 25.0),
        (5, 64, 90, 25.0),
        (7, 50, 90, 25.0),
    ]
    store: FrameStore = pickle.loads(pickle.dumps(ShardStore()))
    for video in videos:
        order = [video.num_frames - 1, 0, 2, 2]
        clip = store.frames(video, order)
        assert [number(image) for image in clip] == order
        original, _ = probe(tmp_path / "footage" / f"{video.path.name[0]}.mp4")
        direct = DirectFrames().frames(original, order)
        assert np.abs(clip.astype(int) - direct).mean() < 3  # JPEG
    with pytest.raises(RetraceError):
        store.frames(videos[1], [5])
    source = FootageSource(videos, store, EvenSampling(3, stride=2))
    clip = source.clip(torch.Generator().manual_seed(0))
    assert clip.shape[:2] == (3, 3)


def test_anybodys_tar_reader_opens_a_shard(shards: Path) -> None:
    """Folders of JPEG frames and what they are, nothing else."""
    with tarfile.open(shards / "shard-000000.tar") as tar:
        names = tar.getnames()
    assert len(names) == 12 + 5 + 7 + 3
    assert sum(name.endswith("/video.json") for name in names) == 3
    assert all(name.endswith((".jpg", "/video.json")) for name in names)


def test_running_again_adds_what_is_new(shards: Path, tmp_path: Path, make_video) -> None:
    """And numbers go on; leftovers of a killed call are no shards."""
    (shards / ".shard-000001.9.partial.tar").write_bytes(b"half")
    again = data.shard(tmp_path / "footage", shards, short_side=None)
    assert (again.videos, again.kept, again.shards) == (0, 3, [])
    assert sorted(path.name for path in shards.iterdir()) == ["shard-000000.npz", "shard-000000.tar"]
    (shards / ".shard-000001.9.partial.tar").write_bytes(b"half")
    assert split_shards(shards)[0] == [shards / "shard-000000.tar"]
    make_video("d.mp4", frames=4).rename(tmp_path / "footage" / "d.mp4")
    more = data.shard(tmp_path / "footage", shards, short_side=25, shard_mb=1)
    assert (more.videos, more.kept) == (1, 3)
    assert more.shards == [str(shards / "shard-000001.tar")]
    assert (read_shard(shards / "shard-000001.tar")[0].height, split_shards(shards)[0]) == (
        25,
        [shards / "shard-000000.tar", shards / "shard-000001.tar"],
    )
    assert split_shards([str(tmp_path / "footage"), shards / "shard-000001.tar"]) == (
        [shards / "shard-000001.tar"],
        [str(tmp_path / "footage")],
    )


def test_damage_is_named(shards: Path) -> None:
    """A frame, a shard that is cut off, one that is none, an index that is none."""
    tar = shards / "shard-000000.tar"
    whole = tar.read_bytes()
    assert not data.check(shards, thorough=True).damaged
    with tarfile.open(tar) as content:
        place = content.getmembers()[3].offset_data
    tar.write_bytes(whole[:place] + bytes(200) + whole[place + 200 :])
    damaged = data.check(shards, thorough=True).damaged
    assert len(damaged) == 1
    assert "Frame 3 of" in damaged[0][1]
    tar.write_bytes(whole[: len(whole) // 2])
    found = data.check([shards])
    assert "is cut off" in found.broken[0][1]
    (shards / "shard-000000.npz").write_bytes(b"nothing")
    with pytest.raises(BrokenVideo, match="not the index of a shard"):
        read_shard(tar)
    (shards / "shard-000000.npz").unlink()
    tar.write_bytes(b"hello" * 300)
    with pytest.raises(BrokenVideo, match="cannot be read as a tar file"):
        read_shard(tar)


def test_wrong_use_of_shard(tmp_path: Path) -> None:
    """A folder of somebody else, nothing readable, numbers out of range."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").touch()
    (tmp_path / "z.mp4").write_bytes(b"not a video")
    with pytest.raises(RetraceError, match="not a result of retrace data shard"):
        data.shard(tmp_path / "z.mp4", tmp_path / "thesis")
    with pytest.raises(RetraceError, match="None of 1 videos can be read"):
        data.shard(tmp_path / "z.mp4", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RetraceError, match="quality is 0"):
        data.shard(tmp_path / "z.mp4", tmp_path / "out", quality=0)


def test_a_shard_of_another_name_stays_beside_ours(shards: Path, make_video) -> None:
    """Its name has no number; ours begin at 0."""
    (shards / "shard-000000.tar").rename(shards / "shard-mine.tar")
    (shards / "shard-000000.npz").unlink()
    report = data.shard(make_video("new.mp4"), shards)
    assert [Path(path).name for path in report.shards] == ["shard-000000.tar"]
