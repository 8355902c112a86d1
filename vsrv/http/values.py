"""HTTP nouns. `Request` is the only one with behaviour: its body arrives while it is being read."""

from __future__ import annotations

import http
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field


class Headers:
    """Request headers, names lower-case, immutable. Repeated ones are joined with ", " (RFC 9110 section 5.3)."""

    __slots__ = ("_items",)

    def __init__(self, items: list[tuple[str, str]]) -> None:
        merged: dict[str, str] = {}
        for name, value in items:
            merged[name] = f"{merged[name]}, {value}" if name in merged else value
        self._items = merged

    def get(self, name: str, default: str | None = None) -> str | None:
        return self._items.get(name.lower(), default)

    def items(self) -> list[tuple[str, str]]:
        return list(self._items.items())


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """A client certificate that TLS has verified. `names` are all that it may be known by, the most specific first:
    SHA256:HEX of the whole certificate, URI:, email: and DNS: of its alternative names, CN= of its subject."""

    names: tuple[str, ...]


Progress = Callable[[int], None]  # bytes of a body that have arrived so far; may raise UserError


@dataclass(slots=True, eq=False)
class Request:
    """One request. `path` is percent-decoded from the request target and nothing else (rule R1); `raw_target` is undecoded."""

    method: str
    path: str
    raw_target: str
    query: dict[str, str]
    headers: Headers
    client: str
    http_version: str
    id: str
    read_body: Callable[[int | None, Progress | None], Awaitable[bytes | bytearray]]
    certificate: PeerCertificate | None = None

    async def body(self, limit: int | None = None, progress: Progress | None = None) -> bytes | bytearray:
        """The whole body. Raises UserError 413 as soon as it is known to be larger than `limit` (or the server's limit)."""
        return await self.read_body(limit, progress)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer; Content-Length is added."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class StreamingResponse:
    """An answer that is made while it is sent: each chunk is flushed, and the next one waits for a slow client."""

    status: int
    headers: list[tuple[str, str]]
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection. Seconds are wall time of one phase."""

    max_head_bytes: int = 32768
    max_headers: int = 100
    max_target_bytes: int = 8192
    max_body_bytes: int = 32 << 20
    max_connections: int = 1024
    handshake_timeout_s: float = 10.0
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    min_body_rate: float = (
        1024.0  # bytes a second on average beyond body_timeout_s, as Apache's RequestReadTimeout
    )
    write_timeout_s: float = 60.0
    idle_timeout_s: float = 120.0
    linger_timeout_s: float = 2.0  # of reading on after a refusal, so that a reset does not destroy it


_PHRASES = {int(status): status.phrase for status in http.HTTPStatus}
_PHRASES |= {
    413: "Content Too Large",
    414: "URI Too Long",
    422: "Unprocessable Content",
}  # RFC 9110 section 15.5


def reason_phrase(status: int) -> bytes:
    """The reason phrase of a status code, empty for an unknown one (RFC 9112 section 4)."""
    return _PHRASES.get(status, "").encode("ascii")
