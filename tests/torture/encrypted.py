"""Servers whose TLS is not to be trusted, behind a wire that is tapped: no byte of a request goes there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp

from tests.faults.peers import CASES
from tests.harness import RelayProcess, write_config
from tests.torture.crashes import end
from tests.torture.row import Figure, Place

FAULTS = (
    "expired certificate",
    "self-signed certificate",
    "certificate of an unknown authority",
    "certificate for another name",
    "TLS 1.0 and 1.1 only",
    "handshake that stalls",
    "plain HTTP on the port for TLS",
)
TRIES = 3
_HANDSHAKE = b"\x16"
_CLEAR = (b"POST", b"webhook-id", b"HTTP/1.1", b"secret-body")
_PATIENCE = 30.0


@dataclass
class Tap:
    """What relay sent, connection by connection."""

    port: int = 0
    sent: list[bytearray] = field(default_factory=list)

    @property
    def clear(self) -> bool:
        """Whether anything was sent that is not TLS."""
        return any(sent[:1] not in (b"", _HANDSHAKE) or any(word in sent for word in _CLEAR) for sent in self.sent)


@contextlib.asynccontextmanager
async def tap(to: int) -> AsyncIterator[Tap]:
    """A port before another one, that keeps what goes there."""
    made = Tap()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                kept += data
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = bytearray()
        made.sent.append(kept)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(copy(reader, far_writer, kept))
                both.create_task(copy(far_reader, writer, bytearray()))
        finally:
            far_writer.close()
            writer.close()

    async with asyncio.TaskGroup() as group:
        connections = list[asyncio.Task[None]]()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(group.create_task(serve(reader, writer)))

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        made.port = server.sockets[0].getsockname()[1]
        try:
            yield made
        finally:
            server.close()
            for task in connections:  # a handshake that stalls never ends by itself
                task.cancel()


async def refused(place: Place) -> Figure:
    """Each is tried three times, by a daemon."""
    lines, taps = ["sources: {any: {type: generic, verify: none}}", "routes:"], list[Tap]()
    async with contextlib.AsyncExitStack() as stack:
        for number, fault in enumerate(FAULTS):
            case, folder = CASES[fault], place.folder / str(number)
            folder.mkdir()
            peer = await stack.enter_async_context(case.serve(folder))
            taps.append(await stack.enter_async_context(tap(peer.port)))
            to = f"{{url: 'https://127.0.0.1:{taps[-1].port}/secret-path', {case.keys(folder)}}}"
            retry = f"retry: {{policy: fixed, every: 50ms, attempts: {TRIES}}}"
            lines.append(f"  - {{name: r{number}, to: {to}, {retry}}}")
        relay = RelayProcess(write_config(place.folder, "\n".join(lines) + "\n"))
        try:
            await relay.start()
            async with aiohttp.ClientSession() as session:
                async with session.post(f"{relay.public}/in/any", data=b"secret-body") as response:
                    assert response.status == 200
                failed = await _failed(relay, session)
        finally:
            end(relay)
    reasons = [failed[f"r{number}"]["message"] for number in range(len(FAULTS))]
    codes = {failed[f"r{number}"]["code"] for number in range(len(FAULTS))}
    clear = [fault for fault, tapped in zip(FAULTS, taps, strict=True) if tapped.clear]
    connections = sum(len(tapped.sent) for tapped in taps)
    return Figure(
        f"{len(FAULTS)} kinds, {connections} connections, none delivered, {len(set(reasons))} different reasons;"
        f" sent in clear: {', '.join(clear) or 'nothing'}",
        codes <= {"tls_error", "timeout"}
        and len(set(reasons)) == len(FAULTS)
        and connections >= TRIES * len(FAULTS)
        and not clear,
    )


async def _failed(relay: RelayProcess, session: aiohttp.ClientSession) -> dict[str, dict[str, str]]:
    """Why each route gave up, once all have."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            async with session.get(f"{relay.admin}/logs?limit=1000") as response:
                items = json.loads(await response.read())["items"]
            assert not any(item["status"] == "delivered" for item in items), items
            if all(item["status"] == "failed" for item in items):
                return {item["route"]: item["error"] for item in items}
            await asyncio.sleep(0.05)
