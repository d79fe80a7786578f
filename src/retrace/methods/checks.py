"""What the configurations of the methods check alike."""

from collections.abc import Mapping, Sequence


def check_choices(config: object, choices: Mapping[str, Sequence[str]]) -> None:
    """Errors: ValueError for the first field of `config` that holds none of the words it may hold.

    Args:
        config: a method's configuration.
        choices: field -> the words.
    """
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise ValueError(f"{name} is {getattr(config, name)!r}; expected one of {', '.join(allowed)}")
