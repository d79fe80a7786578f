"""Boxes for training: the rule of frames that are fit, and sequences in GOT-10k's layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrace.datasets import got10k
from retrace.datasets.boxed import boxed_videos, usable_frames

H, W = 120, 200


@pytest.mark.parametrize(
    ("box", "fine"),
    [
        ((20, 20), True),
        ((19, 40), False),
        ((40, 19), False),
        ((100, 60), True),
        ((101, 60), False),
        ((60, 61), False),
        ((80, 20), True),
        ((81, 20), False),
        ((0, 0), False),
    ],
)
def test_the_rule(box: tuple[int, int], fine: bool) -> None:
    """Sides of 20 pixels to half the image, four to one at most."""
    assert usable_frames(np.array([[5, 5, *box]], dtype=float), (H, W)).tolist() == [fine]


def test_the_rule_of_cover() -> None:
    """Above 1, and above three tenths of the best."""
    boxes = np.tile([[5.0, 5, 30, 30]], (4, 1))
    assert usable_frames(boxes, (H, W), np.array([8, 2, 3, 1])).tolist() == [True, False, True, False]
    assert usable_frames(boxes, (H, W), np.array([2, 2, 1, 0])).tolist() == [True, True, False, False]


def sequence(folder: Path, boxes: list[str], cover: list[int] | None = None) -> None:
    """Frames 00000001.jpg ... with boxes."""
    folder.mkdir(parents=True)
    for k in range(len(boxes)):
        Image.new("RGB", (W, H), (k, 0, 0)).save(folder / f"{k + 1:08d}.jpg")
    (folder / "groundtruth.txt").write_text("\n".join(boxes) + "\n")
    if cover is not None:
        (folder / "cover.label").write_text("\n".join(map(str, cover)) + "\n")


def test_videos_of_a_tree(tmp_path: Path) -> None:
    """Boxes count from 0; unfit frames are NaN; what has no pair is left out with a reason."""
    boxes = ["11.0,21,30,40", "1,1,5,30", "12,22,30,40", "13,23,30,40"]
    sequence(tmp_path / "train" / "a", boxes, [8, 8, 1, 4])
    sequence(tmp_path / "train" / "b", boxes)
    sequence(tmp_path / "train" / "short", boxes[:2])
    sequence(tmp_path / "train" / "cover", boxes, [8])
    videos, left_out = boxed_videos(got10k.load(tmp_path))
    assert [one.video.path.name for one in videos] == ["a", "b"]
    one = videos[0]
    assert (one.video.num_frames, one.video.height, one.video.width) == (4, H, W)
    np.testing.assert_allclose(one.boxes[0], [10, 20, 30, 40])
    assert np.isnan(one.boxes[[1, 2]]).all()
    assert np.isfinite(videos[1].boxes[[0, 2, 3]]).all()
    reasons = {path.name: reason for path, reason in left_out}
    assert set(reasons) == {"short", "cover"}
    assert "fewer than two frames" in reasons["short"]
    assert "1 lines" in reasons["cover"]
