"""The contract of a method file, for every method there is."""

import dataclasses
import inspect
import pickle
from dataclasses import dataclass

import pytest
import torch

from retrace.errors import UsageError
from retrace.methods import METHODS, check_batch, sampling_of
from retrace.training.config import TrainConfig, check, check_same_run, flatten, save_config, to_plain
from retrace.training.data import footage_sampling
from retrace.video.sampling import EvenSampling, Sampling, ThinnedSampling


def test_configuration_has_a_section_for_every_method():
    """And for nothing that is none."""
    sections = {field.name: field for field in dataclasses.fields(TrainConfig)}
    for name, method in METHODS.items():
        assert type(sections[name].default) is method.config, name
        assert sections[name].default == method.config(), name
    others = {"encoder", "clips", "optimizer", "schedule", "checkpoint", "log"}
    found = {name for name, field in sections.items() if dataclasses.is_dataclass(field.default)}
    assert found - others == set(METHODS)


@pytest.mark.parametrize("name", list(METHODS))
def test_parts_keep_the_contract(name):
    """Frozen configuration with a clip length, picklable views, a module that takes a generator."""
    method = METHODS[name]
    config = method.config()
    assert dataclasses.fields(config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.clip_length = 3
    assert config.clip_length >= 1
    assert callable(pickle.loads(pickle.dumps(method.views(config))))
    generator = inspect.signature(method.module.forward).parameters["generator"]
    assert generator.default is None
    check_batch(config, 8)
    sampling = sampling_of(config)
    if sampling is not None:
        chosen = sampling.indices(40, 24.0, torch.Generator().manual_seed(0))
        assert len(chosen) == config.clip_length
        assert all(0 <= index < 40 for index in chosen)


def test_another_methods_settings_are_refused_not_ignored(monkeypatch):
    """A key that would have no effect."""
    other = dataclasses.replace(METHODS["stfc3"])
    monkeypatch.setitem(METHODS, "encoder", other)  # a section that exists and belongs to no method
    monkeypatch.setattr("retrace.training.config.METHODS", {"encoder": other, "stfc3": METHODS["stfc3"]})
    config = TrainConfig(steps=1, out="here", method="encoder")
    config = dataclasses.replace(config, stfc3=dataclasses.replace(config.stfc3, temperature=0.1))
    with pytest.raises(UsageError, match=r"stfc3\.temperature is set, but the method is encoder"):
        check(dataclasses.replace(config, encoder=other.config()))


def test_unknown_methods_get_the_nearest_name():
    """Typing is hard."""
    with pytest.raises(UsageError, match=r"'stcf3' \(did you mean stfc3\?\); expected one of .*stfc3"):
        check(TrainConfig(steps=1, out="here", method="stcf3"))


@dataclass(frozen=True)
class Ends:
    """First and last frame."""

    def indices(self, num_frames: int, fps: float, generator: torch.Generator) -> list[int]:
        """Two."""
        return [0, num_frames - 1]

    def span(self, num_frames: int, fps: float) -> int:
        """All."""
        return num_frames


@dataclass(frozen=True)
class Own:
    """A configuration that chooses frames and refuses odd batches."""

    clip_length: int = 2

    def sampling(self) -> Sampling:
        """Its own."""
        return Ends()

    def check_batch(self, batch_size: int) -> None:
        """Even ones only."""
        if batch_size % 2:
            raise ValueError("pairs want an even number")


def test_a_method_may_choose_frames_and_refuse_batches(monkeypatch):
    """Through the configuration, without anybody else knowing its name."""
    monkeypatch.setattr(TrainConfig, "method_config", Own())
    config = TrainConfig(
        steps=1, out="here", clips=dataclasses.replace(TrainConfig().clips, synthetic_weight=1.0)
    )
    assert footage_sampling(config) == ThinnedSampling(Ends(), 8.0, None)
    check(config)
    with pytest.raises(UsageError, match="batch_size is 7: pairs want an even number"):
        check(dataclasses.replace(config, batch_size=7))
    monkeypatch.undo()
    assert footage_sampling(config) == EvenSampling(4, 8.0, None)


def test_a_saved_configuration_speaks_of_its_method_only(tmp_path, monkeypatch):
    """Other methods may change their defaults; the run continues."""
    plain = to_plain(TrainConfig())
    assert set(plain) & set(METHODS) == {"stfc3"}
    config = TrainConfig(steps=2, out=str(tmp_path))
    save_config(config, tmp_path / "config.yaml")
    check_same_run(config, tmp_path / "config.yaml")
    changed = dataclasses.replace(config, stfc3=dataclasses.replace(config.stfc3, temperature=0.1))
    with pytest.raises(UsageError, match=r"stfc3.temperature was 0.05, now 0.1"):
        check_same_run(changed, tmp_path / "config.yaml")
    assert "stfc3.temperature" in flatten(config)
