"""KITTI, Sintel and Middlebury on disk; ImageNet."""

import struct
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from retrace.datasets import imagenet, kitti, middlebury, sintel
from retrace.datasets.flowfiles import read_flo, read_kitti_png
from retrace.errors import RetraceError


def flow(height: int = 24, width: int = 36) -> np.ndarray:
    """A displacement field in steps of 1/64, which a KITTI file keeps exactly."""
    rng = np.random.default_rng(0)
    return (rng.integers(-3000, 3000, (height, width, 2)) / 64).astype(np.float32)


def write_flo(path: Path, uv: np.ndarray) -> None:
    """Magic, width, height, rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = uv.shape[:2]
    path.write_bytes(struct.pack("<fii", 202021.25, width, height) + uv.astype("<f4").tobytes())


def write_kitti(path: Path, uv: np.ndarray, valid: np.ndarray) -> None:
    """Red, green, blue = x, y, validity."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = np.concatenate([uv * 64 + 2**15, valid[..., None]], axis=2).astype(np.uint16)
    cv2.imwrite(str(path), np.ascontiguousarray(encoded[..., ::-1]))


def test_flo(tmp_path: Path) -> None:
    """Exact; what is huge or no number is not valid and 0."""
    uv = flow()
    uv[2, 3] = 1.7e9, 0
    uv[4, 5] = np.nan, 1
    write_flo(tmp_path / "a.flo", uv)
    found = read_flo(tmp_path / "a.flo")
    assert not found.valid[2, 3]
    assert not found.valid[4, 5]
    assert found.valid.sum() == found.valid.size - 2
    np.testing.assert_array_equal(found.uv[found.valid], uv[found.valid])
    assert (found.uv[~found.valid] == 0).all()


def test_flo_files_that_are_none(tmp_path: Path) -> None:
    """Missing, another format, cut off."""
    file = tmp_path / "a.flo"
    with pytest.raises(RetraceError, match="cannot be read"):
        read_flo(file)
    file.write_bytes(b"not a flow file")
    with pytest.raises(RetraceError, match=r"is not a .flo file"):
        read_flo(file)
    write_flo(file, flow())
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(RetraceError, match=r"says 36x24 and has 6920 bytes"):
        read_flo(file)


def test_kitti_png(tmp_path: Path) -> None:
    """Red is x, green is y, blue is validity."""
    valid = np.random.default_rng(1).random((24, 36)) < 0.5
    write_kitti(tmp_path / "a.png", flow(), valid)
    found = read_kitti_png(tmp_path / "a.png")
    np.testing.assert_array_equal(found.valid, valid)
    np.testing.assert_array_equal(found.uv, flow() * valid[..., None])
    with pytest.raises(RetraceError, match=r"b.png does not exist"):
        read_kitti_png(tmp_path / "b.png")
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(RetraceError, match=r"c.png is not a 16-bit colour PNG"):
        read_kitti_png(tmp_path / "c.png")


def test_kitti(tmp_path: Path, make: SimpleNamespace) -> None:
    """2015 and 2012; pixels seen in both frames; pairs that are not whole."""
    training = tmp_path / "KITTI/training"
    everywhere, half = np.ones((24, 36), bool), np.arange(36) < np.full((24, 1), 18)
    for number in (0, 1):
        for images in ("image_2", "colored_0"):
            make.frames(training / images, 2, f"{number:06d}_{{:02d}}.png", start=10)
        write_kitti(training / f"flow_occ/{number:06d}_10.png", flow(), everywhere)
        write_kitti(training / f"flow_noc/{number:06d}_10.png", flow(), half)
    found = kitti.check(tmp_path)
    assert found.problems == ()
    assert [s.name for s in found.sequences] == ["000000", "000001"]
    truth = found.sequences[0].truth(0)
    assert found.sequences[0].truth(1) is None
    np.testing.assert_array_equal(truth.visible, half)
    assert truth.valid.all()
    (training / "image_2/000001_11.png").unlink()
    found = kitti.load(tmp_path)
    assert len(found.sequences) == 1
    assert "There is no frame file" in found.problems[0].sentence
    assert len(kitti.load(tmp_path, split="2012").sequences) == 2
    (training / "colored_0").rename(training / "x")
    with pytest.raises(RetraceError, match="has no colored_0 or image_0, where KITTI 2012"):
        kitti.load(tmp_path, split="2012")
    (training / "flow_noc").rename(training / "y")
    found = kitti.load(tmp_path)
    assert "pixels seen in both frames are not known" in found.problems[0].sentence
    assert found.sequences[0].truth(0).visible is None


