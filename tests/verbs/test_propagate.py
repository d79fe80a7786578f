"""The verb: what comes out, what is written, what is refused, and what an interruption leaves."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import retrace
from retrace.encoders import EncoderConfig, Model, load
from retrace.errors import RetraceError, UsageError
from retrace.formats.davis_png import davis_palette, read_mask, write_mask
from retrace.formats.textures import write_texture
from retrace.metrics.regions import jaccard
from retrace.propagation.protocols import PROTOCOLS, SMALL_SHORT_SIDE
from retrace.threads import Worker, ahead
from retrace.verbs import output
from retrace.verbs.propagate import Propagation, propagate, resolve_protocol
from retrace.video.encode import VideoWriter

H, W, FRAMES = 64, 104, 6
FAST: dict[str, Any] = {"num_context": 2, "radius": 4.0}


def frame(t: int) -> NDArray[np.uint8]:
    """A textured red square that moves right by 4 pixels a frame over a textured green ground."""
    noise = np.random.default_rng(0).integers(0, 60, (H, W), dtype=np.uint8)
    image = np.stack([noise // 2, 120 + noise, noise // 2], axis=-1)
    image[20:44, 20 + 4 * t : 44 + 4 * t] = np.stack([170 + noise, noise, noise], axis=-1)[20:44, 20:44]
    return image


def mask(t: int = 0, value: int = 1) -> NDArray[np.uint8]:
    """Where the square is."""
    ids = np.zeros((H, W), dtype=np.uint8)
    ids[20:44, 20 + 4 * t : 44 + 4 * t] = value
    return ids


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The moving square as a folder of frames a0.png ... a5.png."""
    path = tmp_path / "frames"
    path.mkdir()
    for t in range(FRAMES):
        Image.fromarray(frame(t)).save(path / f"a{t}.png")
    return path


@pytest.fixture(scope="module")
def model() -> Model:
    """An encoder without weights."""
    return load("lab-patches")


