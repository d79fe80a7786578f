"""JHMDB and BADJA on disk, and the MATLAB files of the first."""

import json
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from retrace.datasets import badja, jhmdb
from retrace.datasets.matfile import read_mat
from retrace.errors import RetraceError
from retrace.video.decode import frames_of

CODES = {"float64": (6, 9), "float32": (7, 7), "uint8": (9, 2), "int16": (10, 3)}


def element(kind: int, data: bytes, order: str) -> bytes:
    """One element, in the small form where it fits."""
    if 0 < len(data) <= 4:
        first = struct.pack(order + "I", len(data) << 16 | kind)
        return first + data.ljust(4, b"\0")
    return struct.pack(order + "II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def variable(name: str, array: np.ndarray, order: str = "<", stored: str | None = None) -> bytes:
    """A numeric matrix; `stored` is a narrower type for its values, as MATLAB chooses it for whole numbers."""
    mx, mi = CODES[str(array.dtype)]
    narrow = np.dtype(stored or array.dtype)
    values = array.ravel(order="F").astype(narrow.newbyteorder(order)).tobytes()
    return element(
        14,
        element(6, struct.pack(order + "II", mx, 0), order)
        + element(5, np.array(array.shape, order + "i4").tobytes(), order)
        + element(1, name.encode(), order)
        + element(CODES[str(narrow)][1] if stored else mi, values, order),
        order,
    )


def mat(path: Path, *variables: bytes, order: str = "<", compress: bool = False) -> None:
    """A file of version 5."""
    mark = b"IM" if order == "<" else b"MI"
    header = b"MATLAB 5.0 MAT-file, made by a test".ljust(124) + struct.pack(order + "H", 0x0100) + mark
    if compress:
        variables = tuple(
            struct.pack(order + "II", 15, len(packed)) + packed for packed in map(zlib.compress, variables)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + b"".join(variables))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_mat_arrays(order: str, compress: bool, tmp_path: Path) -> None:
    """Both byte orders, compressed and not, narrow storage, small elements; a text is passed over."""
    pos = np.arange(2 * 3 * 4, dtype=np.float64).reshape(2, 3, 4)
    text = element(
        14,
        element(6, struct.pack(order + "II", 4, 0), order)
        + element(5, np.array([1, 2], order + "i4").tobytes(), order)
        + element(1, b"viewpoint", order)
        + element(16, b"SE", order),
        order,
    )
    mat(
        tmp_path / "a.mat",
        text,
        variable("pos_img", pos, order),
        variable("whole", pos, order, stored="uint8"),
        variable("x", np.array([[7]], np.int16), order),
        order=order,
        compress=compress,
    )
    found = read_mat(tmp_path / "a.mat")
    assert list(found) == ["pos_img", "whole", "x"]
    np.testing.assert_array_equal(found["pos_img"], pos)
    np.testing.assert_array_equal(found["whole"], pos)
    assert found["whole"].dtype == np.float64
    assert found["x"].tolist() == [[7]]


def test_mat_agrees_with_scipy(tmp_path: Path) -> None:
    """Where SciPy is there, its files are read alike."""
    io = pytest.importorskip("scipy.io")
    arrays = {
        "pos_img": np.random.default_rng(0).normal(size=(2, 15, 5)),
        "k": np.arange(6, dtype=np.int16)[None],
    }
    for compress in (False, True):
        io.savemat(tmp_path / "s.mat", arrays | {"note": "hello", "cell": {"a": 1}}, do_compression=compress)
        found = read_mat(tmp_path / "s.mat")
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)


