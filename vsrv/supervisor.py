"""Keeps the engine process alive: sees its end and its silence, has its stacks written to the log, starts it again, and knows when to give up."""

from __future__ import annotations

import asyncio
import faulthandler
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from vsrv.config import EngineConfig
from vsrv.engine_client import EngineClient
from vsrv.messages import Ready

_DUMP_S = 1.0  # for the engine to write its stacks
_MAX_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """At most `max_restarts` within `window_s`; pauses double from `first_pause_s`. `load_timeout_s` without progress end a load; 0: never."""

    max_restarts: int
    window_s: float = 600.0
    first_pause_s: float = 0.5
    poll_s: float = 0.5
    load_timeout_s: float = 0.0


def _ignored() -> None:
    """What a supervisor calls that nobody listens to."""


class Supervisor:
    """Owned by the event loop. `log` gets (level, message); `on_stall` and `on_restart` are called at each, for metrics."""

    def __init__(
        self,
        engine: EngineClient,
        config: EngineConfig,
        policy: RestartPolicy,
        log: Callable[[str, str], None],
    ) -> None:
        self._engine = engine
        self._config = config
        self._policy = policy
        self._log = log
        self._began: list[float] = []  # of restarts within the window
        self.num_restarts = 0
        self.num_stalls = 0
        self.on_stall: Callable[[], None] = _ignored
        self.on_restart: Callable[[], None] = _ignored

    async def run(self) -> str:
        """Watch a ready engine. Returns only when it cannot be kept alive: why."""
        first = self._engine.ready
        assert first is not None, "loading comes first"
        # the sizes that requests were checked against must stay, although the free memory may be another one now
        config = replace(self._config, max_model_len=first.max_model_len)
        while True:
            await self._until_it_ends()
            now = time.monotonic()
            self._began = [t for t in self._began if now - t < self._policy.window_s]
            if len(self._began) >= self._policy.max_restarts:
                return f"the engine has ended, after {len(self._began)} restarts" + self._why()
            self._began.append(now)
            self.num_restarts += 1
            self.on_restart()
            await self._restart(config)
            if (changed := self._what_changed(first)) is not None:
                return changed

    def _why(self) -> str:
        return f": {self._engine.failure}" if self._engine.failure else ""

    async def _until_it_ends(self) -> None:
        engine, loop = self._engine, asyncio.get_running_loop()
        ended = loop.create_task(engine.ended.wait())
        looked = loop.time()
        try:
            while not ended.done():
                await asyncio.wait((ended,), timeout=self._policy.poll_s)
                late, looked = loop.time() - looked > 2 * self._policy.poll_s + 1.0, loop.time()
                # after a pause of our own process the engine's frames wait in the socket: they are read first
                if not ended.done() and not late and engine.health().state == "stalled":
                    await self._end_stalled(engine.health().reason)
        finally:
            ended.cancel()

    async def loaded(self) -> bool:
        """Wait for a starting engine: True when it is ready, False when it has ended, also because it made no progress."""
        engine, loop, limit_s = self._engine, asyncio.get_running_loop(), self._policy.load_timeout_s
        ends = [loop.create_task(event.wait()) for event in (engine.became_ready, engine.ended)]
        try:
            while not any(task.done() for task in ends):
                await asyncio.wait(ends, timeout=self._policy.poll_s, return_when=asyncio.FIRST_COMPLETED)
                if limit_s and engine.loading_silence_s > limit_s and not any(task.done() for task in ends):
                    await self._end_stalled(self.why_load_stalled())
        finally:
            for task in ends:
                task.cancel()
        return engine.ready is not None and not engine.ended.is_set()

    def why_load_stalled(self) -> str:
        """What is told of a load that was given up."""
        phase, limit_s = self._engine.loading.phase, self._policy.load_timeout_s
        return f"no progress for {limit_s:g} s while loading ({phase}; --engine-load-timeout)"

    async def _end_stalled(self, reason: str) -> None:
        self.num_stalls += 1
        self.on_stall()
        self._log("error", f"{reason}: the stacks of engine and front follow")
        self._engine.dump_stacks()
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        await asyncio.sleep(_DUMP_S)
        self._engine.kill()
        await self._engine.ended.wait()

    async def _restart(self, config: EngineConfig) -> None:
        engine, count, most = self._engine, len(self._began), self._policy.max_restarts
        pause = min(self._policy.first_pause_s * 2 ** (count - 1), _MAX_PAUSE_S)
        engine.restarting = f"the engine is being restarted ({count} of at most {most})"
        self._log("error", f"restarting the engine in {pause:g} s ({count} of at most {most}){self._why()}")
        await asyncio.sleep(pause)
        began = time.monotonic()
        try:
            await engine.restart(config)
        except OSError as error:  # no memory or no process number left: that counts as a try
            self._log("error", f"the engine cannot be started: {error.strerror}")
            return
        if await self.loaded():
            engine.restarting = ""
            self._log("warning", f"the engine is ready again after {time.monotonic() - began:.1f} s")

    def _what_changed(self, first: Ready) -> str | None:
        """Requests are checked against the first engine's facts; a model folder that was replaced meanwhile needs a new front."""
        ready = self._engine.ready
        if ready is None or (ready.vocab_size, ready.max_model_len) == (
            first.vocab_size,
            first.max_model_len,
        ):
            return None
        return "the model folder holds another model now: the server must be started again"
