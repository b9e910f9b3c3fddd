"""What operators read: one function for each fact worth a line. Event names are part of our interface.

Lines go to standard error: JSON, or aligned and coloured on a terminal. Callers pass values, never sentences.
`relay.logline` keeps every fact on one line, whatever is in it.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from relay import logline, systemd
from relay.clock import rfc3339
from relay.delivery import Delivered, Delivery, Outcome, Rejection, Result
from relay.event import Event
from relay.store import Pruned

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Redaction:
    """A structlog processor that masks the config's secrets, whoever worded a line."""

    def __init__(self) -> None:
        self.redact: Callable[[str], str] = str

    def __call__(self, logger: object, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for key, value in line.items():
            if isinstance(value, str):
                line[key] = self.redact(value)
            elif isinstance(value, list):
                line[key] = [self.redact(part) if isinstance(part, str) else part for part in value]
        return line


redaction = Redaction()


class Outlet:
    """Standard error, written by a thread: a reader that is slow or gone neither stops relay nor ends it.

    Lines wait in a bounded queue, some milliseconds for each other: to wake a thread for each of them would cost more
    than all else about it. What does not fit, or cannot be written, is dropped and counted.
    """

    _MOST_LINES = 10_000
    _GATHERING = 0.005  # seconds

    def __init__(self) -> None:
        self.dropped = 0
        self._lines: deque[bytes] = deque()
        self._wake = threading.Event()
        self._asleep = True  # the thread waits to be woken
        self._writing = False
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def write(self, data: bytes) -> int:
        """Have some bytes written; never raises, never waits."""
        if len(self._lines) >= self._MOST_LINES:
            self.dropped += 1
            return len(data)
        self._lines.append(data)
        if self._asleep:
            self._asleep = False
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="relay-journal", daemon=True)
                    self._thread.start()
            self._wake.set()
        return len(data)

    def flush(self) -> None:
        """Nothing waits here for whoever writes."""

    def drain(self, seconds: float) -> None:
        """Give what waits some time to be written, at the end."""
        deadline = time.monotonic() + seconds
        while (self._lines or self._writing) and time.monotonic() < deadline:
            time.sleep(0.005)

    def _gather(self) -> None:
        with contextlib.suppress(OSError):  # a clock that somebody meddles with must not end the log
            time.sleep(self._GATHERING)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self._gather()
            while self._lines:
                self._writing = True
                lines = [self._lines.popleft() for _ in range(len(self._lines))]
                try:
                    sys.stderr.buffer.write(b"".join(lines))
                    sys.stderr.buffer.flush()
                except (OSError, ValueError, AttributeError):  # nobody reads, it is closed, or there is none
                    self.dropped += len(lines)
                self._writing = False
                self._gather()
            self._asleep = True
            if self._lines and self._asleep:  # one that came before it was said
                self._asleep = False
                self._wake.set()


