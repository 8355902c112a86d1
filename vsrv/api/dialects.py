"""Routes that generate: path → dialect of the body → class of the answer, and the handling that they share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from vsrv.api.beam_search import BeamGeneration
from vsrv.api.chat import ChatAnswer, ChatStyle
from vsrv.api.completions import CompletionAnswer
from vsrv.api.generation import Generation, Services, Terms
from vsrv.api.intake import ErrorBody, Intake, engine_fault
from vsrv.api.parts import ApiOptions, Parts
from vsrv.api.rendering import AnswerIds, TokenTexts, error_object, error_response, json_response
from vsrv.api.sse import DONE, HEADERS, event, with_keep_alive
from vsrv.errors import EngineError, UserError
from vsrv.http.route import AuthClass, Handler, Route
from vsrv.http.values import Request, Response, StreamingResponse


class Answer(Protocol):
    """Renders the parts of one generation; exactly one of the two is asked for, once."""

    async def whole(self) -> dict[str, Any]: ...

    def stream(self) -> AsyncIterator[bytes]: ...


def stream_error(error: UserError) -> bytes:
    """How an OpenAI stream that has begun tells a failure, and ends."""
    return event(error_object(error)) + DONE


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to ask for a generation. `name` is what the prepare step calls the body, `prefix` begins the answer's id.

    `error_body` answers a refusal before the first byte, `stream_error` is what ends a stream that fails later.
    """

    path: str
    name: str
    prefix: str
    answer: Callable[[Generation, AnswerIds, TokenTexts, ChatStyle], Answer]
    error_body: ErrorBody = error_response
    stream_error: Callable[[UserError], bytes] = stream_error


DIALECTS = (
    Dialect("/v1/chat/completions", "chat", "chatcmpl-", ChatAnswer),
    Dialect("/v1/completions", "completions", "cmpl-", CompletionAnswer),
)


class Generating:
    """The handlers of all dialects."""

    def __init__(self, parts: Parts, options: ApiOptions, intake: Intake) -> None:
        self._parts = parts
        self._options = options
        self._intake = intake

    def routes(self) -> tuple[Route, ...]:
        return tuple(
            Route(("POST",), dialect.path, AuthClass.INFERENCE, self._handler(dialect))
            for dialect in DIALECTS
        )

    def _handler(self, dialect: Dialect) -> Handler:
        async def handle(request: Request, placeholders: dict[str, str]) -> Response | StreamingResponse:
            return await self._generate(request, dialect)

        return handle

    async def _generate(self, request: Request, dialect: Dialect) -> Response | StreamingResponse:
        options, trace = self._options, self._intake.traces[request]
        generation = await self._begun(request, dialect)
        wanted = generation.request
        if trace.hold is not None:
            trace.hold.close()
        own_id = request.id if request.headers.get("x-request-id") else wanted.request_id or request.id
        ids = AnswerIds.make(dialect.prefix, own_id, wanted.model, options.fingerprint)
        texts = TokenTexts(self._parts.tokenizer, wanted.tokens_as_ids or options.tokens_as_ids)
        answer = dialect.answer(generation, ids, texts, options.style)
        if wanted.stream:
            told = self._told(answer.stream(), dialect, request.id)
            return StreamingResponse(200, list(HEADERS), with_keep_alive(told, options.keep_alive_interval_s))
        try:
            return json_response(await answer.whole())
        except EngineError as error:
            raise engine_fault(error, request.id) from None

    async def _begun(self, request: Request, dialect: Dialect) -> Generation:
        """The request's generation, which has its place in the queue. Raises UserError."""
        parts, trace = self._parts, self._intake.traces[request]
        deadline = self._intake.deadline(request)
        lease = self._intake.lease(request)
        prepared = await self._intake.prepare(request, dialect.name)
        wanted = prepared.request
        assert wanted is not None
        if wanted.unknown:
            parts.log.event("debug", "unknown request fields", fields=wanted.unknown, request_id=request.id)
        salt = parts.keys.cache_salt(trace.caller, wanted.cache_salt)
        services = Services(parts.engine, parts.tokenizer, parts.metrics, parts.admission)
        terms = Terms(trace.caller, lease, salt, trace.began, deadline)
        life = BeamGeneration if wanted.beam_search else Generation
        trace.generation = generation = life(services, prepared, terms)
        # A stream that has to wait long gets its head and comments, so that no proxy gives up; until then a refusal has its own status.
        patience_s = self._options.keep_alive_interval_s if wanted.stream else 0.0
        try:
            await generation.start(patience_s or None)
        except EngineError as error:
            raise engine_fault(error, request.id) from None
        return generation

    async def _told(
        self, chunks: AsyncIterator[bytes], dialect: Dialect, request_id: str
    ) -> AsyncIterator[bytes]:
        """The 200 is out: a failure becomes an error event and the stream's end instead of a broken stream."""
        try:
            async for chunk in chunks:
                yield chunk
        except EngineError as error:
            yield dialect.stream_error(engine_fault(error, request_id))
        except UserError as error:
            yield dialect.stream_error(error)
        except Exception as error:  # the seam of a stream's life: logged, told in fixed words
            self._parts.log.event("error", f"request {request_id} failed: {error!r}")
            message = f"internal error; the log has it under request {request_id}"
            yield dialect.stream_error(UserError(500, "internal_error", message))
