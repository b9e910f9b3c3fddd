"""What the system lets this process have: file descriptors, memory, and no picture of it on disk."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

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


# Bytes of memory. An idle one has 7 KiB, over TLS 43; where a body of 100 kB has come by it, 15 and 256.
_CONNECTION, _SECURE_CONNECTION = 16 << 10, 128 << 10
_PART = 8  # of what memory is left
_FEWEST = 64


def connections(secure: bool = False) -> int:
    """How many senders may be connected at once, over TLS or not: as many as there are descriptors, but for those relay
    needs itself, and as have room in a part of the memory that this process may still have."""
    soft = _ENOUGH
    with contextlib.suppress(OSError, ValueError):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        soft = _ENOUGH if limit == resource.RLIM_INFINITY else limit
    most = max(1, soft - min(_RESERVED, soft // 2))
    each = _SECURE_CONNECTION if secure else _CONNECTION
    return min([most, *(max(left // _PART // each, _FEWEST) for left in _left())])


_BODIES = 64 << 20
_SCARCE = 16 << 20
_SMALL_WINDOW = 32 << 10
_SHARE = 8  # two kinds of bodies are counted, and each of them is in memory up to three times for a moment


def bodies(helpers: int = 0) -> int:
    """How many bytes of bodies may be in memory at once, of those that come in and again of those that go out: 64 MiB,
    or less where this process may not have much more memory than it has now, and its helpers so much."""
    return min([_BODIES, *(max(left, 0) // _SHARE for left in _left(helpers))])


def window(most: int) -> int | None:
    """How many bytes a sender may have on its way, where memory is scarce, as it is with so few bytes of bodies: what
    came is in memory before anything of relay can refuse it, and there may be many senders. None where the system may
    choose: faster over long ways."""
    return _SMALL_WINDOW if most < _SCARCE else None


def _left(helpers: int = 0) -> Iterator[int]:
    """How many bytes more this process may have, by each limit that it is under. Its helpers are in its groups; what
    `ulimit -v` limits each process has for itself."""
    pages = os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError, IndexError):
        size, resident = (int(field) * pages for field in Path("/proc/self/statm").read_text().split()[:2])
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit - size
        for most in _cgroup_limits():
            yield most - resident - helpers


def _cgroup_limits(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """The limits of this process's control group and of those around it, of either version (cgroups(7)): `0::/path`,
    or `4:memory:/path` with a hierarchy of its own. In a container the path may be the host's: the root counts then."""
    for line in groups.read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            top, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = top / path.lstrip("/")
        for each in (group, *group.parents):
            if each.is_relative_to(top):
                with contextlib.suppress(OSError, ValueError):  # the root has none, and "max" is none
                    yield int((each / name).read_text())
