"""The command line as a person meets it: help, statuses, sentences, and no waiting for torch."""

import errno
import resource
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

import retrace
from retrace.cli import main as cli
from retrace.errors import RetraceError, UsageError


def give(monkeypatch: pytest.MonkeyPatch, work: Any) -> None:
    """Put a verb in the place of `demo` whose work is `work(args)`."""
    from jsonargparse import ArgumentParser

    def build_parser() -> ArgumentParser:
        parser = ArgumentParser(prog="retrace demo")
        parser.add_argument("--number", type=int, default=3)
        return parser

    monkeypatch.setattr(
        cli, "import_module", lambda name: SimpleNamespace(build_parser=build_parser, run=work)
    )


def fail(error: BaseException) -> Any:
    """A verb that raises."""

    def work(args: Any) -> int:
        raise error

    return work


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout, status 0."""
    for words in (["--help"], ["-h"], ["help"]):
        assert cli.main(words) == 0
        printed = capsys.readouterr()
        assert all(f"\n  {verb} " in printed.out for verb in cli.VERBS)
        assert printed.err == ""


def test_nothing_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    """The help goes to stderr, stdout stays clean."""
    assert cli.main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "usage: retrace" in printed.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """One line."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"retrace {retrace.__version__}\n"


@pytest.mark.parametrize(
    ("word", "hint"),
    [("propogate", "did you mean 'propagate'"), ("xyz", "the verbs are"), ("--jsn", "no option")],
)
def test_unknown_words(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2 and a hint, in one line."""
    assert cli.main([word]) == 2
    printed = capsys.readouterr()
    assert hint in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_every_verb_exists_and_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Module, summary and help; the help starts no torch."""
    module = import_module(f"retrace.cli.{verb}")
    assert cli.VERBS[verb] == module.SUMMARY
    assert cli.main([verb, "--help"]) == 0
    printed = capsys.readouterr()
    assert f"retrace {verb}" in printed.out
    assert cli.main(["help", verb]) == 0
    assert capsys.readouterr().out == printed.out


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_every_verb_refuses_an_unknown_flag(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, one sentence without the page of usage, no traceback, nothing on stdout."""
    assert cli.main([verb, "--no-such-flag"]) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith(f"retrace {verb}: ")
    assert "--help" in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (RetraceError("The disk is full."), 1, "retrace demo: The disk is full.\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.png"),
            1,
            "retrace demo: No space left on device: a.png. Make room, or choose another disk.\n",
        ),
        (UsageError("Give one label."), 2, "retrace demo: Give one label.\n"),
        (KeyboardInterrupt(), 130, "\nretrace demo: interrupted; what was finished before is kept.\n"),
    ],
)
def test_errors_become_sentences(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    sentence: str,
) -> None:
    """One sentence on stderr and the status."""
    give(monkeypatch, fail(error))
    assert cli.main(["demo"]) == status
    printed = capsys.readouterr()
    assert printed.err == sentence
    assert printed.out == ""
    with pytest.raises(type(error)):
        cli.main(["--debug", "demo"])


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is not hidden."""
    give(monkeypatch, fail(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["demo"])


def test_a_value_of_the_wrong_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and the message names the flag."""
    give(monkeypatch, lambda args: 0)
    assert cli.main(["demo", "--number", "many"]) == 2
    assert "number" in capsys.readouterr().err
    assert cli.main(["demo", "--number", "4"]) == 0


def test_module_is_the_command() -> None:
    """`python -m retrace` does what `retrace` does, and returns its status."""
    command = [sys.executable, "-m", "retrace"]
    assert subprocess.check_output([*command, "--help"], text=True) == cli.top_help()
    assert subprocess.run([*command, "propagat"], capture_output=True).returncode == 2


def test_help_is_quick() -> None:
    """`retrace --help` costs less than 0.3 s of CPU time (wall time would measure the other jobs of this machine)."""
    code = "import sys; from retrace.cli.main import main; main(['--help']); print('torch' in sys.modules)"
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert run.stdout.startswith("usage: retrace")
        assert run.stdout.endswith("False\n")
    assert min(times) < 0.3


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_too_little_memory_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    """Status 1 and what to make smaller."""
    give(monkeypatch, fail(error))
    assert cli.main(["demo"]) == 1
    assert "not enough memory" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError(errno.EIO, "Input/output error")])
def test_other_errors_of_these_types_are_bugs(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """What the machine lacks has its sentence; the rest keeps its traceback."""
    give(monkeypatch, fail(error))
    with pytest.raises(type(error)):
        cli.main(["demo"])


def test_help_of_training_does_without_the_training_engine() -> None:
    """`retrace train --help` imports neither Lightning nor kornia."""
    code = (
        "import sys; from retrace.cli.main import main; main(['train', '--help']); "
        "print({'lightning', 'kornia', 'tensorboard'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.splitlines()[-1] == "set()"
