"""What people are told, and the words for it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import UTC, datetime, timedelta

from relay.immutable import immutable
from relay.jsontext import whole
from relay.notifier import Kind, Message

_LONGEST_REASON = 300
_LONGEST_NAME = 80


@immutable
class Fact:
    """Something that people may want to know of a route or a source."""

    kind: Kind
    subject: str
    at: datetime
    reason: str = ""
    """Why, in one line, as an operator would read it elsewhere."""
    ids: tuple[str, ...] = ()
    """The deliveries or requests that it is about."""
    since: datetime | None = None
    """When that began which it is about; None where it begins with this fact."""
    to: tuple[str, ...] = ()
    """The notifiers that are to tell it."""


@immutable
class Notice:
    """One or more facts of one kind about one subject, to be told together."""

    last: Fact
    count: int
    first_at: datetime
    ids: tuple[str, ...] = ()
    """The first few."""
    since: datetime | None = None
    """Of a state: since when there has been, or was, trouble."""
    meanwhile: Mapping[Kind, int] = field(default_factory=dict)
    """Of a route's state: what else came of it and is told by this notice alone."""

    def message(self) -> Message:
        """It in words."""
        fact = self.last
        name = _plain(fact.subject, _LONGEST_NAME)
        title, *lines = _WORDS[fact.kind](self, name)
        return Message(fact.kind, fact.subject, title, "\n".join(line for line in lines if line), fact.at, self.count)


