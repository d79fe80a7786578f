"""How well an encoder in training carries labels: a small score on generated scenes, the same ones every time."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from retrace.encoders import Model
from retrace.metrics.regions import jaccard
from retrace.propagation.codecs import Geometry, MaskCodec
from retrace.propagation.engine import Propagator
from retrace.propagation.protocols import Protocol
from retrace.synthetic import SceneConfig, render
from retrace.walk.readout import Rules

SEEDS = (9001, 9002, 9003)  # no training run draws its scenes from these
SCENE = SceneConfig(height=120, width=160, num_frames=10)
PROTOCOL = Protocol("probe", "ours, for curves", 4, rules=Rules(0.07, 10, "disc", 8), seed="area")


class PropagationProbe:
    """Mean J of the masks of a few generated scenes, carried from their first frame.

    Says whether correspondence is learned, where the loss only says that it falls. Small on purpose: compare its values
    with each other and with `probe_copy`, not with anything published.
    """

    def __init__(self, model_of: Callable[[Mapping[str, Tensor]], Model], device: torch.device) -> None:
        """`model_of`: from the weights of the encoder in training to the model that would be exported."""
        self._model_of = model_of
        self._device = device
        self._scenes: list[tuple[Tensor, Tensor]] = []

    def __call__(self, encoder: nn.Module) -> dict[str, float]:
        """Score an encoder.

        Returns: probe_j, mean over scenes, objects and frames after the first; probe_copy, the same for leaving the
            masks of the first frame where they are.
        """
        model = self._model_of(encoder.state_dict())
        if not self._scenes:
            small = model.origin < SCENE.height / 4  # an encoder without padding has no room in a small frame
            config = SCENE if small else replace(SCENE, height=400, width=520)
            for seed in SEEDS:
                scene = render(seed, config)
                self._scenes.append((scene.frames, scene.masks))
        engine = Propagator(model, PROTOCOL, device=self._device)
        height, width = self._scenes[0][1].shape[1:]
        size = (int(height), int(width))
        geometry = Geometry(size, size, engine.grid(*size), engine.model.stride, engine.model.origin)
        carried: list[float] = []
        copied: list[float] = []
        for frames, masks in self._scenes:
            truth = masks.numpy()
            ids = [int(i) for i in np.unique(truth[0]) if i != 0]
            codec = MaskCodec(ids, geometry, seed=PROTOCOL.seed)
            engine.seed(engine.encode(frames[0]), codec.encode(truth[0]))
            for t in range(1, len(frames)):
                step = engine.step(engine.encode(frames[t]))
                found = codec.decode(step.labels, step.confidence).masks
                assert found is not None
                carried += [jaccard(found == i, truth[t] == i) for i in ids]
                copied += [jaccard(truth[0] == i, truth[t] == i) for i in ids]
        return {"probe_j": sum(carried) / len(carried), "probe_copy": sum(copied) / len(copied)}
