"""What can be wrong with a relay and around it, each looked at, and said with what to do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from relay.address import parse_address
from relay.fields import Unresolved
from relay.immutable import immutable
from relay.steps import BEHIND
from relay.wireschema import NOWHERE

if TYPE_CHECKING:
    from relay.schema import Config
    from relay.shared import Server
    from relay.space import Space
    from relay.survey import Fault, Overdue

EXPIRES_SOON = timedelta(days=14)
LONG_OVERDUE = timedelta(minutes=5)
FAR = 0.05
"""Seconds to a database and back: senders wait for several of them."""
_LOOKUP = 5.0  # seconds for all names together
_APART = 2.0  # seconds by which the two clocks may differ over some seconds


class Verdict(StrEnum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@immutable
class Check:
    """One thing that was looked at. `detail` says how it is and, where it is not well, what to do."""

    name: str
    verdict: Verdict
    detail: str


@immutable
class Unfit(Check):
    """The store is damaged, foreign or newer: an operator must act, and a restart will not help."""


def unfit(name: str, detail: str) -> Check:
    """The store cannot be used, nor will it be by itself."""
    return Unfit(name, Verdict.FAILED, detail)


def ok(name: str, detail: str) -> Check:
    """All is well."""
    return Check(name, Verdict.OK, detail)


def warning(name: str, detail: str) -> Check:
    """Somebody should look, not tonight."""
    return Check(name, Verdict.WARNING, detail)


def failed(name: str, detail: str) -> Check:
    """It does not work, or will not."""
    return Check(name, Verdict.FAILED, detail)


# --- certificates -----------------------------------------------------------------------------------------------------


def certificates(config: Config, now: datetime) -> list[Check]:
    """The files of `server.tls` and of the routes' `tls`: readable, valid now, and for some time."""
    checks: list[Check] = []
    ends: list[datetime] = []
    files = dict(_certificate_files(config))
    for path, where in files.items():
        try:
            found = _validity(Path(path))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            checks.append(failed("certificates", f"{where}: {path}: {why}: put a PEM file there that relay can read"))
            continue
        begins, until = max(begin for begin, _ in found), min(end for _, end in found)
        ends.append(until)
        if until <= now:
            checks.append(failed("certificates", f"{where}: {path} expired on {until:%F %T} UTC: renew it, and reload"))
        elif begins > now:
            checks.append(failed("certificates", f"{where}: {path} is not valid before {begins:%F %T} UTC"))
        elif until - now < EXPIRES_SOON:
            left = (until - now).days
            checks.append(
                warning("certificates", f"{where}: {path} expires in {left} d ({until:%F}): renew it, and reload")
            )
    if not checks:
        first = f", the first to expire on {min(ends):%F}" if ends else ""
        checks.append(ok("certificates", f"{len(files)} files{first}" if files else "none in use"))
    return checks


def _certificate_files(config: Config) -> Iterator[tuple[str, str]]:
    named = [("server.tls.cert", config.server.tls.cert)] if config.server.tls is not None else []
    for route in config.routes:
        named += [(f"route {route.name}, to.tls.{key}", getattr(route.to.tls, key)) for key in ("cert", "ca")]
    for where, path in named:
        if path is not None and not isinstance(path, Unresolved):
            yield path, where


def _validity(path: Path) -> list[tuple[datetime, datetime]]:
    """From when until when each certificate of a file is valid."""
    from cryptography import x509

    found = x509.load_pem_x509_certificates(path.read_bytes())
    return [(one.not_valid_before_utc, one.not_valid_after_utc) for one in found]


# --- names ------------------------------------------------------------------------------------------------------------


def names(config: Config) -> list[Check]:
    """Whether the hosts that relay connects to have addresses: destinations, token servers, proxies and notifiers'."""
    wanted: dict[str, list[str]] = {}
    for host, whose in _hosts(config):
        if parse_address(host) is None:
            wanted.setdefault(host, []).append(whose)
    failures = _unresolved(list(wanted))
    checks = [
        failed(
            "dns",
            f"{host} ({', '.join(dict.fromkeys(wanted[host]))}): {why}: is the name right, and the name server well?",
        )
        for host, why in failures.items()
    ]
    return checks or [ok("dns", f"{len(wanted)} names resolve" if wanted else "no names to look up")]


def _hosts(config: Config) -> Iterator[tuple[str, str]]:
    for route in config.routes:
        if not route.enabled:
            continue
        # Behind a proxy, the names of destinations are the proxy's to look up.
        urls = [route.to.proxy] if route.to.proxy is not None else [route.to.request_url]
        token_url = getattr(route.to.auth, "token_url", None)
        if token_url is not None and route.to.proxy is None:
            urls.append(token_url)
        for url in urls:
            if url.host and url.host != NOWHERE.host:
                yield url.host, f"route {route.name}"
    for name, notifier in config.notifiers.items():
        if notifier.host:
            yield notifier.host, f"notifier {name}"


def _unresolved(hosts: Iterable[str]) -> dict[str, str]:
    """Which of the names have no address, and why. A name server that hangs is not waited for."""
    left = set(hosts)
    answers: SimpleQueue[tuple[str, str | None]] = SimpleQueue()

    def look_up(host: str) -> None:
        try:
            socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answers.put((host, None))
        except (OSError, UnicodeError) as error:
            answers.put((host, getattr(error, "strerror", None) or str(error)))

    for host in left:
        threading.Thread(target=look_up, args=(host,), daemon=True).start()
    failures: dict[str, str] = {}
    deadline = monotonic() + _LOOKUP
    while left:
        try:
            host, why = answers.get(timeout=max(0.0, deadline - monotonic()))
        except Empty:
            return failures | dict.fromkeys(left, f"no answer within {_LOOKUP:g} s")
        left.discard(host)
        if why is not None:
            failures[host] = why
    return failures


