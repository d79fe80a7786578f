"""Sequences whose truth is a mask per frame: what DAVIS-2016, DAVIS-2017 and YouTube-VOS share on disk.

Ids are read as they are stored: the index of a palette, the level of a grey image. 255 stays 255, for each benchmark
has its own opinion of it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrace.datasets.reading import gather, image_size, images_of
from retrace.datasets.records import Dataset, Sequence, frame_files
from retrace.errors import RetraceError
from retrace.files import open_image

Ids = NDArray[np.uint8]
VOID = 255


def read_ids(path: Path) -> Ids:
    """Ids (H, W) uint8 of a mask file, as stored.

    Errors: RetraceError when it is missing, damaged, or holds colours or ids above 255.
    """
    return read_levels(path, 255).astype(np.uint8)


def read_levels(path: Path, highest: int = 65535) -> NDArray[np.uint16]:
    """Ids (H, W) uint16 of a mask file, as stored.

    Errors: RetraceError when it is missing, damaged, or holds colours or ids above `highest`.
    """
    image = open_image(path, "mask")
    levels = np.asarray(image.convert("L") if image.mode == "1" else image)
    if levels.ndim == 3 and (levels[..., :3] == levels[..., :1]).all():
        levels = levels[..., 0]
    if levels.ndim != 2 or levels.dtype.kind not in "ui" or levels.min() < 0 or levels.max() > highest:
        raise RetraceError(
            f"{path} has pixels of type {image.mode}; expected a palette or grey image whose levels are ids, "
            f"{highest} at most."
        )
    return levels.astype(np.uint16)


def largest_id(ids: Ids) -> int:
    """Number of objects as DAVIS counts them: the largest id, void (255) read as background."""
    return int(np.where(ids == VOID, 0, ids).max(initial=0))


def mask_sequence(
    name: str,
    images: Path,
    masks: Path,
    note: Callable[[str], None],
    *,
    objects: Callable[[dict[int, Path]], Mapping[int, int]],
    change: Callable[[Ids], Ids] | None = None,
) -> Sequence[Ids]:
    """A folder of frames and the folder of its masks, matched by name.

    Args:
        name: of the sequence.
        images: folder of frames.
        masks: folder of masks.
        note: takes what is odd.
        objects: from annotated frame -> mask file, which objects there are and where their labels are handed out.
        change: what is done to the ids of every mask.

    Errors: RetraceError when there are no frames or no masks, no mask has a frame, or the first frame has no mask and
        `objects` needs it.
    """
    frames = images_of(images)
    places = {file.stem: index for index, file in enumerate(frames)}
    if not masks.is_dir():
        raise RetraceError(f"There is no folder {masks}, though the frames are there.")
    files: dict[int, Path] = {}
    lost: list[str] = []
    for file in frame_files(masks):
        if file.stem in places:
            files[places[file.stem]] = file
        else:
            lost.append(file.name)
    if lost:
        note(
            f"{len(lost)} masks in {masks} have no frame in {images}, the first is {lost[0]}; they are passed over."
        )
    if not files:
        raise RetraceError(f"No mask in {masks} has the name of a frame, such as {frames[0].stem}.png.")
    files = dict(sorted(files.items()))
    size = image_size(next(iter(files.values())))

    def read(frame: int) -> Ids:
        ids = read_ids(files[frame])
        if ids.shape != size:
            raise RetraceError(
                f"{files[frame]} is {ids.shape[1]}x{ids.shape[0]} pixels, the first mask of the sequence "
                f"{size[1]}x{size[0]}. Download the sequence again."
            )
        return ids if change is None else change(ids)

    return Sequence(name, frames, len(frames), size, tuple(files), read, objects(files))


def load_davis(
    name: str,
    root: Path,
    split: str,
    resolution: str,
    listed: tuple[list[str], list[str]],
    *,
    objects: Callable[[Path], Mapping[int, int]],
    change: Callable[[Ids], Ids] | None = None,
) -> Dataset[Ids]:
    """The sequences of a DAVIS, whose every frame has a mask and whose first mask says what is followed.

    Args:
        name: of the benchmark.
        root: the folder that holds JPEGImages and Annotations.
        split: which part.
        resolution: folder below both.
        listed: names of the sequences, and sentences about their list.
        objects: from the first mask file, which objects there are and where their labels are handed out.
        change: what is done to the ids of every mask.

    Errors: RetraceError when nothing can be used.
    """
    images, masks = root / "JPEGImages" / resolution, root / "Annotations" / resolution

    def of_files(files: dict[int, Path]) -> Mapping[int, int]:
        if 0 not in files:
            raise RetraceError(f"The first frame has no mask in {next(iter(files.values())).parent}.")
        return objects(files[0])

    def make(name: str, note: Callable[[str], None]) -> Sequence[Ids]:
        sequence = mask_sequence(name, images / name, masks / name, note, objects=of_files, change=change)
        missing = sorted(set(range(sequence.num_frames)) - set(sequence.annotated))
        if missing:
            note(
                f"{len(missing)} of {sequence.num_frames} frames have no mask, the first is frame {missing[0]}; "
                "they cannot be scored."
            )
        return sequence

    return gather(name, root, split, listed[0], make, listed[1])


def odd_mask(sequence: Sequence[Ids], frame: int, ids: Ids) -> list[str]:
    """What is odd about a mask: objects that are not followed, another size than its frame."""
    there = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)).tolist()
    unknown = sorted(set(there) - set(sequence.objects) - {0, VOID})
    found = []
    if unknown:
        found.append(f"the mask holds ids {unknown} that no label is handed out for; they are not scored.")
    assert isinstance(sequence.frames, tuple)
    if (size := image_size(sequence.frames[frame])) != ids.shape:
        found.append(
            f"the mask is {ids.shape[1]}x{ids.shape[0]}, the frame {size[1]}x{size[0]} pixels; results are brought to "
            "the size of the mask."
        )
    return found
