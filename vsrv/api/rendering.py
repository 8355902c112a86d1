"""What chat and completions answers have in common: ids, usage, log probabilities, error objects."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import orjson

from vsrv.api.generation import TokenLogProb, Usage
from vsrv.errors import UserError
from vsrv.http.values import Response
from vsrv.text.tokenizer import Tokenizer

JSON_HEADERS = [("content-type", "application/json")]
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "server_overloaded_error",
    504: "timeout_error",
}
_FINAL = {"request_timeout", "prompt_above_limit"}  # codes of statuses that clients would try again in vain


@dataclass(frozen=True, slots=True)
class AnswerIds:
    """The constant fields of one answer and all its chunks."""

    id: str
    created: int
    model: str
    fingerprint: str

    @classmethod
    def make(cls, prefix: str, request_id: str, model: str, fingerprint: str) -> AnswerIds:
        return cls(f"{prefix}-{request_id}", int(time.time()), model, fingerprint)


def json_response(value: Any, status: int = 200, headers: list[tuple[str, str]] | None = None) -> Response:
    return Response(status, [*JSON_HEADERS, *(headers or [])], orjson.dumps(value))


def error_object(error: UserError) -> dict[str, Any]:
    kind = _TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def error_response(error: UserError, request_id: str) -> Response:
    """OpenAI's error body. Retry-After is whole seconds and at most 120, because clients refuse to wait longer."""
    headers = []
    if error.retry_after_s is not None:
        headers.append(("retry-after", str(min(120, max(1, math.ceil(error.retry_after_s))))))
    if error.code in _FINAL:
        headers.append(("x-should-retry", "false"))
    if error.status == 401:
        headers.append(("www-authenticate", 'Bearer realm="vsrv"'))
    return json_response(error_object(error), error.status, headers)


def usage_object(usage: Usage, with_details: bool) -> dict[str, Any]:
    table: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if with_details:
        table["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    return table


class TokenTexts:
    """Token ids as log probabilities show them."""

    def __init__(self, tokenizer: Tokenizer, as_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids

    def text(self, token_id: int) -> str:
        if self._as_ids:
            return f"token_id:{token_id}"
        return self._tokenizer.token_bytes(token_id).decode(errors="replace")

    def chat_entry(self, token_id: int, logprob: float) -> dict[str, Any]:
        data = self._tokenizer.token_bytes(token_id)
        return {"token": self.text(token_id), "logprob": clipped(logprob), "bytes": list(data)}

    def chat_rows(self, rows: tuple[TokenLogProb, ...]) -> list[dict[str, Any]]:
        return [
            {
                **self.chat_entry(row.token_id, row.logprob),
                "top_logprobs": [self.chat_entry(token, value) for token, value in row.top],
            }
            for row in rows
        ]

    def legacy(self, rows: tuple[TokenLogProb, ...], offset: int, first: bool) -> dict[str, Any]:
        """Completions' form. `first`: the row list starts with the prompt's first token, which has no log probability."""
        tokens, values, tops, offsets = [], [], [], []
        for index, row in enumerate(rows):
            text = self.text(row.token_id)
            bare = first and index == 0
            tokens.append(text)
            values.append(None if bare else clipped(row.logprob))
            top = {self.text(token): clipped(value) for token, value in row.top}
            top.setdefault(text, clipped(row.logprob))
            tops.append(None if bare else top)
            offsets.append(offset)
            offset += len(self._tokenizer.token_bytes(row.token_id).decode(errors="ignore"))
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}

    def prompt_rows(self, rows: tuple[TokenLogProb, ...]) -> list[dict[str, Any] | None]:
        """vLLM's prompt_logprobs: null for the first position, then a map by token id."""
        listed: list[dict[str, Any] | None] = [None]
        for row in rows:
            entries = {
                str(row.token_id): {
                    "logprob": clipped(row.logprob),
                    "rank": row.rank,
                    "decoded_token": self.text(row.token_id),
                }
            }
            for rank, (token, value) in enumerate(row.top, 1):
                entries.setdefault(
                    str(token), {"logprob": clipped(value), "rank": rank, "decoded_token": self.text(token)}
                )
            listed.append(entries)
        return listed


def clipped(logprob: float) -> float:
    """JSON has no infinity: -9999 stands for a token that cannot come."""
    return max(logprob, -9999.0)
