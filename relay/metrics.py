"""What Prometheus scrapes.

Labels hold names of the config, and words of closed lists: nothing that a sender or a destination says. What the config
no longer names is dropped at the reload that takes it away, so that the number of series is bounded by the config
however often it changes. Counters of what it does name begin at 0, for Prometheus does not see a series' first step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime

from relay import __version__
from relay.delivery import Attempt, Delivered, Outcome, Result, State
from relay.exposition import CONTENT_TYPE as CONTENT_TYPE
from relay.exposition import Counters, Family, Metric, Timings, exposed
from relay.immutable import immutable
from relay.pace import Pace
from relay.process import Process
from relay.space import Space

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LATENCY = (*_SECONDS, 300, 1800, 3600, 21600, 86400)

REFUSALS = (
    "forbidden",
    "malformed_body",
    "method_not_allowed",
    "rate_limited",
    "timeout",
    "too_large",
    "unauthenticated",
    "unavailable",
    "unsupported_encoding",
)
"""What senders are answered when it is not a yes, as `outcome` of `relay_events_total`."""
GENUINE = ("accepted", "duplicate", "ignored")
"""What becomes of all others, likewise."""
OUTCOMES = (*GENUINE, *REFUSALS)
ENDED = (State.DELIVERED, State.FAILED, State.CANCELLED)
ROUTE_STATES = ("healthy", "unhealthy", "paused", "disabled")
NOTIFICATIONS = ("sent", "failed")
RELOADS = ("taken", "rejected")


@immutable
class Gauges:
    """What is asked of the daemon at each scrape."""

    generation: int
    sha256: str
    last_reload_ok: bool
    last_success_at: datetime
    pending: dict[str, int]
    held: dict[str, int]
    oldest_pending_s: dict[str, float]
    route_states: dict[str, str]
    stopped_routes: Collection[str]
    """Those that relay, not a person, keeps from sending."""
    last_events: Mapping[str, datetime | None]
    """When each source was last heard."""
    silent_sources: Collection[str]
    store_ok: bool
    store_size_bytes: int | None
    disk: Space | None
    """Where the store lies; None where that is another machine's."""
    journal_dropped: int
    internal_errors: int


