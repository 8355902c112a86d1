"""Qwen3-Coder's calls: `<function=NAME><parameter=KEY>VALUE</parameter></function>`, values typed by the tool's schema.

Format: the chat template of Qwen/Qwen3-Coder-30B-A3B-Instruct. The first line break of a value and the last one are markup.
"""

from __future__ import annotations

import re

from vsrv.text.marks import may_become, unfinished
from vsrv.text.tool_bodies import (
    MAX_NAME,
    Reader,
    Sink,
    Tools,
    Verdict,
    is_json,
    json_text,
    number_text,
    past_space,
)
from vsrv.text.tool_pythonic import literal_as_json

_FUNCTION, _PARAMETER, _END, _VALUE_END = "<function=", "<parameter=", "</function>", "</parameter>"
_CALL_END = f"\n{_END}\n</tool_call>"
# A value ends at the next parameter or with the call too, as in Qwen's own parser, although its end was forgotten.
_ENDS = re.compile(f"\n?{_VALUE_END}|\n?{_PARAMETER}|{_CALL_END}")
_PARTS_OF_ENDS = (_VALUE_END, f"\n{_VALUE_END}", _PARAMETER, f"\n{_PARAMETER}", _CALL_END)
_LONGEST = max(len(end) for end in _PARTS_OF_ENDS)
_KINDS = (
    ("number", ("int", "uint", "long", "short", "num", "float", "double")),
    ("boolean", ("bool",)),
    ("json", ("object", "dict", "array", "list", "tuple")),
)


class XmlCalls(Reader):
    """One call. Text values are passed on as they come, others when they are complete."""

    def __init__(self, sink: Sink, tools: Tools, offered_only: bool) -> None:
        super().__init__(sink, tools, offered_only)
        self._types: dict[str, str] = {}
        self._num_parameters = 0
        self._kind = ""
        self._nullable = False
        self._value: list[str] = []
        self._fresh = False  # no character of the value has been read

    def finish(self, rest: str) -> str:
        if self._begun and self._state == self._in_value:
            self._take(rest)
            quote = '"' if self._kind == "string" and self._nullable else ""
            written = "".join(self._value)
            self._sink.arguments(quote + (json_text(written) if quote else written))
        return super().finish(rest)

    def _start(self, text: str, at: int) -> tuple[int, Verdict]:
        at = past_space(text, at)
        if text.startswith(_FUNCTION, at):
            self._state = self._name
            return at + len(_FUNCTION), Verdict.GO
        return at, Verdict.MORE if may_become(text, at, (_FUNCTION,)) else Verdict.FAIL

    def _name(self, text: str, at: int) -> tuple[int, Verdict]:
        name, after = _until_angle(text, at)
        if after <= 0:
            return at, Verdict.MORE if after == 0 else Verdict.FAIL
        self._begin(name)
        self._types = dict(self._tools.get(name, {}))
        self._state = self._between
        return after, Verdict.GO

    def _between(self, text: str, at: int) -> tuple[int, Verdict]:
        """Before a parameter or the end of the function."""
        at = past_space(text, at)
        if text.startswith(_PARAMETER, at):
            self._state = self._key
            return at + len(_PARAMETER), Verdict.GO
        if text.startswith(_END, at):
            return self._close(at + len(_END))
        return (at, Verdict.MORE) if may_become(text, at, (_PARAMETER, _END)) else self._close(at)

    def _close(self, after: int) -> tuple[int, Verdict]:
        self._sink.arguments("}" if self._num_parameters else "{}")
        self._begun = False
        return after, Verdict.DONE

    def _key(self, text: str, at: int) -> tuple[int, Verdict]:
        key, after = _until_angle(text, at)
        if after <= 0:
            return (at, Verdict.MORE) if after == 0 else self._close(at)
        opening = ", " if self._num_parameters else "{"
        self._sink.arguments(f'{opening}"{json_text(key)}": ')
        self._num_parameters += 1
        self._kind, self._nullable = kind_of(self._types.get(key, ""))
        self._value, self._fresh = [], True
        if self._streams:
            self._sink.arguments('"')
        self._state = self._in_value
        return after, Verdict.GO

    @property
    def _streams(self) -> bool:
        return self._kind == "string" and not self._nullable

    def _in_value(self, text: str, at: int) -> tuple[int, Verdict]:
        if self._fresh:
            self._fresh = False
            at += text[at] == "\n"
        end = _ENDS.search(text, at)
        if end is None:
            after = len(text) - unfinished(text[max(at, len(text) - _LONGEST) :], _PARTS_OF_ENDS)
            self._take(text[at:after])
            return after, Verdict.GO if after == len(text) else Verdict.MORE
        self._take(text[at : end.start()])
        self._sink.arguments('"' if self._streams else _converted("".join(self._value), self._kind))
        self._state = self._between
        return end.end() if end[0].endswith(_VALUE_END) else end.start(), Verdict.GO

    def _take(self, piece: str) -> None:
        if not self._streams:
            self._value.append(piece)
        elif piece:
            self._sink.arguments(json_text(piece))


def _until_angle(text: str, at: int) -> tuple[str, int]:
    """A name that ends with ">" → (it, the place behind that); place 0 if there is none yet, -1 if it is no name."""
    end = text.find(">", at, at + MAX_NAME + 1)
    name = text[at:end] if end >= 0 else text[at:]
    if "\n" in name or "<" in name or len(name) > MAX_NAME or end == at:
        return "", -1
    return name, end + 1


def kind_of(named: str) -> tuple[str, bool]:
    """A schema's type → what it is here, and whether null is legal. What has no type is text."""
    base = named.removesuffix("?")
    kind = next((kind for kind, starts in _KINDS if base.startswith(starts)), "string")
    return kind, named.endswith("?")


def _converted(value: str, kind: str) -> str:
    """A value as written → JSON; text if it is not what the schema says."""
    plain = value.strip()
    if plain.lower() == "null":
        return "null"
    found: str | None = None
    if kind == "number":
        found = number_text(plain)
    elif kind == "boolean":
        found = plain.lower() if plain.lower() in ("true", "false") else None
    elif kind == "json":
        found = plain if is_json(plain) else literal_as_json(plain)
    return f'"{json_text(value)}"' if found is None else found
