"""One connection on asyncio: a phase with a timer, one task for the request that runs.

The client going away is noticed in every phase, because reading is never stopped while a request runs, and cancels the request's task.
A client that half-closes its side after the request counts as gone: the two cannot be told apart, and most who close are gone.
"""

from __future__ import annotations

import asyncio
import enum
import uuid
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Protocol

from vsrv.errors import UserError
from vsrv.http.connection import Connection, Head
from vsrv.http.forwarded import TrustedProxies
from vsrv.http.tls import peer_certificate
from vsrv.http.values import (
    Limits,
    PeerCertificate,
    Progress,
    Request,
    Response,
    StreamingResponse,
    reason_phrase,
)

App = Callable[[Request], Awaitable[Response | StreamingResponse]]
ErrorBody = Callable[[UserError, str, str], Response]  # of (what to tell, request id, path or "")
Log = Callable[[str, str], None]
_MAX_PIPELINED = 256 * 1024  # bytes of further requests that may wait behind a running one
_MAX_UNREAD = 1 << 20  # bytes of a body that may wait until the app asks for it
_MAX_LINGER_BYTES = 1 << 20  # that are read and dropped after a refusal
_WRITE_BYTES = 64 * 1024  # of a large answer at once; between them a slow client is waited for


class Owner(Protocol):
    """What a connection asks of its server."""

    app: App
    limits: Limits
    error_body: ErrorBody
    log: Log
    root_path: str
    trusted: TrustedProxies
    draining: bool
    connections: set[HttpProtocol]


class Phase(enum.Enum):
    """IDLE between requests, HEAD while one arrives, REQUEST while it runs, DISCARD of its unread body, LINGER after the last answer."""

    IDLE = "idle"
    HEAD = "head"
    REQUEST = "request"
    DISCARD = "discard"
    LINGER = "linger"


