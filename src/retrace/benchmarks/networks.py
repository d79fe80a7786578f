"""The same weights in another network: res5 (layer4) of a ResNet, with the strides and dilations that a task needs."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

from retrace.encoders import Model, load
from retrace.encoders.weights import described
from retrace.errors import RetraceError, UsageError

Four = tuple[int, int, int, int]


def res5(
    model: str | Path | Model,
    *,
    strides: Sequence[int],
    dilations: Sequence[int] = (1, 1, 1, 1),
    dilated: str = "all",
) -> Model:
    """A ResNet up to res5, whatever the map that propagation takes of it.

    Args:
        model: name or file, as `retrace.load` takes it.
        strides: of layer1 ... layer4.
        dilations: of layer1 ... layer4.
        dilated: "all" or "released", see `encoders.resnet.ResNet`.

    Returns: Model with the map of layer4, no reduction on it, a stem with its pool.

    Errors: RetraceError for weights that end before layer4, and for what is no ResNet; UsageError for a Model, whose
        weights beyond its map are not there any more, and for options of the name that build something else.
    """
    advice = "Take a checkpoint that holds layer4, or the map that the encoder gives itself: features=model."
    if isinstance(model, Model):
        raise UsageError(
            f"{model.name!r} is a model that is loaded already; res5 is built from a file or a name. {advice}"
        )
    found = load(model)
    if "encoder" not in found.card:
        raise RetraceError(f"Model {found.name!r} is no ResNet of a known layout and has no res5. {advice}")
    config = replace(
        described(found.card, found.name),
        cut="layer4",
        reduction=0,
        strides=cast(Four, tuple(strides)),
        dilations=cast(Four, tuple(dilations)),
        dilated=dilated,
        stem_pool=True,
    )
    try:
        deep = load(model, config=config)
    except RetraceError as error:
        raise RetraceError(f"{error} {advice}") from error
    if deep.card["encoder"] != asdict(config):
        raise UsageError(
            f"Model {str(model)!r} has options that build another network than res5 as it is asked for. Leave out "
            "cut, stride, strides, dilations and stem_pool."
        )
    return deep
