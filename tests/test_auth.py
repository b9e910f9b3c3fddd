"""OAuth2 client credentials: one token for all, renewed in time, never seen."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from yarl import URL

from relay.auth import ClientCredentials, Tokens
from relay.authschema import OAuth2
from relay.client import HttpTransport, Reply, Unreachable
from relay.clock import SystemClock
from relay.delivery import Code, Response
from relay.destination import PLAIN, Limits, Outbound, Wire
from relay.egress import Egress
from tests.fakes import ManualClock, ScriptedTransport, until
from tests.faults.peers import OK, hang, keeps, peer, says
from tests.harness import PATIENCE, Received, Relay, relay_here, sink

SECRET = "a-client-secret/with+signs"
LIMITS = Limits(30, 5, 1024)
REQUEST = Outbound("POST", URL("https://hook.example/"), [("Authorization", "***"), ("X", "1")], b"{}")


def section(**given: Any) -> OAuth2:
    keys = {"token_url": "https://auth.example/token", "client_id": "relay", "client_secret": SECRET}
    return OAuth2.model_validate({"type": "oauth2", **keys, **given})


def said(status: int, document: object) -> Reply:
    return Reply(Response(status, (), json.dumps(document).encode(), truncated=False), None)


class Receiver:
    """A token endpoint and a destination behind one transport."""

    def __init__(self, **answer: Any) -> None:
        self.answer = {"token_type": "bearer", "expires_in": 100} | answer
        self.asked: list[Outbound] = []
        self.tokens: list[str | None] = []
        self.accepts: Callable[[str], bool] = lambda token: True
        self.endpoint: Callable[[Outbound], object] = self.issue
        self.transport = ScriptedTransport(self.script)
        self.clock = ManualClock()

    def issue(self, request: Outbound) -> object:
        return said(200, {"access_token": f"token-{len(self.asked)}"} | self.answer)

    def script(self, request: Outbound) -> object:
        if request.url.host == "auth.example":
            self.asked.append(request)
            return self.endpoint(request)
        token = dict(request.headers)["Authorization"]
        self.tokens.append(token)
        return 200 if self.accepts(token) else 401

    async def send(self, credentials: ClientCredentials, limits: Limits = LIMITS) -> int:
        reply = await credentials.exchange(REQUEST, limits, self.transport, self.clock)
        return reply.response.status


def slow() -> tuple[Receiver, asyncio.Future[object]]:
    """A receiver whose token endpoint answers when it is told to."""
    receiver = Receiver()
    release: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    receiver.endpoint = lambda request: release
    return receiver, release


# --- the token --------------------------------------------------------------------------------------------------------


async def test_the_token_request_has_all_that_the_section_says() -> None:
    receiver = Receiver()
    given = {"scope": "build deploy", "params": {"audience": "x y"}, "query": {"tenant": "a&b"}}
    assert await receiver.send(ClientCredentials(section(**given), PLAIN)) == 200
    [asked] = receiver.asked
    assert (asked.method, str(asked.url)) == ("POST", "https://auth.example/token?tenant=a%26b")
    assert dict(asked.headers)["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs(asked.body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["relay"],
        "client_secret": [SECRET],
        "scope": ["build deploy"],
        "audience": ["x y"],
    }
    assert receiver.tokens == ["Bearer token-1"]


async def test_one_token_serves_until_shortly_before_its_end_and_is_renewed_before_it_is_used() -> None:
    receiver = Receiver(expires_in=600)
    credentials = ClientCredentials(section(), PLAIN)
    await receiver.send(credentials)
    receiver.clock.advance(569)
    await receiver.send(credentials)
    receiver.clock.advance(2)
    await receiver.send(credentials)
    assert receiver.tokens == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]
    assert len(receiver.asked) == 2


@pytest.mark.parametrize(
    ("expires_in", "until"),
    [("600", 570), (10, 9), (0, 0), (-5, 0), (None, 3570), ("soon", 3570), (True, 3570), (1e300, 86370), ([1], 3570)],
)
async def test_whatever_the_endpoint_says_of_its_end_a_token_has_one(expires_in: object, until: float) -> None:
    receiver = Receiver(expires_in=expires_in)
    credentials = ClientCredentials(section(), PLAIN)
    await receiver.send(credentials)
    assert credentials._token is not None
    assert credentials._token.until - receiver.clock.monotonic() == pytest.approx(until)


async def test_a_401_gets_one_new_token_and_the_request_is_sent_once_more() -> None:
    receiver = Receiver()
    credentials = ClientCredentials(section(), PLAIN)
    await receiver.send(credentials)
    receiver.accepts = lambda token: token != "Bearer token-1"
    assert await receiver.send(credentials) == 200
    assert await receiver.send(credentials) == 200
    assert receiver.tokens == ["Bearer token-1", "Bearer token-1", "Bearer token-2", "Bearer token-2"]
    assert len(receiver.asked) == 2


async def test_a_second_401_is_the_answer() -> None:
    receiver = Receiver()
    receiver.accepts = lambda token: False
    assert await receiver.send(ClientCredentials(section(), PLAIN)) == 401
    assert len(receiver.asked) == 2
    assert len(receiver.tokens) == 2


async def test_an_endpoint_that_wants_the_credentials_in_a_header_gets_them_there_from_then_on() -> None:
    receiver = Receiver(expires_in=10)

    def endpoint(request: Outbound) -> object:
        if "Authorization" not in dict(request.headers):
            return said(401, {"error": "invalid_client"})
        return receiver.issue(request)

    receiver.endpoint = endpoint
    credentials = ClientCredentials(section(), PLAIN)
    await receiver.send(credentials)
    receiver.clock.advance(60)
    await receiver.send(credentials)
    assert ["Authorization" in dict(request.headers) for request in receiver.asked] == [False, True, True]
    assert b"client_secret" not in receiver.asked[1].body


async def test_a_client_secret_that_is_not_utf_8_is_its_bytes_in_either_place() -> None:
    receiver = Receiver()
    receiver.endpoint = lambda request: said(401, {"error": "invalid_client"})
    with pytest.raises(Unreachable):
        await receiver.send(ClientCredentials(section(client_secret=os.fsdecode(b"\xff\xfe")), PLAIN))
    in_form, in_header = receiver.asked
    assert b"client_secret=%FF%FE" in in_form.body
    assert dict(in_header.headers)["Authorization"] == "Basic " + base64.b64encode(b"relay:%FF%FE").decode()


# --- many at once -----------------------------------------------------------------------------------------------------


async def test_all_who_wait_share_one_request_and_its_failure() -> None:
    receiver = Receiver()
    release: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    receiver.endpoint = lambda request: release
    credentials = ClientCredentials(section(), PLAIN)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_ends(receiver.send(credentials))) for _ in range(100)]
        await until(lambda: receiver.asked)
        release.set_result(said(500, {}))
    assert len(receiver.asked) == 1
    assert {task.result() for task in tasks} == {"no token from auth.example: HTTP 500"}


async def test_who_asks_may_be_cut_off_and_the_request_goes_on_for_the_others() -> None:
    receiver, release = slow()
    credentials = ClientCredentials(section(), PLAIN)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(receiver.send(credentials))
        await until(lambda: receiver.asked)
        second = group.create_task(receiver.send(credentials))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        release.set_result(receiver.issue(receiver.asked[0]))
    assert second.result() == 200
    assert len(receiver.asked) == 1


async def test_a_short_timeout_fails_alone_and_the_token_comes_for_the_others_and_the_next() -> None:
    receiver, release = slow()
    credentials = ClientCredentials(section(), PLAIN)
    async with asyncio.TaskGroup() as group:
        hasty = group.create_task(_ends(receiver.send(credentials, Limits(0.05, 0.01, 1024))))
        patient = group.create_task(_ends(receiver.send(credentials)))
        await asyncio.wait([hasty])
        assert hasty.result() == "no token from auth.example within 0.05 s"
        release.set_result(receiver.issue(receiver.asked[0]))
    assert patient.result() == "200"
    assert await receiver.send(credentials, Limits(0.05, 0.01, 1024)) == 200
    assert len(receiver.asked) == 1


async def test_a_token_that_nobody_waits_for_any_more_serves_the_next_one() -> None:
    receiver, release = slow()
    credentials = ClientCredentials(section(), PLAIN)
    assert "within 0.05 s" in await _ends(receiver.send(credentials, Limits(0.05, 1, 1024)))
    release.set_result(receiver.issue(receiver.asked[0]))
    assert await receiver.send(credentials) == 200
    assert len(receiver.asked) == 1


async def test_a_token_request_has_a_deadline_of_its_own() -> None:
    receiver = Receiver()
    credentials = ClientCredentials(section(), PLAIN)
    await receiver.send(credentials, Limits(3, 0.1, 16))
    receiver.clock.advance(3600)
    await receiver.send(credentials, Limits(60, 10, 16))
    tokens = [limits for request, limits in receiver.transport.sent if request.url.host == "auth.example"]
    assert [(limits.total, limits.connect) for limits in tokens] == [(30, 5), (60, 10)]


async def test_after_a_401_the_rest_of_the_time_is_waited_for_and_the_whole_of_it_is_told() -> None:
    receiver = Receiver()
    credentials = ClientCredentials(section(), PLAIN)
    await receiver.send(credentials)
    release: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    receiver.endpoint = lambda request: release

    def refuse(token: str) -> bool:
        receiver.clock.advance(2.96)
        return False

    receiver.accepts = refuse
    async with asyncio.TaskGroup() as group:
        hasty = group.create_task(_ends(receiver.send(credentials, Limits(3, 1, 1024))))
        await until(lambda: len(receiver.asked) == 2)
        patient = group.create_task(receiver.send(credentials))
        await asyncio.wait([hasty])
        assert hasty.result() == "no token from auth.example within 3 s"
        receiver.accepts = lambda token: True
        release.set_result(receiver.issue(receiver.asked[1]))
    assert patient.result() == 200
    assert len(receiver.asked) == 2


async def test_what_is_left_for_the_destination_is_told_as_the_whole_timeout() -> None:
    receiver = Receiver()

    def endpoint(request: Outbound) -> object:
        receiver.clock.advance(1.00428)
        return receiver.issue(request)

    receiver.endpoint = endpoint
    await receiver.send(ClientCredentials(section(), PLAIN), Limits(3, 1, 1024))
    limits = receiver.transport.sent[-1][1]
    assert (round(limits.total, 5), limits.whole) == (1.99572, 3)


TOKEN = b'{"access_token": "a-token", "token_type": "bearer"}'
ISSUED = OK + b"Content-Length: %d\r\n\r\n" % len(TOKEN) + TOKEN


async def test_however_many_exchanges_have_each_another_time_left_nothing_of_them_is_kept() -> None:
    limits = Limits(PATIENCE, PATIENCE, 1024)
    async with peer(keeps(ISSUED)) as destination, HttpTransport(Egress.of(())) as transport:
        credentials = ClientCredentials(section(token_url=f"{destination.url}/token"), PLAIN)
        request = Outbound("POST", URL(destination.url), [("Authorization", "***")], b"{}")
        for _ in range(5000):
            await credentials.exchange(request, limits, transport, SystemClock())
        assert destination.connections == 1
        assert len(transport._pool.direct._deadlines) < 10


async def test_what_is_left_for_the_destination_holds_also_on_a_connection_that_was_used_before() -> None:
    async with peer(says(ISSUED, then=hang)) as destination, HttpTransport(Egress.of(())) as transport:
        credentials = ClientCredentials(section(token_url=f"{destination.url}/token"), PLAIN)
        request = Outbound("POST", URL(destination.url), [("Authorization", "***")], b"{}")
        async with asyncio.timeout(PATIENCE):
            said = await _ends(credentials.exchange(request, Limits(0.2, 0.2, 1024), transport, SystemClock()))
        assert said == "no answer within 0.2 s"
        assert destination.connections == 1


async def test_a_bug_while_a_token_is_got_is_everybodys_and_does_not_last() -> None:
    receiver = Receiver()
    receiver.endpoint = lambda request: KeyError("a bug")
    credentials = ClientCredentials(section(), PLAIN)
    with pytest.raises(KeyError):
        await receiver.send(credentials)
    receiver.endpoint = receiver.issue
    assert await receiver.send(credentials) == 200


async def test_a_token_that_does_not_come_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with sink(issuing(lambda token, issued: True, asyncio.Event())) as receiver:
        text = config(receiver.url).replace("retry: none", "retry: {policy: fixed, every: 1h, attempts: 2}")
        text = text.replace("auth:", "timeout: 200ms, auth:")
        async with relay_here(tmp_path, text) as relay:
            await relay.post("/in/any", b"{}")
            [item] = await relay.logs_when(lambda items: items and items[0]["error"])
            assert item["error"]["message"] == "no token from 127.0.0.1 within 0.2 s"
            began = time.monotonic()
        assert time.monotonic() - began < 5


async def test_who_waits_for_anothers_request_waits_no_longer_than_it_may() -> None:
    receiver, never = slow()
    credentials = ClientCredentials(section(), PLAIN)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(_ends(receiver.send(credentials)))
        await until(lambda: receiver.asked)
        said = await _ends(receiver.send(credentials, Limits(0.05, 1, 1024)))
        assert said == "no token from auth.example within 0.05 s"
        never.set_result(500)
    assert "HTTP 500" in first.result()


async def test_getting_a_token_counts_as_part_of_the_attempt() -> None:
    receiver = Receiver()

    def slow(request: Outbound) -> object:
        receiver.clock.advance(31)
        return receiver.issue(request)

    receiver.endpoint = slow
    with pytest.raises(Unreachable, match="no answer within 30 s, getting a token included"):
        await receiver.send(ClientCredentials(section(), PLAIN))


# --- failures ---------------------------------------------------------------------------------------------------------

FAILURES: dict[str, tuple[object, str]] = {
    "its own words": (
        said(400, {"error": "invalid_scope", "error_description": "no such\nscope"}),
        "HTTP 400, invalid_scope (no such?scope)",
    ),
    "no JSON": (Reply(Response(502, (), b"<html>", truncated=False), None), "HTTP 502"),
    "moved": (302, "HTTP 302: redirects are not followed (mend token_url)"),
    "not there": (404, "HTTP 404: is token_url right?"),
    "no token": (said(200, {"token": "x"}), "HTTP 200, but no access_token in JSON"),
    "an error as 200": (said(200, {"error": "bad_verification_code"}), "HTTP 200, bad_verification_code, but no "),
    "a token that no header can hold": (said(200, {"access_token": "a\r\nb"}), "but no access_token in JSON"),
    "another kind of token": (said(200, {"access_token": "a", "token_type": "mac"}), "the token is not a bearer token"),
    "nobody there": (Unreachable(Code.CONNECT_ERROR, "no connection: Connection refused"), "no connection: Connection"),
    "an echo": (
        said(400, {"error": "invalid_scope", "error_description": "x" * 90 + SECRET}),
        "x" * 90 + "***)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "message"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_token_that_cannot_be_got_is_an_auth_error_that_says_why(answer: object, message: str) -> None:
    receiver = Receiver()
    receiver.endpoint = lambda request: answer
    with pytest.raises(Unreachable) as caught:
        await receiver.send(ClientCredentials(section(), PLAIN))
    assert caught.value.failure.code is Code.AUTH_ERROR
    assert caught.value.failure.message.startswith("no token from auth.example: ")
    assert message in caught.value.failure.message
    assert "client-secret" not in caught.value.failure.message
    assert receiver.tokens == []


async def test_what_says_no_to_the_client_is_asked_in_both_ways_and_then_said() -> None:
    receiver = Receiver()
    receiver.endpoint = lambda request: said(401, {"error": "invalid_client"})
    assert await _ends(receiver.send(ClientCredentials(section(), PLAIN))) == (
        "no token from auth.example: HTTP 401, invalid_client"
    )
    assert len(receiver.asked) == 2


# --- reloads ----------------------------------------------------------------------------------------------------------


def test_equal_sections_share_their_tokens_also_over_reloads_and_changed_ones_do_not() -> None:
    first = Tokens()
    credentials = first.of(section(), PLAIN)
    assert first.of(section(), PLAIN) is credentials
    assert first.of(section(), Wire(proxy=URL("http://proxy:3128"))) is not credentials
    second = Tokens(first)
    assert second.of(section(), PLAIN) is credentials
    assert second.of(section(scope="other"), PLAIN) is not credentials
    second.settle()
    third = Tokens(second)
    assert third.of(section(scope="other"), PLAIN) is second.of(section(scope="other"), PLAIN)


# --- in the daemon ----------------------------------------------------------------------------------------------------


def config(url: str, retry: str = "none") -> str:
    auth = (
        f"{{type: oauth2, token_url: '{url}/token?key=a-key-in-the-query', client_id: relay, client_secret: {SECRET}}}"
    )
    return (
        "sources: {any: {type: generic, verify: none}}\n"
        f"routes: [{{name: r, concurrency: 100, to: {{url: '{url}/hook', auth: {auth}}}, retry: {retry}}}]\n"
    )  # fmt: skip


def issuing(accepts: Callable[[str, int], bool], release: asyncio.Event | None = None) -> Callable[[Received], Any]:
    """A destination with its own token endpoint. Echoes what it is sent."""
    issued = 0

    async def answer(request: Received) -> web.Response:
        nonlocal issued
        if request.path.startswith("/token"):
            if release is not None:
                await release.wait()
            issued += 1
            return web.json_response({"access_token": f"the-token-number-{issued}", "expires_in": 3600})
        token = request.headers["Authorization"]
        status = 200 if accepts(token, issued) else 401
        return web.Response(status=status, text=f"you said {token}", headers={"X-Echo": token})

    return answer


async def _all_delivered(relay: Relay, count: int) -> list[dict[str, Any]]:
    return await relay.logs_when(lambda items: len(items) == count, f"?status=delivered&limit={count}")


async def test_a_hundred_deliveries_at_once_use_one_token_request_and_a_revoked_token_one_more(tmp_path: Path) -> None:
    release = asyncio.Event()
    revoked: set[str] = set()
    async with sink(issuing(lambda token, issued: token not in revoked, release)) as receiver:
        async with relay_here(tmp_path, config(receiver.url)) as relay:
            await asyncio.gather(*(relay.post("/in/any", b"{}") for _ in range(100)))
            release.set()
            await _all_delivered(relay, 100)
            assert sum(request.path.startswith("/token") for request in receiver.received) == 1
            revoked.add("Bearer the-token-number-1")
            await asyncio.gather(*(relay.post("/in/any", b"{}") for _ in range(100)))
            items = await _all_delivered(relay, 200)
            assert sum(request.path.startswith("/token") for request in receiver.received) == 2
            assert {item["attempts"] for item in items} == {1}


async def test_a_token_is_seen_nowhere_and_a_reload_keeps_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with sink(issuing(lambda token, issued: True)) as receiver:
        async with relay_here(tmp_path, config(receiver.url)) as relay:
            await relay.post("/in/any", b"{}")
            await _all_delivered(relay, 1)
            path = tmp_path / "config.yaml"
            path.write_text(path.read_text().replace("/hook", "/other"))
            assert (await relay.ask("POST", "/reload"))[0] == 200
            await relay.post("/in/any", b"{}")
            items = await _all_delivered(relay, 2)
            paths = [request.path.partition("?")[0] for request in receiver.received]
            assert paths == ["/token", "/hook", "/other"]
            details = [await relay.get(f"/logs/{item['id']}") for item in items]
            for detail in details:
                [attempt] = detail["attempts"]
                assert attempt["response"]["body"] == "you said Bearer ***"
                assert ["Authorization", "***"] in attempt["request"]["headers"]
                assert ["X-Echo", "Bearer ***"] in attempt["response"]["headers"]
            shown = json.dumps([details, await relay.get("/config"), await relay.get("/health")])
    shown += capfd.readouterr().err + (tmp_path / "relay.db").read_bytes().decode("latin-1")
    for secret in ("the-token-number", SECRET, "a-key-in-the-query"):
        assert secret not in shown, secret


async def test_without_a_token_the_delivery_is_tried_again_by_its_policy(tmp_path: Path) -> None:
    async with sink(lambda request: 503 if request.n == 1 else issue(request)) as receiver:

        def issue(request: Received) -> web.Response:
            return web.json_response({"access_token": "the-token"})

        text = config(receiver.url, "{policy: fixed, every: 10ms, attempts: 5, jitter: 0}")
        async with relay_here(tmp_path, text) as relay:
            await relay.post("/in/any", b"{}")
            [item] = await _all_delivered(relay, 1)
            errors = [attempt["error"] for attempt in (await relay.get(f"/logs/{item['id']}"))["attempts"]]
            assert errors == [{"code": "auth_error", "message": "no token from 127.0.0.1: HTTP 503"}, None]


async def _ends(sending: Any) -> str:
    try:
        return str(await sending)
    except Unreachable as error:
        return error.failure.message
