"""The public side: `POST /in/<source>`. Order of work and answers are those of the contract, for every case.

Runs on aiohttp's low-level server: there is one kind of path, and nothing to route. The server does not decompress;
`relay.web.body` does, with a bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

import orjson
from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from relay import journal
from relay.clock import Clock, to_ms
from relay.delivery import Added, Rejection, kept
from relay.event import Inbound
from relay.ids import REJECTION
from relay.jsontext import Malformed
from relay.limits import ByteBudget, FailuresByAddress, whole_seconds
from relay.listening import Listening
from relay.metrics import Metrics
from relay.pipeline import Accepted, Pipeline
from relay.runtime import Runtime
from relay.source import RateLimited, Rejected, Source
from relay.store import Store, Unavailable
from relay.trouble import Seldom
from relay.web.body import at_hand, read, too_large
from relay.web.peer import client_address
from relay.web.refusal import Refusal
from relay.web.swift import Answer, Asked, Wrapped

_LONGEST_HOST = 255  # characters of what is remembered
_HOST = re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")


class Ingest:
    """Answers what arrives on the public side."""

    def __init__(
        self,
        runtime: Callable[[], Runtime],
        pipeline: Pipeline,
        offer: Callable[[Added], None],
        store: Store,
        clock: Clock,
        metrics: Metrics,
        listening: Listening,
        most_bytes: int = 64 << 20,
    ) -> None:
        self._most_bytes = most_bytes
        self._runtime = runtime
        self._pipeline = pipeline
        self._offer = offer
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._listening = listening
        self._failures = FailuresByAddress(now=clock.monotonic)
        self._budget = ByteBudget(most_bytes)
        self.closing = False
        self._not_stored = Seldom(clock)
        self.follow(runtime())

    def follow(self, runtime: Runtime) -> None:
        """Take bodies as large as this config allows: where memory is scarce, one at a time if it must be."""
        self._budget.limit = max(self._most_bytes, runtime.config.server.max_body)

    def has(self, path: str) -> bool:
        """Whether it is the path of a source."""
        return path in self._runtime().by_path

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One of aiohttp's requests."""
        return (await self.answer(Wrapped(request))).wrapped()

    async def answer(self, request: Asked) -> Answer:
        """One request: always an answer, never an exception."""
        runtime = self._runtime()
        path = request.path
        source = runtime.by_path.get(path)
        if source is None:
            return self._no_source(request, path)
        try:
            self._admit(request, runtime, source)
            server = runtime.config.server
            came = at_hand(request, server.max_body, self._budget)
            body, held = came or await read(request, server.max_body, server.read_timeout.total_seconds(), self._budget)
            try:
                if came is None and self._runtime() is not runtime:
                    # There was a reload while the body came. Under an order that a route had before it, the event would
                    # go past what is in the lanes of the new one already: it is taken as if it came now.
                    runtime = self._runtime()
                    found = runtime.by_path.get(path)
                    if found is None:
                        return self._no_source(request, path)
                    source = found
                    self._admit(request, runtime, source)
                    if len(body) > runtime.config.server.max_body:
                        raise too_large(runtime.config.server.max_body)
                client = _client(request, runtime)
                accepted = await self._pipeline.accept(source, runtime.routing, Inbound(request.headers, body), client)
            finally:
                self._budget.give_back(held)
            return self._taken_in(source, accepted)
        except Refusal as refusal:
            return self._refuse(request, runtime, source, _client(request, runtime), refusal)
        except (Rejected, RateLimited, Malformed, Unavailable) as error:
            client = _client(request, runtime)
            return self._refuse(request, runtime, source, client, self._refusal(source, client, error))
        except ConnectionError:  # the sender went away: there is nobody to answer
            raise
        except Exception:  # noqa: BLE001 - a bug of ours: the sender should try again
            journal.crashed("ingest")
            self._metrics.events.inc(source.name, "unavailable")
            return _answer(503, {"error": "unavailable"}, {"Retry-After": "5"})

    def _admit(self, request: Asked, runtime: Runtime, source: Source) -> None:
        """What is decided before anything of the body is looked at. Raises Refusal."""
        if request.method != "POST":
            raise Refusal(405, "method_not_allowed", None)
        if source.networks is not None and not source.allows(_client(request, runtime)):
            raise Refusal(403, "forbidden", "the address is not in allow_ips")
        if self.closing:
            raise Refusal(503, "unavailable", None, retry_after=1, close=True)
        fault = _fault(request)
        if fault is not None:
            raise Refusal(400, "malformed_body", fault, detail=fault, close=True)

    def _refusal(self, source: Source, client: str, error: Exception) -> Refusal:
        """What a sender is told whose request the pipeline did not take."""
        match error:
            case Rejected():
                wait = self._failures.take(client)
                if wait:
                    return Refusal(429, "rate_limited", None, retry_after=wait, outcome="unauthenticated")
                return Refusal(401, "unauthenticated", error.reason)
            case RateLimited():
                return Refusal(429, "rate_limited", "past the source's rate_limit", retry_after=error.retry_after)
            case Malformed():
                return Refusal(400, "malformed_body", str(error), detail=str(error))
            case _:
                if self._not_stored.may_say(str(error)):
                    journal.not_stored(source.name, str(error))
                return Refusal(503, "unavailable", None, retry_after=5)

    def _taken_in(self, source: Source, accepted: Accepted) -> Answer:
        """All that a genuine request brings about besides what is in the store, and its answer."""
        self._listening.heard(source, accepted.at)
        if accepted.ignored is not None:
            self._metrics.events.inc(source.name, "ignored")
            journal.ignored(source.name, accepted.ignored)
            return _answer(source.respond, {"id": None, "routes": [], "ignored": accepted.ignored})
        self._metrics.events.inc(source.name, "duplicate" if accepted.duplicate else "accepted")
        if accepted.added is not None and not accepted.duplicate:
            self._offer(accepted.added)
        shown = {"id": accepted.id, "routes": accepted.routes, "duplicate": accepted.duplicate}
        return _answer(source.respond, shown)

    def _no_source(self, request: Asked, path: str) -> Answer:
        if path == "/health":
            if request.method in ("GET", "HEAD"):
                return _answer(200, {"status": "ok"})
            return _answer(405, {"error": "method_not_allowed"}, {"Allow": "GET, HEAD"})
        self._metrics.not_found.inc()
        return _answer(404, {"error": "not_found"})

    def _refuse(self, request: Asked, runtime: Runtime, source: Source, client: str, refusal: Refusal) -> Answer:
        self._metrics.events.labels(source.name, refusal.outcome).inc()
        if refusal.reason is None and refusal.outcome == "unauthenticated":
            source.tally.refused("too many failures from one address")
        if refusal.reason is not None and refusal.status != 401 and self._failures.take(client):
            source.tally.refused(refusal.reason)  # a stranger must not fill disk and log
        elif refusal.reason is not None:
            now = self._clock.now()
            shown = source.shown_headers(request.headers)
            rejection = Rejection(
                id=self._store.ids.draw(to_ms(now)),
                source=source.name,
                at=now,
                status=refusal.status,
                reason=runtime.redact(refusal.reason),
                client=client,
                # A sender that was given the address of another source shows that one's secrets here.
                headers=tuple([(name, runtime.redact(value)) for name, value in kept(shown)]),
            )
            self._store.reject(rejection)
            source.tally.refused(rejection.reason)
            self._listening.refused(source, rejection.reason)
            journal.rejected(rejection, self._store.ids.text(REJECTION, rejection.id))
        headers = {}
        if refusal.retry_after is not None:
            headers["Retry-After"] = str(whole_seconds(refusal.retry_after))
        if refusal.status == 405:
            headers["Allow"] = "POST"
        body = {"error": refusal.word}
        if refusal.detail is not None:
            body["detail"] = refusal.detail
        # The rest of a body is not wanted.
        return _answer(refusal.status, body, headers, close=refusal.close or not request.content.is_eof())


def _client(request: Asked, runtime: Runtime) -> str:
    """Who sends it."""
    return client_address(request.remote, request.headers, runtime.trusted_proxies)


def _fault(request: Asked) -> str | None:
    """What the parser lets pass, but another on the way may read otherwise: two events where it sees one, or none."""
    if request.version not in (HttpVersion11, HttpVersion10):
        return "only HTTP/1.1 and HTTP/1.0 are spoken here"
    headers = request.headers
    coding = headers.get(hdrs.TRANSFER_ENCODING)
    if coding is not None and request.version == HttpVersion10:
        return "Transfer-Encoding in HTTP/1.0"
    if coding is not None and coding.strip().lower() != "chunked":
        return "a Transfer-Encoding other than chunked"
    host = headers.get(hdrs.HOST, "")
    if not (_is_host(host) if len(host) <= _LONGEST_HOST else _HOST.fullmatch(host)):
        return "the Host header is no host"
    return None


@lru_cache(256)
def _is_host(text: str) -> bool:
    return _HOST.fullmatch(text) is not None


def _answer(
    status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None, close: bool = False
) -> Answer:
    return Answer(status, orjson.dumps(body), headers, close)
