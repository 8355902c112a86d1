"""The asyncio server: one protocol object for each connection, one task for each request, a timer for each phase.

The client going away is noticed in every phase, because reading is never stopped while a request runs, and cancels the request's task.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable

from vsrv.errors import UserError
from vsrv.http.connection import Connection, Head
from vsrv.http.values import Limits, Request, Response, StreamingResponse

App = Callable[[Request], Awaitable[Response | StreamingResponse]]
ErrorBody = Callable[[UserError, str], Response]
Log = Callable[[str, str], None]
_MAX_PIPELINED = 256 * 1024  # bytes of further requests that may wait behind a running one
_MAX_UNREAD = 1 << 20  # bytes of a body that may wait until the app asks for it


class HttpServer:
    """Listens, keeps the set of connections, drains. `error_body` renders refusals; `log` gets (level, message)."""

    def __init__(
        self, app: App, limits: Limits, error_body: ErrorBody, log: Log, root_path: str = ""
    ) -> None:
        self.app = app
        self.limits = limits
        self.error_body = error_body
        self.log = log
        self.root_path = root_path
        self.draining = False
        self.connections: set[HttpProtocol] = set()
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve on a bound socket (TCP or Unix)."""
        loop = asyncio.get_running_loop()
        listen = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
        self._server = await listen(
            lambda: HttpProtocol(self),
            sock=sock,
            ssl=tls,
            backlog=2048,
            ssl_handshake_timeout=self.limits.head_timeout_s if tls else None,
        )

    async def drain(self, timeout_s: float) -> None:
        """Close idle connections, let running requests finish; new ones are still answered, with Connection: close."""
        self.draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        for connection in list(self.connections):
            connection.close_if_idle()
        while (tasks := [c.task for c in self.connections if c.task is not None]) and loop.time() < end:
            await asyncio.wait(tasks, timeout=end - loop.time())

    async def stop(self) -> None:
        """Close the listener and every connection; tasks that still run are cancelled and awaited."""
        if self._server is not None:
            self._server.close()
        tasks = [c.task for c in self.connections if c.task is not None]
        for connection in list(self.connections):
            connection.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=5)


