"""A request on its way in: what is known of it while it runs, its body, its deadline, and what is prepared from them."""

from __future__ import annotations

import asyncio
import math
import re
import time
from dataclasses import dataclass, replace

from vsrv.api.admission import Hold
from vsrv.api.auth import ANYBODY, Caller
from vsrv.api.generation import Generation
from vsrv.api.life import Services, Terms, timed_out
from vsrv.api.limits import Lease
from vsrv.api.parts import ApiOptions, Parts
from vsrv.api.pooling import Pooling
from vsrv.api.prepare import Prepared
from vsrv.api.rendering import AnswerIds
from vsrv.errors import EngineError, UserError
from vsrv.http.values import Request
from vsrv.log import RequestRecord

_LONGEST_TIMEOUT_S = 86400
_CHUNKED_BYTES = 1 << 16  # what a body of unknown length counts as until more of it has arrived
_PRIORITY = re.compile(r"-?[0-9]{1,10}")
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

_GENERATING = ("generate",)
_TASKS = {  # that a dialect needs one of; all others generate
    "embeddings": ("embed",),
    "rerank": ("embed", "score"),
    "score": ("embed", "score"),
    "tokenize": ("generate", "embed", "score"),
}
_OTHER_TASK = {
    "generate": "this model generates text and makes no embeddings or scores; use /v1/chat/completions or /v1/completions",
    "embed": "this is an embedding model; use /v1/embeddings, /v1/rerank or /v1/score",
    "score": "this model scores pairs of texts; use /v1/rerank or /v1/score",
}


@dataclass(slots=True)
class Trace:
    """What is known of one request while it runs."""

    request: Request
    began: float
    route: str = "unknown"
    caller: Caller = ANYBODY
    lease: Lease | None = None
    hold: Hold | None = None
    generation: Generation | Pooling | None = None
    bytes_in: int = 0
    error: str = ""

    def release(self) -> None:
        """Give back what the request holds; safe more than once."""
        for held in (self.generation, self.lease, self.hold):
            if held is not None:
                held.close()

    def record(self, status: int, bytes_out: int, prompt: str) -> RequestRecord:
        """Its line in the log. `prompt` is the beginning of the prompt where that may be shown."""
        request, caller, generation = self.request, self.caller, self.generation
        record = RequestRecord(
            request_id=request.id,
            key_id=caller.key_id,
            tenant=caller.tenant,
            method=request.method,
            path=request.raw_target[:200],
            route=self.route,
            status=status,
            client=request.client,
            total_s=time.monotonic() - self.began,
            error=self.error,
            bytes_in=self.bytes_in,
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
            max_tokens=generation.max_tokens,
            n=generation.n,
            queue_s=generation.times.queue_s,
            ttft_s=generation.ttft_s,
            finish_reason=reasons or ("abort" if generation.failure == "disconnect" else "error"),
            error=self.error or generation.failure,
            prompt=prompt,
        )


class Intake:
    """Shared by all groups of routes: the traces of running requests, and how a body becomes a prepared request."""

    def __init__(self, parts: Parts, options: ApiOptions) -> None:
        self._parts = parts
        self._options = options
        # not by id: a client chooses that, and another may choose the same
        self.traces: dict[Request, Trace] = {}
        self.services = Services(parts.engine, parts.tokenizer, parts.metrics, parts.admission)

    def lease(self, request: Request) -> Lease:
        """Count the request against its key's limits. Raises UserError 429."""
        trace = self.traces[request]
        trace.lease = lease = self._parts.limiter.enter(trace.caller)
        return lease

    async def prepare(self, request: Request, dialect: str) -> Prepared:
        """Read the body and have it checked and tokenised. Raises UserError."""
        self.require_ready()
        self.require_task(_TASKS.get(dialect, _GENERATING))
        deadline, body = self.deadline(request), await self.json_body(request, None)
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                return await self._parts.prepare.prepare(dialect, body, self.traces[request].caller.tenant)
        except TimeoutError:  # others' requests are prepared before it, one at a time
            raise engine_fault(timed_out(), request.id) from None

    async def take(self, request: Request, dialect: str) -> tuple[Prepared, Terms]:
        """A request that the engine is to work on: what it asks for, and on whose terms. Raises UserError."""
        trace = self.traces[request]
        deadline, priority = self.deadline(request), self.priority(request)
        lease = self.lease(request)
        prepared = await self.prepare(request, dialect)
        wanted = prepared.wanted
        if wanted.unknown:
            log = self._parts.log
            log.event("debug", "unknown request fields", fields=wanted.unknown, request_id=request.id)
        salt = self._parts.keys.cache_salt(trace.caller, wanted.cache_salt)
        priority = wanted.priority if priority is None else priority
        return prepared, Terms(trace.caller, lease, salt, trace.began, deadline, priority)

    def answer_ids(self, request: Request, prefix: str, prepared: Prepared) -> AnswerIds:
        """The answer's id has the request's where the client chose that by header, else the one of its body."""
        wanted = prepared.wanted
        own_id = request.id if request.headers.get("x-request-id") else wanted.request_id or request.id
        return AnswerIds.make(prefix, own_id, wanted.model, self._options.fingerprint)

    async def json_body(self, request: Request, limit: int | None) -> bytes | bytearray:
        """The body, not empty, at most `limit` bytes (None: the server's limit). Raises UserError."""
        kind = (request.headers.get("content-type") or "application/json").split(";")[0].strip().lower()
        if kind != "application/json":
            raise UserError(
                415, "unsupported_media_type", f"send Content-Type: application/json, not {kind[:60]}"
            )
        trace = self.traces[request]
        declared = request.headers.get("content-length")
        size = int(declared) if declared is not None else _CHUNKED_BYTES
        hold = trace.hold = self._parts.admission.hold(size)
        body = await request.body(limit, hold.grow)
        trace.bytes_in = len(body)
        hold.resize(len(body))
        if not body:
            raise UserError(400, "invalid_json", "the body is empty; expected a JSON object")
        return body

    def deadline(self, request: Request) -> float | None:
        """When the request must have ended: the server's limit, or an earlier one that the client sends in seconds.

        Of the monotonic clock. Raises UserError 400 on a header that makes no sense.
        """
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
        return self.traces[request].began + limit_s if limit_s else None

    def priority(self, request: Request) -> int | None:
        """X-Vllm-Priority, which wins over the body's field. Raises UserError 400."""
        text = request.headers.get("x-vllm-priority")
        if text is None:
            return None
        if not _PRIORITY.fullmatch(text) or not -(2**31) <= int(text) < 2**31:
            message = "X-Vllm-Priority must be an integer of 32 bits"
            raise UserError(400, "invalid_value", message, "X-Vllm-Priority")
        return int(text)

    def require_task(self, tasks: tuple[str, ...]) -> None:
        """Raises UserError 404 where the model does none of `tasks`: the path is right, and not of this model."""
        own = self._parts.facts.tasks
        if not set(tasks) & set(own):
            raise UserError(404, "task_not_supported", _OTHER_TASK[own[0]], "model")

    def require_ready(self) -> None:
        """Raises UserError 503 while no request can be taken."""
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
