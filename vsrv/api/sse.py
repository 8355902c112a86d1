"""Server-sent events as clients read them: `data: <JSON>`, a blank line; some dialects name them, some end with `[DONE]`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from vsrv.api.refusals import error_object
from vsrv.errors import UserError

DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"
HEADERS = [
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),  # nginx would collect the stream otherwise
]


def event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def named_event(name: str, value: Any) -> bytes:
    return b"event: " + name.encode("ascii") + b"\ndata: " + orjson.dumps(value) + b"\n\n"


def stream_error(error: UserError) -> bytes:
    """How a stream of chunks that has begun tells a failure, and ends."""
    return event(error_object(error)) + DONE


class Stream:
    """Chunks with an end that is always told: `on_close` runs once, with the bytes sent, even if no chunk was ever asked for."""

    def __init__(self, chunks: AsyncIterator[bytes], on_close: Callable[[int], None]) -> None:
        self._chunks = chunks
        self._sent = 0
        self._on_close: Callable[[int], None] | None = on_close

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._chunks.__anext__()
        self._sent += len(chunk)
        return chunk

    async def aclose(self) -> None:
        closing = getattr(self._chunks, "aclose", None)
        try:
            if closing is not None:
                await closing()
        finally:
            on_close, self._on_close = self._on_close, None
            if on_close is not None:
                on_close(self._sent)


async def with_keep_alive(
    chunks: AsyncIterator[bytes], interval_s: float, sign: bytes = COMMENT
) -> AsyncIterator[bytes]:
    """Pass chunks on; after `interval_s` of silence a sign of life keeps proxies from closing the stream. 0 = never."""
    if interval_s <= 0:
        async for chunk in chunks:
            yield chunk
        return
    following: asyncio.Task[bytes] | None = None
    loop = asyncio.get_running_loop()
    try:
        while True:
            if following is None:
                following = loop.create_task(_next(chunks))
            done, _ = await asyncio.wait((following,), timeout=interval_s)
            if not done:
                yield sign
                continue
            try:
                chunk = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield chunk
    finally:
        if following is not None and not following.done():
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await following
        closing = getattr(chunks, "aclose", None)
        if closing is not None:
            await closing()


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    return await chunks.__anext__()