class HttpProtocol(asyncio.Protocol):
    """One connection. States: waiting for a head, request running, closed."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._limits = server.limits
        self._connection = Connection(server.limits, server.root_path)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._body: list[bytes] = []
        self._body_size = 0
        self._body_fault: UserError | None = None
        self._body_wanted: asyncio.Future[None] | None = None
        self._client = ""
        self._idle = False
        self.task: asyncio.Task[None] | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._client = peer[0] if isinstance(peer, tuple) else "unix"
        self._server.connections.add(self)
        if len(self._server.connections) > self._limits.max_connections:
            self._refuse(
                UserError(
                    503, "too_many_connections", "the server has as many connections as it accepts", None, 1
                )
            )
            return
        self._set_timer(self._limits.head_timeout_s, self._head_timeout)

    def data_received(self, data: bytes) -> None:
        self._connection.receive(data)
        if self.task is None:
            self._read_head()
        else:
            self._read_body()

    def eof_received(self) -> bool:
        return (
            False  # a client that closes its side is gone: the transport closes and connection_lost follows
        )

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
        if self._transport is None or self._transport.is_closing():
            return
        try:
            head = self._connection.next_head()
        except UserError as error:
            self._refuse(error)
            return
        if head is None:
            if self._connection.buffered and self._timer is not None and self._idle:
                self._set_timer(self._limits.head_timeout_s, self._head_timeout)
                self._idle = False
            return
        self._set_timer(0, None)
        self._body, self._body_size, self._body_fault = [], 0, None
        request = Request(
            head.method,
            head.path,
            head.raw_target,
            head.query,
            head.headers,
            self._client,
            head.http_version,
            head.id,
            lambda limit: self._whole_body(head, limit),
        )
        self.task = self._loop.create_task(self._respond(request))
        self._read_body()

    def _read_body(self) -> None:
        connection = self._connection
        try:
            while data := connection.take_body():
                self._body.append(data)
                self._body_size += len(data)
        except UserError as error:
            self._body_fault = error
            connection.must_close = True
        if connection.body_complete and connection.buffered > _MAX_PIPELINED:
            self.abort()
        elif not connection.body_complete and self._body_wanted is None and self._body_size > _MAX_UNREAD:
            if self._transport is not None:
                self._transport.pause_reading()  # until the app asks; it decides on the head, so that is soon
        if self._body_wanted is not None and not self._body_wanted.done():
            self._body_wanted.set_result(None)

    async def _whole_body(self, head: Head, limit: int | None) -> bytes:
        limit = self._limits.max_body_bytes if limit is None else min(limit, self._limits.max_body_bytes)
        too_large = UserError(413, "request_too_large", f"the request body is larger than {limit} bytes")
        if head.content_length is not None and head.content_length > limit:
            raise too_large
        if head.expects_continue and not self._connection.body_complete:
            self._write(self._connection.informational())
        while not self._connection.body_complete:
            if self._transport is None:
                raise asyncio.CancelledError
            if self._body_fault is not None:
                raise self._body_fault
            if self._body_size > limit:
                raise too_large
            self._body_wanted = self._loop.create_future()
            if self._transport is not None:
                self._transport.resume_reading()
            try:
                await asyncio.wait_for(self._body_wanted, self._limits.body_timeout_s)
            except TimeoutError:
                raise UserError(408, "request_timeout", "the request body stopped arriving") from None
            finally:
                self._body_wanted = None
        if self._body_size > limit:
            raise too_large
        body, self._body = b"".join(self._body), []
        return body

    # responses

    async def _respond(self, request: Request) -> None:
        try:
            response = await self._answer(request)
            await self._send(request, response)
        except asyncio.CancelledError:
            return  # the client is gone, or the server stops: nobody reads an answer
        finally:
            self.task = None
        self._after_response()

    async def _answer(self, request: Request) -> Response | StreamingResponse:
        try:
            return await self._server.app(request)
        except UserError as error:
            if error.status in (400, 408, 413):
                self._connection.must_close = (
                    self._connection.must_close or not self._connection.body_complete
                )
            return self._server.error_body(error, request.id)
        except Exception as error:  # the seam of a request's life: logged here, told in fixed words
            self._server.log("error", f"request {request.id} failed: {error!r}")
            fault = UserError(
                500, "internal_error", f"internal error; the log has it under request {request.id}"
            )
            return self._server.error_body(fault, request.id)

    async def _send(self, request: Request, response: Response | StreamingResponse) -> None:
        keep_alive = not self._server.draining
        headers = [*response.headers, ("x-request-id", request.id)]
        connection = self._connection
        if isinstance(response, Response):
            out = connection.send_head(response.status, headers, len(response.body), keep_alive)
            if request.method != "HEAD" and response.body:
                out += connection.send_data(response.body)
            self._write(out + connection.send_end())
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
            self._server.log("info", f"{self._client} does not read its response: connection closed")
            self.abort()
            raise asyncio.CancelledError from None
        if self._transport is None:
            raise asyncio.CancelledError

    def _after_response(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        while (
            not self._connection.body_complete
            and not self._connection.must_close
            and self._connection.buffered
        ):
            self._body.clear()
            try:
                self._connection.take_body()
            except UserError:
                self._connection.must_close = True
        if not self._connection.start_next() or self._server.draining:
            self._close_gently()
            return
        transport.resume_reading()
        self._idle = True
        self._set_timer(self._limits.idle_timeout_s, self.close_if_idle)
        if self._connection.buffered:
            self._loop.call_soon(self._read_head_if_free)

    def _read_head_if_free(self) -> None:
        if self.task is None:
            self._read_head()

    def _refuse(self, error: UserError) -> None:
        """Answer a request that never became one, and close."""
        response = self._server.error_body(error, "-")
        lines = [f"HTTP/1.1 {response.status} {_PHRASES.get(response.status, 'Error')}"]
        lines += [f"{name}: {value}" for name, value in response.headers]
        lines += ["server: vsrv", "connection: close", f"content-length: {len(response.body)}", "", ""]
        self._write("\r\n".join(lines).encode("ascii") + response.body)
        self._close_gently()

    def _close_gently(self) -> None:
        """Close after the response is out; a moment of reading keeps a reset from destroying it on the client's side."""
        if self._transport is not None:
            self._set_timer(0, None)
            self._transport.close()

    def _head_timeout(self) -> None:
        if self._connection.buffered:
            self._refuse(UserError(408, "request_timeout", "the request head did not arrive in time"))
        else:
            self.abort()

    def close_if_idle(self) -> None:
        if self.task is None and self._transport is not None:
            self._transport.close()

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


_PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
