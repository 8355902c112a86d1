"""/v1/completions: parts of a generation → text_completion, whole or as chunks; echo and legacy log probabilities."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from vsrv.api.chat import ChatStyle
from vsrv.api.generation import Generation, Part, TokenLogProb
from vsrv.api.rendering import ENGINE_NULLS, AnswerIds, TokenTexts, usage_object, whole_usage
from vsrv.api.sse import DONE, event, stream_error
from vsrv.errors import UserError


class CompletionAnswer:
    """Renders one completions request; choice index = prompt index * n + i. With best_of there are more sequences than choices."""

    def __init__(self, generation: Generation, ids: AnswerIds, texts: TokenTexts, style: ChatStyle) -> None:
        self._generation = generation
        self._request = generation.request
        self._ids = ids
        self._texts = texts
        self._style = style
        self._count = len(generation.prepared.prompts) * self._request.width
        skip = self._request.skip_special_tokens
        self._readers = [texts.reader(skip, self._prompt(i)[-1]) for i in range(self._count)]
        self._begun = [False] * self._count

    async def whole(self) -> dict[str, Any]:
        merged: list[dict[str, Any]] = [
            {"text": [], "rows": None, "ids": [], "end": None, "prompt": None, "logprob": 0.0}
            for _ in range(self._count)
        ]
        async for part in self._generation.parts():
            choice = merged[part.index]
            shown = self._shown(part)
            choice["text"].append(shown["text"])
            choice["ids"] += part.token_ids
            choice["logprob"] += sum(row.logprob for row in part.logprobs)
            if shown["logprobs"] is not None:
                _extend(choice, shown["logprobs"])
            if part.prompt_logprobs is not None and self._request.prompt_logprobs is not None:
                first = self._prompt(part.index)[0]
                choice["prompt"] = self._texts.prompt_rows(
                    first, part.prompt_logprobs, self._request.prompt_logprobs
                )
            if part.finish_reason is not None:
                choice["end"] = part
        choices = [
            {
                "index": i,
                "text": "".join(choice["text"]),
                "logprobs": choice["rows"],
                "finish_reason": choice["end"] and choice["end"].finish_reason,
                "stop_reason": choice["end"] and choice["end"].stop_reason,
                "token_ids": choice["ids"] if self._request.return_token_ids else None,
                "prompt_logprobs": choice["prompt"],
                "prompt_token_ids": self._prompt(place) if self._request.return_token_ids else None,
                "routed_experts": None,
            }
            for i, (place, choice) in enumerate(self._best(merged))
        ]
        return {
            **self._base(),
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": self._ids.fingerprint,
            "usage": whole_usage(self._generation.usage, self._style.cached_tokens),
            **ENGINE_NULLS,
        }

    def _best(self, merged: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
        """(place among the sequences, sequence) of every choice: with best_of those with the highest log probability per
        token, best first, as OpenAI's reference says."""
        listed = list(enumerate(merged))
        width, n = self._request.width, self._request.n
        if width == n:
            return listed
        chosen: list[tuple[int, dict[str, Any]]] = []
        for start in range(0, len(listed), width):
            of_prompt = listed[start : start + width]
            of_prompt.sort(key=lambda item: item[1]["logprob"] / max(1, len(item[1]["ids"])), reverse=True)
            chosen += of_prompt[:n]
        return chosen

    async def stream(self) -> AsyncIterator[bytes]:
        """The fingerprint is on the last chunk of a choice, or on the one with the usage where that follows."""
        usage_follows = self._request.include_usage or self._style.force_usage
        async for part in self._generation.parts():
            first = not self._begun[part.index]
            shown = self._shown(part)
            if not (
                shown["text"] or shown["logprobs"] or part.finish_reason or self._request.return_token_ids
            ):
                continue
            choice = {
                "index": part.index,
                **shown,
                "finish_reason": part.finish_reason,
                "stop_reason": part.stop_reason,
            }
            if self._request.return_token_ids:
                choice["token_ids"] = list(part.token_ids)
                if first:
                    choice["prompt_token_ids"] = self._prompt(part.index)
            chunk: dict[str, Any] = {**self._base(), "choices": [choice]}
            if part.finish_reason is not None and not usage_follows:
                chunk["system_fingerprint"] = self._ids.fingerprint
            if self._request.include_usage and self._request.continuous_usage:
                chunk["usage"] = usage_object(self._generation.usage, self._style.cached_tokens)
            yield event(chunk)
        if usage_follows:
            usage = usage_object(self._generation.usage, self._style.cached_tokens)
            yield event(
                {**self._base(), "choices": [], "usage": usage, "system_fingerprint": self._ids.fingerprint}
            )
        yield DONE

    def failed(self, error: UserError, request_id: str) -> bytes:
        """What ends a stream that has begun and cannot go on."""
        return stream_error(error)

    def _shown(self, part: Part) -> dict[str, Any]:
        """Text and log probabilities of a part; the first part of a choice carries the echoed prompt."""
        text, wanted = part.text, self._request.logprobs
        shown: dict[str, Any] | None = None
        reader = self._readers[part.index]
        if not self._begun[part.index]:
            self._begun[part.index] = True
            if self._request.echo:
                prompt = self._generation.prepared.prompt_texts[part.index // self._request.width]
                text = prompt + text
                if wanted is not None:
                    shown = reader.echo(self._prompt_rows(part, wanted), prompt)
        if wanted is not None:
            rows = reader.legacy(part.logprobs)
            shown = rows if shown is None else {name: shown[name] + values for name, values in rows.items()}
        return {"text": text, "logprobs": shown}

    def _prompt_rows(self, part: Part, k: int) -> tuple[TokenLogProb, ...]:
        """Rows of an echoed prompt with the `k` best: more are there if prompt_logprobs asks for more."""
        first = TokenLogProb(self._prompt(part.index)[0], 0.0, 1, ())
        return (first, *(replace(row, top=row.top[:k]) for row in part.prompt_logprobs or ()))

    def _prompt(self, index: int) -> list[int]:
        return self._generation.prepared.prompts[index // self._request.width].tolist()

    def _base(self) -> dict[str, Any]:
        return {
            "id": self._ids.id,
            "object": "text_completion",
            "created": self._ids.created,
            "model": self._ids.model,
        }


def _extend(choice: dict[str, Any], rows: dict[str, Any]) -> None:
    if choice["rows"] is None:
        choice["rows"] = rows
        return
    for name, values in rows.items():
        choice["rows"][name] += values
