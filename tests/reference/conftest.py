"""Where the reference values are, and how a test reads one of their files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    """The folder of reference values: $RETRACE_REFERENCE, else ../shared/reference beside the repository; else skip."""
    folder = Path(os.environ.get("RETRACE_REFERENCE", REPOSITORY.parent / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip(
            f"the reference values are not on this machine: {folder} (set RETRACE_REFERENCE to their folder)"
        )
    return folder


@pytest.fixture(scope="session")
def reference(reference_folder: Path) -> Callable[[str], dict[str, Any]]:
    """Give a loader: `reference("stfc3_loss.npz")` -> {key: array}.

    Write the name out in the test as a literal: test_every_file_is_compared.py finds it by reading the tests.
    A test takes every size, count and seed-dependent name from the file.
    """

    def load(name: str) -> dict[str, Any]:
        assert name.endswith(".npz"), f"say the whole file name, {name}.npz"
        with np.load(reference_folder / name, allow_pickle=False) as file:
            return dict(file)

    return load
