"""The frame cache: right frames, made once, whole or not at all, by several processes at once."""

import json
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrace.datasets.records import Video
from retrace.errors import RetraceError
from retrace.video import cache as cache_module
from retrace.video.cache import FrameCache
from retrace.video.decode import BrokenVideo, open_video, probe


@pytest.fixture
def video(make_video) -> Video:
    """12 numbered frames, 50 x 90."""
    return probe(make_video("a.mp4"))[0]


def entries(folder: Path) -> list[str]:
    """Names of what is in the cache, locks aside."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def test_frames(video: Video, tmp_path: Path, number) -> None:
    """The frames asked for, in that order, near to the decoded ones."""
    cache = FrameCache(tmp_path / "cache", short_side=None)
    clip = cache.frames(video, [7, 0, 11, 7])
    assert clip.shape == (4, 50, 90, 3)
    assert clip.dtype == np.uint8
    assert [number(image) for image in clip] == [7, 0, 11, 7]
    decoded = {frame.index: frame.image for frame in open_video(video.path)}
    assert np.abs(clip[0].astype(int) - decoded[7]).mean() < 3
    assert clip[0, 40, 10, 0] > 150 > clip[0, 40, 10, 2]  # red, so RGB and not BGR
    assert cache.num_frames(video) == 12
    assert cache.damage(video) is None


def test_short_side(video: Video, tmp_path: Path, number) -> None:
    """Smaller frames are stored; never enlarged; each size has its own copy."""
    small = FrameCache(tmp_path / "cache", short_side=25).frames(video, [3, 4])
    assert small.shape == (2, 25, 45, 3)
    assert [number(image, 0.5) for image in small] == [3, 4]
    assert FrameCache(tmp_path / "cache", short_side=100).frames(video, [3]).shape == (1, 50, 90, 3)
    assert len(entries(tmp_path / "cache")) == 2


def test_decoded_once(video: Video, tmp_path: Path, monkeypatch) -> None:
    """A second cache object, a second process, finds what is there; the progress counts frames."""
    counted = []
    FrameCache(tmp_path / "cache").fill(video, counted.append)
    assert sum(counted) == 12
    monkeypatch.setattr(cache_module, "open_video", None)
    again = FrameCache(tmp_path / "cache")
    again.fill(video, counted.append)
    assert sum(counted) == 12
    assert again.frames(video, [5]).shape == (1, 50, 90, 3)


def test_changed_file_is_decoded_again(video: Video, tmp_path: Path, make_video) -> None:
    """Size and modification time are part of the key."""
    FrameCache(tmp_path / "cache").fill(video)
    os.utime(video.path, ns=(0, 1_000_000_000))
    FrameCache(tmp_path / "cache").fill(video)
    assert len(entries(tmp_path / "cache")) == 2


def test_frame_folder(tmp_path: Path, numbered, number) -> None:
    """Read as it is when it is small enough, copied when it must be made smaller."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(4):
        Image.fromarray(numbered(index)).save(folder / f"{index}.png")
    video, _ = probe(folder)
    as_is = FrameCache(tmp_path / "cache", short_side=50)
    np.testing.assert_array_equal(as_is.frames(video, [2])[0], numbered(2))
    assert as_is.num_frames(video) == 4
    assert not (tmp_path / "cache").exists()
    clip = FrameCache(tmp_path / "cache", short_side=25).frames(video, [3, 1])
    assert clip.shape == (2, 25, 45, 3)
    assert [number(image, 0.5) for image in clip] == [3, 1]


def test_interrupted_fill_leaves_nothing(video: Video, tmp_path: Path) -> None:
    """And the next one starts over."""

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    cache = FrameCache(tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        cache.fill(video, stop)
    assert entries(tmp_path / "cache") == []
    assert cache.frames(video, [11]).shape == (1, 50, 90, 3)


def test_leftovers_of_a_killed_process_are_removed(video: Video, tmp_path: Path) -> None:
    """A folder that never got its name is rubbish."""
    cache = FrameCache(tmp_path / "cache")
    rubbish = tmp_path / "cache" / f"{cache._key(video)}.12345.partial"
    rubbish.mkdir(parents=True)
    (rubbish / "frames.bin").write_bytes(b"half")
    cache.fill(video)
    assert entries(tmp_path / "cache") == [cache._key(video)]


def _fill(folder: Path, video: Video, barrier) -> None:
    barrier.wait()
    cache = FrameCache(folder)
    assert cache.frames(video, [11]).shape == (1, 50, 90, 3)


def test_several_processes(video: Video, tmp_path: Path) -> None:
    """All come at once, one copy is made."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_fill, args=(tmp_path / "cache", video, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(entries(tmp_path / "cache")) == 1


def test_damaged_video_is_kept_up_to_the_break(make_video, tmp_path: Path) -> None:
    """The count is the true one; frames behind the break are an error that names the break."""
    path = make_video("a.mp4", frames=24, noise=True, container_options={"movflags": "faststart"})
    video, _ = probe(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    cache = FrameCache(tmp_path / "cache")
    count = cache.num_frames(video)
    assert 0 < count < 24
    assert "cut off" in cache.damage(video)
    assert cache.frames(video, [count - 1]).shape[0] == 1
    with pytest.raises(BrokenVideo, match="cut off"):
        cache.frames(video, [23])


def test_errors(video: Video, tmp_path: Path) -> None:
    """Wrong indices, a missing video, a folder that cannot be made, a damaged cache: a sentence each."""
    cache = FrameCache(tmp_path / "cache")
    for indices in ([12], [-1], []):
        with pytest.raises(RetraceError, match="frames 0 to 11"):
            cache.frames(video, indices)
    with pytest.raises(BrokenVideo, match="still there"):
        cache.frames(Video(tmp_path / "none.mp4", 3, 4, 5, 25.0), [0])
    (tmp_path / "file").write_text("")
    with pytest.raises(RetraceError, match="Cannot write the frame cache"):
        FrameCache(tmp_path / "file").frames(video, [0])
    (tmp_path / "cache" / cache._key(video) / "frames.bin").write_bytes(b"x")
    with pytest.raises(RetraceError, match="Delete it"):
        FrameCache(tmp_path / "cache").frames(video, [0])


def test_full_disk(make_video, tmp_path: Path) -> None:
    """A sentence, and nothing stays; a limit on the size of files stands for the disk."""
    resource = pytest.importorskip("resource")
    video, _ = probe(make_video("a.mp4", noise=True))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(RetraceError, match=r"Cannot write the frame cache .*free space"):
            FrameCache(tmp_path / "cache").fill(video)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert entries(tmp_path / "cache") == []


def test_picklable(video: Video, tmp_path: Path) -> None:
    """Open files stay behind."""
    cache = FrameCache(tmp_path / "cache", short_side=25)
    expected = cache.frames(video, [1, 2])
    copy = pickle.loads(pickle.dumps(cache))
    np.testing.assert_array_equal(copy.frames(video, [1, 2]), expected)


def test_meta_says_what_it_is(video: Video, tmp_path: Path) -> None:
    """A person who finds the folder can tell whose frames these are."""
    cache = FrameCache(tmp_path / "cache")
    cache.fill(video)
    meta = json.loads((tmp_path / "cache" / cache._key(video) / "meta.json").read_text())
    assert meta == {"path": str(video.path), "height": 50, "width": 90, "num_frames": 12, "damage": None}
