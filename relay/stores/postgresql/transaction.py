"""What one transaction writes beside new events (`joining`): results, refusals, counts; and what it locks first.

Locks are taken in one order by everybody, all at the beginning: the own row in `process` (so that nobody takes this
process for dead meanwhile), the gate, lanes and windows by their numbers. Who may change the order of any lane closes
the gate, everybody else who touches lanes only passes it. Plain deliveries need neither.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b

from relay.delivery import Owed, State
from relay.ids import DeliveryId
from relay.stores._sql import lanes, results, rows
from relay.stores._sql.deltas import Deltas, shift
from relay.stores._sql.results import Record
from relay.stores._sql.rows import Row
from relay.stores.postgresql.ahead import Ahead
from relay.stores.postgresql.bulk import ATTEMPT_TYPES, REJECTION_TYPES, columns, types, unnest
from relay.stores.postgresql.burying import HOLD
from relay.stores.postgresql.connection import Session
from relay.stores.postgresql.membership import Gone

_GATE = 0x72656C79  # "rely"
_CLOSE = f"SELECT pg_advisory_xact_lock({_GATE}, 0)"
_PASS = f"SELECT pg_advisory_xact_lock_shared({_GATE}, 0)"
# In the order of the array.
_LOCK = "SELECT pg_advisory_xact_lock(k) FROM unnest($1::bigint[]) AS k"

# What came into being last of these lanes, or of these open windows with all that is merged into them. Of lanes only
# what is as new as that: a lane may be all that waits or was delivered of a route.
_NEWEST_OF_LANES = """
    SELECT max(greatest(
        (SELECT max(id) FROM delivery d WHERE d.route = k.route AND d.lane = k.lane AND d.lane IS NOT NULL
            AND (d.state = 'pending' OR d.state = 'held') AND d.id >= $3),
        (SELECT max(id) FROM delivery d WHERE d.route = k.route AND d.lane = k.lane AND d.lane IS NOT NULL
            AND d.state = 'delivered' AND d.id >= $3)
    )) FROM unnest($1::text[], $2::text[]) AS k(route, lane)
"""
_NEWEST_OF_WINDOWS = """
    SELECT max(greatest(c.id, (SELECT max(m.id) FROM delivery m WHERE m.merged_into = c.id)))
    FROM unnest($1::text[], $2::text[]) AS k(route, opened)
    JOIN delivery c ON c.route = k.route AND c."window" = k.opened AND c.open = 1
"""

_UPDATE_TYPES = types("tbbb btt bb bbt")
# The common case: nobody touched the delivery while its attempt was made, and it is still this process's, or nobody's.
# Each is found by its id, whatever the planner believes of the others: an index of what is pending begins with its
# route and has the id last, so that for each result all that waits of the route would be gone through.
_RECORD = f"""
    WITH done AS (
        UPDATE delivery d SET state = v.state, due = coalesce(v.due, d.due), attempts = v.attempts, tries = v.tries,
            "trigger" = 'retry', retried = 1, taken = 0, open = 0, code = v.code, error_code = v.error_code,
            error_message = v.error_message, duration_ms = v.duration_ms, updated_at = v.updated_at, owner = NULL
        FROM {unnest(_UPDATE_TYPES)} AS v(state, due, attempts, tries, code, error_code, error_message, duration_ms,
            updated_at, id, n, route)
        WHERE d.id = v.id AND CASE d.id WHEN v.id THEN d.state = 'pending' AND d.attempts < v.n AND d.route = v.route
            AND (d.owner IS NULL OR d.owner = ANY(${len(_UPDATE_TYPES) + len(ATTEMPT_TYPES) + 1})) END
        RETURNING d.id, d.lane
    ), made AS (
        INSERT INTO attempt (delivery_id, {rows.ATTEMPT_COLUMNS})
        SELECT a.* FROM {unnest(ATTEMPT_TYPES, len(_UPDATE_TYPES) + 1)} AS a(delivery_id, {rows.ATTEMPT_COLUMNS})
        WHERE a.delivery_id IN (SELECT id FROM done) ON CONFLICT DO NOTHING
    )
    SELECT id, lane FROM done
"""  # noqa: S608 - our own columns
_OWNER = "SELECT owner, route, lane FROM delivery WHERE id = $1 FOR UPDATE"
_LET_GO = "UPDATE delivery SET owner = NULL WHERE id = $1 AND owner IS NOT NULL"
_REJECT = (
    f"INSERT INTO rejection ({rows.REJECTION_COLUMNS}) SELECT * FROM {unnest(REJECTION_TYPES)} ON CONFLICT DO NOTHING"  # noqa: S608
)
_TALLY_TYPES = types("tbb")
_TALLY = """
    INSERT INTO tally AS t (route, slot, pending, held)
    SELECT v.route, $4, v.pending, v.held FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS v(route, pending, held)
    ON CONFLICT (route, slot) DO UPDATE SET pending = t.pending + excluded.pending, held = t.held + excluded.held
