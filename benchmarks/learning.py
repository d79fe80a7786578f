"""Does every method learn? `python -m benchmarks.learning --videos DIR --runs DIR [RECIPE ...]`.

Every laptop recipe is trained from three seeds (a run that is finished in `--runs` is not trained again). What it
exports carries masks through generated scenes that no recipe draws (the first eight of `retrace evaluate synthetic`)
and through the DAVIS-2016 sequences under DIR at a short side of 240 pixels, under the protocol `default`. Beside it
stand the same network with random weights, from the same seeds, and copying, Lab patches and DIS flow.

Every number is written to benchmarks/learning.json as soon as it is there, and what is there is not measured again.
The table of docs/results.md is made from that file.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

import retrace
from benchmarks import pages
from retrace.encoders import EncoderConfig, Model, load
from retrace.encoders.weights import described
from retrace.verbs.propagate import Knobs

METHODS = {
    "crw-laptop": "CRW",
    "timecycle-laptop": "TimeCycle",
    "stfc3-laptop": "STFC3",
    "vfs-laptop": "VFS",
    "moco-laptop": "MoCo (first stage of StT)",
    "stt-laptop": "Spatial-then-Temporal",
    "reconstruction-laptop": "reconstruction alone",
}
READ = {"moco-laptop": "layer3"}
"""Recipes that export more than is read: MoCo trains res5, propagation reads res4 (VFS, section 4.2; StT)."""
BASELINES = {"copy": "copy the first label", "lab-patches": "Lab patches", "flow:dis": "DIS flow, chained"}
SEEDS = (0, 1, 2)
SCENES = tuple(f"scene-{number:02d}" for number in range(8))
SHORT_SIDE = 240
OUTPUT: Knobs = {"output": "argmax", "detail": "plain"}
"""Of all rows: those of the protocol when the first of them was measured."""
Scores = dict[str, float]


def trained(recipe: str, seed: int, runs: Path) -> Model:
    """The encoder that a recipe exports from a seed; trains it where `runs` has no finished run."""
    out = runs / f"{recipe}-{seed}"
    if not (out / "encoder.safetensors").exists():
        command = ["train", recipe, "--seed", str(seed), "--log.probe", "0", "--quiet", "--out", str(out)]
        subprocess.run([sys.executable, "-m", "retrace", *command], check=True)
    cut = f",cut={READ[recipe]}" if recipe in READ else ""
    return load(f"{out / 'encoder.safetensors'}{cut}")


def untrained(model: Model, config: EncoderConfig, seed: int) -> Model:
    """The same network, which `config` describes, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = config.build().eval()
    return replace(model, encoder=encoder.requires_grad_(False), name=f"random, seed {seed}", sha256="")


def measured(model: str | Model, videos: Path, **knobs: Unpack[Knobs]) -> Scores:
    """Mean J on the generated scenes and on the clips, 0 to 1; knobs are of the protocol."""
    if model in ("copy", "flow:dis"):  # no encoder, no protocol
        clips = knobs
    else:
        knobs = {**OUTPUT, **knobs}
        clips = {"size": SHORT_SIDE, **knobs}
    found = {
        "synthetic": retrace.evaluate("synthetic", model=model, sequences=SCENES, workers=1, **knobs),
        "davis2016": retrace.evaluate(
            "davis2016", root=videos / "davis2016", model=model, workers=1, **clips
        ),
    }
    return {name: evaluation.scores["J"] for name, evaluation in found.items()}


def main() -> None:
    """Train and measure what is asked for or missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", help=f"default: {', '.join(METHODS)}")
    parser.add_argument("--videos", type=Path, required=True, help="folder with davis2016/")
    parser.add_argument("--runs", type=Path, required=True, help="where training runs are, or are put")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="default: 0 1 2")
    arguments = parser.parse_args()
    results: dict[str, Any] = pages.load("learning")
    for name in BASELINES:
        if name not in results:
            results[name] = {"0": measured(name, arguments.videos)}
            pages.save("learning", results)
    for seed in arguments.seeds:
        for recipe in arguments.recipes or METHODS:
            row = results.setdefault(recipe, {})
            if str(seed) in row:
                continue
            model = trained(recipe, seed, arguments.runs)
            config = described(model.card, recipe, cut=READ.get(recipe))
            network = f"{json.dumps(asdict(config))}, seed {seed}"  # several recipes train the same one
            if network not in results.setdefault("untrained", {}):
                results["untrained"][network] = measured(untrained(model, config, seed), arguments.videos)
                pages.save("learning", results)
            row[str(seed)] = {
                "random": results["untrained"][network],
                "trained": measured(model, arguments.videos),
            }
            row["commit"] = str(model.card.get("commit", ""))[:7]
            row["steps"] = model.card.get("steps")
            pages.save("learning", results)
    pages.show("learning", "results.md", table(results))


def table(results: Mapping[str, Any]) -> str:
    """The Markdown table of docs/results.md: mean and standard deviation over seeds; what is missing says so."""
    lines = [
        "| recipe | | seeds | scenes, random | scenes, trained | clips, random | clips, trained |",
        "|---|" + "---|" * 6,
    ]
    for name, label in BASELINES.items():
        scores = results[name]["0"]
        lines.append(f"| | {label} | - | - | {scores['synthetic']:.3f} | - | {scores['davis2016']:.3f} |")
    for recipe, label in METHODS.items():
        seeds = [value for key, value in results.get(recipe, {}).items() if key.isdigit()]
        cells = [
            _spread([seed[weights][data] for seed in seeds])
            for data in ("synthetic", "davis2016")
            for weights in ("random", "trained")
        ]
        lines.append(f"| `{recipe}` | {label} | {len(seeds)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return "not measured yet"
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


if __name__ == "__main__":
    main()
