"""The daemon: builds what lives long, in order, and takes it down in the reverse order.

    config -> store (lock, migrations) -> queue brought in line -> sending -> admin side -> public side -> READY

The public side is last to open and first to close: nothing is taken in that could not be stored and sent. Where the
config gives both sides one address, there is one listener, which opens and closes as the public side's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from time import monotonic

from relay import __version__, ceilings, handover, heap, journal, rendering, systemd
from relay.client import HttpTransport, Transport
from relay.clock import Clock, SystemClock, from_ms, rfc3339
from relay.dispatcher import Dispatcher
from relay.effective import shown_store
from relay.following import Followers
from relay.health import UNTIL_RESUMED, PausedBy
from relay.immutable import immutable
from relay.listening import Listening
from relay.metrics import Metrics
from relay.notifier import Means, Notifier
from relay.notify import Notices
from relay.oversight import Oversight
from relay.pace import HOUR
from relay.peers import Peers
from relay.pipeline import Pipeline
from relay.reload import Reloader, read
from relay.retention import Retention
from relay.runtime import Runtime
from relay.schema import same_address
from relay.startup import Impatient, Stopped, patience
from relay.steps import KNOWN, Steps
from relay.store import Store, Unavailable
from relay.stores import open_store
from relay.trouble import Trouble
from relay.web import stream
from relay.web.admin import Admin
from relay.web.adminserver import application_server
from relay.web.desk import Desk
from relay.web.health import Health
from relay.web.ingest import Ingest
from relay.web.listener import Listener, listen
from relay.web.oneaddress import join
from relay.web.server import ingest_server

_ANSWERS = 5.0  # seconds for answers that are being written when relay stops
_SWITCH_INTERVAL = 0.0002  # seconds for which one thread may keep Python's lock from another
_LAST_REQUESTS = 0.2  # seconds for what is on its way on connections that are there
_KEEP_EVERY = 5.0
_LOOK_EVERY = 1.0
_WAKE_EVERY = 0.25


@immutable
class Running:
    """A relay that takes events."""

    store: Store
    reloader: Reloader
    dispatcher: Dispatcher
    oversight: Oversight
    health: Health
    ingest: Ingest
    followers: Followers
    public: Listener
    admin: Listener
    """The same one where both sides have one address."""

    async def wind_down(self) -> None:
        """Take nothing new, and let attempts in flight finish."""
        self.health.closing = True
        if not self.ingest.closing:
            # Who came just before is served. Who comes from now on is refused, or waits for the next relay where the
            # sockets are systemd's.
            self.public.part()
            await asyncio.sleep(_LAST_REQUESTS)
        self.ingest.closing = True
        await self.public.stop_accepting()
        await self.dispatcher.stop()
        self.followers.end()


async def run(
    path: Path,
    clock: Clock | None = None,
    on_ready: Callable[[Running], None] | None = None,
    *,
    held: bool = False,
) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP reloads the config. `on_ready` is called when both sides listen. `held`
    pauses all routes before anything is sent. Told to end while it waits for its store, it ends; while it opens it,
    when it has. Told to reload before it runs, it does so when it runs.

    Raises ConfigError, BadHandOver, Unusable, Locked, CannotListen or Unavailable before that, and then nothing was
    taken in.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    hangup = asyncio.Event()

    def on_stop(name: str) -> None:
        if stop.is_set():  # two signals came at the same time
            return
        # Asked again while stopping: end at once. Nothing acknowledged is lost by that either.
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(signum)
            # Not by an exception, which would wait for what is done on threads; the first process of a container, which
            # no signal ends by itself, by its own hand.
            signal.signal(signum, signal.SIG_DFL if os.getpid() != 1 else lambda number, _: os._exit(128 + number))
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        systemd.stopping()
        journal.stopping(name)
        stop.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, on_stop, signum.name)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    try:
        async with running(path, clock or SystemClock(), held=held, stop=stop) as relay:
            heap.settle()
            # The writer's thread asks for Python's lock but a few times for each commit. As long as it waits for it,
            # nobody who waits for that commit is answered, and in the end the loop has nothing to do.
            sys.setswitchinterval(_SWITCH_INTERVAL)
            async with asyncio.TaskGroup() as group:
                tasks = (
                    group.create_task(_reload_on(hangup, relay.reloader), name="reload"),
                    group.create_task(_watch(relay.health, relay.store, relay.dispatcher.trouble), name="watch"),
                )
                systemd.ready(relay.reloader.status)
                if on_ready is not None:
                    on_ready(relay)
                await stop.wait()
                await relay.wind_down()
                for task in tasks:
                    task.cancel()
    except Stopped:
        journal.stopped(0)
    else:
        journal.stopped(relay.dispatcher.interrupted)


@contextlib.asynccontextmanager
async def running(
    path: Path, clock: Clock, *, held: bool = False, stop: asyncio.Event | None = None
) -> AsyncIterator[Running]:
    """A whole relay, from its config file; leaving the context stops it. Raises as `run` does, and Stopped where it is
    told to `stop` before it has its store."""
    handed_over = handover.handed_over()
    first = read(path, 1, clock.now())
    configure_journal(first)
    for warning in (*first.warnings, *handed_over.differences(first.config)):
        journal.config_warning(warning)
    async with contextlib.AsyncExitStack() as stack:
        config = first.config
        with patience():
            # Either another relay has the file, or the database cannot be reached yet.
            waiting = journal.store_locked if config.store.url.startswith("sqlite:") else journal.store_trouble
            by = clock if stop is None else Impatient(clock, stop)
            store = await open_store(config.store.url, by, waiting, journal.store_migrating)
        stack.push_async_callback(store.close)
        # Only now: the thread that opens it, and may bring it up to date, needs its lock to the end.
        if stop is not None and stop.is_set():
            raise Stopped
        kept = await store.status()
        journal.store_opened(kept.backend, kept.version, kept.location, kept.pending, kept.held)
        for note in store.notes():
            journal.store_warning(note)
        steps = Steps(clock, from_ms(store.ids.newest_ms))
        if store.shared is None:
            steps.restore((await store.states(KNOWN)).get(KNOWN))
        metrics = Metrics()
        for minute in await store.pace(clock.now() - HOUR):
            metrics.pace.seed(minute)
        reloader = Reloader(path, first, clock, lambda result: metrics.reloads.labels(result).inc(), handed_over)
        transport = await stack.enter_async_context(HttpTransport(config.server.egress.policy()))
        notices = await stack.enter_async_context(
            Notices(clock, counted=lambda name, outcome: metrics.notifications.labels(name, outcome).inc())
        )
        oversight = Oversight(store, clock, notices)
        await oversight.restore()
        stack.push_async_callback(oversight.save)
        listening = Listening(store, clock, notices)
        await listening.restore()
        stack.push_async_callback(listening.save)
        pipeline = Pipeline(store, transport, clock, metrics, oversight, steps)
        # Looked at once, as the memory that there is.
        most = ceilings.bodies(rendering.USUAL_MEMORY if any(route.apart for route in config.routes) else 0)
        window = ceilings.window(most)
        dispatcher = await stack.enter_async_context(
            Dispatcher(store, clock, pipeline.attempt, oversight, most_bytes=most, steps=steps)
        )
        health = Health(store, dispatcher, reloader, clock, oversight, listening)
        metrics.watch(health.gauges)
        store.on_commit(metrics.commit.observe)
        ingest = Ingest(lambda: reloader.runtime, pipeline, dispatcher.offer, store, clock, metrics, listening, most)

        def look_at(runtime: Runtime) -> None:
            metrics.follow(runtime.routing.routes, runtime.sources, runtime.config.notifiers)
            _count_filter_errors(runtime, metrics)
            notices.follow(_notifiers(runtime, transport, clock), redact=runtime.redact)
            listening.follow(runtime.sources)
            oversight.follow(runtime.routing.routes)

        look_at(first)
        with patience():
            await _hold(store, oversight, {*first.routing.routes, *store.counts()}, held)
            await dispatcher.follow(first.routing.routes)

        async def swap(runtime: Runtime) -> None:
            configure_journal(runtime)
            ingest.follow(runtime)
            public_server.head_timeout = runtime.config.server.read_timeout.total_seconds()
            # At once: what comes from here on is in lanes that older ones are not in yet.
            dispatcher.stand_by(runtime.routing.routes)
            try:
                await transport.follow(runtime.config.server.egress.policy())
                look_at(runtime)
            finally:  # else what stands by would do so for ever
                await dispatcher.follow(runtime.routing.routes)

        reloader.on_swap = swap
        reloader.on_removed = oversight.removed
        if store.shared is not None:
            peers = Peers(store.shared, dispatcher, oversight, listening, notices)
            stack.push_async_callback(peers.close)
        if first.tls is not None:
            first.tls.sni_callback = lambda connection, name, context: _newest_certificate(connection, reloader)
        followers = Followers(store, stream.message)
        retention = Retention(store, clock, lambda: reloader.runtime.config.store)
        admin = Admin(
            Desk(
                store,
                dispatcher,
                pipeline,
                oversight,
                listening,
                reloader,
                health,
                clock,
                metrics,
                followers,
                retention,
            )
        )
        runner, admin_server = await application_server(admin.application())
        stack.push_async_callback(runner.cleanup)
        read_timeout = config.server.read_timeout.total_seconds()
        public_server = ingest_server(ingest.handle, ingest.answer, read_timeout, first.tls is not None)
        admin_side: Listener | None = None
        if handed_over.names or not same_address(config.admin.listen, config.server.listen):
            admin_side = await listen(admin_server, config.admin.listen, handed_over.admin, window=window)
            stack.push_async_callback(admin_side.close, _ANSWERS)
            if not admin_side.local:
                reloader.exposed = f"{admin_side.address} and is not for this machine alone"
                reloader.refuse_unguarded(first)
        else:
            # Also on loopback: a proxy in front of it lets everybody in.
            reloader.exposed = f"{config.server.listen}, where senders are let in as well"
            reloader.refuse_unguarded(first)
            public_server = join(public_server, admin_server, ingest.has)
        public_side = await listen(public_server, config.server.listen, handed_over.public, first.tls, window)
        stack.push_async_callback(public_side.close, _ANSWERS)
        admin_side = admin_side or public_side
        health.listening = True
        journal.started(
            version=__version__,
            config=str(path),
            listen=public_side.address,
            admin=admin_side.address,
            store=shown_store(config),
            sources=len(first.sources),
            routes=len(first.routing.routes),
        )
        relay = Running(store, reloader, dispatcher, oversight, health, ingest, followers, public_side, admin_side)
        group = asyncio.TaskGroup()
        await group.__aenter__()
        stack.push_async_callback(group.__aexit__, None, None, None)
        tasks = (
            group.create_task(_keep(oversight, listening), name="keep"),
            group.create_task(retention.run(), name="prune"),
            group.create_task(_measure_lag(metrics), name="lag"),
        )
        try:
            yield relay
        finally:
            for task in tasks:
                task.cancel()
            await relay.wind_down()


async def _hold(store: Store, oversight: Oversight, names: Collection[str], held: bool) -> None:
    """Pause all routes, of the config and of the queue, where that was asked for, or where the store was restored from
    a backup: it does not know what was sent after the backup was made, so a person looks first."""
    restored = await store.restored()
    if restored is not None:
        reason = f"restored from a backup of {rfc3339(restored)}{UNTIL_RESUMED}"
    elif held:
        reason = f"started with --held{UNTIL_RESUMED}"
    else:
        return
    by = PausedBy.HAND if restored is None else PausedBy.RESTORED
    for name in sorted(names):
        oversight.pause(name, reason, by)
    if not await oversight.save():
        raise Unavailable("all routes were to be paused, and the store cannot write that down: nothing was sent")
    if restored is not None:
        await store.accepted()
    journal.started_held(reason)


def _count_filter_errors(runtime: Runtime, metrics: Metrics) -> None:
    for name, route in runtime.routing.routes.items():
        counter = metrics.filter_errors.labels(name)
        route.filter.on_error = lambda reason, counter=counter: counter.inc()


def _newest_certificate(connection: ssl.SSLObject | ssl.SSLSocket, reloader: Reloader) -> None:
    """Each new connection gets the certificate of the running config. The listener keeps the context it began with."""
    newest = reloader.runtime.tls
    if newest is not None:
        connection.context = newest


def configure_journal(runtime: Runtime) -> None:
    """Level, form and redaction as a config says."""
    journal.redaction.redact = runtime.redact
    journal.configure(runtime.config.log.level, runtime.config.log.format)


async def _reload_on(hangup: asyncio.Event, reloader: Reloader) -> None:
    """One reload for any number of signals that came since the last one began."""
    while True:
        await hangup.wait()
        hangup.clear()
        await reloader.reload()


async def _keep(oversight: Oversight, listening: Listening) -> None:
    """Notice who is silent; write down how routes and sources are doing, now and then: what matters is written at
    once."""
    saved_at = 0.0
    while True:
        listening.look()
        if monotonic() - saved_at >= _KEEP_EVERY:
            await oversight.save()
            await listening.save()
            saved_at = monotonic()
        await asyncio.sleep(_LOOK_EVERY)


async def _measure_lag(metrics: Metrics) -> None:
    """Ask the loop to wake up, and see how late it is: nothing that holds it up for longer goes unseen."""
    while True:
        asked = monotonic()
        await asyncio.sleep(_WAKE_EVERY)
        metrics.lag.observe(max(0.0, monotonic() - asked - _WAKE_EVERY))


def _notifiers(runtime: Runtime, transport: Transport, clock: Clock) -> dict[str, Notifier]:
    means = Means(transport, clock, runtime.config.server.egress.policy(), runtime.redact)
    return {name: section.build(means) for name, section in runtime.config.notifiers.items()}


async def _watch(health: Health, store: Store, trouble: Trouble) -> None:
    """Feed systemd's watchdog while loop and store get on; say when the store's trouble begins and ends.

    A store that cannot write is no reason to be restarted, one that hangs is. It may take as long for a commit as
    the watchdog lets relay be silent.
    """
    limit = systemd.watchdog_limit()
    while True:
        if limit is not None and health.alive(limit):
            systemd.watchdog()
        trouble.look(store.trouble())
        await asyncio.sleep(_LOOK_EVERY if limit is None else min(limit / 2, _LOOK_EVERY))
