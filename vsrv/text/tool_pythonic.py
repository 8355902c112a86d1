"""Calls written as Python: `[f(a=1), g(b="x")]`, read by hand (never by Python) and turned into JSON, a call at a time.

Format: Llama 3.2's and 4's prompt format pages, "zero shot function calling". Values are literals; the order of arguments is kept.
"""

from __future__ import annotations

import re

from vsrv.text.tool_bodies import (
    MAX_NAME,
    Reader,
    Sink,
    Tools,
    Verdict,
    json_text,
    number_text,
    past_space,
    whole_characters,
)

_MAX_DEPTH = 64
_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_PLAIN = re.compile(r"[\"'()\[\]{}]")
_CLOSED_BY = {"(": ")", "[": "]", "{": "}"}
_IN_STRING = {quote: re.compile(rf"[\\{quote}]") for quote in "\"'"}
_NUMBER = re.compile(r"[-+]?[\w.]+(?:(?<=[eE])[-+]\d+)?")
_ESCAPE = re.compile(
    r"""\\(?:(\n)|([\\'"abfnrtv])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3}))"""
)
_ESCAPED = {
    "\\": "\\",
    "'": "'",
    '"': '"',
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}


class PythonicCalls(Reader):
    """A list of calls of offered tools, passed on one by one when they are complete."""

    def __init__(self, sink: Sink, tools: Tools, offered_only: bool) -> None:
        super().__init__(sink, tools, True)  # a bracket opens much else
        self._name = ""
        self._source: list[str] = []
        self._closers: list[str] = []
        self._quote = ""
        self._strange = False  # the last call could not be read: it is text

    def _start(self, text: str, at: int) -> tuple[int, Verdict]:
        self._state = self._before_call
        return (at + 1, Verdict.GO) if text[at] == "[" else (at, Verdict.FAIL)

    def _before_call(self, text: str, at: int) -> tuple[int, Verdict]:
        at = past_space(text, at)
        if at == len(text):
            return at, Verdict.GO
        if text[at] == "]" and self._num_begun:
            return at + 1, Verdict.DONE
        match = _NAME.match(text, at)
        if match is None or len(match[0]) > MAX_NAME:
            return at, Verdict.FAIL
        after = match.end()
        if after == len(text):
            return at, Verdict.MORE
        if text[after] != "(" or match[0] not in self._tools:
            return at, Verdict.FAIL
        self._name, self._source, self._closers = match[0], [], [")"]
        self._state = self._arguments
        return after + 1, Verdict.GO

    def _arguments(self, text: str, at: int) -> tuple[int, Verdict]:
        """One bracket or quote further."""
        if self._quote:
            return self._in_string(text, at)
        match = _PLAIN.search(text, at)
        if match is None:
            return self._taken(text, at, len(text))
        found, after = match[0], match.end()
        if found in "\"'":
            if text[match.start() : match.start() + 3] in (found, found * 2):  # perhaps three of them
                return *self._taken(text, at, match.start())[:1], Verdict.MORE
            tripled = text.startswith(found * 3, match.start())
            self._quote = found * 3 if tripled else found
            return self._taken(text, at, after + 2 * tripled)
        if found in _CLOSED_BY:
            self._closers.append(_CLOSED_BY[found])
            verdict = Verdict.GO if len(self._closers) <= _MAX_DEPTH else Verdict.FAIL
            return *self._taken(text, at, after)[:1], verdict
        if self._closers.pop() != found:
            return at, Verdict.FAIL
        self._taken(text, at, after)
        if not self._closers:
            self._end_of_call()
        return after, Verdict.GO

    def _in_string(self, text: str, at: int) -> tuple[int, Verdict]:
        match = _IN_STRING[self._quote[0]].search(text, at)
        if match is None:
            return self._taken(text, at, len(text))
        start = match.start()
        if start + 1 == len(text) and (match[0] == "\\" or len(self._quote) == 3):
            return *self._taken(text, at, start)[:1], Verdict.MORE
        if match[0] == "\\":
            return self._taken(text, at, start + 2)
        if text.startswith(self._quote, start):
            after = start + len(self._quote)
            self._quote = ""
            return self._taken(text, at, after)
        if len(self._quote) == 3 and self._quote.startswith(text[start:]):
            return *self._taken(text, at, start)[:1], Verdict.MORE
        return self._taken(text, at, start + 1)

    def _taken(self, text: str, at: int, after: int) -> tuple[int, Verdict]:
        self._source.append(text[at:after])
        return after, Verdict.GO

    def _end_of_call(self) -> None:
        arguments = arguments_as_json("".join(self._source), list(self._tools[self._name]))
        self._strange = arguments is None
        if arguments is not None:
            self._begin(self._name)
            self._sink.arguments(arguments)
            self._begun = False
        self._state = self._after_call

    def _after_call(self, text: str, at: int) -> tuple[int, Verdict]:
        if self._strange:
            self._sink.content(self.refused())
            self._read = []
        at = past_space(text, at)
        if at == len(text):
            return at, Verdict.GO
        if text[at] == ",":
            self._state = self._before_call
            return at + 1, Verdict.GO
        if text[at] == "]":
            return at + 1, Verdict.FAIL if self._strange else Verdict.DONE
        return at, Verdict.FAIL


