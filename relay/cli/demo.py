"""`relay demo`: everything in one go: the example config, a sink, and a real sample of each source."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

import relay
from relay.cli import term

if TYPE_CHECKING:
    from relay.clock import Clock
    from relay.daemon import Running
    from relay.runtime import Runtime

_EXAMPLE = Path(relay.__file__).with_name("config.example.yaml")


@click.command("demo")
@term.config_option
@term.config_errors
def command(config: Path | None) -> None:
    """Run the example config with a local sink, send it a sample of each source, and keep running.

    Ends with Ctrl-C or SIGTERM. The store is what the config says: relay.db in this folder. With --config it runs
    another config, if all its routes stay on this machine: a sink listens wherever they send.

    \b
    Examples:
      relay demo
      relay demo --config mine.yaml
    """
    from relay.cli.serve import run
    from relay.clock import SystemClock
    from relay.reload import read
    from relay.store import Locked, Unavailable, Unusable
    from relay.web.listener import CannotListen

    path = config or _EXAMPLE
    clock = SystemClock()
    runtime = read(path, 1, clock.now())
    try:
        run(_demo(path, runtime, clock))
    except Unusable as error:
        term.fail(str(error), term.OPERATOR)
    except (Locked, Unavailable, CannotListen) as error:
        term.fail(str(error))


def _sinks(runtime: Runtime) -> list[tuple[str, int]]:
    """Where the routes send: what is not this machine gets no samples."""
    from relay.schema import is_loopback

    found = []
    for route in runtime.routing.routes.values():
        url = route.destination.url
        if not route.enabled:
            continue
        if url.scheme != "http" or not is_loopback(url.host or ""):
            shown = route.destination.shown_url
            term.fail(f"the demo sends samples: route {route.name} would carry them to {shown}, not to a local sink")
        found.append((url.host or "", url.port or 80))
    return list(dict.fromkeys(found))


async def _demo(path: Path, runtime: Runtime, clock: Clock) -> None:
    from relay import daemon
    from relay.cli.sink import Sink, open_sink, why
    from relay.signschema import StandardSign

    secrets = [
        secret.reveal()
        for route in runtime.config.routes
        for signature in route.sign
        if isinstance(signature, StandardSign)
        for secret in signature.secret
    ]
    sink = Sink(click.echo, secrets=sorted(set(secrets)))
    ready: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    async with contextlib.AsyncExitStack() as stack:
        for host, port in _sinks(runtime):
            try:
                runner, _ = await open_sink(sink, host, port)
            except OSError as error:
                term.fail(f"the sink cannot listen on {host}:{port}: {why(error)}: is another demo or sink running?")
            stack.push_async_callback(runner.cleanup)
        try:
            async with asyncio.TaskGroup() as group:
                samples = group.create_task(_send_samples(path, runtime, ready, clock))
                try:
                    await daemon.run(path, clock, ready.set_result)
                finally:
                    samples.cancel()
        except ExceptionGroup as errors:  # there is one cause: the caller knows what to say of it
            raise errors.exceptions[0] from None


async def _send_samples(path: Path, runtime: Runtime, ready: asyncio.Future[Running], clock: Clock) -> None:
    from relay.sending import DUPLICATE, Unsendable, post, request_for

    running = await ready
    public = _url(running.public.address, "https" if runtime.config.server.tls is not None else "http")
    for source in runtime.sources.values():
        try:
            status, answer = await post(public, source.path, request_for(source, None, None, clock.now()))
            repeat = DUPLICATE if isinstance(answer, dict) and answer.get("duplicate") else ""
            click.echo(f"demo: sent a {source.type} sample to {source.path} -> {status}{repeat}")
        except Unsendable as error:
            click.echo(f"demo: {source.name}: {error}", err=True)
    admin = _url(running.admin.address) if running.admin is not running.public else public
    curl = f"curl -s {admin}/health" if admin.startswith("http") else f"curl -s --unix-socket {admin[5:]} relay/health"
    if admin.startswith("http"):
        click.echo(f"demo: the dashboard is at {admin}/")
    click.echo(f"demo: running. Try:  {curl}   relay logs --config {path} --url {admin}   (Ctrl-C ends it)")


def _url(address: str, scheme: str = "http") -> str:
    return address if address.startswith("unix:") else f"{scheme}://{address}"
