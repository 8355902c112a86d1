"""The front's end of the engine socket: starts the engine process, demultiplexes its frames, tells the truth about its health.

Owned by the event loop. Sequence ids count up and are never reused, so a late frame can never reach another request.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import time
from array import array
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace

from vsrv.archive import inherited
from vsrv.boot import child_command
from vsrv.config import EngineConfig
from vsrv.errors import EngineError, FrameError, UserError
from vsrv.frames import FrameReader, encode
from vsrv.messages import (
    Abort,
    Beat,
    Embed,
    Failed,
    FinishReason,
    Frame,
    Generate,
    Hello,
    Loading,
    Pooled,
    Ready,
    SamplingParams,
    Step,
    Stop,
    TokenOutput,
)

_SOCKET_BYTES = 4 << 20
_LOADING_RETRY_S = 2.0
_ENGINE_ENDED = ("engine_dead", "the engine ended while it worked on this request", 5.0)
_SHUTTING_DOWN = ("server_shutdown", "the server shut down before this request was finished", 5.0)
_LAST_LINES_S = 2.0
_LINE_BYTES = 64 * 1024  # a longer line of the engine's stderr is passed on in pieces


@dataclass(frozen=True, slots=True)
class Health:
    """state: "loading", "ready", "stalled", "draining", "restarting" or "dead". reason is safe to show to anybody."""

    state: str
    reason: str
    phase: str = ""
    fraction: float = 0.0
    elapsed_s: float = 0.0


_GRAMMAR_CODES = frozenset(("invalid_grammar", "grammar_conflict", "grammar_too_complex"))


class PooledResult:
    """The vector of one sequence. Wait for it once; `abort` at any time, also after the end. `on_end` is called at its end."""

    __slots__ = ("_client", "_error", "_on_end", "_values", "_waiter", "finished", "seq_id")

    def __init__(self, client: EngineClient, seq_id: int, on_end: Callable[[], None]) -> None:
        self.seq_id = seq_id
        self.finished = False
        self._on_end = on_end
        self._client = client
        self._values: array[float] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: EngineError | UserError | None = None

    async def values(self) -> array[float]:
        """Wait for it. Raises EngineError, or UserError where the request is at fault."""
        while not self.finished:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._error is not None:
            raise self._error
        assert self._values is not None, "finished without an error"
        return self._values

    def abort(self) -> None:
        """It is not wanted any more."""
        self._client.abort(self)

    def put(self, values: array[float]) -> None:
        self._values = values
        self._finish()

    def fail(self, error: EngineError | UserError) -> None:
        self._error = error
        self._finish()

    def _finish(self) -> None:
        self.finished = True
        self._on_end()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class TokenStream:
    """Outputs of one sequence. Iterate once; `abort` at any time, also after the end."""

    __slots__ = ("_client", "_error", "_outputs", "_waiter", "finished", "seq_id")

    def __init__(self, client: EngineClient, seq_id: int) -> None:
        self.seq_id = seq_id
        self.finished = False
        self._client = client
        self._outputs: deque[TokenOutput] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: EngineError | UserError | None = None

    def __aiter__(self) -> AsyncIterator[TokenOutput]:
        return self

    async def __anext__(self) -> TokenOutput:
        while not self._outputs:
            if self._error is not None:
                raise self._error
            if self.finished:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._outputs.popleft()

    def abort(self) -> None:
        """The sequence is not wanted any more."""
        self._client.abort(self)

    def put(self, output: TokenOutput) -> None:
        self._outputs.append(output)
        if output.finish_reason is not FinishReason.NONE:
            self.finished = True
        self._wake()

    def fail(self, error: EngineError | UserError) -> None:
        self._error = error
        self.finished = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _seen(task: asyncio.Task[None]) -> None:
    """An exception that nobody waits for any more is no news."""
    if not task.cancelled():
        task.exception()


class EngineClient(asyncio.Protocol):
    """One engine process. `on_line` gets its stderr, line by line; `on_change` is called at Ready and at its end."""

    def __init__(self, stall_timeout_s: float, on_line: Callable[[str], None]) -> None:
        self.ready: Ready | None = None
        self.beat: Beat | None = None
        self.loading = Loading("start")
        self.draining = False
        self.restarting = ""  # why an engine that has ended will be back; set by who restarts it
        self.failure: str | None = None  # a configuration error that the engine reported before it ended
        self.ended = asyncio.Event()
        self.became_ready = asyncio.Event()
        self._stall_timeout_s = stall_timeout_s
        self._on_line = on_line
        self._disconnected = asyncio.Event()
        self._started = time.monotonic()
        self._last_step = -1
        self._last_progress = self._last_frame = time.monotonic()
        self._last_words = _ENGINE_ENDED
        self._streams: dict[int, TokenStream | PooledResult] = {}
        self._ids = itertools.count(1)
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def num_streams(self) -> int:
        return len(self._streams)

    @property
    def loading_silence_s(self) -> float:
        """Seconds since an engine that is not ready yet has told of progress."""
        return time.monotonic() - self._last_frame

    async def start(self, config: EngineConfig) -> None:
        """Start the process and send it its configuration; loading goes on in the background.

        What is begun is finished even if the caller is cancelled: `stop` finds a whole process or none.
        """
        self._starting = asyncio.get_running_loop().create_task(self._start(config))
        self._starting.add_done_callback(_seen)
        await asyncio.shield(self._starting)

    async def _start(self, config: EngineConfig) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        lines = asyncio.StreamReader()
        pipe = open(read_end, "rb", buffering=0)  # noqa: SIM115, the transport closes it
        self._stderr, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), pipe)
        try:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
            command = [*child_command("_engine"), "--fd", str(theirs.fileno())]
            self._process = process = await asyncio.create_subprocess_exec(
                *command, pass_fds=inherited(theirs.fileno()), stdin=subprocess.DEVNULL, stderr=write_end
            )
        except OSError:  # no process to be had: the caller tells it
            ours.close()
            self._stderr.close()
            raise
        finally:
            theirs.close()
            os.close(write_end)
        ours.setblocking(False)
        await loop.create_connection(lambda: self, sock=ours)
        self._send(Hello(asdict(config)))
        self._watch_task = loop.create_task(self._watch(process, lines))

    async def restart(self, config: EngineConfig) -> None:
        """A new process in the place of one that has ended. Sequence ids go on counting. Raises OSError if there is none to be had."""
        await self.ended.wait()
        await self._watched()
        if self._transport is not None:
            self._transport.abort()  # nothing of the old process may arrive from here on
            await self._disconnected.wait()
        self.ready = self.beat = self.failure = None
        self.loading = Loading("start")
        self._reader = FrameReader()
        self._started = self._last_progress = self._last_frame = time.monotonic()
        self._last_step = -1
        self.ended.clear()
        self.became_ready.clear()
        try:
            await self.start(config)
        except OSError:
            self.ended.set()
            raise

    def dump_stacks(self) -> None:
        """Have the process write the stack of every thread to its stderr (see boot.dump_stacks_on_signal)."""
        self._signal(signal.SIGUSR2)

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, grace_s: float = 2.0) -> None:
        """End the process for good: asked first, killed if it does not listen."""
        if self._starting is not None:
            await asyncio.wait((self._starting,))
        process = self._process
        if process is None:
            return
        self._last_words = _SHUTTING_DOWN
        if self._transport is not None and not self._transport.is_closing():
            self._stopping = True  # not before: how an engine ended that died is still to be told
            self._send(Stop())
        if self.ready is None and not self.ended.is_set():
            self._stopping = True
            self.kill()  # it loads, and reads nothing
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            self._stopping = True
            self.kill()
        await self._watched()

    async def _watched(self) -> None:
        """Wait for the last lines of stderr; a grandchild that holds it open does not hold the server."""
        _, pending = await asyncio.wait((self._watch_task,), timeout=_LAST_LINES_S)
        if pending:
            self._watch_task.cancel()
            self._stderr.close()
            self._end_all()

    def health(self) -> Health:
        """What a load balancer should know, from the engine's step counter and not from its process being alive."""
        elapsed = time.monotonic() - self._started
        if self.draining and not self.ended.is_set():
            return Health("draining", "the server is shutting down")
        if self.restarting:
            return Health("restarting", self.restarting, self.loading.phase, self.loading.fraction, elapsed)
        if self.ended.is_set():
            return Health("dead", "the engine process has ended")
        if self.ready is None:
            loading = self.loading
            return Health(
                "loading", f"the model is loading: {loading.phase}", loading.phase, loading.fraction, elapsed
            )
        now = time.monotonic()
        silent = now - self._last_progress
        if self._streams and silent > self._stall_timeout_s:
            return Health("stalled", f"no engine step for {silent:.0f} s while requests wait")
        if (
            self.beat is not None and now - self._last_frame > self._stall_timeout_s
        ):  # it beats when idle, too
            return Health("stalled", f"no sign of life from the engine for {now - self._last_frame:.0f} s")
        return Health("ready", "")

    def submit(
        self, prompt_token_ids: array[int], params: SamplingParams, cache_salt: str = "", priority: int = 0
    ) -> TokenStream:
        """Queue one sequence. Raises EngineError when the engine cannot take it."""
        self._check_takes_work()
        stream = TokenStream(self, next(self._ids))
        self._streams[stream.seq_id] = stream
        self._send(Generate(stream.seq_id, prompt_token_ids, params, cache_salt, priority=priority))
        return stream

    def embed(self, frame: Embed, on_end: Callable[[], None]) -> PooledResult:
        """Queue one sequence of which a vector is wanted; it gets its number here. Raises EngineError when the engine cannot take it."""
        self._check_takes_work()
        result = PooledResult(self, next(self._ids), on_end)
        self._streams[result.seq_id] = result
        self._send(replace(frame, seq_id=result.seq_id))
        return result

    def _check_takes_work(self) -> None:
        if self.restarting:
            raise EngineError("engine_restarting", self.restarting, _LOADING_RETRY_S)
        if self.ended.is_set():
            raise EngineError("engine_dead", "the engine has ended; the server is going down", 5.0)
        if self.ready is None:
            raise EngineError("model_loading", self.health().reason, _LOADING_RETRY_S)
        if not self._streams:
            self._last_progress = time.monotonic()  # an idle engine makes no steps

    def abort(self, stream: TokenStream | PooledResult) -> None:
        if self._streams.pop(stream.seq_id, None) is not None:
            self._send(Abort(stream.seq_id))

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=64 << 20)
        self._transport = transport
        self._disconnected.clear()

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except FrameError as error:
            self._on_line(f"engine sent a malformed frame: {error}")
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._disconnected.set()
        self._end_all()

    def _take(self, frame: Frame) -> None:
        self._last_frame = time.monotonic()
        if isinstance(frame, Step):
            for output in frame.outputs:
                stream = self._streams.get(output.seq_id)
                if not isinstance(stream, TokenStream):
                    continue  # aborted by us a moment ago
                if output.finish_reason is not FinishReason.NONE:
                    del self._streams[output.seq_id]
                stream.put(output)
            self._last_progress = time.monotonic()
        elif isinstance(frame, Pooled):
            result = self._streams.pop(frame.seq_id, None)
            if isinstance(result, PooledResult):
                result.put(frame.values)
            self._last_progress = time.monotonic()
        elif isinstance(frame, Beat):
            self.beat = frame
            if frame.step != self._last_step:
                self._last_step = frame.step
                self._last_progress = time.monotonic()
        elif isinstance(frame, Failed):
            self._fail(frame)
        elif isinstance(frame, Loading):
            self.loading = frame
        elif isinstance(frame, Ready):
            self.ready = frame
            self._last_progress = time.monotonic()
            self.became_ready.set()

    def _fail(self, frame: Failed) -> None:
        if frame.seq_id == 0:
            self.failure = frame.message
            return
        stream = self._streams.pop(frame.seq_id, None)
        if stream is not None:
            stream.fail(_failure(frame))

    async def _watch(self, process: asyncio.subprocess.Process, stderr: asyncio.StreamReader) -> None:
        """Pass the engine's stderr on, then note its end."""
        rest = b""
        while data := await stderr.read(_LINE_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LINE_BYTES:  # readline() would give up here and leave the engine with a full pipe
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._on_line(line.decode(errors="replace").rstrip())
        if rest:
            self._on_line(rest.decode(errors="replace").rstrip())
        status = await process.wait()
        if status != 0 and not self._stopping and self.failure is None:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            self._on_line(f"the engine process ended with {how}")
        self._end_all()

    def _end_all(self) -> None:
        if self.ended.is_set():
            return
        self.ended.set()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(EngineError(*self._last_words))

    def _send(self, frame: Frame) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(frame))


def _failure(frame: Failed) -> EngineError | UserError:
    """What ended one sequence; a grammar that led nowhere is the request's own doing."""
    if frame.code in _GRAMMAR_CODES:
        return UserError(400, frame.code, frame.message, "structured_outputs")
    return EngineError(frame.code, frame.message)
