"""The parser of every verb: what it refuses is one sentence, as all other errors are."""

from typing import NoReturn

import jsonargparse

from retrace.errors import UsageError, one_line

_MODEL_HELP = (
    "'default' ships with Retrace; a checkpoint, ours or a published one; random:resnet18; lab-patches; timm:NAME; "
    "transformers:NAME; module:function; options follow behind commas, as FILE,cut=layer2,stride=4: docs/weights.md"
)


class Parser(jsonargparse.ArgumentParser):
    """jsonargparse's parser without the page of usage before an error."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise UsageError. jsonargparse calls this for everything that it refuses."""
        raise UsageError(f"{one_line(message)}. See {self.prog} --help.") from ex


def add_model(parser: Parser, more: str = "") -> None:
    """What sees; `more` is said of it beside what every verb takes."""
    parser.add_argument("--model", default="default", metavar="NAME|FILE", help=f"{_MODEL_HELP}{more}")


def add_device(parser: Parser) -> None:
    """What computes."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
