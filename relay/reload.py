"""From a config file to what runs: one immutable Runtime, swapped by one reference, or nothing at all.

All that can fail (reading, parsing, checking, secrets, certificates, compiling) happens before the swap. What lives
long (store, listeners, queue, route health) never belongs to a Runtime.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from pathlib import Path
from typing import Any

from relay import config as config_file
from relay import journal, systemd
from relay.clock import Clock
from relay.config import ConfigError, Loaded
from relay.handover import HandedOver
from relay.immutable import immutable
from relay.problems import Problem
from relay.runtime import Runtime, build


@immutable
class LastReload:
    """How the last reload went, as `/health` shows it."""

    ok: bool
    at: datetime
    error: str | None = None


@immutable
class Reloaded:
    """What a reload did: problems, and then nothing was changed; or what is new."""

    generation: int
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    pending_restart: tuple[str, ...] = ()


class Reloader:
    """Holds the Runtime and replaces it."""

    def __init__(
        self,
        path: Path,
        first: Runtime,
        clock: Clock,
        counted: Callable[[str], None],
        handed_over: HandedOver | None = None,
    ) -> None:
        self.path = path
        self.handed_over = handed_over or HandedOver()
        self.runtime = first
        self._started_with = first
        self._clock = clock
        self._counted = counted
        self._lock = asyncio.Lock()
        self.last = LastReload(True, first.loaded_at)
        self.on_swap: Callable[[Runtime], Awaitable[None]] | None = None
        self.on_removed: Callable[[Sequence[str]], Sequence[str]] = lambda names: ()
        """Of routes that are gone: what people should know."""
        self.exposed: str | None = None
        """Where the admin side listens and why others can reach it, in words: while they can, it needs a token."""

    @property
    def pending_restart(self) -> tuple[str, ...]:
        """Keys of the file whose new value takes effect at the next start only. With a socket of systemd's in its
        place a value never does."""
        waiting = pending_restart(self._started_with, self.runtime)
        return tuple(key for key in waiting if key not in self.handed_over.names)

    @property
    def status(self) -> str:
        """Which config runs, and why not the newest, for `systemctl status`."""
        running = f"generation {self.runtime.generation}"
        return running if self.last.ok else f"config REJECTED {self.last.error}; running {running}"

    async def reload(self) -> Reloaded:
        """Read the file again and take it, wholly or not at all. Never raises for what is in the file."""
        async with self._lock:
            systemd.reloading()
            try:
                return await self._reload()
            finally:
                systemd.ready(self.status)

    async def _reload(self) -> Reloaded:
        now = self._clock.now()
        old = self.runtime
        problems: tuple[Problem, ...] = ()
        try:
            new = await asyncio.to_thread(read, self.path, old.generation + 1, now, old)
            self.refuse_unguarded(new)
        except ConfigError as error:
            problems = tuple(error.problems)
        except Exception as error:  # noqa: BLE001 - a bug of ours: what runs goes on
            journal.crashed("reload")
            problems = (Problem(str(self.path), 0, 0, "", f"relay failed to read it: {type(error).__name__}"),)
        if problems:
            self.last = LastReload(False, now, str(problems[0]) + _more(len(problems)))
            journal.config_rejected(old.generation, [str(problem) for problem in problems])
            self._counted("rejected")
            return Reloaded(old.generation, problems)
        for name, source in new.sources.items():
            if name in old.sources:
                source.inherit(old.sources[name])
        self.runtime = new
        self.last = LastReload(True, now)
        changes = differences(old, new)
        gone = self.on_removed(changes.get("routes", {}).get("removed", ()))
        warnings = (*new.warnings, *self.handed_over.differences(new.config), *gone)
        for warning in warnings:
            journal.config_warning(warning)
        if self.on_swap is not None:
            await self.on_swap(new)
        journal.config_loaded(new.generation, new.sha256, changes, self.pending_restart)
        self._counted("taken")
        return Reloaded(new.generation, (), warnings, changes, self.pending_restart)

    def refuse_unguarded(self, runtime: Runtime) -> None:
        """Raises ConfigError for a config that would leave the admin side open to other machines.

        What the file says of `admin.listen` is not enough: a new address takes effect at the next start, and a socket
        handed over by systemd may be any.
        """
        if self.exposed is not None and not runtime.gate.tokens:
            message = f"the admin side listens on {self.exposed}: a token is needed"
            raise ConfigError([Problem(str(self.path), 0, 0, "admin.token", message)])


def read(path: Path, generation: int, now: datetime, before: Runtime | None = None) -> Runtime:
    """The Runtime that a file describes, after the one `before`. Raises ConfigError with every mistake in it."""
    loaded: Loaded = config_file.load(path)
    return build(loaded, generation, now, before)


def differences(old: Runtime, new: Runtime) -> dict[str, Any]:
    """What changed between two configs, by name; never a value."""
    changes: dict[str, Any] = {}
    before = {route.name: route for route in old.config.routes}
    after = {route.name: route for route in new.config.routes}
    for kind, was, now in (
        ("routes", before, after),
        ("sources", old.config.sources, new.config.sources),
        ("notifiers", old.config.notifiers, new.config.notifiers),
    ):
        found = {
            "added": sorted(now.keys() - was.keys()),
            "removed": sorted(was.keys() - now.keys()),
            "changed": sorted(name for name in now.keys() & was.keys() if now[name] != was[name]),
        }
        if any(found.values()):
            changes[kind] = found
    other = [
        key
        for key in ("server", "admin", "store", "log", "defaults")
        if getattr(old.config, key) != getattr(new.config, key)
    ]
    if other:
        changes["other"] = other
    return changes


def pending_restart(started_with: Runtime, running: Runtime) -> tuple[str, ...]:
    """What cannot change live and differs from what the process started with."""
    was, now = started_with.config, running.config
    found = []
    if was.server.listen != now.server.listen:
        found.append("server.listen")
    if (was.server.tls is None) != (now.server.tls is None):
        found.append("server.tls")
    if was.admin.listen != now.admin.listen:
        found.append("admin.listen")
    if was.store.url != now.store.url:
        found.append("store.url")
    return tuple(found)


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
