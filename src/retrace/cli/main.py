"""`retrace VERB ...`: find the verb, hand it the rest of the line, turn its errors into a sentence and a status."""

import difflib
import errno
import logging
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module

from retrace import __version__
from retrace.errors import RetraceError, UsageError

# verb -> what it does. `retrace.cli.<verb>` is imported only when it is used, so that `retrace --help` starts no torch.
VERBS: dict[str, str] = {
    "demo": "make a short video, carry a label through it, and show how well that went",
    "propagate": "carry the label of one frame to all the other frames of a video",
    "track": "follow boxes through a video",
    "evaluate": "score an encoder on a benchmark as its official tool does",
    "train": "learn an encoder from unlabelled video",
    "study": "make a paper's experiment again at laptop size: table, numbers, figure",
    "data": "check, index and pack footage, check benchmarks, export results to labelling tools",
    "weights": "list the encoders that ship with Retrace, look into a checkpoint, convert a published one",
    "visualize": "draw affinities of two frames, PCA of features, training curves",
}

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130


def top_help() -> str:
    """Return the text of `retrace --help`."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {verb:<{width}}{summary}" for verb, summary in VERBS.items())
    return f"""usage: retrace [--debug] VERB ...

Learn visual correspondence from raw video and carry any label from one frame to all the others.

verbs:
{verbs}

start here:
  retrace demo                                              see it work, on a video it makes itself
  retrace propagate clip.mp4 --labels frame0.png --out out  your own video, with the encoder that ships
  retrace track clip.mp4 --box 120,80,64,48 --out out       a box instead of a mask
  retrace train --help                                      your own encoder, from your own footage

options:
  -h, --help   this page; `retrace VERB --help` explains a verb and all its flags
  --version    print the version
  --debug      show the full traceback of an error

Results are printed on stdout (most verbs take --json), everything else on stderr.
Exit status: 0 done, 1 failed, 2 wrong use, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    Args:
        argv: the words after `retrace`; the process's own when None.

    Returns:
        0 done; 1 failed (RetraceError); 2 wrong use (UsageError, unknown verb or flag); 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = words[:1] == ["--debug"]
    if debug:
        words = words[1:]
    if not words:
        print(top_help(), file=sys.stderr, end="")
        return WRONG_USE
    if words[0] in {"-h", "--help", "help"}:
        if words[0] != "help" or len(words) == 1:
            print(top_help(), end="")
            return 0
        words = [words[1], "--help"]
    if words[0] == "--version":
        print(f"retrace {__version__}")
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"the verbs are {', '.join(VERBS)}."
        kind = "option" if verb.startswith("-") else "verb"
        print(f"retrace: there is no {kind} '{verb}'; {hint} See retrace --help.", file=sys.stderr)
        return WRONG_USE
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return _run(verb, rest)
    except SystemExit as stop:  # jsonargparse leaves this way, after printing its own sentence or the help
        return stop.code if isinstance(stop.code, int) else WRONG_USE if stop.code else 0
    except RetraceError as error:
        if debug:
            raise
        print(f"retrace {verb}: {error}", file=sys.stderr)
        return WRONG_USE if isinstance(error, UsageError) else FAILED
    except (
        BrokenPipeError
    ):  # the reader of our stdout (head, less) has gone; Python would complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (OSError, MemoryError, RuntimeError) as error:
        sentence = _limit_of_the_machine(error)
        if debug or sentence is None:
            raise
        print(f"retrace {verb}: {sentence}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        if debug:
            raise
        print(f"\nretrace {verb}: interrupted; what was finished before is kept.", file=sys.stderr)
        return INTERRUPTED


def _limit_of_the_machine(error: Exception) -> str | None:
    """The sentence for a full disk or memory, which can strike anywhere; None for everything else, which is a bug."""
    if isinstance(error, OSError):
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return None
        where = error.filename2 or error.filename  # of a copy the target
        return f"{error.strerror}{f': {where}' if where else ''}. Make room, or choose another disk."
    if isinstance(error, MemoryError) or re.search(r"can't allocate memory|out of memory", str(error)):
        return (
            "There is not enough memory for this. Work on smaller frames or on fewer at a time (propagate: --size, "
            "--num-context; train: --batch_size), or on another --device."
        )
    return None


def _run(verb: str, rest: list[str]) -> int:
    module = import_module(f"retrace.cli.{verb}")
    parser = module.build_parser()
    status: int = module.run(parser.parse_args(rest))
    sys.stdout.flush()
    return status
