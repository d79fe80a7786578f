"""What limits the masks of the encoder that ships? `python -m benchmarks.limits --videos DIR`.

On the DAVIS-2016 sequences under DIR, at their own size, with the protocol `default`, mean J (first and last frame left
out) of:

* **carried**: as `retrace propagate` does it.
* **truth fed back**: the frames that a frame reads from have their true masks, so no error is carried on. What is
  missing from here to the grid is matching; what is missing from "carried" to here is drift.
* **grid**: the true mask itself, brought onto the nodes and back. More than that no matching can give.

Numbers are written to benchmarks/limits.json as each sequence is done, and the table to docs/results.md.
"""

import argparse
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from benchmarks import pages
from retrace.encoders import Model, load
from retrace.metrics.regions import jaccard, sequence_mean
from retrace.propagation.codecs import Geometry, MaskCodec
from retrace.propagation.engine import Propagator
from retrace.propagation.protocols import PROTOCOLS

ROWS = {"carried": "carried", "truth": "truth fed back", "grid": "grid"}
Pixels = NDArray[np.uint8]


def limits(model: Model, images: list[Pixels], truth: list[Pixels]) -> dict[str, float]:
    """Mean J of every row, 0 to 1; images (H, W, 3), masks (H, W) of 0 and 1."""
    height, width = truth[0].shape
    protocol = PROTOCOLS["default"].seen_at(height, width, model)
    engine = Propagator(model, protocol)
    read = engine.model
    geometry = Geometry(
        (height, width), (height, width), engine.grid(height, width), read.stride, read.origin, (0, 0)
    )
    codec = protocol.mask_codec([1], geometry)
    fed = copy.copy(engine)
    found: dict[str, list[float]] = {row: [] for row in ROWS}
    for t, (image, mask) in enumerate(zip(images, truth, strict=True)):
        nodes, labels = engine.encode(torch.from_numpy(image).permute(2, 0, 1)), codec.encode(mask)
        if t == 0:
            carried, true = engine.seed(nodes, labels), fed.seed(nodes, labels)
        else:
            carried, true = engine.step(nodes), fed.step(nodes)
            fed.relabel(labels)
        for row, soft in (("carried", carried.labels), ("truth", true.labels), ("grid", labels)):
            found[row].append(_agreement(codec, soft, mask))
    return {row: sequence_mean(np.array(values)) for row, values in found.items()}


def _agreement(codec: MaskCodec, labels: torch.Tensor, mask: Pixels) -> float:
    masks = codec.decode(labels, torch.ones(labels.shape[1:])).masks
    assert masks is not None
    return float(jaccard(masks > 0, mask > 0))


def main() -> None:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, required=True, help="folder with davis2016/")
    root = parser.parse_args().videos / "davis2016"
    model = load("default")
    results: dict[str, Any] = pages.load("limits")
    for folder in tqdm(sorted((root / "JPEGImages" / "480p").iterdir())):
        if folder.name not in results:
            images = [np.array(Image.open(file).convert("RGB")) for file in sorted(folder.glob("*.jpg"))]
            files = sorted((root / "Annotations" / "480p" / folder.name).glob("*.png"))
            truth = [(np.asarray(Image.open(file).convert("L")) > 127).astype(np.uint8) for file in files]
            results[folder.name] = limits(model, images, truth)
            pages.save("limits", results)
    pages.show("limits", "results.md", table(results))


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """The Markdown table of docs/results.md."""
    lines = ["| | " + " | ".join(results) + " | **mean J** |", "|---|" + "---|" * (len(results) + 1)]
    for row, label in ROWS.items():
        values = [scores[row] for scores in results.values()]
        cells = [f"{value:.3f}" for value in values] + [f"**{np.mean(values):.3f}**"]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
