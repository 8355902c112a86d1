"""Grammars of calls: what a random model writes under them is read back as calls that keep to the schemas; thinking before them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import llguidance
import numpy
import pytest
import tokenizers

import vsrv.demo
from vsrv.text.grammar import GrammarError, after_reasoning, limits
from vsrv.text.tool_bodies import parameter_types
from vsrv.text.tool_grammar import CallGrammar, OfferedTool, of_calls
from vsrv.text.tools import FORMATS, ToolScanner

MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<|python_tag|>")
SPECIAL_MARKS = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")
EOS = 0
SCHEMAS: dict[str, Any] = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 8},
            "unit": {"type": "string", "enum": ["c", "f"]},
            "days": {"type": "integer", "minimum": 0, "maximum": 9},
            "flags": {"type": "array", "items": {"$ref": "#/$defs/flag"}, "maxItems": 2},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
        "$defs": {"flag": {"type": "boolean"}},
    },
    "now": None,
}
TEMPLATES = {"mistral": ["[TOOL_CALLS] [", "[TOOL_CALLS]name[ARGS]", "[TOOL_CALLS]name[CALL_ID]id[ARGS]"]}
CASES = [(form, template) for form in FORMATS for template in TEMPLATES.get(form, [""])]


class Vocabulary:
    """The demo model's, once as it is and once with the marks of all formats as tokens, as their models have them."""

    def __init__(self, with_marks: bool) -> None:
        made = tokenizers.Tokenizer.from_file(str(Path(vsrv.demo.__file__).parent / "tokenizer.json"))
        if with_marks:
            made.add_tokens(list(MARKS))
            made.add_special_tokens(list(SPECIAL_MARKS))
        self.hf = made
        found = {mark: made.token_to_id(mark) for mark in (*MARKS, *SPECIAL_MARKS)}
        self.marks: dict[str, int] = {mark: token for mark, token in found.items() if token is not None}
        self.ll = llguidance.LLTokenizer(made.to_str(), eos_token=EOS)

    def matcher(self, grammar: str) -> llguidance.LLMatcher:
        matcher = llguidance.LLMatcher(self.ll, grammar, log_level=0, limits=limits())
        assert not matcher.is_error(), matcher.get_error()
        return matcher

    def ids(self, text: str) -> list[int]:
        ids: list[int] = self.hf.encode(text, add_special_tokens=False).ids
        return ids

    def allows(self, grammar: str, text: str) -> bool:
        """Whether `text` is a whole output of the grammar."""
        matcher, ids = self.matcher(grammar), self.ids(text)
        return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()

    def written(self, grammar: str, chance: random.Random, most: int = 500) -> str | None:
        """A random model's output, None if it did not come to an end."""
        matcher, out = self.matcher(grammar), []
        for _ in range(most):
            bits = numpy.frombuffer(matcher.compute_bitmask(), numpy.uint8)
            allowed = numpy.flatnonzero(numpy.unpackbits(bits, bitorder="little")).tolist()
            if EOS in allowed and chance.random() < 0.3:
                break
            if not (others := [token for token in allowed if token != EOS]):
                break
            out.append(chance.choice(others))
            assert matcher.consume_token(out[-1])
            if matcher.is_stopped():
                break
        else:
            return None
        text: str = self.hf.decode(out, skip_special_tokens=False)
        return text


@pytest.fixture(scope="module", params=[False, True], ids=["text", "tokens"])
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    return Vocabulary(request.param)


@pytest.fixture(scope="module")
def marked() -> Vocabulary:
    return Vocabulary(True)


def grammar_of(v: Vocabulary, form: str, template: str, required: bool = True, parallel: bool = True) -> str:
    offered = [OfferedTool(name, schema) for name, schema in SCHEMAS.items()]
    return of_calls(CallGrammar(FORMATS[form], offered, v.marks, template, required, parallel))


