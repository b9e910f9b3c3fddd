"""`relay sink`: a destination to try things on. It prints what it gets, and checks it as a careful receiver would."""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import re
import signal
from collections import OrderedDict
from collections.abc import Callable, Sequence

import click
from aiohttp import web

from relay.cli import term
from relay.signing import standard_key

_REMEMBERED = 10_000
_FAIL = re.compile(r"([2-5]\d\d):(\d{1,6})")


class Sink:
    """Answers every request, and says what it saw. The first `fail[1]` requests are answered with `fail[0]`."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        fail: tuple[int, int] = (503, 0),
        delay: float = 0.0,
        secrets: Sequence[str] = (),
        verbose: bool = False,
    ) -> None:
        self._say = say
        self._status, self._left = fail
        self._delay = delay
        self._verbose = verbose
        self._keys = [standard_key(secret) for secret in secrets]
        self._seen: OrderedDict[str, int] = OrderedDict()
        self.received = 0

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Take one request."""
        body = await request.content.read()  # request.read() refuses more than 1 MiB, and relay may send more
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
        if self._verbose:
            pairs = [(name, term.printable(value)) for name, value in headers.items()]
            text = body.decode("utf-8", "backslashreplace")
            self._say("\n".join([*term.columns(pairs), *(term.paragraph(text, "  | ") if body else ())]))
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
    runner = web.ServerRunner(web.Server(sink.handle, access_log=None), shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound: int = runner.addresses[0][1]
    return runner, bound


@click.command("sink")
@click.option("--listen", metavar="ADDRESS", default="127.0.0.1:9099", show_default=True, help="Where to listen.")
@click.option("--fail", metavar="STATUS:N", help="Answer the first N requests with STATUS, as in 503:3.")
@click.option("--delay", metavar="TIME", default="0s", show_default=True, help="Wait so long before each answer.")
@click.option(
    "--secret",
    multiple=True,
    envvar="RELAY_SINK_SECRET",
    help="Check Standard Webhooks signatures with this whsec_ secret (default: $RELAY_SINK_SECRET).",
)
@click.option("-v", "--verbose", is_flag=True, help="Print headers and bodies too.")
def command(listen: str, fail: str | None, delay: str, secret: tuple[str, ...], verbose: bool) -> None:
    """Be a destination: print every request, and check its webhook-id and signature. Ends with Ctrl-C or SIGTERM.

    A webhook-id that comes again is said: retries have the same one.

    \b
    Examples:
      relay sink
      relay sink --listen 127.0.0.1:9100 --fail 503:3 --delay 2s
    """
    from pydantic import TypeAdapter, ValidationError

    from relay.cli.serve import run
    from relay.fields import Duration

    host, _, port = listen.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise click.BadParameter(f"expected HOST:PORT, got '{listen}'", param_hint="--listen")
    failing = (503, 0)
    if fail is not None:
        match = _FAIL.fullmatch(fail)
        if match is None:
            raise click.BadParameter(f"expected STATUS:N such as 503:3, got '{fail}'", param_hint="--fail")
        failing = (int(match[1]), int(match[2]))
    try:
        seconds = TypeAdapter(Duration).validate_python(delay).total_seconds()
        sink = Sink(click.echo, fail=failing, delay=seconds, secrets=secret, verbose=verbose)
    except ValidationError:
        raise click.BadParameter(f"expected a time such as 2s, got '{delay}'", param_hint="--delay") from None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--secret") from None
    run(_serve(sink, host.strip("[]") or "127.0.0.1", int(port)))


async def _serve(sink: Sink, host: str, port: int) -> None:
    """Until Ctrl-C or SIGTERM."""
    ended = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, ended.set)
    try:
        runner, bound = await open_sink(sink, host, port)
    except OSError as error:
        term.fail(f"cannot listen on {host}:{port}: {why(error)}")
    click.echo(f"sink: listening on {f'[{host}]' if ':' in host else host}:{bound}")
    try:
        await ended.wait()
    finally:
        await runner.cleanup()
    click.echo(f"sink: {term.count(sink.received, 'request')}")


def why(error: OSError) -> str:
    """The reason alone: asyncio repeats the address in it."""
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error.strerror or error)
