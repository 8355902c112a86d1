"""Offered tools → the grammar of their calls, in the format that the model writes: a builder for each row of tools.FORMATS.

A grammar of calls only (`required`), or of free text in which every call keeps to it. Arguments follow the tool's schema as far as the
format shows it: JSON to the letter; Python and XML property by property, with texts that XML carries bare unconstrained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vsrv.text.grammar import json_rule, lark_literal, lark_text
from vsrv.text.tool_bodies import parameter_types
from vsrv.text.tool_xml import kind_of
from vsrv.text.tools import ToolFormat

Schema = Mapping[str, Any]
_FREE = "FREE: /(?s:.*)/"
_NOTHING: Schema = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool as a grammar needs it. parameters: its schema, None if it has none."""

    name: str
    parameters: Schema | None


@dataclass(frozen=True, slots=True)
class CallGrammar:
    """What is to be built. `special`: the tokenizer's special tokens and their ids; `template` shows how its format's variants are written.

    `required`: there is nothing but calls; else free text may go with them, or stand alone. `parallel`: more than one call may come.
    """

    form: ToolFormat
    tools: Sequence[OfferedTool]
    special: Mapping[str, int]
    template: str
    required: bool
    parallel: bool


def of_calls(wanted: CallGrammar) -> str:
    """Raises GrammarError where a schema asks for what grammars cannot hold."""
    return _BUILDERS[wanted.form.name](_Rules(wanted))


def check_schema(parameters: Schema | None) -> None:
    """Raises GrammarError where a schema asks for what grammars cannot hold."""
    json_rule(_as_object(parameters))


@dataclass(slots=True)
class _Rules:
    """Lark rules as they are made; `add` gives the name of a rule with that body."""

    wanted: CallGrammar
    lines: list[str] = field(default_factory=list)

    def add(self, body: str, options: str = "") -> str:
        name = f"r{len(self.lines)}"
        self.lines.append(f"{name}{options}: {body}")
        return name

    def literal(self, text: str) -> str:
        return lark_literal(text, self.wanted.special)

    def arguments(self, tool: OfferedTool) -> str:
        return self.add(json_rule(_as_object(tool.parameters)))

    def choice(self, bodies: Sequence[str]) -> str:
        return self.add(" | ".join(bodies))

    def text(self, start: str, free: str = _FREE) -> str:
        return "\n".join([f"start: {start}", *self.lines, free])

    def marked(self, mark: str, call: str, between: str) -> str:
        """Calls that a mark opens; `call` is what follows the mark, `between` what is between two of them."""
        opened = self.add(f"{self.literal(mark)} {call}")
        if self.wanted.required:
            more = f" ({self.literal(between) if between else ''} {opened})*" if self.wanted.parallel else ""
            return self.text(f"{opened}{more}")
        if mark in self.wanted.special:
            piece = self.add(f"FREE {opened}")
        else:
            head = self.add(f"FREE {lark_text(mark)}", "[lazy]")
            piece = self.add(f"{head} {call}")
        return self.text(f"{piece}* FREE" if self.wanted.parallel else f"{piece} | FREE")

    def bare(self, calls: str, free: str, opened: str = "") -> str:
        """Calls that nothing opens: the whole output is calls, or a text that does not look like one."""
        start = f"({opened})? {calls}" if opened else calls
        return self.text(start if self.wanted.required else f"{start} | FREE", f"FREE: {free}")

    def row(self, call: str, between: str) -> str:
        return self.add(f"{call} ({lark_text(between)} {call})*") if self.wanted.parallel else call


def _as_object(schema: Schema | None) -> Schema:
    """Arguments are an object, whatever the schema leaves open."""
    if schema is None:
        return _NOTHING
    return schema if "type" in schema or "$ref" in schema else {**schema, "type": "object"}


def _json_calls(rules: _Rules, key: str) -> str:
    """One of `{"name": …, "arguments": …}`."""
    calls = []
    for tool in rules.wanted.tools:
        before = '{"name": ' + json.dumps(tool.name) + ", " + json.dumps(key) + ": "
        calls.append(f'{lark_text(before)} {rules.arguments(tool)} "}}"')
    return rules.choice(calls)


def _hermes(rules: _Rules) -> str:
    end = rules.literal("\n</tool_call>")
    return rules.marked("<tool_call>", f'"\\n" {_json_calls(rules, "arguments")} {end}', "\n")