def iou(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Intersection over union of what is not background."""
    return float(((a > 0) & (b > 0)).sum() / ((a > 0) | (b > 0)).sum())


def test_masks_follow(folder: Path, model: Model, tmp_path: Path) -> None:
    """Frames stream, masks follow the square, and the folder holds all that was promised."""
    out = tmp_path / "out"
    result = propagate(folder, mask(value=3), model=model, out=out, **FAST)
    assert (len(result), result.names, result.kind) == (FRAMES, ["3"], "mask")
    frames = list(result)
    assert [f.name for f in frames] == [f"a{t}" for t in range(FRAMES)]
    np.testing.assert_array_equal(frames[0].masks, mask(value=3))
    assert frames[0].labelled
    assert frames[0].confidence == {"3": 1.0}
    for t, f in enumerate(frames):
        assert f.masks is not None
        assert f.masks.dtype == np.uint8
        assert iou(f.masks, mask(t)) > 0.6
        written = Image.open(out / "masks" / f"{f.name}.png")
        assert written.mode == "P"
        np.testing.assert_array_equal(np.asarray(written), f.masks)
    assert sorted(p.name for p in out.iterdir()) == ["masks", "overlay.mp4", "result.json", "run.json"]
    content = json.loads((out / "result.json").read_text())
    assert content["status"] == "complete"
    assert content["protocol"]["num_context"] == 2
    assert content["protocol"]["seed"] == "area"
    assert content["model"]["sha256"] == model.sha256
    assert set(content["seconds"]) >= {"decode", "encode", "readout", "write", "overlay", "total"}
    assert [f["index"] for f in content["frames"]] == list(range(FRAMES))
    assert 0 < content["frames"][3]["confidence"]["3"] <= 1
    assert result.summary["frames_done"] == FRAMES
    lowest = min(range(FRAMES), key=lambda t: frames[t].confidence["3"])
    assert [(one["name"], one["frame"]) for one in content["least_sure"]] == [("3", lowest)]


def test_an_encoder_with_patches(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's own function by name; the frame is padded to whole patches, and the result says so."""
    (tmp_path / "own_patches.py").write_text(
        "import torch.nn.functional as F\n\ndef pooled(images):\n    return F.avg_pool2d(images, 7)\n"
    )
    monkeypatch.chdir(tmp_path)
    result = propagate(
        folder, mask(), model="own_patches:pooled", out=tmp_path / "out", overlay=False, **FAST
    )
    frames = list(result)
    assert (result.model.stride, result.model.origin) == (7, 3.5)
    assert result.summary["padding"] == {"bottom": 6, "right": 1}
    saved = json.loads((tmp_path / "out" / "result.json").read_text())
    assert saved["padding"] == {"bottom": 6, "right": 1}
    assert saved["model"]["name"] == "own_patches:pooled"
    for t, one in enumerate(frames):
        assert one.masks is not None
        assert iou(one.masks, mask(t)) > 0.6


@pytest.mark.parametrize("name", ["copy", "flow:dis", "flow:farneback"])
def test_baselines_run_like_models(folder: Path, tmp_path: Path, name: str) -> None:
    """The same stream and the same folder; corrections and partly labelled keypoints too; nothing of a protocol."""
    result = propagate(folder, mask(value=3), model=name, out=tmp_path / "out", overlay=False)
    frames = list(result)
    assert [one.labelled for one in frames] == [True] + [False] * (FRAMES - 1)
    saved = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (saved["model"]["name"], saved["protocol"]) == (name, {"name": "none"})
    last = frames[-1].masks
    assert last is not None
    assert np.array_equal(last, read_mask(tmp_path / "out" / "masks" / "a5.png").ids)
    assert frames[-1].confidence == {"3": 1.0}
    if name == "copy":
        assert np.array_equal(last, mask(value=3))
    else:
        assert iou(last, mask(FRAMES - 1)) > 0.4  # a copy has 0.09
    corrected = {0: mask(), 2: mask(2)}
    assert np.array_equal(list(propagate(folder, corrected, model=name))[2].masks, mask(2))
    points = {
        "frames": [
            {"index": 0, "keypoints": [{"name": "a", "x": 30, "y": 30}, {"name": "b", "x": 36, "y": 34}]},
            {"index": 3, "keypoints": [{"name": "a", "x": 50, "y": 40}]},
        ]
    }
    third = list(propagate(folder, points, model=name, kind="keypoints"))[3].keypoints
    assert third is not None
    assert third[0].tolist() == [50, 40]
    np.testing.assert_allclose(third[1], [36 if name == "copy" else 48, 34], atol=3)
    again = [one.masks for one in result]
    assert all(np.array_equal(one, other.masks) for one, other in zip(again, frames, strict=True))


def test_baselines_have_nothing_to_adapt(folder: Path) -> None:
    """Said in a sentence."""
    with pytest.raises(UsageError, match="copy has nothing to adapt"):
        propagate(folder, mask(), model="copy", adapt=5)


class Noise(torch.nn.Module):
    """An encoder that knows nothing: other numbers for every frame."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, 8, H / 8, W / 8)."""
        return torch.randn(len(image), 8, image.shape[2] // 8, image.shape[3] // 8)


@pytest.mark.parametrize("helps", [True, False])
def test_an_adapted_encoder_that_is_worse_is_not_used(
    folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, helps: bool
) -> None:
    """Told by the way of the label over the frames and back."""
    noise = Model(Noise(), "noise", 8, 8, origin=4.0)
    begin, end = (noise, model) if helps else (model, noise)
    monkeypatch.setattr("retrace.training.adapt.adapt_model", lambda *_, **__: end)
    result = propagate(folder, mask(), model=begin, adapt=3, **FAST)
    assert result.model is model
    carried = list(result)[-1].masks
    assert carried is not None
    assert jaccard(carried == 1, mask(FRAMES - 1) == 1) > 0.6
    before, after = result.summary["round_trip"].values()
    assert (after > before + 0.2) is helps
    assert ("does not clearly help" in caplog.text) is not helps


def test_there_and_back_over_a_picture_that_stands_still(tmp_path: Path) -> None:
    """Nothing is lost, for every kind of label."""
    for t in range(4):
        Image.fromarray(frame(0)).save(tmp_path / f"{t}.png")
    point = {"frames": [{"index": 0, "keypoints": [{"name": "a", "x": 48, "y": 32}]}]}
    for label, kind in ((mask(), "mask"), (point, "keypoints")):
        trip = propagate(tmp_path, label, kind=kind, num_context=2, top_k=1).round_trip()
        assert trip > 0.95
    for t in range(1, 4):
        (tmp_path / f"{t}.png").unlink()
    assert propagate(tmp_path, mask(), **FAST).round_trip() == 1.0


def test_the_same_run_twice_is_the_same(folder: Path, model: Model) -> None:
    """Iterating again starts again and gives equal frames."""
    result = propagate(folder, mask(), model=model, **FAST)
    for first, second in zip(list(result), list(result), strict=True):
        np.testing.assert_array_equal(first.masks, second.masks)
        assert first.confidence == second.confidence


def test_a_video_and_the_public_name(model: Model, tmp_path: Path) -> None:
    """Frames of a video are numbered; the function is the package's."""
    with VideoWriter(tmp_path / "clip.mp4", height=H, width=W, fps=12) as writer:
        for t in range(FRAMES):
            writer.write(frame(t))
    write_mask(tmp_path / "label.png", mask())
    result = retrace.propagate(
        tmp_path / "clip.mp4", tmp_path / "label.png", model=model, out=tmp_path / "o", **FAST
    )
    frames = list(result)
    assert [f.name for f in frames] == [f"{t:05d}" for t in range(FRAMES)]
    assert frames[3].time == pytest.approx(0.25)
    last = frames[-1].masks
    assert last is not None
    assert iou(last, mask(FRAMES - 1)) > 0.6


def test_published_protocol_and_knobs(folder: Path, model: Model) -> None:
    """A protocol's own way to the grid, another size for the encoder, knobs on top."""
    result = propagate(folder, mask(), model=model, protocol="vfs-r18-davis", size=(48, 88), num_context=1)
    assert (result.protocol.name, result.protocol.num_context, result.protocol.seed) == (
        "vfs-r18-davis",
        1,
        "nearest",
    )
    frames = list(result)
    assert frames[-1].masks is not None
    assert frames[-1].masks.shape == (H, W)
    protocol = resolve_protocol("crw-davis", {"radius": 0, "top_k": 3, "label_seed": "area", "size": 0})
    assert (protocol.rules.radius, protocol.rules.top_k, protocol.size, protocol.seed) == (
        None,
        3,
        None,
        "area",
    )
    assert PROTOCOLS["crw-davis"].rules.top_k == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "crw"}, "Protocol 'crw' is unknown. Choose from default, "),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"shape": "hexagon"}, "hexagon"),
        ({"colour": 3}, "Knob 'colour' is unknown"),
        ({"label_seed": "cubic"}, "expected one of area, bilinear, nearest"),
        ({"size": 4}, "at least 16 pixels"),
        ({"device": "abacus"}, "Device 'abacus' is unknown"),
        ({"device": "cuda:99"}, "not on this machine"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"detail": "fine"}, "expected one of plain, closer, both_sizes, by_size"),
        ({"detail": "closer", "top_k": 0, "subcell": False}, "'closer' looks round k kept nodes"),
        ({"detail": "closer", "model": "lab-patches"}, "only those of a ResNet can"),
        ({"detail": "both_sizes", "model": "lab-patches"}, "both sizes: it is no ResNet"),
        ({"adapt": -3}, "adapt is -3"),
        ({"save_adapted": "w.safetensors"}, "needs adapt"),
        ({"kind": "boxes"}, "kind boxes"),
    ],
)
def test_wrong_settings(folder: Path, model: Model, arguments: dict[str, Any], message: str) -> None:
    """Wrong use is told before any work."""
    with pytest.raises(UsageError, match=message):
        propagate(folder, mask(), **{"model": model, **arguments})


