"""Outputs appear whole or not at all, also when the disk is full."""

from pathlib import Path

import pytest

from retrace.errors import RetraceError, one_line
from retrace.files import atomic_path, check_owner, same_file, scratch_file


def test_atomic_path(tmp_path: Path) -> None:
    """A failed block leaves nothing, a folder below a file is a sentence."""

    def fail() -> None:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RetraceError, match="Cannot write .*Choose a folder"),
        atomic_path(tmp_path / "file" / "a"),
    ):
        pass


def test_scratch_file(tmp_path: Path) -> None:
    """It can be read back, and is gone afterwards."""
    with scratch_file(tmp_path / "s") as file:
        file.write("line\n")
        file.seek(0)
        assert file.read() == "line\n"
    assert not (tmp_path / "s").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_scratch_file_on_a_full_disk(tmp_path: Path) -> None:
    """The sentence of a full disk; and what is left in the buffer does not hide the error that came first."""

    def fill(error: Exception | None) -> None:
        (tmp_path / "s").symlink_to("/dev/full")
        with scratch_file(tmp_path / "s") as file:
            file.write("line")
            if error is not None:
                raise error
            file.flush()

    with pytest.raises(RetraceError, match="No space left"):
        fill(None)
    with pytest.raises(RetraceError, match="^first$"):
        fill(RetraceError("first"))
    assert list(tmp_path.iterdir()) == []


def test_same_file(tmp_path: Path) -> None:
    """A lock file that was removed and made again is another file."""
    with open(tmp_path / "lock", "w") as held:
        assert same_file(held, tmp_path / "lock")
        (tmp_path / "lock").unlink()
        assert not same_file(held, tmp_path / "lock")
        (tmp_path / "lock").write_text("")
        assert not same_file(held, tmp_path / "lock")


def test_one_line() -> None:
    """No Python types, no line breaks."""
    given = """Parser key "steps":
      Does not validate against any of the Union subtypes
      Subtypes: [<class 'int'>, <class 'NoneType'>]
      Errors:
        - Expected a <class 'int'>
        - Expected a <class 'NoneType'>
      Given value type: <class 'str'>
      Given value: many"""
    assert one_line(given) == "steps: expected one of int, null; got many"
    assert one_line("Expected a <class 'float'>.\nGot value: nan") == "Expected a float. Got value: nan"


def test_a_folder_belongs_to_whoever_signed_it(tmp_path):
    """Empty, ours, with locks and leftovers: fine. Somebody's: refused, by name."""
    check_owner(tmp_path / "new", lambda names: False, "train")
    check_owner(tmp_path, lambda names: False, "train")
    for name in (".lock", ".last.12.partial.ckpt"):
        (tmp_path / name).touch()
    check_owner(tmp_path, lambda names: False, "train")
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RetraceError, match=r"not a result of retrace train \(thesis.tex, ...\)"):
        check_owner(tmp_path, lambda names: "run.json" in names, "train")
    (tmp_path / "run.json").touch()
    check_owner(tmp_path, lambda names: "run.json" in names, "train")
    with pytest.raises(RetraceError, match="is a file, not a folder"):
        check_owner(tmp_path / "run.json", lambda names: True, "train")
