"""What waits in the store brought in line with the routes: held where nobody sends for them, released where somebody
does, and in the lanes of the order that they keep."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from relay import journal
from relay.clock import Clock
from relay.courier import Courier
from relay.delivery import HeldReason
from relay.oversight import Oversight
from relay.routing import Route
from relay.store import Store, Unavailable
from relay.trouble import Trouble

_ORDER_AGAIN = 0.5  # seconds between tries to put what waits in order


class Settling:
    """Knows whether there is anything to be settled. `couriers` are the dispatcher's own."""

    def __init__(
        self, store: Store, clock: Clock, oversight: Oversight, couriers: Mapping[str, Courier], trouble: Trouble
    ) -> None:
        self.needed = asyncio.Event()
        self.disabled: Collection[str] = ()
        self._store = store
        self._shared = store.shared
        self._clock = clock
        self._oversight = oversight
        self._couriers = couriers
        self._trouble = trouble
        self._left: set[str] = set()  # routes that went away: other relays may still send for them

    def soon(self) -> None:
        """What waits may be of routes that nobody sends for any more."""
        self.needed.set()

    def left(self, route: str) -> None:
        """A route went away; other relays may still send for it."""
        self._left.add(route)

    async def keep_orders(self, routes: Mapping[str, Route]) -> None:
        """Put what waits into the lanes of these routes. It may have to be tried for long."""
        while True:
            try:
                sending = [number for courier in self._couriers.values() for number in courier.sending]
                await self._store.follow({name: route.order for name, route in routes.items()}, sending)
                return
            except Unavailable as error:
                # Nothing may be sent out of its order: better late.
                self._trouble.failed(str(error))
                await self._clock.sleep(_ORDER_AGAIN)

    async def settle(self) -> Collection[str] | None:
        """Hold and release what is to be. Returns the routes of which something was released here; None where the store
        could not do it: then it is still needed. May be called while it is under way: who knows better goes on."""
        self.needed.clear()
        left, self._left = self._left, set()
        try:
            if self._shared is not None and not await self._oversight.said():
                raise Unavailable("how routes are doing cannot be saved: by that all relays settle")
            sending = {name for name, courier in self._couriers.items() if courier.route is not None}
            paused = {name for name in sending if self._oversight.paused(name)}
            kept = dict.fromkeys(self.disabled, HeldReason.DISABLED) | dict.fromkeys(paused, HeldReason.PAUSED)
            settled = await self._store.settle(sending - paused, kept)
            left -= {name for name, courier in self._couriers.items() if courier.route is not None}  # some may be back
            if self._shared is not None and left:
                known = [number for courier in self._couriers.values() for number in courier.known]
                await self._shared.leave(left, known)
        except Unavailable as error:
            self.needed.set()
            self._left |= left
            self._trouble.failed(str(error))
            return None
        journal.held(settled.held)
        journal.released(settled.released)
        return settled.released
