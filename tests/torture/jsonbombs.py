"""Documents that are hard on parsers and on what comes after them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from contextlib import closing

from tests.harness import PATIENCE, relay_process, sink
from tests.torture.row import Figure, Place, Seen, of_forms
from tests.torture.wire import exchange, post

TYPES = ("storyblok", "strapi", "contentstack", "prismic", "hygraph", "standard", "github", "stripe", "generic")

_MANY = 60_000
DOCUMENTS = {
    "objects 500 deep": b'{"a":' * 500 + b"1" + b"}" * 500,
    "objects 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "lists 1,000 deep": b'{"a":' + b"[" * 1000 + b"]" * 1000 + b"}",
    "lists 400,000 deep": b"[" * 400_000 + b"]" * 400_000,
    "lists that never end": b"[" * 900_000,
    # these two take the parser of the standard library
    "lists 100,000 deep, and half a surrogate pair": b'["\\ud800",' + b"[" * 100_000 + b"]" * 100_001,
    "objects 100,000 deep, and a long integer": b'{"id":12345678901234567890,"a":'
    + b'{"a":' * 100_000
    + b"1"
    + b"}" * 100_001,
    "an integer of 5,000 digits": b'{"id":' + b"9" * 5000 + b"}",
    "an integer of 4,300 digits": b'{"id":' + b"9" * 4300 + b"}",
    "200 integers of 4,000 digits": b'{"id":[' + b",".join([b"9" * 4000] * 200) + b"]}",
    "a number of 900,000 decimals": b'{"id":0.' + b"1" * 900_000 + b"}",
    "NaN": b'{"id":NaN}',
    "Infinity": b'{"id":-Infinity}',
    "1e999": b'{"id":1e999}',
    "1e-999999999": b'{"id":1e-999999999}',
    "an integer past 64 bits": b'{"id":123456789012345678901234567890}',
    "keys twice": b'{"id":1,"id":2,"type":"a","type":"b"}',
    f"{_MANY:,} keys": json.dumps({f"k{n}": n for n in range(_MANY)}).encode(),
    f"{_MANY:,} equal keys": b"{" + b",".join([b'"a":1'] * _MANY) + b"}",
    f"{_MANY:,} documents": json.dumps({"type": "api-update", "documents": [f"{n:06}" for n in range(_MANY)]}).encode(),
    "half a surrogate pair": b'{"id":"\\ud800","type":"\\udfff"}',
    "150,000 halves": b'{"id":"' + b"\\ud800" * 150_000 + b'"}',
    "halves as keys": b'{"\\ud800":{"\\udc00":1}}',
    "a NUL": b'{"id":"a\\u0000b"}',
    "an id of 900 kB": b'{"id":"' + b"x" * 900_000 + b'"}',
    "control characters and ESC": b'{"id":"\\u001b[2J\\r\\n\\u202e"}',
    "UTF-16": '{"id":1}'.encode("utf-16"),
    "UTF-32": '{"id":1}'.encode("utf-32"),
    "a byte order mark": b'\xef\xbb\xbf{"id":1}',
    "bytes that are not UTF-8": b'{"id":"\xff\xfe"}',
    "a list": b"[]",
    "null": b"null",
    "a string": b'"x"',
    "nothing": b"",
    "white space": b" " * 900_000,
    "a comma too many": b'{"id":1,}',
    "a comment": b'{"id":1}//x',
    "two documents": b'{"id":1}{"id":2}',
    "a proof's name in escapes": b'{"s\\u0065cret":"x","secret":{"secret":1},"a":[' + b"0," * 300_000 + b"0]}",
    "objects where text is expected": json.dumps(
        {
            key: {}
            for key in ("type", "event", "model", "action", "id", "data", "entry", "uid", "operation", "documents")
        }
    ).encode(),
    "lists where objects are expected": json.dumps(
        {key: [[[]]] for key in ("data", "entry", "module", "content_type", "releases", "tags", "masks", "documents")}
    ).encode(),
    "numbers where text is expected": json.dumps(
        dict.fromkeys(("type", "event", "model", "action", "triggered_at", "timestamp", "created", "uid"), 1e300)
    ).encode(),
    "__proto__ and __class__": b'{"__proto__":{"id":1},"__class__":"x","constructor":{}}',
}
_QUICKEST = 2.0  # seconds: SPEC 3 promises an answer within one, on a machine that does nothing else


async def documents(place: Place) -> Figure:
    """Each document to each type. What was taken is rendered and sent on."""
    sources = "".join(
        f"  {kind}: {{type: {kind}, verify: none, dedup: off, map: {{entry_id: 'body.id'}}}}\n" for kind in TYPES
    )
    seen, taken = [], set[str]()
    async with sink() as destination:
        template = '{"template": \'{{ {"id": event.entry_id, "body": body} | tojson }}\'}'
        text = (
            f"sources:\n{sources}routes:\n"
            f"  - {{name: all, to: {{url: '{destination.url}'}}, retry: none}}\n"
            f"  - {{name: where, match: {{where: \"body.id == 'x' || length(keys(body)) > `1`\"}}, "
            f"to: {{url: '{destination.url}'}}, retry: none}}\n"
            f"  - {{name: made, match: {{type: [generic, prismic]}}, to: {{url: '{destination.url}'}}, "
            f"payload: {template}, retry: none}}\n"
        )
        async with relay_process(place.folder, text) as relay:
            for form, body in DOCUMENTS.items():
                statuses: dict[str, list[str]] = {}
                slowest = 0.0
                for kind in TYPES:
                    began = asyncio.get_running_loop().time()
                    answer = await exchange(relay.public, post(f"/in/{kind}", body, "Connection: close"))
                    slowest = max(slowest, asyncio.get_running_loop().time() - began)
                    statuses.setdefault(str(answer.statuses[0] if answer.statuses else answer), []).append(kind)
                if "200" in statuses:
                    taken.add(hashlib.sha256(body).hexdigest())
                told = "; ".join(
                    f"{status} to {'all' if len(kinds) == len(TYPES) else ', '.join(kinds)}"
                    for status, kinds in sorted(statuses.items())
                )
                held = set(statuses) <= {"200", "400"} and slowest < _QUICKEST
                seen.append(Seen(form, f"{told}; {slowest * 1000:.0f} ms at most", held))
            async with asyncio.timeout(3 * PATIENCE):
                while b'"pending":0' not in (await _health(relay.admin)).replace(b" ", b""):
                    await asyncio.sleep(0.1)
            errors = sum(line.get("event") == "internal_error" for line in relay.lines())
            await relay.stop()
    with closing(sqlite3.connect(place.folder / "relay.db")) as connection:
        kept = {hashlib.sha256(row[0]).hexdigest() for row in connection.execute("SELECT content FROM body")}
    return of_forms(seen, f"{len(TYPES)} types; {errors} internal errors", passed=not errors and len(taken - kept) <= 1)


async def _health(url: str) -> bytes:
    return (await exchange(url, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")).raw
