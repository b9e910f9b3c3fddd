"""Prometheus' text format, version 0.0.4, and what counts for it.

https://prometheus.io/docs/instrumenting/exposition_formats/. The official library does the same with a lock for each
number, which the hot path would pay for, and takes along servers of its own, for HTTP and WSGI. All that counts here
does so on the event loop.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import field
from itertools import accumulate
from typing import Literal, Protocol

from relay.immutable import immutable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@immutable
class Family:
    """A metric as it is at a moment."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    samples: list[tuple[str, Mapping[str, str], float]] = field(default_factory=list)
    """What comes after the name, labels, and the number."""

    def add(self, value: float, **labels: str) -> None:
        """A series."""
        self.samples.append(("", labels, value))


class Metric(Protocol):
    """What can say how it is."""

    def families(self) -> Iterable[Family]:
        """What it comes to at the moment."""
        ...


class Counter:
    """So many until now."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        """One more."""
        self.value += 1


class Counters:
    """Counters of one metric. The first of its labels names something of the config."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._known: dict[tuple[str, ...], Counter] = {}
        if not labels:
            self.labels()

    def labels(self, *values: str) -> Counter:
        """The series of these values."""
        found = self._known.get(values)
        if found is None:
            found = self._known[values] = Counter()
        return found

    def inc(self, *values: str) -> None:
        """One more in the series of these values."""
        found = self._known.get(values)
        if found is None:
            found = self.labels(*values)
        found.value += 1

    def keep(self, names: Collection[str]) -> None:
        """Drop the series of everything else. What ends later for something that is gone makes a series again, which
        lasts until this is called the next time."""
        for values in [values for values in self._known if values[0] not in names]:
            del self._known[values]

    def families(self) -> Iterator[Family]:
        """See Metric."""
        family = Family(self._name, "counter", self._text)
        for values, counter in self._known.items():
            family.add(counter.value, **dict(zip(self._labels, values, strict=True)))
        yield family


class Timing:
    """How often something took how long, by upper bounds in seconds."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def add_to(self, family: Family, labels: Mapping[str, str]) -> None:
        """How many took so long at most, by bound, how many there were, and how long all took together."""
        below = 0
        for bound, below in zip((*self._bounds, math.inf), accumulate(self._counts), strict=True):
            family.samples.append(("_bucket", {**labels, "le": number(bound)}, below))
        family.samples.extend((("_count", labels, below), ("_sum", labels, self._sum)))


class Timings:
    """How long something took, for each value of a label; without one, of all."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> None:
        self._name, self._text, self._bounds, self._labels = name, text, bounds, labels
        self._known: dict[tuple[str, ...], Timing] = {}

    def labels(self, *values: str) -> Timing:
        """The series of these values."""
        found = self._known.get(values)
        if found is None:
            found = self._known[values] = Timing(self._bounds)
        return found

    def keep(self, names: Collection[str]) -> None:
        """See Counters."""
        for values in [values for values in self._known if values[0] not in names]:
            del self._known[values]

    def families(self) -> Iterator[Family]:
        """See Metric."""
        family = Family(self._name, "histogram", self._text)
        for values, timing in self._known.items():
            timing.add_to(family, dict(zip(self._labels, values, strict=True)))
        yield family


def exposed(metrics: Iterable[Metric]) -> bytes:
    """All of them, as Prometheus reads them."""
    lines: list[str] = []
    for metric in metrics:
        for family in metric.families():
            text = family.text.replace("\\", r"\\").replace("\n", r"\n")
            lines += [f"# HELP {family.name} {text}\n", f"# TYPE {family.name} {family.kind}\n"]
            lines.extend(
                f"{family.name}{suffix}{_braced(labels)} {number(value)}\n" for suffix, labels, value in family.samples
            )
    return "".join(lines).encode()


def _braced(labels: Mapping[str, str]) -> str:
    named = (f'{name}="{_escaped(value)}"' for name, value in sorted(labels.items()))
    return f"{{{','.join(named)}}}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def number(value: float) -> str:
    """A number as Go, and so Prometheus, writes it: with an exponent from ten millions on."""
    value = float(value)
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    dot = text.find(".")
    if value > 0 and dot > 6:
        mantissa = f"{text[0]}.{text[1:dot]}{text[dot + 1 :]}".rstrip("0.")
        return f"{mantissa}e+{dot - 1:02d}"
    return "NaN" if math.isnan(value) else text