def test_wrong_inputs_leave_nothing(folder: Path, model: Model, tmp_path: Path) -> None:
    """Each gets a sentence and no output folder."""
    out = tmp_path / "out"
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"junk")
    soft = cv2.GaussianBlur(mask(value=255), (0, 0), 3)
    cases: list[tuple[Any, Any, Any, str]] = [
        (tmp_path / "none.mp4", mask(), model, "none.mp4"),
        (folder, np.zeros((H, W), np.uint8), model, "empty"),
        (folder, mask()[:-8], model, "104x56 pixels, the video's frames are 104x64"),
        (folder, soft, model, "soft edges"),
        (folder, {t: mask() for t in range(FRAMES + 1)}, model, "labels 7 frames, the video has 6"),
        (folder, {"keypoints": [[200, 3]]}, model, "outside the 104x64 frame"),
        (folder, mask(), junk, "junk.safetensors"),
    ]
    for video, labels, which, message in cases:
        with pytest.raises(RetraceError, match=message):
            propagate(video, labels, model=which, out=out)
        assert not out.exists()


def test_output_folder_rules(folder: Path, model: Model, tmp_path: Path) -> None:
    """Done is done; another run or somebody else's files are refused; overwrite replaces."""
    out = tmp_path / "out"

    def go(labels: Any = None, **more: Any) -> Propagation:
        return propagate(folder, mask() if labels is None else labels, model=model, out=out, **(FAST | more))

    first = go().run()
    stamp = (out / "result.json").stat().st_mtime_ns
    again = go()
    assert again.finished is not None
    assert again.finished["seconds"] == first["seconds"]
    assert len(list(again)) == FRAMES, "frames can still be had"
    assert (out / "result.json").stat().st_mtime_ns == stamp
    with pytest.raises(RetraceError, match=r"another run: its labels is mask .*--overwrite"):
        go(mask(value=2))
    with pytest.raises(RetraceError, match="its protocol is"):
        go(top_k=3)
    assert read_mask(out / "masks" / "a0.png").objects == [1]
    go(mask(value=2), overwrite=True).run()
    assert read_mask(out / "masks" / "a0.png").objects == [2]

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(RetraceError, match=r"not a result of retrace propagate \(thesis.txt"):
        propagate(folder, mask(), model=model, out=foreign, overwrite=True)
    assert [p.name for p in foreign.iterdir()] == ["thesis.txt"]
    with pytest.raises(RetraceError, match="is a file"):
        propagate(folder, mask(), model=model, out=foreign / "thesis.txt")
    with pytest.raises(RetraceError, match="Cannot write"):
        propagate(folder, mask(), model=model, out=foreign / "thesis.txt" / "deeper")