def _llama3_json(rules: _Rules) -> str:
    calls = rules.row(_json_calls(rules, "parameters"), "; ")
    tag = rules.literal("<|python_tag|>") if "<|python_tag|>" in rules.wanted.special else ""
    return rules.bare(calls, r'/[^{](?s:.*)/ & ~/(?s:.*)\{"name"(?s:.*)/', tag)


def _mistral(rules: _Rules) -> str:
    template = rules.wanted.template
    if re.search(r"\[TOOL_CALLS\]\s*\[", template):
        call = _json_calls(rules, "arguments")
        more = f' (", " {call})*' if rules.wanted.parallel else ""
        return rules.marked("[TOOL_CALLS]", f'"[" {call}{more} "]"', "")
    before = rules.literal("[ARGS]") if "[ARGS]" in template else ""
    if "[CALL_ID]" in template:
        before = f"{rules.literal('[CALL_ID]')} CALL_ID {before}"
        rules.lines.append("CALL_ID: /[a-zA-Z0-9]{9}/")
    calls = [f"{lark_text(tool.name)} {before} {rules.arguments(tool)}" for tool in rules.wanted.tools]
    return rules.marked("[TOOL_CALLS]", rules.choice(calls), "")


def _pythonic(rules: _Rules) -> str:
    call = rules.choice([_python_call(rules, tool) for tool in rules.wanted.tools])
    return rules.bare(f'"[" {rules.row(call, ", ")} "]"', r"/[^\[](?s:.*)/")


def _python_call(rules: _Rules, tool: OfferedTool) -> str:
    """`name(a=…, b=…)`, required arguments always, all in the order of the schema."""
    rest, first = '")"', '")"'  # what may follow an argument, and the opening bracket
    for name, schema, required in reversed(_properties(tool)):
        value = rules.add(f"{lark_text(name + '=')} {rules.add(json_rule(schema))}")
        own_first, own_rest = f"{value} {rest}", f'", " {value} {rest}'
        first = rules.add(own_first if required else f"{own_first} | {first}")
        rest = rules.add(own_rest if required else f"{own_rest} | {rest}")
    return f"{lark_text(tool.name + '(')} {first}"


def _qwen3_coder(rules: _Rules) -> str:
    bodies = []
    for tool in rules.wanted.tools:
        types = parameter_types(tool.parameters)
        parts = [
            f"{_xml_parameter(rules, name, schema, types[name])}{'' if required else '?'}"
            for name, schema, required in _properties(tool)
        ]
        begin = lark_text(f"<function={tool.name}>\n")
        bodies.append(f"{begin} {' '.join(parts)}")
    end = rules.literal("</function>\n</tool_call>")
    return rules.marked("<tool_call>", f'"\\n" {rules.choice(bodies)} {end}', "\n")


def _xml_parameter(rules: _Rules, name: str, schema: Schema, named: str) -> str:
    begin, end = lark_text(f"<parameter={name}>\n"), lark_text("\n</parameter>\n")
    values = schema.get("enum") if isinstance(schema, Mapping) else None
    if kind_of(named)[0] != "string":
        body = f"{rules.add(json_rule(schema))} {end}"
    elif isinstance(values, list) and values and all(isinstance(value, str) for value in values):
        body = f"({' | '.join(lark_text(value) for value in values)}) {end}"
    else:
        body = rules.add("/(?s:.*)/", f"[suffix={end}]")
    return rules.add(f"{begin} {body}")


def _properties(tool: OfferedTool) -> list[tuple[str, Schema, bool]]:
    """Name, schema and whether it is required, of each parameter; references still lead somewhere."""
    whole = tool.parameters or {}
    properties, required = whole.get("properties"), whole.get("required")
    kept = {key: whole[key] for key in ("$defs", "definitions") if key in whole}
    listed = properties.items() if isinstance(properties, Mapping) else ()
    return [
        (
            name,
            {**kept, **schema} if isinstance(schema, Mapping) else {},
            isinstance(required, list) and name in required,
        )
        for name, schema in listed
    ]


_BUILDERS: Mapping[str, Callable[[_Rules], str]] = {
    "hermes": _hermes,
    "llama3_json": _llama3_json,
    "mistral": _mistral,
    "pythonic": _pythonic,
    "qwen3_coder": _qwen3_coder,
}
