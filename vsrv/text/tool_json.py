"""Calls written in JSON: `{"name": …, "arguments": {…}}`, alone, listed or in a row, and Mistral's `name{…}`.

Arguments pass as they are written. A call begins when its name is known and its arguments have started; what comes before may still
turn out to be text. Later faults only end the arguments early: a client that streams has them already.
"""

from __future__ import annotations

import json
import re

from vsrv.text.marks import may_become
from vsrv.text.tool_bodies import (
    MAX_NAME,
    JsonSpan,
    Reader,
    Sink,
    Tools,
    Verdict,
    past_space,
    whole_characters,
)

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_MAX_STRING = 4 * MAX_NAME  # characters of a key or a name as written
_ARGUMENTS = ("arguments", "parameters")
_KEYS = frozenset(("name", "type", "id", *_ARGUMENTS))
_WORD = re.compile(r'[^\s\[\]{}"]*')
_CALL_ID, _ARGS = "[CALL_ID]", "[ARGS]"


class JsonCalls(Reader):
    """One object, a list of them, or several in a row, with or without ";" between."""

    def __init__(self, sink: Sink, tools: Tools, offered_only: bool) -> None:
        super().__init__(sink, tools, offered_only)
        self._listed = False
        self._new_object()

    def _new_object(self) -> None:
        self._begun = False
        self._name = ""
        self._key = ""
        self._held: str | None = None  # whole arguments that came before the name
        self._pieces: list[str] = []
        self._span = JsonSpan("")

    def _start(self, text: str, at: int) -> tuple[int, Verdict]:
        """Between objects."""
        at = past_space(text, at)
        if at == len(text):
            return at, Verdict.GO
        found = text[at]
        if found == "{":
            self._state = self._member
            return at + 1, Verdict.GO
        if found == "[" and not self._listed and not self._num_begun:
            self._listed = True
            return at + 1, Verdict.GO
        if found == "]" and self._listed:
            return at + 1, Verdict.DONE if self._num_begun else Verdict.FAIL
        if found == ("," if self._listed else ";") and self._num_begun:
            return at + 1, Verdict.GO
        return at, Verdict.FAIL

    def _member(self, text: str, at: int) -> tuple[int, Verdict]:
        """A key, or the end of the object."""
        at = past_space(text, at)
        if at == len(text):
            return at, Verdict.GO
        if text[at] == "}":
            return self._end_of_object(at + 1)
        key, after = _string(text, at)
        if after == 0:
            return at, Verdict.MORE
        if after < 0 or (self._offered_only and not self._begun and key not in _KEYS):
            return self._broken(at)
        self._key, self._state = key, self._colon
        return after, Verdict.GO

    def _colon(self, text: str, at: int) -> tuple[int, Verdict]:
        at = past_space(text, at)
        if at == len(text):
            return at, Verdict.GO
        self._state = self._value
        return (at + 1, Verdict.GO) if text[at] == ":" else self._broken(at)

    def _value(self, text: str, at: int) -> tuple[int, Verdict]:
        at = past_space(text, at)
        if at == len(text):
            return at, Verdict.GO
        if self._key == "name" and not self._name:
            return self._name_value(text, at)
        self._span = JsonSpan(text[at])
        wanted = self._key in _ARGUMENTS and not self._begun and self._held is None
        self._state = self._argument if wanted else self._skipped
        if wanted and self._name and self._span.kind == "{":
            self._begin(self._name)
        return at, Verdict.GO

    def _name_value(self, text: str, at: int) -> tuple[int, Verdict]:
        name, after = _string(text, at)
        if after == 0:
            return at, Verdict.MORE
        if after < 0 or not 0 < len(name) <= MAX_NAME or (self._offered_only and name not in self._tools):
            return at, Verdict.FAIL
        self._name, self._state = name, self._comma
        if self._held is not None:
            self._begin_whole(self._held)
        return after, Verdict.GO

    def _argument(self, text: str, at: int) -> tuple[int, Verdict]:
        after, ended = self._span.read(text, at)
        if self._begun:
            self._sink.arguments(text[at:after])
        else:
            self._pieces.append(text[at:after])
        if not ended:
            return after, Verdict.GO
        if not self._begun:
            self._held = _decoded(self._span.kind, "".join(self._pieces))
            if self._name:
                self._begin_whole(self._held)
        self._state = self._comma
        return self._broken(after) if self._span.broken else (after, Verdict.GO)

    def _skipped(self, text: str, at: int) -> tuple[int, Verdict]:
        after, ended = self._span.read(text, at)
        if ended:
            self._state = self._comma
        return self._broken(after) if self._span.broken else (after, Verdict.GO)

    def _comma(self, text: str, at: int) -> tuple[int, Verdict]:
        at = past_space(text, at)
        if at == len(text):
            return at, Verdict.GO
        if text[at] == ",":
            self._state = self._member
            return at + 1, Verdict.GO
        return self._end_of_object(at + 1) if text[at] == "}" else self._broken(at)

    def _end_of_object(self, after: int) -> tuple[int, Verdict]:
        if not self._begun:
            if not self._name or self._offered_only:
                return after, Verdict.FAIL
            self._begin_whole("{}")
        self._new_object()
        self._state = self._start
        return after, Verdict.GO

    def _begin_whole(self, arguments: str) -> None:
        self._begin(self._name)
        self._sink.arguments(arguments)

    def _broken(self, at: int) -> tuple[int, Verdict]:
        return at, Verdict.DONE if self._begun else Verdict.FAIL


