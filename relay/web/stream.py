"""`GET /logs/stream`: the log as it grows, as server-sent events.

Each message is a log item as `/logs` shows it, one for each state that was committed. A client that does not keep up is
told with an event `lost` that some were passed over; what it missed is in `/logs`.
See https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from relay.delivery import LogItem
from relay.following import TooMany
from relay.logline import as_json
from relay.store import Unavailable
from relay.web import logquery, shape
from relay.web.answer import PRIVATE
from relay.web.desk import Desk
from relay.web.filters import PAGING, filters
from relay.web.operation import EVENTS, Answer, Operation, Table

_LEFT_OUT = (*PAGING, "until")
STREAM = Operation(
    "GET",
    "/logs/stream",
    "followLogs",
    "logs",
    "Every new state as it happens, as server-sent events.",
    {
        200: Answer(
            "Each message is an item of the log in JSON. An event `lost` says that states were passed over.",
            {EVENTS: {"type": "string"}},
        )
    },
    (503,),
    "One that follows what has many states may be told that some were passed over: they are in `/logs`.",
    filters=filters(leave_out=_LEFT_OUT),
    refuses=dict.fromkeys(_LEFT_OUT, "is for lists: the stream is what happens from now on"),
    endless=True,
)

_KEEP_ALIVE = 15.0  # seconds: proxies close what is silent for longer, and so a client that is gone is noticed
_PATIENCE = 30.0  # seconds in which a client takes what it is sent
_AGAIN_MS = 2000
_HEADERS = {
    **PRIVATE,
    "Content-Type": "text/event-stream",
    "X-Accel-Buffering": "no",  # nginx would collect what should be seen at once
}


class Stream:
    """The handler."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def table(self) -> Table:
        """What is answered here."""
        return [(STREAM, self._follow)]

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        desk = self._desk
        query = logquery.parse(request.query.items(), desk.clock.now(), desk.store.ids)
        gate = desk.reloader.runtime.gate
        try:
            async with desk.followers.follow(lambda item: logquery.wants(query, item, desk.store.ids)) as follower:
                answer = web.StreamResponse(headers=_HEADERS)
                await answer.prepare(request)
                await _send(answer, f"retry: {_AGAIN_MS}\n: following\n\n".encode())
                # Who may look was asked at the beginning: where the config says it anew, it is asked anew.
                while not follower.ended:
                    told, lost = await follower.next(_KEEP_ALIVE)
                    if desk.reloader.runtime.gate != gate:
                        break
                    await _send(answer, _messages(told, lost))
        except TooMany as error:
            raise Unavailable(str(error)) from None
        except ConnectionError:  # the client is gone
            pass
        except TimeoutError:  # it does not take what it is sent, nor would it take the end
            if request.transport is not None:
                request.transport.abort()
        return answer


def message(item: LogItem) -> bytes:
    """An item as it is told."""
    return b"data: " + as_json(shape.item(item)) + b"\n\n"


def _messages(told: list[bytes], lost: int) -> bytes:
    messages = list(told)
    if lost:
        detail = {"detail": f"{lost} states or more were passed over: /logs has them"}
        messages.insert(0, b"event: lost\ndata: " + as_json(detail) + b"\n\n")
    return b"".join(messages) or b": nothing new\n\n"


async def _send(answer: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_PATIENCE):
        await answer.write(data)
