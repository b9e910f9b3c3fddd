"""Prometheus' text format: what the official library would write."""

from __future__ import annotations

import math
import struct

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from relay.exposition import Counters, Family, Timings, exposed, number

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.floats() | st.integers(-(2**60), 2**60).map(float)


class Given(Collector):
    def __init__(self, *families: object) -> None:
        self._families = families

    def collect(self) -> object:  # type: ignore[override]
        return self._families


class Ours:
    def __init__(self, *families: Family) -> None:
        self._families = families

    def families(self) -> tuple[Family, ...]:
        return self._families


def theirs(*families: object) -> bytes:
    registry = CollectorRegistry()
    registry.register(Given(*families))
    return generate_latest(registry)


@given(TEXTS, st.lists(st.tuples(TEXTS, TEXTS, NUMBERS)))
def test_gauges_and_counters_are_written_as_the_library_writes_them(
    text: str, series: list[tuple[str, str, float]]
) -> None:
    gauge, counter = Family("a", "gauge", text), Family("b_total", "counter", text)
    their_gauge = GaugeMetricFamily("a", text, labels=["z", "route"])
    their_counter = CounterMetricFamily("b", text)
    for one, other, value in series:
        gauge.add(value, z=one, route=other)
        their_gauge.add_metric([one, other], value)
        counter.add(value)
        their_counter.add_metric([], value)
    assert exposed([Ours(gauge, counter)]) == theirs(their_gauge, their_counter)


@given(st.integers(0, 2**64 - 1))
def test_numbers_of_all_sizes_are_written_as_the_library_writes_them(bits: int) -> None:
    (value,) = struct.unpack("d", struct.pack("Q", bits))
    family = GaugeMetricFamily("a", "text", value=value)
    assert f"\na {number(value)}\n".encode() in theirs(family)


@given(st.lists(st.floats(0, 1e9)))
def test_timings_are_written_as_the_library_writes_them(seconds: list[float]) -> None:
    bounds = (0.005, 1, 30, 86400, 1e8)
    timings = Timings("t_seconds", "text", bounds, "route")
    for each in seconds:
        timings.labels("r").observe(each)
    family = HistogramMetricFamily("t_seconds", "text", labels=["route"])
    if seconds:
        below = [sum(each <= bound for each in seconds) for bound in (*bounds, math.inf)]
        family.add_metric(["r"], list(zip(map(number, (*bounds, math.inf)), below, strict=True)), sum(seconds))
    assert exposed([timings]) == theirs(family)


def test_what_the_config_no_longer_names_is_dropped() -> None:
    counters, timings = Counters("a_total", "text", "route", "outcome"), Timings("t", "text", (1,), "route")
    for route in ("kept", "gone"):
        counters.labels(route, "sent").inc()
        timings.labels(route).observe(2)
    for metric in (counters, timings):
        metric.keep({"kept", "other"})
        assert b"gone" not in exposed([metric])
        assert b"kept" in exposed([metric])
    again = counters.labels("gone", "sent")
    assert again.value == 0
