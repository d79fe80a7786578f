"""Names of devices."""

import os

import pytest
import torch

from retrace.devices import choose_device, processes_on
from retrace.errors import UsageError


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` takes a GPU where there is one; a missing or unknown device is a sentence."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    assert choose_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(UsageError, match="has 0 GPUs"):
            choose_device(name)
    for name in ("gpu", "meta", ""):
        with pytest.raises(UsageError, match=f"'{name}'"):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(UsageError, match="has 1 GPU"):
        choose_device("cuda:1")


def test_processes() -> None:
    """What was asked for; else one on a GPU, and on the CPU at least one."""
    assert processes_on(torch.device("cpu"), 3) == processes_on(torch.device("cuda"), 3) == 3
    assert processes_on(torch.device("cuda"), 0) == 1
    assert 1 <= processes_on(torch.device("cpu"), 0) <= (os.cpu_count() or 1)
