"""What the SQL of all stores runs on: the part of `sqlite3.Connection` that it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from relay.stores._sql.deltas import Deltas

T = TypeVar("T")

LOCK = "/* for update */"
"""After a SELECT: nobody else changes these rows before the transaction ends. A comment where there is one writer."""


class Cursor(Protocol):
    """What a statement found or did."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """One transaction's connection. Values stand at `?`, or at `?1`, `?2` and so on."""

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Cursor: ...
    def executemany(self, sql: str, table: Iterable[Sequence[Any]], /) -> Cursor: ...


Command = Callable[[Connection, Deltas], T]
"""What runs in the writer's next transaction, and fails alone."""


def run(connection: Connection, command: Command[T], deltas: Deltas) -> T:
    """Run a command so that it can fail alone. It sees in `deltas` what the transaction has changed before."""
    before = {route: list(both) for route, both in deltas.items()}
    connection.execute("SAVEPOINT command")
    try:
        result = command(connection, deltas)
    except BaseException:
        deltas.clear()
        deltas.update(before)
        if connection.in_transaction:  # a full disk has rolled back everything already
            connection.execute("ROLLBACK TO SAVEPOINT command")
            connection.execute("RELEASE SAVEPOINT command")
        raise
    connection.execute("RELEASE SAVEPOINT command")
    return result
