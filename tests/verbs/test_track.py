"""The verb: boxes follow, what is written, what is refused, what a break and an interruption leave."""

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import retrace
from retrace.encoders import Model, load
from retrace.encoders.heads import SiamFCHead
from retrace.errors import RetraceError, UsageError
from retrace.formats.mot import read_mot
from retrace.tracking.siamfc import PROTOCOLS
from retrace.verbs.track import track

H, W, FRAMES = 80, 120, 5
FAST: dict[str, Any] = {"num_scales": 1, "exemplar_size": 64, "search_size": 135}


def frame(t: int, step: int = 4) -> NDArray[np.uint8]:
    """A red square of 24 pixels that moves right over a textured green ground, from (20, 28)."""
    noise = np.random.default_rng(0).integers(0, 60, (H, W), dtype=np.uint8)
    image = np.stack([noise // 2, 120 + noise, noise // 2], axis=-1)
    left = 20 + step * t
    image[28:52, left : left + 24] = (220, 30, 40)
    return image


def write(path: Path, step: int = 4, frames: int = FRAMES) -> Path:
    """A folder of frames a0.png, a1.png, ..."""
    path.mkdir()
    for t in range(frames):
        Image.fromarray(frame(t, step)).save(path / f"a{t}.png")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The moving square."""
    return write(tmp_path / "frames")


@pytest.fixture(scope="module")
def model() -> Model:
    """Colours alone."""
    return load("lab-patches")


BOX = (20, 28, 24, 24)


def test_boxes_follow_and_are_written(folder: Path, model: Model, tmp_path: Path) -> None:
    """Frames stream; JSON, CSV and MOT hold the same boxes; the result says how it was made."""
    out = tmp_path / "out"
    result = retrace.track(folder, BOX, model=model, out=out, **FAST)
    assert (len(result), result.names, result.kind) == (FRAMES, ["1"], "boxes")
    frames = list(result)
    assert [f.name for f in frames] == [f"a{t}" for t in range(FRAMES)]
    assert frames[0].labelled
    assert frames[0].confidence == {"1": 1.0}
    for t, f in enumerate(frames):
        assert f.boxes is not None
        np.testing.assert_allclose(f.boxes, [[20 + 4 * t, 28, 24, 24]], atol=4)
        assert 0.5 < f.confidence["1"] <= 1
    assert sorted(p.name for p in out.iterdir()) == [
        "boxes.csv",
        "boxes.json",
        "boxes_mot.txt",
        "overlay.mp4",
        "result.json",
        "run.json",
    ]
    content = json.loads((out / "result.json").read_text())
    assert content["status"] == "complete"
    assert content["protocol"] == {"name": "default", **asdict(PROTOCOLS["default"]), **FAST}
    assert content["model"]["sha256"] == model.sha256
    assert set(content["seconds"]) >= {"decode", "track", "write", "overlay", "total"}
    assert [f["confidence"]["1"] for f in content["frames"]] == [round(f.confidence["1"], 4) for f in frames]
    with (out / "boxes.csv").open() as file:
        rows = list(csv.DictReader(file))
    mot = read_mot(out / "boxes_mot.txt")
    assert len(rows) == len(mot) == FRAMES
    for t, f in enumerate(frames):
        assert f.boxes is not None
        np.testing.assert_allclose([float(rows[t][k]) for k in "xywh"], f.boxes[0], atol=0.006)
        np.testing.assert_allclose(mot[t].xywh, f.boxes, atol=0.006)
    for first, second in zip(frames, list(result), strict=True):
        np.testing.assert_array_equal(first.boxes, second.boxes)


def test_several_targets_a_later_start_and_a_correction(folder: Path, model: Model) -> None:
    """Frames before the first box are left out; a later frame's box replaces what was followed."""
    two = list(track(folder, [(24, 28, 24, 24), (70, 4, 20, 20)], model=model, frame=1, **FAST))
    assert [f.index for f in two] == [1, 2, 3, 4]
    boxes = two[-1].boxes
    assert boxes is not None
    np.testing.assert_allclose(boxes[:, :2], [[36, 28], [70, 4]], atol=5)
    labels = {
        "frames": [
            {"index": 0, "boxes": [{"name": "red", "x": 60, "y": 4, "w": 20, "h": 20}]},
            {"index": 2, "boxes": [{"name": "red", "x": 28, "y": 28, "w": 24, "h": 24}]},
        ]
    }
    corrected = list(track(folder, labels, model=model, **FAST))
    assert [f.labelled for f in corrected] == [True, False, True, False, False]
    last = corrected[-1].boxes
    assert last is not None
    np.testing.assert_allclose(last[0, :2], [36, 28], atol=4)


def test_a_target_that_leaves(tmp_path: Path, model: Model) -> None:
    """Boxes are cut at the frame; wholly outside is NaN with confidence 0."""
    frames = list(track(write(tmp_path / "f", step=12, frames=10), BOX, model=model, **FAST))
    for f in frames:
        assert f.boxes is not None
        x, y, w, h = f.boxes[0].tolist()
        if np.isnan(x):
            assert f.confidence == {"1": 0.0}
        else:
            assert x >= 0
            assert y >= 0
            assert x + w <= W + 1e-3
            assert y + h <= H + 1e-3
    assert frames[-1].confidence["1"] < 0.5


@pytest.mark.parametrize(
    ("box", "arguments", "kind", "message"),
    [
        ((20, 28, 24), {}, UsageError, "expected x, y, w, h"),
        ("box.png", {}, UsageError, "neither x,y,w,h nor a box file"),
        ((20, 28, 0, 24), {}, RetraceError, "0 wide"),
        ((20, 28, 1e-9, 1e-9), {}, RetraceError, "0 x 0 pixels inside the frame"),
        ((119.5, 28, 24, 24), {}, RetraceError, "0.5 x 24 pixels inside the frame"),
        ((20, 28, 1e300, 24), {}, RetraceError, "expected a number of pixels"),
        (BOX, {"scale_step": -1.0}, UsageError, "scale_step is -1.0; expected a factor above 0"),
        (BOX, {"scale_rate": 2.0}, UsageError, "scale_rate is 2.0; expected a share"),
        (BOX, {"scale_penalty": -0.5}, UsageError, "scale_penalty is -0.5; expected a factor from 0 on"),
        ((400, 28, 24, 24), {}, RetraceError, "outside the 120x80 frame"),
        (BOX, {"frame": -1}, UsageError, "frame is -1"),
        (BOX, {"frame": 5}, RetraceError, "frame 5, but the video's frames are 0 to 4"),
        (BOX, {"protocol": "vot"}, UsageError, "Protocol 'vot' is unknown. Choose from default"),
        (BOX, {"num_scales": 4}, UsageError, "num_scales is 4; expected an odd"),
        (BOX, {"colour": 4}, UsageError, "Knob 'colour' is unknown"),
        (BOX, {"device": "abacus"}, UsageError, "Device 'abacus'"),
        (BOX, {"model": "none.pth"}, RetraceError, "none.pth"),
    ],
)
def test_wrong_inputs_leave_nothing(
    folder: Path, tmp_path: Path, box: Any, arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    """Each gets a sentence before any work."""
    with pytest.raises(kind, match=message):
        track(folder, box, out=tmp_path / "out", **({"model": "lab-patches"} | arguments))
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_stride(folder: Path) -> None:
    """Named, with what was expected."""
    model = load("random:resnet18", config=retrace.encoders.EncoderConfig(width=0.125, strides=(1, 2, 2, 1)))
    with pytest.raises(UsageError, match="stride 16, the tracker's settings 8"):
        track(folder, BOX, model=model)


def test_the_folder_is_guarded(folder: Path, model: Model, tmp_path: Path) -> None:
    """Done is done, another run and another verb's folder are refused, overwrite replaces."""
    out = tmp_path / "out"
    track(folder, BOX, model=model, out=out, overlay=False, **FAST).run()
    again = track(folder, BOX, model=model, out=out, overlay=False, **FAST)
    assert again.finished is not None
    with pytest.raises(RetraceError, match="another run: its boxes is"):
        track(folder, (21, 28, 24, 24), model=model, out=out, overlay=False, **FAST)
    ids = np.zeros((H, W), np.uint8)
    ids[28:52, 20:44] = 1
    with pytest.raises(RetraceError, match="another run: its verb is track, now it is propagate"):
        retrace.propagate(folder, ids, model=model, out=out)
    track(folder, (21, 28, 24, 24), model=model, out=out, overlay=False, overwrite=True, **FAST).run()
    assert json.loads((out / "result.json").read_text())["status"] == "complete"


def test_an_interruption_and_a_break_keep_what_was_done(folder: Path, model: Model, tmp_path: Path) -> None:
    """Whole files of the frames before; the same call starts afresh."""
    out = tmp_path / "out"

    def stop(found: Any) -> None:
        if found.index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        track(folder, BOX, model=model, out=out, **FAST).run(stop)
    assert json.loads((out / "result.json").read_text())["status"] == "partial"
    assert len(read_mot(out / "boxes_mot.txt")) == len(json.loads((out / "boxes.json").read_text())["frames"])
    assert not [p for p in out.rglob("*") if "partial" in p.name]
    data = (folder / "a3.png").read_bytes()
    (folder / "a3.png").write_bytes(data[: len(data) // 2])
    summary = track(folder, BOX, model=model, out=tmp_path / "broken", **FAST).run()
    assert summary["frames_done"] == 3
    assert "damaged after 3 of 5 frames" in summary["video"]["damage"]
    assert len(read_mot(tmp_path / "broken" / "boxes_mot.txt")) == 3


def test_a_trained_head_is_used(folder: Path, tmp_path: Path) -> None:
    """The file's two convolutions decide, and another head is another run."""
    plain = load("random:resnet18", config=retrace.encoders.EncoderConfig(width=0.125))
    torch.manual_seed(0)
    head = SiamFCHead(plain.channels)

    def with_head(tensors: dict[str, torch.Tensor]) -> Model:
        model = Model(plain.encoder, "mine", plain.stride, plain.channels, card=plain.card, head=tensors)
        retrace.save(model, tmp_path / "mine.safetensors")
        return load(tmp_path / "mine.safetensors")

    model = with_head(head.state_dict())
    result = track(folder, BOX, model=model, out=tmp_path / "out", overlay=False, **FAST)
    summary = result.run()
    assert summary["head"] is True
    assert summary["protocol"]["name"] == "trained"
    other = with_head({name: tensor * 2 for name, tensor in head.state_dict().items()})
    with pytest.raises(RetraceError, match="another run: its head is"):
        track(folder, BOX, model=other, out=tmp_path / "out", overlay=False, **FAST)
    assert track(folder, BOX, model=plain, **FAST).run()["head"] is False
