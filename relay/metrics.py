"""What Prometheus scrapes.

Labels hold names of the config, and words of closed lists: nothing that a sender or a destination says. What the config
no longer names is dropped at the reload that takes it away, so that the number of series is bounded by the config
however often it changes. Counters of what it does name begin at 0, for Prometheus does not see a series' first step.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from relay import __version__
from relay.delivery import Delivered, Outcome, Result, State
from relay.pace import Pace

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

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
OUTCOMES = ("accepted", "duplicate", "ignored", *REFUSALS)
ENDED = (State.DELIVERED, State.FAILED, State.CANCELLED)
ROUTE_STATES = ("healthy", "unhealthy", "paused", "disabled")
NOTIFICATIONS = ("sent", "failed")
RELOADS = ("taken", "rejected")

# When a series began is of no use to anybody here, and would double their number.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations


@dataclass(frozen=True, slots=True)
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
    store_free_bytes: int | None
    journal_dropped: int


class Timing:
    """How often something took how long, by upper bounds in seconds. The library's own histogram does the same with a
    lock for each bound, which the hot path would pay for twice an attempt."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """How many took so long at most, by bound, and how long all took together."""
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True)), self._sum


class Timings(Collector):
    """How long something took, for each route."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...]) -> None:
        self._name, self._text, self._bounds = name, text, bounds
        self._known: dict[str, Timing] = {}

    def labels(self, route: str) -> Timing:
        """The series of a route."""
        found = self._known.get(route)
        if found is None:
            found = self._known[route] = Timing(self._bounds)
        return found

    def keep(self, names: Collection[str]) -> None:
        """See Counts."""
        for name in self._known.keys() - set(names):
            del self._known[name]

    def describe(self) -> Iterable[Metric]:
        return [HistogramMetricFamily(self._name, self._text, labels=["route"])]

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=["route"])
        for route, timing in self._known.items():
            buckets, total = timing.buckets()
            family.add_metric([route], buckets, total)
        yield family


class Count:
    """How often something happened."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        """Once more."""
        self.value += 1


class Counts(Collector):
    """Series of one counter, whose first label names something of the config. The library's own has a lock for each
    series, which the hot path would pay for three times an event."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._known: dict[tuple[str, ...], Count] = {}

    def labels(self, *values: str) -> Count:
        """The series of these values."""
        found = self._known.get(values)
        if found is None:
            found = self._known[values] = Count()
        return found

    def keep(self, names: Collection[str]) -> None:
        """Drop the series of everything else. What ends later for something that is gone makes a series again, which
        lasts until this is called the next time."""
        for values in [values for values in self._known if values[0] not in names]:
            del self._known[values]

    def describe(self) -> Iterable[Metric]:
        return [CounterMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, count in self._known.items():
            family.add_metric(values, count.value)
        yield family


class Metrics:
    """The counters that the hot path turns, and the registry of all."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.pace = Pace()
        ProcessCollector(registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counts:
            made = Counts(name, text, labels)
            self.registry.register(made)
            return made

        def histogram(name: str, text: str, bounds: tuple[float, ...]) -> Timings:
            made = Timings(name, text, bounds)
            self.registry.register(made)
            return made

        self.events = counter("relay_events", "Requests to sources, by what became of them", "source", "outcome")
        self.not_found = Counter("relay_not_found", "Requests to addresses that no source has", registry=self.registry)
        self.deliveries = counter("relay_deliveries", "Deliveries that ended", "route", "status")
        self.attempts = counter("relay_attempts", "Requests to destinations", "route", "outcome")
        self.duration = histogram("relay_attempt_duration_seconds", "How long requests to destinations took", _SECONDS)
        self.latency = histogram(
            "relay_delivery_latency_seconds", "From the receipt of an event to its delivery", _LATENCY
        )
        self.filter_errors = counter("relay_filter_errors", "Events for which a route's where raised", "route")
        self.notifications = counter("relay_notifications", "Messages to people", "notifier", "outcome")
        self.commit = Histogram(
            "relay_store_commit_seconds",
            "How long the store's commits took, fsync included",
            buckets=(0.0005, 0.001, 0.0025, *_SECONDS),
            registry=self.registry,
        )
        self.lag = Histogram(
            "relay_event_loop_lag_seconds",
            "How much later than asked the event loop woke up",
            buckets=(0.001, *_SECONDS),
            registry=self.registry,
        )
        self.reloads = Counter("relay_config_reloads", "Reloads of the config", ["result"], registry=self.registry)
        for result in RELOADS:
            self.reloads.labels(result)

    def follow(self, routes: Collection[str], sources: Collection[str], notifiers: Collection[str]) -> None:
        """Count for what the config names now, and for nothing else."""
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
        route = result.delivery.route
        if result.attempt is not None:
            word = "delivered" if isinstance(outcome, Delivered) else outcome.failure.code.value
            self.attempts.labels(route, word).inc()
            self.duration.labels(route).observe(result.attempt.duration_ms / 1000)
        if result.state is not State.PENDING:
            self.deliveries.labels(route, result.state.value).inc()
            self.pace.ended(result.state, result.at)
            if result.state is State.DELIVERED:
                self.latency.labels(route).observe((result.at - result.delivery.event.received_at).total_seconds())

    def watch(self, gauges: Callable[[], Gauges]) -> None:
        """Ask this for the gauges at each scrape."""
        self.registry.register(_Gauges(gauges))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Gauges(Collector):
    def __init__(self, gauges: Callable[[], Gauges]) -> None:
        self._gauges = gauges

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        now = self._gauges()

        def gauge(name: str, text: str, value: float) -> Metric:
            return GaugeMetricFamily(name, text, value=value)

        yield gauge(
            "relay_config_last_reload_successful", "Whether the last reload was taken", float(now.last_reload_ok)
        )
        yield gauge(
            "relay_config_last_reload_success_timestamp_seconds",
            "When a config was last taken",
            now.last_success_at.timestamp(),
        )
        info = GaugeMetricFamily("relay_config_info", "The running config", labels=["generation", "sha256"])
        info.add_metric([str(now.generation), now.sha256], 1)
        yield info
        version = GaugeMetricFamily("relay_build_info", "The running program", labels=["version"])
        version.add_metric([__version__], 1)
        yield version
        yield gauge("relay_store_ok", "Whether the store can write", float(now.store_ok))
        if now.store_size_bytes is not None:
            yield gauge("relay_store_size_bytes", "Size of the store's files", now.store_size_bytes)
        if now.store_free_bytes is not None:
            yield gauge("relay_store_free_bytes", "What is left on the store's disk", now.store_free_bytes)
        yield _by("route", "relay_pending", "Deliveries that wait for their time or are being sent", now.pending)
        yield _by("route", "relay_held", "Deliveries kept back", now.held)
        yield _by(
            "route",
            "relay_oldest_pending_seconds",
            "For how long the longest waiting pending delivery has been due",
            now.oldest_pending_s,
        )
        states = GaugeMetricFamily("relay_route_state", "1 for the state a route is in", labels=["route", "state"])
        for route, current in now.route_states.items():
            for state in ROUTE_STATES:
                states.add_metric([route, state], float(state == current))
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
        dropped = CounterMetricFamily("relay_journal_dropped", "Log lines that could not be written")
        dropped.add_metric([], now.journal_dropped)
        yield dropped


def _by(label: str, name: str, text: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for named, value in values.items():
        family.add_metric([named], value)
    return family
