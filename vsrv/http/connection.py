"""One HTTP/1.1 connection without I/O: bytes in → request heads and body parts, responses in → bytes out.

The guard sees the raw bytes first and says where each message ends; h11 gets exactly those bytes, keeps the protocol's state and writes heads.
"""

from __future__ import annotations

import http
import re
import time
import uuid
from email.utils import formatdate

import h11

from vsrv.http.guard import ChunkScanner, check_head, head_end, refuse
from vsrv.http.route import split_target
from vsrv.http.values import Headers, Limits

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_DISCARD_BYTES = 64 * 1024  # of a body that nobody wants: read over it and keep the connection, else close


class Head:
    """A parsed request head."""

    __slots__ = (
        "content_length",
        "expects_continue",
        "headers",
        "http_version",
        "id",
        "method",
        "path",
        "query",
        "raw_target",
    )

    def __init__(self, event: h11.Request, root_path: str) -> None:
        self.method = event.method.decode("ascii")
        self.raw_target = event.target.decode("ascii")
        self.http_version = event.http_version.decode("ascii")
        self.headers = Headers(
            [(name.decode("ascii"), value.decode("ascii")) for name, value in event.headers]
        )
        self.path, self.query = split_target(self.raw_target, root_path)
        given = self.headers.get("x-request-id") or ""
        self.id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        length = self.headers.get("content-length")
        self.content_length = int(length) if length is not None else None
        self.expects_continue = (
            self.headers.get("expect") or ""
        ).lower() == "100-continue" and self.http_version == "1.1"


class Connection:
    """Protocol state of one connection. Call order: receive → next_head → take_body until complete → send_* → start_next."""

    def __init__(self, limits: Limits, root_path: str) -> None:
        self._limits = limits
        self._root_path = root_path
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.max_head_bytes)
        self._buffer = bytearray()
        self._scanner: ChunkScanner | None = None
        self._left = 0
        self.body_complete = True
        self.body_received = 0
        self.must_close = False

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    def receive(self, data: bytes) -> None:
        self._buffer += data

    def next_head(self) -> Head | None:
        """The next request's head once it is whole. Raises UserError on malformed ones; the connection must close then."""
        if self._buffer[:2] == b"\r\n":  # RFC 9112 section 2.2: skip one empty line before a request
            del self._buffer[:2]
        if not self._buffer:
            return None
        end = head_end(self._buffer, self._limits)
        if end < 0:
            return None
        raw = bytes(self._buffer[:end])
        del self._buffer[:end]
        check_head(raw, self._limits)
        self._h11.receive_data(raw)
        event = self._event()
        if not isinstance(event, h11.Request):
            raise refuse(400, "malformed request head")
        head = Head(event, self._root_path)
        self._scanner = ChunkScanner() if head.headers.get("transfer-encoding") else None
        self._left = head.content_length or 0
        self.body_received = 0
        self.body_complete = self._scanner is None and self._left == 0
        if self.body_complete:
            self._event()  # EndOfMessage
        return head

    def take_body(self) -> bytes:
        """Body bytes that have arrived and belong to the current request. Raises UserError 400 on malformed framing."""
        if self.body_complete or not self._buffer:
            return b""
        if self._scanner is not None:
            count = self._scanner.feed(self._buffer)
            self.body_complete = self._scanner.finished
        else:
            count = min(self._left, len(self._buffer))
            self._left -= count
            self.body_complete = self._left == 0
        self._h11.receive_data(bytes(self._buffer[:count]))
        del self._buffer[:count]
        parts: list[bytes] = []
        while True:
            event = self._event()
            if isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            else:
                break
        data = b"".join(parts)
        self.body_received += len(data)
        return data

    def informational(self) -> bytes:
        """100 Continue, if the client waits for it and nothing of the body has come yet."""
        if not self._h11.they_are_waiting_for_100_continue:
            return b""
        return self._h11.send(h11.InformationalResponse(status_code=100, headers=[])) or b""

    def send_head(
        self, status: int, headers: list[tuple[str, str]], length: int | None, keep_alive: bool
    ) -> bytes:
        """Response head; length None means chunked (or until the end of the connection for HTTP/1.0)."""
        fields = [(name.lower(), value) for name, value in headers]
        fields += [("date", formatdate(time.time(), usegmt=True)), ("server", "vsrv")]
        if length is not None:
            fields.append(("content-length", str(length)))
        if not keep_alive or not self._can_reuse():
            self.must_close = True
            fields.append(("connection", "close"))
        else:
            fields.append(("keep-alive", f"timeout={int(self._limits.idle_timeout_s)}"))
        return self._h11.send(h11.Response(status_code=status, headers=fields, reason=_reason(status))) or b""

    def send_data(self, data: bytes) -> bytes:
        return self._h11.send(h11.Data(data=data)) or b""

    def send_end(self) -> bytes:
        return self._h11.send(h11.EndOfMessage()) or b""

    def start_next(self) -> bool:
        """After a response: ready for the next request? False means close."""
        if self.must_close or not self.body_complete:
            return False
        if self._h11.our_state is h11.MUST_CLOSE or self._h11.their_state is h11.MUST_CLOSE:
            return False
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    def _can_reuse(self) -> bool:
        """Whether what is left of the request's body is small enough to be read over."""
        return self.body_complete or (self._scanner is None and self._left <= _DISCARD_BYTES)

    def _event(self) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError:
            raise refuse(400, "malformed HTTP message") from None


def _reason(status: int) -> bytes:
    try:
        return http.HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""
