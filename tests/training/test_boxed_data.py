"""Training on videos with boxes: GOT-10k's layout becomes pairs; footage without boxes is refused."""

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from retrace.errors import RetraceError, UsageError
from retrace.training import data
from retrace.training.config import TrainConfig
from retrace.verbs.train import load_config


def tree(root: Path) -> Path:
    """Three sequences of four frames; one of them without a frame that is fit for training."""
    for name, box in (("a", "31,21,30,40"), ("b", "51,31,40,30"), ("tiny", "5,5,4,4")):
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for k in range(4):
            Image.new("RGB", (160, 100), (50 * k, 100, 0)).save(folder / f"{k + 1:08d}.jpg")
        (folder / "groundtruth.txt").write_text("\n".join([box] * 4))
    return root


def config(root: Path, out: Path, *flags: str) -> TrainConfig:
    """The published recipe on this data."""
    return dataclasses.replace(
        load_config("siamfc-got10k", f"--out={out}", *flags), data=(str(root),), init=None
    )


def test_pairs_of_a_tree(tmp_path: Path) -> None:
    """One pair per video and epoch; what cannot be used is reported; epochs become steps."""
    run = config(tree(tmp_path / "got"), tmp_path / "run", "--batch_size=2")
    built = data.build(run, progress=False)
    assert built.videos == 2
    assert [Path(path).name for path, _ in built.broken] == ["tiny"]
    assert "2 videos with boxes" in built.description
    views = built.dataset[0]
    assert views["exemplar"].shape == (3, 120, 120)
    assert views["search"].shape == (3, 239, 239)
    assert data.resolve_steps(run, built).steps == 50
    (tmp_path / "got" / "train" / "b").rename(tmp_path / "got" / "train" / "c")
    other = data.build(config(tmp_path / "got", tmp_path / "run"), progress=False)
    assert other.identity != built.identity


def test_what_has_no_boxes(tmp_path: Path) -> None:
    """Folders of frames alone, sequences that are all unfit, and images."""
    root = tree(tmp_path / "got")
    with pytest.raises(UsageError, match=r"clips\.images is true, but siamfc"):
        data.build(config(root, tmp_path / "run", "--clips.images=true"), progress=False)
    for name in "ab":
        (root / "train" / name / "groundtruth.txt").write_text("5,5,4,4\n" * 4)
    with pytest.raises(RetraceError, match=r"None of the 3 sequences can be trained on; .*fit for training"):
        data.build(config(root, tmp_path / "run"), progress=False)
    with pytest.raises(RetraceError, match="GOT-10k"):
        data.build(config(root / "train" / "a", tmp_path / "run"), progress=False)


def test_generated_scenes_have_boxes(tmp_path: Path) -> None:
    """The laptop recipe needs no data."""
    built = data.build(load_config("siamfc-laptop", f"--out={tmp_path}"), progress=False)
    assert set(built.dataset[3]) == {"exemplar", "search"}
