"""What the answer must look like: the fields of a request that constrain it → one grammar, or none.

The ways in are OpenAI's `response_format`, vLLM's `structured_outputs` and its older `guided_*` names. One constraint at most; what cannot
be honoured to the letter is a 400 that names the field. Compiling belongs into the prepare child: see `GrammarChecker`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vsrv.api.fields import Field, Fields, invalid, parse_object, table
from vsrv.errors import UserError
from vsrv.text import grammar as grammars
from vsrv.text import structural_tag
from vsrv.text.grammar import GrammarChecker, GrammarError, JsonStyle

_MAX_CHOICE_CHARACTERS = 64 * 1024
STYLE_ROWS = (
    Field("disable_any_whitespace", "boolean", "compact JSON, without whitespace", default=False),
    Field("whitespace_pattern", "text", "a regular expression of the whitespace in JSON", 1, 256, ""),
    Field("disable_additional_properties", "boolean", "objects have no properties but those that are listed", default=False),
)  # fmt: skip
CONSTRAINT_ROWS = (
    Field("json", "any", "a JSON schema, as an object or as its text"),
    Field("json_object", "boolean", "any JSON object", default=False),
    Field("regex", "text", "a regular expression of the whole answer", 1, grammars.MAX_REGEX_CHARACTERS, None),
    Field("choice", "list", "the answer is one of these texts", 1, grammars.MAX_CHOICES, None),
    Field("grammar", "text", "a grammar of the answer, as Lark or EBNF", 1, grammars.MAX_GRAMMAR_CHARACTERS, None),
    Field("structural_tag", "any", "tags in free text, and what they enclose"),
)  # fmt: skip
STRUCTURED_OUTPUTS = table(*CONSTRAINT_ROWS, *STYLE_ROWS)
_OLD_NAMES: Mapping[str, str] = {  # field of a request → of structured_outputs
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "structural_tag": "structural_tag",
}
_FORMATS = ("text", "json_object", "json_schema", "structural_tag")


class ChildNeeded(Exception):
    """This request must be prepared where a slow or hostile grammar can be stopped."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """One thing asked for. kind: a name of CONSTRAINT_ROWS; param: the field that asked."""

    kind: str
    value: Any
    param: str
    style: JsonStyle
    closed: bool = False  # objects take no properties that are not listed


def grammar_of(fields: Fields, checker: GrammarChecker | None) -> str:
    """The grammar that a request asks for, "" if it asks for none. Raises UserError 400, or ChildNeeded without a checker."""
    found = list(_constraints(fields))
    if not found:
        return ""
    if len(found) > 1:
        raise invalid(found[1].param, f"{found[0].param} constrains the answer already: send one of them")
    if checker is None:
        raise ChildNeeded
    return compiled(found[0], checker)


def compiled(constraint: Constraint, checker: GrammarChecker) -> str:
    """A constraint's grammar, checked. Raises UserError 400 `invalid_grammar` or `unsupported_schema`."""
    style = JsonStyle(True) if checker.compact else constraint.style
    constraint = replace(constraint, style=style, closed=constraint.closed or checker.closed)
    try:
        grammar = _BUILDERS[constraint.kind](constraint, checker)
        checker.check(grammar)
    except GrammarError as error:
        code = "unsupported_schema" if constraint.kind == "json" else error.code
        raise UserError(400, code, f"{constraint.param}: {error.message}", constraint.param) from None
    return grammar


def _constraints(fields: Fields) -> Iterator[Constraint]:
    style = _style(fields["guided_whitespace_pattern"], False)
    if fields.has("response_format"):
        yield from _of_response_format(fields["response_format"], style)
    if fields.has("structured_outputs"):
        yield from _of_structured_outputs(fields["structured_outputs"])
    for name, kind in _OLD_NAMES.items():
        if fields.has(name):
            yield Constraint(kind, fields[name], name, style)
    if fields["guided_json_object"]:
        yield Constraint("json_object", True, "guided_json_object", style)


def _style(pattern: str, compact: bool) -> JsonStyle:
    return JsonStyle(compact, pattern) if pattern else JsonStyle(compact)


def _of_response_format(given: Mapping[str, Any], style: JsonStyle) -> Iterator[Constraint]:
    kind = given.get("type")
    if kind not in _FORMATS:
        raise invalid("response_format.type", f"expected one of {', '.join(_FORMATS)}")
    if kind == "json_object":
        yield Constraint("json_object", True, "response_format", style)
    elif kind == "structural_tag":
        yield Constraint("structural_tag", given, "response_format", style)
    elif kind == "json_schema":
        inner = given.get("json_schema")
        schema = inner.get("schema", inner.get("json_schema")) if isinstance(inner, Mapping) else None
        if schema is None:
            raise invalid("response_format.json_schema", "expected an object with a 'schema'")
        yield Constraint("json", schema, "response_format.json_schema.schema", style)


def _of_structured_outputs(given: Mapping[str, Any]) -> Iterator[Constraint]:
    inner = Fields(given, STRUCTURED_OUTPUTS, where="structured_outputs.")
    for name in given:
        if name not in STRUCTURED_OUTPUTS and not name.startswith("_"):
            raise invalid(f"structured_outputs.{name[:60]}", "is not known")
    style = _style(inner["whitespace_pattern"], inner["disable_any_whitespace"])
    closed = inner["disable_additional_properties"]
    asked = [row.name for row in CONSTRAINT_ROWS if inner.has(row.name) and inner[row.name] is not False]
    if not asked:
        raise invalid("structured_outputs", f"needs one of {', '.join(row.name for row in CONSTRAINT_ROWS)}")
    for name in asked:
        yield Constraint(name, inner[name], f"structured_outputs.{name}", style, closed)


def _json(constraint: Constraint) -> str:
    schema = _parsed(constraint.value, constraint.param)
    return grammars.of_schema(_closed(schema) if constraint.closed else schema, constraint.style)


def _parsed(value: Any, param: str) -> Any:
    """An object, also where it was sent as its text."""
    if not isinstance(value, str):
        return value
    try:
        return parse_object(value.encode())
    except UserError as error:
        raise invalid(param, error.message.replace("the body", "the text")) from None


def _closed(schema: Any) -> Any:
    """A schema whose objects take no properties that are not listed, where it does not say."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def _choice(constraint: Constraint) -> str:
    choices = constraint.value
    if not all(isinstance(choice, str) and choice for choice in choices):
        raise invalid(constraint.param, "expected texts that are not empty")
    if sum(map(len, choices)) > _MAX_CHOICE_CHARACTERS:
        raise invalid(constraint.param, f"more than {_MAX_CHOICE_CHARACTERS} characters in all")
    return grammars.of_choice(choices)


def _structural_tag(constraint: Constraint, checker: GrammarChecker) -> str:
    tag = _parsed(constraint.value, constraint.param)
    return structural_tag.grammar_of(tag, constraint.style, checker.special)


_BUILDERS: Mapping[str, Callable[[Constraint, GrammarChecker], str]] = {
    "json": lambda constraint, _: _json(constraint),
    "json_object": lambda constraint, _: grammars.of_any_object(constraint.style),
    "regex": lambda constraint, _: grammars.of_regex(constraint.value),
    "choice": lambda constraint, _: _choice(constraint),
    "grammar": lambda constraint, _: grammars.of_grammar(constraint.value),
    "structural_tag": _structural_tag,
}
