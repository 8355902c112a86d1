"""What the dialects that are translated to a chat body have in common: turns → messages, bounded lists, carried reasoning.

A translator is a pure function of the body; it checks what chat could not name properly afterwards and leaves the rest to chat.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vsrv.api.fields import invalid
from vsrv.errors import UserError

_MAX_IGNORED = 20  # names in the one debug line
_CARRIED = "vsrv1."  # in front of reasoning that a client keeps for us between two requests


@dataclass(frozen=True, slots=True)
class Style:
    """How turns become messages. The first attempt keeps what was sent; templates that refuse it get the plain form.

    `merge`: consecutive messages of one side become one. `late_system`: the role of instructions after the beginning.
    """

    merge: bool = False
    late_system: str = "system"


AS_SENT = Style()
PLAIN = Style(True, "user")  # one system message at most, at the beginning, and then sides in turn


@dataclass(frozen=True, slots=True)
class Translated:
    """A body in chat's form. `told` is what the answer needs of the request, JSON-able; `ignored` is for the log."""

    chat: dict[str, Any]
    told: dict[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


@dataclass(slots=True)
class Ignored:
    """Names of what was read over, cut to what fits into a log line."""

    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        if len(self.names) < _MAX_IGNORED:
            self.names.append(name[:80])


@dataclass(slots=True)
class Conversation:
    """Collects turns as chat messages. What the model's side says between two others is one message.

    Thoughts are joined when all is there: joining them one by one would take time of the square of their number.
    """

    style: Style
    messages: list[dict[str, Any]] = field(default_factory=list)
    _thoughts: list[tuple[dict[str, Any], list[str]]] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)  # of tools, by call id

    def say(self, role: str, texts: list[str]) -> None:
        """`role` is system, user or assistant. Instructions before everything else are one system message."""
        if role == "assistant":
            self._own()["content"] += _parts(texts)
            return
        leading = all(message["role"] == "system" for message in self.messages)
        if role == "system" and not leading:
            role = self.style.late_system
        last = self.messages[-1] if self.messages else None
        joins = (role == "system" and leading) or self.style.merge
        if last is not None and last["role"] == role and joins:
            last["content"] += _parts(texts)
        else:
            self.messages.append({"role": role, "content": _parts(texts)})

    def think(self, text: str) -> None:
        own = self._own()
        if not self._thoughts or self._thoughts[-1][0] is not own:
            self._thoughts.append((own, []))
        self._thoughts[-1][1].append(text)

    def finished(self) -> list[dict[str, Any]]:
        """The messages, complete."""
        for message, texts in self._thoughts:
            message["reasoning_content"] = "\n".join(texts)
        return self.messages

    def call(self, call_id: str, name: str, arguments: str) -> None:
        """A tool call of the model; `arguments` is JSON text."""
        self._names[call_id] = name
        function = {"name": name, "arguments": arguments}
        calls = self._own().setdefault("tool_calls", [])
        calls.append({"id": call_id, "type": "function", "function": function})

    def result(self, call_id: str, texts: list[str]) -> None:
        message: dict[str, Any] = {"role": "tool", "tool_call_id": call_id, "content": _parts(texts)}
        if call_id in self._names:
            message["name"] = self._names[call_id]
        self.messages.append(message)

    def _own(self) -> dict[str, Any]:
        """The message of the model that is being collected."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": []})
        return self.messages[-1]


def _parts(texts: list[str]) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def restated(error: UserError, names: Mapping[str, str]) -> UserError:
    """A refusal by chat in the dialect's own field names, by their first segment (`messages[3].content` → `input`)."""
    if error.param is None:
        return error
    first = error.param.split("[")[0].split(".")[0]
    name = names.get(first, error.param)
    message = error.message
    if message.startswith(f"{error.param}: "):
        message = name + message[len(error.param) :]
    return UserError(error.status, error.code, message, name, error.retry_after_s)


def objects(value: Any, param: str, most: int) -> list[Mapping[str, Any]]:
    """A list of at most `most` objects; null is an empty one. Raises UserError 400."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > most:
        raise invalid(param, f"expected a list of at most {most} objects")
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise invalid(f"{param}[{index}]", "expected an object")
    return value


def text_of(item: Mapping[str, Any], name: str, where: str) -> str:
    """A text that has to be there."""
    value = item.get(name)
    if not isinstance(value, str):
        raise invalid(f"{where}.{name}", "is missing" if value is None else "expected text")
    return value


def table_of(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object that may be missing."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise invalid(name, "expected an object")
    return value


def choice_of(table: Mapping[str, Any], name: str, where: str, allowed: tuple[str, ...]) -> str | None:
    """One of a few words, or None where it is missing."""
    value = table.get(name)
    if value is not None and value not in allowed:
        raise invalid(where, f"expected one of {', '.join(allowed)}")
    return value


def carried(reasoning: str) -> str:
    """Reasoning in the form in which a client keeps it for us without reading it. It is not secret from the client."""
    return _CARRIED + base64.urlsafe_b64encode(reasoning.encode()).decode("ascii")


def uncarried(text: Any) -> str:
    """What `carried` was given; nothing for what another server made."""
    if not isinstance(text, str) or not text.startswith(_CARRIED):
        return ""
    try:
        return base64.urlsafe_b64decode(text[len(_CARRIED) :].encode()).decode()
    except (binascii.Error, UnicodeError, ValueError):
        return ""
