"""VIP on disk."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from retrace.datasets import vip
from retrace.errors import RetraceError


@pytest.fixture
def root(tmp_path: Path, make: SimpleNamespace) -> Path:
    """One video of 30 frames, annotated in the frames 0 and 25; instances above 255; the list lies beside."""
    root = tmp_path / "VIP" / "VIP_Fine"
    make.frames(root / "Images/videos7", 30, "{:012d}.jpg", start=1)
    for number in (1, 26):
        name = f"videos7/{number:012d}.png"
        make.palette(root / "Annotations/Category_ids" / name, make.ids(5, 5, 13))
        make.palette(root / "Annotations/Human_ids" / name, make.ids(1, 2, 2))
        path = root / "Annotations/Instance_ids" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        instances = make.ids(1, 2, 3).astype(np.uint16)
        instances[instances == 3] = 300
        Image.fromarray(instances).save(path)
    (root.parent / "lists").mkdir()
    (root.parent / "lists/val_videos.txt").write_text("videos7\n")
    return root


def test_vip(root: Path) -> None:
    """Annotated frames by name; instances with the class of most of their pixels."""
    found = vip.load(root.parent.parent)
    assert found.problems == ()
    assert found.root == root
    video = found.sequences[0]
    assert video.annotated == (0, 25)
    assert video.truth(1) is None
    assert dict(video.objects) == {5: 0, 13: 0}
    parts = video.truth(25)
    assert parts.instances.max() == 300
    assert parts.table.tolist() == [[1, 5], [2, 5], [300, 13]]
    assert set(np.unique(parts.humans)) == {0, 1, 2}
    assert vip.check(root).problems == ()


def test_instance_class_is_that_of_most_pixels() -> None:
    """Ties go to the lower class; instance 0 is none."""
    ids = np.array([[0, 4, 4, 4, 9, 9]], np.uint16)
    classes = np.array([[0, 2, 7, 7, 8, 6]], np.uint8)
    assert vip.instance_table(ids, classes).tolist() == [[4, 7], [9, 6]]
    assert vip.instance_table(np.zeros((2, 3), np.uint16), np.zeros((2, 3), np.uint8)).shape == (0, 2)


def test_without_instances(root: Path) -> None:
    """Classes can still be scored."""
    (root / "Annotations/Human_ids").rename(root / "elsewhere")
    found = vip.load(root)
    assert "only classes can be scored" in found.problems[0].sentence
    assert found.sequences[0].truth(0).table is None


def test_without_list(root: Path) -> None:
    """All videos, and it is said."""
    (root.parent / "lists/val_videos.txt").unlink()
    assert "all 1 videos in Images are taken" in vip.load(root).problems[0].sentence
    assert vip.load(root, split="all").problems == ()


def test_oddities(root: Path, make: SimpleNamespace) -> None:
    """Unknown classes, annotations without frames and of another size than theirs, maps that disagree."""
    categories = root / "Annotations/Category_ids/videos7"
    make.palette(categories / f"{99:012d}.png", make.ids(5))
    make.palette(categories / f"{26:012d}.png", make.ids(5, 21, 255))
    text = "\n".join(p.sentence for p in vip.check(root).problems)
    assert "1 annotations of videos7 have no frame, the first is 000000000099" in text
    assert "Frame 25: classes [21]; expected 0 to 19" in text
    make.palette(categories / f"{26:012d}.png", make.ids(5, size=(12, 18)))
    with pytest.raises(RetraceError, match=r"shapes \(12, 18\), \(24, 36\) and \(24, 36\)"):
        vip.load(root).sequences[0].truth(25)
    for kind in ("Category_ids", "Instance_ids", "Human_ids"):
        for number in (1, 26):
            make.palette(root / f"Annotations/{kind}/videos7/{number:012d}.png", make.ids(5, size=(12, 18)))
    text = "\n".join(p.sentence for p in vip.check(root).problems)
    assert "Frame 0 and 1 more: the annotation is 18x12, the frame 36x24 pixels" in text


def test_nothing_to_follow(root: Path, make: SimpleNamespace) -> None:
    """An empty first annotation; none that has a frame."""
    categories = root / "Annotations/Category_ids/videos7"
    make.palette(categories / f"{1:012d}.png", make.ids())
    with pytest.raises(RetraceError, match="first annotation of videos7 holds no part"):
        vip.load(root)
    for file in list(categories.iterdir()):
        file.rename(file.with_name("x" + file.name))
    with pytest.raises(RetraceError, match="has the name of a frame"):
        vip.load(root)
