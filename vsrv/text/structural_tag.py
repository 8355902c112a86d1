"""Structural tags → grammar: free text in which certain marks open a part that is constrained, until its end mark.

Both forms that clients send are read: {"structures": [{"begin", "schema", "end"}], "triggers": […]}, and xgrammar's later
{"format": {"type": …}}, a tree of formats (https://xgrammar.mlc.ai/docs, "Structural Tag").
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vsrv.text.grammar import GrammarError, JsonStyle, json_rule, lark_literal, of_grammar, of_regex

_MAX_DEPTH, _MAX_PARTS, _MAX_MARK_CHARACTERS = 8, 64, 256
_FREE = "FREE: /(?s:.*)/"


def grammar_of(tag: Any, style: JsonStyle, special: Mapping[str, int]) -> str:
    """A structural tag as a request sends it → grammar. `special`: the tokenizer's special tokens and their ids. Raises GrammarError."""
    if not isinstance(tag, Mapping):
        raise _fault("expected an object")
    builder = _Builder(style, special)
    if "format" in tag:
        start = builder.expression(tag["format"], 0, last=True)
    else:
        start = builder.expression(_of_structures(tag), 0, last=True)
    lines = [f"start: {start}", *builder.rules, _FREE]
    return json.dumps({"grammars": [{"lark_grammar": "\n".join(lines)}, *builder.entries]})


def _of_structures(tag: Mapping[str, Any]) -> dict[str, Any]:
    """The older form in the words of the later one."""
    structures = _parts(tag, "structures")
    tags = [
        {
            "type": "tag",
            "begin": _member(entry, "begin"),
            "content": {"type": "json_schema", "json_schema": _member(entry, "schema")},
            "end": _member(entry, "end"),
        }
        for entry in structures
    ]
    return {"type": "triggered_tags", "triggers": tag.get("triggers"), "tags": tags}


