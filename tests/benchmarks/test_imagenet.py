"""The linear probe on pictures whose classes are colours: what it must get right, and wrong."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from retrace.benchmarks import BENCHMARKS, linear
from retrace.benchmarks.linear import LinearProbeConfig, centre_crop, random_crop
from retrace.benchmarks.records import CLASSIFIER
from retrace.errors import RetraceError, UsageError
from retrace.verbs.evaluate import evaluate

COLOURS = {
    "blue": (40, 40, 220),
    "green": (30, 190, 40),
    "grey": (120, 120, 120),
    "pink": (240, 120, 200),
    "red": (220, 30, 30),
    "white": (235, 235, 235),
    "yellow": (230, 220, 30),
}
MODEL = "random:resnet18,width=0.125,cut=layer1"
QUICK = {"epochs": "200", "batch_size": "21", "lr": "3", "crops": "centre"}


def picture(colour: tuple[int, int, int], seed: int) -> NDArray[np.uint8]:
    """Noise round a colour, 48 x 64."""
    noise = np.random.default_rng(seed).normal(0, 12, (48, 64, 3))
    return (np.array(colour) + noise).clip(0, 255).astype(np.uint8)


def tree(root: Path, learned: dict[str, str]) -> Path:
    """Three pictures per class to learn from, of the colour that `learned` says, and two to be judged by."""
    for split, count in (("train", 3), ("val", 2)):
        for number, name in enumerate(COLOURS):
            (root / split / name).mkdir(parents=True)
            shown = COLOURS[learned[name] if split == "train" else name]
            for k in range(count):
                path = root / split / name / f"{name}_{k}.png"
                Image.fromarray(picture(shown, 100 * number + 10 * k + (split == "val"))).save(path)
    return root


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Every class learned as it is."""
    return tree(tmp_path / "ImageNet", {name: name for name in COLOURS})


def test_classes_that_can_be_told_are_told(colours: Path, tmp_path: Path) -> None:
    """All pictures right; the report, the predictions and the classifier are there."""
    out = tmp_path / "out"
    done = evaluate("imagenet", root=colours, model=MODEL, out=out, options=QUICK, workers=1)
    assert done.scores == {"top1": 1, "top5": 1}
    assert [result.name for result in done.results] == list(COLOURS)
    lines = (out / "submission" / "red.txt").read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [["red_0.png", "red"], ["red_1.png", "red"]]
    assert len(lines[0].split()) == 6
    page = (out / "report.html").read_text()
    for text in (
        "7 of 7 classes",
        "VFS, negatives, colour",
        "33.8",
        "are of 1000 classes; this folder has 7",
        "epochs 200",
        "All classes",
    ):
        assert text in page
    assert done.summary["protocol"]["lr"] == 3


def test_what_was_learned_wrongly_is_wrong(tmp_path: Path) -> None:
    """Names and colours exchanged in `train`: every picture is taken for the class that learned its colour."""
    names = list(COLOURS)
    turned = dict(zip(names, names[1:] + names[:1], strict=True))
    root = tree(tmp_path / "ImageNet", turned)
    out = tmp_path / "out"
    done = evaluate("imagenet", root=root, model=MODEL, out=out, options=QUICK, workers=1)
    assert done.scores["top1"] == 0
    for name, colour in turned.items():
        lines = (out / "submission" / f"{colour}.txt").read_text().splitlines()
        assert [line.split()[1] for line in lines] == [name, name]


def test_some_classes(colours: Path) -> None:
    """Only they are learned and told apart."""
    done = evaluate(
        "imagenet",
        root=colours,
        model=MODEL,
        sequences=["red", "blue"],
        options=QUICK,
        workers=1,
    )
    assert done.scores == {"top1": 1, "top5": 1}
    assert [result.name for result in done.results] == ["blue", "red"]
    assert done.summary["sequences"]["in_split"] == 7


@pytest.mark.parametrize("crops", ["random", "centre"])
def test_training_goes_on_where_it_was(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crops: str
) -> None:
    """Stopped after two of four epochs, it ends with the same bits; of other settings it begins anew."""
    options = QUICK | {"epochs": "4", "crops": crops, "drops": "0.5/0.75", "batch_size": "8"}

    def run(folder: str) -> bytes:
        evaluate("imagenet", root=colours, model=MODEL, out=tmp_path / folder, options=options, workers=1)
        return (tmp_path / folder / CLASSIFIER).read_bytes()

    whole = run("whole")
    write, count = linear.atomic_path, [0]

    def stopping(path: Path):  # type: ignore[no-untyped-def]
        count[0] += path.name == CLASSIFIER
        if count[0] == 3:
            raise KeyboardInterrupt
        return write(path)

    monkeypatch.setattr(linear, "atomic_path", stopping)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    monkeypatch.undo()
    with caught_epochs() as epochs:
        assert run("stopped") == whole
    assert epochs == [3, 4]


