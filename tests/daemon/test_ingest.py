"""The public side: every answer of its table, and what hostile senders get."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import io
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from multidict import CIMultiDict

from tests.fakes import ManualClock
from tests.harness import LISTEN, Relay, relay_here

SECRET = "4f0c9a5f6be0c1c6b7f1d5f3a7a0c9d2e8b41f60"
STORY = b'{"text":"t","action":"published","space_id":1,"story_id":2,"full_slug":"a/b"}'
CONFIG = (
    LISTEN
    + f"""
sources:
  www: {{type: storyblok, secret: {SECRET}}}
  blog: {{type: strapi, token: my-very-secured-token}}
  open: {{type: generic, verify: none, respond: 202}}
  fenced: {{type: generic, verify: none, allow_ips: [10.0.0.0/8]}}
  slow: {{type: generic, verify: none, rate_limit: 1/s}}
  elsewhere: {{type: generic, verify: none, path: /hooks/custom}}
  mapped:
    type: generic
    verify: none
    map: {{model: body.type, event: 'headers."x-event"', action: "'publish'", entry_id: body.n}}
"""
)


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    async with relay_here(tmp_path, CONFIG, ManualClock()) as running:
        yield running


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"webhook-signature": hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()}


async def raw(relay: Relay, data: bytes, *, eof: bool = False) -> bytes:
    """Bytes on the wire, and all that comes back until the server closes or an answer is whole."""
    address = urlsplit(relay.public)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(data)
    if eof:
        writer.write_eof()
    try:
        async with asyncio.timeout(10):
            return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    finally:
        writer.close()


async def rejections(relay: Relay) -> list[dict[str, Any]]:
    """The rejected requests; one more event makes sure that they are written."""
    await relay.post("/in/open", b"{}")
    items: list[dict[str, Any]] = (await relay.get("/logs?status=rejected"))["items"]
    return items


async def test_an_accepted_event_is_answered_with_its_id_and_routes(relay: Relay) -> None:
    status, answer = await relay.post("/in/www", STORY, signed(STORY))
    assert status == 200
    assert answer == {"id": answer["id"], "routes": [], "duplicate": False}
    assert (await relay.get(f"/logs/{answer['id']}"))["body"].encode() == STORY


async def test_a_source_may_answer_202(relay: Relay) -> None:
    assert (await relay.post("/in/open", b"{}"))[0] == 202


async def test_an_ignored_event_says_why(relay: Relay) -> None:
    body = b'{"event":"entry.create","createdAt":"2024-11-23T12:00:00.000Z","model":"user","uid":"plugin::users.user"}'
    status, answer = await relay.post("/in/blog", body, {"Authorization": "Bearer my-very-secured-token"})
    assert (status, answer) == (200, {"id": None, "routes": [], "ignored": "plugin"})


@pytest.mark.parametrize("body", [b"\xff{}", b"not json", b"[1]", b"", b'"text"', b'{"a":NaN}', b'{"a":1e999}'])
async def test_a_body_that_the_type_cannot_be_is_400(relay: Relay, body: bytes) -> None:
    status, answer = await relay.post("/in/www", body, signed(body))
    assert status == 400
    assert answer["error"] == "malformed_body"
    assert answer["detail"]


async def test_a_malformed_body_with_a_wrong_signature_is_401(relay: Relay) -> None:
    assert (await relay.post("/in/www", b"not json", {"webhook-signature": "0" * 40}))[0] == 401


async def test_why_a_proof_failed_is_for_the_operator_only(relay: Relay) -> None:
    status, answer = await relay.post("/in/www", STORY, signed(STORY, "another"))
    assert (status, answer) == (401, {"error": "unauthenticated"})
    [item] = await rejections(relay)
    detail = await relay.get(f"/logs/{item['id']}")
    assert detail["rejection"]["reason"]
    assert detail["rejection"]["client"] == "127.0.0.1"
    assert ["webhook-signature", "***"] in detail["headers"]


async def test_past_ten_failures_a_second_an_address_gets_429_unrecorded_and_a_good_request_still_passes(
    relay: Relay,
) -> None:
    answers = [await relay.post("/in/www", STORY, signed(STORY, "another")) for _ in range(15)]
    assert [status for status, _ in answers] == [401] * 10 + [429] * 5
    assert answers[-1][1] == {"error": "rate_limited"}
    assert (await relay.post("/in/www", STORY, signed(STORY)))[0] == 200
    assert len(await rejections(relay)) == 10


async def test_an_address_outside_allow_ips_is_403(relay: Relay) -> None:
    assert await relay.post("/in/fenced") == (403, {"error": "forbidden"})


@pytest.mark.parametrize("path", ["/in/nobody", "/", "/in/", "/in/www/", "//in/www", "/in/../in/www%00", "/%2e%2e/x"])
async def test_an_unknown_path_is_404(relay: Relay, path: str) -> None:
    answer = await raw(relay, f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    assert answer.startswith(b"HTTP/1.1 404")


async def test_a_source_may_have_a_path_of_its_own(relay: Relay) -> None:
    assert (await relay.post("/hooks/custom"))[0] == 200
    assert (await relay.post("/in/elsewhere"))[0] == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_another_method_is_405_with_allow(relay: Relay, method: str) -> None:
    async with relay.session.request(method, relay.public + "/in/www") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"
        assert await response.json() == {"error": "method_not_allowed"}


async def test_the_public_side_says_no_more_of_its_health_than_ok(relay: Relay) -> None:
    async with relay.session.get(relay.public + "/health") as response:
        assert await response.json() == {"status": "ok"}


async def test_a_body_that_comes_too_slowly_is_408(tmp_path: Path) -> None:
    text = CONFIG.replace('127.0.0.1:0"}', '127.0.0.1:0", read_timeout: 50ms}', 1)
    async with relay_here(tmp_path, text) as relay:
        answer = await raw(relay, b"POST /in/open HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408")


async def test_a_head_that_comes_too_slowly_is_cut_off(tmp_path: Path) -> None:
    text = CONFIG.replace('127.0.0.1:0"}', '127.0.0.1:0", read_timeout: 50ms}', 1)
    async with relay_here(tmp_path, text) as relay:
        assert await raw(relay, b"POST /in/open HTTP/1.1\r\nHost: x\r\nX-Slow: ") == b""


async def test_a_reload_changes_how_long_a_head_may_take(tmp_path: Path) -> None:
    text = CONFIG.replace('127.0.0.1:0"}', '127.0.0.1:0", read_timeout: 1h}', 1)
    async with relay_here(tmp_path, text) as relay:
        path = tmp_path / "config.yaml"
        path.write_text(path.read_text().replace("read_timeout: 1h", "read_timeout: 50ms"))
        assert (await relay.ask("POST", "/reload"))[1]["pending_restart"] == []
        assert await raw(relay, b"POST /in/open HTTP/1.1\r\nHost: x\r\nX-Slow: ") == b""


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        ("  open: {", "  gone: {", 404),
        ("none, respond: 202", "none, allow_ips: [10.0.0.0/8]", 403),
        ("none, respond: 202", "none, respond: 200", 200),
        ("none, respond: 202", "none, rate_limit: 1/h", 200),
        ("  open: {", "  other: {path: /in/open, ", 202),
        ('127.0.0.1:0"}', '127.0.0.1:0", max_body: 10B}', 413),
    ],
    ids=["gone", "fenced", "another status", "a rate", "another source", "too large now"],
)
async def test_what_was_still_arriving_at_a_reload_is_answered_as_if_it_came_after_it(
    tmp_path: Path, before: str, after: str, status: int
) -> None:
    async with relay_here(tmp_path, CONFIG) as relay:
        async with relay.begun("/in/open", b'{"a": "more than ten bytes"}') as go_on:
            path = tmp_path / "config.yaml"
            path.write_text(path.read_text().replace(before, after, 1))
            assert (await relay.ask("POST", "/reload"))[0] == 200
            assert await go_on() == status
        assert relay.running is not None
        assert relay.running.ingest._budget._taken == 0
        if after.startswith("  other"):
            assert [item["source"] for item in (await relay.get("/logs?status=unmatched"))["items"]] == ["other"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_past_max_body_is_413(relay: Relay, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    data = pieces() if chunked else io.BytesIO(b"x" * ((1 << 20) + 1))
    async with relay.session.post(relay.public + "/in/open", data=data) as response:
        assert response.status == 413
        assert await response.json() == {"error": "too_large"}


async def test_a_body_of_exactly_max_body_is_taken(relay: Relay) -> None:
    assert (await relay.post("/in/open", b"x" * (1 << 20)))[0] == 202


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip"])
async def test_an_encoding_that_is_not_supported_is_415(relay: Relay, encoding: str) -> None:
    assert await relay.post("/in/open", b"x", {"Content-Encoding": encoding}) == (
        415,
        {"error": "unsupported_encoding"},
    )


async def test_what_is_too_large_is_413_in_whatever_encoding(tmp_path: Path) -> None:
    text = CONFIG.replace('127.0.0.1:0"}', '127.0.0.1:0", max_body: 10B}', 1)
    head = b"POST /in/open HTTP/1.1\r\nHost: x\r\nContent-Encoding: br\r\nContent-Length: 11\r\n\r\n"
    async with relay_here(tmp_path, text) as relay:
        assert (await raw(relay, head + b"x" * 11)).startswith(b"HTTP/1.1 413")
        assert (await raw(relay, head)).startswith(b"HTTP/1.1 413"), "before any of it has come"
        assert (await raw(relay, head.replace(b"11", b"10"))).startswith(b"HTTP/1.1 415")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("gzip", "br"), 415),
        (("gzip", "gzip"), 415),
        (("identity", "br"), 415),
        (("identity", "gzip"), 415),
        (("gzip",), 202),
    ],
)
async def test_several_lines_of_encodings_are_one_list(relay: Relay, lines: tuple[str, ...], status: int) -> None:
    headers = CIMultiDict([("Content-Encoding", line) for line in lines])
    data = gzip.compress(b"{}")
    async with relay.session.post(relay.public + "/in/open", data=data, headers=headers) as response:
        assert response.status == status


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)]
)
async def test_the_signature_is_over_the_decoded_bytes(relay: Relay, encoding: str, encode: Any) -> None:
    status, answer = await relay.post("/in/www", encode(STORY), signed(STORY) | {"Content-Encoding": encoding})
    assert status == 200
    assert (await relay.get(f"/logs/{answer['id']}"))["body"].encode() == STORY


async def test_a_gzip_bomb_is_413(relay: Relay) -> None:
    bomb = gzip.compress(b"\0" * (64 << 20))
    assert len(bomb) < 1 << 17
    assert (await relay.post("/in/open", bomb, {"Content-Encoding": "gzip"}))[0] == 413


@pytest.mark.parametrize(
    "body", [gzip.compress(b"") * 40_000, b"garbage", gzip.compress(b"{}")[:-3]], ids=["members", "garbage", "cut"]
)
async def test_gzip_that_is_none_is_400(relay: Relay, body: bytes) -> None:
    assert (await relay.post("/in/open", body, {"Content-Encoding": "gzip"}))[0] == 400


async def test_past_its_rate_a_source_answers_429_after_verification(relay: Relay) -> None:
    assert (await relay.post("/in/slow"))[0] == 200
    async with relay.session.post(relay.public + "/in/slow", data=b"{}") as response:
        assert response.status == 429
        assert int(response.headers["Retry-After"]) >= 1
        assert await response.json() == {"error": "rate_limited"}


async def test_while_shutting_down_senders_are_told_to_come_back(relay: Relay) -> None:
    assert relay.running is not None
    relay.running.ingest.closing = True
    async with relay.session.post(relay.public + "/in/open", data=b"{}") as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert await response.json() == {"error": "unavailable"}


async def test_generic_and_github_take_any_body(relay: Relay) -> None:
    status, answer = await relay.post("/in/open", b"\xff\x00 not text")
    assert status == 202
    stored = await relay.get(f"/logs/{answer['id']}")
    assert stored["body_base64"] == "/wAgbm90IHRleHQ="
    assert stored["event"]["model"] is None


async def test_a_map_fills_the_description(relay: Relay) -> None:
    _, answer = await relay.post("/in/mapped", b'{"type":"post","n":7}', {"X-Event": "saved"})
    event = (await relay.get(f"/logs/{answer['id']}"))["event"]
    assert (event["event"], event["model"], event["action"], event["entry_id"]) == ("saved", "post", "publish", "7")


async def test_a_lone_surrogate_is_accepted_and_its_bytes_are_kept(relay: Relay) -> None:
    body = b'{"action":"published","story_id":1,"full_slug":"\\ud800"}'
    status, answer = await relay.post("/in/www", body, signed(body))
    assert status == 200
    stored = await relay.get(f"/logs/{answer['id']}")
    assert stored["body"].encode() == body
    assert stored["event"]["extra"]["full_slug"] == "\ufffd"


async def test_of_repeated_keys_the_last_counts(relay: Relay) -> None:
    body = b'{"action":"deleted","action":"published","story_id":1}'
    _, answer = await relay.post("/in/www", body, signed(body))
    assert (await relay.get(f"/logs/{answer['id']}"))["event"]["action"] == "publish"


@pytest.mark.parametrize("depth", [500, 5_000, 100_000])
async def test_deep_nesting_is_never_a_server_error(relay: Relay, depth: int) -> None:
    body = b'{"a":' * depth + b"1" + b"}" * depth
    status, _ = await relay.post("/in/www", body, signed(body))
    assert status in (200, 400)


async def test_a_repeated_signature_header_never_passes(relay: Relay) -> None:
    signature = signed(STORY)["webhook-signature"]
    head = f"POST /in/www HTTP/1.1\r\nHost: x\r\nContent-Length: {len(STORY)}\r\n" + (
        f"webhook-signature: {signature}\r\n" * 2
    )
    assert (await raw(relay, head.encode() + b"\r\n" + STORY)).startswith(b"HTTP/1.1 401")


SMUGGLING = {
    "CL and TE": b"POST /in/open HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked"
    b"\r\n\r\n0\r\n\r\n",
    "two CL": b"POST /in/open HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "CL with plus": b"POST /in/open HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}",
    "xchunked": b"POST /in/open HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "bad chunk": b"POST /in/open HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "folded header": b"POST /in/open HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "bare LF": b"POST /in/open HTTP/1.1\nHost: x\nContent-Length: 2\n\n{}",
    "NUL": b"POST /in/open HTTP/1.1\r\nHost: x\r\nA: \0\r\nContent-Length: 2\r\n\r\n{}",
    "space before colon": b"POST /in/open HTTP/1.1\r\nHost: x\r\nContent-Length : 2\r\n\r\n{}",
    "TE on 1.0": b"POST /in/open HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "huge header": b"POST /in/open HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "5000 headers": b"POST /in/open HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5000 + b"Content-Length: 2\r\n\r\n{}",
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("data", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_ambiguous_framing_is_refused(relay: Relay, data: bytes) -> None:
    assert (await raw(relay, data)).startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))


async def test_a_sender_that_waits_for_100_continue_gets_it(relay: Relay) -> None:
    head = b"POST /in/open HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    assert (await raw(relay, head)).startswith(b"HTTP/1.1 100")


async def test_a_proof_in_the_body_is_blanked_before_it_is_stored(tmp_path: Path) -> None:
    text = "sources: {p: {type: prismic, secret: mys3cr8t-and-longer}}"
    async with relay_here(tmp_path, text) as relay:
        body = rb'{"type":"test-trigger","secret":"x","s\u0065cret" : "mys3cr8t-and-longer"}'
        status, answer = await relay.post("/in/p", body)
        assert status == 200
        stored = await relay.get(f"/logs/{answer['id']}")
        assert stored["body"] == r'{"type":"test-trigger","secret":null,"s\u0065cret" : null}'
    assert b"mys3cr8t-and-longer" not in b"".join(path.read_bytes() for path in tmp_path.glob("relay.db*"))


async def test_x_forwarded_for_is_believed_of_trusted_proxies_only(tmp_path: Path) -> None:
    fenced = "sources: {s: {type: generic, verify: none, allow_ips: [10.1.2.3/32]}}\n"
    forwarded = {"X-Forwarded-For": "1.1.1.1, 10.1.2.3"}
    async with relay_here(tmp_path, fenced) as relay:
        assert (await relay.post("/in/s", b"{}", forwarded))[0] == 403
    trusting = LISTEN.replace('127.0.0.1:0"}', '127.0.0.1:0", trusted_proxies: [127.0.0.1/32]}', 1)
    (tmp_path / "b").mkdir()
    async with relay_here(tmp_path / "b", trusting + fenced) as relay:
        assert (await relay.post("/in/s", b"{}", forwarded))[0] == 200
        assert (await relay.post("/in/s", b"{}", {"X-Forwarded-For": "10.1.2.3, 1.1.1.1"}))[0] == 403


async def test_answers_are_json(relay: Relay) -> None:
    async with relay.session.post(relay.public + "/in/nobody") as response:
        assert response.content_type == "application/json"
        assert json.loads(await response.read()) == {"error": "not_found"}
