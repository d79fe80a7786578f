"""300VW on disk."""

from pathlib import Path

import av
import numpy as np
import pytest

from retrace.datasets import faces300vw
from retrace.errors import RetraceError
from retrace.video.decode import BrokenVideo, frames_of


def write_pts(path: Path, xy: np.ndarray) -> None:
    """As the data set writes it."""
    lines = "\n".join(f"{x:.3f} {y:.3f}" for x, y in xy)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"version: 1\nn_points:  {len(xy)}\n{{\n{lines}\n}}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two videos of five frames; one is a test video."""
    root = tmp_path / "300VW_Dataset_2015_12_14"
    rng = np.random.default_rng(0)
    for name in ("001", "114"):
        (root / name).mkdir(parents=True)
        with av.open(str(root / name / "vid.avi"), "w") as file:
            stream = file.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            for _ in range(5):
                picture = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 90, np.uint8), format="rgb24")
                file.mux(stream.encode(picture))
            file.mux(stream.encode())
        for t in range(5):
            xy = rng.uniform(3, 30, (68, 2))
            xy[0] = 1, 1
            write_pts(root / name / "annot" / f"{t + 1:06d}.pts", xy)
    return root


def test_landmarks(root: Path) -> None:
    """The first pixel is 1 there and 0.5 here; frames come from the video."""
    found = faces300vw.load(root.parent)
    assert [s.name for s in found.sequences] == ["001", "114"]
    video = found.sequences[0]
    assert video.num_frames == 5
    assert video.truth(0).xy.shape == (68, 2)
    assert video.truth(0).xy[0].tolist() == [0.5, 0.5]
    assert video.truth(0).visible.all()
    assert [image.shape for image in frames_of(video)] == [(32, 48, 3)] * 5
    test = faces300vw.load(root, split="category1")
    assert [s.name for s in test.sequences] == ["114"]
    assert test.num_listed == 31
    assert sum(len(names.split()) for names in faces300vw._CATEGORIES.values()) == 64


def test_gaps_and_short_videos(root: Path) -> None:
    """A missing annotation is said; a video that ends before its annotation is an error."""
    (root / "001/annot/000002.pts").unlink()
    write_pts(root / "114/annot/000009.pts", np.ones((68, 2)))
    found = faces300vw.check(root)
    assert found.sequences[0].annotated == (0, 2, 3, 4)
    text = "\n".join(p.sentence for p in found.problems)
    assert "1 of 5 annotations are missing" in text
    assert "the first is 000002.pts" in text
    assert "Frame 8: all landmarks are at one place" in text
    with pytest.raises(BrokenVideo, match="has only 5 frames, its annotation needs 9"):
        list(frames_of(found.sequences[1]))


def test_broken(root: Path) -> None:
    """Files that hold other things, missing videos, other folders."""
    for content in ("version: 1", "{ 1 2 }", "{ a b }", "version: 1\n{\n" + "1 2\n" * 68):
        (root / "001/annot/000001.pts").write_text(content)
        with pytest.raises(RetraceError, match=r"000001.pts has \d+ numbers in braces; expected 136"):
            faces300vw.load(root).sequences[0].truth(0)
    (root / "114/vid.avi").unlink()
    found = faces300vw.check(root)
    text = "\n".join(p.sentence for p in found.problems)
    assert "There is no" in text
    assert "vid.avi" in text
    with pytest.raises(RetraceError, match="holds no folder with an annot folder"):
        faces300vw.load(root / "001" / "annot")
    for file in (root / "001/annot").iterdir():
        file.unlink()
    with pytest.raises(RetraceError, match=r"holds no 000001.pts"):
        faces300vw.load(root)
