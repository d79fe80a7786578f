"""What an evaluation hands from hand to hand: settings, the result of a sequence, the files of a submission."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrace.benchmarks.carrying import CarrierSpec
from retrace.benchmarks.sizes import SizeTable
from retrace.datasets.records import Dataset, Sequence
from retrace.encoders import Model, load
from retrace.files import atomic_path
from retrace.formats.davis_png import write_mask
from retrace.propagation.protocols import Protocol

CLASSIFIER = "classifier.safetensors"
"""In the folder of a run that learns classes."""


@dataclass(frozen=True)
class Metric:
    """A number of a report."""

    key: str
    """Its name in files."""
    label: str
    """Its name for people."""
    unit: Literal["share", "pixels", "percent", "degrees", "levels"] = "share"
    """A "share" is 0 to 1 and shown times 100; "levels" are of colours, 0 to 255."""
    higher_is_better: bool = True


@dataclass(frozen=True)
class SequenceResult:
    """Everything that a sequence contributes; plain data, so that it can be kept in a file and read again."""

    name: str
    num_frames: int
    scored_frames: int
    scores: dict[str, float]
    """Metric key -> the sequence's own value; NaN where nothing was scored."""
    objects: list[dict[str, Any]] = field(default_factory=list)
    """One entry per object, joint or class, with its id and numbers."""
    frames: dict[str, list[float]] = field(default_factory=dict)
    """"frame" -> scored frame numbers, and metric key -> value in each of them."""
    raw: dict[str, Any] = field(default_factory=dict)
    """What the mean over the data set is made from, where that is more than `scores`: lists of numbers."""
    seconds: float = 0.0
    """Wall-clock time of the sequence."""
    peak_megabytes: float = 0.0
    """Largest memory of the process so far."""


class Submission:
    """The files that a benchmark's own evaluator takes, and their hashes.

    Args:
        folder: where they go.
    """

    def __init__(self, folder: Path) -> None:
        """See the class."""
        self.folder = folder
        self.files: dict[str, str] = {}

    def mask(self, name: str, ids: NDArray[np.integer]) -> None:
        """Write ids (H, W) as a palette PNG; `name` is relative, with its suffix."""
        write_mask(self.folder / name, ids)
        self._note(name)

    def text(self, name: str, text: str) -> None:
        """Write a text file; `name` is relative."""
        with atomic_path(self.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        self._note(name)

    def file(self, name: str, write: Callable[[Path], None]) -> None:
        """Have a file written by a function that takes its path; `name` is relative."""
        write(self.folder / name)
        self._note(name)

    def discard(self) -> None:
        """Remove the files again, and the folders that are empty then: of a sequence that turned out bad."""
        for name in self.files:
            (self.folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # other sequences have files there
                for parent in (self.folder / name).parents:
                    parent.rmdir()
                    if parent == self.folder:
                        break
        self.files.clear()

    def _note(self, name: str) -> None:
        self.files[name] = sha256(self.folder / name)


@dataclass(frozen=True)
class Job:
    """Everything that a process needs."""

    find: "Callable[[str], Benchmark]"
    """Benchmark by name; a function of a module, so that it can be handed to a process."""
    benchmark: str
    root: Path
    split: str | None
    options: Mapping[str, str]
    carrier: CarrierSpec
    folder: Path
    fingerprint: Mapping[str, str]


def as_named(model: str | Path | Model, options: Mapping[str, str]) -> Model:
    """The encoder that a model's name means, whatever the options."""
    return model if isinstance(model, Model) else load(model)


@dataclass(frozen=True)
class Benchmark:
    """A data set, what is carried on it, and how it is scored."""

    name: str
    title: str
    """For people."""
    label: Literal["mask", "parts", "keypoints", "points", "boxes", "flow", "frame", "texture", "class"]
    """What is carried; a class is told instead."""
    protocol: str
    """Name of the settings that are used when none are given: a propagation protocol, or one of `settings`."""
    metrics: tuple[Metric, ...]
    """In the order of the headline table; the first is the one that sequences are sorted by."""
    load: Callable[[Path, str | None], Dataset[Any]]
    """Root and split (None: the default) -> its sequences."""
    score: Callable[[Sequence[Any], Any, Submission, Mapping[str, str]], SequenceResult]
    """Carry and score one sequence with a `Carrier`, for boxes a `BoxCarrier`, for classes a `Classifier`; the
    mapping holds the benchmark's options."""
    summarise: Callable[[list[SequenceResult], Mapping[str, str]], dict[str, float]]
    """Metric key -> value over the data set."""
    prediction: str
    """Where a sequence's predictions are in the submission, with {sequence}: for masks, textures and frames an image
    per frame, with {frame}; for points a JSON, for boxes and classes a text file, for flow a .flo or KITTI's PNG per
    sequence."""
    tables: Callable[[list[SequenceResult], Mapping[str, float]], dict[str, str]] | None = None
    """File name -> text of the tables that the official tool writes."""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Option -> allowed values, the default first; such as PCK's dialect."""
    needs_root: bool = True
    """False where the data is generated."""
    data: str = ""
    """Key of `datasets.READERS` that its folder is found by, where that is not its own name."""
    encoder: Callable[[str | Path | Model, Mapping[str, str]], Model] = as_named
    """What `--model` says and the options -> the encoder, built as this benchmark needs it."""
    sizes: SizeTable | None = None
    """What `raw["confusion_by_size"]` of the results counts; None: nothing."""
    prepare: Callable[[Job, list[str]], list[str]] | None = None
    """What is done once, before the sequences with these names; it gives notes for the report, and what is done already
    it does not do again."""
    items: str = "sequences"
    """What the sequences are called."""
    official: int | None = None
    """How many of them published numbers are of, where a folder of the same layout may hold others."""
    settings: Mapping[str, Any] | None = None
    """Name -> settings, where labels are not propagated; single ones may be given as options."""
    settle: Callable[[Protocol], Protocol] = lambda protocol: protocol
    """What becomes of the chosen protocol where the benchmark leaves a part of it no choice."""


class Store:
    """Finished sequences of a run, one file each, so that a killed run goes on where it was.

    Args:
        folder: of the run.
        fingerprint: whatever decides the results; a file of another fingerprint is not used.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, str]) -> None:
        """See the class."""
        self.folder = folder
        self._fingerprint = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()

    def submission(self) -> Submission:
        """Files of the next sequence."""
        return Submission(self.folder / "submission")

    def save(self, result: SequenceResult, submission: Submission) -> None:
        """Keep a finished sequence; call when its submission files are written."""
        body = json.dumps({"result": asdict(result), "files": submission.files}, sort_keys=True)
        content = {"fingerprint": self._fingerprint, "sha256": _digest(body), "body": body}
        with atomic_path(self._path(result.name)) as temporary:
            temporary.write_text(json.dumps(content))

    def read(self, name: str) -> SequenceResult | None:
        """A sequence that is finished and undamaged, its files too; None: it has to be done (again)."""
        try:
            content = json.loads(self._path(name).read_text())
            if content["fingerprint"] != self._fingerprint or content["sha256"] != _digest(content["body"]):
                return None
            body = json.loads(content["body"])
            folder = self.folder / "submission"
            if any(sha256(folder / file) != digest for file, digest in body["files"].items()):
                return None
            return SequenceResult(**body["result"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # missing, cut off or scribbled over: all mean that the sequence is done again

    def _path(self, name: str) -> Path:
        return self.folder / "sequences" / f"{name.replace('/', '__')}.json"


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
