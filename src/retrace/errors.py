"""The two errors a person at the keyboard meets.

A message says what was given, what was expected and what to do next. The command line prints it as it is.
"""


class RetraceError(Exception):
    """The work could not be done: a bad file, a broken video, a full disk. Exit status 1."""


class UsageError(RetraceError):
    """The request itself is wrong: an unknown flag, a missing argument, contradicting options. Exit status 2."""
