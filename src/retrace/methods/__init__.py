"""The training methods: one paper, one file, and the dict that names them all.

To add a method: write `methods/<x>.py` to the contract below, add its line to `METHODS`, add its section to
`training.config.TrainConfig` (`x: XConfig = XConfig()`), add its recipes. Nothing else in the package names a method.

A method file holds three things.

`<X>Config`: a frozen dataclass, fields as the paper names them. `clip_length`, a field or a property, is the number T
of frames the method wants; a bad value is a ValueError that says what was given and what may be. It may have two
methods:

* `sampling() -> video.sampling.Sampling | None`: which frames of a video make a clip, where that is the paper's
  business. It chooses among the frames that the recipe's `clips.fps` or `clips.stride` leaves. Without it, or with
  None, clips are T consecutive ones of these.
* `check_batch(batch_size: int) -> None`: ValueError for a number of clips per forward pass that the method cannot train
  with (a queue that is not a multiple of it, one clip under batch normalisation).

`<X>Views(config)`, or views that several methods share (`rebuilding.OneCrop`): picklable, because loader processes call
it. `__call__(clip, generator) -> dict[str, Tensor]` turns a clip (uint8 (T, 3, H, W), RGB) into what the method sees;
everything random is drawn from the generator.
Views with `wants_boxes = True` are called with (clip, boxes, generator): boxes float32 (T, 4), x, y, w, h in pixels, of
one thing in the clip; such a method trains on footage with boxes (`datasets.boxed`) and on generated scenes.

`<X>(encoder, config)`: an nn.Module with the `encoder` that is kept, where it has one the `head` that stands on it, and
`forward(views, generator=None) -> Losses` for a batch of views. Whatever else it knows (a momentum encoder, a queue, a
teacher) is its submodule or buffer, so that checkpoints hold it; what must not be trained does not require a gradient.
What happens once per optimiser step and not once per forward pass (`accumulate` says how many a step has) stands in
`begin_step()`, called before the first forward pass of a step in training, and `end_step()`, called after the last one.
Its draws come from `generator`, or from torch's global one, which training seeds before every forward pass. A file that
it reads weights from is named by a field of its configuration and read in the constructor; ValueError for an encoder it
cannot use. Where the encoder sees anything but ImageNet-standardised RGB, the class says so: `colour = "lab"`, a key of
`encoders.colour.COLOURS`; the exported model then gets its input in that way. Weights given by `init` are in the
encoder before it arrives here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from retrace.encoders.resnet import ResNet
from retrace.methods.crw import CRW, CRWConfig, CRWViews
from retrace.methods.moco import MoCo, MoCoConfig, MoCoViews
from retrace.methods.rebuilding import OneCrop
from retrace.methods.retrace import Retrace, RetraceConfig
from retrace.methods.siamfc import SiamFC, SiamFCConfig, SiamFCViews
from retrace.methods.stfc3 import STFC3, STFC3Config, STFC3Views
from retrace.methods.stt import StT, StTConfig
from retrace.methods.timecycle import TimeCycle, TimeCycleConfig, TimeCycleViews
from retrace.methods.vfs import VFS, VFSConfig, VFSViews
from retrace.video.sampling import Sampling


class MethodConfig(Protocol):
    """What every method's configuration has."""

    @property
    def clip_length(self) -> int:
        """T, frames per clip."""


@dataclass(frozen=True)
class Method:
    """The three parts of a method.

    Attributes:
        config: class of its configuration.
        views: configuration -> from a clip (boxes) and a generator to views.
        module: encoder, configuration -> the module that returns Losses.
    """

    config: type[Any]
    views: Callable[[Any], Callable[..., dict[str, Tensor]]]
    module: Callable[[ResNet, Any], nn.Module]


METHODS: dict[str, Method] = {
    "crw": Method(CRWConfig, CRWViews, CRW),
    "moco": Method(MoCoConfig, MoCoViews, MoCo),
    "retrace": Method(RetraceConfig, OneCrop, Retrace),
    "siamfc": Method(SiamFCConfig, SiamFCViews, SiamFC),
    "stfc3": Method(STFC3Config, STFC3Views, STFC3),
    "stt": Method(StTConfig, OneCrop, StT),
    "timecycle": Method(TimeCycleConfig, TimeCycleViews, TimeCycle),
    "vfs": Method(VFSConfig, VFSViews, VFS),
}


def sampling_of(config: MethodConfig) -> Sampling | None:
    """The method's own choice of frames; None where it takes T consecutive ones."""
    chosen: Sampling | None = config.sampling() if hasattr(config, "sampling") else None
    return chosen


def check_batch(config: MethodConfig, batch_size: int) -> None:
    """Errors: ValueError for a number of clips per forward pass that the method cannot train with."""
    if hasattr(config, "check_batch"):
        config.check_batch(batch_size)
