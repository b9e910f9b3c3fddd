"""What the system lets this process have: file descriptors, and no picture of its memory on disk."""

from __future__ import annotations

import contextlib
import resource

_ENOUGH = 65_536
_RESERVED = 512  # descriptors that senders never get: the store's, destinations', the admin side's


def settle() -> None:
    """Take as many descriptors as may be had without asking, and leave no core dump: memory holds every secret.

    A service manager may forbid both; it has set them itself then.
    """
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def connections() -> int:
    """How many senders may be connected at once: as many as there are descriptors, but for those relay needs itself."""
    soft = _ENOUGH
    with contextlib.suppress(OSError, ValueError):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        soft = _ENOUGH if limit == resource.RLIM_INFINITY else limit
    return max(1, soft - min(_RESERVED, soft // 2))
