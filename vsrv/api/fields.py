"""What a field of a request is, and how its value is read: typed, bounded, with a refusal that names it.

The tables of fields are in api/request_fields.py; the OpenAPI document is made of the same rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from vsrv.errors import UserError

MAX_NESTING = 32  # rule R17: bounded before the parser recurses
# A string that never ends is one up to the end: without that, a search for its end would start again at every quote in it.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")

Bound = int | float | str  # a text names the attribute of ModelFacts that has the number
Kind = Literal[
    "boolean",
    "integer",
    "number",
    "text",
    "choice",
    "texts",  # a text or a list of texts
    "token_ids",
    "biases",  # an object: token id → number
    "variables",  # an object: name → scalar
    "object",  # its entries are read by whoever asked for it
    "list",  # its entries are read by whoever asked for it
    "prompt",  # a text, a list of texts, token ids, or a list of lists of these
    "any",  # without a meaning here: nothing of it is looked at
    "refused",  # asks for what vsrv does not do; `harmless` values ask for nothing
]
BOUNDED: frozenset[Kind] = frozenset(
    ("integer", "number", "text", "texts", "token_ids", "biases", "variables", "object", "list", "prompt")
)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request body. null means absent everywhere, as OpenAI's clients send it.

    `low` and `high` bound a number itself, the characters of a text, the entries of a list or object; `above_low`
    excludes `low`. `longest` bounds the characters of each text in it. `pattern` is for the whole of a text, and
    `expected` says what it allows. `schema` is a JSON schema of what a kind alone does not say.
    """

    name: str
    kind: Kind
    help: str
    low: Bound | None = None
    high: Bound | None = None
    default: Any = None
    dialects: tuple[str, ...] = ()
    above_low: bool = False
    choices: tuple[str, ...] = ()
    longest: int = 0
    pattern: str = ""
    expected: str = ""
    harmless: tuple[Any, ...] = ()
    required: bool = False
    schema: Mapping[str, Any] | None = None

    def bounds(self, facts: object) -> tuple[Any, Any]:
        """The two as numbers for a served model."""
        low, high = self.low, self.high
        return (
            getattr(facts, low) if isinstance(low, str) else low,
            getattr(facts, high) if isinstance(high, str) else high,
        )


Table = Mapping[str, Field]


def table(*fields: Field) -> Table:
    return {field.name: field for field in fields}


def refused(name: str, why: str = "", *harmless: Any, dialects: tuple[str, ...] = ()) -> Field:
    """A row for what vsrv does not do; null and the `harmless` values ask for nothing."""
    return Field(name, "refused", "not supported", dialects=dialects, harmless=harmless, expected=why)


def invalid(param: str, message: str) -> UserError:
    return UserError(400, "invalid_value", f"{param}: {message}", param)


def unsupported(param: str, message: str) -> UserError:
    return UserError(400, "unsupported_parameter", f"{param} {message}", param)


class Fields:
    """Reads one object of a request: `fields["n"]` is the checked value or the row's default. Raises UserError 400.

    `facts` has the numbers that bounds name; `where` is put before a field's name where the object is itself a field.
    """

    def __init__(
        self, body: Mapping[str, Any], rows: Table | None = None, facts: object = None, where: str = ""
    ) -> None:
        self._body = body
        self._rows: Table = rows or {}
        self._facts = facts
        self._where = where
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = self._read(self._rows[name])
        return self._values[name]

    def raw(self, name: str) -> Any:
        return self._body.get(name)

    def has(self, name: str) -> bool:
        return self._body.get(name) is not None

    def takes(self, name: str) -> bool:
        """Whether a field of this name has a row."""
        return name in self._rows

    def check(self) -> None:
        """Read every field that is there. Raises UserError on the first that asks in vain or has a wrong value."""
        for name in self._body:
            row = self._rows.get(name)
            if row is not None and row.kind == "refused":
                self._read(row)
        for name in self._body:
            if name in self._rows:
                self[name]

    def unknown(self, known: frozenset[str]) -> tuple[str, ...]:
        """Names that are in no table, cut to what fits into a log line."""
        return tuple(name[:60] for name in self._body if name not in known)[:10]

    def _read(self, row: Field) -> Any:
        value = self._body.get(row.name)
        if value is None:
            return row.default
        return _READERS[row.kind](row, value, self._where + row.name, self._facts)

    # for objects that have no table

    def integer(self, name: str, low: int, high: int, default: int | None) -> int | None:
        value: int | None = self._read(Field(name, "integer", "", low, high, default))
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        return float(self._read(Field(name, "number", "", low, high, default)))

    def boolean(self, name: str, default: bool) -> bool:
        return bool(self._read(Field(name, "boolean", "", default=default)))

    def text(self, name: str, longest: int, default: str) -> str:
        return str(self._read(Field(name, "text", "", 0, longest, default)))


