"""Cross-origin rules: exact origins, preflight before authentication, headers also on errors and streams."""

from __future__ import annotations

from dataclasses import dataclass

from vsrv.http.values import Request, Response

_HEADERS = "authorization, content-type, x-api-key, x-request-id, anthropic-version, anthropic-beta, openai-organization, openai-project"


@dataclass(frozen=True, slots=True)
class Cors:
    """Which web pages may call. No origins: no CORS headers at all."""

    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("*",)
    headers: tuple[str, ...] = ("*",)
    credentials: bool = False

    def headers_for(self, request: Request) -> list[tuple[str, str]]:
        if not self.origins:
            return []
        origin = request.headers.get("origin")
        vary = [("vary", "Origin")]
        if origin is None:
            return vary
        if "*" in self.origins and not self.credentials:
            return [
                *vary,
                ("access-control-allow-origin", "*"),
                ("access-control-expose-headers", "x-request-id, request-id, retry-after"),
            ]
        if origin not in self.origins:
            return vary
        allowed = [
            *vary,
            ("access-control-allow-origin", origin),
            ("access-control-expose-headers", "x-request-id, request-id, retry-after"),
        ]
        return [*allowed, ("access-control-allow-credentials", "true")] if self.credentials else allowed

    def preflight(self, request: Request) -> Response:
        """Answer to OPTIONS with Origin and Access-Control-Request-Method (Fetch standard, section 3.2.2)."""
        headers = self.headers_for(request)
        if not any(name == "access-control-allow-origin" for name, _ in headers):
            return Response(403, headers)
        methods = "GET, POST, OPTIONS" if "*" in self.methods else ", ".join(self.methods)
        asked = request.headers.get("access-control-request-headers")
        names = (asked or _HEADERS) if "*" in self.headers else ", ".join(self.headers)
        return Response(
            204,
            [
                *headers,
                ("access-control-allow-methods", methods),
                ("access-control-allow-headers", names),
                ("access-control-max-age", "600"),
            ],
        )
