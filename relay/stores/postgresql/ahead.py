"""A transaction's statements sent in one go, on what they are going to return.

Nearly always it is known: no event repeats another, each delivery is still this process's. So a batch is first put
together without asking anything: each statement names the rows that it should return. All of them are sent together,
their answers come together, and where they are what was said, the transaction is committed: two round trips, however
many statements. Where they are not, or where something has to be asked after all, it is rolled back, or never sent, and
made again step by step.

This speaks to libpq without psycopg's cursors: each of those would give the interpreter away and wait to get it back,
for up to five milliseconds where the event loop is busy.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import pq

from relay.stores.postgresql.bulk import Array, Bigint
from relay.stores.postgresql.connection import Connection, Found, Session

_BIGINT = 20


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


_DECODED: Mapping[int, Callable[[bytes], Any]] = {17: bytes, _BIGINT: _number, 23: _number, 25: bytes.decode}
"""By the oids of types, see pg_type.dat."""
_FINE = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


class Unforeseen(Exception):
    """It cannot be known beforehand what a statement returns."""


class Ahead(Session):
    """Takes statements like a session, sends none before `agreed`. Whoever does not say what one returns is told that
    it is Unforeseen. For statements that change nothing which others follow."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.raw)
        self._of = session
        self._steps: list[tuple[str, Sequence[Any], Sequence[tuple[Any, ...]]]] = []

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Found:
        raise Unforeseen

    def bulk(
        self, sql: str, values: Sequence[Any], foreseen: Sequence[tuple[Any, ...]] | None = None
    ) -> list[tuple[Any, ...]]:
        if foreseen is None:
            raise Unforeseen
        self._steps.append((sql, values, foreseen))
        return list(foreseen)

    def agreed(self) -> bool:
        """Begin a transaction and send everything; whether all returned what was foreseen, else it is rolled back.
        Raises psycopg.Error."""
        session = self._of
        session.statements += len(self._steps) + 1
        statements = [(sql, [_written(value) for value in values]) for sql, values, _ in self._steps]
        fresh: dict[str, bytes] = {}
        libpq = self.raw.pgconn
        libpq.enter_pipeline_mode()
        libpq.send_query_params(b"BEGIN", None)
        for sql, written in statements:
            name = session.prepared.get(sql)
            if name is None:
                name = fresh[sql] = session.name()
                libpq.send_prepare(name, sql.encode(), [kind for kind, _ in written])
            data = [data for _, data in written]
            libpq.send_query_prepared(name, data, [pq.Format.BINARY] * len(data), pq.Format.BINARY)
        try:
            answers = _answers(self.raw)
        except psycopg.errors.InvalidSqlStatementName:
            # psycopg lets go of all that are prepared when a transaction was rolled back.
            session.prepared.clear()
            self._end(b"ROLLBACK")
            return False
        session.prepared |= fresh
        # What was prepared has no word for what it has done.
        found = [_rows(answer) for answer in answers[1:] if answer.nfields or answer.command_status]
        if all(set(rows) == set(foreseen) for rows, (_, _, foreseen) in zip(found, self._steps, strict=True)):
            return True
        self._end(b"ROLLBACK")
        return False

    def commit(self) -> None:
        """Commit what was agreed. Raises psycopg.Error."""
        if self._end(b"COMMIT") != b"COMMIT":
            raise psycopg.InternalError("the transaction was rolled back where it was to be committed")

    def _end(self, word: bytes) -> bytes | None:
        self._of.statements += 1
        self.raw.pgconn.enter_pipeline_mode()
        self.raw.pgconn.send_query_params(word, None)
        [answer] = _answers(self.raw)
        return answer.command_status


def _written(value: Any) -> tuple[int, bytes]:
    """The type of a value and its binary form."""
    if isinstance(value, int):
        return _BIGINT, value.to_bytes(8, "big", signed=True)
    if not isinstance(value, Array):
        value = Bigint(value)
    return value.array, value.data


def _answers(connection: Connection) -> list[pq.abc.PGresult]:
    """One for each thing that waits to be sent; the connection is out of its pipeline again. Raises psycopg.Error for
    the first one that failed."""
    libpq = connection.pgconn
    libpq.pipeline_sync()
    _flush(connection)
    poll = select.poll()
    poll.register(libpq.socket, select.POLLIN)
    answers: list[pq.abc.PGresult] = []
    failed: psycopg.Error | None = None
    while True:
        while libpq.is_busy():
            poll.poll()
            libpq.consume_input()
        answer = libpq.get_result()
        if answer is None:  # the end of one statement's
            if libpq.status == pq.ConnStatus.BAD:
                raise failed or psycopg.OperationalError("the connection was lost")
        elif answer.status == pq.ExecStatus.PIPELINE_SYNC:
            break
        elif answer.status in _FINE:
            answers.append(answer)
        elif failed is None:  # those after it were not looked at
            failed = psycopg.errors.error_from_result(answer, encoding="utf-8")
    libpq.exit_pipeline_mode()
    if failed is not None:
        raise failed
    return answers


def _flush(connection: Connection) -> None:
    """Send all of it; what comes meanwhile is taken in, so that neither side waits for the other."""
    libpq = connection.pgconn
    if not libpq.flush():
        return
    poll = select.poll()
    poll.register(libpq.socket, select.POLLIN | select.POLLOUT)
    while libpq.flush():
        if any(event & ~select.POLLOUT for _, event in poll.poll()):
            libpq.consume_input()


def _rows(answer: pq.abc.PGresult) -> list[tuple[Any, ...]]:
    decoded = [_DECODED[answer.ftype(column)] for column in range(answer.nfields)]
    return [
        tuple(
            None if (data := answer.get_value(row, column)) is None else made(data)
            for column, made in enumerate(decoded)
        )
        for row in range(answer.ntuples)
    ]
