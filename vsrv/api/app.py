"""App: route → key → body → generation → answer. The only object that the HTTP server calls."""

from __future__ import annotations

import asyncio
import math
import re
import time
from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import orjson

import vsrv
from vsrv.api.admission import Admission, Hold
from vsrv.api.auth import ANYBODY, Caller, Keys
from vsrv.api.chat import ChatAnswer, ChatStyle
from vsrv.api.completions import CompletionAnswer
from vsrv.api.cors import Cors
from vsrv.api.generation import Generation, Services, Terms
from vsrv.api.limits import Lease, RateLimiter
from vsrv.api.prepare import Prepared
from vsrv.api.rendering import AnswerIds, TokenTexts, error_object, error_response, json_response
from vsrv.api.schema import Fields, ModelFacts, check_model, parse_object, token_id
from vsrv.api.sse import DONE, HEADERS, Stream, event, with_keep_alive
from vsrv.engine_client import EngineClient
from vsrv.errors import EngineError, UserError
from vsrv.http.route import AuthClass, Route, Router
from vsrv.http.values import Request, Response, StreamingResponse
from vsrv.log import Log, RequestRecord
from vsrv.metrics import Metrics, QueueState
from vsrv.text.tokenizer import Tokenizer

_LONGEST_TIMEOUT_S = 86400
_CHUNKED_BYTES = 4 << 20  # what a body of unknown length counts as until it has been read
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_ENGINE_CODES = {
    "context_length_exceeded": 400,
    "invalid_token_id": 400,
    "empty_prompt": 400,
    "request_timeout": 504,
    "model_loading": 503,
    "engine_dead": 503,
    "engine_stalled": 503,
    "engine_restarting": 503,
    "server_shutdown": 503,
    "engine_error": 500,
}


class Prepares(Protocol):
    async def prepare(self, dialect: str, body: bytes | bytearray) -> Prepared: ...


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """Server-wide choices that shape answers."""

    style: ChatStyle
    keep_alive_interval_s: float = 15.0
    tokens_as_ids: bool = False
    log_requests: bool = True
    quiet_paths: frozenset[str] = frozenset()
    metrics_enabled: bool = True
    metrics_on_own_port: bool = False
    request_timeout_s: float = 0.0  # 0 = none
    logged_prompt_characters: int = 0  # prompts are logged only where somebody asked for it
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
    limiter: RateLimiter = field(default_factory=RateLimiter)


@dataclass(slots=True)
class _Trace:
    """What is known of one request while it runs."""

    request: Request
    began: float
    route: str = "unknown"
    caller: Caller = ANYBODY
    lease: Lease | None = None
    hold: Hold | None = None
    generation: Generation | None = None
    bytes_in: int = 0
    error: str = ""


