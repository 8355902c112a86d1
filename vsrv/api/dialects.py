"""Routes that generate: path → dialect of the body → class of the answer, and the handling that they share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from vsrv.api.beam_search import BeamGeneration
from vsrv.api.chat import ChatAnswer
from vsrv.api.chunks import ChatStyle
from vsrv.api.completions import CompletionAnswer
from vsrv.api.dialect_fields import MESSAGES, RESPONSES
from vsrv.api.generation import Generation
from vsrv.api.intake import Intake, engine_fault
from vsrv.api.messages_anthropic import PING, MessagesAnswer
from vsrv.api.parts import ApiOptions, Parts
from vsrv.api.rendering import AnswerIds, TokenTexts, json_response
from vsrv.api.responses import ResponsesAnswer
from vsrv.api.sse import COMMENT, HEADERS, with_keep_alive
from vsrv.errors import EngineError, UserError
from vsrv.http.route import AuthClass, Handler, Route
from vsrv.http.values import Request, Response, StreamingResponse


class Answer(Protocol):
    """Renders the parts of one generation; either the whole or the stream is asked for, once."""

    async def whole(self) -> dict[str, Any]: ...

    def stream(self) -> AsyncIterator[bytes]: ...

    def failed(self, error: UserError, request_id: str) -> bytes:
        """What ends a stream that has begun and cannot go on."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to ask for a generation. `name` is what the prepare step calls the body, `prefix` begins the answer's id.

    `sign` is sent while a stream has nothing to say; `id_header` is another name under which the answer has the request's id.
    """

    path: str
    name: str
    prefix: str
    answer: Callable[[Generation, AnswerIds, TokenTexts, ChatStyle], Answer]
    sign: bytes = COMMENT
    id_header: str = ""


DIALECTS = (
    Dialect("/v1/chat/completions", "chat", "chatcmpl-", ChatAnswer),
    Dialect("/v1/completions", "completions", "cmpl-", CompletionAnswer),
    Dialect("/v1/messages", MESSAGES, "msg_", MessagesAnswer, PING, "request-id"),
    Dialect("/v1/responses", RESPONSES, "resp_", ResponsesAnswer),
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
        ids = self._intake.answer_ids(request, dialect.prefix, generation.prepared)
        texts = TokenTexts(self._parts.tokenizer, wanted.tokens_as_ids or options.tokens_as_ids)
        answer = dialect.answer(generation, ids, texts, options.style)
        headers = [(dialect.id_header, request.id)] if dialect.id_header else []
        if wanted.stream:
            chunks = with_keep_alive(
                self._told(answer, request.id), options.keep_alive_interval_s, dialect.sign
            )
            return StreamingResponse(200, [*HEADERS, *headers], chunks)
        try:
            return json_response(await answer.whole(), headers=headers)
        except EngineError as error:
            raise engine_fault(error, request.id) from None

    async def _begun(self, request: Request, dialect: Dialect) -> Generation:
        """The request's generation, which has its place in the queue. Raises UserError."""
        prepared, terms = await self._intake.take(request, dialect.name)
        assert prepared.request is not None
        life = BeamGeneration if prepared.request.beam_search else Generation
        generation = life(self._intake.services, prepared, terms)
        self._intake.traces[request].generation = generation
        # A stream that has to wait long gets its head and comments, so that no proxy gives up; until then a refusal has its own status.
        patience_s = self._options.keep_alive_interval_s if prepared.request.stream else 0.0
        try:
            await generation.start(patience_s or None)
        except EngineError as error:
            raise engine_fault(error, request.id) from None
        return generation

    async def _told(self, answer: Answer, request_id: str) -> AsyncIterator[bytes]:
        """The 200 is out: a failure becomes an error event and the stream's end instead of a broken stream."""
        try:
            async for chunk in answer.stream():
                yield chunk
        except EngineError as error:
            yield answer.failed(engine_fault(error, request_id), request_id)
        except UserError as error:
            yield answer.failed(error, request_id)
        except Exception as error:  # the seam of a stream's life: logged, told in fixed words
            self._parts.log.event("error", f"request {request_id} failed: {error!r}")
            message = f"internal error; the log has it under request {request_id}"
            yield answer.failed(UserError(500, "internal_error", message), request_id)
