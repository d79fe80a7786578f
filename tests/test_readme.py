"""Commands and Python in the README and the tutorials work: they parse, their targets and names exist."""

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import retrace
from retrace.cli.main import VERBS

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text()
PAGES = [README, *(page.read_text() for page in sorted((REPOSITORY / "docs" / "tutorials").glob("*.md")))]
MAKE_TARGETS = set(re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, on all pages."""
    return [
        block
        for page in PAGES
        for block in re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    ]


COMMANDS = [
    shlex.split(line, comments=True)
    for block in blocks("bash")
    for line in block.splitlines()
    if line.strip()
]


def test_there_is_something_to_test() -> None:
    """The two commands of the README's promise are among them, and both tutorials."""
    assert len(PAGES) >= 3
    assert ["make", "demo"] in COMMANDS
    assert ["make", "test"] in COMMANDS
    assert {words[1] for words in COMMANDS if words[0] == "retrace"} >= {"propagate", "train", "visualize"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_is_one(words: list[str]) -> None:
    """A target of the Makefile, or words that the verb's own parser takes."""
    if words[0] == "make":
        assert words[1] in MAKE_TARGETS
        return
    assert words[0] == "retrace"
    assert words[1] in VERBS
    import_module(f"retrace.cli.{words[1]}").build_parser().parse_args(words[2:])


INLINE = sorted({words for page in PAGES for words in re.findall(r"`(retrace [a-z][^`]*|make [a-z]+)", page)})


@pytest.mark.parametrize("inline", INLINE)
def test_a_command_in_the_text_exists(inline: str) -> None:
    """The verb or the target is there."""
    word = inline.split()[1]
    assert word in (MAKE_TARGETS if inline.startswith("make") else VERBS)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_compiles_and_its_names_exist(code: str) -> None:
    """Every attribute of `retrace` in it is public."""
    for node in ast.walk(ast.parse(code)):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "retrace"
        ):
            assert node.attr in retrace.__all__
            assert callable(getattr(retrace, node.attr))


def test_citation_file_and_bibliography_agree() -> None:
    """CITATION.cff is YAML, has our version, and names the papers of the README."""
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == retrace.__version__
    titles = set(re.findall(r"^\s+title\s+= \{(.*)\},$", README, re.MULTILINE))
    assert titles == {citation["title"], *(paper["title"] for paper in citation["references"])}
    assert len(titles) == 6
