"""OTB: scores of boxes that we know, files as got10k's toolkit reads them, the two res5 maps, a whole run."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from retrace.benchmarks import BENCHMARKS
from retrace.benchmarks.records import Submission
from retrace.datasets.records import Boxes, Sequence
from retrace.encoders import load
from retrace.errors import RetraceError, UsageError
from retrace.propagation.carriers import Without
from retrace.tracking.siamfc import PROTOCOLS
from retrace.verbs.evaluate import evaluate

H, W, FRAMES = 60, 90, 5
TASK = BENCHMARKS["otb"]
OPTIONS = {"features": "model", "toolkit": "got10k"}


def truth(frame: int) -> NDArray[np.float64]:
    """A box of 16 x 10 that moves 4 to the right and 3 down per frame, and grows."""
    return np.array([[10.25 + 4 * frame, 8 + 3 * frame, 16 + frame, 10]])


def clip(read: Callable[[int], NDArray[np.float64]] = truth) -> Sequence[Boxes]:
    """Black frames in memory."""
    frames = np.zeros((FRAMES, H, W, 3), np.uint8)
    return Sequence("Ball", frames, FRAMES, (H, W), tuple(range(FRAMES)), lambda t: Boxes(read(t)), {0: 0})


class Knowing:
    """A carrier that hands back what it was told beforehand."""

    name = "knowing"

    def __init__(self, boxes: list[NDArray[np.float64]]) -> None:
        """Boxes of every frame, (1, 4)."""
        self._boxes = boxes

    def boxes(
        self, frames: Iterable[NDArray[np.uint8]], given: Mapping[int, NDArray[np.floating]]
    ) -> Iterator[Callable[[], NDArray[np.floating]]]:
        """As told."""
        for box, _ in zip(self._boxes, frames, strict=True):
            yield lambda box=box: box  # type: ignore[misc]


def by_hand(written: NDArray[np.float64], true: NDArray[np.float64]) -> tuple[float, float]:
    """Success and precision of got10k's toolkit, box by box."""
    overlaps, distances = [], []
    for frame, (a, b) in enumerate(zip(written, true, strict=True)):
        a = b if frame == 0 else a
        w = max(0.0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
        h = max(0.0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
        overlaps.append(w * h / (a[2] * a[3] + b[2] * b[3] - w * h))
        distances.append(np.hypot(a[0] + a[2] / 2 - b[0] - b[2] / 2, a[1] + a[3] / 2 - b[1] - b[3] / 2))
    curve = [np.mean([overlap > k / 20 for overlap in overlaps]) for k in range(21)]
    return float(np.mean(curve)), float(np.mean(np.array(distances) <= 20))


def test_scores_are_those_of_the_written_file(tmp_path: Path) -> None:
    """The truth has 20/21 and 1; a copied box what the toolkit makes of its text file, the first pixel being 1."""
    right = TASK.score(clip(), Knowing([truth(t) for t in range(FRAMES)]), Submission(tmp_path), OPTIONS)
    assert right.scores["success"] == pytest.approx(20 / 21)
    assert right.scores["precision"] == right.scores["normalised_precision"] == right.scores["mean_IoU"] == 1
    copied = TASK.score(clip(), Without("copy"), Submission(tmp_path), OPTIONS)
    written = np.loadtxt(tmp_path / "Ball.txt", delimiter=",")
    assert (tmp_path / "Ball.txt").read_text().splitlines()[0] == "11.250,9.000,16.000,10.000"
    success, precision = by_hand(written, np.concatenate([truth(t) for t in range(FRAMES)]) + (1, 1, 0, 0))
    assert copied.scores["success"] == pytest.approx(success)
    assert copied.scores["precision"] == pytest.approx(precision)
    assert copied.frames["frame"] == [1, 2, 3, 4]
    both = TASK.summarise([right, copied], OPTIONS)
    assert both["success"] == pytest.approx((20 / 21 + success) / 2)


def test_a_lost_box_has_no_overlap(tmp_path: Path) -> None:
    """It counts as 0 in the mean IoU and over time; a frame whose truth is not known counts nowhere."""

    def read(frame: int) -> NDArray[np.float64]:
        return truth(frame) if frame != 4 else np.full((1, 4), np.nan)

    boxes = [truth(0), truth(1), np.full((1, 4), np.nan), truth(3), truth(4)]
    result = TASK.score(clip(read), Knowing(boxes), Submission(tmp_path), OPTIONS)
    assert result.scores["mean_IoU"] == pytest.approx(2 / 3)
    np.testing.assert_allclose(result.frames["mean_IoU"], [1, 0, 1, np.nan])


def test_pysot_counts_frames_without_a_box_otherwise(tmp_path: Path) -> None:
    """A frame whose truth has no size fails at every overlap there; got10k's toolkit lets it pass none, too."""

    def read(frame: int) -> NDArray[np.float64]:
        return truth(frame) if frame != 2 else np.array([[-1.0, -1.0, 0, 0]])

    known = Knowing([truth(t) for t in range(FRAMES)])
    scores = {
        toolkit: TASK.score(
            clip(read), known, Submission(tmp_path), {"features": "model", "toolkit": toolkit}
        ).scores
        for toolkit in TASK.options["toolkit"]
    }
    assert scores["got10k"]["precision"] == pytest.approx(4 / 5)
    assert scores["pysot-toolkit"]["precision"] == 1  # the distance of a missing box counts as -1 there
    assert scores["stvir"]["success"] == pytest.approx(scores["got10k"]["success"])


def test_a_box_without_size_cannot_be_followed(tmp_path: Path) -> None:
    """It says which sequence."""
    with pytest.raises(RetraceError, match="Ball: the box of the first frame has no size"):
        TASK.score(clip(lambda t: np.zeros((1, 4))), Without("copy"), Submission(tmp_path), OPTIONS)


def test_res5_as_the_paper_and_as_released() -> None:
    """layer4 at stride 8, dilations 2 and 4 on all 3x3 convolutions or on those of the released code."""
    name = "random:resnet18,width=0.125"
    paper, released = (TASK.encoder(name, {"features": f"res5-{kind}"}) for kind in ("paper", "released"))
    assert paper.stride == released.stride == 8
    assert paper.channels == 64
    dilations = [
        [module.dilation[0] for key, module in model.encoder.named_modules() if key.endswith("conv1")][-4:]
        for model in (paper, released)
    ]
    assert dilations == [[2, 2, 4, 4], [1, 2, 2, 4]]
    second = released.encoder.get_submodule("layer4.1.conv2")
    assert second.dilation == (1, 1)
    same = zip(paper.encoder.parameters(), released.encoder.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert TASK.encoder(name, OPTIONS).channels == 32


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("default", "missing layer4.*features=model"),
        ("lab-patches", "is no ResNet.*features=model"),
        ("random:resnet18,width=0.125,stride=4", "Leave out"),
    ],
)
def test_res5_of_what_has_none(model: str, sentence: str) -> None:
    """Each says what to do instead."""
    with pytest.raises(RetraceError, match=sentence):
        TASK.encoder(model, {"features": "res5-paper"})
    with pytest.raises(UsageError, match="loaded already"):
        TASK.encoder(load("lab-patches"), {"features": "res5-paper"})


@pytest.fixture
def otb(tmp_path: Path) -> Path:
    """A red square that moves over noise, in Basketball; Bolt has a broken frame."""
    root = tmp_path / "OTB100"
    noise = np.random.default_rng(1).integers(0, 90, (H, W, 3), dtype=np.uint8)
    for name in ("Basketball", "Bolt"):
        (root / name / "img").mkdir(parents=True)
        lines = []
        for frame in range(4):
            x, y = 20 + 4 * frame, 18 + 2 * frame
            picture = noise.copy()
            picture[y : y + 16, x : x + 16] = (230, 40, 40)
            Image.fromarray(picture).save(root / name / "img" / f"{frame + 1:04d}.jpg", quality=95)
            lines.append(f"{x + 1},{y + 1},16,16")
        (root / name / "groundtruth_rect.txt").write_text("\n".join(lines))
    (root / "Bolt" / "img" / "0003.jpg").write_bytes(b"nothing")
    return root


def test_a_whole_run(otb: Path, tmp_path: Path) -> None:
    """The tracker is better than copying; the report holds its settings, the published rows and pictures."""
    runs = {}
    for model in ("copy", "lab-patches"):
        out = tmp_path / model
        runs[model] = evaluate(
            "otb", root=otb, model=model, out=out, protocol="default", options={"num_scales": "3"}, workers=1
        )
        page = (out / "report.html").read_text()
        assert page.count("data:image/jpeg;base64,") == 3
        for text in (
            "VFS, released weights",
            "Bolt</b> is left out",
            "1 of 100 sequences",
            "mean IoU over time",
        ):
            assert text in page
    tracked = runs["lab-patches"]
    assert tracked.scores["mean_IoU"] > runs["copy"].scores["mean_IoU"] + 0.2
    assert tracked.scores["mean_IoU"] > 0.75
    assert "0003.jpg" in tracked.summary["sequences"]["excluded"]["Bolt"]
    assert tracked.summary["protocol"]["name"] == "default"
    assert tracked.summary["protocol"]["num_scales"] == 3
    assert runs["copy"].summary["protocol"] is None
    assert "exemplar_size 120" in page
    assert "num_scales 3" in page
    again = evaluate(
        "otb", root=otb, model=model, out=out, protocol="default", options={"num_scales": "3"}, workers=1
    )
    assert again.summary["sequences_kept_from_an_earlier_run"] == 1
    assert json.loads((out / "result.json").read_text())["options"] == OPTIONS


def test_settings_of_the_tracker(otb: Path) -> None:
    """A config of one's own is taken; what means nothing to a tracker is refused."""
    config = replace(PROTOCOLS["vfs-r18"], num_scales=1)
    done = evaluate(
        "otb", root=otb, model="copy", protocol=config, sequences=["Basketball"], options={"scale_rate": "0"}
    )
    assert done.scores["precision"] == 1
    for settings, sentence in (
        ({"radius": 3.0}, "radius means nothing"),
        ({"protocol": "crw-davis"}, "takes one of default, trained, vfs-r18"),
        ({"options": {"num_scales": "2"}}, "an odd number"),
        ({"options": {"num_scales": "many"}}, "expected a whole number"),
        ({"options": {"centred": "perhaps"}}, "expected true or false"),
        ({"options": {"colour": "red"}}, "no option 'colour'; it has features, toolkit, exemplar_size"),
        ({"model": "random:resnet18,width=0.125,stride=4,cut=layer1"}, "stride 4, the tracker's settings 8"),
    ):
        with pytest.raises(UsageError, match=sentence):
            evaluate("otb", root=otb, **{"model": "copy", **settings})
    with pytest.raises(UsageError, match="not a SiamFCConfig"):
        evaluate("synthetic", model="copy", protocol=config)
