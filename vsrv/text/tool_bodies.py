"""What the readers of all tool-call formats share: where calls go, verdicts, JSON values of unknown length, parameter types."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

MAX_NAME = 256  # characters of a function's or parameter's name, else it is none
_LOOK_UPS = 16  # of references in a schema, before its type counts as unknown
_SPACE = re.compile(r"\s*")
_QUOTED = re.compile(r'["\\]')
_PLAIN = re.compile(r'["{}\[\]<]')
_SCALAR_END = re.compile(r"[,\]}\s<]")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")

Tools = Mapping[str, Mapping[str, str]]
"""Offered tools: name → parameter → type. The type is one of JSON schema's, with "?" behind it if null is legal, "" if unknown."""


class Verdict(enum.Enum):
    """What a reader says of its place in the text."""

    GO = enum.auto()  # go on reading
    MORE = enum.auto()  # it ends in the middle of something: the rest is looked at again with what follows
    DONE = enum.auto()  # the calls are over
    FAIL = enum.auto()  # this is no call, or no more of them


class Sink(Protocol):
    """Where a reader puts what it found. `arguments` follow the `begin` of their call."""

    def begin(self, name: str) -> None: ...
    def arguments(self, piece: str) -> None: ...
    def content(self, piece: str) -> None: ...


class Reader:
    """Reads what follows a mark that opens calls, in any cut. A format's reader is a set of states, which are methods:
    (text, place) → (place read to, verdict). What they read outside of calls is kept until it is known to be markup.
    """

    def __init__(self, sink: Sink, tools: Tools, offered_only: bool) -> None:
        """`offered_only`: a name that is no offered tool's makes no call."""
        self._sink = sink
        self._tools = tools
        self._offered_only = offered_only
        self._state: State = self._start
        self._begun = False  # inside of a call
        self._num_begun = 0
        self._read: list[str] = []

    def opened(self, mark: str) -> None:
        """The mark that led here: markup, if a call follows."""
        self._read.append(mark)

    def read(self, text: str, at: int) -> tuple[int, Verdict]:
        """Read on from `at` → the place read to, and MORE, DONE or FAIL."""
        while at < len(text):
            outside, num_begun = not self._begun, self._num_begun
            after, verdict = self._state(text, at)
            if outside and num_begun == self._num_begun:
                self._read.append(text[at:after])
            at = after
            if verdict is not Verdict.GO:
                return at, verdict
        return at, Verdict.MORE

    def refused(self) -> str:
        """After FAIL: what was read and is part of no call."""
        return "".join(self._read)

    def finish(self, rest: str) -> str:
        """No more text will come; `rest` was not read → what was read or not and is part of no call."""
        return "" if self._begun else self.refused() + rest

    def _start(self, text: str, at: int) -> tuple[int, Verdict]:
        raise NotImplementedError

    def _begin(self, name: str) -> None:
        self._sink.begin(name)
        self._begun = True
        self._num_begun += 1
        self._read = []


State = Callable[[str, int], tuple[int, Verdict]]


class JsonSpan:
    """Follows one JSON value to its end, without looking closer than at strings and brackets.

    `kind` is "{" or "[" for these, '"' for a string, "" for a scalar. `broken`: markup came where JSON had to follow.
    """

    __slots__ = ("_depth", "_escaped", "_quoted", "broken", "kind")

    def __init__(self, first: str) -> None:
        self.kind = first if first in '{["' else ""
        self.broken = False
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def read(self, text: str, at: int) -> tuple[int, bool]:
        """→ (the place read to, whether the value ended there)."""
        if not self.kind:
            match = _SCALAR_END.search(text, at)
            return (len(text), False) if match is None else (match.start(), True)
        if self._escaped and at < len(text):
            at, self._escaped = at + 1, False
        while True:
            match = (_QUOTED if self._quoted else _PLAIN).search(text, at)
            if match is None:
                return len(text), False
            at = match.end()
            found = match[0]
            if found == "\\":
                if at == len(text):
                    self._escaped = True
                    return at, False
                at += 1
            elif found == "<":
                self.broken = True
                return at - 1, True
            elif self._counted(found):
                return at, True

    def _counted(self, found: str) -> bool:
        """Whether a quote or bracket ends the value."""
        if found == '"':
            self._quoted = not self._quoted
        else:
            self._depth += 1 if found in "{[" else -1
        return self._depth == 0 and not self._quoted


def past_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def json_text(text: str) -> str:
    """Text as a JSON string without its quotes; the pieces of a text may be taken one by one."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def whole_characters(text: str) -> str:
    """Pairs of surrogates joined, single ones replaced: nothing else can be sent as UTF-8."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def number_text(text: str) -> str | None:
    """A number as models spell it → JSON, digits as they are; None if it is none that JSON has."""
    if _JSON_NUMBER.fullmatch(text):
        return text if len(text) <= 400 and _is_finite(text) else None
    plain = text.replace("_", "")
    if len(plain) > 100:
        return None
    try:
        value = float(plain)
    except ValueError:
        return None
    whole = plain.lstrip("+")
    if whole.lstrip("-").isdigit():
        return str(int(whole))
    return repr(value) if _is_finite(plain) else None


def _is_finite(number: str) -> bool:
    return abs(float(number)) != float("inf") and float(number) == float(number)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def parameter_types(schema: Any) -> dict[str, str]:
    """A tool's `parameters` → the type of each of its properties, in their order."""
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping):
        return {}
    return {str(name): _type_of(value, schema) for name, value in properties.items()}


def _type_of(schema: Any, root: Mapping[str, Any]) -> str:
    """The first type that is not null, as vLLM takes it; "?" if null is one."""
    names: list[str] = []
    waiting, looked = [schema], 0
    while waiting and looked < _LOOK_UPS:
        looked += 1
        part = waiting.pop(0)
        if not isinstance(part, Mapping):
            continue
        own = part.get("type")
        names += (
            [own]
            if isinstance(own, str)
            else [n for n in own if isinstance(n, str)]
            if isinstance(own, list)
            else []
        )
        if own is None:
            for value in (part["const"],) if "const" in part else _listed(part.get("enum")):
                names.append(_type_of_value(value))
        for key in ("anyOf", "oneOf", "allOf"):
            waiting += _listed(part.get(key))[:_LOOK_UPS]
        if isinstance(part.get("$ref"), str):
            waiting.append(_referred(part["$ref"], root))
    first = next((name for name in names if name != "null"), "")
    return first + ("?" if "null" in names else "")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _type_of_value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    kinds = {str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return kinds.get(type(value), "")


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    """#/$defs/Name → that part of the schema, None if there is no such."""
    place: Any = root
    for step in reference.removeprefix("#/").split("/"):
        place = place.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(place, Mapping) else None
    return place