def test_two_processes_do_not_share_a_folder(folder: Path, model: Model, tmp_path: Path) -> None:
    """The second is refused while the first holds the folder."""
    pytest.importorskip("fcntl")
    first = propagate(folder, mask(), model=model, out=tmp_path / "out", **FAST)
    with pytest.raises(RetraceError, match="Another retrace propagate is writing"):
        propagate(folder, mask(), model=model, out=tmp_path / "out", **FAST)
    first.run()
    assert propagate(folder, mask(), model=model, out=tmp_path / "out", **FAST).finished is not None


def test_interrupted_runs_keep_whole_files_and_start_again(
    folder: Path, model: Model, tmp_path: Path
) -> None:
    """Ctrl-C leaves finished masks and status partial; the same command then gives the uninterrupted result."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    propagate(folder, mask(), model=model, out=whole, **FAST).run()

    def stop(result: Any) -> None:
        if result.index == 2:
            raise KeyboardInterrupt

    interrupted = propagate(folder, mask(), model=model, out=out, **FAST)
    with pytest.raises(KeyboardInterrupt):
        interrupted.run(stop)
    del interrupted
    content = json.loads((out / "result.json").read_text())
    assert content["status"] == "partial"
    assert len(content["frames"]) == len(list((out / "masks").glob("*.png"))) == 3
    assert not [p for p in out.rglob("*") if "partial" in p.name]
    propagate(folder, mask(), model=model, out=out, **FAST).run()
    for path in (whole / "masks").iterdir():
        assert path.read_bytes() == (out / "masks" / path.name).read_bytes()
    assert json.loads((out / "result.json").read_text())["status"] == "complete"


def test_a_full_disk_stops_with_a_sentence(
    folder: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error on the writing thread reaches the caller, and nothing half-written stays."""

    def full(path: Path, ids: NDArray[np.uint8]) -> None:
        if path.stem == "a2":
            raise RetraceError(f"Cannot write {path}: No space left on device.")
        write_mask(path, ids)

    monkeypatch.setattr(output, "write_mask", full)
    with pytest.raises(RetraceError, match="No space left"):
        propagate(folder, mask(), model=model, out=tmp_path / "out", **FAST).run()
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.name != ".lock") == ["masks", "run.json"]
    monkeypatch.undo()
    assert propagate(folder, mask(), model=model, out=tmp_path / "out", **FAST).run()["status"] == "complete"


