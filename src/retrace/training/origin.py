"""Which code a run was made with."""

import subprocess
from pathlib import Path


def commit() -> str | None:
    """Commit of the checkout this code runs from, "-dirty" appended when files were changed; None elsewhere."""
    here = Path(__file__).resolve()

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here.parent), *words], capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout.strip()

    try:
        # An installed copy may lie inside somebody else's repository, which does not track it.
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
