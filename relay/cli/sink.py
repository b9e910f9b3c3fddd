"""`relay sink`: a destination to try things on. It prints what it gets, and checks it as a careful receiver would."""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence

import click
from aiohttp import web

from relay.cli import term
from relay.signing import standard_key

_REMEMBERED = 10_000
_FAIL = re.compile(r"([1-5]\d\d):(\d{1,6})")


class Sink:
    """Answers every request, and says what it saw. The first `fail[1]` requests are answered with `fail[0]`."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        fail: tuple[int, int] = (503, 0),
        delay: float = 0.0,
        secrets: Sequence[str] = (),
    ) -> None:
        self._say = say
        self._status, self._left = fail
        self._delay = delay
        self._keys = [standard_key(secret) for secret in secrets]
        self._seen: OrderedDict[str, int] = OrderedDict()
        self.received = 0

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Take one request."""
        body = await request.read()
        self.received += 1
        if self._delay:
            await asyncio.sleep(self._delay)
        status = 200
        if self._left > 0:
            self._left -= 1
            status = self._status
        headers = request.headers
        facts = [
            f"{headers.get('X-Relay-Source', '-')}",
            f"{headers.get('X-Relay-Event', '-')}",
            f"{len(body)} bytes",
            *self._checks(headers.get("webhook-id"), request, body),
        ]
        self._say(term.printable(f"sink: {request.method} {request.path} -> {status}  " + "  ".join(facts)))
        return web.json_response({"received": status == 200}, status=status)

    def _checks(self, message_id: str | None, request: web.BaseRequest, body: bytes) -> list[str]:
        if message_id is None:
            return ["no webhook-id"]
        count = self._seen.pop(message_id, 0) + 1
        self._seen[message_id] = count
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        found = [message_id]
        if count > 1:
            found.append(f"seen {count} times")
        signature = request.headers.get("webhook-signature")
        if self._keys and signature is not None:
            timestamp = request.headers.get("webhook-timestamp", "")
            signed = f"{message_id}.{timestamp}.".encode() + body
            wanted = ["v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in self._keys]
            good = any(hmac.compare_digest(part.encode(), w.encode()) for part in signature.split() for w in wanted)
            found.append("signature verified" if good else "SIGNATURE WRONG")
        return found


async def open_sink(sink: Sink, host: str, port: int) -> tuple[web.ServerRunner, int]:
    """Start it; gives the runner and the port that it listens on."""
    runner = web.ServerRunner(web.Server(sink.handle, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound: int = runner.addresses[0][1]
    return runner, bound


@click.command("sink")
@click.option("--listen", default="127.0.0.1:9099", show_default=True, help="where to listen")
@click.option("--fail", default=None, metavar="STATUS:N", help="answer the first N requests with STATUS, as 503:3")
@click.option("--delay", default="0s", show_default=True, help="wait so long before each answer, as 2s")
@click.option("--secret", multiple=True, help="check Standard Webhooks signatures with this whsec_ secret")
def command(listen: str, fail: str | None, delay: str, secret: tuple[str, ...]) -> None:
    """Be a destination: print every request, and check its webhook-id and signature."""
    from pydantic import TypeAdapter, ValidationError

    from relay.cli.serve import run
    from relay.fields import Duration

    host, _, port = listen.rpartition(":")
    if not port.isdigit():
        raise click.BadParameter("expected HOST:PORT", param_hint="--listen")
    failing = (503, 0)
    if fail is not None:
        match = _FAIL.fullmatch(fail)
        if match is None:
            raise click.BadParameter("expected STATUS:N such as 503:3", param_hint="--fail")
        failing = (int(match[1]), int(match[2]))
    try:
        seconds = TypeAdapter(Duration).validate_python(delay).total_seconds()
        sink = Sink(click.echo, fail=failing, delay=seconds, secrets=secret)
    except ValidationError:
        raise click.BadParameter("expected a duration such as 2s", param_hint="--delay") from None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--secret") from None

    async def serve() -> None:
        try:
            runner, bound = await open_sink(sink, host.strip("[]") or "127.0.0.1", int(port))
        except OSError as error:
            term.fail(f"cannot listen on {listen}: {error.strerror}")
        click.echo(f"sink: listening on {host or '127.0.0.1'}:{bound}")
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    try:
        run(serve())
    except KeyboardInterrupt:
        click.echo(f"sink: {sink.received} requests")
