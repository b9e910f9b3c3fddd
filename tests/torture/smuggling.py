"""Requests that two parsers on the way may read differently, and paths that lead elsewhere than they seem."""

from __future__ import annotations

import contextlib
from functools import partial

from tests.fakes import until
from tests.harness import RelayProcess, relay_process
from tests.torture.row import Figure, Place, Seen, of_forms
from tests.torture.wire import Answer, exchange

SOURCES = "sources: {open: {type: generic, verify: none}}\n"

_LINE = b"POST /in/open HTTP/1.1\r\n"
_HOST = b"Host: relay.test\r\n"
_TWO = b"Content-Length: 2\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_END = b"0\r\n\r\n"


def _with(headers: bytes, body: bytes = b"{}") -> bytes:
    return _LINE + _HOST + headers + b"\r\n" + body


def _line(line: bytes, headers: bytes = _HOST + _TWO) -> bytes:
    return line + b"\r\n" + headers + b"\r\n{}"


def _chunks(body: bytes) -> bytes:
    return _with(_CHUNKED, body)


REFUSED = {
    "a chunk extension of 1 MB": _chunks(b"2;" + b"a" * 1_000_000 + b"\r\n{}\r\n" + _END),
    # two lengths
    "Content-Length and Transfer-Encoding": _with(_TWO + _CHUNKED, _END),
    "Transfer-Encoding and Content-Length": _with(_CHUNKED + _TWO, _END),
    "two Content-Length that differ": _with(_TWO + b"Content-Length: 3\r\n"),
    "two equal Content-Length": _with(_TWO + _TWO),
    "Content-Length: 2, 2": _with(b"Content-Length: 2, 2\r\n"),
    # odd lengths
    "Content-Length: +2": _with(b"Content-Length: +2\r\n"),
    "Content-Length: -2": _with(b"Content-Length: -2\r\n"),
    "Content-Length: 0x2": _with(b"Content-Length: 0x2\r\n"),
    "Content-Length: 0_2": _with(b"Content-Length: 0_2\r\n"),
    "Content-Length in Arabic digits": _with("Content-Length: \u0662\r\n".encode()),
    "Content-Length, empty": _with(b"Content-Length: \r\n"),
    "Content-Length: 2 2": _with(b"Content-Length: 2 2\r\n"),
    "Content-Length past 64 bits": _with(b"Content-Length: 18446744073709551618\r\n"),
    "space before the colon of Content-Length": _with(b"Content-Length : 2\r\n"),
    # odd codings
    "Transfer-Encoding: xchunked": _with(b"Transfer-Encoding: xchunked\r\n", _END),
    "Transfer-Encoding: identity": _with(b"Transfer-Encoding: identity\r\n" + _TWO),
    "Transfer-Encoding: gzip, chunked": _with(b"Transfer-Encoding: gzip, chunked\r\n", _END),
    "Transfer-Encoding: chunked, gzip": _with(b"Transfer-Encoding: chunked, gzip\r\n", _END),
    "Transfer-Encoding: chunked, chunked": _with(b"Transfer-Encoding: chunked, chunked\r\n", _END),
    "Transfer-Encoding: chunked,": _with(b"Transfer-Encoding: chunked,\r\n", _END),
    "two Transfer-Encoding": _with(_CHUNKED + _CHUNKED, _END),
    "two Transfer-Encoding, one identity": _with(b"Transfer-Encoding: identity\r\n" + _CHUNKED, _END),
    "Transfer-Encoding behind a vertical tab": _with(b"Transfer-Encoding: \x0bchunked\r\n", _END),
    "Transfer-Encoding in quotes": _with(b'Transfer-Encoding: "chunked"\r\n', _END),
    "space before the colon of Transfer-Encoding": _with(b"Transfer-Encoding : chunked\r\n", _END),
    "Transfer-Encoding folded": _with(b"Transfer-Encoding:\r\n chunked\r\n", _END),
    "Transfer-Encoding in HTTP/1.0": b"POST /in/open HTTP/1.0\r\n" + _HOST + _CHUNKED + b"\r\n2\r\n{}\r\n" + _END,
    # odd chunks
    "chunk size zz": _chunks(b"zz\r\n{}\r\n" + _END),
    "chunk size +2": _chunks(b"+2\r\n{}\r\n" + _END),
    "chunk size -2": _chunks(b"-2\r\n{}\r\n" + _END),
    "chunk size 0x2": _chunks(b"0x2\r\n{}\r\n" + _END),
    "chunk size 0_2": _chunks(b"0_2\r\n{}\r\n" + _END),
    "chunk size behind a space": _chunks(b" 2\r\n{}\r\n" + _END),
    "chunk size before a space": _chunks(b"2 \r\n{}\r\n" + _END),
    "chunk size missing": _chunks(b"\r\n{}\r\n" + _END),
    "chunk size past 64 bits": _chunks(b"ffffffffffffffffff\r\n{}\r\n" + _END),
    "chunk size ended by LF": _chunks(b"2\n{}\r\n" + _END),
    "chunk ended by LF": _chunks(b"2\r\n{}\n" + _END),
    "chunk longer than its size": _chunks(b"2\r\n{}x\r\n" + _END),
    "LF in a chunk extension": _chunks(b"2;a\nb\r\n{}\r\n" + _END),
    "CR in a chunk extension": _chunks(b"2;a\rb\r\n{}\r\n" + _END),
    "Content-Length as a trailer": _chunks(b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n"),
    "100,000 trailers": _chunks(b"2\r\n{}\r\n0\r\n" + b"A: b\r\n" * 100_000 + b"\r\n"),
    "a trailer of 1 MB": _chunks(b"2\r\n{}\r\n0\r\nA: " + b"b" * 1_000_000 + b"\r\n\r\n"),
    "a trailer without a colon": _chunks(b"2\r\n{}\r\n0\r\nA b\r\n\r\n"),
    # odd heads
    "a folded header": _with(b"A: b\r\n c\r\n" + _TWO),
    "the first header folded": _LINE + b" A: b\r\n" + _HOST + _TWO + b"\r\n{}",
    "LF for CR LF": b"POST /in/open HTTP/1.1\nHost: relay.test\nContent-Length: 2\n\n{}",
    "LF for CR LF once": _LINE + b"Host: relay.test\nContent-Length: 2\r\n\r\n{}",
    "CR for CR LF": _with(b"A: b\rContent-Length: 2\r\n"),
    "CR in a value": _with(b"A: b\rc\r\n" + _TWO),
    "NUL in a value": _with(b"A: \0\r\n" + _TWO),
    "NUL in a name": _with(b"A\0: b\r\n" + _TWO),
    "a control character in a value": _with(b"A: \x01\r\n" + _TWO),
    "DEL in a value": _with(b"A: \x7f\r\n" + _TWO),
    "a name of other bytes than ASCII": _with(b"\xff: x\r\n" + _TWO),
    "a header without a colon": _with(b"Content-Length 2\r\n"),
    "a header without a name": _with(b": x\r\n" + _TWO),
    "no Host": _LINE + _TWO + b"\r\n{}",
    "two Hosts": _with(_HOST + _TWO),
    "a Host with spaces": _LINE + b"Host: a b/c@d\r\n" + _TWO + b"\r\n{}",
    "a header of 40 kB": _with(b"A: " + b"a" * 40_000 + b"\r\n" + _TWO),
    "a header's name of 40 kB": _with(b"a" * 40_000 + b": b\r\n" + _TWO),
    "5,000 headers": _with(b"A: b\r\n" * 5000 + _TWO),
    # odd request lines
    "HTTP/0.9": b"POST /in/open\r\n\r\n",
    "HTTP/1.2": _line(b"POST /in/open HTTP/1.2"),
    "HTTP/1.10": _line(b"POST /in/open HTTP/1.10"),
    "HTTP/11": _line(b"POST /in/open HTTP/11"),
    "HTTP/2.0 in the words of HTTP/1": _line(b"POST /in/open HTTP/2.0"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http/1.1 in small letters": _line(b"POST /in/open http/1.1"),
    "tabs in the request line": _line(b"POST\t/in/open\tHTTP/1.1"),
    "a space before the method": _line(b" POST /in/open HTTP/1.1"),
    "NUL in the method": _line(b"PO\0ST /in/open HTTP/1.1"),
    "a method of 9 kB": _line(b"P" * 9000 + b" /in/open HTTP/1.1"),
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    # more than was announced
    "more than Content-Length": _with(_TWO, b"{}garbage\r\n\r\n"),
    "a request after Connection: close": _with(b"Connection: close\r\n" + _TWO) + _with(_TWO),
}
"""Each is answered by 400, whatever else is on the connection, which is closed."""

TAKEN = {
    "chunked": _chunks(b"2\r\n{}\r\n" + _END),
    "Chunked in capitals": _with(b"Transfer-Encoding: Chunked\r\n", b"2\r\n{}\r\n" + _END),
    "a tab before chunked": _with(b"Transfer-Encoding:\tchunked\r\n", b"2\r\n{}\r\n" + _END),
    "a chunk extension": _chunks(b"2;a=b\r\n{}\r\n" + _END),
    "100,000 zeros before a chunk's size": _chunks(b"0" * 100_000 + b"2\r\n{}\r\n" + _END),
    "a value of other bytes than ASCII": _with(b"A: \xff\xfe\r\n" + _TWO),
    "an empty Host": _LINE + b"Host: \r\n" + _TWO + b"\r\n{}",
    "two spaces in the request line": _line(b"POST  /in/open HTTP/1.1"),
    "empty lines before the request": b"\r\n\r\n" + _with(_TWO),
    "Upgrade: h2c": _with(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n" + _TWO),
    "Upgrade: websocket": _with(b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + _TWO),
    "Connection: Content-Length": _with(b"Connection: Content-Length\r\n" + _TWO),
    "Expect: something odd": _with(b"Expect: 200-maybe\r\n" + _TWO),
}
"""Each is one event with its whole body, no more."""

_ELSEWHERE = {
    "/../in/open": 404,
    "/in/../in/open": 404,
    "/in/./open": 404,
    "//in/open": 404,
    "/in//open": 404,
    "/in/open/": 404,
    "/in/%6fpen": 404,
    "/in%2fopen": 404,
    "/in/open%00": 404,
    "/in/open%20": 404,
    "/in/open%": 404,
    "/in/%zz": 404,
    "/in/%ff%fe": 404,
    "/in/open;x": 404,
    "/in/OPEN": 404,
    "/in/" + "a" * 8000: 404,
    "/in/" + "a" * 9000: 400,
    "/%2e%2e/%2e%2e/etc/passwd": 404,
    "/..%2f..%2fetc/passwd": 404,
    "/../../etc/passwd": 404,
    "/..\\..\\etc\\passwd": 404,
    "//evil.test/in/open": 404,
    "*": 400,
    "": 400,
    "?": 400,
    "#": 400,
    "in/open": 400,
    "/\x01": 400,
    "/in/open\x7f": 400,
    "/in/\u202e": 400,
    "http://[::1/in/open": 400,
    "http://evil.test:99999/in/open": 400,
    "http:///in/open": 400,
    "://x": 400,
    "/logs": 404,
    "/metrics": 404,
    "/reload": 404,
    "/config": 404,
    "/ui/logs": 404,
    "/health/live": 404,
    # the path of a source, whatever stands around it
    "/in/open?x=1": 200,
    "/in/open#x": 200,
    "http://evil.test/in/open": 200,
    "http://user:password@relay.test/in/open": 200,
}
"""Paths of the public side, and what they are answered by."""

_ADMIN = {
    "/static/../../../../etc/passwd": 404,
    "/ui/static/..%2f..%2f..%2fetc/passwd": 404,
    "/ui/static/%2e%2e/%2e%2e/__init__.py": 404,
    "/ui/static/%00": 404,
    "/ui/../config": 404,
    "//config": 404,
    "/config/": 404,
    "/CONFIG": 404,
    "/logs/..%2f..%2fconfig": 404,
    "/logs/%00": 404,
    "/routes/%2e%2e%2fconfig": 404,
    "/" + "a" * 8000: 404,
    "/" + "a" * 9000: 400,
}
"""Paths of the admin side."""


async def framing(place: Place) -> Figure:
    """Each form on a connection of its own."""
    seen = []
    async with relay_process(place.folder, SOURCES) as relay:
        for form, data in REFUSED.items():
            answer = await exchange(relay.public, data)
            seen.append(Seen(form, str(answer), answer.statuses == (400,) and answer.closed and _plain(answer)))
        before = _accepted(relay)
        assert before == 0, "something that was refused was taken all the same"
        for number, (form, data) in enumerate(TAKEN.items(), 1):
            answer = await exchange(relay.public, data)
            with contextlib.suppress(TimeoutError):  # the log comes a little later
                await until(partial(_logged, relay, number), 2)
            events = [line["bytes"] for line in relay.lines() if line.get("event") == "event_accepted"]
            seen.append(Seen(form, str(answer), answer.statuses == (200,) and events == [2] * number))
    return of_forms(seen)


def _logged(relay: RelayProcess, number: int) -> bool:
    return _accepted(relay) >= number


def _accepted(relay: RelayProcess) -> int:
    return sum(line.get("event") == "event_accepted" for line in relay.lines())


def _plain(answer: Answer) -> bool:
    """Whether a refusal repeats nothing, and says nothing of what is at work."""
    return len(answer.raw) < 400 and b"aiohttp" not in answer.raw and b"Python" not in answer.raw


async def paths(place: Place) -> Figure:
    """Each path on either side."""
    seen = []
    async with relay_process(place.folder, SOURCES) as relay:
        for side, url, method, table in (
            ("public", relay.public, "POST", _ELSEWHERE),
            ("admin", relay.admin, "GET", _ADMIN),
        ):
            for path, status in table.items():
                head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                head += "Content-Length: 2\r\n\r\n{}" if method == "POST" else "\r\n"
                answer = await exchange(url, head.encode())
                shown = path if len(path) < 60 else f"{path[:8]}… ({len(path):,} characters)"
                held = answer.statuses == (status,) and b"root:" not in answer.raw
                seen.append(Seen(f"{side}: {shown!r}", str(answer), held))
    return of_forms(seen, "no file served")