def test_a_broken_video_keeps_the_frames_before_the_break(folder: Path, model: Model, tmp_path: Path) -> None:
    """Damage is a sentence in the result, not an error; a label behind the break is."""
    data = (folder / "a3.png").read_bytes()
    (folder / "a3.png").write_bytes(data[: len(data) // 2])
    result = propagate(folder, mask(), model=model, out=tmp_path / "out", **FAST)
    assert len(list(result)) == 3
    assert (
        "damaged after 3 of 6 frames"
        in json.loads((tmp_path / "out" / "result.json").read_text())["video"]["damage"]
    )
    with pytest.raises(RetraceError, match="labels frame 5, but the video ended before it"):
        propagate(folder, {5: mask()}, model=model, **FAST).run()


def test_later_labels_correct(folder: Path, model: Model, tmp_path: Path) -> None:
    """Frames before the first label are left out; a corrected frame is carried on; objects may come and go."""
    labels = tmp_path / "labels"
    labels.mkdir()
    write_mask(labels / "a1.png", mask(1, 2))
    write_mask(labels / "a4.png", mask(4, 5))
    result = propagate(folder, labels, model=model, **FAST)
    frames = list(result)
    assert [f.index for f in frames] == [1, 2, 3, 4, 5]
    assert [f.labelled for f in frames] == [True, False, False, True, False]
    assert [set(np.unique(f.masks)) - {0} for f in frames] == [{2}, {2}, {2}, {5}, {5}]
    assert frames[3].confidence == {"2": 0.0, "5": 1.0}
    assert len(result) == 5


def test_keypoints(folder: Path, model: Model, tmp_path: Path) -> None:
    """They move with the square; a partly corrected frame keeps the others; files are written."""
    labels = {
        "names": ["corner", "other"],
        "skeleton": [[0, 1]],
        "frames": [
            {"index": 0, "keypoints": [[22, 24], [40, 40]]},
            {"index": 3, "keypoints": [{"name": "corner", "x": 34, "y": 24}]},
        ],
    }
    result = propagate(folder, labels, model=model, out=tmp_path / "out", **FAST)
    frames = list(result)
    assert result.skeleton == ((0, 1),)
    for t, f in enumerate(frames):
        assert f.keypoints is not None
        np.testing.assert_allclose(f.keypoints, [[22 + 4 * t, 24], [40 + 4 * t, 40]], atol=6)
    np.testing.assert_allclose(frames[3].keypoints[0], [34, 24])
    assert frames[3].confidence["corner"] == 1
    assert 0 < frames[3].confidence["other"] < 1
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {
        "keypoints.json",
        "keypoints.csv",
        "overlay.mp4",
    }
    assert len(json.loads((tmp_path / "out" / "keypoints.json").read_text())["frames"]) == FRAMES


def test_boxes_and_texture(folder: Path, model: Model, tmp_path: Path) -> None:
    """Both follow the square and are written."""
    result = propagate(folder, {"boxes": [[20, 20, 24, 24]]}, model=model, out=tmp_path / "b", **FAST)
    boxes = list(result)[-1].boxes
    assert boxes is not None
    np.testing.assert_allclose(boxes, [[40, 20, 24, 24]], atol=7)
    assert (tmp_path / "b" / "boxes.csv").exists()
    rgba = np.dstack([frame(0), mask() * 255]).astype(np.uint8)
    write_texture(tmp_path / "paint.png", rgba)
    result = propagate(
        folder, tmp_path / "paint.png", model=model, out=tmp_path / "t", kind="texture", **FAST
    )
    texture = list(result)[-1].texture
    assert texture is not None
    assert iou(texture[..., 3] // 128, mask(FRAMES - 1)) > 0.5
    assert len(list((tmp_path / "t" / "textures").iterdir())) == FRAMES
    with pytest.raises(RetraceError, match="one frame"):
        propagate(folder, {0: rgba, 1: rgba}, model=model, kind="texture")


def test_colour_masks_are_read_and_written_in_davis_colours(
    folder: Path, model: Model, tmp_path: Path
) -> None:
    """The result names the colour that each id had."""
    colours = np.array([[0, 0, 0], [255, 0, 0]], dtype=np.uint8)
    Image.fromarray(colours[mask()]).save(tmp_path / "c.png")
    summary = propagate(
        folder, tmp_path / "c.png", model=model, out=tmp_path / "out", overlay=False, **FAST
    ).run()
    assert summary["labels"]["colours"] == {"1": [255, 0, 0]}
    written = Image.open(tmp_path / "out" / "masks" / "a1.png")
    assert written.getpalette()[:6] == davis_palette()[:2].ravel().tolist()
    assert not (tmp_path / "out" / "overlay.mp4").exists()


def test_reading_ahead_is_bounded_and_ends() -> None:
    """At most the queue is read ahead; closing ends the thread; errors arrive."""
    read: list[int] = []

    def numbers() -> Any:
        for k in range(1000):
            read.append(k)
            yield k

    before = threading.active_count()
    items = ahead(numbers(), depth=3)
    assert [next(items)[0] for _ in range(4)] == [0, 1, 2, 3]
    items.close()  # type: ignore[attr-defined]
    assert len(read) <= 4 + 3 + 2
    assert threading.active_count() == before

    def broken() -> Any:
        yield 1
        raise RetraceError("broken")

    with pytest.raises(RetraceError, match="broken"):
        list(ahead(broken()))


def test_worker_raises_what_its_work_raised() -> None:
    """On the next put or on close, and it never blocks."""

    def fail(item: int) -> None:
        raise ValueError(item)

    worker = Worker(fail, depth=1)

    def fill() -> None:
        for _ in range(20):
            worker.put(0)
        worker.close()

    with pytest.raises(ValueError, match="0"):
        fill()
    with pytest.raises(ValueError, match="0"):
        worker.close()


def test_a_run_without_a_frame_leaves_nothing(
    folder: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stops a run before its first frame, folders that were made for it go again."""
    with pytest.raises(RetraceError, match="Cannot write"):
        propagate(
            folder,
            mask(),
            model=load("random:resnet18"),
            out=tmp_path / "new" / "out",
            adapt=1,
            save_adapted=folder / "a0.png" / "x.safetensors",
            **FAST,
        )
    assert not (tmp_path / "new").exists()
    result = propagate(folder, mask(), model=model, out=tmp_path / "new" / "out", **FAST)
    monkeypatch.setattr(result._engine, "encode", fail_to_encode)
    with pytest.raises(RuntimeError, match="memory"):
        result.run()
    assert not (tmp_path / "new").exists()


def fail_to_encode(image: object) -> None:
    """An encoder that the machine cannot run."""
    raise RuntimeError("can't allocate memory")


def test_what_a_killed_run_left_is_no_obstacle(folder: Path, model: Model, tmp_path: Path) -> None:
    """Lock and temporary files of a run that was killed at its very beginning do not make the folder foreign."""
    out = tmp_path / "out"
    out.mkdir()
    for name in (".lock", ".run.123.partial.json", ".frames.partial.jsonl"):
        (out / name).write_text("")
    assert propagate(folder, mask(), model=model, out=out, **FAST).run()["status"] == "complete"
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]


def test_overwriting_begins_when_the_run_does(folder: Path, model: Model, tmp_path: Path) -> None:
    """Results that shall be replaced are there until the first frame is asked for."""
    out = tmp_path / "out"
    propagate(folder, mask(), model=model, out=out, **FAST).run()
    result = propagate(folder, mask(value=2), model=model, out=out, overwrite=True, **FAST)
    assert (out / "result.json").exists()
    assert result.run()["labels"]["names"] == ["2"]


def test_seed_beyond_what_a_generator_takes(folder: Path, model: Model) -> None:
    """Refused before anything is read."""
    with pytest.raises(UsageError, match="seed is"):
        propagate(folder, mask(), model=model, seed=2**63, **FAST)


def moving_thing(
    path: Path,
    ground: NDArray[np.uint8],
    size: tuple[int, int],
    start: tuple[int, int],
    step: int,
    count: int,
) -> NDArray[np.uint8]:
    """Frames in the folder `path`: a thing of h x w pixels that moves to the right by `step`. Returns its masks."""
    noise = np.random.default_rng(3).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    thing = cv2.resize(noise[::-1, ::-1] // 2 + 120, size[::-1], interpolation=cv2.INTER_CUBIC)
    path.mkdir()
    truth = np.zeros((count, *ground.shape[:2]), dtype=np.uint8)
    for t in range(count):
        y, x = start[0], start[1] + step * t
        image = ground.copy()
        image[y : y + size[0], x : x + size[1]] = thing
        truth[t, y : y + size[0], x : x + size[1]] = 1
        Image.fromarray(image).save(path / f"{t}.png")
    return truth


def noisy_ground(height: int, width: int) -> NDArray[np.uint8]:
    """What a thing moves over."""
    noise = np.random.default_rng(3).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


@pytest.mark.parametrize("padding_mode", ["reflect", "none"])
def test_labels_follow_with_and_without_padding(tmp_path: Path, padding_mode: str) -> None:
    """Without padding the grid begins inside the frame; labels sit on the pixels that their nodes look at."""
    path = tmp_path / "frames"
    truth = moving_thing(path, noisy_ground(120, 168), (32, 40), (44, 56), 5, 4)
    config = EncoderConfig(width=0.5, cut="layer1", padding_mode=padding_mode)
    network = load("random:resnet18", config=config)
    assert network.origin == (21.5 if padding_mode == "none" else 0.5)
    assert network.grid(120, 168) == tuple(network.features(torch.zeros(1, 3, 120, 168)).shape[-2:])
    shifted = replace(network, origin=network.origin - 12)
    found = [result.masks for result in propagate(path, truth[0], model=network, **FAST)]
    wrong = [result.masks for result in propagate(path, truth[0], model=shifted, **FAST)]
    assert found[3] is not None
    assert wrong[3] is not None
    good, bad, copied = iou(found[3], truth[3]), iou(wrong[3], truth[3]), iou(truth[0], truth[3])
    assert good > 0.7 > 0.5 > bad
    assert good > copied + 0.2


def test_detail_follows_the_size(folder: Path) -> None:
    """In `default`: closer nodes for small videos, both sizes for others, plain where encoder or rules have no way."""
    strided = load("random:resnet18", config=EncoderConfig(width=0.125))

    def detail(network: Model | str = strided, **settings: Any) -> str:
        return propagate(folder, mask(), model=network, **settings).protocol.detail

    assert min(H, W) <= SMALL_SHORT_SIDE
    assert detail() == detail(protocol="default") == "closer"
    assert detail(size=SMALL_SHORT_SIDE + 1) == "both_sizes"
    joints = {"frames": [{"index": 0, "keypoints": [{"name": "a", "x": 30, "y": 30}]}]}
    for size, expected in ((SMALL_SHORT_SIDE, "closer"), (SMALL_SHORT_SIDE + 1, "plain")):
        assert (
            propagate(folder, joints, model=strided, size=size, kind="keypoints").protocol.detail == expected
        )
    assert detail(detail="both_sizes") == "both_sizes"
    assert detail(protocol="crw-davis") == detail("lab-patches") == "plain"
    assert detail(top_k=0, subcell=False) == "plain"
    assert detail(load("random:resnet18", config=EncoderConfig(width=0.125, strides=(1, 1, 1, 1)))) == "plain"


@pytest.mark.parametrize("kind", ["mask", "keypoints", "boxes"])
def test_closer_nodes_follow_small_things(tmp_path: Path, kind: str) -> None:
    """A thing of little more than one cell of the encoder's own grid, by `detail`: every kind of label."""
    path = tmp_path / "frames"
    truth = moving_thing(path, noisy_ground(120, 160) // 2, (10, 12), (51, 35), 4, 5)
    labels: Any = truth[0]
    if kind == "keypoints":
        labels = {"frames": [{"index": 0, "keypoints": [{"name": "a", "x": 41, "y": 56}]}]}
    if kind == "boxes":
        labels = tmp_path / "boxes.csv"
        labels.write_text("frame,name,x,y,w,h\n0,a,35,51,12,10\n")
    network = load("random:resnet18", config=EncoderConfig(width=0.5, cut="layer2"))
    knobs: dict[str, Any] = {"temperature": 0.02, "kind": kind}
    error = {}
    for detail in ("plain", "closer"):
        *_, last = propagate(path, labels, model=network, detail=detail, **knobs)
        if kind == "mask":
            assert last.masks is not None
            error[detail] = 1 - iou(last.masks, truth[4])
        elif kind == "keypoints":
            assert last.keypoints is not None
            error[detail] = float(np.hypot(*(last.keypoints[0] - (57, 56))))
        else:
            assert last.boxes is not None
            error[detail] = float(np.abs(last.boxes[0] - (51, 51, 12, 10)).max())
    assert error["closer"] < {"mask": 0.3, "keypoints": 2.0, "boxes": 1.0}[kind]
    if kind != "boxes":  # the line through all positions is exact on either grid
        assert error["closer"] < error["plain"]


def test_boxes_are_not_stretched(tmp_path: Path) -> None:
    """TimeCycle stretches classes to 0..1 before it feeds them back; coordinates are none, so boxes still arrive."""
    blocks = np.random.default_rng(0).integers(0, 256, (8, 20, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    (tmp_path / "video").mkdir()
    for t in range(4):
        ground = cv2.GaussianBlur(np.roll(blocks, 8 * t, axis=1), (0, 0), 3)
        Image.fromarray(np.asarray(ground)).save(tmp_path / "video" / f"{t:05d}.png")
    (tmp_path / "boxes.csv").write_text("frame,name,x,y,w,h\n0,a,40,20,30,24\n")
    *_, last = propagate(
        tmp_path / "video",
        labels=tmp_path / "boxes.csv",
        model="lab-patches",
        protocol="timecycle-davis",
        size=(64, 160),
        kind="boxes",
    )
    assert last.boxes is not None
    np.testing.assert_allclose(last.boxes[0], [64, 20, 30, 24], atol=1.5)
