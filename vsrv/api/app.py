"""App: request → route → key → handler → answer, counted and logged. The only object that the HTTP server calls."""

from __future__ import annotations

import asyncio
import time

from vsrv.api.admin import Admin
from vsrv.api.dialect_routes import DialectRoutes
from vsrv.api.dialects import Generating
from vsrv.api.embeddings import Embedding
from vsrv.api.intake import Intake, Trace
from vsrv.api.parts import ApiOptions, Parts
from vsrv.api.refusals import error_response
from vsrv.api.schema import ModelFacts
from vsrv.api.sse import Stream
from vsrv.errors import UserError
from vsrv.http.route import AuthClass, Route, Router
from vsrv.http.values import Request, Response, StreamingResponse
from vsrv.metrics import Metrics


class App:
    """Serves requests of one model. Exceptions other than UserError are the HTTP server's to answer."""

    def __init__(self, parts: Parts, options: ApiOptions) -> None:
        self._parts = parts
        self._options = options
        self._intake = Intake(parts, options)
        admin = Admin(parts, options, self._intake, lambda: self.routes)
        self._scrape_router = Router((admin.scrape,))
        generating, others = Generating(parts, options, self._intake), DialectRoutes(self._intake)
        groups = (admin, generating, others, Embedding(self._intake))
        self._router = Router(tuple(route for group in groups for route in group.routes()))
        self._watch: asyncio.Task[None] | None = None

    @property
    def facts(self) -> ModelFacts:
        return self._parts.facts

    @property
    def metrics(self) -> Metrics:
        return self._parts.metrics

    def watch_keys(self) -> None:
        """From now on take changes of the key file over when they come; ends with the event loop."""
        self._watch = asyncio.get_running_loop().create_task(self._parts.keys.watch())
        self._watch.add_done_callback(self._watch_ended)

    def _watch_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._parts.log.event("error", f"the key file is not watched any more: {task.exception()!r}")

    def reload(self) -> bool:
        """Take a changed key file over, on SIGHUP for instance; with an unusable one the old keys stay and the log says why."""
        return self._parts.keys.reload()

    @property
    def routes(self) -> tuple[Route, ...]:
        return self._router.routes

    async def scrape(self, request: Request) -> Response | StreamingResponse:
        """The app of --metrics-port: /metrics and nothing else."""
        return await self._answer(request, self._scrape_router)

    async def __call__(self, request: Request) -> Response | StreamingResponse:
        return await self._answer(request, self._router)

    async def _answer(self, request: Request, router: Router) -> Response | StreamingResponse:
        cors = self._parts.cors
        if request.method == "OPTIONS" and request.headers.get("access-control-request-method"):
            return cors.preflight(request)
        trace = Trace(request, time.monotonic())
        extra = cors.headers_for(request)
        try:
            response = await self._route(request, trace, router)
        except UserError as error:
            trace.error = error.code
            if error.status == 503 and trace.lease is not None:
                trace.lease.refund()
            response = error_response(error, request.id, request.path)
        except BaseException as error:
            # a fault is answered with 500 by the server; otherwise the client has gone
            self._finish(trace, 500 if isinstance(error, Exception) else 499, 0)
            raise
        response.headers.extend(extra)
        response.headers.extend(self._parts.limiter.headers(trace.caller))
        if isinstance(response, Response):
            self._finish(trace, response.status, len(response.body))
            return response
        return StreamingResponse(
            response.status,
            response.headers,
            Stream(response.chunks, lambda sent: self._finish(trace, 200, sent)),
        )

    async def _route(self, request: Request, trace: Trace, router: Router) -> Response | StreamingResponse:
        if request.method == "OPTIONS" and request.path in (
            "*",
            "/",
        ):  # of the server; load balancers probe with it
            return Response(204, [("allow", "GET, HEAD, POST, OPTIONS")])
        route, placeholders, allowed = router.find(request.method, request.path)
        if route is None:
            # without a key, nobody learns which paths exist
            trace.caller = await self._parts.keys.identify(
                request.headers, AuthClass.INFERENCE, request.certificate
            )
            if allowed and request.method == "OPTIONS":
                return Response(204, [("allow", ", ".join(allowed))])
            if allowed:
                methods = ", ".join(allowed)
                error = UserError(405, "method_not_allowed", f"use {methods} for {request.path[:100]}")
                trace.error = error.code
                response = error_response(error, request.id, request.path)
                response.headers.append(("allow", methods))
                return response
            raise UserError(404, "not_found", f"no such path: {request.path[:200]}")
        trace.route = route.pattern
        trace.caller = await self._parts.keys.identify(request.headers, route.auth, request.certificate)
        self._intake.traces[request] = trace
        try:
            return await route.call(request, placeholders)
        finally:
            self._intake.traces.pop(request, None)

    def _finish(self, trace: Trace, status: int, bytes_out: int) -> None:
        """Give back what the request held, then count and log it."""
        trace.release()
        generation = trace.generation
        record = trace.record(status, bytes_out, self._prompt_shown(trace))
        self._parts.metrics.request_finished(record)
        if generation is not None:
            self._parts.metrics.generation_finished(record, generation.times)
        if self._options.log_requests and trace.request.path not in self._options.quiet_paths:
            self._parts.log.request(record)

    def _prompt_shown(self, trace: Trace) -> str:
        """The beginning of the prompt, where the operator asked for it."""
        most = self._options.logged_prompt_characters
        if not most or trace.generation is None:
            return ""
        # no token is shorter than a character by much
        ids = trace.generation.prepared.prompts[0][:most].tolist()
        return self._parts.tokenizer.decode(ids, skip_special_tokens=False)[:most]
