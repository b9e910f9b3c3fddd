"""What one transaction writes, handed to the writer's thread, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from relay.delivery import Added
from relay.store import Counts
from relay.stores._sql.changes import Changed
from relay.stores._sql.connection import Command
from relay.stores._sql.deltas import Deltas
from relay.stores._sql.joining import Adding
from relay.stores._sql.results import Record
from relay.stores._sql.rows import Row


@dataclass(slots=True)
class Add:
    """An event with its deliveries, waiting."""

    adding: Adding
    done: asyncio.Future[Added]


@dataclass(slots=True)
class Call:
    """A command, waiting."""

    run: Command[Any]
    done: asyncio.Future[Any]
    about: Sequence[tuple[str, str]] | None = None
    """Routes with the lanes of which it changes the order; None where that may be any. Others must not change it
    meanwhile, where there are others."""


@dataclass(slots=True)
class Batch:
    """What one transaction writes, and what came of it."""

    adds: list[Add] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    rejections: list[Row] = field(default_factory=list)
    empty_log: bool = False
    """Checkpoint, and leave nothing in the log."""
    last: bool = False
    probe: bool = False
    """Nobody's: only to see whether one can write again."""
    # Filled by the writer's thread:
    failed: list[tuple[asyncio.Future[Any], BaseException]] = field(default_factory=list)
    results: list[tuple[asyncio.Future[Any], Any]] = field(default_factory=list)
    deltas: Deltas = field(default_factory=dict)
    counts: dict[str, Counts] | None = None
    """All counts, where they had to be read anew."""
    changed: list[Changed] = field(default_factory=list)
    """For those who follow: what each transaction changed, oldest first."""
    trouble: str | None = None
    seconds: float = 0.0
    tidying: bool = False
    """The thread is still at something that nobody waits for: it says when it takes the next batch."""

    def __bool__(self) -> bool:
        return bool(self.adds or self.records or self.calls or self.rejections)