def lasted(duration: timedelta) -> str:
    """How long something took, as people say it: `40 s`, `12 min`, `2 h 5 min`, `3 d 4 h`."""
    seconds = max(0, round(duration.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 60:
        return f"{minutes} min"
    if hours < 24:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"


def moment(at: datetime) -> str:
    """`2026-11-23 20:00:00 UTC`."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


# --- the words --------------------------------------------------------------------------------------------------------


def _unhealthy(notice: Notice, name: str) -> list[str]:
    return [
        f"Route {name} keeps failing: unhealthy now" if notice.count > 1 else f"Route {name} is unhealthy",
        _because(f"Its destination cannot be used since {moment(notice.since or notice.last.at)}", notice),
        _turned(notice),
        _meanwhile("So far", notice),
        "Its deliveries wait; one at a time is tried, and once one has arrived the others follow by themselves.",
        f"See: relay logs --route {name} --status pending",
    ]


def _recovered(notice: Notice, name: str) -> list[str]:
    began, ended = notice.since, notice.last.at
    return [
        f"Route {name} keeps failing: recovered now" if notice.count > 1 else f"Route {name} has recovered",
        _because(f"It sends again since {moment(ended)}", notice),
        f"It could not since {moment(began)}, for {lasted(ended - began)}." if began is not None else "",
        _turned(notice),
        "What waits is being sent, slowly at first.",
        _meanwhile("Meanwhile", notice),
        *(_all_failed(name) if notice.meanwhile else ()),
    ]


def _paused(notice: Notice, name: str) -> list[str]:
    return [
        f"Route {name} is paused",
        _because(f"It sends nothing since {moment(notice.last.at)}", notice),
        _turned(notice),
        _meanwhile("Before that", notice),
        "Its deliveries are held, new ones too, until somebody resumes it.",
        f"Resume it: relay resume {name}",
        *(_all_failed(name) if notice.meanwhile else ()),
    ]


def _failed(notice: Notice, name: str) -> list[str]:
    if notice.count == 1:
        return [
            f"A delivery of route {name} failed",
            _because(f"It was given up at {moment(notice.last.at)}", notice),
            *_one(notice, name),
        ]
    return [
        f"{notice.count} deliveries of route {name} failed",
        _because(f"They were given up {_between(notice)}", notice, "the last one: "),
        _which(notice),
        *_all_failed(name),
    ]


def _queue_full(notice: Notice, name: str) -> list[str]:
    many = "A delivery was" if notice.count == 1 else f"{notice.count} deliveries were"
    return [
        f"The queue of route {name} is full",
        _because(f"{many} stored as failed {_between(notice)}, because too much waits (max_pending)", notice),
        _which(notice),
        f"Why does so much wait? relay logs --route {name} --status pending,held",
        *_all_failed(name),
    ]


def _silent(notice: Notice, name: str) -> list[str]:
    return [
        f"Source {name} comes and goes: silent now" if notice.count > 1 else f"Source {name} is silent",
        _because("Nothing comes from it", notice),
        _turned(notice),
        "Does it still send, and to this address? Are its requests refused?",
        f"See: relay logs --source {name} --status rejected",
    ]


def _heard(notice: Notice, name: str) -> list[str]:
    began, ended = notice.since, notice.last.at
    after = f", after {lasted(ended - began)}" if began is not None else ""
    return [
        f"Source {name} comes and goes: heard now" if notice.count > 1 else f"Source {name} sends again",
        _because(f"An event came at {moment(ended)}{after}", notice),
        _turned(notice),
    ]


def _rejected(notice: Notice, name: str) -> list[str]:
    often = f", {notice.count} times since {moment(notice.first_at)}" if notice.count > 1 else ""
    return [
        f"Requests to source {name} are refused",
        _because(f"Several in a row were refused, until {moment(notice.last.at)}{often}", notice),
        "Not every sender tries again: what was refused may be lost. Do both sides have the same secret?",
        f"See: relay logs --source {name} --status rejected",
    ]


_WORDS: dict[Kind, Callable[[Notice, str], list[str]]] = {
    Kind.UNHEALTHY: _unhealthy,
    Kind.RECOVERED: _recovered,
    Kind.PAUSED: _paused,
    Kind.DELIVERY_FAILED: _failed,
    Kind.QUEUE_FULL: _queue_full,
    Kind.SOURCE_SILENT: _silent,
    Kind.SOURCE_HEARD: _heard,
    Kind.SOURCE_REJECTED: _rejected,
}


def _because(text: str, notice: Notice, which: str = "") -> str:
    reason = _plain(notice.last.reason, _LONGEST_REASON).rstrip(".")
    return f"{text}: {which}{reason}." if reason else f"{text}."


def _turned(notice: Notice) -> str:
    return f"It changed {notice.count} times since {moment(notice.first_at)}." if notice.count > 1 else ""


def _meanwhile(when: str, notice: Notice) -> str:
    failed, full = (notice.meanwhile.get(kind, 0) for kind in (Kind.DELIVERY_FAILED, Kind.QUEUE_FULL))
    told = [_deliveries(failed, "failed")] if failed else []
    told += [_deliveries(full, "found the queue full")] if full else []
    return f"{when} {' and '.join(told)}." if told else ""


def _deliveries(count: int, what: str) -> str:
    return f"{'one delivery' if count == 1 else f'{count} deliveries'} {what}"


def _between(notice: Notice) -> str:
    if notice.count == 1:
        return f"at {moment(notice.last.at)}"
    return f"between {moment(notice.first_at)} and {moment(notice.last.at)}"


def _which(notice: Notice) -> str:
    ids, more = ", ".join(notice.ids), notice.count - len(notice.ids)
    return f"They are {ids}{f' and {more} more' if more > 0 else ''}." if notice.count > 1 and ids else ""


def _one(notice: Notice, name: str) -> list[str]:
    if not notice.ids:
        return _all_failed(name)
    [found] = notice.ids
    return [f"See: relay show {found}", f"Send it again: relay retry {found}"]


def _all_failed(name: str) -> list[str]:
    which = f"--route {name} --status failed"
    return [f"See: relay logs {which}", f"Send again: relay retry {which}"]


def _plain(text: str, longest: int) -> str:
    """One line that nothing can break."""
    line = " ".join("".join(c if c.isprintable() else " " for c in whole(text)).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
