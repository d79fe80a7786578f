"""`retrace study` on the command line."""

import json

import pytest

from retrace import studies
from retrace.cli.main import main


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    """Every packaged study with its title, for people and for programs."""
    assert main(["study", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(studies.names())
    assert main(["study", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == studies.names()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Which study?"),
        (["shortcuts"], "did you mean shortcut"),
        (["shortcut", "--arms", "fc4-zeros"], "did you mean fc3-zeros"),
        (["shortcut", "--size", "huge"], "huge"),
        (["shortcut", "--seeds", "-1"], "seed"),
        (["shortcut", "--workers", "-2"], "workers is -2"),
    ],
)
def test_wrong_use(words: list[str], sentence: str, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2 and a sentence; nothing is written."""
    out = tmp_path / "out"
    assert main(["study", *words, "--out", str(out)]) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()
