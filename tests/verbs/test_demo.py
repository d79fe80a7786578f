"""`retrace demo` in small: a few frames, a tiny untrained encoder."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from retrace import encoders
from retrace.encoders import EncoderConfig, Model
from retrace.errors import RetraceError, UsageError
from retrace.formats.davis_png import read_mask
from retrace.verbs import demo as verb
from retrace.video.decode import open_video


@pytest.fixture(scope="module")
def small() -> Model:
    """A sixteenth of a ResNet-18."""
    return encoders.load("random:resnet18", config=EncoderConfig(width=0.0625))


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "HEIGHT", 90)
    monkeypatch.setattr(verb, "WIDTH", 160)


def test_demo(tmp_path: Path, small: Model) -> None:
    """Every file it names is there and holds what it says; a second run replaces the first."""
    told: list[tuple[str, int, int]] = []
    report = verb.demo(tmp_path, model=small, frames=3, progress=lambda *news: told.append(news))
    assert told[-1] == ("carrying the label", 3, 3)
    assert all(Path(path).exists() for path in report.files)
    assert all(Path(path).is_relative_to(tmp_path) for path in report.files)
    with open_video(report.out + "/video.mp4") as reader:
        assert (reader.height, reader.width) == (verb.HEIGHT, verb.WIDTH)
        assert len(list(reader)) == 3
    mask = read_mask(tmp_path / "frame0.png")
    assert mask.objects == sorted(map(int, report.mean_iou))
    masks = sorted((tmp_path / "result" / "masks").iterdir())
    assert [path.name for path in masks] == ["00000.png", "00001.png", "00002.png"]
    np.testing.assert_array_equal(read_mask(masks[0]).ids, mask.ids)
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 1
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["mean_iou"] == report.mean_iou
    assert written["seed"] == verb.SEED
    assert all(0 <= value <= 1 for value in [*report.mean_iou.values(), *report.copy_iou.values()])
    assert report.seconds["total"] >= report.seconds["video"] > 0

    again = verb.demo(tmp_path, model=small, frames=2, seed=verb.SEED)
    assert again.frames == 2
    assert len(list((tmp_path / "result" / "masks").iterdir())) == 2


def test_iou_by_hand() -> None:
    """Two of six pixels in common; nothing and nothing agree."""
    found = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], bool)
    true = np.array([[0, 1, 1, 0], [1, 1, 1, 0]], bool)
    assert verb._iou(found, true) == pytest.approx(2 / 6)
    assert verb._iou(found, ~found) == 0
    assert verb._iou(np.zeros((2, 3), bool), np.zeros((2, 3), bool)) == 1


def test_one_frame_is_no_video(tmp_path: Path) -> None:
    """Refused before anything is written."""
    with pytest.raises(UsageError, match="at least 2"):
        verb.demo(tmp_path, frames=1)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path: Path, small: Model) -> None:
    """One sentence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RetraceError, match="file"):
        verb.demo(tmp_path / "file", model=small, frames=2)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, small: Model) -> None:
    """Nothing is made; an unfinished demonstration may be done again."""
    (tmp_path / "video.mp4").write_text("mine")
    with pytest.raises(RetraceError, match="not a result of retrace demo"):
        verb.demo(tmp_path, model=small, frames=2)
    assert (tmp_path / "video.mp4").read_text() == "mine"

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "carrying the label":
            raise KeyboardInterrupt

    out = tmp_path / "demo"
    with pytest.raises(KeyboardInterrupt):
        verb.demo(out, model=small, frames=2, progress=stop)
    assert json.loads((out / "report.json").read_text())["status"] == "unfinished"
    assert verb.demo(out, model=small, frames=2).frames == 2
