"""Recipes: one YAML per published run, one per laptop run. They hold no machine path."""

from importlib import resources
from pathlib import Path

from retrace.errors import UsageError


def packaged() -> dict[str, str]:
    """Name -> first comment line of every packaged recipe."""
    found = {}
    for entry in sorted(resources.files(__name__).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            first = entry.read_text().split("\n", 1)[0]
            found[entry.name.removesuffix(".yaml")] = first.removeprefix("#").strip()
    return found


def find(recipe: str) -> Path:
    """The file of a recipe: a path, or the name of a packaged one.

    Errors: UsageError when it is neither.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    names = packaged()
    if recipe in names:
        return Path(str(resources.files(__name__) / f"{recipe}.yaml"))
    raise UsageError(
        f"There is no recipe {recipe!r}: no such file, and the packaged ones are {', '.join(names)}. "
        "`retrace train --list` describes them."
    )
