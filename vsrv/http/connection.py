"""One HTTP/1.1 connection without I/O: bytes in → request heads and body parts, responses in → bytes out.

The guard sees the raw bytes first and says where each message ends; h11 gets exactly those bytes, keeps the protocol's state and writes heads.
"""

from __future__ import annotations

import re
import time
import uuid
from email.utils import formatdate

import h11

from vsrv.errors import UserError
from vsrv.http.guard import ChunkScanner, check_head, head_end, refuse
from vsrv.http.route import split_target
from vsrv.http.values import Headers, Limits, reason_phrase

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
        "is_last",
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
        self.expects_continue = self.http_version == "1.1" and self.headers.get("expect") is not None
        options = (self.headers.get("connection") or "").lower().split(",")
        # RFC 9112 section 9.3; HTTP/1.0's keep-alive is not offered
        self.is_last = self.http_version != "1.1" or any(option.strip() == "close" for option in options)


class Connection:
    """Protocol state of one connection. Call order: receive → next_head → take_body until complete → send_* → start_next."""

    def __init__(self, limits: Limits, root_path: str) -> None:
        self._limits = limits
        self._root_path = root_path
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.max_head_bytes)
        self._buffer = bytearray()
        self._scanner: ChunkScanner | None = None
        self._left = 0
        self._skipped_line = False
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
        if not self._skipped_line and self._buffer[:2] == b"\r\n":
            del self._buffer[
                :2
            ]  # RFC 9112 section 2.2: at least one empty line before a request is ignored; here, one
            self._skipped_line = True
        if not self._buffer:
            return None
        if self._skipped_line and self._buffer[:1] == b"\r":
            raise refuse(400, "more than one empty line before a request (RFC 9112 section 2.2)")
        end = head_end(self._buffer, self._limits)
        if end < 0:
            return None
        raw = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._skipped_line = False
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
        self.must_close = head.is_last
        if self.body_complete:
            self._event()  # EndOfMessage
        return head

    def check_body(self, limit: int) -> None:
        """Raise UserError 413 as soon as what is announced or has arrived is more than `limit` (RFC 9110 section 15.5.14)."""
        announced = self._left if self._scanner is None else self._scanner.announced - self.body_received
        if self.body_received + announced > limit:
            raise UserError(413, "request_too_large", f"the request body is larger than {limit} bytes")

    def take_body(self) -> bytes:
        """Body bytes that have arrived and belong to the current request. Raises UserError 400/431 on malformed framing."""
        if self.body_complete or not self._buffer:
            return b""
        if self._scanner is not None:
            count, data = self._scanner.feed(self._buffer)
            self.body_complete = self._scanner.finished
            # h11 needs the framing for its state; one chunk for all that has arrived, because it is slow with many
            framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            framed += b"0\r\n\r\n" if self.body_complete else b""
        else:
            count = min(self._left, len(self._buffer))
            data = bytes(self._buffer[:count])
            self._left -= count
            self.body_complete = self._left == 0
            framed = data
        del self._buffer[:count]
        if framed:  # h11 takes b"" for the end of the connection
            self._h11.receive_data(framed)
        while isinstance(self._event(), h11.Data):
            continue  # the same bytes again
        self.body_received += len(data)
        return data

    def informational(self) -> bytes:
        """100 Continue, if the client waits for it and nothing of the body has come yet (RFC 9110 section 10.1.1)."""
        if not self._h11.they_are_waiting_for_100_continue:
            return b""
        return self._h11.send(h11.InformationalResponse(status_code=100, headers=[])) or b""

    def send_head(
        self, status: int, headers: list[tuple[str, str]], length: int | None, keep_alive: bool
    ) -> bytes:
        """Response head; length None means chunked (or until the end of the connection for HTTP/1.0)."""
        fields = [(name.lower(), value) for name, value in headers]
        fields += [("date", formatdate(time.time(), usegmt=True)), ("server", "vsrv")]
        if length is not None and status != 204:  # RFC 9110 section 8.6: no Content-Length in a 204
            fields.append(("content-length", str(length)))
        if not keep_alive or not self._can_reuse():
            self.must_close = True
        if self.must_close:
            fields.append(("connection", "close"))
        else:
            fields.append(("keep-alive", f"timeout={int(self._limits.idle_timeout_s)}"))
        response = h11.Response(status_code=status, headers=fields, reason=reason_phrase(status))
        return self._h11.send(response) or b""

    def send_data(self, data: bytes) -> bytes:
        return self._h11.send(h11.Data(data=data)) or b""

    def send_end(self) -> bytes:
        return self._h11.send(h11.EndOfMessage()) or b""

    def start_next(self) -> bool:
        """After a response: ready for the next request? False means close."""
        if self.must_close or not self.body_complete:
            return False
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    def _can_reuse(self) -> bool:
        """Whether the rest of the request's body will come and is small enough to be read over.

        A client that waits for 100 Continue may send the body or not after another answer: only closing is unambiguous.
        """
        if self.body_complete:
            return True
        waiting = self._h11.they_are_waiting_for_100_continue
        return self._scanner is None and self._left <= _DISCARD_BYTES and not waiting

    def _event(self) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError:
            raise refuse(400, "malformed HTTP message") from None
