"""/v1/messages: parts of a generation → Anthropic's message, as events or folded from them.

Source: Anthropic's streaming reference, and the event types of its SDK.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any

import orjson

from vsrv.api.chunks import ChatStyle
from vsrv.api.generation import Generation, Part
from vsrv.api.life import Usage
from vsrv.api.refusals import anthropic_error_object
from vsrv.api.rendering import AnswerIds, TokenTexts
from vsrv.api.sse import named_event
from vsrv.api.translation import carried
from vsrv.errors import EngineError, UserError

PING = named_event("ping", {"type": "ping"})  # in silence, so that no proxy closes the stream
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def usage_object(usage: Usage, with_cached: bool) -> dict[str, Any]:
    """Input tokens are those that were not in the cache: the three input counts add up to the prompt."""
    cached = usage.cached_tokens if with_cached else 0
    return {
        "input_tokens": usage.prompt_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


class MessageEvents:
    """Parts → events, in order. One block is open at a time: thinking, text, or the call of one tool."""

    def __init__(self, message_id: str, model: str, hide_thinking: bool) -> None:
        self._id = message_id
        self._model = model
        self._hide_thinking = hide_thinking
        self._index = -1
        self._open: tuple[str, int] | None = None  # kind and, for tools, the call's number
        self._has_calls = False
        self._thought: list[str] = []  # of the open block, while thinking is not shown

    def begin(self, usage: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return {"type": "message_start", "message": message}

    def feed(self, part: Part) -> list[dict[str, Any]]:
        """What one part adds. Raises EngineError for a part that ended in none of the ways that a message can end."""
        if part.finish_reason is not None and part.finish_reason not in _STOP_REASONS:
            raise EngineError("engine_error", f"the engine ended the answer: {part.finish_reason}")
        made: list[dict[str, Any]] = []
        if part.reasoning:
            made += self._reasoning(part.reasoning)
        if part.text:
            made += self._opened(("text", 0), {"type": "text", "text": ""})
            made.append(self._delta({"type": "text_delta", "text": part.text}))
        for call in part.tool_calls:
            self._has_calls = True
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            made += self._opened(("tool_use", call.index), block)
            if call.arguments:
                made.append(self._delta({"type": "input_json_delta", "partial_json": call.arguments}))
        return made

    def end(self, part: Part, usage: dict[str, Any]) -> list[dict[str, Any]]:
        """After the last part. A message that says nothing has one empty text, since clients look at the first block."""
        made = [] if self._index >= 0 else self._opened(("text", 0), {"type": "text", "text": ""})
        made += self._closed()
        reason = _STOP_REASONS[part.finish_reason or "stop"]
        if (
            reason == "end_turn" and self._has_calls
        ):  # chat says "stop" where a tool was asked for by its name
            reason = "tool_use"
        sequence = part.stop_reason if isinstance(part.stop_reason, str) else None
        if reason == "end_turn" and sequence is not None:
            reason = "stop_sequence"
        delta = {"stop_reason": reason, "stop_sequence": sequence if reason == "stop_sequence" else None}
        made.append({"type": "message_delta", "delta": delta, "usage": usage})
        made.append({"type": "message_stop"})
        return made

    def _reasoning(self, text: str) -> list[dict[str, Any]]:
        made = self._opened(("thinking", 0), {"type": "thinking", "thinking": "", "signature": ""})
        if self._hide_thinking:
            self._thought.append(text)
        else:
            made.append(self._delta({"type": "thinking_delta", "thinking": text}))
        return made

    def _opened(self, key: tuple[str, int], block: dict[str, Any]) -> list[dict[str, Any]]:
        if self._open == key:
            return []
        made = self._closed()
        self._open = key
        self._index += 1
        made.append({"type": "content_block_start", "index": self._index, "content_block": block})
        return made

    def _closed(self) -> list[dict[str, Any]]:
        if self._open is None:
            return []
        made = []
        if (
            self._open[0] == "thinking"
        ):  # what is not shown travels in the signature, which the client sends back
            signature = carried("".join(self._thought))
            made.append(self._delta({"type": "signature_delta", "signature": signature}))
            self._thought.clear()
        self._open = None
        made.append({"type": "content_block_stop", "index": self._index})
        return made

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


def folded(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The message that a stream's events add up to."""
    message: dict[str, Any] = {}
    pieces: list[list[str]] = []
    for event in events:
        kind = event["type"]
        if kind == "message_start":
            message = event["message"]
        elif kind == "content_block_start":
            message["content"].append(event["content_block"])
            pieces.append([])
        elif kind == "content_block_delta":
            delta = event["delta"]
            if delta["type"] == "signature_delta":
                message["content"][-1]["signature"] = delta["signature"]
            else:
                pieces[-1].append(next(value for name, value in delta.items() if name != "type"))
        elif kind == "message_delta":
            message |= {**event["delta"], "usage": event["usage"]}
    for block, texts in zip(message["content"], pieces, strict=True):
        text = "".join(texts)
        if block["type"] == "tool_use":
            block["input"] = tool_input(text)
        else:
            block[block["type"]] = text  # the field is named as the kind is
    return message


def tool_input(text: str) -> dict[str, Any]:
    """A call's arguments as an object. What was cut or is none is passed on in the form that Anthropic's documents name for it."""
    if not text.strip():
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": text}


class MessagesAnswer:
    """Renders one request of /v1/messages."""

    def __init__(self, generation: Generation, ids: AnswerIds, texts: TokenTexts, style: ChatStyle) -> None:
        self._generation = generation
        self._with_cached = style.cached_tokens
        hide = bool(generation.prepared.told.get("hide_thinking"))
        self._events = MessageEvents(ids.id, ids.model, hide)

    async def whole(self) -> dict[str, Any]:
        return folded([event async for event in self._all()])

    async def stream(self) -> AsyncIterator[bytes]:
        async for event in self._all():
            yield named_event(event["type"], event)

    def failed(self, error: UserError, request_id: str) -> bytes:
        """What ends a stream that has begun."""
        return named_event("error", anthropic_error_object(error, request_id))

    async def _all(self) -> AsyncIterator[dict[str, Any]]:
        """The message begins with its first part: only then it is known what was in the cache."""
        last: Part | None = None
        async for part in self._generation.parts():
            if last is None:
                yield self._events.begin(self._usage())
            last = part
            for event in self._events.feed(part):
                yield event
        if last is None:
            raise EngineError("engine_error", "the answer has no end")
        for event in self._events.end(last, self._usage()):
            yield event

    def _usage(self) -> dict[str, Any]:
        return usage_object(self._generation.usage, self._with_cached)


def model_object(name: str, created: int, max_model_len: int) -> dict[str, Any]:
    """A served model as GET /v1/models shows it to Anthropic's clients. `created` in seconds."""
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": max_model_len,
        "max_tokens": max_model_len,
    }
