"""A small HTTP/1.1 client on asyncio streams: one connection for each request, answers read as they come, events of a stream as text.

No client library: on a small host the client must not eat what the server needs (`vsrv bench` measures with it).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from vsrv.client import DEFAULT_URL
from vsrv.errors import ConfigError, NoServerError

_MAX_HEAD_BYTES = 64 * 1024
_MAX_LINE_BYTES = 16 << 20  # one event of a stream
_MAX_BODY_BYTES = 1 << 30
_READ_BYTES = 64 * 1024


class ProtocolError(Exception):
    """What the server sent is no HTTP, or ended before it was whole."""


class RequestFailed(Exception):
    """The server answered with an error. `retry_after_s` is what it asked for, if it did."""

    def __init__(
        self, status: int, code: str, message: str, retry_after_s: float | None = None, may_retry: bool = True
    ) -> None:
        super().__init__(f"{status} {code}: {message}" if code else f"{status}: {message}")
        self.status, self.code, self.message = status, code, message
        self.retry_after_s, self.may_retry = retry_after_s, may_retry


@dataclass(slots=True)
class Reply:
    """An answer whose head has come. Read its body once."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    _reader: asyncio.StreamReader = field(repr=False)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces as they arrive. Raises ProtocolError when it ends early."""
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            async for piece in self._chunked():
                yield piece
            return
        length = self.headers.get("content-length")
        left = int(length) if length is not None and length.isdigit() else None
        while left is None or left > 0:
            piece = await self._reader.read(_READ_BYTES if left is None else min(left, _READ_BYTES))
            if not piece:
                if left is not None:
                    raise ProtocolError("the answer ended early")
                return
            left = None if left is None else left - len(piece)
            yield piece

    async def _chunked(self) -> AsyncIterator[bytes]:
        """RFC 9112 section 7.1."""
        try:
            while True:
                size = int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)
                if size == 0:
                    while await self._reader.readuntil(b"\r\n") != b"\r\n":
                        continue  # a trailer
                    return
                if size > _MAX_BODY_BYTES:
                    raise ProtocolError("a chunk that is too large")
                yield (await self._reader.readexactly(size + 2))[:-2]
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            raise ProtocolError("the answer ended early, or its framing is broken") from None

    async def lines(self) -> AsyncIterator[bytes]:
        """The body in lines, without their ends. Raises ProtocolError when it ends early."""
        rest = b""
        async for piece in self.chunks():
            *found, rest = (rest + piece).split(b"\n")
            if len(rest) > _MAX_LINE_BYTES:
                raise ProtocolError("a line that never ends")
            for line in found:
                yield line.removesuffix(b"\r")
        if rest:
            yield rest

    async def body(self) -> bytes:
        """The whole body."""
        parts, size = [], 0
        async for piece in self.chunks():
            parts.append(piece)
            size += len(piece)
            if size > _MAX_BODY_BYTES:
                raise ProtocolError("the answer is too large")
        return b"".join(parts)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Data of server-sent events as JSON objects, until [DONE]. Raises RequestFailed for an error among them."""
        async for line in self.lines():
            if not line.startswith(b"data:"):  # comments, event names, ends of events
                continue
            data = line[5:].strip()
            if data.startswith(b"[DONE]"):
                return
            event = _object(data)
            if "error" in event:
                raise failure(self.status, self.headers, event)
            yield event
        raise ProtocolError("the stream ended early")

    async def json(self) -> dict[str, Any]:
        """A whole JSON answer. Raises RequestFailed where it is an error, ProtocolError where it is no JSON object."""
        body = await self.body()
        if self.status >= 400:
            try:
                table = _object(body)
            except ProtocolError:
                table = {"error": {"message": body[:300].decode(errors="replace")}}
            raise failure(self.status, self.headers, table)
        return _object(body)


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        raise ProtocolError("the answer is not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError("the answer is not a JSON object")
    return value


def failure(status: int, headers: Mapping[str, str], table: Mapping[str, Any]) -> RequestFailed:
    """An error body of OpenAI's form, or of another, as an exception."""
    error = table.get("error")
    error = error if isinstance(error, dict) else {"message": error or table.get("message") or table}
    wait = headers.get("retry-after", "")
    return RequestFailed(
        status,
        str(error.get("code") or error.get("type") or ""),
        str(error.get("message") or "no message"),
        float(wait) if wait.replace(".", "", 1).isdigit() else None,
        headers.get("x-should-retry", "").lower() != "false",
    )


