"""Which knobs of a protocol matter? `python -m benchmarks.knobs --videos DIR`.

Every knob of the protocol `default` is varied by itself, with the encoder that ships, from where it stood before this
study (its output was argmax, as in benchmarks.learning); measured is mean J on the material of that: generated scenes,
and the DAVIS-2016 sequences under DIR at a short side of 240 pixels. Every number is written to benchmarks/knobs.json
as soon as it is there, and what is there is not measured again; the table of docs/protocols.md and
docs/images/knobs.png are made from that file.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks import pages
from benchmarks.learning import measured

DATA = {"synthetic": "generated scenes", "davis2016": "DAVIS clips, 240p"}
KNOBS: dict[str, list[Any]] = {
    "num_context": [0, 1, 5, 10, 40],
    "radius": [4, 8, 18, 0],
    "top_k": [1, 5, 20, 50],
    "temperature": [0.05, 0.1, 0.4, 0.8],
    "subcell": [False],
    "detail": ["closer"],
    "whiten": [0.0, 1.0],
    "window_first": [True],
    "add_first": [False],
    "label_seed": ["bilinear", "nearest"],
    "feed_back": ["minmax"],
    "output": ["minmax"],
    "shape": ["square"],
    "size": [120, 180, 360],
}
"""Values beside that of the protocol; 0 is no window. The size is the short side that the encoder sees: that of the
scenes is 192 pixels, and the clips are otherwise brought to 240."""


def main() -> None:
    """Measure what is missing, write table and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, required=True, help="folder with davis2016/")
    videos = parser.parse_args().videos
    results: dict[str, dict[str, float]] = pages.load("knobs")
    settings: list[dict[str, Any]] = [{}, *({name: value} for name in KNOBS for value in KNOBS[name])]
    for knobs in settings:
        if _key(knobs) not in results:
            results[_key(knobs)] = measured("default", videos, **knobs)
            pages.save("knobs", results)
    pages.show("knobs", "protocols.md", table(results))
    picture(results, pages.DOCS / "images" / "knobs.png")


def _key(knobs: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in knobs.items()) or "default"


def _shown(name: str, value: Any) -> str:
    if value is True or value is False:
        return "yes" if value else "no"
    return "none" if name == "radius" and value == 0 else str(value)


def table(results: dict[str, dict[str, float]]) -> str:
    """The Markdown table: mean J, and the change against the protocol as it is."""
    base = results["default"]
    lines = [f"| knob | value | {' | '.join(DATA.values())} |", "|---|---|" + "---|" * len(DATA)]
    lines.append("| default as it was | | " + " | ".join(f"{base[name]:.3f}" for name in DATA) + " |")
    for knob, values in KNOBS.items():
        for value in values:
            found = results.get(_key({knob: value}), {})
            cells = [f"{found[d]:.3f} ({found[d] - base[d]:+.3f})" if d in found else "-" for d in DATA]
            lines.append(f"| {knob} | {_shown(knob, value)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(results: dict[str, dict[str, float]], path: Path) -> None:
    """Change of mean J by every setting, one row each."""
    base = results["default"]
    rows = [(knob, value) for knob, values in KNOBS.items() for value in values]
    figure, axes = plt.subplots(figsize=(7.5, 0.23 * len(rows) + 1), layout="constrained")
    for data, colour, marker in zip(DATA, ("tab:blue", "tab:orange"), ("o", "s"), strict=True):
        points = [(results.get(_key({k: v}), {}).get(data), i) for i, (k, v) in enumerate(rows)]
        there = [(value - base[data], i) for value, i in points if value is not None]
        axes.scatter(
            [change for change, _ in there],
            [i for _, i in there],
            s=28,
            color=colour,
            marker=marker,
            label=f"{DATA[data]} (as it was: {base[data]:.3f})",
            zorder=3,
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{knob} = {_shown(knob, value)}" for knob, value in rows], fontsize=8)
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.set_xlabel("change of mean J against the protocol `default` as it was")
    axes.legend(loc="lower left", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
