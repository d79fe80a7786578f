"""What the readers of benchmarks share: finding their folders, collecting sequences, looking at every file."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrace.datasets.records import Dataset, Problem, Sequence, Truth, frame_files, natural_key
from retrace.errors import RetraceError, UsageError
from retrace.files import open_image

T = TypeVar("T")

Progress = Callable[[Iterable[Sequence[T]]], Iterable[Sequence[T]]]
"""Wraps the sequences while they are looked at, such as tqdm."""


class Make(Protocol[Truth]):
    """Builds one sequence."""

    def __call__(self, name: str, note: Callable[[str], None], /) -> Sequence[Truth]:
        """The sequence of that name; `note` takes sentences about what is odd. RetraceError: it cannot be used."""


def find_root(root: Path, holds: Iterable[str], nested: Iterable[str], layout: str) -> Path:
    """The folder that a layout begins at: `root`, or one of the folders that the archives unpack to inside it.

    Args:
        root: as a person gave it.
        holds: relative folders or files that the layout begins with, all needed.
        nested: names that `root` may have been unpacked under.
        layout: what is expected, for the sentence.

    Errors: RetraceError that says what the folder holds instead.
    """
    if not root.is_dir():
        raise RetraceError(f"There is no folder {root}. Expected {layout}.")
    needed = list(holds)
    for folder in (root, *(root / name for name in nested)):
        if all((folder / name).exists() for name in needed):
            return folder
    missing = [name for name in needed if not (root / name).exists()]
    inside = sorted((path.name for path in root.iterdir()), key=natural_key)
    shown = ", ".join(inside[:6]) + (f" and {len(inside) - 6} more" if len(inside) > 6 else "")
    above = next((p for p in root.resolve().parents[:3] if all((p / name).exists() for name in needed)), None)
    hint = f" Did you mean {above}?" if above is not None else ""
    raise RetraceError(
        f"{root} has no {' and no '.join(missing)}; it holds {shown or 'nothing'}. Expected {layout}.{hint}"
    )


def choose(what: str, value: str, allowed: Iterable[str]) -> str:
    """`value` when it is allowed.

    Errors: UsageError that lists what is.
    """
    choices = list(allowed)
    if value not in choices:
        raise UsageError(f"There is no {what} {value!r}. Choose one of {', '.join(choices)}.")
    return value


def read_lines(path: Path) -> list[str]:
    """Lines of a text file without blanks at their ends, empty ones left out.

    Errors: RetraceError when it cannot be read as text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RetraceError(f"{path} cannot be read as text ({error}). Download it again.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_table(path: Path, columns: int | None = None) -> NDArray[np.float64]:
    """Numbers of a text file, one row per line; commas, semicolons, tabs and spaces all separate.

    Args:
        path: file.
        columns: how many every row must have; None: as many as the first.

    Returns: (rows, columns).

    Errors: RetraceError naming the line that is no such row, or saying that there is none.
    """
    rows: list[list[float]] = []
    for number, line in enumerate(read_lines(path), start=1):
        words = line.replace(",", " ").replace(";", " ").split()
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            raise RetraceError(
                f"{path}, row {number} is {line[:60]!r}; expected {columns or 'only'} numbers."
            ) from None
        if len(rows[-1]) != (columns or len(rows[0])):
            raise RetraceError(
                f"{path}, row {number} has {len(rows[-1])} numbers; expected {columns or len(rows[0])}."
            )
    if not rows:
        raise RetraceError(f"{path} is empty. Download it again.")
    return np.array(rows, dtype=np.float64)


def subfolders(folder: Path) -> list[str]:
    """Names of the visible folders in a folder, in natural order."""
    names = [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(names, key=natural_key)


def images_of(folder: Path) -> tuple[Path, ...]:
    """The images of a sequence's folder, in natural order.

    Errors: RetraceError when there is no such folder or no image in it.
    """
    if not folder.is_dir():
        raise RetraceError(f"There is no folder {folder}.")
    files = frame_files(folder)
    if not files:
        raise RetraceError(f"{folder} holds no image.")
    return tuple(files)


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file, from its header.

    Errors: RetraceError when it is missing or no image.
    """
    image = open_image(path, "frame", whole=False)
    size = (image.height, image.width)
    image.close()
    return size


def gather(
    name: str, root: Path, split: str, listed: Iterable[str], make: Make[T], notes: Iterable[str] = ()
) -> Dataset[T]:
    """Build every listed sequence; one that cannot be used is left out and says why.

    Args:
        name: of the benchmark.
        root: where its layout begins.
        split: which part.
        listed: names of the sequences of that part.
        make: builds one.
        notes: what is odd about the whole.

    Errors: RetraceError when not one sequence can be used.
    """
    problems = [Problem(sentence) for sentence in notes]
    sequences: list[Sequence[T]] = []
    names = list(listed)
    for item in names:
        odd: list[str] = []
        try:
            sequences.append(make(item, odd.append))
        except RetraceError as error:
            problems.append(Problem(str(error), item, excluded=True))
        problems += [Problem(sentence, item) for sentence in odd]
    if not sequences:
        reasons = [problem.sentence for problem in problems if problem.excluded]
        detail = f"{reasons[0]} ({len(reasons)} sequences in all)" if reasons else "Nothing is listed."
        raise RetraceError(f"Not one sequence of {name} ({split}) under {root} can be used: {detail}")
    return Dataset(name, root, split, tuple(sequences), len(names), tuple(problems))


def inspect(
    dataset: Dataset[T],
    odd: Callable[[Sequence[T], int, T], Iterable[str]],
    *,
    thorough: bool = False,
    one_size: bool = True,
    progress: Progress[T] | None = None,
) -> Dataset[T]:
    """Open every file of a data set.

    Args:
        dataset: as loaded.
        odd: says what is odd about the truth of one frame; kinds of oddity in sentences that do not name the frame.
        thorough: decode the frames; otherwise only their headers are read.
        one_size: the frames of a sequence have one size.
        progress: wraps the sequences.

    Returns: the data set with all problems, without the sequences that have an unreadable file.
    """
    problems = list(dataset.problems)
    sound: list[Sequence[T]] = []
    for sequence in dataset.sequences if progress is None else progress(dataset.sequences):
        files = _image_files(sequence)
        unreadable = _unreadable(files, thorough=thorough)
        broken = list(unreadable.values())
        if one_size and not broken:
            broken = _several_sizes(files)
        found: Counter[str] = Counter()
        first: dict[str, int] = {}
        for frame in sequence.annotated:
            if frame in unreadable:
                continue  # said already
            try:
                truth = sequence.read(frame)
            except RetraceError as error:
                broken.append(str(error))
                continue
            for sentence in odd(sequence, frame, truth):
                found[sentence] += 1
                first.setdefault(sentence, frame)
        problems += [Problem(sentence, sequence.name, excluded=True) for sentence in broken[:3]]
        if len(broken) > 3:
            problems.append(
                Problem(f"{len(broken) - 3} more files are broken.", sequence.name, excluded=True)
            )
        for sentence, count in found.items():
            where = f"Frame {first[sentence]}" + (f" and {count - 1} more" if count > 1 else "")
            problems.append(Problem(f"{where}: {sentence}", sequence.name))
        if not broken:
            sound.append(sequence)
    return replace(dataset, sequences=tuple(sound), problems=tuple(problems))


def _image_files(sequence: Sequence[T]) -> tuple[Path, ...]:
    """Those of the frames that are image files."""
    if isinstance(sequence.frames, tuple):
        return sequence.frames
    if isinstance(sequence.frames, Path) and sequence.frames.is_dir():
        return images_of(sequence.frames)
    return ()


def _unreadable(files: tuple[Path, ...], *, thorough: bool) -> dict[int, str]:
    """Frame -> why its image cannot be read."""
    unreadable: dict[int, str] = {}
    for frame, file in enumerate(files):
        try:
            if thorough:
                open_image(file, "frame")
            else:
                image_size(file)
        except RetraceError as error:
            unreadable[frame] = str(error)
    return unreadable


def _several_sizes(files: tuple[Path, ...]) -> list[str]:
    """A sentence when the images, which are readable, are not of one size."""
    sizes = Counter(map(image_size, files))
    if len(sizes) < 2:
        return []
    shown = ", ".join(f"{count} of {w}x{h}" for (h, w), count in sizes.most_common())
    return [f"The frames in {files[0].parent} have several sizes: {shown}."]
