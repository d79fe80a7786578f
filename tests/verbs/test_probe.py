"""The small propagation score that training writes into its curves."""

import torch

from retrace import encoders
from retrace.encoders import EncoderConfig
from retrace.synthetic import SceneConfig
from retrace.verbs import probe


def test_scores_the_encoder_it_is_given(monkeypatch):
    """Features that tell things apart beat leaving the masks where they are; equal features do not. Repeatable."""
    monkeypatch.setattr(probe, "SEEDS", (9001,))
    monkeypatch.setattr(probe, "SCENE", SceneConfig(height=72, width=96, num_frames=4))
    config = EncoderConfig(width=0.25, cut="layer1")
    measure = probe.PropagationProbe(
        lambda state: encoders.from_state_dict(config, state, name="x"), torch.device("cpu")
    )
    torch.manual_seed(0)
    encoder = config.build()
    scores = measure(encoder)
    assert set(scores) == {"probe_j", "probe_copy"}
    assert all(0 <= score <= 1 for score in scores.values())
    assert measure(encoder) == scores
    bare = EncoderConfig(width=0.0625, cut="layer3", padding_mode="none")  # 81 pixels to the first node
    roomy = probe.PropagationProbe(
        lambda state: encoders.from_state_dict(bare, state, name="y"), torch.device("cpu")
    )
    assert roomy(bare.build())["probe_j"] > 0
    for parameter in encoder.parameters():
        parameter.data.zero_()
    blind = measure(encoder)
    assert blind["probe_copy"] == scores["probe_copy"]
    assert blind["probe_j"] < scores["probe_j"]
