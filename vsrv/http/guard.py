"""What h11 lets through and a server should not: a scan of the raw head, and of chunk framing, before h11 sees the bytes.

Each refusal names the RFC section it follows. The cases were found by sending 56 malformed requests to h11 0.16; tests/http/requests.txt holds
them and 400 others. Every pattern here is linear: one character class after another, never two that can match the same blanks.
"""

from __future__ import annotations

import ipaddress
import re

from vsrv.errors import UserError
from vsrv.http.values import Limits

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_NAME = re.compile(rb"[!#$%&'*+\-.^`|~0-9A-Za-z]+")  # without "_", which proxies and CGI confuse with "-"
_UNDERSCORED = frozenset((b"session_id", b"thread_id", b"conversation_id"))  # Codex sent them until May 2026
_VALUE = re.compile(rb"[\x20-\x7e\t]*")  # RFC 9110 section 5.5 without obs-text
_REQUEST_LINE = re.compile(rb"([^ ]+) ([^ ]+) HTTP/(\d)\.(\d)")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)([^#]*)")  # RFC 9112 section 3.2.2
_PATH_QUERY = re.compile(
    rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?\[\]]|%[0-9A-Fa-f]{2})*"
)  # RFC 3986 section 3.3
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|[A-Za-z0-9\-._~]+)(?::(\d{0,5}))?")  # RFC 3986 section 3.2.2
_LENGTH = re.compile(rb"0|[1-9]\d{0,18}")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
_BARE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")  # a CR or LF that is not part of a CR LF
# CONNECT makes no sense for an origin server and TRACE echoes credentials (RFC 9110 sections 9.3.6 and 9.3.8)
_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"))


def refuse(status: int, message: str) -> UserError:
    """The error for a protocol fault; the connection closes after it."""
    return UserError(status, "bad_request" if status == 400 else "protocol_error", message)


def head_end(buffer: bytes | bytearray, limits: Limits) -> int:
    """Index behind the blank line that ends the head, or -1 if it is not there yet. Raises UserError 414/431/400."""
    end = buffer.find(b"\r\n\r\n")
    size = len(buffer) if end < 0 else end + 4
    line_end = buffer.find(b"\r\n", 0, limits.max_head_bytes)
    if (line_end if line_end >= 0 else size) > limits.max_target_bytes + 32:
        raise refuse(414, f"the request target is longer than {limits.max_target_bytes} bytes")
    if size > limits.max_head_bytes:
        raise refuse(431, f"the request head is larger than {limits.max_head_bytes} bytes")
    if _BARE.search(buffer, 0, size):
        raise refuse(400, "a bare CR or LF in the request head (RFC 9112 section 2.2)")
    return end + 4 if end >= 0 else -1


def check_head(head: bytes, limits: Limits) -> None:
    """Raise UserError unless the head (blank line included) is one that every HTTP/1.1 parser reads the same way."""
    lines = head[:-4].split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise refuse(400, "malformed request line (RFC 9112 section 3)")
    method, target, major, minor = match.groups()
    if (major, minor) not in ((b"1", b"1"), (b"1", b"0")):
        raise refuse(505, "only versions 1.0 and 1.1 of HTTP are served (RFC 9110 section 15.6.6)")
    if not _TOKEN.fullmatch(method):
        raise refuse(400, "malformed method (RFC 9110 section 9.1)")
    if method not in _METHODS:
        raise refuse(501, "this method is not served; methods are upper-case (RFC 9110 section 9.1)")
    if len(lines) - 1 > limits.max_headers:
        raise refuse(431, f"more than {limits.max_headers} headers")
    fields = [_field(line) for line in lines[1:]]
    is_1_1 = minor == b"1"
    _check_target(method, target, _host(fields, required=is_1_1))
    _check_framing(fields, is_1_1)
    expected = [value.lower() for name, value in fields if name == b"expect"]
    if is_1_1 and expected and expected != [b"100-continue"]:
        raise refuse(417, "100-continue is the only expectation that can be met (RFC 9110 section 10.1.1)")


def _field(line: bytes) -> tuple[bytes, bytes]:
    """One header or trailer line → (name in lower case, value without the blanks around it)."""
    name, colon, value = line.partition(b":")
    value = value.strip(b" \t")
    named = _NAME.fullmatch(name) or name.lower() in _UNDERSCORED
    if not colon or not named or not _VALUE.fullmatch(value):
        if line[:1] in (b" ", b"\t"):
            raise refuse(400, "a header is folded over lines (RFC 9112 section 5.2)")
        raise refuse(400, "malformed header: name, colon, printable ASCII value (RFC 9112 section 5)")
    return name.lower(), value


def _host(fields: list[tuple[bytes, bytes]], required: bool) -> bytes | None:
    """The Host in lower case, if there is one."""
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1 or (required and not hosts):
        raise refuse(400, "exactly one Host header is needed (RFC 9112 section 3.2)")
    if not hosts:
        return None
    if not _is_authority(hosts[0]):
        raise refuse(400, "malformed Host (RFC 9110 section 7.2)")
    return hosts[0].lower()


def _is_authority(value: bytes) -> bool:
    """Host and port as RFC 3986 section 3.2 has them, without user, percent-encoding and sub-delimiters."""
    match = _HOST.fullmatch(value)
    if match is None or int(match[2] or b"0") > 65535:
        return False
    if match[1] is not None:
        try:
            ipaddress.IPv6Address(match[1].decode("ascii"))
        except ValueError:
            return False
    return True


