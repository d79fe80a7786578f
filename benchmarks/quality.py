"""Quality on the real clips with truth: `python -m benchmarks.quality --videos DIR [ROW ...]`.

DIR holds `davis2016/` and `badja/` (see docs/results.md). Measured are mean J over the DAVIS sequences (native size,
first and last frame left out) and PCK@0.1 on the BADJA clips (alpha times the longer side of the box round the visible
joints of the frame; joints that are visible in the first annotated frame, which is the labelled one).

Every row is written to benchmarks/quality.json as soon as it is done; a row that is there is not measured again unless
it is named on the command line. The table of docs/results.md is made from that file.
"""

import argparse
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

import retrace
from benchmarks import pages
from benchmarks.__main__ import machine
from retrace.encoders import Model, load
from retrace.metrics.keypoints import correct, longer_box_side
from retrace.metrics.regions import jaccard, sequence_mean
from retrace.propagation.baselines import BASELINES
from retrace.verbs.propagate import Propagation

Masks = NDArray[np.bool_]
Points = NDArray[np.float32]


class Carrier:
    """Retrace with a model or a baseline: the default protocol, or another one."""

    def __init__(self, model: str, adapt: int = 0) -> None:
        """`model` as `retrace propagate --model` takes it."""
        self.model: str | Model = model if model in BASELINES else load(model)
        self.adapt = adapt
        self.protocol: dict[str, object] | None = None
        self.round_trips: list[dict[str, object]] = []  # of clips that were adapted to

    def masks(self, video: Path, mask: Masks) -> Iterator[Masks]:
        """Through `retrace.propagate`."""
        result = retrace.propagate(video, mask.astype(np.uint8), model=self.model, adapt=self.adapt)
        self.protocol = None if isinstance(self.model, str) else asdict(result.protocol)
        for frame in result:
            assert frame.masks is not None
            yield frame.masks > 0
        self._note(video, result)

    def points(self, video: Path, first: int, points: Points) -> dict[int, Points]:
        """Through `retrace.propagate`."""
        named = [{"name": str(i), "x": float(x), "y": float(y)} for i, (x, y) in enumerate(points)]
        label = {"frames": [{"index": first, "keypoints": named}]}
        result = retrace.propagate(video, label, model=self.model, kind="keypoints", adapt=self.adapt)
        found = {frame.index: frame.keypoints for frame in result if frame.keypoints is not None}
        self._note(video, result)
        return found

    def _note(self, video: Path, result: Propagation) -> None:
        if "round_trip" in result.summary:
            self.round_trips.append(
                {"video": video.name, "label": result.kind, **result.summary["round_trip"]}
            )


MaskWay = Callable[[Path, Masks], Iterator[Masks]]
PointWay = Callable[[Path, int, Points], dict[int, Points]]


def carrier(row: str) -> Carrier:
    """How a row carries masks and points."""
    name, _, steps = row.partition("+adapt")
    return Carrier({"dis": "flow:dis"}.get(name, name), int(steps or 0))


def davis(videos: Path, way: MaskWay) -> dict[str, float]:
    """Mean J of every sequence."""
    scores = {}
    for folder in tqdm(sorted((videos / "davis2016" / "JPEGImages" / "480p").iterdir()), desc="davis2016"):
        files = sorted((videos / "davis2016" / "Annotations" / "480p" / folder.name).glob("*.png"))
        truth: list[Masks] = [np.asarray(Image.open(file).convert("L")) > 127 for file in files]
        agreement = [jaccard(mask, right) for mask, right in zip(way(folder, truth[0]), truth, strict=True)]
        scores[folder.name] = sequence_mean(np.array(agreement))
        tqdm.write(f"{folder.name} {scores[folder.name]:.3f}")
    return scores


def badja(videos: Path, way: PointWay) -> dict[str, float]:
    """PCK@0.1 of every clip."""
    clips = {
        "bear": videos / "badja" / "bear.mp4",
        "dog": videos / "davis2016" / "JPEGImages" / "480p" / "dog",
    }
    scores = {}
    for name, video in clips.items():
        annotated = json.loads((videos / "badja" / "joint_annotations" / f"{name}.json").read_text())
        frames = [int(re.findall(r"(\d+)\.\w+$", item["image_path"])[0]) for item in annotated]
        joints = np.array([item["joints"] for item in annotated], dtype=np.float64)[
            ..., ::-1
        ]  # (T, 37, 2) x, y
        visible = np.array([item["visibility"] for item in annotated], dtype=bool) & ~(joints == 0).all(
            (0, 2)
        )
        joints = (joints * [854 / 1920, 480 / 1080]).astype(np.float32)  # pixels of the 480p frames
        scale = longer_box_side(joints, visible)
        chosen = visible[0]
        found = way(video, frames[0], joints[0][chosen])
        predicted = np.stack([found[frame] for frame in frames[1:]])
        right = correct(predicted, joints[1:, chosen], visible[1:, chosen], 0.1, scale[1:])
        scores[name] = float(right.mean())
        tqdm.write(f"{name} {scores[name]:.3f}")
    return scores


def main() -> None:
    """Measure what is asked for or missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "rows", nargs="*", help=f"rows to measure again; default: those of {', '.join(LABELS)} not yet there"
    )
    parser.add_argument("--videos", type=Path, required=True, help="folder with davis2016/ and badja/")
    arguments = parser.parse_args()
    results = pages.load("quality")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout
    for row in arguments.rows or [row for row in LABELS if row not in results]:
        start = time.perf_counter()
        way = carrier(row)
        joints = badja(arguments.videos, way.points)  # the shorter part first
        scores = davis(arguments.videos, way.masks)
        found: dict[str, Any] = {
            "J": scores,
            "mean J": float(np.mean(list(scores.values()))),
            "PCK@0.1": joints,
            "model": None if isinstance(way.model, str) else way.model.sha256,
            "protocol": way.protocol,
            **({"round_trips": way.round_trips} if way.round_trips else {}),
            "seconds": round(time.perf_counter() - start),
            "machine": machine(),
            "commit": commit.strip(),
            "seed": 0,
        }
        results = pages.load("quality")  # another process may have added rows
        results[row] = found
        pages.save("quality", results)
    pages.show("quality", "results.md", table(results))


LABELS = {
    "copy": "copy the first label",
    "dis": "optical flow (OpenCV DIS, chained)",
    "lab-patches": "Lab patches",
    "random:default": "embedded encoder, random weights",
    "default": "embedded encoder",
    "default+adapt300": "embedded encoder, `--adapt 300`",
}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The Markdown table of docs/results.md; a row that is not there says so."""
    names = list(next(iter(results.values()))["J"])
    head = ["", *names, "**mean J**", "bear", "dog (joints)", "seconds", "commit"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row, label in LABELS.items():
        if row in results:
            found = results[row]
            numbers = [f"{value:.3f}" for value in found["J"].values()]
            numbers += [
                f"**{found['mean J']:.3f}**",
                *(f"{value:.3f}" for value in found["PCK@0.1"].values()),
            ]
            cells = [label, *numbers, str(found["seconds"]), found["commit"]]
        else:
            cells = [label, *["not measured yet"] * (len(head) - 1)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
