"""Connections to the database: how they are made, what is set on them, and what their errors mean.

A URL is libpq's, so that all that operators know of it holds: several hosts and `target_session_attrs`, `sslmode` and
`sslrootcert`, PGPASSWORD, `.pgpass`, service files (https://www.postgresql.org/docs/current/libpq-connect.html).
"""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import getpid
from typing import Any

import psycopg
from psycopg import conninfo, pq
from psycopg.adapt import AdaptersMap, Buffer
from psycopg.rows import tuple_row
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumper

from relay.store import Unavailable, Unusable
from relay.stores.postgresql import bulk, pooling
from relay.stores.postgresql.dialect import translated

SCHEMA = "relay"
"""Where the tables lie: beside whatever else is in the database."""

_CONNECTING = 10  # seconds, for each host
_SILENT = 20  # seconds after which a connection whose other end says nothing is given up
_IDLE = 5  # seconds: a process that was stopped in a transaction must not hold its locks for longer than it lives
_STATEMENT = 60  # seconds: for a commit that waits for its replicas; readers have a limit of their own

_OPTION = re.compile(r"(?:-c\s*|--)([\w.-]+)\s*=")
_LOOKING = ("reader", "survey")
"""What verbs connect for that only look: a standby will do, where the URL names one."""

Connection = psycopg.Connection[tuple[Any, ...]]


class Text(StrDumper):
    """Text, sent as such. PostgreSQL keeps no NUL in it: a picture of it stands in its place, in what is stored as in
    what is looked for. What senders sent is kept as bytes."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace("\0", "\u2400") if "\0" in obj else obj)


def _adapters() -> AdaptersMap:
    # Of one type whatever the value: a statement is prepared once.
    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_dumper(str, Text)
    adapters.register_dumper(int, Int8Dumper)
    bulk.register(adapters)
    return adapters


_ADAPTERS = _adapters()


def parameters(url: str) -> dict[str, Any]:
    """What a URL says, with what relay adds where it says nothing. Raises Unusable."""
    try:
        said: Mapping[str, Any] = conninfo.conninfo_to_dict(url)
    except psycopg.Error as error:
        # What libpq says of a URL repeats parts of it, the password among them.
        raise Unusable(f"store.url: it is no URL of PostgreSQL's: {type(error).__name__}") from None
    ours: dict[str, Any] = {
        "connect_timeout": _CONNECTING,
        "keepalives_idle": _SILENT // 2,
        "keepalives_interval": _SILENT // 6,
        "keepalives_count": 3,
        "tcp_user_timeout": _SILENT * 1000,
    }
    if "," in str(said.get("host", "")):
        ours["target_session_attrs"] = "read-write"  # of several, the one that takes writes
    return ours | dict(said)


def place(url: str) -> str:
    """Where it is, for people: without user, password or anything else."""
    said = parameters(url)
    host, port = said.get("host") or "localhost", said.get("port") or "5432"
    return f"postgresql://{host}:{port}/{said.get('dbname') or said.get('user') or ''}"


def settings(url: str, role: str) -> dict[str, Any]:
    """How to connect, for one of relay's connections: what it is for stands in `pg_stat_activity`."""
    said = parameters(url)
    if role not in _LOOKING:
        # After a failover a single name may lead to a standby for a while. Nor may a daemon read there: what is leased
        # on the one server is not found on the other.
        said.setdefault("target_session_attrs", "read-write")
    name = f"relay {role} {socket.gethostname()}:{getpid()}"
    said.setdefault("application_name", name[:63])
    return said


def _setting_up(url: str, role: str) -> str:
    """The statement that makes a session relay's. Poolers refuse what is said of that as it begins (`options`)."""
    ours = {
        "search_path": SCHEMA,
        "statement_timeout": f"{_STATEMENT}s",
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": f"{_IDLE}s",
        "client_min_messages": "warning",
        "jit": "off",
        "timezone": "UTC",
    }
    if role == "writer":
        # It looks up what it names, a few rows at a time. What the planner knows of tables may be old, and a plan is
        # kept: reading one whole, which may seem right while it is small, goes on when it no longer is.
        ours |= {"enable_seqscan": "off", "enable_mergejoin": "off"}
    options = str(parameters(url).get("options") or "")
    theirs = {name.replace("-", "_").lower() for name in _OPTION.findall(options)}
    return "SELECT " + ", ".join(
        f"set_config('{name}', '{value}', false)" for name, value in ours.items() if name not in theirs
    )


def connect(url: str, role: str, first: bool = False) -> Connection:
    """A connection without transactions of its own. For the `first` one of a process it is looked at whether sessions
    last: nothing has been set by then that others would come across. Raises psycopg.Error, Unusable."""
    connection = _reach(url, role)
    try:
        _check(connection.pgconn)
        if first:
            pooling.refuse_shared(connection, lambda: _reach(url, role))
        connection.execute(_setting_up(url, role).encode())
    except BaseException:
        connection.close()
        raise
    return connection


def _reach(url: str, role: str) -> Connection:
    return psycopg.connect(
        **settings(url, role),
        autocommit=True,
        context=_Context(),
        cursor_factory=psycopg.RawCursor,
        row_factory=tuple_row,
    )


