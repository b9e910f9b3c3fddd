"""An answer that came in one piece and says nothing unusual, as nearly every one does, read in one go. Pure.

aiohttp's parser reads it too, into objects that are made for answers of any kind and size, for several times the
processor time. What is read here is a part of HTTP in which there is nothing to be of two minds about: HTTP/1.1, ASCII
without control characters, one `Content-Length` that ends where the data ends, or chunks that do and say nothing but
their size, a connection that stays open. Of all else nothing is said here, and aiohttp reads it (`relay.client`); tests
have both read the same answers.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from aiohttp import hdrs
from multidict import istr

from relay.delivery import Reply, Response

_LONGEST = 4096  # bytes of a head
_SHORT = 512  # bytes of one that is remembered
_MOST = 100  # headers
_MOST_CHUNKS = 16
_STATUS = re.compile("HTTP/1\\.1 [2-5][0-9][0-9] [ -~]*")
# Possessive: a value of thousands of spaces that is none after all must not be begun anew at each of them.
_FIELD = re.compile("^([!#$%&'*+.^_`|~0-9A-Za-z-]++): *+([ -~]*+)\r\n", re.MULTILINE)
_LENGTH = re.compile("[0-9]{1,9}")
_SIZE = re.compile(b"([0-9A-Fa-f]{1,8})\r\n")
_BODILESS = (204, 304)
_WRITTEN = {name.lower(): str(name) for name in vars(hdrs).values() if isinstance(name, istr)}
"""How aiohttp writes the names it knows, whoever wrote them how."""
_WRITTEN["proxy-connection"] = "Proxy-Connection"
_NAMES = _WRITTEN | {name: name for name in _WRITTEN.values()}
_TELLING = frozenset(
    {"Content-Length", "Connection", "Proxy-Connection", "Transfer-Encoding", "Upgrade", hdrs.SEC_WEBSOCKET_KEY1}
    | {"Retry-After"}
)


class _Head(NamedTuple):
    status: int
    headers: tuple[tuple[str, str], ...]
    retry_after: str | None
    length: int | None
    """Bytes of the body; None where it comes in chunks."""


def plain(data: bytes) -> Reply | None:
    """The answer that `data` is, no more and no less; None where it may be another one, or two, or part of one."""
    end = data.find(b"\r\n\r\n", 0, _LONGEST)
    if end < 0:
        return None
    head = _again(data[: end + 2]) if end < _SHORT else _read(data[: end + 2])
    if head is None:
        return None
    body: bytes | None
    if head.length is None:
        body = _joined(data, end + 4)
    else:
        body = data[end + 4 :] if len(data) == end + 4 + head.length else None
    return None if body is None else Reply(Response(head.status, head.headers, body, False), head.retry_after)


def _joined(data: bytes, at: int) -> bytes | None:
    """The body whose chunks begin there; None unless the data ends with them."""
    chunks: list[bytes] = []
    for _ in range(_MOST_CHUNKS):
        size = _SIZE.match(data, at)
        if size is None:
            return None
        begin = size.end()
        end = begin + int(size[1], 16)
        at = end + 2
        if data[end:at] != b"\r\n":
            return None
        if begin == end:  # the last one, and after it no trailer
            return b"".join(chunks) if at == len(data) else None
        chunks.append(data[begin:end])
    return None


def _read(data: bytes) -> _Head | None:
    try:
        first, _, rest = data.decode("ascii").partition("\r\n")
    except UnicodeDecodeError:
        return None
    found = _FIELD.findall(rest)
    # As many as there are lines: so each line is one, from its beginning to its end.
    if _STATUS.fullmatch(first) is None or len(found) != rest.count("\n") or len(found) > _MOST or " \r\n" in rest:
        return None
    status = int(first[9:12])
    length = retry_after = None
    chunked = False
    headers = tuple([(_NAMES.get(name) or _WRITTEN.get(name.lower(), name), value) for name, value in found])
    for name, value in headers:
        if name not in _TELLING:
            continue
        if name == "Content-Length" and length is None and _LENGTH.fullmatch(value) is not None:
            length = int(value)
        elif name == "Transfer-Encoding" and value == "chunked" and not chunked:
            chunked = True
        elif name == "Retry-After":
            retry_after = value if retry_after is None else retry_after
        elif name != "Connection" or value.lower() != "keep-alive":
            return None
    if status in _BODILESS:
        return None if length or chunked else _Head(status, headers, retry_after, 0)
    # With neither it ends with its connection, say; with both somebody is to be misled.
    return None if chunked == (length is not None) else _Head(status, headers, retry_after, length)


_again = lru_cache(64)(_read)
"""Where answers come by the thousand, most of their heads differ in nothing but `Date`, and that in the second."""
