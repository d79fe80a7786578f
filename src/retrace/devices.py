"""Which device the work is done on."""

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
