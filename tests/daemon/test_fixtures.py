"""Every recorded and constructed request gives its answer and its description over real TCP.

Relay runs in this process with all its parts; only its clock is ours, because signatures age.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.fakes import ManualClock
from tests.harness import Relay, relay_here, sink

FIXTURES = {
    f"{path.parent.name}/{path.stem}": json.loads(path.read_text())
    for path in sorted((Path(__file__).parent.parent / "samples").glob("*/*.json"))
}
NOW = datetime.fromtimestamp(1732363200, UTC)
_SAID = ("event", "occurred_at", "environment", "branch", "locale", "model", "stage", "action", "entry_id")


def body_of(fixture: dict[str, Any]) -> bytes:
    return fixture["body"].encode() if "body" in fixture else base64.b64decode(fixture["body_base64"])


async def post_raw(relay: Relay, path: str, headers: list[list[str]], body: bytes) -> tuple[int, Any]:
    """The request exactly as recorded, header by header: repeats, order and bytes are part of it."""
    address = urlsplit(relay.public)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    skipped = {"host", "content-length", "connection", "transfer-encoding"}
    head = [f"POST {path} HTTP/1.1", "Host: relay", f"Content-Length: {len(body)}", "Connection: close"]
    head += [f"{name}: {value}" for name, value in headers if name.lower() not in skipped]
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
    answer = await reader.read()
    writer.close()
    top, _, content = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(content)


@pytest.fixture(scope="module")
def config() -> str:
    sources = {f"fx-{number}": fixture["source_config"] for number, fixture in enumerate(FIXTURES.values())}
    return yaml.safe_dump({"sources": sources}, allow_unicode=True)


async def test_every_fixture_gives_its_answer_and_its_description_over_tcp(tmp_path: Path, config: str) -> None:
    assert len(FIXTURES) > 240
    assert {fixture["now"] for fixture in FIXTURES.values()} <= {None, 1732363200}
    wrong = []
    async with sink() as destination:
        routes = {"routes": [{"name": "all", "to": {"url": destination.url}, "match": {"any": [
            {"event": "*"}, {"action": "test"}]}}]}  # fmt: skip
        clock = ManualClock(NOW)
        async with relay_here(tmp_path, config + yaml.safe_dump(routes), clock) as relay:
            accepted = {}
            for number, (name, fixture) in enumerate(FIXTURES.items()):
                clock.tick(1)  # more than ten wrong signatures a second from one address would be answered 429
                status, answer = await post_raw(relay, f"/in/fx-{number}", fixture["headers"], body_of(fixture))
                if status != fixture["status"]:
                    wrong.append(f"{name}: answered {status} {answer}, expected {fixture['status']}")
                elif status == 200:
                    accepted[name] = answer["id"]
                    stored = await relay.get(f"/logs/{answer['id']}")
                    wrong += [f"{name}: {line}" for line in differences(stored["event"], fixture["expected"])]
                else:
                    assert answer["error"] == {400: "malformed_body", 401: "unauthenticated"}[status]
            received = await destination.wait_count(len(accepted))
            sent = {request.headers["X-Relay-Source"]: request.body for request in received}
            for number, (name, fixture) in enumerate(FIXTURES.items()):
                if name in accepted and fixture["source_config"]["type"] not in ("prismic", "storyblok"):
                    assert hashlib.sha256(sent[f"fx-{number}"]).digest() == hashlib.sha256(body_of(fixture)).digest()
    assert not wrong, "\n".join(wrong)
    assert len(accepted) == sum(fixture["status"] == 200 for fixture in FIXTURES.values())


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    wanted = {key: expected[key] for key in (*_SAID, "changes", "extra")}
    return [f"{key} is {found[key]!r}, expected {value!r}" for key, value in wanted.items() if found[key] != value]
