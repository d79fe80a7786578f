"""OTB and GOT-10k on disk."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from retrace.datasets import got10k, otb
from retrace.errors import RetraceError
from retrace.video.decode import frames_of


@pytest.fixture
def root(tmp_path: Path, make: SimpleNamespace) -> Path:
    """Basketball with commas, Jogging with two targets and tabs, David in its range, no last newlines."""
    root = tmp_path / "OTB100"
    make.frames(root / "Basketball/img", 3, "{:04d}.jpg", start=1)
    (root / "Basketball/groundtruth_rect.txt").write_text("1,2,5,6\n2,2,5,6\n3,2,5,6")
    make.frames(root / "Jogging/img", 2, "{:04d}.jpg", start=1)
    (root / "Jogging/groundtruth_rect.1.txt").write_text("4\t5\t6\t7\n4\t5\t6\t8")
    (root / "Jogging/groundtruth_rect.2.txt").write_text("14 5 6 7\r\n14 5 6 8\r\n\r\n")
    make.frames(root / "David/img", 4, "{:04d}.jpg", start=298)
    (root / "David/groundtruth_rect.txt").write_text("9,9,3,3\n8,9,3,3\n")
    return root


def test_otb(root: Path) -> None:
    """Every oddity of the layout; boxes count from the left edge of the first pixel."""
    found = otb.load(root)
    names = [s.name for s in found.sequences]
    assert names == ["Basketball", "David", "Jogging.1", "Jogging.2"]
    ball, david, first, second = found.sequences
    assert ball.truth(0).xywh.tolist() == [[0, 1, 5, 6]]
    assert ball.num_frames == 3
    assert ball.size == (24, 36)
    assert [file.name for file in david.frames] == ["0300.jpg", "0301.jpg"]
    assert david.truth(1).xywh.tolist() == [[7, 8, 3, 3]]
    assert first.truth(1).xywh.tolist() == [[3, 4, 6, 8]]
    assert second.truth(1).xywh.tolist() == [[13, 4, 6, 8]]
    assert found.num_listed == 100
    assert sum(p.excluded for p in found.problems) == 96
    assert otb.load(root, split="otb50").num_listed == 50
    assert otb.load(root.parent).root == root


def test_otb_human4(root: Path, make: SimpleNamespace) -> None:
    """Its archive has an empty first box file beside the right second one."""
    make.frames(root / "Human4/img", 2, "{:04d}.jpg", start=1)
    (root / "Human4/groundtruth_rect.1.txt").write_text("\n")
    (root / "Human4/groundtruth_rect.2.txt").write_text("3,4,5,6\n4,4,5,6\n")
    human = next(s for s in otb.load(root).sequences if s.name == "Human4")
    assert human.truth(1).xywh.tolist() == [[3, 3, 5, 6]]


def test_otb_lists() -> None:
    """98 folders and 100 targets, 49 and 50 of them in OTB-50, each once."""
    assert len(set(otb.OTB100)) == len(otb.OTB100) == 98
    assert len(set(otb.OTB50)) == len(otb.OTB50) == 49
    assert set(otb.TWO_TARGETS) | set(otb.RANGES) <= set(otb.OTB100)


def test_otb_wrong_files(root: Path, tmp_path: Path) -> None:
    """Counts that differ, lines that are no boxes, missing files, boxes without size or outside, another folder."""
    (root / "Basketball/groundtruth_rect.txt").write_text("1,2,0,6\n99,2,5,6\n")
    (root / "David/groundtruth_rect.txt").write_text("1,2,5\n")
    (root / "Jogging/groundtruth_rect.1.txt").write_text("1,2,5,six\n")
    (root / "Jogging/groundtruth_rect.2.txt").unlink()
    found = otb.check(root)
    of = {
        name: [p.sentence for p in found.problems if p.sequence == name] for name in ("Basketball", "David")
    }
    assert "3 frames and 2 boxes" in of["Basketball"][0]
    assert "Frame 0: the box has no size." in of["Basketball"]
    assert "Frame 1: the box lies outside the 36x24 picture." in of["Basketball"]
    assert "row 1 has 3 numbers; expected 4" in of["David"][0]
    text = "\n".join(p.sentence for p in found.problems)
    assert "row 1 is '1,2,5,six'; expected 4 numbers" in text
    assert "Jogging has no groundtruth_rect.2.txt" in text
    with pytest.raises(RetraceError, match="holds none of the 98 sequences of otb100"):
        otb.load(root / "David")
    with pytest.raises(RetraceError, match="There is no folder"):
        otb.load(tmp_path / "nowhere")


def test_otb_names_and_ranges(root: Path, make: SimpleNamespace) -> None:
    """Images without numbers, an empty box file, no frame in the range."""
    (root / "Basketball/img/0002.jpg").rename(root / "Basketball/img/two.jpg")
    (root / "Jogging/groundtruth_rect.1.txt").write_text("\n")
    for file in (root / "David/img").iterdir():
        file.rename(file.with_name("1" + file.name))
    found = otb.load(root)
    assert [s.name for s in found.sequences] == ["Jogging.2"]
    text = "\n".join(p.sentence for p in found.problems)
    assert "two.jpg has no number in its name" in text
    assert "groundtruth_rect.1.txt is empty" in text
    assert "no frame in the range 300 to 770" in text


@pytest.fixture
def got(tmp_path: Path, make: SimpleNamespace) -> Path:
    """Two training sequences with labels; a test sequence with its first box alone."""
    root = tmp_path / "GOT-10k"
    for name, boxes in (("GOT-10k_Train_000001", 3), ("GOT-10k_Train_000002", 2)):
        folder = root / "train" / name
        make.frames(folder, boxes, "{:08d}.jpg", start=1)
        (folder / "groundtruth.txt").write_text("\n".join(f"{3 + i}.0000,4.0,5.5,6.0" for i in range(boxes)))
        (folder / "absence.label").write_text("\n".join("1" if i == 1 else "0" for i in range(boxes)))
        (folder / "cover.label").write_text("\n".join(str(8 - i) for i in range(boxes)))
    (root / "train/list.txt").write_text("GOT-10k_Train_000001\nGOT-10k_Train_000002\n")
    make.frames(root / "test/GOT-10k_Test_000001", 4, "{:08d}.jpg", start=1)
    (root / "test/GOT-10k_Test_000001/groundtruth.txt").write_text("3,4,5,6")
    return root


def test_got10k(got: Path) -> None:
    """Boxes, absence, cover; frames by folder."""
    found = got10k.load(got)
    assert found.problems == ()
    sequence = found.sequences[0]
    truth = sequence.truth(1)
    assert truth.xywh.tolist() == [[3, 3, 5.5, 6]]
    assert truth.absent.tolist() == [True]
    assert truth.cover.tolist() == [7]
    assert got10k.frame_file(sequence.frames, 2).name == "00000003.jpg"
    assert got10k.frame_file(sequence.frames, 2).exists()
    assert [round(image[..., 0].mean() / 10) for image in frames_of(sequence)] == [0, 1, 2]
    assert got10k.check(got).problems == ()


def test_got10k_test_split(got: Path) -> None:
    """One box, all frames; no list."""
    found = got10k.load(got, split="test")
    assert found.sequences[0].num_frames == 4
    assert found.sequences[0].annotated == (0,)
    assert found.sequences[0].truth(0).cover is None
    assert "all 1 folders are taken" in found.problems[0].sentence


def test_got10k_broken(got: Path) -> None:
    """Labels and frames that do not match, a folder that is not there, boxes without size, unreadable frames."""
    with (got / "train/list.txt").open("a") as file:
        file.write("GOT-10k_Train_000003\n")
    (got / "train/GOT-10k_Train_000001/cover.label").write_text("8\n8\n")
    (got / "train/GOT-10k_Train_000002/groundtruth.txt").write_text("3,4,0,6\n3,4,0,6\n")
    found = got10k.check(got)
    text = "\n".join(p.sentence for p in found.problems)
    assert "cover.label has 2 lines, groundtruth.txt beside it 3" in text
    assert "There is no folder" in text
    assert "Frame 0: the target is in sight and its box has no size" in text
    (got / "train/GOT-10k_Train_000002/00000002.jpg").write_bytes(b"no image")
    with_broken = got10k.check(got)
    assert with_broken.sequences == ()
    assert "00000002.jpg is not an image" in "\n".join(p.sentence for p in with_broken.problems)
    (got / "train/GOT-10k_Train_000002/00000002.jpg").unlink()
    with pytest.raises(RetraceError, match=r"Not one sequence"):
        got10k.load(got)


def test_numbers_of_boxes_are_floats(got: Path) -> None:
    """Whole and broken numbers mix."""
    assert got10k.load(got).sequences[0].truth(0).xywh.dtype == np.float64
