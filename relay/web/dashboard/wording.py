"""How the dashboard writes things: text of strangers, times, ids, numbers."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from relay.clock import rfc3339
from relay.delivery import HeldReason, LogItem

_ID_SHOWN = 18  # the prefix, the time and the counter: what follows is the same for all ids of a store
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)")
_STEPS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def visible(text: str, keep: str = "") -> str:
    """Text in which nothing is hidden: control and direction characters are escaped, halves of pairs too."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def finalized(value: object) -> object:
    """What each `{{ … }}` of a template comes to, before it is escaped: nobody has to think of `visible` there."""
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value


def cut(value: object, most: int = 80) -> str:
    """As much of a text as there is room for."""
    text = str(value)
    shown = visible(text[:most])
    return shown if len(text) <= most and len(shown) <= 2 * most else shown[: 2 * most].rstrip() + "…"


def span(seconds: float) -> str:
    """`45 s`, `5 min`, `3 h`, `2 d`."""
    for length, unit in _STEPS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "0 s"


def ago(moment: datetime, now: datetime) -> str:
    """`5 min ago`, `in 2 h`."""
    seconds = (now - moment).total_seconds()
    if seconds >= 1:
        return f"{span(seconds)} ago"
    return "just now" if seconds > -1 else f"in {span(-seconds)}"


def exact(moment: datetime) -> str:
    """`2026-11-23 20:00:00 UTC`."""
    return f"{moment.astimezone(UTC).isoformat(' ')[:19]} UTC"


def iso(moment: datetime) -> str:
    """As scripts read it."""
    return rfc3339(moment)


@pass_context
def when(context: Context, moment: datetime | str | None) -> Markup:
    """A time as one reads it, with the exact one in its title."""
    return _time(moment, "ago", lambda at: ago(at, context["now"]))


@pass_context
def clock(context: Context, moment: datetime | str | None) -> Markup:
    """A time of day, with the date where that is another one; browsers put it into their own zone."""
    today = context["now"].date()
    return _time(moment, "clock", lambda at: at.strftime("%H:%M:%S" if at.date() == today else "%b %-d %H:%M:%S"))


@pass_context
def due(context: Context, moment: datetime | str | None) -> Markup:
    """When something is to happen: `in 5 min`, or `now` once it may."""
    return _time(moment, "due", lambda at: ago(at, context["now"]) if at > context["now"] else "now")


@pass_context
def timed(context: Context, text: str) -> Markup:
    """A sentence of relay's own with the moments in it as times that one reads."""
    parts = _MOMENT.split(cut(text, 600))
    return Markup("").join(clock(context, part) if place % 2 else escape(part) for place, part in enumerate(parts))


def _time(moment: datetime | str | None, kind: str, text: Any) -> Markup:
    if moment is None:
        return Markup('<span class="none">–</span>')
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return Markup('<time datetime="{}" title="{}" data-{}>{}</time>').format(
        rfc3339(at), exact(at), kind, text(at.astimezone(UTC))
    )


def short(id_text: str) -> str:
    """As much of an id as tells it from others, and as the command line takes."""
    return id_text if len(id_text) <= _ID_SHOWN else id_text[:_ID_SHOWN] + "…"


def number(value: int) -> str:
    """`12,345`."""
    return f"{value:,}"


def size(value: int) -> str:
    """`1.2 MiB`."""
    for unit, length in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= length:
            return f"{value / length:.1f} {unit}"
    return f"{value} bytes"


def count(value: int, noun: str) -> str:
    """`1 route`, `2 routes`, `3 deliveries`, `4 relays`."""
    several = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeou" else f"{noun}s"
    return f"{value:,} {noun if value == 1 else several}"


def address(text: object) -> str:
    """Text as part of a URL: also text that UTF-8 cannot hold."""
    return quote(str(text), safe="", errors="replace")


def lines(text: str) -> Markup:
    """Foreign text of several lines."""
    return escape(visible(text, keep="\n\t"))


def held(reason: str | None, whose: str = "its route") -> str:
    """How long something is kept back, and by what: `held until its route is resumed`."""
    match reason:
        case HeldReason.PAUSED:
            return f"held until {whose} is resumed"
        case HeldReason.DISABLED:
            return f"held while {whose} is disabled"
        case HeldReason.REMOVED:
            return f"held: {whose} is no longer in the config"
    return f"held until {whose} may send"


def what(item: LogItem) -> str:
    """`publish article`: what an item says happened."""
    if item.status == "rejected":
        return "refused request"
    said = " ".join(cut(word, 60) for word in (item.action, item.model) if word)
    return said or cut(item.event or "event", 80)


def result(item: LogItem) -> str:
    """How it went so far, in a few words: `200`, `HTTP 503 · try 2`."""
    said = []
    if item.error is not None:
        known = item.error.message or item.error.code
        said.append(known)
        if item.code is not None and str(item.code) not in known:
            said.insert(0, str(item.code))
    elif item.reason is not None:
        said.append(f"{item.code}: {item.reason}" if item.code is not None else item.reason)
    elif item.code is not None:
        said.append(str(item.code))
    elif item.merged_into is not None:
        said.append("merged into another one")  # what became of that one is not looked up for each row
    elif item.status == "unmatched":
        said.append("no route wanted it")
    if item.duration_ms is not None:
        said.append(f"{item.duration_ms:,} ms")
    if item.attempts > 1:
        said.append(f"{item.attempts} attempts")
    return cut(" · ".join(said), 140)
