"""What the streams of OpenAI's two routes for text have in common: the head of a chunk, and where usage and fingerprint stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from vsrv.api.generation import Generation, Part
from vsrv.api.rendering import AnswerIds, TokenTexts, usage_object
from vsrv.api.sse import event, stream_error
from vsrv.errors import UserError


@dataclass(frozen=True, slots=True)
class ChatStyle:
    """Server-wide choices for answers."""

    role: str
    cached_tokens: bool
    force_usage: bool


class ChunkedAnswer:
    """Renders one request; `chunk_object` is how its chunks call themselves."""

    chunk_object: ClassVar[str]

    def __init__(self, generation: Generation, ids: AnswerIds, texts: TokenTexts, style: ChatStyle) -> None:
        self._generation = generation
        self._request = generation.request
        self._ids = ids
        self._texts = texts
        self._style = style
        self._usage_follows = self._request.include_usage or style.force_usage

    def failed(self, error: UserError, request_id: str) -> bytes:
        """What ends a stream that has begun and cannot go on."""
        return stream_error(error)

    def _chunk(self, choice: dict[str, Any], extra: dict[str, Any]) -> bytes:
        chunk: dict[str, Any] = {**self._base(), "choices": [choice], **extra}
        if self._request.include_usage and self._request.continuous_usage:
            chunk["usage"] = usage_object(self._generation.usage, self._style.cached_tokens)
        return event(chunk)

    def _last(self, part: Part) -> dict[str, Any]:
        """The fingerprint, on the last chunk of a choice only: here unless one with the usage follows."""
        if part.finish_reason is None or self._usage_follows:
            return {}
        return {"system_fingerprint": self._ids.fingerprint}

    def _usage_chunk(self) -> bytes:
        usage = usage_object(self._generation.usage, self._style.cached_tokens)
        fingerprint = self._ids.fingerprint
        return event({**self._base(), "choices": [], "usage": usage, "system_fingerprint": fingerprint})

    def _base(self) -> dict[str, Any]:
        return {
            "id": self._ids.id,
            "object": self.chunk_object,
            "created": self._ids.created,
            "model": self._ids.model,
        }