def _integer(row: Field, value: Any, param: str, facts: object) -> int:
    value = _whole(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(param, f"expected an integer, got {shown(value)}")
    low, high = row.bounds(facts)
    if not low <= value <= high:
        raise invalid(param, f"must be from {low} to {high}, got {value}")
    return value


def _whole(value: Any) -> Any:
    """3.0 is 3; above 2**53 a float is not what was sent (orjson reads what int64 cannot hold as one)."""
    exact = isinstance(value, float) and value.is_integer() and abs(value) <= 2**53
    return int(value) if exact else value


def _number(row: Field, value: Any, param: str, facts: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise invalid(param, f"expected a finite number, got {shown(value)}")
    low, high = row.bounds(facts)
    if not low <= value <= high:
        raise invalid(param, f"must be from {low:g} to {high:g}, got {value:g}")
    if row.above_low and value == low:
        raise invalid(param, f"must be above {low:g}")
    return float(value)


def _boolean(row: Field, value: Any, param: str, facts: object) -> bool:
    if not isinstance(value, bool):
        raise invalid(param, f"expected true or false, got {shown(value)}")
    return value


def _text(row: Field, value: Any, param: str, facts: object) -> str:
    low, high = row.bounds(facts)
    if not isinstance(value, str) or len(value) > high:
        raise invalid(param, f"expected text of at most {high} characters")
    if len(value) < low:
        raise invalid(param, "must not be empty" if low == 1 else f"needs {low} characters at least")
    if row.pattern and not re.fullmatch(row.pattern, value):
        raise invalid(param, f"expected {row.expected}")
    return value


def _choice(row: Field, value: Any, param: str, facts: object) -> str:
    if not isinstance(value, str) or value not in row.choices:
        raise invalid(param, f"expected one of {', '.join(row.choices)}")
    return value


def _texts(row: Field, value: Any, param: str, facts: object) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    low, high = row.bounds(facts)
    if not isinstance(items, list) or not low <= len(items) <= high:
        raise invalid(param, f"expected text or a list of at most {high} texts")
    for item in items:
        if not isinstance(item, str) or not 0 < len(item) <= row.longest:
            raise invalid(param, f"each text needs 1 to {row.longest} characters")
    return tuple(items)


def _token_ids(row: Field, value: Any, param: str, facts: object) -> tuple[int, ...]:
    low, high = row.bounds(facts)
    if not isinstance(value, list) or len(value) > high:
        raise invalid(param, f"expected a list of at most {high} token ids")
    if len(value) < low:
        raise invalid(param, "must not be empty")
    vocab_size: int = getattr(facts, "vocab_size")  # noqa: B009
    return tuple(token_id(item, param, vocab_size) for item in value)


def _biases(row: Field, value: Any, param: str, facts: object) -> tuple[tuple[int, float], ...]:
    """Values are clamped to -100 … 100, as vLLM does."""
    _, high = row.bounds(facts)
    if not isinstance(value, dict) or len(value) > high:
        raise invalid(param, f"expected an object of at most {high} token ids")
    vocab_size: int = getattr(facts, "vocab_size")  # noqa: B009
    biases: list[tuple[int, float]] = []
    for key, bias in value.items():
        if not key.isascii() or not key.isdigit():
            raise invalid(param, f"key {shown(key)} is no token id")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not math.isfinite(bias):
            raise invalid(param, f"bias of {key[:60]} must be a finite number")
        biases.append((token_id(int(key[:20]), param, vocab_size), min(100.0, max(-100.0, float(bias)))))
    return tuple(biases)


def _variables(row: Field, value: Any, param: str, facts: object) -> dict[str, Any]:
    """Scalars only, short, under plain names that are not among `choices` (rule R12)."""
    _, high = row.bounds(facts)
    if not isinstance(value, dict) or len(value) > high:
        raise invalid(param, f"expected an object of at most {high} variables")
    for name, item in value.items():
        scalar = item is None or isinstance(item, bool | int | float)
        scalar = scalar or (isinstance(item, str) and len(item) <= row.longest)
        if name in row.choices or not name.isidentifier() or name.startswith("_") or not scalar:
            raise invalid(param, f"{name[:60]!r} is not allowed: plain names with scalar values only")
    return value


def _object(row: Field, value: Any, param: str, facts: object) -> dict[str, Any]:
    _, high = row.bounds(facts)
    if not isinstance(value, dict) or len(value) > high:
        raise invalid(param, f"expected an object of at most {high} entries")
    return value


def _list(row: Field, value: Any, param: str, facts: object) -> list[Any]:
    low, high = row.bounds(facts)
    if not isinstance(value, list) or not low <= len(value) <= high:
        raise invalid(param, f"expected a list of {low} to {high} entries")
    return value


def _prompt(row: Field, value: Any, param: str, facts: object) -> list[str | tuple[int, ...]]:
    """Every prompt as a text or as ids, none of them empty."""
    _, high = row.bounds(facts)
    if value in ("", []):
        raise invalid(param, "is missing or empty")
    lone = isinstance(value, str) or (isinstance(value, list) and isinstance(value[0], int | float))
    items = [value] if lone else value
    if not isinstance(items, list) or len(items) > high:
        raise invalid(param, f"expected text, token ids, or a list of at most {high} of these")
    if not all(item and isinstance(item, str | list) for item in items):
        raise invalid(param, "expected non-empty text or token ids, not a mixture")
    vocab_size: int = getattr(facts, "vocab_size")  # noqa: B009
    return [
        item if isinstance(item, str) else tuple(token_id(token, param, vocab_size) for token in item)
        for item in items
    ]


def _any(row: Field, value: Any, param: str, facts: object) -> Any:
    return value


def _refused(row: Field, value: Any, param: str, facts: object) -> None:
    # 0 == False and 1 == True in Python, not in JSON
    if not any(value == item and type(value) is type(item) for item in row.harmless):
        raise unsupported(param, row.expected or "is not supported by this version of vsrv")


_READERS: Mapping[Kind, Callable[[Field, Any, str, object], Any]] = {
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "text": _text,
    "choice": _choice,
    "texts": _texts,
    "token_ids": _token_ids,
    "biases": _biases,
    "variables": _variables,
    "object": _object,
    "list": _list,
    "prompt": _prompt,
    "any": _any,
    "refused": _refused,
}


def token_id(value: Any, name: str, vocab_size: int) -> int:
    """Rule R11: 0 <= id < vocabulary, and no bool in disguise. 3.0 is the integer 3, as in JSON schemas."""
    value = _whole(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < vocab_size:
        raise invalid(name, f"token id {shown(value)} is out of the vocabulary (0 to {vocab_size - 1})")
    return value


def shown(value: Any) -> str:
    """A value as an error names it: short, and never the contents of an object."""
    text = repr(value) if isinstance(value, str | int | float | bool) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def parse_object(body: bytes | bytearray) -> dict[str, Any]:
    """JSON bytes → object, nesting bounded before parsing. Raises UserError 400."""
    if deeper_than(body, MAX_NESTING):
        raise UserError(400, "invalid_json", f"the body is nested deeper than {MAX_NESTING} levels")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:  # its own words are not ours to send (rule R8)
        where = f"line {error.lineno}, column {error.colno}"
        raise UserError(400, "invalid_json", f"the body is not valid JSON ({where})") from None
    if not isinstance(value, dict):
        raise UserError(400, "invalid_json", "the body must be a JSON object")
    return value


def deeper_than(text: bytes | bytearray, limit: int) -> bool:
    """Whether JSON text is nested deeper than `limit` levels, in linear time and without recursion."""
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    depth = 0
    for match in _BRACKET.finditer(_STRING.sub(b"", text)):
        depth += 1 if match[0] in b"[{" else -1
        if depth > limit:
            return True
    return False
