"""Do settings that were chosen on some scenes hold on others? `python -m benchmarks.unseen`.

The protocol `flow` was chosen on scenes 0, 1, 2 and 5 of `retrace evaluate synthetic`, the five scales of the tracking
protocol `default` with the DAVIS-2016 clips in view. Here their settings are varied one at a time on four scenes that
nobody chose anything on, with the encoder that ships: end-point error of dense flow over the pixels that are seen in
both frames, and mean IoU of every object's box. The numbers are written to benchmarks/unseen.json, the tables to
docs/protocols.md.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import pages
from retrace.benchmarks import synthetic
from retrace.encoders import Model, load
from retrace.metrics.boxes import iou
from retrace.propagation.carriers import Carrier, Readout, Without
from retrace.propagation.protocols import PROTOCOLS
from retrace.synthetic import Scene, render
from retrace.tracking.carrier import SiamFC
from retrace.tracking.siamfc import PROTOCOLS as TRACKING

CHOSEN_ON = (0, 1, 2, 5)
"""Scenes of the benchmark that ships."""
UNSEEN = (31_000, 31_001, 31_002, 31_003)
"""Seeds of the others, with 2 to 5 objects."""
FLOW: dict[str, list[Any]] = {
    "temperature": [0.005, 0.01, 0.05, 0.1],
    "top_k": [1, 2, 10],
    "radius": [8, 18],
    "subcell": [False],
    "whiten": [None, 1.0],
}
SCALES = (1, 3, 5, 7)
Frames = NDArray[np.uint8]


def unseen() -> Iterator[Scene]:
    """The scenes that nothing was chosen on."""
    for number, seed in enumerate(UNSEEN):
        yield render(seed, replace(synthetic.CONFIG, num_objects=(2 + number, 2 + number)))


def frames_of(scene: Scene) -> Frames:
    """(T, H, W, 3)."""
    return np.ascontiguousarray(scene.frames.permute(0, 2, 3, 1).numpy())


def flow_error(carrier: Carrier, scenes: list[Scene]) -> float:
    """Mean end-point error, pixels, of two pairs of each scene."""
    errors = []
    for scene in scenes:
        frames = frames_of(scene)
        for t in synthetic.FLOW_PAIRS:
            pair = [frames[t + 1], frames[t]]  # the second is labelled, the first reads
            *_, last = carrier.flows(pair, (1,), frames.shape[1:3], smooth=True)
            distance = np.linalg.norm(last()[1] - scene.flow[t].numpy().transpose(1, 2, 0), axis=-1)
            errors.append(distance[~scene.occluded[t].numpy()])
    return float(np.concatenate(errors).mean())


def readout(model: Model, **changes: Any) -> Readout:
    """Protocol `flow` with changes."""
    base = PROTOCOLS["flow"]
    rules = {name: value for name, value in changes.items() if name != "whiten"}
    whiten = {name: value for name, value in changes.items() if name == "whiten"}
    return Readout(model, replace(base, rules=replace(base.rules, **rules), **whiten))


def box_iou(model: Model, num_scales: int) -> float:
    """Mean IoU over the objects with a box in frame 0 and the later frames that they show in."""
    values = []
    for scene in unseen():
        truth = scene.boxes.numpy().astype(np.float64)  # (T, N, 4) edges
        truth = np.concatenate([truth[..., :2], truth[..., 2:] - truth[..., :2]], axis=-1)
        truth = truth[:, np.isfinite(truth[0, :, 0])]
        carrier = SiamFC(model, replace(TRACKING["default"], num_scales=num_scales))
        for t, finish in enumerate(carrier.boxes(frames_of(scene), {0: truth[0]})):
            shown = np.isfinite(truth[t, :, 0])
            if t:
                values.append(iou(finish()[shown], truth[t][shown]))
    return float(np.concatenate(values).mean())


def key(changes: dict[str, Any]) -> str:
    """A setting in words."""
    return ", ".join(f"{name} {'none' if v is None else v}" for name, v in changes.items()) or "as it is"


def settings() -> list[dict[str, Any]]:
    """Everything that `flow` is compared with, itself first."""
    return [{}, *({name: value} for name, values in FLOW.items() for value in values)]


def main() -> None:
    """Measure everything and write the tables."""
    torch.set_num_threads(1)
    model = load("default")
    groups = {"chosen on": [synthetic.scene(number) for number in CHOSEN_ON], "unseen": list(unseen())}
    carriers: dict[str, Carrier] = {name: Without(name) for name in ("copy", "flow:dis")}
    carriers |= {key(changes): readout(model, **changes) for changes in settings()}
    results = {
        "flow": {
            name: {group: flow_error(carrier, scenes) for group, scenes in groups.items()}
            for name, carrier in carriers.items()
        },
        "scales": {str(number): box_iou(model, number) for number in SCALES},
    }
    pages.save("unseen", results)
    pages.show("unseen", "protocols.md", table(results))


def table(results: dict[str, Any]) -> str:
    """The Markdown tables of docs/protocols.md."""
    lines = ["| `flow` with | EPE, scenes it was chosen on | EPE, unseen scenes |", "|---|---|---|"]
    for name, found in results["flow"].items():
        lines.append(f"| {name} | {found['chosen on']:.2f} px | {found['unseen']:.2f} px |")
    lines += ["", "| tracking `default` with so many scales | mean IoU, unseen scenes |", "|---|---|"]
    lines += [f"| {name} | {value:.3f} |" for name, value in results["scales"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
