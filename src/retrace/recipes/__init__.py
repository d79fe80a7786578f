"""Recipes: one YAML per published run, one per laptop run. They hold no machine path."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import yaml

from retrace.errors import UsageError, did_you_mean


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
        f"There is no recipe {recipe!r}{did_you_mean(recipe, names)}: no such file, and the packaged ones are "
        f"{', '.join(names)}. "
        "`retrace train --list` describes them."
    )


def check(path: Path, *, sections: Sequence[str] = ()) -> None:
    """Refuse a file that is no recipe, before its keys are looked at.

    Args:
        path: of the recipe.
        sections: keys under which there are further keys.

    Errors: UsageError naming the line where the YAML breaks, or what is there instead of keys.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(
            f"Recipe {path} is not a text file. Give a YAML file, or a name of --list."
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}: {getattr(error, 'problem', None)})" if mark else ""
        raise UsageError(f"Recipe {path} is not valid YAML{where}. Correct that line.") from error
    if not isinstance(content, dict):
        found = "empty" if content is None else f"a {type(content).__name__}"
        raise UsageError(f"Recipe {path} is {found}; expected keys with values, such as 'steps: 1000'.")
    for key in sections:
        if key in content and not isinstance(content[key], dict):
            raise UsageError(
                f"Recipe {path}: {key} is {content[key]!r}; expected keys below it. `retrace train --help` lists them."
            )
