"""What chat and completions answers have in common: ids, usage, log probabilities."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import orjson

from vsrv.api.generation import TokenLogProb
from vsrv.api.life import Usage
from vsrv.http.values import Response
from vsrv.text.detokenizer import CharacterStream
from vsrv.text.tokenizer import Tokenizer

JSON_HEADERS = [("content-type", "application/json")]


@dataclass(frozen=True, slots=True)
class AnswerIds:
    """The constant fields of one answer and all its chunks."""

    id: str
    created: int
    model: str
    fingerprint: str | None

    @classmethod
    def make(cls, prefix: str, request_id: str, model: str, fingerprint: str | None) -> AnswerIds:
        return cls(f"{prefix}{request_id}", int(time.time()), model, fingerprint)


def json_response(value: Any, status: int = 200, headers: list[tuple[str, str]] | None = None) -> Response:
    return Response(status, [*JSON_HEADERS, *(headers or [])], orjson.dumps(value))


ENGINE_NULLS: dict[str, None] = {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}


def whole_usage(usage: Usage, with_details: bool) -> dict[str, Any]:
    """As vLLM's whole answers have it: what is not told is there as null."""
    nothing = {"prompt_tokens_details": None, "completion_tokens_details": None}
    return {**nothing, **usage_object(usage, with_details)}


def usage_object(usage: Usage, with_details: bool) -> dict[str, Any]:
    table: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if with_details:
        table["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.thinks:
        table["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return table


class TokenTexts:
    """Token ids as log probabilities show them; makes a reader for each choice."""

    def __init__(self, tokenizer: Tokenizer, as_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids

    def reader(self, skip_special_tokens: bool, after: int | None = None) -> TokenReader:
        """For one choice, whose prompt ends with the token `after`."""
        hidden = self._tokenizer.special_ids if skip_special_tokens else frozenset()
        return TokenReader(self._tokenizer, self._as_ids, hidden, after)

    def prompt_rows(self, first: int, rows: tuple[TokenLogProb, ...], k: int) -> list[dict[str, Any] | None]:
        """vLLM's prompt_logprobs: null for the first position, then a map by token id with the `k` best."""
        reader = self.reader(False)
        reader.read(first)
        listed: list[dict[str, Any] | None] = [None]
        for row in rows:
            best = row.top[:k]
            texts = [reader.peek(token) for token, _ in best]
            own = {
                "logprob": clipped(row.logprob),
                "rank": row.rank,
                "decoded_token": reader.read(row.token_id),
            }
            entries = {str(row.token_id): own}
            for rank, ((token, value), text) in enumerate(zip(best, texts, strict=True), 1):
                entry = {"logprob": clipped(value), "rank": rank, "decoded_token": text}
                entries.setdefault(str(token), entry)
            listed.append(entries)
        return listed


class TokenReader:
    """The tokens of one choice in order → their texts and places, whatever text has been released meanwhile.

    A token that ends inside a character has the text "" and the one that completes it carries it.
    """

    def __init__(
        self, tokenizer: Tokenizer, as_ids: bool, hidden: frozenset[int], after: int | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids
        self._hidden = hidden  # control tokens that are left out of the text
        self._characters = CharacterStream(tokenizer, None if after in hidden else after)
        self._echo: str | None = None  # while the prompt is read
        self.offset = 0  # characters of the choice's text before the next token

    def echo(self, rows: tuple[TokenLogProb, ...], text: str) -> dict[str, Any]:
        """The rows of the prompt, whose echo is `text`; the answer's tokens are placed behind it."""
        after, self._characters = self._characters, CharacterStream(self._tokenizer)
        self._echo = text
        table = self.legacy(rows)
        table["token_logprobs"][0] = table["top_logprobs"][0] = None  # nothing came before it
        self._echo, self._characters, self.offset = None, after, len(text)
        return table

    def read(self, token_id: int) -> str:
        """The text of the next token, as it is shown."""
        if token_id in self._hidden and self._echo is None:
            return self.peek(token_id)
        text = self._characters.push(token_id)
        self.offset += len(text) if self._echo is None else self._echoed(token_id, text, self._echo)
        return self._shown(token_id, text)

    def peek(self, token_id: int) -> str:
        """The text that a token would have in the next place; its own if it would break an unfinished character off."""
        text = self._characters.peek(token_id)
        if token_id in self._hidden or "\ufffd" in text:
            with contextlib.suppress(UnicodeDecodeError):
                text = self._tokenizer.token_bytes(token_id).decode()
        return self._shown(token_id, text)

    def chat_rows(self, rows: tuple[TokenLogProb, ...]) -> list[dict[str, Any]]:
        listed = []
        for row in rows:
            texts = {token: self.peek(token) for token, _ in row.top}
            texts[row.token_id] = self.read(row.token_id)
            top = [self._chat_entry(token, texts[token], value) for token, value in row.top]
            own = self._chat_entry(row.token_id, texts[row.token_id], row.logprob)
            listed.append({**own, "top_logprobs": top})
        return listed

    def legacy(self, rows: tuple[TokenLogProb, ...]) -> dict[str, Any]:
        """Completions' form."""
        tokens, values, tops, offsets = [], [], [], []
        for row in rows:
            offsets.append(self.offset)
            texts = [self.peek(token) for token, _ in row.top]
            text = self.read(row.token_id)
            tokens.append(text)
            values.append(clipped(row.logprob))
            tops.append(self._top(row, text, texts))
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}

    def _top(self, row: TokenLogProb, text: str, texts: list[str]) -> dict[str, float]:
        """One key for each candidate: clients look the token itself up by its text, so the others make room for it."""
        table: dict[str, float] = {}
        for (token, value), candidate in zip(row.top, texts, strict=True):
            key = text if token == row.token_id else self._key(token, candidate, {text, *table})
            table[key] = clipped(value)
        table.setdefault(text, clipped(row.logprob))
        return table

    def _key(self, token_id: int, text: str, used: set[str]) -> str:
        """A text that is no whole character, or that another candidate has, is spelled in bytes, as OpenAI does."""
        spelled = "bytes:" + "".join(f"\\x{value:02x}" for value in self._tokenizer.token_bytes(token_id))
        if text and "\ufffd" not in text and text not in used:
            return text
        return spelled if spelled not in used else f"token_id:{token_id}"

    def _chat_entry(self, token_id: int, text: str, logprob: float) -> dict[str, Any]:
        data = self._tokenizer.token_bytes(token_id)
        return {"token": text, "logprob": clipped(logprob), "bytes": list(data)}

    def _shown(self, token_id: int, text: str) -> str:
        return f"token_id:{token_id}" if self._as_ids else text

    def _echoed(self, token_id: int, piece: str, echo: str) -> int:
        """Characters of the echoed text that a prompt token stands for: none for a control token that was added in front,
        and not the space that sentencepiece puts there."""
        if echo.startswith(piece, self.offset):
            return len(piece)
        if token_id in self._tokenizer.special_ids:
            return 0
        if piece.startswith(" ") and echo.startswith(piece[1:], self.offset):
            return len(piece) - 1
        return min(len(piece), len(echo) - self.offset)  # a normalizer has changed it


def clipped(logprob: float) -> float:
    """JSON has no infinity: -9999 stands for a token that cannot come."""
    return max(logprob, -9999.0)
