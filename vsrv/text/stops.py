"""All stop strings at once, in one pass over the text: the automaton of Aho and Corasick (CACM 18, 1975).

The work is linear in the text whatever the stop strings are: they are a client's choice, and looking for each of their beginnings
anew at every token would let a client choose how long the event loop is busy.
"""

from __future__ import annotations

import functools
from collections import deque


class StopMatcher:
    """States are numbers, 0 at the start. `depth` of a state: characters at the end of the text that may still become a stop string;
    `found`: the place in the list of a stop string that ends here, the first of several, or -1."""

    __slots__ = ("_fail", "_next", "depth", "found")

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._fail = [0]
        self.depth = [0]
        self.found = [-1]
        for place, stop in enumerate(stops):
            self._add(place, stop)
        self._link()

    def step(self, state: int, character: str) -> int:
        """The state behind one more character."""
        while state and character not in self._next[state]:
            state = self._fail[state]
        return self._next[state].get(character, 0)

    def _add(self, place: int, stop: str) -> None:
        state = 0
        for character in stop:
            if character not in self._next[state]:
                self._next[state][character] = len(self._next)
                self._next.append({})
                self._fail.append(0)
                self.depth.append(self.depth[state] + 1)
                self.found.append(-1)
            state = self._next[state][character]
        if self.found[state] < 0:
            self.found[state] = place

    def _link(self) -> None:
        """From every state to that of its longest end that begins a stop string, nearest to the start first."""
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for character, child in self._next[state].items():
                waiting.append(child)
                self._fail[child] = self.step(self._fail[state], character)
                shorter = self.found[self._fail[child]]
                if shorter >= 0 and not 0 <= self.found[child] < shorter:
                    self.found[child] = shorter


@functools.lru_cache(maxsize=64)
def matcher_of(stops: tuple[str, ...]) -> StopMatcher:
    """One for all choices of a request; it is not changed by use."""
    return StopMatcher(stops)
