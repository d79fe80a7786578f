"""The two errors a person at the keyboard meets.

A message says what was given, what was expected and what to do next. The command line prints it as it is.
"""

import difflib
import re
from collections.abc import Iterable


class RetraceError(Exception):
    """The work could not be done: a bad file, a broken video, a full disk. Exit status 1."""


class UsageError(RetraceError):
    """The request itself is wrong: an unknown flag, a missing argument, contradicting options. Exit status 2."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The question with the known name that is nearest, a space before it; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def one_line(message: str) -> str:
    """An error of jsonargparse in the words of a person: one line, no Python types, no full stop."""
    text = " ".join(message.split())
    text = re.sub(r'Parser key "([^"]+)":', r"\1:", text)
    text = re.sub(
        r"Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors: .*? Given value type: .*? "
        r"Given value: (.*)",
        r"expected one of \1; got \2",
        text,
    )
    text = re.sub(r"<class 'NoneType'>|NoneType", "null", text)
    text = re.sub(r"<class '(\w+)'>", r"\1", text)
    text = text.replace("typing.Literal", "one of ").replace(' in "<unicode string>"', "")
    return text.rstrip(". ")
