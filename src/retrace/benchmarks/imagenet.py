"""ImageNet: a linear classifier on frozen features, trained on `train` and judged on `val`, class by class.

A class is what a sequence is elsewhere: it has a result of its own, and a run on some classes trains for those alone.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from retrace.benchmarks.linear import PROTOCOLS, Classifier, LinearProbeConfig, digest, train
from retrace.benchmarks.masks import reader
from retrace.benchmarks.networks import res5
from retrace.benchmarks.records import (
    CLASSIFIER,
    Benchmark,
    Job,
    Metric,
    SequenceResult,
    Submission,
    as_named,
)
from retrace.datasets import imagenet
from retrace.datasets.reading import images_of
from retrace.datasets.records import Sequence
from retrace.encoders import Model
from retrace.errors import RetraceError
from retrace.metrics.classification import ranks

METRICS = (Metric("top1", "top-1 accuracy"), Metric("top5", "top-5 accuracy"))
PATH = "{sequence}.txt"
"""Of the predictions: a line per picture, its name and the five likeliest classes."""


def encoder(model: str | Path | Model, options: Mapping[str, str]) -> Model:
    """The encoder as the option `features` wants it: its own map, or res5 of the network as it classifies."""
    return as_named(model, options) if options["features"] == "model" else res5(model, strides=(1, 2, 2, 2))


def prepare(job: Job, names: list[str]) -> list[str]:
    """Train the classifier of the classes `names` and leave it in the folder of the run.

    Returns: sentences about what was left out.

    Errors: RetraceError when a class has no pictures to train with, or training fails.
    """
    assert isinstance(job.carrier.protocol, LinearProbeConfig)
    found = imagenet.load(job.root, split="train")
    folders = {sequence.name: sequence.frames for sequence in found.sequences}
    missing = [name for name in names if name not in folders]
    if missing:
        raise RetraceError(
            f"{found.root / 'train'} has no pictures of {len(missing)} of the {len(names)} classes ({missing[0]}, "
            "...). Complete it, or name those that are there with --sequences."
        )
    pictures = []
    for number, name in enumerate(names):
        folder = folders[name]
        assert isinstance(folder, Path)
        pictures += [(file, number) for file in images_of(folder)]
    left_out = train(
        job.carrier.pooled(lambda model: encoder(model, job.options)),
        job.carrier.protocol,
        pictures,
        names,
        job.folder / CLASSIFIER,
        digest([dict(job.fingerprint), names, [str(file) for file, _ in pictures]]),
    )
    if not left_out:
        return []
    file, why = next(iter(left_out.items()))
    return [
        f"{len(left_out)} of {len(pictures)} pictures to train with were left out, the first is {file}: {why}"
    ]


def _imagenet(
    sequence: Sequence[int], carrier: Classifier, submission: Submission, options: Mapping[str, str]
) -> SequenceResult:
    assert isinstance(sequence.frames, Path)
    files = images_of(sequence.frames)
    logits = carrier.logits(files)
    place = ranks(logits, np.full(len(files), carrier.classes.index(sequence.name)))
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    lines = [
        " ".join([file.name, *(carrier.classes[k] for k in row)])
        for file, row in zip(files, best, strict=True)
    ]
    submission.text(PATH.format(sequence=sequence.name), "\n".join(lines) + "\n")
    raw = {"pictures": len(files), "top1": int((place < 1).sum()), "top5": int((place < 5).sum())}
    result = SequenceResult(sequence.name, len(files), len(files), {}, raw=raw)
    result.scores.update(_summarise([result], options))
    return result


def _summarise(results: list[SequenceResult], options: Mapping[str, str]) -> dict[str, float]:
    """Every picture counts once."""
    pictures = sum(result.raw["pictures"] for result in results)
    return {key: sum(result.raw[key] for result in results) / pictures for key in ("top1", "top5")}


IMAGENET = Benchmark(
    "imagenet",
    "ImageNet, linear probe",
    "class",
    "vfs",
    METRICS,
    reader("imagenet"),
    _imagenet,
    _summarise,
    PATH,
    options={"features": ("model", "res5")},
    encoder=encoder,
    settings=PROTOCOLS,
    prepare=prepare,
    items="classes",
    official=1000,
)
