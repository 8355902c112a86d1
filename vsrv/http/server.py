"""The asyncio server: accepts, counts connections, drains. What one connection does is in protocol.py.

Sockets are accepted here and not by asyncio's Server: the TLS context can then be another one for every new connection, TLS handshakes are
counted and timed, and running out of file descriptors has an answer.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import sys

from vsrv.http.forwarded import TrustedProxies
from vsrv.http.protocol import App, ErrorBody, HttpProtocol, Log
from vsrv.http.values import Limits

_BACKLOG = 2048
# Bytes that the kernel may hold unsent for a connection: 3 MB without this bound, for each client that does not read. What is on its way to
# a distant client is not counted, so that its throughput does not suffer.
_MAX_UNSENT = 128 * 1024
_ACCEPTS_PER_TURN = 64  # so that a flood of connections does not keep the loop from its other work
_REFUSED_AT_ONCE = 64  # connections above the limit that are told so; further ones are closed without a word
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_EXHAUSTED_PAUSE_S = 0.25
_DRAIN_POLL_S = 0.02
_SHED = 16  # idle connections that make room for a new one when file descriptors run out


class HttpServer:
    """Listens, keeps the set of connections, drains. `error_body` renders refusals; `log` gets (level, message).

    `tls` may be replaced at any time: connections that are open keep the context they began with.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        error_body: ErrorBody,
        log: Log,
        root_path: str = "",
        trusted: TrustedProxies | None = None,
    ) -> None:
        self.app = app
        self.limits = limits
        self.error_body = error_body
        self.log = log
        self.root_path = root_path
        self.trusted = trusted or TrustedProxies()
        self.tls: ssl.SSLContext | None = None
        self.draining = False
        self.connections: set[HttpProtocol] = set()
        self._arriving: set[asyncio.Task[None]] = set()
        self._socket: socket.socket | None = None
        self._exhausted = False

    async def start(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve on a bound socket (TCP or Unix); `stop` closes it."""
        self.tls = tls
        sock.listen(_BACKLOG)
        if sock.family != socket.AF_UNIX:  # accepted sockets inherit these
            # else a stream's first event waits for the client's delayed ACK of the head (RFC 9293, 3.7.4): 40 ms on kept connections.
            # asyncio sets it only for sockets that were made with the protocol's number
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if sys.platform == "linux":
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MAX_UNSENT)
        sock.setblocking(False)
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock, self._accept)

    async def drain(self, timeout_s: float) -> None:
        """Close idle connections, let running requests finish; new ones are still answered, with Connection: close."""
        self.draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        for connection in list(self.connections):
            connection.close_if_idle()
        while (tasks := [c.task for c in self.connections if c.task is not None]) and loop.time() < end:
            await asyncio.wait(tasks, timeout=end - loop.time())
        while any(connection.unsent for connection in self.connections) and loop.time() < end:
            await asyncio.sleep(_DRAIN_POLL_S)

    def stop_accepting(self) -> None:
        """Take no new connection: where another process holds the listening socket too (systemd), they wait there for the next server."""
        self.draining = True
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    async def stop(self) -> None:
        """Stop listening and close every connection; tasks that still run are cancelled and awaited."""
        self.stop_accepting()
        tasks: list[asyncio.Task[None]] = [c.task for c in self.connections if c.task is not None]
        for arriving in self._arriving:
            arriving.cancel()
        for connection in list(self.connections):
            connection.abort()
        tasks += self._arriving
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    def _accept(self) -> None:
        assert self._socket is not None
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause(error)
                return
            self._exhausted = False
            sock.setblocking(False)
            if len(self.connections) + len(self._arriving) >= self.limits.max_connections + _REFUSED_AT_ONCE:
                sock.close()
                continue
            task = asyncio.get_running_loop().create_task(self._greet(sock))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    def _pause(self, error: OSError) -> None:
        """No file descriptor is left: idle connections make room, and the socket is looked at again a moment later.

        Looking at once would turn the waiting connection into a busy loop.
        """
        if not self._exhausted:
            self._exhausted = True
            self.log("warning", f"cannot accept connections: {error.strerror}; closing idle ones")
        idle = [connection for connection in self.connections if connection.is_idle]
        for connection in idle[:_SHED]:
            connection.close_if_idle()
        loop = asyncio.get_running_loop()
        assert self._socket is not None
        loop.remove_reader(self._socket)
        loop.call_later(_EXHAUSTED_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    async def _greet(self, sock: socket.socket) -> None:
        """Socket → protocol, with the TLS handshake between them if there is one."""
        tls = self.tls
        limit = self.limits.handshake_timeout_s if tls is not None else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: HttpProtocol(self),
                sock,
                ssl=tls,
                ssl_handshake_timeout=limit,
                ssl_shutdown_timeout=limit,
            )
        except OSError as error:  # ssl.SSLError and the timeout are OSErrors too
            self.log("debug", f"a connection ended before its first request: {error}")
            sock.close()
        except asyncio.CancelledError:
            sock.close()
            raise