# --- the daemon -------------------------------------------------------------------------------------------------------


def daemon(health: Mapping[str, Any], sha256: str | None) -> list[Check]:
    """What `/health` says; `sha256` is that of the config's file."""
    wrong = "; ".join(f"{name}: {said}" for name, said in health["checks"].items() if said != "ok")
    status = health["status"]
    if status == "ok":
        checks = [ok("daemon", f"well, version {health['version']}, generation {health['config']['generation']}")]
    elif status == "degraded":
        checks = [warning("daemon", f"degraded: {wrong}: see /health")]
    else:
        checks = [failed("daemon", f"{status}: {wrong}: see its log")]
    if sha256 is not None and health["config"]["sha256"] != sha256:
        checks.append(warning("daemon", "it runs with another config than this file holds: 'relay reload' takes it"))
    return checks


# --- the machine ------------------------------------------------------------------------------------------------------


def clock(now: datetime, newest: datetime | None, wall: float, steady: float) -> Check:
    """Whether the clock is behind what it has said before, by as much as `/health` tells of, or was set while this ran:
    `wall` and `steady` are the seconds that went by on both clocks meanwhile. `now` is no earlier than what was read
    as `newest`."""
    if newest is not None and newest - now >= BEHIND:
        behind = timedelta(seconds=round((newest - now).total_seconds()))
        return failed("clock", f"it is {behind} behind the newest entry of the store: set it, by NTP if possible")
    if abs(wall - steady) > _APART:
        return warning("clock", f"it was set by {wall - steady:+.1f} s in this very moment: see what sets it")
    return ok("clock", "not behind what is stored, and steady")


def disk(found: Space) -> Check:
    """Whether there is room."""
    if found.lacking:
        return failed("disk", f"{found.said}: make room")
    return warning("disk", f"{found.said}: make room") if found.little else ok("disk", found.said)


# --- a database -------------------------------------------------------------------------------------------------------


def database(said: Server) -> list[Check]:
    """Whether the server of a shared store is fit for relay, how far away it is, and who else is there."""
    far = f"{said.location}: PostgreSQL {said.version}, {said.round_trip * 1000:.1f} ms away"
    if said.too_old is not None:
        checks = [failed("database", f"{far}: relay needs {said.too_old} or newer")]
    elif said.round_trip > FAR:
        checks = [warning("database", f"{far}: every commit waits for it: run relay nearer to it")]
    else:
        checks = [ok("database", far)]
    checks += [failed("durability", risk) for risk in said.risks]
    if not said.risks:
        checks.append(ok("durability", "what is committed survives a power cut: synchronous_commit, fsync"))
    if not said.schema:
        checks.append(warning("schema", "relay has made no tables in it yet: 'relay serve' makes them"))
    elif said.schema < said.newest_schema:
        checks.append(
            warning("schema", f"version {said.schema}: this relay makes {said.newest_schema} of it when it starts")
        )
    else:
        checks.append(ok("schema", f"version {said.schema}"))
    if abs(said.ahead) > _APART:
        checks.append(
            warning(
                "database clock",
                f"it is {abs(said.ahead):.1f} s {'ahead of' if said.ahead > 0 else 'behind'} this machine's:"
                " set both, by NTP if possible",
            )
        )
    names = ", ".join(said.alive)
    checks.append(ok("processes", f"{len(said.alive)} alive: {names}" if names else "none alive"))
    return checks


# --- the store --------------------------------------------------------------------------------------------------------


def laws(names: Iterable[str], faults: Iterable[Fault]) -> list[Check]:
    """Each invariant of the store."""
    found = {fault.name: fault for fault in faults}
    checks = []
    for name in names:
        fault = found.get(name)
        if fault is None:
            checks.append(ok(name, "holds"))
            continue
        more = ", …" if fault.count > len(fault.examples) else ""
        said = f"{fault.count} {fault.broken}: {', '.join(fault.examples)}{more}"
        if name == "integrity":
            checks.append(unfit(name, f"{said}: keep a copy of the file and restore a backup"))
        else:
            checks.append(failed(name, f"{said}: please report it"))
    return checks


def overdue(
    config: Config, found: Mapping[str, Overdue], states: Mapping[str, Mapping[str, Any]], running: bool
) -> list[Check]:
    """Whether something has been due for long although its route may send."""
    checks = []
    for route in config.routes:
        late = found.get(route.name)
        if late is None or not route.enabled or states.get(route.name, {}).get("state", "healthy") != "healthy":
            continue
        said = f"route {route.name}: {late.count} due, the first since {late.since.astimezone(UTC):%F %T} UTC"
        if not running:
            checks.append(warning("overdue", f"{said}: start relay"))
        elif route.rate is not None:
            checks.append(warning("overdue", f"{said}: its rate lets no more out"))
        else:
            checks.append(failed("overdue", f"{said}: its destination is slow, or its concurrency too low"))
    minutes = LONG_OVERDUE.total_seconds() / 60
    return checks or [ok("overdue", f"nothing that may be sent is due for more than {minutes:g} min")]
