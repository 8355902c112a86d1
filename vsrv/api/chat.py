"""/v1/chat/completions: parts of a generation → chat.completion, whole or as chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from vsrv.api.generation import Generation, Part, TokenLogProb
from vsrv.api.rendering import ENGINE_NULLS, AnswerIds, TokenTexts, usage_object, whole_usage
from vsrv.api.sse import DONE, event, stream_error
from vsrv.errors import UserError

_MESSAGE_NULLS = {
    "refusal": None,
    "annotations": None,
    "audio": None,
    "function_call": None,
    "reasoning": None,
}


@dataclass(frozen=True, slots=True)
class ChatStyle:
    """Server-wide choices for answers."""

    role: str
    cached_tokens: bool
    force_usage: bool


class ChatAnswer:
    """Renders one chat request."""

    def __init__(self, generation: Generation, ids: AnswerIds, texts: TokenTexts, style: ChatStyle) -> None:
        self._generation = generation
        self._request = generation.request
        self._ids = ids
        self._texts = texts
        self._style = style
        after = generation.prepared.prompts[0][-1]
        self._readers = [
            texts.reader(self._request.skip_special_tokens, after) for _ in range(self._request.n)
        ]

    async def whole(self) -> dict[str, Any]:
        count = self._request.n
        text = [""] * count
        rows: list[list[TokenLogProb]] = [[] for _ in range(count)]
        token_ids: list[list[int]] = [[] for _ in range(count)]
        ends: list[Part | None] = [None] * count
        prompt_rows: tuple[TokenLogProb, ...] | None = None
        async for part in self._generation.parts():
            text[part.index] += part.text
            rows[part.index] += part.logprobs
            token_ids[part.index] += part.token_ids
            prompt_rows = part.prompt_logprobs if prompt_rows is None else prompt_rows
            if part.finish_reason is not None:
                ends[part.index] = part
        choices = [
            {
                "index": i,
                "message": {"role": self._style.role, "content": text[i], **_MESSAGE_NULLS},
                "logprobs": {"content": self._readers[i].chat_rows(tuple(rows[i])), "refusal": None}
                if self._request.logprobs is not None
                else None,
                "finish_reason": None if end is None else end.finish_reason,
                "stop_reason": None if end is None else end.stop_reason,
                "token_ids": token_ids[i] if self._request.return_token_ids else None,
                "routed_experts": None,
            }
            for i, end in enumerate(ends)
        ]
        return {
            "id": self._ids.id,
            "object": "chat.completion",
            "created": self._ids.created,
            "model": self._ids.model,
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": self._ids.fingerprint,
            "usage": whole_usage(self._generation.usage, self._style.cached_tokens),
            "prompt_logprobs": self._prompt_logprobs(prompt_rows),
            **self._prompt(),
            **ENGINE_NULLS,
        }

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
        """Role chunks first, one chunk for each engine output, usage if asked, [DONE]."""
        started = False
        async for part in self._generation.parts():
            if not started:
                started = True
                for index in range(self._request.n):
                    delta = {"role": self._style.role, "content": ""}
                    yield self._chunk(
                        [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}],
                        self._prompt(),
                    )
            if part.text or part.logprobs or part.finish_reason is not None or self._request.return_token_ids:
                yield self._chunk([self._choice(part)], self._last(part))
        if self._request.include_usage or self._style.force_usage:
            usage = usage_object(self._generation.usage, self._style.cached_tokens)
            yield event(
                {**self._base(), "choices": [], "usage": usage, "system_fingerprint": self._ids.fingerprint}
            )
        yield DONE

    def failed(self, error: UserError, request_id: str) -> bytes:
        """What ends a stream that has begun and cannot go on."""
        return stream_error(error)

    def _choice(self, part: Part) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": part.index,
            "delta": {"content": part.text} if part.text or part.finish_reason is None else {},
            "logprobs": {"content": self._readers[part.index].chat_rows(part.logprobs)}
            if self._request.logprobs is not None
            else None,
            "finish_reason": part.finish_reason,
        }
        if part.finish_reason is not None:
            choice["stop_reason"] = part.stop_reason
        if self._request.return_token_ids:
            choice["token_ids"] = list(part.token_ids)
        return choice

    def _chunk(self, choices: list[dict[str, Any]], extra: dict[str, Any]) -> bytes:
        chunk: dict[str, Any] = {
            **self._base(),
            "choices": choices,
            **extra,
        }
        if self._request.include_usage and self._request.continuous_usage:
            chunk["usage"] = usage_object(self._generation.usage, self._style.cached_tokens)
        return event(chunk)

    def _last(self, part: Part) -> dict[str, Any]:
        """The fingerprint, on the last chunk only: here unless one with the usage follows."""
        usage_follows = self._request.include_usage or self._style.force_usage
        if part.finish_reason is None or usage_follows:
            return {}
        return {"system_fingerprint": self._ids.fingerprint}

    def _base(self) -> dict[str, Any]:
        return {
            "id": self._ids.id,
            "object": "chat.completion.chunk",
            "created": self._ids.created,
            "model": self._ids.model,
        }
