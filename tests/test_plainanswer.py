"""What is read in one go is what aiohttp reads."""

from __future__ import annotations

import asyncio
import gc
import timeit
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.client_proto import ResponseHandler
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from relay.client import HttpTransport, Reply, Unreachable
from relay.delivery import Response
from relay.destination import Heading, Limits, Outbound
from relay.egress import Egress
from relay.plainanswer import plain
from tests.faults.peers import OK, peer, says
from tests.faults.routes import ended, one_route
from tests.harness import PATIENCE, relay_here

LIMITS = Limits(PATIENCE, PATIENCE, 1000)
FINE = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 2\r\n\r\nok"


def by_aiohttp(data: bytes) -> Reply | None:
    """What its parser makes of it: one whole answer, after which the connection could be used again; else None."""

    async def read() -> Reply | None:
        protocol = ResponseHandler(asyncio.get_running_loop())
        protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        protocol.data_received(data)
        if len(protocol) != 1 or protocol.exception() is not None:
            return None
        message, content = await protocol.read()
        if not content.is_eof() or protocol.should_close:
            return None
        body = content.read_nowait()
        # Part of another answer leaves no trace in the parser until it is whole.
        protocol.data_received(FINE)
        if len(protocol) != 1 or protocol.exception() is not None:
            return None
        told = tuple((str(name), value) for name, value in message.headers.items())
        return Reply(Response(message.code, told, body, truncated=False), message.headers.get("Retry-After"))

    return asyncio.run(read())


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PLAIN = [
    FINE,
    b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\n\r\n",
    b"HTTP/1.1 503 \r\nretry-AFTER: 7\r\nRetry-After: 9\r\ncontent-length: 2\r\nconnection: Keep-Alive\r\n\r\n\0\xff",
    b'HTTP/1.1 301 Moved\r\nlocation: /else:where "~"\r\nX-Empty:\r\nx-odd!#$: : :\r\nContent-Length:02\r\n\r\n\r\n',
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 1\r\n\r\nz",
    CHUNKED + b"0\r\n\r\n",
    CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
    CHUNKED + b"2\r\nok\r\n000B\r\n0\r\n\r\n0\r\n\r\n\xff\r\n00\r\n\r\n",
    CHUNKED.replace(b"Transfer-E", b"retry-after: 5\r\ntransfer-e") + b"0a\r\n0123456789\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("data", PLAIN)
def test_a_plain_answer_is_read_as_aiohttp_reads_it(data: bytes) -> None:
    read = plain(data)
    assert read is not None
    assert read == by_aiohttp(data)


def headed(*lines: bytes, body: bytes = b"ok") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Server: nginx", *lines, b"", body])


OTHERS = {
    "part of a head": FINE[:-5],
    "part of a body": FINE[:-1],
    "more than an answer": FINE + b"H",
    "two answers": FINE + FINE,
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.0": FINE.replace(b"1.1", b"1.0"),
    "not HTTP": b"220 mail.test ESMTP\r\n\r\n",
    "no status": FINE.replace(b"200", b"2OO"),
    "a status of another kind": FINE.replace(b"200", b"700"),
    "a status of other digits": FINE.replace(b"200", "²00".encode("latin-1")),
    "no length": headed(),
    "two lengths": headed(b"Content-Length: 2", b"Content-Length: 2"),
    "a length with a sign": headed(b"Content-Length: +2"),
    "a length of other digits": headed("Content-Length: ２".encode()),
    "a length in hex": headed(b"Content-Length: 0x2"),
    "a long length": headed(b"Content-Length: 0000000000000000000000000002"),
    "no length said": headed(b"Content-Length:"),
    "a list of lengths": headed(b"Content-Length: 2, 2"),
    "chunks and a length": headed(b"Transfer-Encoding: chunked", b"Content-Length: 2"),
    "chunks that a length fits": headed(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunks said twice": headed(*[b"Transfer-Encoding: chunked"] * 2, body=b"0\r\n\r\n"),
    "chunks of another encoding": headed(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunks where no body may be": CHUNKED.replace(b"200", b"204"),
    "no chunk": CHUNKED,
    "part of a chunk": CHUNKED + b"2\r\no",
    "a chunk without its end": CHUNKED + b"2\r\nok0\r\n\r\n",
    "a chunk that is longer": CHUNKED + b"1\r\nok\r\n0\r\n\r\n",
    "no last chunk": CHUNKED + b"2\r\nok\r\n",
    "part of a last chunk": CHUNKED + b"2\r\nok\r\n0\r\n\r",
    "more than a last chunk": CHUNKED + b"0\r\n\r\nH",
    "a trailer": CHUNKED + b"0\r\nX-A: b\r\n\r\n",
    "what a chunk says besides": CHUNKED + b"2;a=b\r\nok\r\n0\r\n\r\n",
    "a chunk's size with a sign": CHUNKED + b"+2\r\nok\r\n0\r\n\r\n",
    "a chunk's size as Python writes it": CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n",
    "a chunk's size with a space": CHUNKED + b"2 \r\nok\r\n0\r\n\r\n",
    "a chunk without a size": CHUNKED + b"\r\n\r\n",
    "a chunk that ends by a line feed": CHUNKED + b"2\nok\n0\n\n",
    "a chunk without end": CHUNKED + b"ffffffff\r\nok\r\n0\r\n\r\n",
    "many chunks": CHUNKED + b"1\r\na\r\n" * 1000 + b"0\r\n\r\n",
    "another encoding": headed(b"transfer-ENCODING: identity", b"Content-Length: 2"),
    "a connection that closes": headed(b"Connection: close", b"Content-Length: 2"),
    "options of a connection": headed(b"connection: keep-alive, upgrade", b"Content-Length: 2"),
    "a proxy's connection": headed(b"Proxy-Connection: close", b"Content-Length: 2"),
    "a folded line": headed(b"X-Folded: a", b" b", b"Content-Length: 2"),
    "a space before the colon": headed(b"Content-Length : 2"),
    "a space before the name": headed(b" Content-Length: 2"),
    "no name": headed(b": a", b"Content-Length: 2"),
    "no colon": headed(b"nonsense", b"Content-Length: 2"),
    "a space at a value's end": headed(b"Content-Length: 2 "),
    "a tab": headed(b"X-Tab: a\tb", b"Content-Length: 2"),
    "a NUL": headed(b"X-Nul: a\0b", b"Content-Length: 2"),
    "a lone line feed": headed(b"X-Lone: a\nContent-Length: 2"),
    "a lone carriage return": headed(b"X-Lone: a\rContent-Length: 2"),
    "not ASCII": headed("X-Name: Zürich".encode(), b"Content-Length: 2"),
    "too many headers": headed(*[b"a: b"] * 150, b"Content-Length: 2"),
    "a long head": headed(b"X-Long: " + b"a" * 5000, b"Content-Length: 2"),
    "a body where none may be": FINE.replace(b"200", b"204"),
    "no head": b"\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS.keys())
def test_what_may_be_read_in_more_than_one_way_is_left_to_aiohttp(data: bytes) -> None:
    assert plain(data) is None


def test_no_answer_holds_up_everybody_else_while_it_is_read() -> None:
    spaces = b"HTTP/1.1 200 OK\r\nX-Long:" + b" " * 4000 + b"\x01\r\n\r\n"
    best = min(timeit.repeat(lambda: plain(spaces), number=1, repeat=5))
    assert best < 0.005, "each space is looked at once, not once for each one before it"


names = st.sampled_from(
    ["Transfer-Encoding", "Server", "date", "X-Id", "content-length", "Content-Length", "Connection", "Retry-After"]
)
values = st.one_of(
    st.sampled_from(["0", "2", "3", " 2", "close", "keep-alive", "chunked"]), st.text('ab:,;" \t\r\n\0é²', max_size=5)
)
separators = st.sampled_from([":", ": ", " : ", ""])
ends = st.sampled_from(["\r\n"] * 8 + ["\n", "\r"])
chunks = st.sampled_from(
    ["0\r\n\r\n"] * 3 + ["2\r\nok\r\n"] * 3 + ["02\r\n\r\n\r\n", "0\r\n", "3\r\nok\r\n", "2;a\r\nok\r\n"]
)


@given(
    st.sampled_from(["HTTP/1.1 200 OK"] * 4 + ["HTTP/1.1 204 ", "HTTP/1.1 200", "HTTP/1.0 200 OK", "HTTP/1.1 304 \t"]),
    st.lists(st.tuples(names, separators, values, ends), max_size=5),
    st.one_of(st.sampled_from(["", "ok", "ok\n", "HTTP/1.1"]), st.lists(chunks, max_size=4).map("".join)),
)
def test_whatever_is_read_in_one_go_aiohttp_reads_the_same(
    first: str, lines: list[tuple[str, str, str, str]], body: str
) -> None:
    data = (first + "\r\n" + "".join("".join(line) for line in lines) + "\r\n" + body).encode("latin-1")
    read = plain(data)
    assert read is None or read == by_aiohttp(data)


# --- on a connection --------------------------------------------------------------------------------------------------


def keeps(*pieces: bytes) -> Any:
    """Gives an answer in pieces, each in a moment of its own, to each request."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            await reader.readuntil(b"\r\n\r\n")

    return talk


@pytest.mark.parametrize(
    "pieces",
    [(FINE,), (FINE[:20], FINE[20:]), (FINE[:-2], FINE[-2:]), (b"HTTP/1.1 100 Continue\r\n\r\n", FINE)],
    ids=["one", "its head in two", "head and body", "after an interim one"],
)
async def test_in_however_many_pieces_an_answer_comes_it_is_the_same(pieces: tuple[bytes, ...]) -> None:
    async with peer(keeps(*pieces)) as destination, HttpTransport(Egress.of(())) as transport:
        outbound = Outbound("POST", URL(destination.url), [], b"")
        for _ in range(3):
            reply = await transport.send(outbound, LIMITS)
            headers = (("Server", "nginx"), ("Content-Length", "2"))
            assert (reply.response.status, reply.response.headers, reply.response.body) == (200, headers, b"ok")
        assert destination.connections == 1


@pytest.mark.parametrize("cut", [0, 20, len(CHUNKED), len(CHUNKED) + 4, -4])
async def test_an_answer_in_chunks_is_the_same_however_it_is_cut(cut: int) -> None:
    answer = CHUNKED + b"2\r\nok\r\n1\r\n!\r\n0\r\n\r\n"
    async with (
        peer(keeps(*filter(None, (answer[:cut], answer[cut:])))) as destination,
        HttpTransport(Egress.of(())) as transport,
    ):
        for _ in range(3):
            reply = await transport.send(Outbound("POST", URL(destination.url), [], b""), LIMITS)
            assert reply.response == Response(200, (("Transfer-Encoding", "chunked"),), b"ok!", truncated=False)
        assert destination.connections == 1


async def test_of_a_plain_answer_only_response_body_is_kept() -> None:
    body = b"a" * 5000
    async with (
        peer(says(OK + b"Content-Length: 5000\r\n\r\n" + body)) as destination,
        HttpTransport(Egress.of(())) as transport,
    ):
        reply = await transport.send(Outbound("POST", URL(destination.url), [], b""), LIMITS)
        assert (reply.response.body, reply.response.truncated) == (body[:1000], True)


async def test_an_idle_connection_holds_nothing_of_the_answer_that_came_on_it() -> None:
    answer = OK + b"Content-Length: 50000\r\n\r\n" + b"a" * 50_000
    async with peer(keeps(answer)) as destination, HttpTransport(Egress.of(())) as transport:
        await transport.send(Outbound("POST", URL(destination.url), [], b""), LIMITS)
        [[lease]] = transport._pool.direct._idle.values()
        found: list[object] = [lease]
        for _ in range(4):  # its parts, and theirs
            found += gc.get_referents(*found)
        assert not [each for each in found if isinstance(each, bytes) and len(each) >= 50_000]


async def test_a_connection_on_which_something_comes_after_a_plain_answer_is_not_used_again(tmp_path: Path) -> None:
    told, closed = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(FINE)
        await told.wait()
        writer.write(b"HTTP/1.1 ")
        await reader.read()  # to its end
        closed.set()

    async with peer(talk) as destination, relay_here(tmp_path, one_route(destination.url)) as relay:
        assert (await ended(relay))["delivery"]["status"] == "delivered"
        told.set()
        async with asyncio.timeout(PATIENCE):
            await closed.wait()
        assert (await ended(relay))["delivery"]["status"] == "delivered"
        assert destination.connections == 2


@pytest.mark.parametrize("bad", ["a\nb: c", "a\r", "a\0", "a\r\nb: c"])
async def test_no_request_leaves_whose_headers_would_make_it_another_one(bad: str) -> None:
    async with peer(keeps(FINE)) as destination, HttpTransport(Egress.of(())) as transport:
        for name, value in (("X-A", bad), (bad, "a")):
            outbound = Outbound("POST", URL(destination.url), [(name, value)], b"")
            before = Heading(((name, value),), (), (), (), 3)
            after = Heading((), ((name, value),), (), (), 3)
            ids = [("webhook-id", "1"), ("webhook-timestamp", "2")]
            for made in (
                outbound,
                replace(outbound, heading=before, headers=[*before.before, *ids]),
                replace(outbound, heading=after, headers=[*ids, *after.after]),
                replace(outbound, heading=Heading((), (), (), (), 2), headers=[("webhook-id", bad), ids[1]]),
                replace(outbound, heading=Heading((), (), (), (), 2), headers=[*ids, (name, value)]),
            ):
                with pytest.raises(Unreachable):
                    await transport.send(made, LIMITS)
        assert destination.requests == 0
