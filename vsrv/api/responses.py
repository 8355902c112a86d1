"""/v1/responses: one generation → OpenAI's response object, whole or as named events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from vsrv.api.chunks import ChatStyle
from vsrv.api.generation import Generation
from vsrv.api.life import Usage
from vsrv.api.rendering import AnswerIds, TokenTexts
from vsrv.api.responses_events import Event, ResponseEvents
from vsrv.api.sse import named_event
from vsrv.errors import EngineError, UserError

# Of the request, repeated in the answer as it was understood.
_REPEATED = (
    "instructions max_output_tokens max_tool_calls metadata parallel_tool_calls prompt_cache_key reasoning safety_identifier text "
    "tool_choice tools top_logprobs truncation user"
).split()


def usage_object(usage: Usage, with_cached: bool) -> dict[str, Any]:
    cached = usage.cached_tokens if with_cached else 0
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


class ResponsesAnswer:
    """Renders one request of /v1/responses."""

    def __init__(self, generation: Generation, ids: AnswerIds, texts: TokenTexts, style: ChatStyle) -> None:
        self._generation = generation
        self._with_cached = style.cached_tokens
        request, told = generation.request, generation.prepared.told
        self._with_logprobs = request.logprobs is not None
        self._reader = texts.reader(request.skip_special_tokens, generation.prepared.prompts[0][-1])
        base = {
            "id": ids.id,
            "object": "response",
            "created_at": ids.created,
            "status": "in_progress",
            "background": False,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": ids.model,
            "output": [],
            "previous_response_id": None,
            "service_tier": "default",
            "store": False,
            "temperature": request.params.temperature,
            "top_p": request.params.top_p,
            "usage": None,
            **{name: told[name] for name in _REPEATED},
        }
        self._events = ResponseEvents(base, told, ids.id.partition("_")[2])

    async def whole(self) -> dict[str, Any]:
        """The response that the last event carries."""
        last: Event = {}
        async for event in self._all():
            last = event
        response: dict[str, Any] = last["response"]
        return response

    async def stream(self) -> AsyncIterator[bytes]:
        async for event in self._all():
            yield named_event(event["type"], event)

    def failed(self, error: UserError, request_id: str) -> bytes:
        """What ends a stream that has begun; the code of the error, which the field has no value for, is in its message."""
        event = self._events.failed(error)
        return named_event(event["type"], event)

    async def _all(self) -> AsyncIterator[Event]:
        for event in self._events.begin():
            yield event
        last = None
        async for part in self._generation.parts():
            last = part
            rows = self._reader.chat_rows(part.logprobs) if self._with_logprobs else []
            for event in self._events.feed(part, rows):
                yield event
        if last is None:
            raise EngineError("engine_error", "the answer has no end")
        usage = usage_object(self._generation.usage, self._with_cached)
        for event in self._events.end(last, usage):
            yield event
