"""`python -m relay`, and the `relay` command."""

from __future__ import annotations

import os
import sys

from relay import heap


def main() -> None:
    """Run the command line; exits with 0 done, 1 failed, 2 wrong usage, 78 an operator must act."""
    _open_standard_streams()
    heap.begin()
    from relay.cli import relay

    relay(prog_name="relay")


def _open_standard_streams() -> None:
    """Whoever started relay may have closed some. The next file or socket that is opened would take their place, be
    written to in error, and end the process when it is closed (libuv forbids that)."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
    if sys.stdin is None:
        sys.stdin = os.fdopen(0)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")


if __name__ == "__main__":
    main()
