"""Other relays on the same store: what they do, told to whom it concerns here."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from relay import journal
from relay.dispatcher import Dispatcher
from relay.ids import DeliveryId
from relay.listening import Listening
from relay.notify import Notices
from relay.oversight import Oversight
from relay.shared import Shared
from relay.store import Unavailable

_TELLING = timedelta(minutes=1)  # within which several relays see the same thing
_LATE = timedelta(seconds=15)  # until what another relay heard is known here: it saves it every 5 s


class Peers:
    """Hears them. See relay.shared.Told."""

    def __init__(
        self, shared: Shared, dispatcher: Dispatcher, oversight: Oversight, listening: Listening, notices: Notices
    ) -> None:
        self._shared = shared
        self._dispatcher = dispatcher
        self._oversight = oversight
        self._listening = listening
        self._obeying: asyncio.Task[None] | None = None
        notices.share(self._errand)
        listening.share(_LATE)
        oversight.share(self._turned)
        shared.follow(self)

    def lost(self) -> None:
        journal.lease_lost()
        self._dispatcher.lost()

    def due(self, routes: Collection[str]) -> None:
        for name in routes:
            self._dispatcher.look(name)

    def states(self, kind: str, changed: Mapping[str, Mapping[str, Any]]) -> None:
        if kind == "source":
            self._listening.adopt(changed)
        elif kind == "route" and (turned := self._oversight.adopt(changed)):
            self._turned(turned)

    def _turned(self, routes: Collection[str]) -> None:
        """What waits of a paused route is held, of one that was resumed released, in order."""
        if self._dispatcher.stopping:
            return
        before = self._obeying
        self._obeying = asyncio.get_running_loop().create_task(self._obey(before, routes), name="peers")

    async def _obey(self, before: asyncio.Task[None] | None, turned: Collection[str]) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            await self._dispatcher.obey()
        except Exception:  # noqa: BLE001 - a bug of ours must not end what else is heard
            journal.crashed("peers")
        for name in turned:
            self._dispatcher.look(name)

    def recall(self, deliveries: Collection[DeliveryId]) -> None:
        self._dispatcher.recall(deliveries)

    def again(self, delivery: DeliveryId) -> None:
        self._dispatcher.rerun(delivery)

    def ended(self, name: str) -> None:
        journal.peer_ended(name)
        self._dispatcher.settle()

    def missed(self) -> None:
        self._dispatcher.settle()

    async def _errand(self, name: str) -> bool:
        try:
            return await self._shared.errand(name, _TELLING)
        except Unavailable:
            return True  # told twice is better than never

    async def close(self) -> None:
        """End what is under way."""
        if self._obeying is not None:
            self._obeying.cancel()
            await asyncio.wait([self._obeying])