class caught_epochs:
    """Numbers of the epochs that are trained meanwhile."""

    def __enter__(self) -> list[int]:
        """Listen to the log."""
        self.epochs: list[int] = []
        self._handler = logging.Handler()
        self._handler.emit = lambda record: self.epochs.append(record.args[0])  # type: ignore[assignment, index]
        self._level = linear.log.level
        linear.log.addHandler(self._handler)
        linear.log.setLevel(logging.INFO)
        return self.epochs

    def __exit__(self, *details: object) -> None:
        """Stop."""
        linear.log.removeHandler(self._handler)
        linear.log.setLevel(self._level)


def test_what_cannot_be_read(colours: Path, tmp_path: Path) -> None:
    """A picture to learn from is left out and said; a class to be judged by is left out and named."""
    (colours / "train" / "red" / "red_1.png").write_bytes(b"nothing")
    (colours / "val" / "grey" / "grey_0.png").write_bytes(b"nothing")
    out = tmp_path / "out"
    for crops in ("random", "centre"):
        options = QUICK | {"crops": crops, "epochs": "200" if crops == "centre" else "2"}
        done = evaluate(
            "imagenet", root=colours, model=MODEL, out=out, options=options, workers=1, overwrite=True
        )
        assert done.scores["top1"] == 1 or crops == "random"
        assert "1 of 21 pictures to train with were left out" in done.summary["notes"][0]
        assert "red_1.png" in done.summary["notes"][0]
        assert "grey_0.png" in done.summary["sequences"]["excluded"]["grey"]
    assert json.loads((out / "result.json").read_text())["status"] == "partial"
    for file in (colours / "train").rglob("*.png"):
        file.write_bytes(b"nothing")
    with pytest.raises(RetraceError, match="Not one picture to train"):
        evaluate("imagenet", root=colours, model=MODEL, options=QUICK)
    for file in (colours / "train" / "red").iterdir():
        file.unlink()
    with pytest.raises(RetraceError, match="no pictures of 1 of the 7 classes"):
        evaluate("imagenet", root=colours, model=MODEL, options=QUICK)


def test_wrong_use(colours: Path) -> None:
    """Each in a sentence."""
    with pytest.raises(UsageError, match="no features to tell classes by"):
        evaluate("imagenet", root=colours, model="copy")
    for options, sentence in (
        ({"epochs": "0"}, "epochs is 0"),
        ({"crops": "left"}, "expected random or centre"),
        ({"drops": "half"}, "expected numbers with slashes"),
        ({"lr": "nan"}, "expected a number above 0"),
    ):
        with pytest.raises(UsageError, match=sentence):
            evaluate("imagenet", root=colours, model=MODEL, options=options)
    with pytest.raises(RetraceError, match="too large for the features of random"):
        evaluate("imagenet", root=colours, model=MODEL, options=QUICK | {"lr": "1e38"})


def test_the_published_settings() -> None:
    """VFS's rate falls at 60 and 80 of 100 epochs; res5 is the network as it classifies."""
    config = linear.PROTOCOLS["vfs"]
    rates = [config.rate(epoch) for epoch in (0, 59, 60, 79, 80, 99)]
    np.testing.assert_allclose(rates, [30, 30, 3, 3, 0.3, 0.3])
    assert LinearProbeConfig(epochs=10).rate(6) == pytest.approx(3)
    deep = BENCHMARKS["imagenet"].encoder("random:resnet18,width=0.125", {"features": "res5"})
    assert (deep.stride, deep.channels) == (32, 64)


def test_crops() -> None:
    """The middle of the picture; a random crop shows a part of it, mirrored half of the time."""
    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    middle = centre_crop(Image.fromarray(np.stack([ramp, ramp.T, ramp], 2)))
    assert middle.shape == (224, 224, 3)
    np.testing.assert_array_equal(middle[0, :, 0], np.arange(16, 240))
    np.testing.assert_array_equal(middle[:, 0, 1], np.arange(16, 240))
    wide = centre_crop(Image.fromarray(np.zeros((30, 301, 3), np.uint8)))
    assert wide.shape == (224, 224, 3)
    image = Image.fromarray(np.stack([ramp] * 3, 2))
    crops = [random_crop(image, torch.Generator().manual_seed(seed)) for seed in range(40)]
    rising = [int(crop[0, -1, 0]) > int(crop[0, 0, 0]) for crop in crops]
    assert 10 < sum(rising) < 30
    assert len({int(crop[0, 0, 0]) for crop in crops}) > 10
