"""`relay demo`: everything in one go: the example config, a sink, and a real sample of each source."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from relay.cli import term

_SINK = ("127.0.0.1", 9099)


@click.command("demo")
@term.config_option
@term.config_errors
def command(config: Path | None) -> None:
    """Run the example config with a local sink, send it a sample of each source, and keep running.

    Ends with Ctrl-C or SIGTERM. The store is what the config says: `relay.db` in this folder.
    """
    from relay.cli.serve import run
    from relay.store import Locked, Unavailable, Unusable
    from relay.web.server import CannotListen

    path = config or Path(__file__).resolve().parent.parent / "config.example.yaml"
    try:
        run(_demo(path))
    except Unusable as error:
        term.fail(str(error), term.OPERATOR)
    except (Locked, Unavailable, CannotListen) as error:
        term.fail(str(error))


async def _demo(path: Path) -> None:
    from relay import daemon
    from relay.cli.sink import Sink, open_sink
    from relay.clock import SystemClock
    from relay.reload import read
    from relay.schema import local_url
    from relay.sending import Unsendable, post, public_url, request_for

    clock = SystemClock()
    runtime = read(path, 1, clock.now())
    secrets = [
        secret.reveal() for route in runtime.config.routes for signature in route.sign for secret in signature.secret
    ]
    try:
        runner, _ = await open_sink(Sink(click.echo, secrets=sorted(set(secrets))), *_SINK)
    except OSError as error:
        term.fail(f"the sink cannot listen on {_SINK[0]}:{_SINK[1]}: {error.strerror}")

    ready = asyncio.Event()

    async def send_samples() -> None:
        await ready.wait()
        base = public_url(runtime.config.server)
        for source in runtime.sources.values():
            try:
                status, _ = await post(base + source.path, request_for(source, None, None, clock.now()))
                click.echo(f"demo: sent a {source.type} sample to {source.path} -> {status}")
            except Unsendable as error:
                click.echo(f"demo: {error}", err=True)
        admin = local_url(runtime.config.admin.listen)
        click.echo(f"demo: running. Try:  curl -s {admin}/health   curl -s {admin}/logs   (Ctrl-C ends it)")

    try:
        async with asyncio.TaskGroup() as group:
            samples = group.create_task(send_samples())
            try:
                await daemon.run(path, clock, lambda _: ready.set())
            finally:
                samples.cancel()
    except ExceptionGroup as errors:  # there is one cause: the caller knows what to say of it
        raise errors.exceptions[0] from None
    finally:
        await runner.cleanup()
