"""Which handler a request belongs to, and which key it needs: decided on the matched Route, never on a path prefix (rule R1, R3)."""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from vsrv.errors import UserError
from vsrv.http.values import Request, Response, StreamingResponse

_ABSOLUTE = re.compile(r"(?i:https?)://[^/?#]*")
Handler = Callable[[Request, dict[str, str]], Awaitable[Response | StreamingResponse]]


class AuthClass(enum.Enum):
    """Who may call a route: PUBLIC and PROBE everybody, METRICS by configuration, INFERENCE and ADMIN with a key."""

    PUBLIC = "public"
    PROBE = "probe"
    METRICS = "metrics"
    INFERENCE = "inference"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Route:
    """`pattern` as in "/v1/models/{model:path}": a placeholder spans one segment, with `:path` also slashes."""

    methods: tuple[str, ...]
    pattern: str
    auth: AuthClass
    call: Handler

    def expression(self) -> re.Pattern[str]:
        parts = re.split(r"\{(\w+)(:path)?\}", self.pattern)
        text = re.escape(parts[0])
        for name, spans, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            text += f"(?P<{name}>{'.+' if spans else '[^/]+'})" + re.escape(literal)
        return re.compile(text)


class Router:
    """Routes in order; the first pattern that matches wins."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        for route in routes:
            if not isinstance(route.auth, AuthClass):
                raise TypeError(f"route {route.pattern} has no auth class")
        self.routes = routes
        self._compiled = [(route.expression(), route) for route in routes]

    def find(self, method: str, path: str) -> tuple[Route | None, dict[str, str], tuple[str, ...]]:
        """(route or None, placeholders, methods that the path allows; empty when the path is unknown). HEAD goes where GET is."""
        allowed: list[str] = []
        for expression, route in self._compiled:
            match = expression.fullmatch(path)
            if match is None:
                continue
            if method in route.methods or (method == "HEAD" and "GET" in route.methods):
                return route, match.groupdict(), route.methods
            allowed += route.methods
        if "GET" in allowed:
            allowed.append("HEAD")
        return None, {}, (*sorted(set(allowed)), "OPTIONS") if allowed else ()


def split_target(target: str, root_path: str) -> tuple[str, dict[str, str]]:
    """Request target → (decoded path without the proxy's prefix, query). Raises UserError 400 on what no honest client sends."""
    absolute = _ABSOLUTE.match(target)
    raw_path, _, raw_query = target[absolute.end() if absolute else 0 :].partition("?")
    raw_path = raw_path or "/"  # RFC 9110 section 4.2.3
    decoded = unquote_to_bytes(raw_path)
    try:
        path = decoded.decode()
    except UnicodeDecodeError:
        raise UserError(400, "bad_request", "the path is not UTF-8") from None
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise UserError(400, "bad_request", "the path holds control characters")
    if any(segment in (".", "..") for segment in path.split("/")):
        raise UserError(400, "bad_request", "the path holds . or .. segments")
    if root_path and (path == root_path or path.startswith(root_path + "/")):
        path = path[len(root_path) :] or "/"
    query: dict[str, str] = {}
    for pair in raw_query.split("&"):
        name, _, value = pair.partition("=")
        if name:
            query[unquote_to_bytes(name.replace("+", " ")).decode(errors="replace")] = unquote_to_bytes(
                value.replace("+", " ")
            ).decode(errors="replace")
    return path, query
