"""`retrace visualize` on small frame folders and made-up runs."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from retrace import encoders
from retrace.encoders import EncoderConfig, Model
from retrace.errors import RetraceError, UsageError
from retrace.verbs import visualize


@pytest.fixture(scope="module")
def small() -> Model:
    """A sixteenth of a ResNet-18."""
    return encoders.load("random:resnet18", config=EncoderConfig(width=0.0625))


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames of 90 x 70 pixels: a bright square that moves right."""
    folder = tmp_path_factory.mktemp("frames")
    for index in range(5):
        image = np.full((70, 90, 3), 40, np.uint8)
        image[20:40, 10 + 8 * index : 30 + 8 * index] = (60, 160, 230)
        cv2.imwrite(str(folder / f"{index:05d}.png"), image)
    return folder


def png_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture that is not of one colour only."""
    image = cv2.imread(str(path))
    assert image is not None
    assert image.std() > 1
    return image.shape[:2]


def test_affinity(tmp_path: Path, frames: Path, small: Model) -> None:
    """With points of its own choice and with given ones, as pixels and as vectors."""
    own = visualize.affinity(frames, frames=(0, 3), out=tmp_path / "own.png", model=small, short_side=48)
    height, width = png_size(own)
    assert width > height
    given = visualize.affinity(
        frames, frames=(3, 0), out=tmp_path / "given.svg", model=small, points=[(20.5, 30.5)], short_side=48
    )
    text = given.read_text()
    assert "frame 3" in text or "<path" in text
    assert {path.name for path in tmp_path.iterdir()} == {"own.png", "given.svg"}


def test_pca(tmp_path: Path, frames: Path, small: Model) -> None:
    """One column per frame: three are wider than two."""
    two = png_size(visualize.pca(frames, frames=(0, 4), out=tmp_path / "two.png", model=small))
    three = png_size(visualize.pca(frames, frames=(0, 2, 4), out=tmp_path / "three.png", model=small))
    assert three[1] > two[1]
    visualize.pca(frames, frames=[1], out=tmp_path / "one.pdf", model=small)
    assert (tmp_path / "one.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": (0, 5)}, "5 frames, 0 to 4; frame 5"),
        ({"frames": (-1, 2)}, "Frame -1"),
        ({"points": [(91.0, 5.0)]}, r"91,5.*90 x 70"),
        ({"temperature": 0.0}, "temperature"),
        ({"short_side": 3}, "short side"),
        ({"device": "gpu"}, "Device 'gpu'"),
        ({"out": "figure.gif"}, r"\.gif"),
    ],
)
def test_wrong_use(
    tmp_path: Path, frames: Path, small: Model, options: dict[str, object], message: str
) -> None:
    """Each is a sentence, and no file."""
    arguments = {"frames": (0, 3), "out": tmp_path / "figure.png", "model": small, **options}
    with pytest.raises(UsageError, match=message):
        visualize.affinity(frames, **arguments)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_video_that_breaks_off_says_so(tmp_path: Path, frames: Path, small: Model) -> None:
    """The frame asked for lies behind the damage."""
    for file in sorted(frames.iterdir()):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "00002.png").write_bytes(b"not a picture")
    with pytest.raises(RetraceError, match="damaged after 2"):
        visualize.pca(tmp_path, frames=(0, 4), out=tmp_path / "figure.png", model=small)
    visualize.pca(tmp_path, frames=(0, 1), out=tmp_path / "out" / "figure.png", model=small)


def write_run(folder: Path, rows: int) -> Path:
    """A run's metrics.csv with gaps, as a validation number that comes now and then leaves."""
    folder.mkdir(parents=True)
    lines = [f"{10 * i},{5 / (i + 1)},{i / rows if i % 2 else ''}" for i in range(rows)]
    (folder / "metrics.csv").write_text("\n".join(["step,loss,accuracy", *lines]) + "\n")
    return folder


def test_curves(tmp_path: Path) -> None:
    """Two runs, one of them a nested folder, one of them given by its file."""
    first, second = write_run(tmp_path / "a" / "version_0", 40), write_run(tmp_path / "b", 3)
    out = visualize.curves([tmp_path / "a", second / "metrics.csv"], out=tmp_path / "curves.svg")
    text = out.read_text()
    assert text.count("<path") > 10
    png_size(visualize.curves([first], out=tmp_path / "one.png", smooth=1))


def test_runs_without_curves(tmp_path: Path) -> None:
    """No run, no folder, no file, an empty table, a table of something else."""
    out = tmp_path / "curves.png"
    with pytest.raises(UsageError, match="No run"):
        visualize.curves([], out=out)
    with pytest.raises(RetraceError, match="no training run"):
        visualize.curves([tmp_path / "nothing"], out=out)
    with pytest.raises(RetraceError, match=r"holds no metrics\.csv"):
        visualize.curves([tmp_path], out=out)
    with pytest.raises(RetraceError, match="no curve yet"):
        visualize.curves([write_run(tmp_path / "empty", 0)], out=out)
    (tmp_path / "table.csv").write_text("name,size\nfirst,large\n")
    with pytest.raises(RetraceError, match="not a table of training curves"):
        visualize.curves([tmp_path / "table.csv"], out=out)
    assert not out.exists()
