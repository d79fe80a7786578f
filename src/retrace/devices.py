"""Which device the work is done on, and in how many processes."""

import os

import torch

from retrace.errors import UsageError


def choose_device(name: str) -> torch.device:
    """Turn what a person wrote into a device that is there.

    Args:
        name: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ...

    Errors: UsageError for a name that torch does not know and for a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"Device '{name}' is unknown; give auto, cpu or cuda.") from error
    if device.type == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= there:
            raise UsageError(
                f"Device '{name}' is not on this machine, which has {there} GPUs; give auto or cpu."
            )
    elif device.type != "cpu":
        raise UsageError(f"Device '{name}' is not supported; give auto, cpu or cuda.")
    return device


def processes_on(place: torch.device, wanted: int) -> int:
    """How many processes work at a time: `wanted`; where that is 0, one on a GPU, else one per core that we may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return wanted or (1 if place.type == "cuda" else cores)