@dataclass(slots=True)
class _Builder:
    """Collects Lark rules and embedded grammars; `expression` gives what a rule writes for a format."""

    style: JsonStyle
    special: Mapping[str, int]
    rules: list[str] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def expression(self, node: Any, depth: int, last: bool = False) -> str:
        """`last`: nothing follows, so that free text may run to the end."""
        kind = node.get("type") if isinstance(node, Mapping) else None
        if depth > _MAX_DEPTH or len(self.rules) > 8 * _MAX_PARTS:
            raise _fault("nested too deeply, or too many parts")
        if kind == "any_text":
            if not last or node.get("excludes"):
                raise _fault("any_text is supported at the end, and as the content of a tag")
            return "FREE"
        if kind in ("sequence", "or"):
            return self._elements(node, kind, depth, last)
        build = _KINDS.get(str(kind))
        if build is None:
            raise _fault(f"format {str(kind)[:40]!r} is not supported")
        return build(self, node, depth)

    def _elements(self, node: Mapping[str, Any], kind: str, depth: int, last: bool) -> str:
        elements = _parts(node, "elements")
        inner = [
            self.expression(element, depth + 1, last and (kind == "or" or i == len(elements) - 1))
            for i, element in enumerate(elements)
        ]
        return "(" + (" " if kind == "sequence" else " | ").join(inner) + ")"

    def literal(self, node: Mapping[str, Any], key: str, whole: bool = True) -> str:
        text = node.get(key)
        if not isinstance(text, str) or len(text) > _MAX_MARK_CHARACTERS or (whole and not text):
            raise _fault(f"{key!r} must be text of at most {_MAX_MARK_CHARACTERS} characters")
        return lark_literal(text, self.special)

    def embedded(self, grammar: str) -> str:
        """A grammar of its own, by a name."""
        name = f"part_{len(self.entries)}"
        if grammar.startswith("{"):
            entry = {**json.loads(grammar)["grammars"][0], "name": name}
        else:
            entry = {"name": name, "lark_grammar": grammar}
        self.entries.append(entry)
        return f"@{name}"

    def rule(self, body: str, options: str = "") -> str:
        name = f"rule_{len(self.rules)}"
        self.rules.append(f"{name}{options}: {body}")
        return name

    def const_string(self, node: Mapping[str, Any], depth: int) -> str:
        return self.literal(node, "value")

    def json_schema(self, node: Mapping[str, Any], depth: int) -> str:
        if node.get("style", "json") != "json":
            raise _fault("json_schema in another style than json is not supported")
        return self.rule(json_rule(_member(node, "json_schema"), self.style))

    def regex(self, node: Mapping[str, Any], depth: int) -> str:
        return self.embedded(of_regex(str(_member(node, "pattern"))))

    def grammar(self, node: Mapping[str, Any], depth: int) -> str:
        return self.embedded(of_grammar(str(_member(node, "grammar"))))

    def tag(self, node: Mapping[str, Any], depth: int) -> str:
        return f"{self.literal(node, 'begin')} {self.inside(node, depth)}"

    def inside(self, node: Mapping[str, Any], depth: int) -> str:
        """A tag's content and its end."""
        content = _member(node, "content")
        if not isinstance(content, Mapping) or content.get("type") != "any_text":
            end = self.literal(node, "end", whole=False) if node.get("end") else ""
            return f"{self.expression(content, depth + 1)} {end}".rstrip()
        end = self.literal(node, "end")
        if end.startswith("<"):
            return f"FREE {end}"
        return self.rule("FREE", f"[suffix={end}]")

    def triggered_tags(self, node: Mapping[str, Any], depth: int) -> str:
        """Free text; after a trigger one of the tags that begin with it goes on."""
        triggers, tags = _parts(node, "triggers"), _parts(node, "tags")
        heads: list[str] = []
        for trigger in triggers:
            following = [tag for tag in tags if str(_member(tag, "begin")).startswith(str(trigger))]
            if not isinstance(trigger, str) or not trigger or not following:
                raise _fault("every trigger must begin a tag")
            rests = [self._rest(tag, trigger, depth) for tag in following]
            mark = self.literal({"trigger": trigger}, "trigger")
            head = f"FREE {mark}" if mark.startswith("<") else self.rule(f"FREE {mark}", "[lazy]")
            heads.append(self.rule(f"{head} ({' | '.join(rests)})"))
        if any(not any(str(tag["begin"]).startswith(t) for t in triggers) for tag in tags):
            raise _fault("every tag must begin with a trigger")
        one = f"({' | '.join(heads)})"
        if node.get("stop_after_first"):
            return one if node.get("at_least_one") else f"({one} | FREE)"
        return f"({one}{'+' if node.get('at_least_one') else '*'} FREE)"

    def _rest(self, tag: Mapping[str, Any], trigger: str, depth: int) -> str:
        begin = str(tag["begin"])[len(trigger) :]
        if len(begin) > _MAX_MARK_CHARACTERS:
            raise _fault(f"'begin' must be text of at most {_MAX_MARK_CHARACTERS} characters")
        return f"{lark_literal(begin, self.special) if begin else ''} {self.inside(tag, depth)}".strip()

    def tags_with_separator(self, node: Mapping[str, Any], depth: int) -> str:
        tags = [self.expression(tag, depth + 1) for tag in _parts(node, "tags")]
        one = self.rule(" | ".join(tags))
        more = "" if node.get("stop_after_first") else f" ({self.literal(node, 'separator')} {one})*"
        return f"({one}{more})" if node.get("at_least_one") else f"({one}{more})?"


_KINDS: Mapping[str, Callable[[_Builder, Mapping[str, Any], int], str]] = {
    "const_string": _Builder.const_string,
    "json_schema": _Builder.json_schema,
    "regex": _Builder.regex,
    "grammar": _Builder.grammar,
    "tag": _Builder.tag,
    "triggered_tags": _Builder.triggered_tags,
    "tags_with_separator": _Builder.tags_with_separator,
}


def _parts(node: Mapping[str, Any], key: str) -> list[Any]:
    value = node.get(key)
    if not isinstance(value, list) or not 0 < len(value) <= _MAX_PARTS:
        raise _fault(f"{key!r} must be a list of 1 to {_MAX_PARTS} entries")
    return value


def _member(node: Any, key: str) -> Any:
    if not isinstance(node, Mapping) or key not in node:
        raise _fault(f"{key!r} is missing")
    return node[key]


def _fault(message: str) -> GrammarError:
    return GrammarError("invalid_grammar", f"structural tag: {message}")
