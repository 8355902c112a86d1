"""A lock whose waiters are tenants: one at a time, tenants in turn, so that nobody's many requests are everybody's wait."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque


class Turns:
    """Owned by the event loop. Every `take` that returns needs one `give`; who is cancelled while waiting has taken nothing."""

    def __init__(self) -> None:
        self._holder: str | None = None  # the tenant whose turn it is
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # the next tenant first

    async def take(self, tenant: str) -> None:
        """Wait for a turn of `tenant`; its own waiters come in their order."""
        if self._holder is None:
            self._holder = tenant
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn had just come
                self.give()
            raise

    def give(self) -> None:
        """To the next waiter, if there is one; of another tenant, if there is one."""
        if self._holder is not None and self._holder in self._waiting:
            self._waiting.move_to_end(self._holder)
        while self._waiting:
            tenant, turns = next(iter(self._waiting.items()))
            turn = turns.popleft()
            if not turns:
                del self._waiting[tenant]
            if not turn.done():  # else it has left, and costs its tenant no turn
                self._holder = tenant
                turn.set_result(None)
                return
        self._holder = None
