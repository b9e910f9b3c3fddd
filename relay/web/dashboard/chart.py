"""Bars for minutes, as SVG that a strict content policy lets through: attributes and classes, no styles."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from relay.pace import Minute

_WIDE, _HIGH, _GAP = 8, 48, 2


def events(minutes: Sequence[Minute]) -> Markup:
    """Events per minute."""
    return _bars(minutes, [("bar-events", [minute.events for minute in minutes])], "event")


def deliveries(minutes: Sequence[Minute]) -> Markup:
    """Deliveries that ended in each minute, what failed below what arrived."""
    series = [
        ("bar-failed", [minute.failed for minute in minutes]),
        ("bar-delivered", [minute.delivered for minute in minutes]),
    ]
    return _bars(minutes, series, "delivery")


def _bars(minutes: Sequence[Minute], series: Sequence[tuple[str, Sequence[int]]], noun: str) -> Markup:
    sums = [sum(values[place] for _, values in series) for place in range(len(minutes))]
    top = _ceiling(max(sums, default=0))
    parts = []
    for place, minute in enumerate(minutes):
        x, y = place * _WIDE, float(_HIGH)
        said = ", ".join(f"{values[place]:,} {name.removeprefix('bar-')}" for name, values in series if values[place])
        parts.append(Markup("<g><title>{} UTC: {}</title>").format(minute.at.strftime("%H:%M"), said or "nothing"))
        parts.append(Markup('<rect class="bar-none" x="{}" y="0" width="{}" height="{}"/>').format(x, _WIDE, _HIGH))
        for name, values in series:
            if values[place]:
                height = max(1.5, values[place] / top * _HIGH)
                y -= height
                parts.append(
                    Markup('<rect class="{}" x="{}" y="{:.1f}" width="{}" height="{:.1f}"/>').format(
                        name, x, max(0.0, y), _WIDE - _GAP, height
                    )
                )
        parts.append(Markup("</g>"))
    words = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    label = f"{words} per minute over the last hour: {sum(sums):,} in all, at most {max(sums, default=0):,} in a minute"
    return Markup(
        '<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}'
        '<line class="axis" x1="0" x2="{}" y1="{}" y2="{}"/></svg>'
    ).format(label, len(minutes) * _WIDE, _HIGH + 1, Markup("").join(parts), len(minutes) * _WIDE, _HIGH, _HIGH)


def _ceiling(most: int) -> int:
    """The top of the scale: a few events are not to look like a flood."""
    return max(4, most)