class _NoLiteral(Exception):
    """The text is no Python literal that JSON could hold."""


def arguments_as_json(source: str, names: list[str]) -> str | None:
    """What is between a call's brackets, with the one that closes it → a JSON object; None if it cannot be read.

    `names` are the tool's parameters, for arguments without a name.
    """
    reader = _Literals(source)
    try:
        return reader.arguments(names)
    except _NoLiteral:
        return None


def literal_as_json(source: str) -> str | None:
    """A Python literal → JSON, None if it is none."""
    reader = _Literals(source)
    try:
        found = reader.value(0)
    except _NoLiteral:
        return None
    return found if reader.at == len(source) else None


class _Literals:
    """Reads Python literals out of a whole text, in one pass."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.at = 0

    def arguments(self, names: list[str]) -> str:
        parts: list[str] = []
        while not self._ate(")"):
            match = _NAME.match(self._source, self.at)
            equals = -1 if match is None else past_space(self._source, match.end())
            if match is not None and self._source.startswith("=", equals):
                self.at = past_space(self._source, equals + 1)
                name = match[0]
            elif len(parts) < len(names):
                name = names[len(parts)]
            else:
                raise _NoLiteral
            parts.append(f'"{json_text(name)}": {self.value(0)}')
            if not self._ate(","):
                if not self._ate(")"):
                    raise _NoLiteral
                break
        return "{" + ", ".join(parts) + "}"

    def value(self, depth: int) -> str:
        first = self._source[self.at : self.at + 1]
        if depth > _MAX_DEPTH or not first:
            raise _NoLiteral
        if first in "\"'":
            return f'"{json_text(self._string())}"'
        if first in "[(":
            self._ate(first)
            return "[" + ", ".join(self._items(_CLOSED_BY[first], depth)) + "]"
        if first == "{":
            self._ate(first)
            return "{" + ", ".join(self._items("}", depth)) + "}"
        return self._word()

    def _items(self, closer: str, depth: int) -> list[str]:
        items: list[str] = []
        while not self._ate(closer):
            item = self.value(depth + 1)
            if closer == "}":
                key = item if item.startswith('"') else f'"{json_text(item)}"'
                if not self._ate(":") or item[0] in "[{":
                    raise _NoLiteral
                item = f"{key}: {self.value(depth + 1)}"
            items.append(item)
            if not self._ate(","):
                if not self._ate(closer):
                    raise _NoLiteral
                break
        return items

    def _word(self) -> str:
        match = _NUMBER.match(self._source, self.at)
        word = "" if match is None else match[0]
        found = _WORDS.get(word) or number_text(word)
        if found is None:
            raise _NoLiteral
        self._skip(len(word))
        return found

    def _string(self) -> str:
        quote = self._source[self.at]
        quote = quote * 3 if self._source.startswith(quote * 3, self.at) else quote
        start = end = self.at + len(quote)
        while not self._source.startswith(quote, end):
            match = _IN_STRING[quote[0]].search(self._source, end)
            if match is None:
                raise _NoLiteral
            end = match.start() if match[0] != "\\" else match.end() + 1
            if match[0] != "\\" and not self._source.startswith(quote, end):
                end += 1
        written = self._source[start:end]
        self._skip(end + len(quote) - self.at)
        return whole_characters(_ESCAPE.sub(_unescaped, written))

    def _ate(self, mark: str) -> bool:
        if not self._source.startswith(mark, self.at):
            return False
        self._skip(len(mark))
        return True

    def _skip(self, length: int) -> None:
        self.at = past_space(self._source, self.at + length)


def _unescaped(match: re.Match[str]) -> str:
    newline, letter, *codes, octal = match.groups()
    if newline is not None:
        return ""
    if letter is not None:
        return _ESCAPED[letter]
    code = next((int(digits, 16) for digits in codes if digits is not None), None)
    code = int(octal, 8) if code is None else code
    return chr(code) if code <= 0x10FFFF else "\ufffd"
