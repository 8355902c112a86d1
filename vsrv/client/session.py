"""What every client command has in common: a server, a model, parameters of requests; and text on its way to a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from vsrv.client.http import ProtocolError, Target, given_key, given_url, unreachable
from vsrv.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# C0 and C1 controls but tab and newline: a model's answer must not steer the terminal
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of an answer: `text`, or `reasoning` before it; with the last one `finish_reason`, and `usage` if the server tells it."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str = ""
    usage: dict[str, Any] | None = None


@dataclass(slots=True)
class Session:
    """A server, the model that is asked there ("" until it is known) and what goes with every request."""

    target: Target
    model: str = ""
    params: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, url: str | None, key: str | None, ca_file: str | None, model: str, params: Sequence[str]
    ) -> Session:
        """From a command's options. Raises ConfigError."""
        made = cls(Target.of(given_url(url), given_key(key), ca_file), model)
        for param in params:
            made.set_param(param)
        return made

    def set_param(self, text: str) -> None:
        """NAME=VALUE: the value is JSON, else text; nothing behind = takes it back. Raises ConfigError."""
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not _NAME.fullmatch(name) or name in ("messages", "prompt", "stream", "model"):
            raise ConfigError(f"{text!r}: expected NAME=VALUE, such as temperature=0.2")
        if not value.strip():
            self.params.pop(name, None)
            return
        try:
            self.params[name] = json.loads(value)
        except ValueError:
            self.params[name] = value.strip()

    async def chosen_model(self) -> str:
        """The model, the first that the server lists unless one was given. Raises ConfigError and RequestFailed."""
        if not self.model:
            names = await self.target.models()
            if not names:
                raise ConfigError(f"{self.target.name} serves no model; give --model")
            self.model = names[0]
        return self.model

    async def chat(self, messages: Sequence[dict[str, str]]) -> AsyncGenerator[Piece, None]:
        """Stream an answer. Raises ConfigError, RequestFailed and ProtocolError."""
        async for event in self._events("/v1/chat/completions", {"messages": list(messages)}):
            choice = _choice(event)
            delta = choice.get("delta") or {}
            reasoning = delta.get("reasoning_content") or delta.get("reasoning")
            yield Piece(_text(delta.get("content")), _text(reasoning), *_end(event, choice))

    async def complete(self, prompt: str) -> AsyncGenerator[Piece, None]:
        """Stream a continuation. Raises ConfigError, RequestFailed and ProtocolError."""
        async for event in self._events("/v1/completions", {"prompt": prompt}):
            choice = _choice(event)
            yield Piece(_text(choice.get("text")), "", *_end(event, choice))

    async def _events(self, path: str, content: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        body = {"model": await self.chosen_model(), **options, **self.params, **content}
        try:
            async with self.target.request("POST", path, json.dumps(body).encode()) as reply:
                if reply.status != 200:
                    await reply.json()
                    raise ProtocolError(f"the server answered {reply.status}")
                async for event in reply.events():
                    yield event
        except OSError as error:
            raise unreachable(self.target, error) from None


def _choice(event: dict[str, Any]) -> dict[str, Any]:
    choices = event.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _end(event: dict[str, Any], choice: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    usage = event.get("usage")
    return _text(choice.get("finish_reason")), usage if isinstance(usage, dict) else None


class Screen:
    """Writes answers: to a terminal without control characters and with reasoning dimmed, elsewhere as they are and without reasoning."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.is_terminal = out.isatty()
        self._dim = False
        self._column_0 = True

    def write(self, piece: Piece) -> None:
        if piece.reasoning and self.is_terminal:
            self._put(("" if self._dim else "\x1b[2m"), piece.reasoning)
            self._dim = True
        if piece.text:
            self._put("\x1b[0m\n" if self._dim else "", piece.text)
            self._dim = False

    def _put(self, style: str, text: str) -> None:
        self._out.write(
            style + (_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text) if self.is_terminal else text)
        )
        self._out.flush()
        self._column_0 = text.endswith("\n")

    def end(self) -> None:
        """After an answer: its own line is finished."""
        if self._dim:
            self._out.write("\x1b[0m")
        if not self._column_0:
            self._out.write("\n")
        self._out.flush()
        self._dim, self._column_0 = False, True
