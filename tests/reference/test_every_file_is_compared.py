"""No reference file lies unused: each is named by a test here, or belongs to a system that is not built yet."""

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# Files of systems that are not built yet. Whoever builds one takes its files out of this list.
NOT_BUILT_YET: set[str] = set()


def names_in(path: Path) -> set[str]:
    """Every string literal of a test file that is the whole name of an .npz file (docstrings do not count)."""
    return {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value.endswith(".npz") and not any(c.isspace() for c in node.value)
    }


@pytest.fixture(scope="module")
def compared() -> set[str]:
    """The file names that the other tests of this folder read."""
    return set().union(
        *(names_in(path) for path in HERE.glob("test_*.py") if path.name != Path(__file__).name)
    )


def test_every_file_is_compared(reference_folder: Path, compared: set[str]) -> None:
    """A file that no test reads and that no unbuilt system owns is a hole."""
    there = {path.name for path in reference_folder.glob("*.npz")}
    assert there, f"{reference_folder} holds no .npz file"
    forgotten = there - compared - NOT_BUILT_YET
    assert not forgotten, f"no test in tests/reference compares {sorted(forgotten)}"


def test_the_list_of_unbuilt_systems_is_honest(compared: set[str]) -> None:
    """A file that a test reads must leave the list."""
    stale = NOT_BUILT_YET & compared
    assert not stale, f"take {sorted(stale)} out of NOT_BUILT_YET: a test compares them"


def test_every_name_exists(reference_folder: Path, compared: set[str]) -> None:
    """A misspelt name would count as compared and be skipped for ever."""
    there = {path.name for path in reference_folder.glob("*.npz")}
    assert compared <= there, f"{reference_folder} has no {sorted(compared - there)}"
    assert there >= NOT_BUILT_YET, f"{reference_folder} has no {sorted(NOT_BUILT_YET - there)}"
