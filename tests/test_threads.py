"""Processes that leave none behind."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import multiprocessing, sys, time
from retrace.threads import end_with_parent

def child():
    end_with_parent()
    print("ready", flush=True)
    time.sleep(120)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
"""


def test_a_killed_parent_takes_its_children_with_it(tmp_path: Path) -> None:
    """The pipe to the test closes only when nobody holds it any more: neither the parent nor its child."""
    script = tmp_path / "parent.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    rest, _ = parent.communicate(timeout=60)
    assert rest == ""
