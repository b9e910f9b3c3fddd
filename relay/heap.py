"""Memory: what Python's collector looks at, and what glibc's malloc keeps for itself.

malloc gives nearly every thread a heap of its own, so that threads need not wait for each other. Those of relay take
turns anyway, at Python's lock; what each of them has put aside for later is of use to none of the others. One heap for
all of them is 1.4 MB less at rest, and no slower. Where another malloc is, as in Alpine Linux, nothing is done to it.
"""

from __future__ import annotations

import contextlib
import gc
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes

_SELDOM = 20_000, 50, 50  # objects more than there were, then how often so, for each of the two older generations
_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h; malloc takes $MALLOC_ARENA_MAX for it too, which is read before us


def begin() -> None:
    """Have the collector look seldom. What is made while modules are imported stays, nearly all of it; to look through
    it a hundred and fifty times was a tenth of the start."""
    gc.set_threshold(*_SELDOM)


def share() -> None:
    """One heap for all threads. It must be said before there are any."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        _libc().mallopt(_ARENA_MAX, 1)


def settle() -> None:
    """The start is over: what was built so far stays for good, and the collector need not look at it again and
    again."""
    gc.collect()
    give_back()
    gc.freeze()


def give_back() -> None:
    """Give the system what is free: the start needs more than what comes after it."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        _libc().malloc_trim(0)


@cache
def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None)
