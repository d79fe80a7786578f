"""`python -m retrace` is the command `retrace`, for where the script is not on the path."""

import sys

from retrace.cli.main import main

if __name__ == "__main__":  # processes that this one spawns import this file again
    sys.exit(main())
