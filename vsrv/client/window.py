"""How many requests are out at once: fewer when the server is full, more again while it answers."""

from __future__ import annotations

import asyncio


class Window:
    """Additive increase, multiplicative decrease, as TCP's congestion avoidance (Jacobson 1988). Owned by one event loop.

    `most` is where it begins and what it never passes. A server that refuses what is out at one time refuses all of it: only the first
    of these refusals halves the window.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = float(most)
        self._out = 0
        self._halvings = 0
        self._changed = asyncio.Condition()

    @property
    def size(self) -> int:
        return int(self._size)

    async def enter(self) -> int:
        """Wait for a place → a ticket for `refused`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._out < self.size)
            self._out += 1
            return self._halvings

    async def leave(self) -> None:
        async with self._changed:
            self._out -= 1
            self._changed.notify_all()

    def answered(self) -> None:
        """One more place for each window of answers."""
        self._size = min(float(self._most), self._size + 1 / self._size)

    def refused(self, ticket: int) -> None:
        """The server was full for the request of this ticket."""
        if ticket == self._halvings:
            self._halvings += 1
            self._size = max(1.0, self._size / 2)
