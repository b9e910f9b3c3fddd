"""Who is told what: facts come in from all over relay, notices go out by notifiers.

`relay.quota` decides what is told and when, at the moment of the fact: what is held back there are counts, so that
nothing piles up. What is to be told waits in a queue of each notifier, which tells one message after another, in order;
one that hangs delays nobody else. Who alone cannot be told at once is told beside the messages that come after.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Self

from relay import journal
from relay.clock import Clock
from relay.notice import Fact, Notice
from relay.notifier import Kind as Kind
from relay.notifier import Message, Notifier, NotSent
from relay.quota import Quota

_MOST_WAITING = 100  # messages of one notifier; there is one in ten minutes for each kind and subject
# Before the second and the third try. Mail servers that greylist want five minutes to have passed since the first one.
_AGAIN = (timedelta(seconds=10), timedelta(seconds=300))
_LONGEST_AFTER = timedelta(minutes=15)  # however long the other side asks to be left alone
_LONGEST_TRY = 90.0  # seconds; a notifier ends its tries itself, within less


_OF_DELIVERIES = (Kind.DELIVERY_FAILED, Kind.QUEUE_FULL)
"""Only one relay sees these."""

Counted = Callable[[str, str], None]
"""Told of each message's notifier and whether it was `sent` or `failed`."""
Begin = Callable[[Coroutine[Any, Any, None]], object]
"""Has something done beside all else."""


class _Outbox:
    """What one notifier still has to tell."""

    def __init__(self, name: str, notifier: Notifier, clock: Clock, counted: Counted, begin: Begin) -> None:
        self.notifier: Notifier | None = notifier
        self._counted = counted
        self._begin = begin
        self.dropped = 0
        self._closing = False
        self._pausing: set[asyncio.Task[None]] = set()
        self._name = name
        self._clock = clock
        self._waiting: deque[Message] = deque()
        self._news = asyncio.Event()
        self._apart = 0
        self._turn = asyncio.Lock()

    def start(self) -> None:
        """Begin to tell."""
        self._begin(self._run())

    def put(self, message: Message) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._drop(self._waiting.popleft())
        self._waiting.append(message)
        self._news.set()

    def close(self) -> None:
        """Nothing more will come: it ends when all is told. It waits for no other try."""
        self._closing = True
        self._news.set()
        for task in tuple(self._pausing):
            task.cancel()

    def retire(self) -> None:
        """It is no longer in the config: it ends with the try that is being made."""
        self.notifier = None
        self.clear("the notifier is no longer in the config")
        self.close()

    def clear(self, reason: str) -> None:
        """Give up what waits."""
        while self._waiting:
            self._given_up(self._waiting.popleft(), reason)

    async def _run(self) -> None:
        while True:
            while self._waiting:
                await self._tell(self._waiting.popleft())
            if self._closing:
                return
            self._news.clear()
            await self._news.wait()

    async def _tell(self, message: Message) -> None:
        """Tell it. What some have got goes on its own way: those who have not hold up nothing for the others."""
        reason = "relay stops"
        try:
            for tries, pause in enumerate((*_AGAIN, None), 1):
                if self.notifier is None:
                    reason = "the notifier is no longer in the config"
                    break
                failure = await self._try(self.notifier, message)
                if failure is None:
                    self._sent(message)
                    return
                reason = failure.reason
                if pause is None or not failure.again or self._closing:
                    break
                if failure.rest is not None:
                    self._go_on_apart(failure.rest, failure, tries)
                    return
                await self._pause(pause, failure)
        except asyncio.CancelledError:
            self._given_up(message, reason)
            raise
        self._given_up(message, reason)

    def _go_on_apart(self, message: Message, failure: NotSent, tries: int) -> None:
        if self._apart >= _MOST_WAITING:
            self._drop(message)
            return
        self._apart += 1
        self._begin(self._tell_the_rest(message, failure, tries))

    async def _tell_the_rest(self, message: Message, failure: NotSent, tries: int) -> None:
        """The tries that are left, for those who have not got it."""
        try:
            for pause in _AGAIN[tries - 1 :]:
                if self._closing:  # before this had begun
                    break
                await self._pause(pause, failure)
                async with self._turn:
                    if self.notifier is None or self._closing:
                        break
                    again = await self._try(self.notifier, message)
                if again is None:
                    self._sent(message)
                    return
                failure, message = again, again.rest or message
                if not failure.again:
                    break
        except asyncio.CancelledError:
            self._given_up(message, failure.reason)
            raise
        finally:
            self._apart -= 1
        self._given_up(message, failure.reason)

    async def _pause(self, pause: timedelta, failure: NotSent) -> None:
        """Before the next try. Nobody waits that long for relay to stop."""
        task = asyncio.current_task()
        assert task is not None
        self._pausing.add(task)
        asked = min(failure.after or pause, _LONGEST_AFTER)
        try:
            await self._clock.sleep(max(pause, asked).total_seconds())
        finally:
            self._pausing.discard(task)

    async def _try(self, notifier: Notifier, message: Message) -> NotSent | None:
        try:
            async with asyncio.timeout(_LONGEST_TRY):
                await notifier.send(message)
        except NotSent as failure:
            return failure
        except TimeoutError:
            return NotSent(f"it did not end within {_LONGEST_TRY:g} s")
        except Exception:  # noqa: BLE001 - a bug in one notifier must not end the others
            journal.crashed(f"notifier {self._name}")
            return NotSent("the notifier failed by a bug", again=False)
        return None

    def _sent(self, message: Message) -> None:
        journal.notice_sent(self._name, message.kind.value, message.subject, message.count)
        self._counted(self._name, "sent")

    def _drop(self, message: Message) -> None:
        self.dropped += 1
        self._given_up(message, f"more than {_MOST_WAITING} messages wait for this notifier")

    def _given_up(self, message: Message, reason: str) -> None:
        journal.notice_not_sent(self._name, message.kind.value, message.subject, message.count, reason)
        self._counted(self._name, "failed")


