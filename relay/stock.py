"""The bodies that couriers have in memory: let in where there is room, and let go of, which feeds those that wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

from relay.courier import Courier, size_of
from relay.delivery import Delivery
from relay.memory import CLAIMED, Memory


class Stock:
    """What all couriers have, and who waits for more."""

    def __init__(self, most_bytes: int, again: Callable[[Courier], None]) -> None:
        """`again` is told of a courier for which there may be room now."""
        self.memory = Memory(most_bytes)
        self.starved: dict[Courier, None] = {}  # couriers that wait for memory, who came first first
        self._again = again
        self._feeding = False
        # Of what may take more memory than there is, one at a time: claims, and windows, whose attempts take long.
        self._narrow, self._large = asyncio.Lock(), asyncio.Lock()

    def take(self, courier: Courier, size: int) -> bool:
        """Hold so many bytes more for a courier, if they fit."""
        if not self.memory.fits(courier.bytes, size):
            return False
        courier.bytes += size
        self.memory.taken += size
        return True

    def hold(self, courier: Courier, size: int) -> None:
        """So many bytes more are there, whether they fit or not."""
        courier.bytes += size
        self.memory.taken += size

    def drop(self, courier: Courier, size: int) -> None:
        """So much has been let go of; who waited for it comes next."""
        courier.bytes -= size
        self.memory.taken -= size
        if self.starved:
            self.feed_soon()

    def keep(self, courier: Courier, found: Iterable[Delivery]) -> None:
        """These were read for a courier."""
        self.hold(courier, sum(map(size_of, found)))

    def forget(self, courier: Courier) -> None:
        """Leave what has not begun to the store."""
        held = 0
        for queue in courier.queues:
            held += sum(map(size_of, queue.ready))
            queue.ready.clear()
            queue.behind = True
        self.drop(courier, held)

    def starve(self, courier: Courier) -> bool:
        """Whether a courier has to wait until something has been let go of; if so it does."""
        if self.memory.room(courier.bytes)[0]:
            return False
        self.starved[courier] = None
        return True

    def feed_soon(self) -> None:
        """Let those that wait have what there is, in a moment."""
        if self.starved and not self._feeding:
            self._feeding = True
            asyncio.get_running_loop().call_soon(self._feed)

    def _feed(self) -> None:
        self._feeding = False
        for courier in list(self.starved):
            if not self.memory.room(0)[0]:
                break
            del self.starved[courier]
            self._again(courier)

    @contextlib.asynccontextmanager
    async def room(self, courier: Courier) -> AsyncIterator[int]:
        """Bytes that may be read for a courier, reserved for it; 0 where it has to wait."""
        room, narrow = self.memory.room(courier.bytes)
        async with self._narrow if narrow else contextlib.nullcontext():
            if narrow:
                room, _ = self.memory.room(courier.bytes)  # others have been here meanwhile
            self.memory.taken += room
            try:
                yield room
            finally:
                self.memory.taken -= room
                self.feed_soon()

    def alone_if_crowded(self) -> contextlib.AbstractAsyncContextManager[None]:
        """For what takes more than is known beforehand: where there is little room, one at a time."""
        return self._large if self.memory.crowded(CLAIMED) else contextlib.nullcontext()