class Metrics:
    """The counters that the hot path turns, and all that is scraped."""

    def __init__(self) -> None:
        self.pace = Pace()
        self._delivered: dict[str, _Delivered] = {}
        self.all: list[Metric] = [Process()]

        def counter(name: str, text: str, *labels: str) -> Counters:
            made = Counters(f"{name}_total", text, *labels)
            self.all.append(made)
            return made

        def histogram(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Timings:
            made = Timings(name, text, bounds, *labels)
            self.all.append(made)
            return made

        self.events = counter("relay_events", "Requests to sources, by what became of them", "source", "outcome")
        self.not_found = counter("relay_not_found", "Requests to addresses that no source has").labels()
        self.deliveries = counter("relay_deliveries", "Deliveries that ended", "route", "status")
        self.attempts = counter("relay_attempts", "Requests to destinations", "route", "outcome")
        self.duration = histogram(
            "relay_attempt_duration_seconds", "How long requests to destinations took", _SECONDS, "route"
        )
        self.latency = histogram(
            "relay_delivery_latency_seconds", "From the receipt of an event to its delivery", _LATENCY, "route"
        )
        self.filter_errors = counter("relay_filter_errors", "Events for which a route's where raised", "route")
        self.notifications = counter("relay_notifications", "Messages to people", "notifier", "outcome")
        self.commit = histogram(
            "relay_store_commit_seconds",
            "How long the store's commits took, fsync included",
            (0.0005, 0.001, 0.0025, *_SECONDS),
        ).labels()
        self.lag = histogram(
            "relay_event_loop_lag_seconds", "How much later than asked the event loop woke up", (0.001, *_SECONDS)
        ).labels()
        self.reloads = counter("relay_config_reloads", "Reloads of the config", "result")
        for result in RELOADS:
            self.reloads.labels(result)

    def follow(self, routes: Collection[str], sources: Collection[str], notifiers: Collection[str]) -> None:
        """Count for what the config names now, and for nothing else."""
        self._delivered.clear()
        for kept in (self.deliveries, self.attempts, self.filter_errors):
            kept.keep(routes)
        for measured in (self.duration, self.latency):
            measured.keep(routes)
        self.events.keep(sources)
        self.notifications.keep(notifiers)
        for series, names, words in (
            (self.deliveries, routes, ENDED),
            (self.events, sources, OUTCOMES),
            (self.notifications, notifiers, NOTIFICATIONS),
        ):
            for name in names:
                for word in words:
                    series.labels(name, str(word))

    def attempted(self, result: Result, outcome: Outcome) -> None:
        """Count an attempt and, where it ended the delivery, the delivery."""
        route, attempt = result.delivery.route, result.attempt
        if isinstance(outcome, Delivered) and attempt is not None:
            known = self._delivered.get(route)
            if known is None:
                known = self._delivered[route] = _Delivered(self, route)
            known.count(result, attempt)
            self.pace.delivered(result.at)
            return
        if attempt is not None and not isinstance(outcome, Delivered):
            self.attempts.labels(route, outcome.failure.code.value).inc()
            self.duration.labels(route).observe(attempt.duration_ms / 1000)
        if result.state is State.FAILED:
            self.deliveries.labels(route, State.FAILED.value).inc()
            self.pace.failed(result.at)

    def watch(self, gauges: Callable[[], Gauges]) -> None:
        """Ask this for the gauges at each scrape."""
        self.all.append(_Gauges(gauges))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return exposed(self.all)


class _Delivered:
    """The series of a route that a delivery counts for, found once."""

    __slots__ = ("_attempts", "_deliveries", "_duration", "_latency")

    def __init__(self, metrics: Metrics, route: str) -> None:
        self._attempts = metrics.attempts.labels(route, "delivered")
        self._deliveries = metrics.deliveries.labels(route, State.DELIVERED.value)
        self._duration = metrics.duration.labels(route)
        self._latency = metrics.latency.labels(route)

    def count(self, result: Result, attempt: Attempt) -> None:
        self._attempts.value += 1
        self._deliveries.value += 1
        self._duration.observe(attempt.duration_ms / 1000)
        self._latency.observe((result.at - result.delivery.event.received_at).total_seconds())


class _Gauges:
    def __init__(self, gauges: Callable[[], Gauges]) -> None:
        self._gauges = gauges

    def families(self) -> Iterator[Family]:
        now = self._gauges()

        def gauge(name: str, text: str, value: float, **labels: str) -> Family:
            family = Family(name, "gauge", text)
            family.add(value, **labels)
            return family

        yield gauge(
            "relay_config_last_reload_successful", "Whether the last reload was taken", float(now.last_reload_ok)
        )
        yield gauge(
            "relay_config_last_reload_success_timestamp_seconds",
            "When a config was last taken",
            now.last_success_at.timestamp(),
        )
        yield gauge("relay_config_info", "The running config", 1, generation=str(now.generation), sha256=now.sha256)
        yield gauge("relay_build_info", "The running program", 1, version=__version__)
        yield gauge("relay_store_ok", "Whether the store takes events in", float(now.store_ok))
        if now.store_size_bytes is not None:
            yield gauge("relay_store_size_bytes", "Size of the store's files", now.store_size_bytes)
        if now.disk is not None:
            yield gauge("relay_store_free_bytes", "What is left on the store's disk", now.disk.free)
            yield gauge("relay_store_disk_bytes", "Size of the store's disk", now.disk.size)
        yield _by("route", "relay_pending", "Deliveries that wait for their time or are being sent", now.pending)
        yield _by("route", "relay_held", "Deliveries kept back", now.held)
        yield _by(
            "route",
            "relay_oldest_pending_seconds",
            "For how long the longest waiting pending delivery has been due",
            now.oldest_pending_s,
        )
        states = Family("relay_route_state", "gauge", "1 for the state a route is in")
        for route, current in now.route_states.items():
            for state in ROUTE_STATES:
                states.add(float(state == current), route=route, state=state)
        yield states
        yield _by(
            "route",
            "relay_route_stopped",
            "1 while relay itself keeps a route from sending: it is unhealthy, or was paused by disable_after, a 410"
            " or a restored backup",
            {route: float(route in now.stopped_routes) for route in now.route_states},
        )
        yield _by(
            "source",
            "relay_source_last_event_timestamp_seconds",
            "When a source was last heard",
            {source: at.timestamp() for source, at in now.last_events.items() if at is not None},
        )
        yield _by(
            "source",
            "relay_source_silent",
            "1 while nothing has come from a source for its expect_every",
            {source: float(source in now.silent_sources) for source in now.last_events},
        )
        dropped = Family("relay_journal_dropped_total", "counter", "Log lines that could not be written")
        dropped.add(now.journal_dropped)
        yield dropped
        bugs = Family("relay_internal_errors_total", "counter", "Bugs of relay's own that were met")
        bugs.add(now.internal_errors)
        yield bugs


def _by(label: str, name: str, text: str, values: Mapping[str, float]) -> Family:
    family = Family(name, "gauge", text)
    for named, value in values.items():
        family.add(value, **{label: named})
    return family
