"""What Prometheus scrapes. Labels hold names from the config only: their number is bounded by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from relay import __version__
from relay.delivery import Delivered, Outcome, Result, State
from relay.pace import Pace

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LATENCY = (*_SECONDS, 300, 1800, 3600, 21600, 86400)


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
    store_ok: bool
    store_size_bytes: int


ROUTE_STATES = ("healthy", "unhealthy", "paused", "disabled")


class Metrics:
    """The counters that the hot path turns, and the registry of all."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.pace = Pace()
        self.events = Counter(
            "relay_events", "Requests to sources, by what became of them", ["source", "outcome"], registry=self.registry
        )
        self.deliveries = Counter(
            "relay_deliveries", "Deliveries that ended", ["route", "status"], registry=self.registry
        )
        self.attempts = Counter(
            "relay_attempts", "Requests to destinations", ["route", "outcome"], registry=self.registry
        )
        self.duration = Histogram(
            "relay_attempt_duration_seconds",
            "How long requests to destinations took",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.latency = Histogram(
            "relay_delivery_latency_seconds",
            "From the receipt of an event to its delivery",
            ["route"],
            buckets=_LATENCY,
            registry=self.registry,
        )
        self.filter_errors = Counter(
            "relay_filter_errors", "Events for which a route's where raised", ["route"], registry=self.registry
        )
        self.commit = Histogram(
            "relay_store_commit_seconds",
            "How long the store's commits took, fsync included",
            buckets=(0.0005, 0.001, 0.0025, *_SECONDS),
            registry=self.registry,
        )
        self.reloads = Counter("relay_config_reloads", "Reloads of the config", ["result"], registry=self.registry)

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
        yield gauge("relay_store_size_bytes", "Size of the store's files", now.store_size_bytes)
        yield _by_route("relay_pending", "Deliveries that wait for their time or are being sent", now.pending)
        yield _by_route("relay_held", "Deliveries kept back", now.held)
        yield _by_route(
            "relay_oldest_pending_seconds",
            "For how long the longest waiting pending delivery has been due",
            now.oldest_pending_s,
        )
        states = GaugeMetricFamily("relay_route_state", "1 for the state a route is in", labels=["route", "state"])
        for route, current in now.route_states.items():
            for state in ROUTE_STATES:
                states.add_metric([route, state], float(state == current))
        yield states


def _by_route(name: str, text: str, values: dict[str, float] | dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["route"])
    for route, value in values.items():
        family.add_metric([route], value)
    return family
