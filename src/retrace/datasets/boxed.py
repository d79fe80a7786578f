"""Videos with one target's box on every frame, as training a tracker takes them: which frames are fit, and where."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrace.datasets.records import FRAME_FOLDER_FPS, Boxes, Dataset, Video


@dataclass(frozen=True)
class BoxVideo:
    """A video with its target.

    Attributes:
        video: the frame folder.
        boxes: (T, 4) float32 x, y, w, h, pixels of the edges; NaN on frames that are not fit for training.
    """

    video: Video
    boxes: NDArray[np.float32]


def usable_frames(
    ltwh: NDArray[np.floating], size: tuple[int, int], cover: NDArray[np.floating] | None = None
) -> NDArray[np.bool_]:
    """Frames whose box is fit for training a tracker (siamfc-pytorch's rule).

    At least 20 pixels of area; sides of 20 to 500 pixels and of .01 to .5 of the image; w / h of 1/4 to 4; and where
    `cover` is known, cover above both 1 and .3 of its maximum.

    Args:
        ltwh: (T, 4) boxes, pixels; only sizes matter.
        size: (H, W) of the frames.
        cover: (T,) of 0 .. 8.

    Returns: (T,).
    """
    width, height = ltwh[:, 2], ltwh[:, 3]
    sides = ltwh[:, 2:]
    share = sides / np.array([size[1], size[0]], dtype=ltwh.dtype)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = width / height
    keep = (width * height >= 20) & ((sides >= 20) & (sides <= 500)).all(axis=1)
    keep &= ((share >= 0.01) & (share <= 0.5)).all(axis=1) & (ratio >= 0.25) & (ratio <= 4)
    if cover is not None:
        keep &= cover > max(1.0, 0.3 * float(cover.max()))
    return np.asarray(keep)


def boxed_videos(dataset: Dataset[Boxes]) -> tuple[list[BoxVideo], list[tuple[Path, str]]]:
    """The sequences of GOT-10k, or of another data set whose sequences are frame folders with a box per frame.

    Returns: those with at least two frames that are fit for training; and (folder, reason) of all others.
    """
    videos: list[BoxVideo] = []
    left_out = [
        (dataset.root / dataset.split / (problem.sequence or ""), problem.sentence)
        for problem in dataset.problems
        if problem.excluded
    ]
    for sequence in dataset.sequences:
        assert isinstance(sequence.frames, Path), "a folder of frames"
        assert sequence.size is not None, "the size of its first frame"
        truths = [sequence.read(frame) for frame in range(sequence.num_frames)]
        boxes = np.concatenate([truth.xywh[:1] for truth in truths])
        covers = [truth.cover[0] for truth in truths if truth.cover is not None]
        cover = np.asarray(covers, dtype=np.float64) if len(covers) == len(truths) else None
        boxes[~usable_frames(boxes, sequence.size, cover)] = np.nan
        if np.isfinite(boxes[:, 0]).sum() < 2:
            left_out.append((sequence.frames, "fewer than two frames whose box is fit for training"))
            continue
        height, width = sequence.size
        video = Video(sequence.frames, sequence.num_frames, height, width, FRAME_FOLDER_FPS)
        videos.append(BoxVideo(video, boxes.astype(np.float32)))
    return videos, left_out
