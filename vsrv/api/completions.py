"""/v1/completions: parts of a generation → text_completion, whole or as chunks; echo and legacy log probabilities."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from vsrv.api.chunks import ChatStyle, ChunkedAnswer
from vsrv.api.generation import Generation, Part, TokenLogProb
from vsrv.api.rendering import ENGINE_NULLS, AnswerIds, TokenTexts, whole_usage
from vsrv.api.sse import DONE


@dataclass(slots=True)
class _Choice:
    """A whole answer, joined from its parts. `rows` are log probabilities in completions' form; `logprob` is the sum of all tokens'."""

    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    rows: dict[str, list[Any]] | None = None
    prompt_logprobs: list[dict[str, Any] | None] | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None

    def add(self, part: Part, text: str, rows: dict[str, list[Any]] | None) -> None:
        """`text` and `rows` are what is shown of the part."""
        self.text.append(text)
        self.token_ids += part.token_ids
        self.logprob += sum(row.logprob for row in part.logprobs)
        if self.rows is None:
            self.rows = rows
        else:
            for name, values in (rows or {}).items():
                self.rows[name] += values
        if part.finish_reason is not None:
            self.finish_reason, self.stop_reason = part.finish_reason, part.stop_reason


class CompletionAnswer(ChunkedAnswer):
    """Renders one completions request; choice index = prompt index * n + i. With best_of there are more sequences than choices."""

    chunk_object = "text_completion"

    def __init__(self, generation: Generation, ids: AnswerIds, texts: TokenTexts, style: ChatStyle) -> None:
        super().__init__(generation, ids, texts, style)
        self._count = len(generation.prepared.prompts) * self._request.width
        skip = self._request.skip_special_tokens
        self._readers = [texts.reader(skip, self._prompt(i)[-1]) for i in range(self._count)]
        self._begun = [False] * self._count

    async def whole(self) -> dict[str, Any]:
        sequences = [_Choice() for _ in range(self._count)]
        wanted = self._request.prompt_logprobs
        async for part in self._generation.parts():
            sequence = sequences[part.index]
            sequence.add(part, *self._shown(part))
            if part.prompt_logprobs is not None and wanted is not None:
                first = self._prompt(part.index)[0]
                sequence.prompt_logprobs = self._texts.prompt_rows(first, part.prompt_logprobs, wanted)
        best = enumerate(self._best(sequences))
        return {
            **self._base(),
            "choices": [self._whole_choice(index, place, sequence) for index, (place, sequence) in best],
            "service_tier": None,
            "system_fingerprint": self._ids.fingerprint,
            "usage": whole_usage(self._generation.usage, self._style.cached_tokens),
            **ENGINE_NULLS,
        }

    def _whole_choice(self, index: int, place: int, choice: _Choice) -> dict[str, Any]:
        """`place` is the choice's among the sequences."""
        with_ids = self._request.return_token_ids
        return {
            "index": index,
            "text": "".join(choice.text),
            "logprobs": choice.rows,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "token_ids": choice.token_ids if with_ids else None,
            "prompt_logprobs": choice.prompt_logprobs,
            "prompt_token_ids": self._prompt(place).tolist() if with_ids else None,
            "routed_experts": None,
        }

    def _best(self, sequences: list[_Choice]) -> list[tuple[int, _Choice]]:
        """(place among the sequences, sequence) of every choice: with best_of those with the highest log probability per
        token, best first, as OpenAI's reference says."""
        listed = list(enumerate(sequences))
        width, n = self._request.width, self._request.n
        if width == n:
            return listed
        chosen: list[tuple[int, _Choice]] = []
        for start in range(0, len(listed), width):
            of_prompt = listed[start : start + width]
            of_prompt.sort(key=lambda item: item[1].logprob / max(1, len(item[1].token_ids)), reverse=True)
            chosen += of_prompt[:n]
        return chosen

    async def stream(self) -> AsyncIterator[bytes]:
        """The fingerprint is on the last chunk of a choice, or on the one with the usage where that follows."""
        async for part in self._generation.parts():
            first = not self._begun[part.index]
            text, rows = self._shown(part)
            if not (text or rows or part.finish_reason or self._request.return_token_ids):
                continue
            choice = {
                "index": part.index,
                "text": text,
                "logprobs": rows,
                "finish_reason": part.finish_reason,
                "stop_reason": part.stop_reason,
            }
            if self._request.return_token_ids:
                choice["token_ids"] = list(part.token_ids)
                if first:
                    choice["prompt_token_ids"] = self._prompt(part.index).tolist()
            yield self._chunk(choice, self._last(part))
        if self._usage_follows:
            yield self._usage_chunk()
        yield DONE

    def _shown(self, part: Part) -> tuple[str, dict[str, list[Any]] | None]:
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
        return text, shown

    def _prompt_rows(self, part: Part, k: int) -> tuple[TokenLogProb, ...]:
        """Rows of an echoed prompt with the `k` best: more are there if prompt_logprobs asks for more."""
        first = TokenLogProb(self._prompt(part.index)[0], 0.0, 1, ())
        return (first, *(replace(row, top=row.top[:k]) for row in part.prompt_logprobs or ()))

    def _prompt(self, index: int) -> array[int]:
        return self._generation.prepared.prompts[index // self._request.width]