def test_mat_files_that_are_none(tmp_path: Path) -> None:
    """Missing, another format, HDF5, cut off, inconsistent."""
    file = tmp_path / "a.mat"
    with pytest.raises(RetraceError, match=r"a.mat cannot be read \(No such file"):
        read_mat(file)
    file.write_bytes(b"hello")
    with pytest.raises(RetraceError, match="is not a MATLAB file of version 5"):
        read_mat(file)
    for start in (b"\x89HDF\r\n\x1a\n", b"MATLAB 7.3 MAT-file, Platform"):
        file.write_bytes(start.ljust(600))
        with pytest.raises(RetraceError, match="7.3 file .HDF5.; expected version 5.*-v7"):
            read_mat(file)
    pos = np.random.default_rng(0).normal(size=(2, 15, 9))
    for compress in (False, True):
        mat(file, variable("pos_img", pos), compress=compress)
        file.write_bytes(file.read_bytes()[:-50])
        with pytest.raises(RetraceError, match="is damaged"):
            read_mat(file)
    packed = zlib.compress(variable("pos_img", pos))[:-50]
    mat(file, struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(RetraceError, match="is damaged .*cut off"):
        read_mat(file)
    good = variable("pos_img", pos)
    mat(file, good.replace(struct.pack("<iii", 2, 15, 9), struct.pack("<iii", 2, 15, 8)))
    with pytest.raises(RetraceError, match=r"270 values for the shape \[2, 15, 8\]"):
        read_mat(file)


@pytest.fixture
def jhmdb_root(tmp_path: Path, make: SimpleNamespace) -> Path:
    """Two classes; `wave/b` is a training clip; `kick/c` has more frames than joints."""
    root = tmp_path / "JHMDB"
    rng = np.random.default_rng(1)
    for name, frames, annotated in (("wave/a", 3, 3), ("wave/b", 3, 3), ("kick/c", 5, 4)):
        make.frames(root / "Rename_Images" / name, frames, "{:05d}.png", start=1)
        pos = rng.uniform(2, 23, (2, 15, annotated))
        pos[:, 0, 0] = 1, 1  # the centre of the first pixel
        pos[:, 1, 0] = -3, 5
        mat(root / "joint_positions" / name / "joint_positions.mat", variable("pos_img", pos), compress=True)
    (root / "splits").mkdir()
    (root / "splits/wave_test_split1.txt").write_text("a.avi 2 \nb.avi 1 \n")
    (root / "splits/kick_test_split1.txt").write_text("c.avi 2")
    return root


def test_jhmdb(jhmdb_root: Path) -> None:
    """Test clips only; MATLAB's positions become ours; what lies outside is not visible."""
    found = jhmdb.load(jhmdb_root)
    assert [s.name for s in found.sequences] == ["kick/c", "wave/a"]
    clip = found.sequences[1]
    assert clip.size == (24, 36)
    assert clip.annotated == (0, 1, 2)
    points = clip.truth(0)
    assert points.xy.shape == (15, 2)
    assert points.xy[0].tolist() == [0.5, 0.5]
    assert points.xy[1].tolist() == [-3.5, 4.5]
    assert points.visible.tolist() == [True, False] + [True] * 13
    assert clip.objects == dict.fromkeys(range(15), 0)
    assert found.sequences[0].num_frames == 4
    assert "5 frames and joints for 4 in kick/c" in found.problems[0].sentence
    assert len(jhmdb.JOINTS) == 15


def test_jhmdb_lists(jhmdb_root: Path) -> None:
    """One missing list leaves out its class; without any, all clips; "all"."""
    assert len(jhmdb.load(jhmdb_root, split="all").sequences) == 3
    (jhmdb_root / "splits/kick_test_split1.txt").unlink()
    found = jhmdb.load(jhmdb_root)
    assert [s.name for s in found.sequences] == ["wave/a"]
    assert "the clips of kick are left out" in found.problems[0].sentence
    found = jhmdb.load(jhmdb_root, split="split2")
    assert len(found.sequences) == 3
    assert "all 3 clips are taken" in found.problems[0].sentence


def test_jhmdb_broken_clips(jhmdb_root: Path) -> None:
    """Joints missing, of another shape, under another name, nowhere in the picture."""
    joints = jhmdb_root / "joint_positions"
    (joints / "wave/a/joint_positions.mat").unlink()
    mat(joints / "wave/b/joint_positions.mat", variable("pos_img", np.zeros((2, 14, 3))))
    mat(joints / "kick/c/joint_positions.mat", variable("pos_world", np.zeros((2, 15, 3))))
    with pytest.raises(
        RetraceError, match=r"Not one sequence of jhmdb.*has no pos_img; it holds pos_world.*3 seq"
    ):
        jhmdb.load(jhmdb_root, split="all")
    mat(joints / "kick/c/joint_positions.mat", variable("pos_img", np.full((2, 15, 5), -9.0)))
    found = jhmdb.check(jhmdb_root, split="all")
    text = "\n".join(p.sentence for p in found.problems)
    assert "expected (2, 15, frames)" in text
    assert "cannot be read (No such file" in text
    assert "Frame 0 and 4 more: no joint lies in the picture" in text


def test_jhmdb_single_frame(jhmdb_root: Path) -> None:
    """MATLAB stores (2, 15) for one frame."""
    mat(jhmdb_root / "joint_positions/wave/a/joint_positions.mat", variable("pos_img", np.full((2, 15), 4.0)))
    assert jhmdb.load(jhmdb_root).sequences[1].num_frames == 1


def entry(
    video: str, number: int, joints: list, visible: list, top: str = "DAVIS/{}/Full-Resolution"
) -> dict:
    """One annotated frame."""
    images, masks = top.format("JPEGImages"), top.format("Annotations")
    return {
        "image_path": f"{images}/{video}/{number:05d}.jpg",
        "segmentation_path": f"{masks}/{video}/{number:05d}.png",
        "joints": joints,
        "visibility": visible,
    }


@pytest.fixture
def badja_root(tmp_path: Path, make: SimpleNamespace) -> Path:
    """A video of DAVIS at 480p beside the folder, and one of its own."""
    root = tmp_path / "BADJA"
    (root / "joint_annotations").mkdir(parents=True)
    make.frames(tmp_path / "DAVIS/JPEGImages/480p/cow", 6)
    make.palette(tmp_path / "DAVIS/Annotations/480p/cow/00001.png", make.ids(255))
    joints = [[100, 200], [0, 0], [7, 9]]
    cow = [
        entry("cow", 4, joints, [True, True, False]),
        entry("cow", 1, joints, [True, False, False]),
        entry("cow", 9, joints, [True, False, False]),
    ]
    (root / "joint_annotations/cow.json").write_text(json.dumps(cow))
    make.frames(root / "extra_videos/tiger", 3)
    own = [entry("tiger", 0, [[3, 40], [5, 6]], [True, True], top="extra_videos")]
    (root / "joint_annotations/tiger.json").write_text(json.dumps(own))
    return root


def test_badja(badja_root: Path) -> None:
    """(y, x) of the full picture becomes (x, y); frames at 480p beside the folder; joints followed from frame 1."""
    found = badja.load(badja_root)
    cow, tiger = found.sequences
    assert cow.num_frames == 6
    assert cow.annotated == (1, 4)
    assert cow.size == (1080, 1920)
    assert dict(cow.objects) == {0: 1}
    first = cow.truth(1)
    assert first.xy[0].tolist() == [200.5, 100.5]
    assert np.isnan(first.xy[1]).all()  # invisible, at (0, 0)
    assert first.xy[2].tolist() == [9.5, 7.5]  # hidden, but annotated
    assert first.mask.shape == (24, 36)
    assert first.mask.any()
    assert cow.truth(4).mask is None
    assert cow.truth(4).xy[1].tolist() == [0.5, 0.5]  # visible at the corner
    assert tiger.size == (24, 36)
    assert "00009.jpg in" in found.problems[0].sentence


def test_badja_check(badja_root: Path) -> None:
    """Missing masks and joints outside the picture."""
    text = "\n".join(p.sentence for p in badja.check(badja_root).problems)
    assert "Frame 4: there is no mask" in text
    assert "outside the 36x24 picture" in text


def test_badja_broken(badja_root: Path) -> None:
    """No frames; not the expected list; an empty list; no frame that is named."""
    annotations = badja_root / "joint_annotations"
    (annotations / "ghost.json").write_text(json.dumps([entry("ghost", 0, [[1, 1]], [True])]))
    (annotations / "odd.json").write_text(json.dumps([{"joints": [[1, 2]], "visibility": []}]))
    (annotations / "none.json").write_text("[]")
    found = badja.load(badja_root)
    assert [s.name for s in found.sequences] == ["cow", "tiger"]
    assert found.num_listed == 5
    text = "\n".join(p.sentence for p in found.problems)
    assert "There are no frames for ghost" in text
    assert "odd.json is not a list of annotated frames" in text
    assert "none.json is an empty list" in text


def test_real_badja(videos: Path) -> None:
    """The real pieces on this machine: dog from the frames of DAVIS, bear from a video, numbered alike."""
    found = badja.load(videos / "badja")
    assert found.problems == ()
    bear, dog = found.sequences
    assert bear.size == dog.size == (1080, 1920)
    for sequence in (bear, dog):
        for frame in sequence.annotated:
            xy = sequence.truth(frame).xy[sequence.truth(frame).visible]
            assert ((xy > 0) & (xy < (1920, 1080))).all()
    mask = dog.truth(dog.annotated[0]).mask
    assert mask.mean() > 0.02
    assert len(list(zip(range(3), frames_of(bear), strict=False))) == 3