class HttpProtocol(asyncio.Protocol):
    """One connection. Owned by the event loop."""

    def __init__(self, server: Owner) -> None:
        self._server = server
        self._limits = server.limits
        self._connection = Connection(server.limits, server.root_path)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._phase = Phase.HEAD
        self._timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._body = bytearray()  # a list would cost forty bytes for each byte of a sender of tiny packets
        self._body_fault: UserError | None = None
        self._body_wanted: asyncio.Future[None] | None = None
        self._lingered = 0
        self._peer = ""
        self._certificate: PeerCertificate | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        return self._phase is Phase.IDLE and self._transport is not None and not self._transport.is_closing()

    @property
    def unsent(self) -> int:
        """Bytes of answers that the client has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else "unix"
        self._certificate = peer_certificate(transport.get_extra_info("ssl_object"))
        self._server.connections.add(self)
        if len(self._server.connections) > self._limits.max_connections:
            self._refuse(
                UserError(
                    503, "too_many_connections", "the server has as many connections as it takes", None, 1
                )
            )
            return
        self._set_timer(self._limits.head_timeout_s, self._head_timeout)

    def data_received(self, data: bytes) -> None:
        if self._phase is Phase.LINGER:
            self._lingered += len(data)
            if self._lingered > _MAX_LINGER_BYTES:
                self.abort()
            return
        self._connection.receive(data)
        if self._phase is Phase.REQUEST:
            self._read_body()
        elif self._phase is Phase.DISCARD:
            self._discard()
        else:
            self._read_head()

    def eof_received(self) -> bool:
        return False  # the transport closes, and connection_lost follows

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._set_timer(0, None)
        self._writable.set()
        self._transport = None
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # heads and bodies

    def _read_head(self) -> None:
        if (
            self._transport is None
            or self._transport.is_closing()
            or self._phase not in (Phase.IDLE, Phase.HEAD)
        ):
            return
        try:
            head = self._connection.next_head()
        except UserError as error:
            self._refuse(error)
            return
        if head is None:
            if self._phase is Phase.IDLE and self._connection.buffered:
                self._phase = Phase.HEAD
                self._set_timer(self._limits.head_timeout_s, self._head_timeout)
            return
        self._phase = Phase.REQUEST
        self._set_timer(0, None)
        self._body, self._body_fault = bytearray(), None
        request = Request(
            head.method,
            head.path,
            head.raw_target,
            head.query,
            head.headers,
            self._server.trusted.client(self._peer, head.headers.get("x-forwarded-for")),
            head.http_version,
            head.id,
            lambda limit, progress: self._whole_body(head, limit, progress),
            self._certificate,
        )
        self.task = self._loop.create_task(self._respond(request))
        self._read_body()

    def _read_body(self) -> None:
        connection, transport = self._connection, self._transport
        if self._body_fault is not None or transport is None:
            return  # nothing behind a fault has a meaning
        try:
            while data := connection.take_body():
                self._body += data
        except UserError as error:
            self._body_fault = error
            connection.must_close = True
        unread = len(self._body) if self._body_wanted is None else 0
        if connection.body_complete and connection.buffered > _MAX_PIPELINED:
            self.abort()
        elif self._body_fault is not None or (not connection.body_complete and unread > _MAX_UNREAD):
            transport.pause_reading()  # until the app asks, or has answered; it decides on the head, so that is soon
        if self._body_wanted is not None and not self._body_wanted.done():
            self._body_wanted.set_result(None)

    async def _whole_body(
        self, head: Head, limit: int | None, progress: Progress | None
    ) -> bytes | bytearray:
        """The body, under three bounds: its size, the time between two arrivals, and the mean rate."""
        connection, limits = self._connection, self._limits
        limit = limits.max_body_bytes if limit is None else min(limit, limits.max_body_bytes)
        connection.check_body(limit)
        if head.expects_continue and not connection.body_complete:
            self._write(connection.informational())
        began = self._loop.time()
        while not connection.body_complete or self._body_fault is not None:
            if self._transport is None:
                raise asyncio.CancelledError
            connection.check_body(limit)
            if self._body_fault is not None:
                raise self._body_fault
            if progress is not None:
                progress(connection.body_received)
            on_average = began + limits.body_timeout_s + connection.body_received / limits.min_body_rate
            patience = min(limits.body_timeout_s, on_average - self._loop.time())
            self._body_wanted = self._loop.create_future()
            self._transport.resume_reading()
            try:
                await asyncio.wait_for(self._body_wanted, patience)
            except TimeoutError:
                raise UserError(
                    408, "request_timeout", "the request body stopped arriving, or arrives too slowly"
                ) from None
            finally:
                self._body_wanted = None
        connection.check_body(limit)
        body, self._body = self._body, bytearray()
        return body  # as it is: a copy of 30 MB would hold up every other connection

    # responses

    async def _respond(self, request: Request) -> None:
        try:
            response = await self._answer(request)
            await self._send(request, response)
        except asyncio.CancelledError:
            return  # the client is gone, or the server stops: nobody reads an answer
        except (
            Exception
        ) as error:  # the seam of a connection's life: an answer that cannot be written ends it
            self._server.log("error", f"the answer to request {request.id} could not be sent: {error!r}")
            self.abort()
            return
        finally:
            self.task = None
        self._after_response()

    async def _answer(self, request: Request) -> Response | StreamingResponse:
        try:
            return await self._server.app(request)
        except UserError as error:
            if error.status in (400, 408, 413, 431) and not self._connection.body_complete:
                self._connection.must_close = True
            return self._server.error_body(error, request.id, request.path)
        except Exception as error:  # the seam of a request's life: logged here, told in fixed words
            self._server.log("error", f"request {request.id} failed: {error!r}")
            fault = UserError(
                500, "internal_error", f"internal error; the log has it under request {request.id}"
            )
            return self._server.error_body(fault, request.id, request.path)

    async def _send(self, request: Request, response: Response | StreamingResponse) -> None:
        keep_alive = not self._server.draining
        headers = [*response.headers, ("x-request-id", request.id)]
        connection = self._connection
        if isinstance(response, Response):
            self._write(connection.send_head(response.status, headers, len(response.body), keep_alive))
            if request.method != "HEAD":
                await self._send_body(response.body)
            self._write(connection.send_end())
            await self._drained()
            return
        self._write(connection.send_head(response.status, headers, None, keep_alive))
        chunks = response.chunks
        try:
            async for chunk in chunks:
                if request.method != "HEAD":
                    self._write(connection.send_data(chunk))
                    await self._drained()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the 200 is out: the connection's end is all that is left to say
            self._server.log("error", f"stream {request.id} failed: {error!r}")
            self.abort()
            return
        finally:
            closing = getattr(chunks, "aclose", None)
            if closing is not None:
                await closing()
        self._write(connection.send_end())
        await self._drained()

    async def _send_body(self, body: bytes) -> None:
        for start in range(0, len(body), _WRITE_BYTES):
            self._write(self._connection.send_data(body[start : start + _WRITE_BYTES]))
            if len(body) > _WRITE_BYTES:
                await self._drained()

    async def _drained(self) -> None:
        """Wait until the client has read enough. A cancellation can be lost in wait_for when its event is set in the same
        turn (CPython before 3.12), so that the transport is asked as well."""
        if self._transport is None:
            raise asyncio.CancelledError
        if self._writable.is_set():
            return
        try:
            await asyncio.wait_for(self._writable.wait(), self._limits.write_timeout_s)
        except TimeoutError:
            self._drop_slow_reader()
            raise asyncio.CancelledError from None
        if self._transport is None:
            raise asyncio.CancelledError

    # between and after requests

    def _after_response(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._connection.must_close or self._server.draining:
            self._close_gently()
            return
        self._phase = Phase.DISCARD
        self._transport.resume_reading()
        self._set_timer(self._limits.body_timeout_s, self._close_gently)
        self._discard()

    def _discard(self) -> None:
        """Read over what is left of a body that nobody wanted; the next request begins behind it."""
        try:
            while self._connection.take_body():
                continue
        except UserError:
            self._close_gently()
            return
        if not self._connection.body_complete:
            return
        if not self._connection.start_next():
            self._close_gently()
            return
        self._phase = Phase.IDLE
        self._set_timer(self._limits.idle_timeout_s, self.close_if_idle)
        if self._connection.buffered:
            self._loop.call_soon(self._read_head)

    def _refuse(self, error: UserError) -> None:
        """Answer a request that never became one, and close (RFC 9112 section 9.6)."""
        request_id = uuid.uuid4().hex
        response = self._server.error_body(error, request_id, "")
        self._server.log("info", f"refused a request of {self._peer} with {error.status}: {error.message}")
        headers = [*response.headers, ("x-request-id", request_id), ("date", formatdate(usegmt=True))]
        headers += [("server", "vsrv"), ("connection", "close"), ("content-length", str(len(response.body)))]
        head = b"HTTP/1.1 %d %b\r\n" % (response.status, reason_phrase(response.status))
        head += "".join(f"{name}: {value}\r\n" for name, value in headers).encode("ascii")
        self._write(head + b"\r\n" + response.body)
        self._close_gently()

    def _close_gently(self) -> None:
        """Close in two stages (RFC 9112 section 9.6): our side once the response is out, the rest when the client has closed, or soon.

        What comes meanwhile is read and dropped: closing a socket with unread bytes, or before the client's next ones, resets the connection,
        and the reset can destroy the response on its way.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._phase = Phase.LINGER
        if not transport.can_write_eof():  # TLS says its own goodbye
            self._close()
            return
        try:
            transport.write_eof()
        except OSError:  # the client was quicker
            transport.abort()
            return
        transport.resume_reading()
        # while a slow reader still takes its answer, the longer of the two limits holds
        waiting = self._limits.write_timeout_s if self.unsent else self._limits.linger_timeout_s
        self._set_timer(waiting, self._close)

    def _close(self) -> None:
        if self._transport is None:
            return
        if self._phase is Phase.LINGER and self.unsent and self._transport.can_write_eof():
            self._drop_slow_reader()
            return
        self._transport.close()
        self._set_timer(
            self._limits.write_timeout_s, self._drop_slow_reader
        )  # its goodbye does not wait for ever

    def _drop_slow_reader(self) -> None:
        self._server.log("info", f"{self._peer} does not read its response: connection closed")
        self.abort()

    def _head_timeout(self) -> None:
        if self._connection.buffered:
            self._refuse(UserError(408, "request_timeout", "the request head did not arrive in time"))
        else:
            self.abort()

    def close_if_idle(self) -> None:
        """Close unless a request runs, arrives or is being answered."""
        if self._phase is Phase.IDLE or (self._phase is Phase.HEAD and not self._connection.buffered):
            self._close_gently()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(data)

    def _set_timer(self, seconds: float, action: Callable[[], None] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, action) if action is not None else None
