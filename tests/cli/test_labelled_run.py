"""What the command lines of `propagate` and `track` share: results on stdout, sentences on stderr, their statuses."""

import json
from pathlib import Path

import pytest

from retrace.cli.main import main


@pytest.mark.parametrize(
    ("verb", "other", "says"),
    [
        ("propagate", ["--top-k", "2"], "another run: its protocol"),
        ("track", ["--box", "1,2,20,20"], "another run: its boxes"),
    ],
)
def test_it_works_and_says_where(
    verb: str,
    other: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """Summary on stdout; the second time it is done already; another run is refused with status 1, or replaces it."""
    words = request.getfixturevalue(f"{verb}_words")
    overlay = tmp_path / "out" / "overlay.mp4"
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert str(overlay) in out
    assert "frame" in err
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "complete"
    assert "--overwrite" in err
    assert main([*words, *other]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"retrace {verb}: ")
    assert says in err
    assert main([*words, *other, "--overwrite", "--quiet", "--no-overlay"]) == 0
    assert capsys.readouterr().err == ""
    assert not overlay.exists()


@pytest.mark.parametrize(
    ("verb", "extra", "status", "message"),
    [
        ("propagate", ["--protocol", "crw"], 2, "Protocol 'crw' is unknown"),
        ("propagate", ["--size", "wide"], 2, "--size 'wide' is not understood"),
        ("propagate", ["--labels", "none.png"], 1, "no labels at none.png"),
        ("propagate", ["--model", "none.pth"], 1, "none.pth"),
        ("propagate", ["--num-context", "many"], 2, "num_context"),
        ("propagate", ["--flag-that-is-not"], 2, "flag-that-is-not"),
        ("track", ["--box", "1,2,three,4"], 2, "--box '1,2,three,4' is not understood"),
        ("track", ["--box", "boxes.json"], 2, "--box 'boxes.json' is not understood"),
        ("track", ["--protocol", "vot"], 2, "Protocol 'vot' is unknown"),
        ("track", ["--num-scales", "2"], 2, "num_scales is 2"),
        ("track", ["--frame", "soon"], 2, "frame"),
        ("track", ["--model", "none.pth"], 1, "none.pth"),
    ],
)
def test_wrong_words(
    verb: str,
    extra: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """One sentence, the right status, no output folder."""
    assert main([*request.getfixturevalue(f"{verb}_words"), *extra]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["propagate", "track"])
def test_interruption(
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """Ctrl-C ends with 130 and leaves a partial result."""

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("retrace.cli.labelled_run._advance", interrupt)
    assert main(request.getfixturevalue(f"{verb}_words")) == 130
    assert "interrupted" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "result.json").read_text())["status"] == "partial"