class MistralCalls(JsonCalls):
    """What follows [TOOL_CALLS]: a list as above, or, since the eleventh version of their tokenizers, one call as `name{…}`,
    with [ARGS] before the arguments and perhaps [CALL_ID] and an id before that."""

    def __init__(self, sink: Sink, tools: Tools, offered_only: bool) -> None:
        super().__init__(sink, tools, offered_only)
        self._state = self._head

    def _head(self, text: str, at: int) -> tuple[int, Verdict]:
        at = past_space(text, at)
        if at < len(text):
            self._state = self._start if text[at] in "[{" else self._word
        return at, Verdict.GO

    def _word(self, text: str, at: int) -> tuple[int, Verdict]:
        after = _past_word(text, at)
        self._name += text[at:after]
        if after < len(text):
            self._state = self._marks
        return after, Verdict.GO if 0 < len(self._name) <= MAX_NAME else Verdict.FAIL

    def _marks(self, text: str, at: int) -> tuple[int, Verdict]:
        """What is between the name and the arguments."""
        at = past_space(text, at)
        if at == len(text):
            return at, Verdict.GO
        if text[at] == "{":
            self._span, self._state = JsonSpan("{"), self._plain
            self._begin(self._name)
            return at, Verdict.GO
        for mark in (_CALL_ID, _ARGS):
            if text.startswith(mark, at):
                self._state = self._id if mark == _CALL_ID else self._marks
                return at + len(mark), Verdict.GO
        return at, Verdict.MORE if may_become(text, at, (_CALL_ID, _ARGS)) else Verdict.FAIL

    def _id(self, text: str, at: int) -> tuple[int, Verdict]:
        after = _past_word(text, at)
        if after < len(text):
            self._state = self._marks
        return after, Verdict.GO

    def _plain(self, text: str, at: int) -> tuple[int, Verdict]:
        after, ended = self._span.read(text, at)
        self._sink.arguments(text[at:after])
        return after, Verdict.DONE if ended else Verdict.GO


def _past_word(text: str, at: int) -> int:
    match = _WORD.match(text, at)
    return at if match is None else match.end()


def _string(text: str, at: int) -> tuple[str, int]:
    """A key or name at `at` → (it, the place behind it); place 0 if it has not ended yet, -1 if it is none."""
    if text[at] != '"':
        return "", -1
    match = _STRING.match(text, at)
    if match is None:
        return "", 0 if len(text) - at <= _MAX_STRING else -1
    try:
        value = json.loads(match[0])
    except ValueError:
        return "", -1
    return whole_characters(value), match.end() if len(match[0]) <= _MAX_STRING else -1


def _decoded(kind: str, written: str) -> str:
    """Arguments that are no object as written: null is none, and a string that holds an object is that object."""
    if written == "null":
        return "{}"
    if kind == '"':
        try:
            inner = json.loads(written)
        except ValueError:
            return written
        if inner.lstrip().startswith("{"):
            return whole_characters(inner)
    return written