class _Text:
    """The outlet for what writes text."""

    def __init__(self, to: Outlet) -> None:
        self._to = to

    def write(self, text: str) -> int:
        return self._to.write(text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """See Outlet.flush."""


outlet = Outlet()
atexit.register(outlet.drain, 2.0)


def configure(level: str, form: str) -> None:
    """Set level (`debug info warning error`) and form (`auto json console`); may be called again at reload."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redaction,
        logline.bounded,
    ]
    render: structlog.typing.Processor
    logger_factory: Callable[..., Any]
    if console:
        render = _with_priority(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
        shared.append(logline.for_terminal)
        logger_factory = structlog.WriteLoggerFactory(_Text(outlet))  # type: ignore[arg-type]
    else:
        render = _with_priority(structlog.processors.JSONRenderer(serializer=logline.as_json))
        logger_factory = structlog.BytesLoggerFactory(outlet)  # type: ignore[arg-type]
    global _log, _before  # noqa: PLW0603 - bound once per configuration: a lazy proxy would bind on every line
    _before = systemd.priority("info").encode() if not console and LEVELS[level] <= LEVELS["info"] else None
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=logger_factory,
        cache_logger_on_first_use=False,
    )
    _log = structlog.get_logger().bind()
    # aiohttp and asyncio speak through the standard library: only their complaints are of interest.
    logging.basicConfig(level=logging.ERROR, handlers=[_Bridge()], force=True)


def _with_priority(render: structlog.typing.Processor) -> structlog.typing.Processor:
    """For journald, which takes each line's priority off its front. Elsewhere nothing is added."""
    if not systemd.priority("info"):
        return render

    def prefixed(logger: object, method: str, line: MutableMapping[str, Any]) -> str | bytes:
        before = systemd.priority(line["level"])
        text = render(logger, method, line)
        if isinstance(text, bytes):
            return before.encode() + text
        return "\n".join(f"{before}{each}" for each in str(text).split("\n"))

    return prefixed


class _Bridge(logging.Handler):
    """Carries what libraries log over to our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        exc_info = record.exc_info if record.exc_info and record.exc_info[0] else None
        _log.error("library", logger=record.name, message=record.getMessage(), exc_info=exc_info)


_before: bytes | None = None  # what `_say` puts before a line; None where it leaves lines to structlog


def _say(event: str, **facts: Any) -> None:
    """A line of the hot path, while all is well: ids, names, our own words and what a sender's body says of itself.
    There is nothing to mask in it; it is written as structlog would, without its processors, which cost the most."""
    if _before is None:
        _log.info(event, **facts)
        return
    facts["event"] = event
    facts["level"] = "info"
    facts["timestamp"] = datetime.now(UTC)
    outlet.write(_before + (logline.at_once(facts) or logline.as_json(logline.bounded(None, "info", facts))) + b"\n")


# -- events ----------------------------------------------------------------------------------------------------------


def accepted(event: Event, event_id: str, routes: Sequence[str]) -> None:
    """An event is on disk and answered for."""
    what, common = event.description, event.description.common
    _say(
        "event_accepted",
        event_id=event_id,
        source=event.source,
        event_name=what.event,
        model=common.model,
        stage=common.stage,
        action=common.action,
        entry_id=common.entry_id,
        routes=list(routes),
        bytes=len(event.body),
    )


def duplicate(source: str, event_id: str) -> None:
    """A request that repeats an event: it is answered with the first one's id and not delivered again."""
    _say("event_repeated", source=source, event_id=event_id)


def ignored(source: str, reason: str) -> None:
    """A genuine event that the source's config leaves out."""
    _say("event_ignored", source=source, reason=reason)


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
    attempt = result.attempt
    log: Callable[..., object] = _say if isinstance(outcome, Delivered) else _log.warning
    log(
        "attempt",
        delivery_id=ids[0],
        event_id=ids[1],
        route=delivery.route,
        n=attempt.n if attempt else None,
        trigger=attempt.trigger.value if attempt else None,
        status=attempt.response.status if attempt and attempt.response else None,
        ms=attempt.duration_ms if attempt else None,
        state=result.state.value,
        code=result.failure.code.value if result.failure else None,
        error=result.failure.message if result.failure else None,
        next=rfc3339(result.due) if result.due else None,
    )


def attempt_crashed(delivery_id: str, route: str) -> None:
    """A bug of ours: an attempt raised what it must not. With its traceback."""
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
    """The store cannot write."""
    _log.error("store_trouble", reason=reason)


def pruned(done: Pruned) -> None:
    """What was past its time has been removed."""
    _log.info("pruned", events=done.events, deliveries=done.deliveries, bodies=done.bodies, pages=done.pages)


def pruning_failed(reason: str) -> None:
    """What is past its time could not be removed: tried again later."""
    _log.warning("pruning_failed", reason=reason)


def store_recovered() -> None:
    """The store writes again."""
    _log.info("store_recovered")


def manual(action: str, who: str, **facts: object) -> None:
    """Someone acted by hand."""
    _log.info("manual_action", action=action, who=who, **facts)


def manual_refused(action: str, who: str | None, status: int, detail: str | None) -> None:
    """Someone wanted to act by hand and was not let, or it cannot be done as things are."""
    _log.warning("manual_refused", action=action, who=who, status=status, detail=detail)


def crashed(what: str) -> None:
    """A bug of ours, with its traceback."""
    _log.exception("internal_error", what=what)