async def connect_async(url: str, role: str) -> psycopg.AsyncConnection[tuple[Any, ...]]:
    """The same as `connect`, for the event loop."""
    connection = await psycopg.AsyncConnection.connect(
        **settings(url, role),
        autocommit=True,
        context=_Context(),
        cursor_factory=psycopg.AsyncRawCursor,
        row_factory=tuple_row,
    )
    try:
        _check(connection.pgconn)
        await connection.execute(_setting_up(url, role).encode())
    except BaseException:
        await connection.close()
        raise
    return connection


class _Context:
    """How values are sent."""

    adapters = _ADAPTERS
    connection = None


def _check(connection: Any) -> None:
    encoding = connection.parameter_status(b"server_encoding")
    if encoding not in (b"UTF8", None):
        raise Unusable(f"store.url: the database is encoded in {encoding.decode()}: create one with ENCODING 'UTF8'")


class Session:
    """A connection as the shared SQL wants it (see `stores/_sql/connection`)."""

    def __init__(self, connection: Connection) -> None:
        self.raw = connection
        self.changed: set[int] | None = None
        """Filled with the ids of deliveries that statements make or change, where it is there."""
        self.statements = 0
        self.prepared: dict[str, bytes] = {}
        """The names of statements that were prepared without psycopg (see `ahead`)."""
        self._names = itertools.count(1)

    def name(self) -> bytes:
        """One for a statement, that no other of this connection has or had."""
        return b"relay_%d" % next(self._names)

    @property
    def in_transaction(self) -> bool:
        return self.raw.info.transaction_status is not pq.TransactionStatus.IDLE and not self.raw.closed

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Found:
        self.statements += 1
        noting = self.changed is not None and sql.lstrip().startswith(("UPDATE delivery", "INSERT INTO delivery"))
        if noting and "RETURNING" not in sql:
            cursor = self.raw.execute(f"{translated(sql)} RETURNING id", values or None)
            assert self.changed is not None
            self.changed.update(row[0] for row in cursor.fetchall())
        else:
            cursor = self.raw.execute(translated(sql), values or None)
        return Found(cursor)

    def bulk(
        self, sql: str, values: Sequence[Any], foreseen: Sequence[tuple[Any, ...]] | None = None
    ) -> list[tuple[Any, ...]]:
        """A statement in PostgreSQL's own words; the rows that it returns, if any. `foreseen` are those that it returns
        where nothing out of the common has happened, in any order (see `ahead`)."""
        self.statements += 1
        cursor = self.raw.execute(sql, values)
        return cursor.fetchall() if cursor.description else []

    def executemany(self, sql: str, table: Iterable[Sequence[Any]], /) -> Found:
        number, last = 0, None
        with self.raw.pipeline():
            cursors = [self.execute(sql, row) for row in table] if self.changed is None else []
        if self.changed is not None:
            cursors = [self.execute(sql, row) for row in table]
        for last in cursors:
            number += last.rowcount
        return Found(None if last is None else last.cursor, number)


class Found:
    """What a statement found or did."""

    def __init__(self, cursor: Any, rowcount: int | None = None) -> None:
        self.cursor = cursor
        self._rowcount = rowcount

    @property
    def rowcount(self) -> int:
        return int(self.cursor.rowcount) if self._rowcount is None else self._rowcount

    def fetchone(self) -> Any:
        return self.cursor.fetchone()

    def fetchall(self) -> list[Any]:
        return list(self.cursor.fetchall())

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())


# While it connects, libpq has words of an error and no code for it. A server that speaks another language than English,
# or one of several that is down, is taken for one that may yet come.
_WRONG = re.compile(
    r'(?:password|SASL|"trust") authentication failed|no password supplied|(?:database|role) ".*" does not exist'
    r"|no such (?:database|user): "  # in the words of PgBouncer
    r"|no pg_hba\.conf entry|pg_hba\.conf rejects|permission denied for database|certificate verify failed"
    r'|server certificate for .* does not match host name|root certificate file ".*" does not exist'
    r"|server does not support SSL, but SSL was required"
)
_WRONG_CODES = (
    psycopg.errors.InvalidPassword,
    psycopg.errors.InvalidAuthorizationSpecification,
    psycopg.errors.InvalidCatalogName,
    psycopg.errors.InsufficientPrivilege,
    psycopg.ProgrammingError,
)
_POOLER = re.compile("unsupported (?:options )?startup parameter")
_NO_WRITES = re.compile(r"session is read-only|server is in hot standby mode|in a read-only transaction")


def refusal(said: str, error: psycopg.Error) -> Unusable | Unavailable:
    """What is to be raised for an error: whether an operator must act, or it may pass by itself."""
    text = str(error)
    tried = [line for line in text.splitlines() if line.startswith("- host:")] or [text]
    wrong = isinstance(error, _WRONG_CODES) or all(_WRONG.search(each) or _POOLER.search(each) for each in tried)
    return Unusable(said) if wrong else Unavailable(said)


def explain(error: BaseException) -> str:
    """Why the store cannot be used, for the operator: in the server's words, without values."""
    if isinstance(error, psycopg.Error):
        said = error.diag.message_primary or next(iter(str(error).splitlines()), "") or type(error).__name__
        code = f" ({error.sqlstate})" if error.sqlstate else ""
        why = "; it is a standby, or was set to take no writes" if _NO_WRITES.search(said) else ""
        if _POOLER.search(said):
            why = (
                "; a pooler says so: take that out of store.url (or PGOPTIONS), or have the pooler pass it over"
                " (PgBouncer: ignore_startup_parameters), or connect to PostgreSQL itself"
            )
        return f"the database cannot be used: {said.strip()}{code}{why}"
    return f"the database cannot be used: {error}"
