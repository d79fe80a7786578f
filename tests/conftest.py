"""What every test shares: a drawing backend without a screen, and where the real clips are."""

import os
from pathlib import Path

import pytest

os.environ["MPLBACKEND"] = "Agg"

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def videos() -> Path:
    """The folder of real clips: $RETRACE_VIDEOS, else ../shared/videos beside the repository; else skip."""
    folder = Path(os.environ.get("RETRACE_VIDEOS", REPOSITORY.parent / "shared" / "videos"))
    if not folder.is_dir():
        pytest.skip(f"the real clips are not on this machine: {folder} (set RETRACE_VIDEOS to their folder)")
    return folder