def calls_in(form: str, text: str) -> tuple[str, list[tuple[str, str]]]:
    scanner = ToolScanner(FORMATS[form], {name: parameter_types(schema) for name, schema in SCHEMAS.items()})
    found = [scanner.feed(text), scanner.finish()]
    calls: list[tuple[str, str]] = []
    for delta in (delta for scanned in found for delta in scanned.calls):
        if delta.name:
            calls.append((delta.name, ""))
        else:
            calls[-1] = (calls[-1][0], calls[-1][1] + delta.arguments)
    return "".join(scanned.text for scanned in found), calls


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize(("form", "template"), CASES)
def test_a_random_model_writes_calls_that_keep_to_the_schemas(
    vocabulary: Vocabulary, form: str, template: str, parallel: bool
) -> None:
    grammar = grammar_of(vocabulary, form, template, True, parallel)
    chance, finished = random.Random(f"{form}{template}"), 0
    for _ in range(300):  # a random walk may stay in a text for ever
        if finished == 3:
            break
        text = vocabulary.written(grammar, chance)
        if text is None:
            continue
        finished += 1
        content, calls = calls_in(form, text)
        assert calls and not content.strip(), text
        assert parallel or len(calls) == 1, text
        for name, arguments in calls:
            value = json.loads(arguments)
            schema = SCHEMAS[name] or {"type": "object", "maxProperties": 0}
            if form == "qwen3_coder":  # carries texts bare, so their length is not held
                schema = json.loads(json.dumps(schema).replace('"maxLength": 8', '"minLength": 0'))
            jsonschema.validate(value, schema)
    assert finished == 3


GOOD = '<tool_call>\n{"name": "get_weather", "arguments": {"city":"x","days":1}}\n</tool_call>'
BAD = GOOD.replace('"days":1', '"days":11')
FREE: list[tuple[str, str, bool]] = [
    ("hermes", "just text, with a <tag> and {braces}", True),
    ("hermes", f"Let me look. {GOOD}", True),
    ("hermes", f"{GOOD}\n{GOOD} and more", True),
    ("hermes", f"Let me look. {BAD}", False),
    ("hermes", GOOD.replace("get_weather", "get_rain"), False),
    ("llama3_json", "plain text {1}", True),
    ("llama3_json", '{"name": "now", "parameters": {}}', True),
    ("llama3_json", '{"name": "later", "parameters": {}}', False),
    ("pythonic", "plain text [1]", True),
    ("pythonic", '[get_weather(city="x", days=3), now()]', True),
    ("pythonic", '[get_weather(city="x", days=33)]', False),
    ("pythonic", "[get_weather(days=3)]", False),
    ("qwen3_coder", "plain", True),
    ("qwen3_coder", "<tool_call>\n<function=now>\n</function>\n</tool_call>", True),
    ("qwen3_coder", "<tool_call>\n<function=get_weather>\n<parameter=city>\nx\n</parameter>\n</function>\n</tool_call>", False),
]  # fmt: skip


@pytest.mark.parametrize(("form", "text", "good"), FREE)
def test_free_text_with_calls_that_keep_to_the_schemas(
    vocabulary: Vocabulary, form: str, text: str, good: bool
) -> None:
    assert vocabulary.allows(grammar_of(vocabulary, form, "", required=False), text) is good


def test_one_call_where_one_is_allowed(marked: Vocabulary) -> None:
    one = grammar_of(marked, "hermes", "", False, False)
    assert marked.allows(one, f"Well. {GOOD}") and not marked.allows(one, f"{GOOD}\n{GOOD}")


def test_thinking_comes_before_what_the_grammar_holds(marked: Vocabulary) -> None:
    calls = grammar_of(marked, "hermes", "")
    may, must = (
        after_reasoning(calls, begin, "</think>", marked.marks, None, (EOS,)) for begin in ("<think>", "")
    )
    thought = "hm, <tool_call> or not?</think>"
    assert marked.allows(may, GOOD) and marked.allows(may, f"<think>{thought}\n\n{GOOD}")
    assert marked.allows(must, thought + GOOD) and not marked.allows(must, GOOD)
    assert not marked.allows(may, f"<think>{thought}\n\nhm")


@pytest.mark.parametrize("budget", [0, 1, 7])
def test_a_budget_ends_the_thinking(marked: Vocabulary, budget: int) -> None:
    grammar = after_reasoning("", "", "</think>", marked.marks, budget, (EOS,))
    matcher, end = marked.matcher(grammar), marked.marks["</think>"]
    word = marked.ids(" and")[0]
    for _ in range(budget):
        assert matcher.consume_token(word)
    assert int.from_bytes(matcher.compute_bitmask(), "little") == 1 << end
    assert matcher.consume_token(end) and matcher.is_accepting()
    assert matcher.try_consume_tokens([word] * 50) == 50
    short = after_reasoning("", "<think>", "</think>", marked.marks, budget, (EOS,))
    assert marked.allows(short, "an answer without thinking") and marked.allows(
        short, "<think></think>\n\nyes"
    )
    assert not marked.allows(short, "<think>" + " and" * (budget + 1) + "</think>yes")


def test_a_budget_needs_an_end_tag_that_is_a_token() -> None:
    with pytest.raises(GrammarError, match="budget"):
        after_reasoning("", "", "Here is my response:", {}, 5)
