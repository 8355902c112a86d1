"""The front's end of the prepare child: one exchange at a time, tenants in turn, a time limit on each, a new child after a kill."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from vsrv.api.prepare import Prepared, Preparer
from vsrv.api.schema import ModelFacts
from vsrv.api.structured import ChildNeeded
from vsrv.api.turns import Turns
from vsrv.archive import inherited
from vsrv.boot import child_command
from vsrv.errors import ConfigError, UserError
from vsrv.prepare_worker import BROKEN, DIALECTS, HEADER, INIT, PREPARE, REFUSED

SMALL_BODY_BYTES = (
    16 * 1024
)  # bodies of _IN_THE_FRONT up to this size are prepared there: quicker than a trip to the child
_IN_THE_FRONT = ("completions", "embeddings")  # no template, and every text of the body is read once
_EXIT_S = 2.0  # to tell how it ended, once its socket has
_CRASHES = frozenset((signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE))
_WRITE_BYTES = 256 * 1024  # to the child at once


class PrepareClient:
    """Owned by the event loop. `local` prepares what is small and runs no template."""

    def __init__(
        self, folder: Path, chat_template: str | None, time_limit_s: float, on_line: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._chat_template = chat_template
        self._time_limit_s = time_limit_s
        self._on_line = on_line
        self._facts: ModelFacts | None = None
        self._local: Preparer | None = None
        self._turns = Turns()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._number = 0
        self._tasks: set[asyncio.Task[bytes]] = set()
        self._stopping = False

    async def start(self) -> None:
        """Start the child, so that its imports run beside the engine's loading."""
        ours, theirs = socket.socketpair()
        command = [*child_command("_prepare"), "--fd", str(theirs.fileno())]
        self._process = await asyncio.create_subprocess_exec(
            *command, pass_fds=inherited(theirs.fileno()), stdin=subprocess.DEVNULL
        )
        theirs.close()
        self._reader, self._writer = await asyncio.open_connection(sock=ours)

    async def configure(self, facts: ModelFacts, local: Preparer) -> None:
        """Give the child what requests are checked against. Raises ConfigError when the template or tokenizer is unusable."""
        self._facts, self._local = facts, local
        await self._turns.take("")
        try:
            await self._init()
        finally:
            self._turns.give()

    async def prepare(self, dialect: str, body: bytes | bytearray, tenant: str = "") -> Prepared:
        """Body → checked request and ids; tenants take turns at the child. Raises UserError."""
        assert self._local is not None, "configure comes first"
        if dialect in _IN_THE_FRONT and len(body) <= SMALL_BODY_BYTES:
            with contextlib.suppress(ChildNeeded):
                return self._local.prepare(dialect, body)
        await self._turns.take(tenant)  # who leaves before has asked for nothing
        # An exchange that has begun goes on if the client leaves: its answer must be read before the next one is asked.
        task = asyncio.get_running_loop().create_task(self._exchange_in_turn(dialect, body))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return Prepared.from_frame(await asyncio.shield(task))

    async def stop(self) -> None:
        """End the child for good; requests that wait for it get an error."""
        self._stopping = True
        await self._kill()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._kill()  # one that was just being started

    def _forget(self, task: asyncio.Task[bytes]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its requester has it, or has left

    async def _exchange_in_turn(self, dialect: str, body: bytes | bytearray) -> bytes:
        """In its turn, which is given back."""
        try:
            if self._stopping:
                raise UserError(503, "prepare_failed", "the server is shutting down", None, 1.0)
            if self._process is None:
                await self.start()
                await self._init()
            return await self._limited_exchange(dialect, body)
        finally:
            self._turns.give()

    async def _limited_exchange(self, dialect: str, body: bytes | bytearray) -> bytes:
        try:
            exchange = self._exchange(PREPARE, bytes([DIALECTS.index(dialect)]), body)
            return await asyncio.wait_for(exchange, self._time_limit_s)
        except TimeoutError:
            await self._restart(f"a request took more than {self._time_limit_s:g} s to prepare")
            raise UserError(
                400,
                "prepare_timeout",
                f"template, tokenising and grammar took more than {self._time_limit_s:g} seconds",
                None,
            ) from None
        except (ConnectionError, asyncio.IncompleteReadError):
            crashed = await self._has_crashed()
            await self._restart("it ended")
            if crashed:  # a second attempt would end the same way
                message = "the request is too complex: its template, text or grammar could not be prepared"
                raise UserError(400, "request_too_complex", message) from None
            raise UserError(
                503, "prepare_failed", "the request could not be prepared; try again", None, 1.0
            ) from None

    async def _has_crashed(self) -> bool:
        """Whether the child ended by its own doing: an overflown stack, or memory that a library could not go on without."""
        process = self._process
        if process is None:  # `stop` has ended it
            return False
        with contextlib.suppress(TimeoutError):
            return -await asyncio.wait_for(process.wait(), _EXIT_S) in _CRASHES
        return False

    async def _restart(self, why: str) -> None:
        if self._stopping:
            return
        self._on_line(f"restarting the prepare child: {why}")
        await self._kill()
        await self.start()
        await self._init()

    async def _init(self) -> None:
        assert self._facts is not None
        settings = {
            "folder": str(self._folder),
            "chat_template": self._chat_template,
            "facts": asdict(self._facts),
        }
        await self._exchange(INIT, json.dumps(settings).encode())

    async def _exchange(self, kind: int, payload: bytes, body: bytes | bytearray = b"") -> bytes:
        assert self._reader is not None and self._writer is not None
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._writer.write(HEADER.pack(len(payload) + len(body), self._number, kind) + payload)
        # A large body goes as the child reads it: written at once it would be copied at once, and every stream would wait for that.
        view = memoryview(body)
        for start in range(0, len(body), _WRITE_BYTES):
            self._writer.write(view[start : start + _WRITE_BYTES])
            await self._writer.drain()
        await self._writer.drain()
        while True:
            length, number, answer = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            data = await self._reader.readexactly(length)
            if number == self._number:
                break
        if answer == REFUSED:
            table = json.loads(data)
            raise UserError(table["status"], table["code"], table["message"], table["param"])
        if answer == BROKEN:
            raise ConfigError(data.decode())
        return data

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if self._writer is not None:
            self._writer.close()
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
