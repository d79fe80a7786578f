"""SiamFC as a carrier of boxes: frames and given boxes in, boxes of every frame out (`carriers.BoxCarrier`)."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from retrace.encoders.heads import SiamFCHead
from retrace.encoders.model import Model
from retrace.tracking.siamfc import SiamFCConfig, Tracker

Rects = NDArray[np.floating]


class SiamFC:
    """Boxes are found again in every frame, each by the look that it had where it was given.

    Args:
        model: the encoder; the 1x1 convolutions of `retrace train siamfc-got10k` are used where it brings them.
        config: of the tracker.
        device: where the work is done.
        dtype: of the encoder's weights.

    Errors: ValueError when the model's stride is not the config's, or its head is made for another map.
    """

    def __init__(
        self,
        model: Model,
        config: SiamFCConfig,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """See the class."""
        self.name = model.name
        self._tracker = Tracker(model, config, head=SiamFCHead.of(model.head), device=device, dtype=dtype)

    def boxes(
        self, frames: Iterable[NDArray[np.uint8]], given: Mapping[int, Rects]
    ) -> Iterator[Callable[[], Rects]]:
        """Carry boxes.

        Args:
            frames: (H, W, 3) RGB.
            given: frame -> (N, 4) left, top, width, height in pixels; NaN for boxes that do not begin there.

        Yields: for every frame a function that gives (N, 4) float64, not cut at the frame; given boxes stand as they
            are, NaN where not yet there.
        """
        nowhere = np.full(next(iter(given.values())).shape, np.nan)
        started = False
        for index, image in enumerate(frames):
            tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)  # (3, H, W)
            found = self._tracker.step(tensor).boxes if started else nowhere
            if (new := given.get(index)) is not None:
                begin = self._tracker.correct if started else self._tracker.start
                begin(tensor, new)
                started = True
                found = np.where(np.isfinite(new), new, found)
            yield _constant(found)


def _constant(boxes: NDArray[np.float64]) -> Callable[[], NDArray[np.float64]]:
    return lambda: boxes
