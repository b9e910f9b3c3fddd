"""PostgreSQL for tests: clusters of their own, from Debian's binaries or whatever is in PATH.

A cluster lies in a temporary folder and listens on a port and a socket of its own; nothing outside of it is touched. A
small process watches over the folder: when the tests let go of it, or are no more (also by `kill -9`), it ends what
runs there and removes it.

    with cluster() as postgres, postgres.database() as database:
        store = await open_store(database.url, clock)
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import pytest

from tests.certificates import write_authority, write_certificate
from tests.cli.running import free_ports
from tests.harness import PATIENCE

SUPERUSER, ROLE = "postgres", "relay"
PASSWORD = "p@ss:w/rd %41"
"""Some of its characters must be quoted in a URL."""

_TOOLS = ("initdb", "pg_ctl", "pg_basebackup")
_LONGEST = 80
"""Of a folder's path: with its socket it fits into the 107 bytes that the kernel has for one."""

# Whatever runs in folders below the one named is ended, then all of it removed, once standard input is at its end.
_WATCH = """
read -r _
for try in $(seq 100); do
  for each in "$1"/*/postmaster.pid; do
    pid=$(head -n 1 "$each" 2>/dev/null) && [ "$(readlink "/proc/$pid/cwd")" = "${each%/*}" ] && kill -QUIT "$pid"
  done
  rm -rf "$1" 2>/dev/null && exit
  sleep 0.05
done
"""

# For tests there is nothing to lose: what a crash of this machine would take is not worth waiting for.
_QUICK = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
_SMALL = {"shared_buffers": "32MB", "max_connections": "100", "max_wal_size": "256MB"}
_ROOM = 2 << 30
"""Of memory for files, where such clusters are kept if there is so much: disks make them wait for what others sync."""


def missing() -> str | None:
    """Why there is no PostgreSQL, if there is none."""
    if _binaries() is None:
        return "PostgreSQL is not installed: it is in Debian's package postgresql"
    if os.geteuid() == 0 and _owner() is None:
        return "PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody"
    return None


def needed() -> None:
    """Skip where there is no PostgreSQL, but fail where $RELAY_TEST_NEEDS says that there must be."""
    reason = missing()
    if reason is not None:
        if "postgresql" in os.environ.get("RELAY_TEST_NEEDS", "").split():
            pytest.fail(reason)
        pytest.skip(reason)


