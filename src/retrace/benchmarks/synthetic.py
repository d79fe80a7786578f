"""The benchmark that ships: 20 generated scenes from fixed seeds, with exact masks, keypoints, boxes and flow.

It needs no data and compares encoders and settings on equal terms; what it says about real video is limited.
"""

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from retrace.benchmarks.carrying import carry, read_frames
from retrace.benchmarks.masks import DAVIS_PATH, MaskScores
from retrace.benchmarks.masks import METRICS as MASK_METRICS
from retrace.benchmarks.poses import mean_over_sequences
from retrace.benchmarks.records import Benchmark, Metric, SequenceResult, Submission
from retrace.benchmarks.sizes import OBJECTS
from retrace.datasets.records import Dataset, Made, Sequence
from retrace.formats.davis_png import read_mask
from retrace.metrics.boxes import iou
from retrace.metrics.ratios import mean_of_numbers
from retrace.propagation.carriers import Carrier, Given, GivenMasks, GivenPoints, Places
from retrace.synthetic import Scene, SceneConfig, render

SEED, SCENES = 20_000, 20
CONFIG = SceneConfig(height=192, width=288, num_frames=24)
SPACING = 16
"""Pixels between the places that flow is measured at."""
FLOW_PAIRS = (0, CONFIG.num_frames // 2)
"""Frames from which flow to the next one is measured."""

METRICS = (
    MASK_METRICS[0],
    MASK_METRICS[1],
    MASK_METRICS[4],
    Metric("PCK@0.1", "PCK@0.1 of the object's box"),
    Metric("box_IoU", "IoU of the boxes round carried masks"),
    Metric("EPE", "end-point error of flow", "pixels", higher_is_better=False),
)


@functools.lru_cache(maxsize=1)
def scene(number: int) -> Scene:
    """Scene `number`, 0 to 19, with 2 to 5 objects; the last one is kept."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same sums in the same order in every process
    try:
        return render(SEED + number, replace(CONFIG, num_objects=(objects_in(number),) * 2))
    finally:
        torch.set_num_threads(threads)


def objects_in(number: int) -> int:
    """How many objects a scene has."""
    return 2 + number % 4


def load(root: Path, split: str | None) -> Dataset[NDArray[np.uint8]]:
    """All scenes; nothing is rendered yet. `root` and `split` are not asked for."""
    sequences = tuple(_sequence(number) for number in range(SCENES))
    return Dataset("synthetic", Path("generated"), f"seeds {SEED} to {SEED + SCENES - 1}", sequences, SCENES)


def _sequence(number: int) -> Sequence[NDArray[np.uint8]]:
    def frames() -> NDArray[np.uint8]:
        return np.ascontiguousarray(scene(number).frames.permute(0, 2, 3, 1).numpy())

    def read(frame: int) -> NDArray[np.uint8]:
        return np.asarray(scene(number).masks[frame].numpy(), dtype=np.uint8)

    return Sequence(
        f"scene-{number:02d}",
        Made(frames),
        CONFIG.num_frames,
        (CONFIG.height, CONFIG.width),
        tuple(range(CONFIG.num_frames)),
        read,
        dict.fromkeys(range(1, objects_in(number) + 1), 0),
    )


def _score(
    sequence: Sequence[NDArray[np.uint8]],
    carrier: Carrier,
    submission: Submission,
    options: Mapping[str, str],
) -> SequenceResult:
    """Masks, keypoints and the lattices of flow ride on one pass over the frames."""
    truth = scene(int(sequence.name.removeprefix("scene-")))
    size = (CONFIG.height, CONFIG.width)
    first = sequence.read(0)
    shown = {i: 0 for i in sequence.objects if (first == i).any()}  # the others have no label to carry
    masks = MaskScores(replace(sequence, objects=shown), submission, first_and_last=False, path=DAVIS_PATH)
    lattice = _lattice()
    given: list[Given] = [GivenMasks(masks.given)]
    given += [GivenPoints({frame: lattice}, size, until=frame + 1) for frame in FLOW_PAIRS]
    begin = truth.keypoints_visible[0].numpy()
    if begin.any():
        keypoints = np.where(begin[:, None], truth.keypoints[0].numpy(), np.nan).astype(np.float32)
        given.append(GivenPoints({0: keypoints}, size))
    moved: dict[int, Places] = {}
    found = np.full(truth.keypoints.shape, np.nan)

    def one(frame: int, labels: tuple[Any, ...]) -> None:
        masks.add(frame, labels[0])
        for pair, places in zip(FLOW_PAIRS, labels[1:], strict=False):
            if frame == pair + 1:
                moved[pair] = places
        if begin.any():
            found[frame] = labels[-1]

    carry(carrier.together(read_frames(sequence), given), one, sequence.num_frames, sequence.name)
    result = masks.result()
    scores = {key: result.scores[key] for key in ("J&F", "J", "F")}
    scores["PCK@0.1"] = _keypoints(truth, found)
    scores["box_IoU"] = _boxes(submission, sequence, truth, sorted(shown))
    scores["EPE"] = _flow(truth, moved)
    return replace(result, scores=scores)


def _keypoints(truth: Scene, found: NDArray[np.float64]) -> float:
    """Share of the visible keypoints within 0.1 of the longer side of their object's box; `found` is (T, K, 2)."""
    xy, visible = truth.keypoints.numpy(), truth.keypoints_visible.numpy()  # (T, K, 2), (T, K)
    owners = truth.keypoint_object.numpy() - 1
    boxes = truth.boxes.numpy()[:, owners]  # (T, K, 4)
    sides = (boxes[..., 2:] - boxes[..., :2]).max(-1)
    counted = visible & visible[0]
    counted[0] = False
    right = np.linalg.norm(found - xy, axis=-1) <= 0.1 * sides
    return float(right[counted].mean()) if counted.any() else float("nan")


def _boxes(
    submission: Submission, sequence: Sequence[NDArray[np.uint8]], scene: Scene, objects: list[int]
) -> float:
    """Mean IoU of the boxes round the carried masks, where the object shows; a lost object has 0."""
    truth = scene.boxes.numpy()  # (T, N, 4) edges
    values = []
    for frame in range(1, sequence.num_frames):
        path = submission.folder / DAVIS_PATH.format(sequence=sequence.name, frame=f"{frame:05d}")
        carried = read_mask(path, allow_empty=True).ids
        for i in objects:
            x0, y0, x1, y1 = truth[frame, i - 1]
            if not np.isfinite(x0):
                continue
            own = cv2.boundingRect((carried == i).astype(np.uint8))
            right = np.array([[x0, y0, x1 - x0, y1 - y0]], dtype=np.float64)
            values.append(float(iou(np.array([own], dtype=np.float64), right)[0]))
    return mean_of_numbers(values)


def _lattice() -> Places:
    """Places (n, 2) that flow is measured at, x and y in pixels."""
    ys, xs = (np.arange(SPACING // 2, side, SPACING) for side in (CONFIG.height, CONFIG.width))
    rows, columns = (axis.ravel() for axis in np.meshgrid(ys, xs, indexing="ij"))
    return np.stack([columns, rows], 1).astype(np.float32) + np.float32(0.5)


def _flow(truth: Scene, moved: Mapping[int, Places]) -> float:
    """Mean error, pixels, of the lattice's places that are seen in both frames; a lost place has not moved.

    `moved` has, for every frame of FLOW_PAIRS, where the places are in the next one, (n, 2).
    """
    start = _lattice()
    columns, rows = start.astype(np.int64).T
    errors = []
    for frame, places in moved.items():
        shift = places - start
        shift = np.where(np.isfinite(shift), shift, 0)
        flow = truth.flow[frame, :, rows, columns].numpy().T
        seen = ~truth.occluded[frame, rows, columns].numpy()
        errors.append(np.linalg.norm(shift - flow, axis=1)[seen])
    return mean_of_numbers(np.concatenate(errors))


SYNTHETIC = Benchmark(
    "synthetic",
    "Synthetic scenes",
    "mask",
    "default",
    METRICS,
    load,
    _score,
    lambda results, options: mean_over_sequences(results, METRICS),
    DAVIS_PATH,
    needs_root=False,
    sizes=OBJECTS,
)