def _check_target(method: bytes, target: bytes, host: bytes | None) -> None:
    """Origin form, absolute form of this very host, or `OPTIONS *` (RFC 9112 section 3.2)."""
    if target == b"*" and method == b"OPTIONS":
        return
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        authority = absolute[1].lower()
        if not _is_authority(authority) or (host is not None and authority != host):
            raise refuse(400, "the target's authority is not the Host (RFC 9112 section 3.2.2)")
        target = absolute[2] if absolute[2][:1] == b"/" else b"/" + absolute[2]
    if not _PATH_QUERY.fullmatch(target):
        raise refuse(400, "malformed request target (RFC 9112 section 3.2)")


def _check_framing(fields: list[tuple[bytes, bytes]], is_1_1: bool) -> None:
    """Request smuggling lives here: one way only to say where the body ends (RFC 9112 section 6.3)."""
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if lengths and codings:
        raise refuse(400, "Content-Length and Transfer-Encoding together (RFC 9112 section 6.1)")
    if len(lengths) > 1:
        raise refuse(400, "more than one Content-Length (RFC 9112 section 6.3)")
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        if lengths[0].isdigit() and lengths[0][:1] != b"0":
            raise refuse(413, "the announced body is larger than any body (RFC 9110 section 15.5.14)")
        raise refuse(400, "malformed Content-Length (RFC 9112 section 6.3)")
    if codings:
        _check_codings([coding.strip(b" \t").lower() for coding in b",".join(codings).split(b",")], is_1_1)


def _check_codings(codings: list[bytes], is_1_1: bool) -> None:
    """RFC 9112 section 6.1: 400 where the end of the body is uncertain, 501 where only the coding is unknown."""
    if not is_1_1:
        raise refuse(400, "Transfer-Encoding in an HTTP/1.0 request (RFC 9112 section 6.1)")
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1 or not all(map(_TOKEN.fullmatch, codings)):
        raise refuse(400, "chunked must be the last transfer coding, once (RFC 9112 section 6.3)")
    if len(codings) > 1:
        raise refuse(501, "chunked is the only transfer coding that is served (RFC 9112 section 6.1)")


class ChunkScanner:
    """Walks chunked framing (RFC 9112 section 7.1), takes the data out and finds the end. No extensions; trailers are checked and dropped.

    `announced` is what the sizes add up to, the chunk that is just arriving included: a limit can be held before the data is there.
    """

    _MAX_SIZE_LINE = 10  # eight digits and CR LF
    _MAX_TRAILER_BYTES = 8192
    _MAX_TRAILERS = 100
    # A body in one-byte chunks costs the sender six bytes for each byte of ours, but us a turn of Python for each.
    _FREE_CHUNKS, _LEAST_MEAN_SIZE = 1024, 64

    def __init__(self) -> None:
        self._line = bytearray()
        self._left = 0  # bytes of chunk data still to come
        self._state = "size"
        self._chunks = 0
        self._trailers = 0
        self._trailer_bytes = 0
        self.finished = False
        self.announced = 0

    def feed(self, data: bytes | bytearray) -> tuple[int, bytes]:
        """(how many bytes of `data` belong to this message, the chunk data among them). Raises UserError 400/431."""
        position = 0
        parts: list[bytes] = []
        while position < len(data) and not self.finished:
            if self._state == "data":
                part = bytes(data[position : position + self._left])
                parts.append(part)
                position += len(part)
                self._left -= len(part)
                if self._left == 0:
                    self._state = "data end"
                continue
            newline = data.find(b"\n", position)
            stop = len(data) if newline < 0 else newline + 1
            self._line += data[position : min(stop, position + self._MAX_TRAILER_BYTES + 1)]
            position = stop
            self._check_line_length()
            if newline >= 0:
                self._take_line()
        return position, b"".join(parts)

    def _check_line_length(self) -> None:
        if self._state == "trailer":
            if self._trailer_bytes + len(self._line) > self._MAX_TRAILER_BYTES:
                raise refuse(431, f"more than {self._MAX_TRAILER_BYTES} bytes of trailers")
        elif len(self._line) > self._MAX_SIZE_LINE:
            raise refuse(400, "malformed chunk size; extensions are not accepted (RFC 9112 section 7.1.1)")

    def _take_line(self) -> None:
        line = bytes(self._line)
        self._line.clear()
        if not line.endswith(b"\r\n"):
            raise refuse(400, "a chunk line ends with a bare LF (RFC 9112 section 2.2)")
        text = line[:-2]
        if self._state == "data end":
            if text:
                raise refuse(400, "chunk data is longer than its size (RFC 9112 section 7.1)")
            self._state = "size"
        elif self._state == "size":
            self._take_size(text)
        elif not text:
            self.finished = True
        else:
            self._trailers += 1
            self._trailer_bytes += len(line)
            if self._trailers > self._MAX_TRAILERS:
                raise refuse(431, f"more than {self._MAX_TRAILERS} trailers")
            _field(text)

    def _take_size(self, text: bytes) -> None:
        if not _CHUNK_SIZE.fullmatch(text):
            raise refuse(400, "malformed chunk size; extensions are not accepted (RFC 9112 section 7.1)")
        self._left = int(text, 16)
        self._state = "data" if self._left else "trailer"
        self.announced += self._left
        self._chunks += 1
        if self._chunks > self._FREE_CHUNKS + self.announced // self._LEAST_MEAN_SIZE:
            raise refuse(400, f"thousands of chunks of less than {self._LEAST_MEAN_SIZE} bytes")
