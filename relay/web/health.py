"""What `/health` says: one word for a load balancer, and all that an operator needs to see why."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from relay import __version__, journal
from relay.clock import Clock, from_ms
from relay.dispatcher import Dispatcher
from relay.health import RouteState
from relay.listening import Listening
from relay.metrics import Gauges
from relay.oversight import Oversight
from relay.reload import Reloader
from relay.space import Space
from relay.steps import BEHIND
from relay.store import Counts, Store, StoreStatus, Unavailable
from relay.web import shape

_STUCK = 30.0
_LEAST = 15.0  # seconds: a dispatcher with nothing to do looks around every 5
_OVERDUE = timedelta(minutes=5)
_REFRESH = 1.0  # seconds for which the store's figures are good enough


class Health:
    """Gathers the state of everything."""

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        reloader: Reloader,
        clock: Clock,
        oversight: Oversight,
        listening: Listening,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._reloader = reloader
        self._clock = clock
        self._oversight = oversight
        self._listening = listening
        self._began = clock.monotonic()
        self._status: StoreStatus | None = None
        self._status_at = 0.0
        self._unreadable: str | None = None
        self.listening = False
        self.closing = False

    @property
    def ready(self) -> bool:
        """Store open, config loaded, listening, and not on the way out."""
        return self.listening and not self.closing

    def alive(self, within: float) -> bool:
        """Whether dispatcher and store got on within so many seconds: what the watchdog stands for."""
        return self._stuck(max(within, _LEAST)) is None and self._store.stalled(within) is None

    def _stuck(self, within: float = _STUCK) -> str | None:
        idle = self._clock.monotonic() - self._dispatcher.progress_at
        return f"the dispatcher made no progress for {idle:.0f} s" if idle > within else None

    async def refresh(self) -> StoreStatus | None:
        """The store's figures, asked for at most once a second, and when something waits after nothing did; the last
        ones known while it cannot be read."""
        if (
            self._status is None
            or self._clock.monotonic() - self._status_at > _REFRESH
            or (self._status.oldest_pending is None and self._pending and self._unreadable is None)
        ):
            try:
                self._status = await self._store.status()
                self._unreadable = None
            except Unavailable as error:
                self._unreadable = str(error)
            self._status_at = self._clock.monotonic()
        return self._status

    @property
    def _pending(self) -> int:
        return sum(each.pending for each in self._store.counts().values())

    @property
    def _trouble(self) -> str | None:
        return self._store.trouble() or self._unreadable

    @property
    def _disk(self) -> Space | None:
        return self._status.space if self._status is not None else None

    async def report(self) -> dict[str, Any]:
        """The whole of `/health`."""
        store = await self.refresh()
        runtime = self._reloader.runtime
        last = self._reloader.last
        now = self._clock.now()
        trouble = self._trouble
        pending = self._pending
        failing = {
            "store": trouble,
            "dispatcher": self._stuck(),
            "shutdown": "shutting down" if self.closing else None,
        }
        degraded = {
            "reload": None if last.ok else f"the last reload failed: {last.error}",
            "routes": self._unwell(),
            "sources": self._silent(),
            "overdue": self._overdue(store.oldest_by_route, now) if store is not None else None,
        }
        disk = self._disk
        refused = disk is not None and disk.lacking
        (failing if refused else degraded)["disk"] = disk.said if disk is not None and disk.little else None
        # Works as somebody set it up, and may still surprise: it is told, and counts for nothing.
        behind = from_ms(self._store.ids.newest_ms) - now
        remarkable = {
            "listen": "; ".join(self._reloader.handed_over.differences(runtime.config)) or None,
            "clock": f"it is {round(behind.total_seconds())} s behind the newest entry of the store: set it, by NTP if"
            " possible"
            if behind >= BEHIND
            else None,
        }
        status = "failing" if any(failing.values()) else "degraded" if any(degraded.values()) else "ok"
        return {
            "status": status,
            "version": __version__,
            "uptime_s": round(self._clock.monotonic() - self._began, 3),
            "pid": os.getpid(),
            "config": {
                "path": str(self._reloader.path),
                "generation": runtime.generation,
                "sha256": runtime.sha256,
                "loaded_at": shape.when(runtime.loaded_at),
                "last_reload": {"ok": last.ok, "at": shape.when(last.at), "error": last.error},
                "pending_restart": list(self._reloader.pending_restart),
            },
            "store": {
                "ok": trouble is None and not refused,
                "backend": store.backend if store is not None else None,
                "version": store.version if store is not None else None,
                "pending": pending,
                "held": sum(each.held for each in self._store.counts().values()),
                "oldest_pending_s": None
                if store is None or store.oldest_pending is None or not pending
                else round(max(0.0, (now - store.oldest_pending).total_seconds()), 3),
                "size_bytes": store.size_bytes if store is not None else None,
                "free_bytes": disk.free if disk is not None else None,
            },
            **self._relays(),
            "routes": [self.route(name) for name in runtime.routing.routes],
            "checks": {name: reason or "ok" for name, reason in (failing | degraded | remarkable).items()},
        }

    def _relays(self) -> dict[str, list[dict[str, Any]]]:
        """All that share the store, where it can be shared."""
        if self._store.shared is None:
            return {}
        relays = [
            {
                "name": each.name,
                "version": each.version,
                "started_at": shape.when(from_ms(each.started_at)),
                "me": each.me,
                "stale_results": each.stale,
            }
            for each in self._store.shared.members()
        ]
        return {"relays": relays}

    def route(self, name: str) -> dict[str, Any]:
        """How a route is doing, as `/health` and `/routes` show it."""
        counts = self._store.counts().get(name, Counts())
        health, state = self._oversight.of(name), self._oversight.state(name)
        return {
            "name": name,
            "state": state,
            "reason": "the config says enabled: false" if state is RouteState.DISABLED else health.reason,
            "since": shape.when(health.since),
            "pending": counts.pending,
            "held": counts.held,
            "consecutive_failures": health.consecutive_failures,
            "last_success_at": shape.when(health.last_success_at),
            "last_error": shape.failure(health.last_error),
            "next_probe_at": shape.when(health.probe_at) if state is RouteState.UNHEALTHY else None,
        }

    def _stopped(self) -> list[str]:
        """The routes that relay, not a person, keeps from sending."""
        routes = self._reloader.runtime.routing.routes
        return [name for name, route in routes.items() if route.enabled and self._oversight.of(name).by_itself]

    def _unwell(self) -> str | None:
        return ", ".join(f"{name} is {self._oversight.of(name).state}" for name in self._stopped()) or None

    def _silent(self) -> str | None:
        silent = [
            f"nothing from {name} since {shape.when(self._listening.of(name).silent_since)}"
            for name in self._listening.silent
        ]
        return ", ".join(silent) or None

    def _overdue(self, oldest: Mapping[str, datetime], now: datetime) -> str | None:
        """Of the route with the oldest one; of a thousand others only how many they are."""
        late = {name: due for name, due in oldest.items() if now - due > _OVERDUE}
        if not late:
            return None
        name = min(late, key=late.__getitem__)
        waits = self._dispatcher.waits(name)
        said = f"a delivery of route {name} has been due since {shape.when(late[name])}"
        cause = f": {waits.message}" if waits is not None else ""
        others = len(late) - 1
        more = f"; as have some of {others} other route{'s' if others > 1 else ''}" if others else ""
        return said + cause + more

    def gauges(self) -> Gauges:
        """The figures of a scrape; `refresh` first."""
        runtime = self._reloader.runtime
        counts = self._store.counts()
        names = runtime.routing.routes.keys() | counts.keys()
        now = self._clock.now()
        status = self._status
        disk = self._disk
        # What is due later has not waited at all yet.
        first_due = status.oldest_by_route if status is not None else {}
        waited = {name: max(0.0, (now - due).total_seconds()) for name, due in first_due.items()}
        return Gauges(
            generation=runtime.generation,
            sha256=runtime.sha256,
            last_reload_ok=self._reloader.last.ok,
            last_success_at=runtime.loaded_at,
            pending={name: counts[name].pending if name in counts else 0 for name in names},
            held={name: counts[name].held if name in counts else 0 for name in names},
            oldest_pending_s={name: waited.get(name, 0.0) for name in names},
            route_states={name: self._oversight.state(name) for name in runtime.routing.routes},
            stopped_routes=self._stopped(),
            last_events={name: self._listening.of(name).last_event_at for name in runtime.sources},
            silent_sources=self._listening.silent,
            store_ok=self._trouble is None and not (disk is not None and disk.lacking),
            store_size_bytes=status.size_bytes if status is not None else None,
            disk=disk,
            journal_dropped=journal.outlet.dropped,
            internal_errors=journal.bugs.met,
        )
