"""A wall seen from two sides: `python -m benchmarks.viewpoint --videos DIR`.

DIR holds `oxford_graf/`: two photographs of a plane and the homography between them. Every pixel of the first that is
seen in the second is looked for there, without a window: the second frame is labelled with its coordinates, and the
first reads them (protocol `flow`, radius none). Measured is the share of pixels found within some distances of the
truth, and the median distance. The numbers are written to benchmarks/viewpoint.json, the table to docs/results.md.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import pages
from retrace.encoders import load
from retrace.propagation.baselines import BASELINES
from retrace.propagation.carriers import Carrier, Readout, Without
from retrace.propagation.protocols import PROTOCOLS

ROWS = {
    "copy": "stays where it is",
    "flow:farneback": "optical flow (Farneback)",
    "flow:dis": "optical flow (OpenCV DIS)",
    "lab-patches": "Lab patches",
    "random:default": "embedded encoder, random weights",
    "default": "embedded encoder",
}
DISTANCES = (8, 16, 32)
"""Pixels of a picture of 800 x 640; the nodes of the encoder are 8 apart."""


def displacement(homography: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """How far a homography moves every pixel (x, y): (height, width, 2)."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    moved = np.stack([x, y, np.ones_like(x)], axis=-1) @ homography.T
    return moved[..., :2] / moved[..., 2:] - np.stack([x, y], axis=-1)


def carrier(row: str) -> Carrier:
    """What reads the correspondences."""
    if row in BASELINES:
        return Without(row)
    protocol = PROTOCOLS["flow"]
    return Readout(load(row), replace(protocol, rules=replace(protocol.rules, radius=None)))


def measured(row: str, pictures: list[NDArray[np.uint8]], true: NDArray[np.float64]) -> dict[str, float]:
    """Shares within DISTANCES and the median distance, over pixels that are seen in both pictures."""
    height, width = true.shape[:2]
    *_, last = carrier(row).flows(pictures[::-1], (1,), (height, width))
    distance = np.linalg.norm(last()[1] - true, axis=-1)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    at = np.stack([x, y], axis=-1) + true
    seen = ((at >= 0) & (at <= [width - 1, height - 1])).all(-1)
    shares = {f"within {limit} px": float((distance[seen] <= limit).mean()) for limit in DISTANCES}
    return {**shares, "median px": float(np.median(distance[seen]))}


def main() -> None:
    """Measure every row and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, required=True, help="folder with oxford_graf/")
    folder = parser.parse_args().videos / "oxford_graf"
    pictures = [np.array(Image.open(folder / f"img{n}.png").convert("RGB")) for n in (1, 2)]
    numbers = ElementTree.parse(folder / "H1to2p.xml").findtext(".//data") or ""
    homography = np.array(numbers.split(), dtype=np.float64).reshape(3, 3)
    true = displacement(homography, *pictures[0].shape[:2])
    results = {row: measured(row, pictures, true) for row in ROWS}
    pages.save("viewpoint", results)
    pages.show("viewpoint", "results.md", table(results))


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """The Markdown table of docs/results.md."""
    names = [f"within {limit} px" for limit in DISTANCES]
    lines = ["| | " + " | ".join(names) + " | median |", "|---|" + "---|" * (len(names) + 1)]
    for row, label in ROWS.items():
        shares = " | ".join(f"{results[row][name]:.3f}" for name in names)
        lines.append(f"| {label} | {shares} | {results[row]['median px']:.1f} px |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
