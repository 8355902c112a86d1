"""The line that tells every few seconds how busy the engine is, from two heartbeats. Quiet while nothing happens."""

from __future__ import annotations

from vsrv.messages import Beat

_NOTHING = Beat(0, 0, 0, 0.0)


class StatsLine:
    """Owned by the front's event loop. interval_s 0 says nothing."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._since = 0.0
        self._before = _NOTHING

    def due(self, now: float, beat: Beat | None) -> str | None:
        """The line, if it is time for one and something has happened since the last. now: seconds of a monotonic clock."""
        if not self._interval_s or beat is None:
            return None
        if beat.step < self._before.step or not self._since:
            self._before, self._since = _NOTHING, now  # an engine that is new: it counts from nothing
        before, seconds = self._before, now - self._since
        if seconds < self._interval_s:
            return None
        self._before, self._since = beat, now
        is_busy = beat.num_running or beat.num_waiting
        return _line(before, beat, seconds) if is_busy or beat.step != before.step else None


def _line(before: Beat, beat: Beat, seconds: float) -> str:
    def grown(name: str) -> float:
        return beat.counters.get(name, 0.0) - before.counters.get(name, 0.0)

    queries = grown("prefix_cache_queries")
    hits = f"{grown('prefix_cache_hits') / queries:.0%}" if queries else "-"
    return (
        f"{grown('prompt_tokens') / seconds:,.1f} prompt and {grown('generation_tokens') / seconds:,.1f} generated tokens a second, "
        f"{beat.num_running} sequences running, {beat.num_waiting} waiting, {beat.kv_usage:.1%} of the KV cache in use, "
        f"{hits} of prompt tokens found in the prefix cache"
    )