@contextlib.contextmanager
def cluster(
    *, fsync: bool = False, tls: bool = False, password: bool = False, settings: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A cluster that runs, and is gone in the end.

    With `fsync` it keeps what it has promised also when the machine fails, as one in production. With `tls` it refuses
    connections over TCP that are not encrypted; with `password`, those that do not know `PASSWORD` (SCRAM). `settings`
    are lines of `postgresql.conf`.
    """
    needed()
    with _folder(in_memory=not fsync) as folder:
        made = Cluster(folder, "primary", tls, password, _SMALL | ({} if fsync else _QUICK) | dict(settings or {}))
        made.make()
        try:
            yield made
        finally:
            made.close()


@dataclass(frozen=True)
class Database:
    """A database that nobody else has."""

    cluster: Cluster
    name: str

    @property
    def url(self) -> str:
        """What `store.url` says."""
        return self.cluster.url(self.name)

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        """What psql would say, as a superuser."""
        return self.cluster.psql(text, self.name)


class Cluster:
    """One server with its databases. `relay` is an ordinary role, and owns those that `database` makes."""

    def __init__(self, folder: Path, name: str, tls: bool, password: bool, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.data = folder / name
        self.tls = tls
        self.password = PASSWORD if password else None
        self.authority = folder / "authority.pem"
        """Who signed the certificate of a server with TLS."""
        self._settings = dict(settings)
        [self.port] = free_ports(1)
        self._connection: psycopg.Connection[Any] | None = None
        self._numbers = itertools.count(1)
        self._left: deque[str] = deque()
        self._stopped = False
        self._replicas: list[Cluster] = []

    # -- where it is -------------------------------------------------------------------------------------------------

    def url(self, name: str = "postgres", *others: Cluster, **options: str) -> str:
        """The URL of a database, over TCP: with others, that of whichever of them can be written to. Options are
        libpq's, as in `sslmode="disable"`, or `host` for another way to reach it, as that of `folder` is."""
        query: dict[str, str] = {}
        if self.tls:
            query |= {"sslmode": "verify-full", "sslrootcert": str(self.authority)}
        if others:
            query |= {"target_session_attrs": "read-write"}
        query |= options
        password = "" if self.password is None else f":{quote(self.password, safe='')}"
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in (self, *others))
        if "host" in query:
            hosts, query["port"] = "", str(self.port)
            query |= {"user": ROLE} if self.password is None else {"user": ROLE, "password": self.password}
            return f"postgresql:///{name}?{urlencode(query)}"
        return f"postgresql://{ROLE}{password}@{hosts}/{name}" + (f"?{urlencode(query)}" if query else "")

    @contextlib.contextmanager
    def database(self, template: str = "template0") -> Iterator[Database]:
        """An empty database, or one like another, to which nobody may be connected."""
        if self._stopped:  # by a test that failed
            self.start()
        # The last one is left alone: servers that close a connection take a moment, for which a DROP waits 100 ms.
        while len(self._left) > 1:
            self.psql(f'DROP DATABASE "{self._left.popleft()}" WITH (FORCE)')
        name = f"relay_{next(self._numbers)}"
        self.psql(f'CREATE DATABASE "{name}" OWNER {ROLE} TEMPLATE "{template}"')
        try:
            yield Database(self, name)
        finally:
            self._left.append(name)

    def psql(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """The rows of the last statement, as a superuser."""
        if database != "postgres":
            with self._connect(database) as connection:
                return _rows(connection.execute(sql.encode()))
        if self._connection is None or self._connection.closed:
            self._connection = self._connect(database)
        return _rows(self._connection.execute(sql.encode()))

    def _connect(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=str(self.folder),
            port=self.port,
            user=SUPERUSER,
            dbname=database,
            options=f"-c search_path={ROLE},public",  # as ROLE sees it: first its own schema
            autocommit=True,
            connect_timeout=10,
        )

    @property
    def log(self) -> str:
        """What the server said."""
        return self._log.read_text()

    @property
    def _log(self) -> Path:
        return self.data.with_suffix(".log")

    # -- up and down -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, on the same port, and wait until it takes connections."""
        done = self._run("pg_ctl", "start", "-w", "-t", str(round(PATIENCE)), "-l", str(self._log))
        assert done.returncode == 0, done.stdout + done.stderr + (self.log if self._log.exists() else "")
        self._stopped = False

    def stop(self, immediate: bool = False) -> None:
        """Close all connections and stop it; `immediate` as in a crash, to be recovered from at the next start."""
        self.close()
        self._stopped = True
        done = self._run("pg_ctl", "stop", "-w", "-t", str(round(PATIENCE)), "-m", "immediate" if immediate else "fast")
        assert done.returncode == 0, done.stdout + done.stderr

    def restart(self, immediate: bool = False) -> None:
        """Stop it and start it."""
        self.stop(immediate)
        self.start()

    def close(self) -> None:
        """Let go of it, and of its replicas."""
        for replica in self._replicas:
            replica.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- a second one ------------------------------------------------------------------------------------------------

    def replica(self, name: str = "replica", synchronous: bool = False) -> Cluster:
        """Another server that follows this one by streaming, for reading until it is promoted; `synchronous` says that
        nothing is committed here before it is on the replica too."""
        made = Cluster(self.folder, name, self.tls, self.password is not None, self._settings)
        self._replicas.append(made)
        source = f"host={self.folder} port={self.port} user={SUPERUSER} application_name={name}"
        done = _run(
            self.folder, "pg_basebackup", "-d", source, "-D", str(made.data), "-R", "-X", "stream", "-c", "fast", "-N"
        )
        assert done.returncode == 0, done.stderr
        made.configure()
        made.start()
        self._wait_for(f"SELECT 1 FROM pg_stat_replication WHERE application_name = '{name}' AND state = 'streaming'")
        if synchronous:
            self.psql(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
            self.psql("SELECT pg_reload_conf()")
            self._wait_for(
                f"SELECT 1 FROM pg_stat_replication WHERE application_name = '{name}' AND sync_state = 'sync'"
            )
        return made

    def catch_up(self, primary: Cluster) -> None:
        """Wait until a replica has all that the primary has by now."""
        [(end,)] = primary.psql("SELECT pg_current_wal_flush_lsn()")
        self._wait_for(f"SELECT 1 WHERE pg_last_wal_replay_lsn() >= '{end}'")

    def promote(self) -> None:
        """A replica is a primary from now on."""
        [(done,)] = self.psql(f"SELECT pg_promote(true, {round(PATIENCE)})")
        assert done, self.log

    def _wait_for(self, sql: str) -> None:
        until = time.monotonic() + PATIENCE
        while not self.psql(sql):
            assert time.monotonic() < until, f"it never came to this: {sql}\n{self.log}"
            time.sleep(0.01)

    # -- how it is made ----------------------------------------------------------------------------------------------

    def make(self) -> None:
        """A new one, running."""
        command = ["initdb", "-D", str(self.data), "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "-N", "--locale=C"]
        if _version() >= 15:
            # Most clusters sort as people do, unlike SQLite: who relies on the order of bytes must say so.
            command += ["--locale-provider=icu", "--icu-locale=en-US"]
        done = _run(self.folder, *command)
        assert done.returncode == 0, done.stdout + done.stderr
        if self.tls:
            self._certify()
        self.configure()
        self.start()
        self.psql(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")

    def configure(self) -> None:
        """Its own settings, in the place of those that it was made with, or copied with."""
        settings = self._settings | {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
        }
        if self.tls:
            settings |= {"ssl": "on", "ssl_cert_file": f"{self.folder}/server.pem"}
            settings |= {"ssl_key_file": f"{self.folder}/server.key"}
        text = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        kind, way = "hostssl" if self.tls else "host", "trust" if self.password is None else "scram-sha-256"
        doors = ("local all all trust", "local replication all trust", f"{kind} all {ROLE} 127.0.0.1/32 {way}")
        self._write(self.data / "postgresql.conf", text)
        self._write(self.data / "pg_hba.conf", "".join(f"{door}\n" for door in doors))

    def _certify(self) -> None:
        authority = write_authority(self.folder, "authority")
        write_certificate(self.folder, "server", by=authority)
        for path in self.folder.glob("server.*"):
            path.chmod(0o600)
            _give(path)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        _give(path)

    def _run(self, tool: str, *args: str) -> subprocess.CompletedProcess[str]:
        return _run(self.folder, tool, "-D", str(self.data), *args)


def _rows(cursor: psycopg.Cursor[Any]) -> list[tuple[Any, ...]]:
    while cursor.nextset():
        pass
    return [] if cursor.description is None else cursor.fetchall()


@functools.cache
def _binaries() -> Path | None:
    """The folder with PostgreSQL's programs. Debian keeps those of the server out of PATH."""
    found = shutil.which("initdb")
    folders = [] if found is None else [Path(found).parent]
    numbered = [each for each in Path("/usr/lib/postgresql").glob("*/bin") if each.parent.name.isdigit()]
    folders += sorted(numbered, key=lambda each: int(each.parent.name), reverse=True)
    return next((each for each in folders if all((each / tool).exists() for tool in (*_TOOLS, "postgres"))), None)


@functools.cache
def _version() -> int:
    said = _run(Path("/"), "postgres", "--version").stdout  # postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
    return int(said.split()[2].partition(".")[0])


@functools.cache
def _owner() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as where the tests run as root, which it refuses."""
    for name in (SUPERUSER, "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


def _as_owner() -> dict[str, Any]:
    owner = _owner()
    if os.geteuid() != 0 or owner is None:
        return {}
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def _give(path: Path) -> None:
    owner = _owner()
    if os.geteuid() == 0 and owner is not None:
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _run(folder: Path, tool: str, *args: str) -> subprocess.CompletedProcess[str]:
    binaries = _binaries()
    assert binaries is not None
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return subprocess.run(
        [str(binaries / tool), *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=folder,
        env=environ,
        umask=0o077,
        **_as_owner(),
    )


@contextlib.contextmanager
def _folder(in_memory: bool) -> Iterator[Path]:
    """A folder of the one whom PostgreSQL runs as, watched over."""
    places = [tempfile.gettempdir(), "/tmp", "/var/tmp"]  # not pytest's own: those are for their owner alone
    with contextlib.suppress(OSError):
        if in_memory and shutil.disk_usage("/dev/shm").free >= _ROOM:
            places.insert(0, "/dev/shm")
    within = next(each for each in places if _reachable(Path(each).resolve()))
    folder = Path(tempfile.mkdtemp(prefix="relay-postgres-", dir=within)).resolve()
    _give(folder)
    # The end of the pipe that is ours closes with this process, whatever ends it.
    watch = subprocess.Popen(
        ["sh", "-c", _WATCH, "sh", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # Ctrl-C is not for it
        **_as_owner(),
    )
    try:
        yield folder
    finally:
        assert watch.stdin is not None
        watch.stdin.close()
        assert watch.wait(PATIENCE) == 0
        assert not folder.exists()


def _reachable(folder: Path) -> bool:
    """Whether another user gets into it, and a socket's path in it is short enough."""
    if len(str(folder)) > _LONGEST or not os.access(folder, os.W_OK | os.X_OK):
        return False
    return not _as_owner() or all(each.stat().st_mode & stat.S_IXOTH for each in (folder, *folder.parents))
