"""TAP-Vid's pickles, and pickles that are not to be trusted."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrace.datasets import tapvid
from retrace.errors import RetraceError
from retrace.video.decode import BrokenVideo, frames_of


def entry(frames: int = 4, points: int = 3) -> dict[str, np.ndarray]:
    """A video of 12 x 20 pixels; point 0 begins in frame 2, the last is never seen."""
    rng = np.random.default_rng(0)
    occluded = np.zeros((points, frames), bool)
    occluded[0, :2] = True
    occluded[-1] = True
    return {
        "video": rng.integers(0, 255, (frames, 12, 20, 3), dtype=np.uint8),
        "points": rng.random((points, frames, 2)).astype(np.float32),
        "occluded": occluded,
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The DAVIS pickle in its folder, and that of RGB-stacking."""
    (tmp_path / "tapvid_davis").mkdir()
    with (tmp_path / "tapvid_davis/tapvid_davis.pkl").open("wb") as file:
        pickle.dump({"bear": entry(), "cow": entry(5)}, file, protocol=2)
    with (tmp_path / "tapvid_rgb_stacking.pkl").open("wb") as file:
        pickle.dump([entry()], file)
    return tmp_path


def test_points_and_frames(root: Path) -> None:
    """Pixels of the frame, (x, y); where points begin; frames from memory."""
    found = tapvid.load(root)
    bear, cow = found.sequences
    given = entry()
    assert bear.size == (12, 20)
    np.testing.assert_allclose(bear.truth(3).xy, given["points"][:, 3] * [20, 12], rtol=1e-6)
    assert bear.truth(1).visible.tolist() == [False, True, False]
    assert dict(bear.objects) == {0: 2, 1: 0}
    assert "1 of 3 points are never visible" in found.problems[0].sentence
    np.testing.assert_array_equal(np.stack(list(frames_of(bear))), given["video"])
    assert cow.num_frames == 5
    assert [s.name for s in tapvid.load(root, split="rgb_stacking").sequences] == ["00000"]
    assert not any("visible point" in p.sentence for p in tapvid.check(root).problems)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(root: Path, protocol: int) -> None:
    """Arrays, also of Fortran order, and numpy scalars, however old the pickle."""
    file = root / "any.pkl"
    content = {"a": entry() | {"points": np.asfortranarray(entry()["points"]), "fps": np.float64(24)}}
    file.write_bytes(pickle.dumps(content, protocol=protocol))
    read = tapvid.read_pickle(file)
    np.testing.assert_array_equal(read["a"]["points"], entry()["points"])
    assert tapvid.load(file).sequences[0].num_frames == 4


def test_jpeg_frames(root: Path) -> None:
    """Kinetics keeps files; a damaged one is named when its turn comes."""

    def jpeg(value: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (20, 12), (value, 0, 0)).save(buffer, "JPEG")
        return buffer.getvalue()

    file = root / "0000_of_0010.pkl"
    video = [jpeg(v) for v in (0, 80, 160, 240)]
    file.write_bytes(pickle.dumps({"k": entry() | {"video": video}}))
    sequence = tapvid.load(file).sequences[0]
    assert sequence.size == (12, 20)
    assert [round(image[..., 0].mean() / 80) for image in frames_of(sequence)] == [0, 1, 2, 3]
    file.write_bytes(pickle.dumps({"k": entry() | {"video": [*video[:2], b"no", video[3]]}}))
    with pytest.raises(BrokenVideo, match="Frame 2 of k is not an image"):
        list(frames_of(tapvid.load(file).sequences[0]))


class Evil:
    """Runs a command when it is unpickled by the standard reader."""

    def __init__(self, path: Path) -> None:
        """Where it would leave its trace."""
        self.path = path

    def __reduce__(self) -> tuple:
        """What the standard reader would call."""
        return os.mkdir, (str(self.path),)


def test_a_pickle_runs_nothing(root: Path) -> None:
    """What asks for anything but arrays is refused by name, and nothing happens."""
    file, trace = root / "evil.pkl", root / "trace"
    file.write_bytes(pickle.dumps({"a": Evil(trace)}))
    with pytest.raises(RetraceError, match=r"evil.pkl is not opened: it asks for (posix|nt).mkdir"):
        tapvid.load(file)
    assert not trace.exists()
    file.write_bytes(b"cbuiltins\neval\n(V1+1\ntR.")
    with pytest.raises(RetraceError, match="it asks for builtins.eval"):
        tapvid.read_pickle(file)
    file.write_bytes(pickle.dumps(np.array([Evil(trace)], dtype=object)))
    with pytest.raises(RetraceError, match="it asks for"):
        tapvid.read_pickle(file)
    assert not trace.exists()


def test_broken_files(root: Path) -> None:
    """Cut off, no pickle, no videos, videos that do not fit their points, points nobody sees."""
    file = root / "x.pkl"
    good = pickle.dumps({"a": entry()})
    for data in (good[: len(good) // 2], b"hello", b""):
        file.write_bytes(data)
        with pytest.raises(RetraceError, match=r"x.pkl is (damaged|not opened)"):
            tapvid.load(file)
    for content in (3, {}, []):
        file.write_bytes(pickle.dumps(content))
        with pytest.raises(RetraceError, match="expected a dict or list of videos"):
            tapvid.load(file)
    unseen = entry() | {"occluded": np.ones((3, 4), bool)}
    for wrong, words in (
        ({"video": 3}, "is not a video of TAP-Vid"),
        (entry() | {"occluded": np.zeros((3, 5), bool)}, r"4 frames, points \(3, 4, 2\), occluded \(3, 5\)"),
        (entry() | {"video": np.zeros((4, 12, 20))}, "neither uint8"),
        (entry() | {"video": [b"no"] * 4}, "first frame that is not an image"),
        (unseen, "No point of a in .* is ever visible"),
    ):
        file.write_bytes(pickle.dumps({"a": wrong}))
        with pytest.raises(RetraceError, match=words):
            tapvid.load(file)
    with pytest.raises(RetraceError, match="There is no .*tapvid_rgb_stacking.pkl"):
        tapvid.load(root / "tapvid_davis", split="rgb_stacking")


def test_points_outside(root: Path) -> None:
    """Odd, and said."""
    odd = entry()
    odd["points"][1, 3] = 1.2
    (root / "x.pkl").write_bytes(pickle.dumps({"a": odd}))
    text = "\n".join(p.sentence for p in tapvid.check(root / "x.pkl").problems)
    assert "Frame 3: a visible point lies outside the 20x12 picture" in text