def test_sintel(tmp_path: Path, make: SimpleNamespace) -> None:
    """The flow of the last frame does not exist; occluded and invalid pixels."""
    training = tmp_path / "Sintel/training"
    for rendering in ("clean", "final"):
        make.frames(training / rendering / "alley_1", 3, "frame_{:04d}.png", start=1)
    for number in (1, 2):
        write_flo(training / f"flow/alley_1/frame_{number:04d}.flo", flow())
        make.palette(training / f"occlusions/alley_1/frame_{number:04d}.png", make.ids(255))
        make.palette(training / f"invalid/alley_1/frame_{number:04d}.png", make.ids(0, 255))
    found = sintel.check(tmp_path, split="final")
    assert found.problems == ()
    assert [s.name for s in found.sequences] == ["alley_1/frame_0001", "alley_1/frame_0002"]
    truth = found.sequences[1].truth(0)
    assert [file.name for file in found.sequences[1].frames] == ["frame_0002.png", "frame_0003.png"]
    np.testing.assert_array_equal(truth.valid, make.ids(0, 255) == 0)
    np.testing.assert_array_equal(truth.visible, (make.ids(0, 255) == 0) & (make.ids(255) == 0))
    (training / "occlusions").rename(training / "x")
    (training / "invalid").rename(training / "y")
    found = sintel.load(tmp_path)
    assert len(found.problems) == 2
    assert found.sequences[0].truth(0).visible is None
    assert found.sequences[0].truth(0).valid.all()


def test_middlebury(tmp_path: Path, make: SimpleNamespace) -> None:
    """Pairs, flows of another size, nothing valid, frames of two sizes."""
    for scene in ("Dimetrodon", "Venus", "Urban2"):
        make.frames(tmp_path / "other-data" / scene, 2, "frame{}.png", start=10)
        write_flo(tmp_path / "other-gt-flow" / scene / "flow10.flo", flow())
    assert middlebury.check(tmp_path).problems == ()
    write_flo(tmp_path / "other-gt-flow/Dimetrodon/flow10.flo", np.full((24, 36, 2), 2e9))
    write_flo(tmp_path / "other-gt-flow/Venus/flow10.flo", flow(12, 18))
    make.frame(tmp_path / "other-data/Urban2/frame11.png", size=(12, 18))
    found = middlebury.check(tmp_path)
    assert [s.name for s in found.sequences] == ["Dimetrodon"]
    text = "\n".join(p.sentence for p in found.problems)
    assert "no pixel of the flow is valid" in text
    assert "have the sizes (24, 36) and (12, 18)" in text
    assert "is (12, 18), the frame (24, 36)" in text


def test_pairs_whose_truth_is_not_public(tmp_path: Path, make: SimpleNamespace) -> None:
    """Frames alone: nothing is annotated, and asking for the truth gets a sentence."""
    make.frames(tmp_path / "KITTI/testing/image_2", 2, "000000_{:02d}.png", start=10)
    make.frames(tmp_path / "Sintel/test/clean/ambush", 3, "frame_{:04d}.png", start=1)
    make.frames(tmp_path / "Middlebury/eval-data/Army", 2, "frame{}.png", start=10)
    for reader, split, names in (
        (kitti, "2015-test", ["000000"]),
        (sintel, "clean-test", ["ambush/frame_0001", "ambush/frame_0002"]),
        (middlebury, "eval", ["Army"]),
    ):
        found = reader.check(tmp_path, split=split)
        assert found.problems == ()
        assert [s.name for s in found.sequences] == names
        assert found.sequences[0].annotated == ()
        assert found.sequences[0].truth(0) is None
        with pytest.raises(RetraceError, match="truth is not public"):
            found.sequences[0].read(0)
    with pytest.raises(RetraceError, match="colored_0 or image_0"):
        kitti.load(tmp_path, split="2012-test")


def test_imagenet(tmp_path: Path, make: SimpleNamespace) -> None:
    """A class is a sequence; pictures have any size; a flat folder gets a sentence."""
    make.frame(tmp_path / "val/n02/a.JPEG")
    make.frame(tmp_path / "val/n02/b.JPEG", size=(12, 18))
    make.frame(tmp_path / "val/n01/c.JPEG")
    found = imagenet.check(tmp_path)
    assert found.problems == ()
    assert [(s.name, s.num_frames, s.truth(0)) for s in found.sequences] == [("n01", 1, 0), ("n02", 2, 1)]
    (tmp_path / "val/n02/b.JPEG").write_bytes(b"no")
    found = imagenet.check(tmp_path)
    assert [s.name for s in found.sequences] == ["n01"]
    make.frame(tmp_path / "train/d.JPEG")
    with pytest.raises(RetraceError, match="holds no folder per class, but 1 images side by side"):
        imagenet.load(tmp_path, split="train")