"""


class Outrun(Exception):
    """Another process was ahead: what came before an event has a later id than it. It is to be given another one."""

    def __init__(self, newest: int) -> None:
        super().__init__("something newer of the same lane or window is stored already")
        self.newest = newest


class Relaned(Exception):
    """Another process has put a delivery into another lane meanwhile: to be made again, with the gate closed."""


Lanes = Collection[tuple[str, str]]
"""Routes with lanes of theirs."""


def begin(session: Session, process: int, closing: bool, touched: Lanes, windows: Lanes) -> None:
    """Begin a transaction with its locks. Raises Gone where this process was taken for dead."""
    with session.raw.pipeline():
        session.execute("BEGIN")
        member = session.raw.execute(HOLD, [process])
        if closing:
            session.execute(_CLOSE)
        elif touched or windows:
            session.execute(_PASS)
            numbers = {_number("lane", *each) for each in touched} | {_number("window", *each) for each in windows}
            session.raw.execute(_LOCK, [sorted(numbers)])
    if member.fetchone() is None:
        raise Gone


def begin_ahead(ahead: Ahead, process: int) -> None:
    """Begin one that is sent in one go and touches no lanes."""
    ahead.bulk(HOLD, [process], [(1,)])


def _number(kind: str, route: str, name: str) -> int:
    """Of a lane or a window: sixty-three bits, below which two of them may meet; they only wait for each other then."""
    said = "\0".join((kind, route, name)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(said, digest_size=8).digest(), "big") >> 1


def lanes_of(owed: Iterable[Owed]) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """The lanes and the windows that deliveries join."""
    touched, windows = set(), set()
    for each in owed:
        delivery = each.delivery
        if delivery.lane is not None:
            touched.add((delivery.route, delivery.lane))
        if each.window is not None:
            windows.add((delivery.route, each.window))
    return touched, windows


def newest(session: Session, touched: Lanes, windows: Lanes, since: int) -> int:
    """The latest id of what is in these lanes and windows; 0 where nothing is, or nothing from `since` on."""
    found = 0
    for keys, query, values in ((touched, _NEWEST_OF_LANES, [since]), (windows, _NEWEST_OF_WINDOWS, [])):
        if keys:
            table = list(keys)
            row = session.bulk(query, [[route for route, _ in table], [name for _, name in table], *values])
            found = max(found, row[0][0] or 0)
    return found


def record(
    session: Session, records: Sequence[Record], deltas: Deltas, mine: Sequence[int], locked: Lanes | None = None
) -> list[DeliveryId]:
    """Attempts and what they change; the deliveries of those that came too late, since somebody else has taken over.

    The lanes that are `locked` are all, where it is None. Raises Relaned for a delivery that is in another one.
    """
    # In the order of their ids, as others lock them: see `settling`.
    plain = sorted(
        [record for record in records if record.update is not None], key=lambda record: record.result.delivery.id
    )
    done: dict[int, str | None] = {}
    if plain:
        updates = columns([record.update for record in plain if record.update is not None], _UPDATE_TYPES)
        attempts = columns([record.attempt for record in plain if record.attempt is not None], ATTEMPT_TYPES)
        untouched = [(record.result.delivery.id, record.result.delivery.lane) for record in plain]
        done = dict(session.bulk(_RECORD, [*updates, *attempts, list(mine)], untouched))
        if session.changed is not None:
            session.changed.update(done)
    late = []
    for record in records:
        result = record.result
        number = result.delivery.id
        if number in done:
            route, lane = result.delivery.route, done.pop(number)  # a second result of it is looked at by itself
            _must_be_locked(route, lane, locked)
            if result.state is not State.PENDING:
                shift(deltas, route, -1, 0)
                if lane is not None:
                    lanes.release(session, route, lane)
            elif result.latest:
                results.give_way(session, result, deltas)
        elif _is_late(session, record, mine, locked):
            late.append(number)
        else:
            results.record_one(session, record, deltas)
            session.bulk(_LET_GO, [number])
    return late


def _is_late(session: Session, record: Record, mine: Sequence[int], locked: Lanes | None) -> bool:
    """Whether a delivery is somebody else's by now."""
    found = session.bulk(_OWNER, [record.result.delivery.id])
    if not found:
        return False
    [(owner, route, lane)] = found
    late = owner is not None and owner not in mine
    if not late:
        _must_be_locked(route, lane, locked)
    return late


def _must_be_locked(route: str, lane: str | None, locked: Lanes | None) -> None:
    if lane is not None and locked is not None and (route, lane) not in locked:
        raise Relaned


def reject(session: Session, rejections: Sequence[Row]) -> None:
    """Refused requests; of each source the last ones stay."""
    session.bulk(_REJECT, columns(rejections, REJECTION_TYPES))
    results.trim(session, rejections)


def count(session: Session, deltas: Deltas, slot: int) -> None:
    """Add to this process's counts."""
    changed = [(route, *both) for route, both in sorted(deltas.items()) if any(both)]
    if changed:
        session.bulk(_TALLY, [*columns(changed, _TALLY_TYPES), slot], [])
