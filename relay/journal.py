"""What operators read: one function for each fact worth a line. Event names are part of our interface.

Lines go to standard error: JSON, or aligned and coloured on a terminal. Callers pass values, never sentences.
`relay.logline` keeps every fact on one line, whatever is in it.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from relay import lean, logline, systemd
from relay.clock import rfc3339
from relay.delivery import Delivered, Delivery, Outcome, Rejection, Result
from relay.event import Event
from relay.outlet import outlet as outlet
from relay.store import Pruned

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Redaction:
    """Masks the config's secrets, whoever worded a line."""

    def __init__(self) -> None:
        self.redact: Callable[[str], str] = str

    def __call__(self, line: dict[str, Any]) -> None:
        for key, value in line.items():
            if isinstance(value, str):
                line[key] = self.redact(value)
            elif isinstance(value, list):
                line[key] = [self.redact(part) if isinstance(part, str) else part for part in value]


redaction = Redaction()


class Bugs:
    """How often something of relay's own has gone wrong as it must not."""

    def __init__(self) -> None:
        self.met = 0


bugs = Bugs()


class Log:
    """Lines of a level or above, masked and bounded, for whoever writes them."""

    def __init__(self, least: int, write: Callable[[dict[str, Any]], object]) -> None:
        self._least = least
        self._write = write

    def info(self, event: str, **facts: Any) -> None:
        """All is well."""
        self._say("info", event, facts)

    def always(self, event: str, **facts: Any) -> None:
        """All is well, and it is said at any level."""
        self._write_down("info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """Somebody should know."""
        self._say("warning", event, facts)

    def error(self, event: str, **facts: Any) -> None:
        """Somebody must act."""
        self._say("error", event, facts)

    def exception(self, event: str, **facts: Any) -> None:
        """The same, with the traceback of what is being handled."""
        self._say("error", event, facts, traceback.format_exc())

    def raised(self, event: str, error: BaseException, **facts: Any) -> None:
        """The same, with the traceback of what was raised."""
        self._say("error", event, facts, "".join(traceback.format_exception(error)))

    def _say(self, level: str, event: str, facts: dict[str, Any], exception: str | None = None) -> None:
        if LEVELS[level] >= self._least:
            self._write_down(level, event, facts, exception)

    def _write_down(self, level: str, event: str, facts: dict[str, Any], exception: str | None = None) -> None:
        line = _headed(level, event, facts)
        if exception is not None:
            line["exception"] = exception.removesuffix("\n")
        redaction(line)
        logline.bounded(line)
        self._write(line)


def _headed(level: str, event: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts, and what every line has."""
    facts["event"] = event
    facts["level"] = level
    facts["timestamp"] = _written(datetime.now(UTC))
    return facts


def _written(moment: datetime) -> str:
    return moment.isoformat()[:-6] + "Z"


def configure(level: str, form: str) -> None:
    """Set level (`debug info warning error`) and form (`auto json console`); may be called again at reload."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    global _log, _before, _render  # noqa: PLW0603 - bound once per configuration
    _before = systemd.priority("info").encode() if not console and LEVELS[level] <= LEVELS["info"] else None
    _render = _for_people() if console else _for_programs
    _log = Log(LEVELS[level], _write)
    # aiohttp and asyncio speak through the standard library: only their complaints are of interest.
    logging.basicConfig(level=logging.ERROR, handlers=[_Bridge()], force=True)


def _write(line: dict[str, Any]) -> None:
    outlet.write(_render(line))


def _for_programs(line: dict[str, Any]) -> bytes:
    return systemd.priority(line["level"]).encode() + logline.as_json(line) + b"\n"


def _for_people() -> Callable[[dict[str, Any]], bytes]:
    """Aligned, and coloured on a terminal: structlog's own form, and only where it is wanted is it imported."""
    with lean.not_found("rich"):
        from structlog.dev import ConsoleRenderer
    render = ConsoleRenderer(colors=sys.stderr.isatty())

    def for_people(line: dict[str, Any]) -> bytes:
        before = systemd.priority(line["level"])  # journald takes each line's priority off its front
        logline.for_terminal(line)
        text = str(render(None, line["level"], line))
        shown = "".join(f"{before}{each}\n" for each in text.split("\n"))
        return shown.encode("utf-8", "backslashreplace")

    return for_people


class _Bridge(logging.Handler):
    """Carries what libraries log over to our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            _log.raised("library", error, logger=record.name, message=record.getMessage())
        else:
            _log.error("library", logger=record.name, message=record.getMessage())


_log = Log(LEVELS["info"], _write)
_render: Callable[[dict[str, Any]], bytes] = _for_programs
_before: bytes | None = None  # what `_say` puts before a line; None where lines are not so simple


def _say(line: dict[str, Any], now: datetime | None = None) -> None:
    """A line of the hot path, while all is well: ids, names, our own words and what a sender's body says of itself,
    and at its end the `event`. There is nothing to mask in it. Who has just asked for the time says it."""
    if _before is None:
        _log.info(**line)
        return
    now = now or datetime.now(UTC)
    line["level"] = "info"
    line["timestamp"] = now
    data = logline.at_once(line)
    if data is None:
        line["timestamp"] = _written(now)
        logline.bounded(line)
        data = logline.as_json(line)
        outlet.write(_before + data + b"\n")
        return
    outlet.write(_before + data)


# -- events ----------------------------------------------------------------------------------------------------------


def accepted(event: Event, event_id: str, routes: Sequence[str], client: str, now: datetime) -> None:
    """An event is on disk and answered for."""
    what = event.description
    common = what.common
    _say(
        {
            "event_id": event_id,
            "source": event.source,
            "event_name": what.event,
            "model": common.model,
            "stage": common.stage,
            "action": common.action,
            "entry_id": common.entry_id,
            "routes": list(routes),
            "bytes": len(event.body),
            "client": client,
            "event": "event_accepted",
        },
        now,
    )


def duplicate(source: str, event_id: str) -> None:
    """A request that repeats an event: it is answered with the first one's id and not delivered again."""
    _say({"source": source, "event_id": event_id, "event": "event_repeated"})


def ignored(source: str, reason: str) -> None:
    """A genuine event that the source's config leaves out."""
    _say({"source": source, "reason": reason, "event": "event_ignored"})


def rejected(rejection: Rejection, rejection_id: str) -> None:
    """A request was refused; the reason is for the operator only."""
    _log.warning(
        "request_rejected",
        rejection_id=rejection_id,
        source=rejection.source,
        status=rejection.status,
        reason=rejection.reason,
        client=rejection.client,
    )


def not_stored(source: str, reason: str) -> None:
    """The store could not take an event: the sender got a 503."""
    _log.error("event_not_stored", source=source, reason=reason)


# -- deliveries ------------------------------------------------------------------------------------------------------


def attempted(delivery: Delivery, ids: tuple[str, str], result: Result, outcome: Outcome) -> None:
    """An attempt ended: the one line about it. `ids` are those of delivery and event."""
    attempt, failure = result.attempt, result.failure
    response = attempt.response if attempt else None
    facts: dict[str, Any] = {
        "delivery_id": ids[0],
        "event_id": ids[1],
        "route": delivery.route,
        "n": attempt.n if attempt else None,
        "trigger": attempt.trigger._value_ if attempt else None,
        "status": response.status if response else None,
        "ms": attempt.duration_ms if attempt else None,
        "state": result.state._value_,
        "code": failure.code.value if failure else None,
        "error": failure.message if failure else None,
        "next": rfc3339(result.due) if result.due else None,
        "event": "attempt",
    }
    if isinstance(outcome, Delivered):
        _say(facts, result.at)
    else:
        _log.warning(**facts)


def attempt_crashed(delivery_id: str, route: str) -> None:
    """A bug of ours: an attempt raised what it must not. With its traceback."""
    bugs.met += 1
    _log.exception("attempt_crashed", delivery_id=delivery_id, route=route)


def held(routes: Mapping[str, int]) -> None:
    """Deliveries of routes that are gone or disabled are kept, not sent."""
    for route, count in routes.items():
        _log.warning("deliveries_held", route=route, count=count)


def released(routes: Mapping[str, int]) -> None:
    """A route came back: what was held for it goes on."""
    for route, count in routes.items():
        _log.info("deliveries_released", route=route, count=count)


def clock_set_back(seconds: float, deliveries: int) -> None:
    """The wall clock was set back: what waited for its time waits no longer for it."""
    _log.warning("clock_set_back", seconds=round(seconds), deliveries=deliveries)


def clock_set_ahead(seconds: float) -> None:
    """The wall clock went ahead of time itself: what waits is not as old as it seems."""
    _log.warning("clock_set_ahead", seconds=round(seconds))


def route_turned(route: str, state: str, reason: str | None) -> None:
    """A route sends from now on, or does not, and why."""
    log = _log.info if state == "healthy" else _log.warning
    log("route_state", route=route, state=str(state), reason=reason)


# -- notices ---------------------------------------------------------------------------------------------------------


def notice_sent(notifier: str, kind: str, subject: str, count: int) -> None:
    """People were told: `count` facts of a kind about a route or source."""
    _log.info("notice_sent", notifier=notifier, kind=kind, subject=subject, count=count)


def notice_not_sent(notifier: str, kind: str, subject: str, count: int, reason: str) -> None:
    """People could not be told."""
    _log.error("notice_not_sent", notifier=notifier, kind=kind, subject=subject, count=count, reason=reason)


# -- the daemon ------------------------------------------------------------------------------------------------------


def started(**facts: object) -> None:
    """The daemon takes events."""
    _log.info("started", **facts)


def started_held(reason: str) -> None:
    """All routes were paused before anything was sent."""
    _log.warning("started_held", reason=reason)


def stopping(signal: str) -> None:
    """Asked to end: no new events, in-flight attempts finish."""
    _log.info("stopping", signal=signal)


def stopped(interrupted: int) -> None:
    """All is on disk; so many attempts were cut off and will be made again."""
    _log.info("stopped", interrupted=interrupted)


def config_loaded(generation: int, sha256: str, changes: Mapping[str, Any], pending_restart: Sequence[str]) -> None:
    """A config took effect."""
    _log.info(
        "config_loaded", generation=generation, sha256=sha256[:12], **changes, pending_restart=list(pending_restart)
    )


def config_warning(text: str) -> None:
    """The config is valid but probably not meant."""
    _log.warning("config_warning", problem=text)


def config_rejected(generation: int, problems: Sequence[str]) -> None:
    """A config was not taken: the running one stays."""
    _log.error("config_rejected", running_generation=generation, problems=list(problems))


def store_opened(backend: str, version: str, path: str, pending: int, held: int) -> None:
    """The queue is at hand: what it is kept in, and what waits in it."""
    _log.info("store_opened", backend=backend, version=version, path=path, pending=pending, held=held)


def store_warning(reason: str) -> None:
    """Something about the store that an operator should know."""
    _log.warning("store_warning", reason=reason)


def store_locked(holder: str) -> None:
    """Another relay holds the store: this one waits a little for it."""
    _log.warning("store_locked", holder=holder)


def store_migrating(held: int, to: int) -> None:
    """A file that an older relay wrote is being brought up to date: no event is taken in before it is done."""
    _log.warning("store_migrating", from_schema=held, to_schema=to)


def store_trouble(reason: str) -> None:
    """The store cannot write, or be read."""
    _log.error("store_trouble", reason=reason)


def pruned(done: Pruned) -> None:
    """What was past its time has been removed."""
    _log.info("pruned", events=done.events, deliveries=done.deliveries, bodies=done.bodies, pages=done.pages)


def pruning_failed(reason: str) -> None:
    """What is past its time could not be removed: tried again later."""
    _log.warning("pruning_failed", reason=reason)


def lease_lost() -> None:
    """The other relays on this store took this one for dead: what it had in hand is theirs."""
    _log.warning("lease_lost")


def peer_ended(name: str) -> None:
    """Another relay on this store has ended, or is taken for dead: what it had in hand is taken over."""
    _log.warning("peer_ended", name=name)


def store_recovered() -> None:
    """The store writes again."""
    _log.info("store_recovered")


def log_lines_lost(count: int) -> bytes:
    """So many lines could not be written, and are missing before the one that follows: for `outlet`, which knows when
    that is. Whatever `log.level` is, for they were of that level or above."""
    return _render(_headed("error", "log_lines_lost", {"count": count}))


outlet.missing = log_lines_lost


def manual(action: str, who: str, **facts: object) -> None:
    """Someone acted by hand: whatever `log.level` is, who it was can be found."""
    _log.always("manual_action", action=action, who=who, **facts)


def manual_refused(action: str, who: str | None, status: int, detail: str | None) -> None:
    """Someone wanted to act by hand and was not let, or it cannot be done as things are."""
    _log.warning("manual_refused", action=action, who=who, status=status, detail=detail)


def crashed(what: str) -> None:
    """A bug of ours, with its traceback."""
    bugs.met += 1
    _log.exception("internal_error", what=what)
