"""`retrace demo`: the main job from end to end on a video made here, whose exact truth is known."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrace.devices import choose_device
from retrace.encoders import Model, load
from retrace.errors import UsageError
from retrace.files import atomic_path, check_owner
from retrace.formats.davis_png import write_mask
from retrace.propagation.codecs import FrameLabels
from retrace.synthetic import SceneConfig, render
from retrace.verbs.labelled_run import FrameResult
from retrace.verbs.propagate import propagate
from retrace.video.encode import VideoWriter
from retrace.viz.curves import Panel, curves_figure
from retrace.viz.figure import save_figure
from retrace.viz.overlay import Overlay, colour_of

REPORT = "report.json"
SEED = 30  # three objects that stay in view and touch; one has limbs that bend
HEIGHT, WIDTH = 272, 480
FPS = 24.0


@dataclass(frozen=True)
class DemoReport:
    """What a demonstration made and how well it went.

    Attributes:
        out: folder.
        files: path -> what it shows, the best first.
        model: name of the encoder.
        frames: of the video.
        mean_iou: object id as text -> mean over frames 1 .. T-1 of intersection over union with the truth, 0 to 1.
        copy_iou: the same for never moving the first mask: what doing nothing gives.
        seconds: of each stage, and "total".
    """

    out: str
    files: dict[str, str]
    model: str
    frames: int
    mean_iou: dict[str, float]
    copy_iou: dict[str, float]
    seconds: dict[str, float]


def demo(
    out: str | Path = "demo",
    *,
    model: str | Path | Model = "default",
    seed: int = SEED,
    frames: int = 90,
    device: str = "auto",
    progress: Callable[[str, int, int], None] | None = None,
) -> DemoReport:
    """Make a video, label its first frame, carry the label through it, and compare with the truth.

    Writes `video.mp4`, `frame0.png` (the only label that is used), `result/` as `retrace propagate` does, `curves.png`
    and `report.json` into `out`, replacing what an earlier demonstration left there.

    Args:
        out: folder.
        model: what `retrace.load` takes, or a loaded model.
        seed: of the scene.
        frames: length of the video, at least 2.
        device: "auto", "cpu", "cuda", ...
        progress: called with (stage, done, of how many).

    Errors: UsageError for fewer than two frames or a scene whose first frame is empty; RetraceError when something
        cannot be written, or `out` holds what no demonstration wrote.
    """
    if frames < 2:
        raise UsageError(f"A video of {frames} frames shows nothing; give at least 2.")
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed is {seed}; expected a whole number from 0 to 2^63 - 1.")
    choose_device(device)  # what can be refused is refused before anything is made
    loaded = model if isinstance(model, Model) else load(model)
    tell = progress or (lambda stage, done, total: None)
    out = Path(out)
    check_owner(out, lambda names: REPORT in names, "demo")
    start = time.perf_counter()

    tell("making a video", 0, 1)
    scene = render(seed, SceneConfig(height=HEIGHT, width=WIDTH, num_frames=frames))
    truth = scene.masks.cpu().numpy()  # (T, H, W)
    objects = [int(i) for i in np.unique(truth[0]) if i != 0]
    if not objects:
        raise UsageError(f"The scene of seed {seed} shows no object in its first frame; give another --seed.")
    with atomic_path(out / REPORT) as temporary:  # signs the folder, should this be interrupted
        temporary.write_text(json.dumps({"seed": seed, "status": "unfinished"}) + "\n")
    video, label = out / "video.mp4", out / "frame0.png"
    with VideoWriter(video, height=HEIGHT, width=WIDTH, fps=FPS) as writer:
        for image in scene.frames.cpu():
            writer.write(image.permute(1, 2, 0).contiguous().numpy())
    write_mask(label, truth[0])
    tell("making a video", 1, 1)
    made = time.perf_counter()

    result = propagate(video, label, model=loaded, out=out / "result", overwrite=True, device=device)
    overlap = np.full((len(objects), frames), np.nan)
    copied = np.full((len(objects), frames), np.nan)
    confidence = np.full((len(objects), frames), np.nan)
    shown = np.linspace(0, frames - 1, min(4, frames)).round().astype(int).tolist()
    painter = Overlay(result.names, legend=False)
    pictures: list[tuple[str, NDArray[np.uint8]]] = []
    for frame in result:
        assert frame.masks is not None  # a mask went in
        for row, i in enumerate(objects):
            overlap[row, frame.index] = _iou(frame.masks == i, truth[frame.index] == i)
            copied[row, frame.index] = _iou(truth[0] == i, truth[frame.index] == i)
            confidence[row, frame.index] = frame.confidence[str(i)]
        if frame.index in shown:
            drawn = painter.draw(frame.image, _labels(frame), index=frame.index, time=frame.time)
            pictures.append((f"frame {frame.index}{' (given)' if frame.labelled else ''}", drawn))
        tell("carrying the label", frame.index + 1, frames)
    carried = time.perf_counter()

    steps = [float(index) for index in range(frames)]
    names = [f"object {i}" for i in objects]
    panels = [
        Panel(
            title,
            "frame",
            y_label,
            dict(zip(names, [(steps, list(row)) for row in values], strict=True)),
            (0, 1.02),
        )
        for title, y_label, values in (
            ("Agreement with the exact truth", "intersection over union", overlap),
            ("Confidence, from the readout alone", "confidence, 0 to 1", confidence),
        )
    ]
    colours = {name: "#{:02x}{:02x}{:02x}".format(*colour_of(row)) for row, name in enumerate(names)}
    curves = save_figure(curves_figure(panels, colours=colours, pictures=pictures), out / "curves.png")
    report = DemoReport(
        out=str(out),
        files={
            str(out / "result" / "overlay.mp4"): "the label of the first frame, carried through the video",
            str(curves): "four frames; agreement with the truth and confidence over all frames",
            str(out / "result" / "masks"): "the mask of every frame, as palette PNGs",
            str(video): "the video that was made",
            str(label): "the only label that was given",
        },
        model=result.model.name,
        frames=frames,
        mean_iou={str(i): float(overlap[row, 1:].mean()) for row, i in enumerate(objects)},
        copy_iou={str(i): float(copied[row, 1:].mean()) for row, i in enumerate(objects)},
        seconds={
            "video": made - start,
            "propagation": carried - made,
            "total": time.perf_counter() - start,
        },
    )
    with atomic_path(out / REPORT) as temporary:
        temporary.write_text(json.dumps({**asdict(report), "seed": seed}, indent=2) + "\n")
    return report


def _labels(frame: FrameResult) -> FrameLabels:
    return FrameLabels(masks=frame.masks, confidence=frame.confidence)


def _iou(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Intersection over union of two regions (H, W); 1 where both are empty."""
    union = np.count_nonzero(found | true)
    return 1.0 if union == 0 else np.count_nonzero(found & true) / union