class App:
    """Serves requests of one model. Exceptions other than UserError are the HTTP server's to answer."""

    def __init__(self, parts: Parts, options: ApiOptions) -> None:
        self._parts = parts
        self._options = options
        scrape = Route(("GET",), "/metrics", AuthClass.METRICS, self._metrics)
        self._scrape_router = Router((scrape,))
        self._router = Router(
            (
                Route(("GET",), "/livez", AuthClass.PROBE, self._livez),
                Route(("GET",), "/readyz", AuthClass.PROBE, self._readyz),
                Route(("GET",), "/health", AuthClass.PROBE, self._health),
                Route(("GET", "POST"), "/ping", AuthClass.PROBE, self._health),
                Route(("GET",), "/load", AuthClass.PROBE, self._load),
                Route(("GET",), "/version", AuthClass.PUBLIC, self._version),
                *(() if options.metrics_on_own_port else (scrape,)),
                Route(("GET",), "/v1/models", AuthClass.INFERENCE, self._models),
                Route(("GET",), "/v1/models/{model:path}", AuthClass.INFERENCE, self._model),
                Route(("POST",), "/v1/chat/completions", AuthClass.INFERENCE, self._chat),
                Route(("POST",), "/v1/completions", AuthClass.INFERENCE, self._completions),
                Route(("POST",), "/tokenize", AuthClass.INFERENCE, self._tokenize),
                Route(("POST",), "/detokenize", AuthClass.INFERENCE, self._detokenize),
            )
        )
        self._traces: dict[
            Request, _Trace
        ] = {}  # not by id: a client chooses that, and another may choose the same
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
        trace = _Trace(request, time.monotonic())
        extra = cors.headers_for(request)
        try:
            response = await self._route(request, trace, router)
        except UserError as error:
            trace.error = error.code
            response = error_response(error, request.id)
            if error.status == 405 and error.param:
                response.headers.append(("allow", error.param))
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

    async def _route(self, request: Request, trace: _Trace, router: Router) -> Response | StreamingResponse:
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
                response = error_response(
                    UserError(405, "method_not_allowed", f"use {methods} for {request.path[:100]}"),
                    request.id,
                )
                response.headers.append(("allow", methods))
                return response
            raise UserError(404, "not_found", f"no such path: {request.path[:200]}")
        trace.route = route.pattern
        trace.caller = await self._parts.keys.identify(request.headers, route.auth, request.certificate)
        self._traces[request] = trace
        try:
            return await route.call(request, placeholders)
        finally:
            self._traces.pop(request, None)

    def _finish(self, trace: _Trace, status: int, bytes_out: int) -> None:
        """Give back what the request held, then count and log it."""
        generation, request = trace.generation, trace.request
        if generation is not None:
            generation.close()
        for held in (trace.lease, trace.hold):
            if held is not None:
                held.close()
        record = self._record(trace, status, bytes_out)
        self._parts.metrics.request_finished(record)
        if generation is not None:
            self._parts.metrics.generation_finished(record, generation.times)
        if self._options.log_requests and request.path not in self._options.quiet_paths:
            self._parts.log.request(record)

    def _record(self, trace: _Trace, status: int, bytes_out: int) -> RequestRecord:
        request, caller, generation = trace.request, trace.caller, trace.generation
        record = RequestRecord(
            request_id=request.id,
            key_id=caller.key_id,
            tenant=caller.tenant,
            method=request.method,
            path=request.raw_target[:200],
            route=trace.route,
            status=status,
            client=request.client,
            total_s=time.monotonic() - trace.began,
            error=trace.error,
            bytes_in=trace.bytes_in,
            bytes_out=bytes_out,
            traceparent=traceparent(request.headers.get("traceparent")),
        )
        if generation is None:
            return record
        usage, reasons = generation.usage, ",".join(generation.finish_reasons)
        return replace(
            record,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            max_tokens=max(generation.prepared.limits),
            n=generation.request.n,
            queue_s=generation.queue_s,
            ttft_s=generation.ttft_s,
            finish_reason=reasons or ("abort" if generation.failure == "disconnect" else "error"),
            error=trace.error or generation.failure,
            prompt=self._prompt_shown(generation),
        )

    def _prompt_shown(self, generation: Generation) -> str:
        """The beginning of the prompt, where the operator asked for it."""
        most = self._options.logged_prompt_characters
        if not most:
            return ""
        ids = generation.prepared.prompts[0][:most].tolist()  # no token is shorter than a character by much
        return self._parts.tokenizer.decode(ids, skip_special_tokens=False)[:most]

    # probes and facts

    async def _livez(self, request: Request, placeholders: dict[str, str]) -> Response:
        return Response(200, [("content-type", "text/plain")], b"ok\n")

    async def _readyz(self, request: Request, placeholders: dict[str, str]) -> Response:
        return health_response(self._parts.engine)

    async def _health(self, request: Request, placeholders: dict[str, str]) -> Response:
        return health_response(self._parts.engine)

    async def _load(self, request: Request, placeholders: dict[str, str]) -> Response:
        return json_response({"server_load": self._parts.admission.sequences})

    async def _version(self, request: Request, placeholders: dict[str, str]) -> Response:
        return json_response({"version": vsrv.__version__})

    async def _metrics(self, request: Request, placeholders: dict[str, str]) -> Response:
        if not self._options.metrics_enabled:
            raise UserError(404, "not_found", "metrics are switched off (--disable-log-stats)")
        metrics, engine, admission = self._parts.metrics, self._parts.engine, self._parts.admission
        metrics.beat, metrics.ready = engine.beat, engine.ready
        metrics.queue = QueueState(
            admission.waiting, admission.tokens, admission.bytes, admission.oldest_wait_s
        )
        body, content_type = await metrics.exposition(request.headers.get("accept") or "")
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
        trace = self._traces[request]
        deadline = self._deadline(request, trace)
        lease = trace.lease = parts.limiter.enter(trace.caller)
        prepared = await self._prepare(request, dialect)
        wanted = prepared.request
        assert wanted is not None
        if wanted.unknown:
            parts.log.event("debug", "unknown request fields", fields=wanted.unknown, request_id=request.id)
        salt = parts.keys.cache_salt(trace.caller, wanted.cache_salt)
        services = Services(parts.engine, parts.tokenizer, parts.metrics, parts.admission)
        terms = Terms(trace.caller, lease, salt, trace.began, deadline)
        generation = trace.generation = Generation(services, prepared, terms)
        # A stream that has to wait long gets its head and comments, so that no proxy gives up; until then a refusal has its own status.
        patience_s = options.keep_alive_interval_s if wanted.stream else 0.0
        try:
            await generation.start(patience_s or None)
        except EngineError as error:
            raise engine_fault(error, request.id) from None
        if trace.hold is not None:
            trace.hold.close()
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
            raise engine_fault(error, request.id) from None

    def _deadline(self, request: Request, trace: _Trace) -> float | None:
        """When the request must have ended: the server's limit, or an earlier one that the client sends in seconds."""
        limit_s, text = self._options.request_timeout_s, request.headers.get("x-request-timeout")
        if text is not None:
            try:
                wanted_s = float(text)
            except ValueError:
                wanted_s = math.nan
            if not 0 < wanted_s <= _LONGEST_TIMEOUT_S:
                message = f"X-Request-Timeout must be seconds, above 0 and at most {_LONGEST_TIMEOUT_S}"
                raise UserError(400, "invalid_value", message, "X-Request-Timeout")
            limit_s = min(wanted_s, limit_s or wanted_s)
        return trace.began + limit_s if limit_s else None

    async def _told(self, chunks: AsyncIterator[bytes], request_id: str) -> AsyncIterator[bytes]:
        """The 200 is out: a failure becomes an error event and [DONE] instead of a broken stream."""
        try:
            async for chunk in chunks:
                yield chunk
        except EngineError as error:
            yield event(error_object(engine_fault(error, request_id)))
            yield DONE
        except UserError as error:
            yield event(error_object(error))
            yield DONE
        except Exception as error:  # the seam of a stream's life: logged, told in fixed words
            self._parts.log.event("error", f"request {request_id} failed: {error!r}")
            fault = UserError(
                500, "internal_error", f"internal error; the log has it under request {request_id}"
            )
            yield event(error_object(fault))
            yield DONE

    async def _tokenize(self, request: Request, placeholders: dict[str, str]) -> Response:
        trace = self._traces[request]
        trace.lease = self._parts.limiter.enter(trace.caller)
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
        trace = self._traces[request]
        trace.lease = self._parts.limiter.enter(trace.caller)
        body = await self._json_body(request, 1 << 20)
        # half a million ids are half a second of work; not the event loop's
        text = await asyncio.get_running_loop().run_in_executor(None, self._detokenized, body)
        return json_response({"prompt": text})

    def _detokenized(self, body: bytes | bytearray) -> str:
        facts, fields = self._parts.facts, Fields(parse_object(body))
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
        return self._parts.tokenizer.decode(ids.tolist(), skip_special_tokens=False)

    async def _prepare(self, request: Request, dialect: str) -> Prepared:
        self._require_ready()
        return await self._parts.prepare.prepare(dialect, await self._json_body(request, None))

    async def _json_body(self, request: Request, limit: int | None) -> bytes | bytearray:
        kind = (request.headers.get("content-type") or "application/json").split(";")[0].strip().lower()
        if kind != "application/json":
            raise UserError(
                415, "unsupported_media_type", f"send Content-Type: application/json, not {kind[:60]}"
            )
        trace = self._traces[request]
        declared = request.headers.get("content-length")
        size = int(declared) if declared is not None else _CHUNKED_BYTES
        hold = trace.hold = self._parts.admission.hold(size)
        body = await request.body(limit)
        trace.bytes_in = len(body)
        hold.resize(len(body))
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


def engine_fault(error: EngineError, request_id: str) -> UserError:
    """An engine's failure as a client may see it. Only codes of this table are told in their own words (rule R8)."""
    status = _ENGINE_CODES.get(error.code)
    if status is None:
        return UserError(500, "internal_error", f"internal error; the log has it under request {request_id}")
    return UserError(status, error.code, error.message, None, error.retry_after_s)


def traceparent(header: str | None) -> str:
    """A W3C Trace Context header (version 00) as it came, or nothing where it is malformed."""
    match = _TRACEPARENT.fullmatch(header or "")
    return match[0] if match is not None and match[1].strip("0") and match[2].strip("0") else ""


def health_response(engine: EngineClient) -> Response:
    """200 with an empty body as vLLM answers, or 503 with the reason."""
    health = engine.health()
    if health.state == "ready":
        return Response(200, [("content-type", "application/json")], b"")
    body = orjson.dumps(
        {"status": health.state, "reason": health.reason, "phase": health.phase, "fraction": health.fraction}
    )
    return Response(503, [("content-type", "application/json"), ("retry-after", "2")], body)