class Notices:
    """Owns the tasks that tell people. Use as an async context manager; leaving it tells what waits, for a while."""

    def __init__(
        self, clock: Clock, drain: timedelta = timedelta(seconds=5), counted: Counted = lambda notifier, outcome: None
    ) -> None:
        self._clock = clock
        self._counted = counted
        self._drain = drain.total_seconds()
        self._quota = Quota()
        self._redact: Callable[[str], str] = str
        self._outboxes: dict[str, _Outbox] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._alarms: set[asyncio.Task[None]] = set()
        self._alarm_at: float | None = None
        self._group: asyncio.TaskGroup | None = None
        self._stopped = False
        self._errand: Callable[[str], Awaitable[bool]] | None = None

    async def __aenter__(self) -> Self:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        for outbox in self._outboxes.values():
            outbox.start()
        self._wake_at(self._quota.next_due())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()
        if self._group is not None:
            await self._group.__aexit__(None, None, None)

    @property
    def dropped(self) -> int:
        """Messages given up because too many waited."""
        return sum(outbox.dropped for outbox in self._outboxes.values())

    def follow(self, notifiers: Mapping[str, Notifier], redact: Callable[[str], str] = str) -> None:
        """Tell by these from now on. What waits for one that has changed is told by the new one.

        `redact` masks the config's secrets in what is told, whoever worded it.
        """
        self._redact = redact
        for name in self._outboxes.keys() - notifiers.keys():
            self._outboxes.pop(name).retire()
        for name, notifier in notifiers.items():
            outbox = self._outboxes.get(name)
            if outbox is not None:
                outbox.notifier = notifier
                continue
            outbox = self._outboxes[name] = _Outbox(name, notifier, self._clock, self._counted, self._begin)
            if self._group is not None and not self._stopped:
                outbox.start()

    def share(self, errand: Callable[[str], Awaitable[bool]]) -> None:
        """Several relays see the same routes and sources turn: only who is given the errand of this name tells it."""
        self._errand = errand

    def tell(
        self,
        notifiers: Sequence[str],
        kind: Kind,
        subject: str,
        *,
        reason: str = "",
        at: datetime,
        ids: Sequence[str] = (),
        since: datetime | None = None,
    ) -> None:
        """Something happened that these notifiers are to tell, now or with more of its kind. Never raises or waits.

        `subject` is the route's or source's name, `ids` the deliveries or requests, `since` when that began which it
        ends. What ends an outage must come by here too, also where nobody is to be told: until then, what fails of
        the route is counted and not told.
        """
        if self._stopped:
            return
        try:
            fact = Fact(kind, subject, at, reason, tuple(ids), since, tuple(notifiers))
            if self._errand is not None and kind not in _OF_DELIVERIES and self._group is not None:
                self._keep(self._alarms, self._group.create_task(self._tell_once(self._errand, fact), name="notices"))
            else:
                self._saw(fact)
        except Exception:  # noqa: BLE001 - nobody who has something to tell is to suffer for it
            journal.crashed("notices")

    def _saw(self, fact: Fact) -> None:
        notice = self._quota.saw(fact, self._clock.monotonic())
        if notice is not None:
            self._put(notice)
        self._wake_at(self._quota.held_until(fact.kind, fact.subject))

    async def _tell_once(self, errand: Callable[[str], Awaitable[bool]], fact: Fact) -> None:
        try:
            if await errand(f"notice:{fact.kind.value}:{fact.subject}"):
                self._saw(fact)
            else:
                self.heard(fact.kind, fact.subject, fact.since or fact.at)
        except Exception:  # noqa: BLE001 - as in `tell`
            journal.crashed("notices")

    def heard(self, kind: Kind, subject: str, since: datetime | None) -> None:
        """Another relay saw a route or source turn, and tells it."""
        self._quota.heard(kind, subject, since)

    def remember(self, kind: Kind, subject: str, since: datetime | None) -> None:
        """A state that was told before relay was started anew: unhealthy, paused, source_silent. Its end will be told,
        and what fails meanwhile only then."""
        self._quota.remember(kind, subject, since)

    async def stop(self) -> None:
        """Tell what waits, within the drain time, then say in the journal what could not be told. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        for alarm in self._alarms:
            alarm.cancel()
        for outbox in self._outboxes.values():
            outbox.close()
        if self._running:
            await asyncio.wait(self._running, timeout=self._drain)
        for task in self._running:
            task.cancel()
        for outbox in self._outboxes.values():
            outbox.clear("relay stops")
        for notice in self._quota.rest():
            for name in notice.last.to:
                fact = notice.last
                journal.notice_not_sent(name, fact.kind.value, fact.subject, notice.count, "relay stops")

    # -- out ---------------------------------------------------------------------------------------------------------

    def _put(self, notice: Notice) -> None:
        if not notice.last.to:
            return
        message = replace(notice, last=replace(notice.last, reason=self._redact(notice.last.reason))).message()
        for name in dict.fromkeys(notice.last.to):
            outbox = self._outboxes.get(name)
            if outbox is not None:
                outbox.put(message)
            else:
                reason = "there is no such notifier"
                journal.notice_not_sent(name, message.kind.value, message.subject, message.count, reason)

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None
        self._keep(self._running, self._group.create_task(coroutine, name="notifier"))

    @staticmethod
    def _keep(tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _wake_at(self, due: float | None) -> None:
        """See to it that what is held back until then is told."""
        if due is None or self._group is None or self._stopped:
            return
        if self._alarm_at is None or due < self._alarm_at:
            self._alarm_at = due
            self._keep(self._alarms, self._group.create_task(self._wake(due), name="notices"))

    async def _wake(self, due: float) -> None:
        await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
        if self._alarm_at == due:
            self._alarm_at = None
        try:
            for notice in self._quota.due(self._clock.monotonic()):
                self._put(notice)
            self._wake_at(self._quota.next_due())
        except Exception:  # noqa: BLE001 - as in `tell`
            journal.crashed("notices")
