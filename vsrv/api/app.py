"""App: route → key → body → generation → answer. The only object that the HTTP server calls."""

from __future__ import annotations

import time
from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

import orjson

import vsrv
from vsrv.api.auth import Keys, Tenant
from vsrv.api.chat import ChatAnswer, ChatStyle
from vsrv.api.completions import CompletionAnswer
from vsrv.api.cors import Cors
from vsrv.api.generation import Admission, Generation
from vsrv.api.prepare import Prepared
from vsrv.api.rendering import AnswerIds, TokenTexts, error_object, error_response, json_response
from vsrv.api.schema import Fields, ModelFacts, check_model, parse_object, token_id
from vsrv.api.sse import DONE, HEADERS, Stream, event, with_keep_alive
from vsrv.engine_client import EngineClient
from vsrv.errors import EngineError, UserError
from vsrv.http.route import AuthClass, Route, Router
from vsrv.http.values import Request, Response, StreamingResponse
from vsrv.log import Log, RequestRecord
from vsrv.metrics import Metrics
from vsrv.text.tokenizer import Tokenizer


class Prepares(Protocol):
    async def prepare(self, dialect: str, body: bytes) -> Prepared: ...


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """Server-wide choices that shape answers."""

    style: ChatStyle
    keep_alive_interval_s: float = 15.0
    tokens_as_ids: bool = False
    log_requests: bool = True
    quiet_paths: frozenset[str] = frozenset()
    metrics_enabled: bool = True
    fingerprint: str = ""
    created: int = 0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the App is made of."""

    engine: EngineClient
    prepare: Prepares
    tokenizer: Tokenizer
    facts: ModelFacts
    keys: Keys
    cors: Cors
    metrics: Metrics
    log: Log
    admission: Admission


@dataclass(slots=True)
class _Trace:
    """What is known of one request while it runs."""

    request: Request
    began: float
    route: str = "unknown"
    tenant: Tenant = field(default_factory=lambda: Tenant(""))
    generation: Generation | None = None


class App:
    """Serves requests of one model. Exceptions other than UserError are the HTTP server's to answer."""

    def __init__(self, parts: Parts, options: ApiOptions) -> None:
        self._parts = parts
        self._options = options
        self._router = Router(
            (
                Route(("GET",), "/livez", AuthClass.PROBE, self._livez),
                Route(("GET",), "/readyz", AuthClass.PROBE, self._readyz),
                Route(("GET",), "/health", AuthClass.PROBE, self._health),
                Route(("GET", "POST"), "/ping", AuthClass.PROBE, self._health),
                Route(("GET",), "/load", AuthClass.PROBE, self._load),
                Route(("GET",), "/version", AuthClass.PUBLIC, self._version),
                Route(("GET",), "/metrics", AuthClass.METRICS, self._metrics),
                Route(("GET",), "/v1/models", AuthClass.INFERENCE, self._models),
                Route(("GET",), "/v1/models/{model:path}", AuthClass.INFERENCE, self._model),
                Route(("POST",), "/v1/chat/completions", AuthClass.INFERENCE, self._chat),
                Route(("POST",), "/v1/completions", AuthClass.INFERENCE, self._completions),
                Route(("POST",), "/tokenize", AuthClass.INFERENCE, self._tokenize),
                Route(("POST",), "/detokenize", AuthClass.INFERENCE, self._detokenize),
            )
        )
        self._traces: dict[str, _Trace] = {}

    @property
    def facts(self) -> ModelFacts:
        return self._parts.facts

    @property
    def routes(self) -> tuple[Route, ...]:
        return self._router.routes

    async def __call__(self, request: Request) -> Response | StreamingResponse:
        cors = self._parts.cors
        if request.method == "OPTIONS" and request.headers.get("access-control-request-method"):
            return cors.preflight(request)
        trace = _Trace(request, time.monotonic())
        extra = cors.headers_for(request)
        try:
            response = await self._route(request, trace)
        except UserError as error:
            response = error_response(error, request.id)
            if error.status == 405 and error.param:
                response.headers.append(("allow", error.param))
        except BaseException:
            self._finish(trace, 499)  # the client has gone, or a fault that the server answers with 500
            raise
        response.headers.extend(extra)
        if isinstance(response, Response):
            self._finish(trace, response.status)
            return response
        return StreamingResponse(
            response.status, response.headers, Stream(response.chunks, lambda: self._finish(trace, 200))
        )

    async def _route(self, request: Request, trace: _Trace) -> Response | StreamingResponse:
        if request.method == "OPTIONS" and request.path in (
            "*",
            "/",
        ):  # of the server; load balancers probe with it
            return Response(204, [("allow", "GET, HEAD, POST, OPTIONS")])
        route, placeholders, allowed = self._router.find(request.method, request.path)
        if route is None:
            # without a key, nobody learns which paths exist
            self._parts.keys.identify(request.headers, AuthClass.INFERENCE)
            if allowed and request.method == "OPTIONS":
                return Response(204, [("allow", ", ".join(allowed))])
            if allowed:
                methods = ", ".join(allowed)
                response = error_response(
                    UserError(405, "method_not_allowed", f"use {methods} for {request.path[:100]}"),
                    request.id,
                )
                response.headers.append(("allow", methods))
                return response
            raise UserError(404, "not_found", f"no such path: {request.path[:200]}")
        trace.route = route.pattern
        trace.tenant = self._parts.keys.identify(request.headers, route.auth)
        self._traces[request.id] = trace
        try:
            return await route.call(request, placeholders)
        finally:
            self._traces.pop(request.id, None)

    def _finish(self, trace: _Trace, status: int) -> None:
        generation, request = trace.generation, trace.request
        usage = None if generation is None else generation.usage
        if generation is not None:
            generation.close()
        record = RequestRecord(
            request_id=request.id,
            key_id=trace.tenant.id,
            method=request.method,
            path=request.raw_target[:200],
            status=status,
            client=request.client,
            total_s=time.monotonic() - trace.began,
            prompt_tokens=0 if usage is None else usage.prompt_tokens,
            completion_tokens=0 if usage is None else usage.completion_tokens,
            cached_tokens=0 if usage is None else usage.cached_tokens,
            max_tokens=0 if generation is None else generation.request.params.max_tokens,
            n=1 if generation is None else generation.request.n,
            ttft_s=None if generation is None else generation.ttft_s,
            finish_reason="" if generation is None else ",".join(generation.finish_reasons) or "abort",
        )
        self._parts.metrics.request_finished(record, trace.route)
        if self._options.log_requests and request.path not in self._options.quiet_paths:
            self._parts.log.request(record)

    # probes and facts

    async def _livez(self, request: Request, placeholders: dict[str, str]) -> Response:
        return Response(200, [("content-type", "text/plain")], b"ok\n")

    async def _readyz(self, request: Request, placeholders: dict[str, str]) -> Response:
        return health_response(self._parts.engine)

    async def _health(self, request: Request, placeholders: dict[str, str]) -> Response:
        return health_response(self._parts.engine)

    async def _load(self, request: Request, placeholders: dict[str, str]) -> Response:
        return json_response({"server_load": self._parts.engine.num_streams})

    async def _version(self, request: Request, placeholders: dict[str, str]) -> Response:
        return json_response({"version": vsrv.__version__})

    async def _metrics(self, request: Request, placeholders: dict[str, str]) -> Response:
        if not self._options.metrics_enabled:
            raise UserError(404, "not_found", "metrics are switched off (--disable-log-stats)")
        self._parts.metrics.beat, self._parts.metrics.ready = (
            self._parts.engine.beat,
            self._parts.engine.ready,
        )
        body, content_type = self._parts.metrics.exposition(request.headers.get("accept") or "")
        return Response(200, [("content-type", content_type)], body)

    async def _models(self, request: Request, placeholders: dict[str, str]) -> Response:
        self._require_ready()
        return json_response(
            {"object": "list", "data": [self._card(name) for name in self._parts.facts.served_names]}
        )

    async def _model(self, request: Request, placeholders: dict[str, str]) -> Response:
        self._require_ready()
        check_model(Fields({"model": placeholders["model"]}), self._parts.facts)
        return json_response(self._card(placeholders["model"]))

    def _card(self, name: str) -> dict[str, object]:
        return {
            "id": name,
            "object": "model",
            "created": self._options.created,
            "owned_by": "vsrv",
            "root": self._parts.facts.served_names[0],
            "parent": None,
            "max_model_len": self._parts.facts.max_model_len,
        }

    # generation

    async def _chat(self, request: Request, placeholders: dict[str, str]) -> Response | StreamingResponse:
        return await self._generate(request, "chat")

    async def _completions(
        self, request: Request, placeholders: dict[str, str]
    ) -> Response | StreamingResponse:
        return await self._generate(request, "completions")

    async def _generate(self, request: Request, dialect: str) -> Response | StreamingResponse:
        parts, options = self._parts, self._options
        trace = self._traces[request.id]
        prepared = await self._prepare(request, dialect)
        wanted = prepared.request
        assert wanted is not None
        if wanted.unknown:
            parts.log.event("debug", "unknown request fields", fields=wanted.unknown, request_id=request.id)
        salt = parts.keys.cache_salt(trace.tenant, wanted.cache_salt)
        generation = Generation(
            parts.engine, parts.tokenizer, parts.metrics, parts.admission, prepared, salt, trace.began
        )
        trace.generation = generation
        generation.submit()
        prefix = "chatcmpl" if dialect == "chat" else "cmpl"
        own_id = request.id if request.headers.get("x-request-id") else wanted.request_id or request.id
        ids = AnswerIds.make(prefix, own_id, wanted.model, options.fingerprint)
        texts = TokenTexts(parts.tokenizer, wanted.tokens_as_ids or options.tokens_as_ids)
        answer: ChatAnswer | CompletionAnswer
        if dialect == "chat":
            answer = ChatAnswer(generation, ids, texts, options.style)
        else:
            answer = CompletionAnswer(generation, ids, texts, options.style)
        if wanted.stream:
            chunks = with_keep_alive(self._told(answer.stream(), request.id), options.keep_alive_interval_s)
            return StreamingResponse(200, list(HEADERS), chunks)
        try:
            return json_response(await answer.whole())
        except EngineError as error:
            raise engine_fault(error) from None

    async def _told(self, chunks: AsyncIterator[bytes], request_id: str) -> AsyncIterator[bytes]:
        """The 200 is out: a failure becomes an error event and [DONE] instead of a broken stream."""
        try:
            async for chunk in chunks:
                yield chunk
        except EngineError as error:
            yield event(error_object(engine_fault(error)))
            yield DONE
        except Exception as error:  # the seam of a stream's life: logged, told in fixed words
            self._parts.log.event("error", f"request {request_id} failed: {error!r}")
            fault = UserError(
                500, "internal_error", f"internal error; the log has it under request {request_id}"
            )
            yield event(error_object(fault))
            yield DONE

    async def _tokenize(self, request: Request, placeholders: dict[str, str]) -> Response:
        prepared = await self._prepare(request, "tokenize")
        ids = prepared.prompts[0].tolist()
        answer = {
            "count": len(ids),
            "max_model_len": self._parts.facts.max_model_len,
            "tokens": ids,
            "token_strs": prepared.prompt_texts or None,
        }
        return json_response(answer)

    async def _detokenize(self, request: Request, placeholders: dict[str, str]) -> Response:
        self._require_ready()
        fields = Fields(parse_object(await self._json_body(request, 1 << 20)))
        facts = self._parts.facts
        check_model(fields, facts)
        tokens = fields.raw("tokens")
        if not isinstance(tokens, list) or len(tokens) > 4 * facts.max_model_len:
            raise UserError(
                400,
                "invalid_value",
                f"tokens: expected at most {4 * facts.max_model_len} token ids",
                "tokens",
            )
        ids = array("I", [token_id(token, "tokens", facts.vocab_size) for token in tokens])
        return json_response(
            {"prompt": self._parts.tokenizer.decode(ids.tolist(), skip_special_tokens=False)}
        )

    async def _prepare(self, request: Request, dialect: str) -> Prepared:
        self._require_ready()
        return await self._parts.prepare.prepare(dialect, await self._json_body(request, None))

    async def _json_body(self, request: Request, limit: int | None) -> bytes:
        kind = (request.headers.get("content-type") or "application/json").split(";")[0].strip().lower()
        if kind != "application/json":
            raise UserError(
                415, "unsupported_media_type", f"send Content-Type: application/json, not {kind[:60]}"
            )
        body = await request.body(limit)
        if not body:
            raise UserError(400, "invalid_json", "the body is empty; expected a JSON object")
        return body

    def _require_ready(self) -> None:
        health = self._parts.engine.health()
        if health.state == "loading":
            raise loading_error(health.phase, health.fraction, health.elapsed_s)
        if health.state == "restarting":
            raise UserError(503, "engine_restarting", health.reason, None, 2.0)
        if health.state in ("dead", "draining"):
            raise UserError(503, f"server_{health.state}", health.reason, None, 5.0)


def loading_error(phase: str, fraction: float, elapsed_s: float) -> UserError:
    done = f", {fraction:.0%} done" if fraction else ""
    return UserError(
        503,
        "model_loading",
        f"the model is loading ({phase}{done}, {elapsed_s:.0f} s so far); try again soon",
        None,
        2.0,
    )


def engine_fault(error: EngineError) -> UserError:
    """An engine's failure as a client may see it: codes of the request's own faults are 400, the rest 500 or 503."""
    if error.code in ("context_length_exceeded", "invalid_token_id", "empty_prompt"):
        return UserError(400, error.code, error.message)
    return UserError(
        503 if error.retry_after_s else 500, error.code, error.message, None, error.retry_after_s
    )


def health_response(engine: EngineClient) -> Response:
    """200 with an empty body as vLLM answers, or 503 with the reason."""
    health = engine.health()
    if health.state == "ready":
        return Response(200, [("content-type", "application/json")], b"")
    body = orjson.dumps(
        {"status": health.state, "reason": health.reason, "phase": health.phase, "fraction": health.fraction}
    )
    return Response(503, [("content-type", "application/json"), ("retry-after", "2")], body)
