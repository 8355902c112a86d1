"""JSON schemas as requests send them → schemas that llguidance enforces to the letter, or the keyword that stands in the way.

llguidance refuses most of what it cannot do, but not all: what its documentation names as departures from Draft 2020-12 is refused or
rewritten here, so that every finished output is valid. Sizes are bounded (rule R17), references are local and lead somewhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

MAX_BYTES = 64 * 1024
MAX_NODES, MAX_DEPTH = 1024, 16
MAX_ENUM, MAX_BRANCHES = 1024, 64
MAX_SHAPES = 8 * MAX_NODES  # looked at to tell branches of oneOf apart, references followed
MAX_COUNT = 100_000  # of items, properties, characters
MAX_MULTIPLE = 4096  # numerator of multipleOf: its automaton has as many states

Schema = dict[str, Any]
PatternFault = Callable[[str], str]  # what is wrong with a regular expression; "" if nothing is

_REFUSED = frozenset(
    """
    not if then else dependentSchemas dependentRequired dependencies contains minContains maxContains
    unevaluatedProperties unevaluatedItems $dynamicRef $recursiveRef $dynamicAnchor $recursiveAnchor
    """.split()
)
_ONE, _MANY, _NAMED = ("items", "additionalProperties", "additionalItems"), ("allOf", "anyOf", "oneOf", "prefixItems"), (
    "properties", "patternProperties", "$defs", "definitions",
)  # fmt: skip
_PLAIN_NAMES = frozenset("type enum const pattern minLength maxLength title description properties".split())
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_TYPES = frozenset(("null", "boolean", "number", "integer", "string", "array", "object"))

_LEAP = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][48]|[13579][26]|[2468]0)00)"
_DATE = (
    r"(?:(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-"
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    rf"|{_LEAP}-02-29)"
)
_TIME = (
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_LABEL = "[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"
# Stricter than llguidance's, as patterns that all hold: the 29th of February in leap years only, no year 0, no leap seconds, fractions that
# clocks have (RFC 3339); host names without A-labels, whose contents no pattern can check (RFC 5891), and of bounded length (RFC 1123).
_FORMATS: Mapping[str, tuple[str, ...]] = {
    "date": (f"^{_DATE}$",),
    "time": (f"^{_TIME}$",),
    "date-time": (f"^{_DATE}[tT]{_TIME}$",),
    "hostname": (rf"^{_LABEL}(?:\.{_LABEL})*$", r"^[^.]{1,63}(?:\.[^.]{1,63})*$"),
}
_FORMATS = {
    **_FORMATS,
    # pydantic's UUID1 … UUID8: the version is the first digit of the third group (RFC 9562)
    **{
        f"uuid{version}": (
            f"^[0-9a-f]{{8}}-[0-9a-f]{{4}}-{version}[0-9a-f]{{3}}-[89ab][0-9a-f]{{3}}-[0-9a-f]{{12}}$",
        )
        for version in range(1, 9)
    },
}
_MAX_HOSTNAME = 253
# OpenAPI's and pydantic's names for how a text is shown or used: they ask nothing of it
_ANNOTATIONS = frozenset("password binary path file-path directory-path new-path multi-line".split())
_KNOWN_FORMATS = frozenset((*_FORMATS, "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"))


class SchemaError(Exception):
    """A schema that cannot be honoured; the text names where, and the keyword."""


def checked(schema: Any, pattern_fault: PatternFault) -> Schema:
    """A schema of a request → an equivalent one that is enforced in full. Raises SchemaError."""
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise SchemaError("the schema must be an object")
    if "x-guidance" in schema:
        raise SchemaError("keyword 'x-guidance' is not supported")
    if len(json.dumps(schema)) > MAX_BYTES:
        raise SchemaError(f"the schema is larger than {MAX_BYTES} bytes")
    walk = _Walk(schema, pattern_fault)
    result: Schema = walk.rewritten(schema, "#", 0)
    walk.check_references()
    walk.check_multiples()
    return result


@dataclass(slots=True)
class _Walk:
    """One pass over a schema: bounds, refusals, rewriting."""

    root: Schema
    pattern_fault: PatternFault
    nodes: int = 0
    shapes: int = 0
    seen: list[tuple[str, Schema]] = field(default_factory=list)  # (where, schema)
    references: list[tuple[str, str]] = field(default_factory=list)  # (where, reference)

    def rewritten(self, schema: Any, where: str, depth: int) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise SchemaError(f"the schema has more than {MAX_NODES} nodes")
        if depth > MAX_DEPTH:
            raise SchemaError(f"{where[:200]}: nested deeper than {MAX_DEPTH} levels")
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise SchemaError(f"{where[:200]}: a schema must be an object, true or false")
        self._check_keywords(schema, where)
        self.seen.append((where, schema))
        result = {key: value for key, value in schema.items() if key not in ("uniqueItems", "format")}
        self._rewrite_format(schema, result, where)
        if "propertyNames" in schema:
            self._rewrite_names(result, where)
        if "oneOf" in schema:
            self._rewrite_one_of(result, where)
        for key in _ONE:
            if key in result:
                result[key] = self.rewritten(result[key], f"{where}/{key}", depth + 1)
        for key in _MANY:
            if key in result:
                branches = self._list(result, key, where, MAX_BRANCHES)
                result[key] = [
                    self.rewritten(branch, f"{where}/{key}/{i}", depth + 1)
                    for i, branch in enumerate(branches)
                ]
        for key in _NAMED:
            if key in result:
                if not isinstance(result[key], dict):
                    raise SchemaError(f"{where}: '{key}' must be an object")
                step = 0 if key in ("$defs", "definitions") else 1
                result[key] = {
                    name: self.rewritten(value, f"{where}/{key}/{name}", depth + step)
                    for name, value in result[key].items()
                }
        return result

    def _check_keywords(self, schema: Schema, where: str) -> None:
        for key in schema:
            if key in _REFUSED:
                raise SchemaError(f"{where[:200]}: keyword '{key}' is not supported")
        if schema.get("uniqueItems", False) is not False:
            raise SchemaError(f"{where[:200]}: keyword 'uniqueItems' is not supported")
        if "$id" in schema and schema is not self.root:
            raise SchemaError(f"{where[:200]}: keyword '$id' is not supported below the root")
        self._check_values(schema, where)
        if "$ref" in schema:
            reference = schema["$ref"]
            if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
                raise SchemaError(f"{where[:200]}: '$ref' must be local: '#' or '#/…'")
            self.references.append((where, reference))
        if "enum" in schema:
            self._list(schema, "enum", where, MAX_ENUM)
        for pattern in (
            *([schema["pattern"]] if "pattern" in schema else ()),
            *_mapping(schema, "patternProperties"),
        ):
            fault = self.pattern_fault(pattern) if isinstance(pattern, str) else "must be text"
            if fault:
                name = "pattern" if "pattern" in schema else "patternProperties"
                raise SchemaError(f"{where[:200]}: '{name}': {fault}")

    def _check_values(self, schema: Schema, where: str) -> None:
        types = schema.get("type", [])
        for name in types if isinstance(types, list) else [types]:
            if name not in _TYPES:
                raise SchemaError(f"{where[:200]}: 'type': {str(name)[:40]!r} is no type")
        for key in _COUNTS:
            value = schema.get(key, 0)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
                raise SchemaError(f"{where[:200]}: '{key}' must be an integer from 0 to {MAX_COUNT}")
        for key in _NUMBERS:
            value = schema.get(key, 1)
            if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
                raise SchemaError(f"{where[:200]}: '{key}' must be a number")
        multiple = schema.get("multipleOf", 1)
        if multiple <= 0 or Fraction(str(multiple)).numerator > MAX_MULTIPLE:
            raise SchemaError(f"{where[:200]}: 'multipleOf' is not supported for {multiple}")
        self._check_properties(schema, where)

    def _check_properties(self, schema: Schema, where: str) -> None:
        """Names that are not listed may come twice in the grammar, and count once in the document."""
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise SchemaError(f"{where[:200]}: 'required' must be a list of names")
        if schema.get("minProperties", 0) > len(set(required)) + 1:
            raise SchemaError(
                f"{where[:200]}: 'minProperties' is supported up to one more than 'required' names"
            )

    def _list(self, schema: Schema, key: str, where: str, most: int) -> list[Any]:
        value = schema[key]
        if not isinstance(value, list) or not 0 < len(value) <= most:
            raise SchemaError(f"{where[:200]}: '{key}' must be a list of 1 to {most} entries")
        return value

    def _rewrite_format(self, schema: Schema, result: Schema, where: str) -> None:
        """Only strings have a format, so other values may have one that nobody knows."""
        name = schema.get("format")
        if name is None or not _may_be(schema, "string"):
            return
        if name in _ANNOTATIONS:
            return
        if name == "ipvanyaddress":  # pydantic's
            either = {"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]}
            result["allOf"] = [*result.get("allOf", []), either]
            return
        if name not in _KNOWN_FORMATS:
            raise SchemaError(f"{where[:200]}: 'format' {str(name)[:40]!r} is not supported")
        if name not in _FORMATS:
            result["format"] = name
            return
        patterns = list(_FORMATS[name])
        if "pattern" not in result:
            result["pattern"] = patterns.pop(0)
        if patterns:
            result["allOf"] = [*result.get("allOf", []), *({"pattern": pattern} for pattern in patterns)]
        if name == "hostname":
            result["maxLength"] = min(result.get("maxLength", _MAX_HOSTNAME), _MAX_HOSTNAME)

    def _rewrite_names(self, result: Schema, where: str) -> None:
        """propertyNames, as a dict with constrained keys has it: no names but listed ones, or those of a pattern."""
        names, value = result.pop("propertyNames"), result.get("additionalProperties", True)
        if isinstance(names, dict) and "$ref" in names:
            target = self._resolve(names["$ref"])
            names = (
                {**{k: v for k, v in names.items() if k != "$ref"}, **target}
                if isinstance(target, dict)
                else target
            )
        names = {} if names is True else names
        plain = isinstance(names, dict) and set(names) <= _PLAIN_NAMES and _may_be(names, "string")
        if not plain or {"properties", "patternProperties"} & set(result):
            raise SchemaError(f"{where[:200]}: 'propertyNames' is not supported like this")
        self._check_keywords(names, f"{where}/propertyNames")
        constants = [names["const"]] if "const" in names else names.get("enum")
        shortest, longest = names.get("minLength", 0), names.get("maxLength")
        kinds = sum((constants is not None, "pattern" in names, bool(shortest) or longest is not None))
        if kinds > 1:
            raise SchemaError(
                f"{where[:200]}: 'propertyNames' is supported with one of enum, pattern, lengths"
            )
        if kinds == 0:
            return
        result["additionalProperties"] = False
        if isinstance(constants, list):
            result["properties"] = {name: value for name in constants if isinstance(name, str)}
        else:
            bounds = f"^(?s:.){{{shortest},{'' if longest is None else longest}}}$"
            result["patternProperties"] = {names.get("pattern", bounds): value}

    def _rewrite_one_of(self, result: Schema, where: str) -> None:
        """oneOf is anyOf where no document can match two branches; where that is not plain to see it is refused."""
        branches = self._list(result, "oneOf", where, MAX_BRANCHES)
        shapes = [self._shape(branch, 0) for branch in branches]
        if not all(_disjoint(a, b) for i, a in enumerate(shapes) for b in shapes[:i]):
            raise SchemaError(
                f"{where[:200]}: 'oneOf' whose branches may overlap is not supported: use 'anyOf', or tell them apart by 'type' or "
                "by a required property with a 'const'"
            )
        del result["oneOf"]
        if "anyOf" in result:
            result["allOf"] = [*result.get("allOf", []), {"anyOf": branches}]
        else:
            result["anyOf"] = branches

    def _shape(self, branch: Any, depth: int) -> Schema:
        """A branch with its references followed, as far as its type and constants can be told apart."""
        self.shapes += 1
        if not isinstance(branch, dict) or self.shapes > MAX_SHAPES:
            return {}
        if "$ref" in branch and depth < MAX_DEPTH:
            target = self._resolve(branch["$ref"])
            shape = self._shape(target, depth + 1)
            return {**shape, **{key: value for key, value in branch.items() if key != "$ref"}}
        shape = dict(branch)
        shape["properties"] = {
            name: self._shape(value, depth + 1) for name, value in _mapping(branch, "properties").items()
        } if depth < 3 else {}  # fmt: skip
        return shape

    def check_multiples(self) -> None:
        """What holds together must have a small common multiple: its automaton has as many states."""
        if not any("multipleOf" in schema for _, schema in self.seen):
            return
        for where, schema in self.seen:
            if self._multiple(schema, 0) > MAX_MULTIPLE:
                raise SchemaError(
                    f"{where[:200]}: 'multipleOf' of all that holds here is above {MAX_MULTIPLE}"
                )

    def _multiple(self, schema: Any, depth: int) -> int:
        """The least common multiple of all multipleOf that may hold for one value."""
        self.shapes += 1
        if self.shapes > MAX_SHAPES or depth > MAX_DEPTH:
            raise SchemaError("'multipleOf' is not supported in a schema that combines so many parts")
        if not isinstance(schema, dict):
            return 1
        value = schema.get("multipleOf", 1)
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e300
        found = [Fraction(str(value)).numerator] if number else []
        for key in ("allOf", "anyOf", "oneOf"):
            branches = schema.get(key, ())
            found += (
                [self._multiple(branch, depth + 1) for branch in branches]
                if isinstance(branches, list)
                else []
            )
        if "$ref" in schema:
            found.append(self._multiple(self._resolve(schema["$ref"]), depth + 1))
        return math.lcm(*found)

    def _resolve(self, reference: Any) -> Any:
        node: Any = self.root
        for step in str(reference).removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and name in node:
                node = node[name]
            elif isinstance(node, list) and name.isdigit() and int(name) < len(node):
                node = node[int(name)]
            else:
                return None
        return node

    def check_references(self) -> None:
        """Every reference leads to a schema, and none back to itself without a step into the document: that would match nothing."""
        for where, reference in self.references:
            if not isinstance(self._resolve(reference), dict | bool):
                raise SchemaError(f"{where[:200]}: '$ref' {reference[:80]!r} leads nowhere")
        beside = {
            reference: self._beside(self._resolve(reference), 0)
            for reference in {r for _, r in self.references}
        }
        for where, reference in self.references:
            seen, open_ends = set(), list(beside[reference])
            while open_ends:
                target = open_ends.pop()
                if target == reference:
                    raise SchemaError(f"{where[:200]}: '$ref' {reference[:80]!r} refers to itself")
                if target not in seen:
                    seen.add(target)
                    open_ends += beside.get(target, ())

    def _beside(self, schema: Any, depth: int) -> list[str]:
        """References that a schema applies to the same value as itself."""
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            return []
        found = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
        for key in ("allOf", "anyOf", "oneOf"):
            for branch in schema.get(key, ()):
                found += self._beside(branch, depth + 1)
        return found


def _mapping(schema: Schema, key: str) -> dict[str, Any]:
    value = schema.get(key)
    return value if isinstance(value, dict) else {}


def _types(schema: Schema) -> frozenset[str]:
    """The types that a value of this schema can have, "number" standing for "integer" too."""
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return frozenset(_type_of(value) for value in values)
    types = schema.get("type", ["null", "boolean", "number", "string", "array", "object"])
    return frozenset(
        "number" if t == "integer" else t for t in (types if isinstance(types, list) else [types])
    )


def _type_of(value: Any) -> str:
    table = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return table.get(type(value), "null")


def _may_be(schema: Schema, name: str) -> bool:
    return name in _types(schema)


def _constants(schema: Schema) -> set[str] | None:
    """The values that are allowed, as JSON; None if they are not listed."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(values, list):
        return None
    return {json.dumps(float(v) if type(v) is int else v, sort_keys=True) for v in values}


def _disjoint(a: Schema, b: Schema) -> bool:
    """Whether it is plain that no value fits both."""
    types = _types(a) & _types(b)
    if not types:
        return True
    ours, theirs = _constants(a), _constants(b)
    if ours is not None and theirs is not None:
        return not ours & theirs
    if types != {"object"}:
        return False
    required = {name for schema in (a, b) for name in schema.get("required", ())}
    properties = _mapping(a, "properties"), _mapping(b, "properties")
    return any(
        _disjoint(properties[0][name], properties[1][name])
        for name in required
        if name in properties[0] and name in properties[1]
    )
