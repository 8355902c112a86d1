"""/v1/chat/completions: parts of a generation → chat.completion, whole or as chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from vsrv.api.chunks import ChatStyle, ChunkedAnswer
from vsrv.api.generation import Generation, Part, TokenLogProb
from vsrv.api.rendering import ENGINE_NULLS, AnswerIds, TokenTexts, whole_usage
from vsrv.api.sse import DONE
from vsrv.text.tools import ToolCallDelta

_MESSAGE_NULLS: dict[str, Any] = {"refusal": None, "annotations": None, "audio": None, "function_call": None}


@dataclass(slots=True)
class _Choice:
    """A whole answer, joined from the parts that a stream would send."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[ToolCallDelta] = field(default_factory=list)
    rows: list[TokenLogProb] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: str | int | None = None

    def add(self, part: Part) -> None:
        self.text.append(part.text)
        self.reasoning.append(part.reasoning)
        self.calls += part.tool_calls
        self.rows += part.logprobs
        self.token_ids += part.token_ids
        if part.finish_reason is not None:
            self.finish_reason, self.stop_reason = part.finish_reason, part.stop_reason

    def message(self, legacy: bool) -> dict[str, Any]:
        """Content is null where there is something else and no text."""
        text, reasoning = "".join(self.text), "".join(self.reasoning)
        calls = whole_calls(self.calls)
        message: dict[str, Any] = {
            "content": text if text or not (reasoning or calls) else None,
            **_MESSAGE_NULLS,
        }
        if calls and legacy:
            message["function_call"] = calls[0]["function"]
        elif calls:
            message["tool_calls"] = calls
        message["reasoning"] = reasoning or None
        if reasoning:
            message["reasoning_content"] = reasoning
        return message


def whole_calls(deltas: Iterable[ToolCallDelta]) -> list[dict[str, Any]]:
    """Pieces of calls, in order → calls as a message has them."""
    begun: list[tuple[ToolCallDelta, list[str]]] = []
    for delta in deltas:
        if delta.name:
            begun.append((delta, []))
        else:
            begun[-1][1].append(delta.arguments)
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "".join(pieces)}}
        for call, pieces in begun
    ]


def _deltas(part: Part, legacy: bool) -> list[dict[str, Any]]:
    """What a part adds to a message, as OpenAI streams it: each kind and each piece of a call alone, and the end of calls too."""
    deltas: list[dict[str, Any]] = []
    if part.reasoning:
        deltas.append({"reasoning": part.reasoning, "reasoning_content": part.reasoning})
    if part.text:
        deltas.append({"content": part.text})
    deltas += [_call_delta(delta, legacy) for delta in part.tool_calls]
    if not deltas or (part.tool_calls and part.finish_reason is not None):
        deltas.append({})
    return deltas


def _call_delta(delta: ToolCallDelta, legacy: bool) -> dict[str, Any]:
    function = {"name": delta.name, "arguments": ""} if delta.name else {"arguments": delta.arguments}
    if legacy:
        return {"function_call": function}
    begun = {"id": delta.id, "type": "function"} if delta.name else {}
    return {"tool_calls": [{"index": delta.index, **begun, "function": function}]}


class ChatAnswer(ChunkedAnswer):
    """Renders one chat request."""

    chunk_object = "chat.completion.chunk"

    def __init__(self, generation: Generation, ids: AnswerIds, texts: TokenTexts, style: ChatStyle) -> None:
        super().__init__(generation, ids, texts, style)
        after = generation.prepared.prompts[0][-1]
        self._readers = [
            texts.reader(self._request.skip_special_tokens, after) for _ in range(self._request.n)
        ]

    async def whole(self) -> dict[str, Any]:
        choices = [_Choice() for _ in range(self._request.n)]
        prompt_rows: tuple[TokenLogProb, ...] | None = None
        async for part in self._generation.parts():
            choices[part.index].add(part)
            prompt_rows = part.prompt_logprobs if prompt_rows is None else prompt_rows
        return {
            "id": self._ids.id,
            "object": "chat.completion",
            "created": self._ids.created,
            "model": self._ids.model,
            "choices": [self._whole_choice(index, choice) for index, choice in enumerate(choices)],
            "service_tier": None,
            "system_fingerprint": self._ids.fingerprint,
            "usage": whole_usage(self._generation.usage, self._style.cached_tokens),
            "prompt_logprobs": self._prompt_logprobs(prompt_rows),
            **self._prompt(),
            **ENGINE_NULLS,
        }

    def _whole_choice(self, index: int, choice: _Choice) -> dict[str, Any]:
        asked = self._request.logprobs is not None
        rows = self._readers[index].chat_rows(tuple(choice.rows)) if asked else []
        return {
            "index": index,
            "message": {"role": self._style.role, **choice.message(self._legacy)},
            "logprobs": {"content": rows, "refusal": None} if asked else None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "token_ids": choice.token_ids if self._request.return_token_ids else None,
            "routed_experts": None,
        }

    @property
    def _legacy(self) -> bool:
        """Calls were asked for as `functions`."""
        tools = self._request.reading.tools
        return tools is not None and tools.legacy

    def _prompt(self) -> dict[str, Any]:
        """What is told of the prompt, null where it was not asked for."""
        prepared = self._generation.prepared
        return {
            "prompt_token_ids": prepared.prompts[0].tolist() if self._request.return_token_ids else None,
            "prompt_text": prepared.prompt_texts[0] if prepared.prompt_texts else None,
        }

    def _prompt_logprobs(self, rows: tuple[TokenLogProb, ...] | None) -> list[dict[str, Any] | None] | None:
        if rows is None or self._request.prompt_logprobs is None:
            return None
        first = self._generation.prepared.prompts[0][0]
        return self._texts.prompt_rows(first, rows, self._request.prompt_logprobs)

    async def stream(self) -> AsyncIterator[bytes]:
        """Role chunks first, chunks for each engine output, usage if asked, [DONE]."""
        started = False
        async for part in self._generation.parts():
            if not started:
                started = True
                for index in range(self._request.n):
                    # an answer of calls alone has no text, and what clients join begins with this
                    content = "" if self._request.reading.tools is None else None
                    delta = {"role": self._style.role, "content": content}
                    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
                    yield self._chunk(choice, self._prompt())
            deltas = _deltas(part, self._legacy)
            for place, delta in enumerate(deltas):
                last = place == len(deltas) - 1
                told = part.logprobs or (part.token_ids and self._request.return_token_ids)
                if delta or told or part.finish_reason is not None:
                    choice = self._choice(part, delta, place == 0, last)
                    yield self._chunk(choice, self._last(part) if last else {})
        if self._usage_follows:
            yield self._usage_chunk()
        yield DONE

    def _choice(self, part: Part, delta: dict[str, Any], first: bool, last: bool) -> dict[str, Any]:
        """One of the chunks of a part: the first tells of its tokens, the last of its end."""
        reason = part.finish_reason if last else None
        rows = part.logprobs if first else ()
        choice: dict[str, Any] = {
            "index": part.index,
            "delta": delta if delta or reason is not None else {"content": ""},
            "logprobs": {"content": self._readers[part.index].chat_rows(rows)}
            if self._request.logprobs is not None
            else None,
            "finish_reason": reason,
        }
        if reason is not None:
            choice["stop_reason"] = part.stop_reason
        if self._request.return_token_ids:
            choice["token_ids"] = list(part.token_ids) if first else []
        return choice