@dataclass(frozen=True, slots=True)
class Target:
    """A server: where it is, and the key to send."""

    host: str
    port: int
    prefix: str = ""
    tls: ssl.SSLContext | None = None
    socket_path: str = ""
    key: str = field(default="", repr=False)

    @classmethod
    def of(cls, url: str, key: str | None = None, ca_file: str | None = None) -> Target:
        """From an address as people give it: http(s)://HOST[:PORT][/PREFIX][/v1], or unix:PATH. Raises ConfigError."""
        if url.startswith("unix:"):
            return cls("localhost", 0, socket_path=url.removeprefix("unix:"), key=key or "")
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            port = parts.port
        except ValueError:
            raise ConfigError(f"--url {url}: expected http://HOST:PORT or unix:PATH") from None
        if not parts.hostname or parts.scheme not in ("http", "https"):
            raise ConfigError(f"--url {url}: expected http://HOST:PORT or unix:PATH")
        tls = None
        if parts.scheme == "https":
            try:
                tls = ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise ConfigError(
                    f"--ca-file {ca_file}: {error.strerror or 'no certificates in it'}"
                ) from None
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.hostname, port or (443 if tls else 80), prefix, tls, key=key or "")

    @property
    def name(self) -> str:
        """For messages, and as Host."""
        if self.socket_path:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Reply]:
        """Send one request; the connection lasts as long as the context. Raises OSError and ProtocolError."""
        if self.socket_path:
            reader, writer = await asyncio.open_unix_connection(self.socket_path, limit=_MAX_LINE_BYTES)
        else:
            reader, writer = await asyncio.open_connection(
                self.host, self.port, ssl=self.tls, limit=_MAX_LINE_BYTES
            )
        try:
            writer.write(self._head(method, path, body, headers or {}) + (body or b""))
            yield await _reply(reader)
        finally:
            writer.close()

    def _head(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        lines = [f"{method} {self.prefix}{path} HTTP/1.1", f"Host: {self.name}", "Connection: close"]
        if self.key:
            lines.append(f"Authorization: Bearer {self.key}")
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    async def get(self, path: str) -> dict[str, Any]:
        """A JSON answer to GET. Raises ConfigError if nobody answers, RequestFailed for an error."""
        try:
            async with self.request("GET", path) as reply:
                return await reply.json()
        except OSError as error:
            raise unreachable(self, error) from None

    async def models(self) -> list[str]:
        """Names of the served models."""
        data = (await self.get("/v1/models")).get("data")
        return (
            [str(card.get("id")) for card in data if isinstance(card, dict)] if isinstance(data, list) else []
        )


def unreachable(target: Target, error: OSError) -> ConfigError:
    """What to say when nobody listens, or when who listens cannot be trusted."""
    where = target.socket_path or target.name
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigError(
            f"the certificate of {where} is not trusted ({error.verify_message}); "
            "--ca-file FILE names the authority that signed it"
        )
    if isinstance(error, ssl.SSLError):
        return ConfigError(f"no TLS with {where} ({error.reason or error}); check --url: http or https?")
    code = error.errno or 0
    reason = os.strerror(code) if code > 0 and not isinstance(error, socket.gaierror) else error.strerror
    return NoServerError(f"no server answers at {where} ({reason or error}); check --url")


def refused(where: str, error: RequestFailed | ProtocolError) -> ConfigError:
    """What to say when a server answers, but not what was asked for."""
    is_key = isinstance(error, RequestFailed) and error.status in (401, 403)
    return ConfigError(f"{where}{error}{'; is --api-key right?' if is_key else ''}")


async def _reply(reader: asyncio.StreamReader) -> Reply:
    """Status and headers; informational answers before them are passed over (RFC 9110 section 15.2)."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise ProtocolError("the connection ended before an answer") from None
        status_line, *lines = head[:-4].decode("latin-1").split("\r\n")
        words = status_line.split(" ", 2)
        if (
            len(head) > _MAX_HEAD_BYTES
            or not words[0].startswith("HTTP/1.")
            or not words[1:2]
            or not words[1].isdigit()
        ):
            raise ProtocolError("the answer is not HTTP/1.1")
        status = int(words[1])
        if status >= 200:
            pairs = (line.partition(":") for line in lines)
            return Reply(status, {name.strip().lower(): value.strip() for name, _, value in pairs}, reader)


def given_key(key: str | None) -> str:
    """--api-key, else the variable that OpenAI's clients read."""
    return key or os.environ.get("OPENAI_API_KEY", "")


def given_url(url: str | None) -> str:
    """--url, else the variable that OpenAI's clients read, else where `vsrv serve` listens."""
    return url or os.environ.get("OPENAI_BASE_URL", "") or DEFAULT_URL
