"""Constraints as requests send them: what is taken, what is refused and by which name, and what their grammars allow.

Expected texts follow vLLM's documentation of structured outputs (https://docs.vllm.ai/en/latest/features/structured_outputs/), the
JSON Schema specification (Draft 2020-12) and llama.cpp's grammars/README.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import llguidance
import pytest

import vsrv.demo
from vsrv.api.fields import Fields
from vsrv.api.request_fields import REQUESTS
from vsrv.api.structured import ChildNeeded, grammar_of
from vsrv.errors import UserError
from vsrv.text import grammar as grammars
from vsrv.text import json_schema, structural_tag
from vsrv.text.grammar import GrammarChecker, GrammarError, JsonStyle
from vsrv.text.tokenizer import Tokenizer

FOLDER = Path(vsrv.demo.__file__).parent
SPECIAL = {"<|im_start|>": 1, "<|im_end|>": 2}
COMPACT = JsonStyle(compact=True)
PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name"]}  # fmt: skip


@pytest.fixture(scope="module")
def checker() -> GrammarChecker:
    return GrammarChecker(FOLDER, Tokenizer(FOLDER).special)


@pytest.fixture(scope="module")
def vocabulary() -> llguidance.LLTokenizer:
    return llguidance.LLTokenizer((FOLDER / "tokenizer.json").read_text(), eos_token=0)


def allows(vocabulary: llguidance.LLTokenizer, grammar: str, text: str) -> bool:
    """Whether `text` is a whole output of the grammar."""
    matcher = llguidance.LLMatcher(vocabulary, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids = vocabulary.tokenize_str(text, parse_special=True)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def asked(body: dict[str, Any], checker: GrammarChecker | None) -> str:
    fields = Fields(body, REQUESTS["chat"], None)
    fields.check()
    return grammar_of(fields, checker)


EBNF = 'root ::= "yes" | no\nno ::= "no" [0-9]+'
TAGS = {
    "type": "structural_tag",
    "structures": [{"begin": "<call>", "schema": PERSON, "end": "</call>"}],
    "triggers": ["<call>"],
}
TREE = {
    "type": "structural_tag",
    "format": {
        "type": "sequence",
        "elements": [
            {"type": "const_string", "value": "go:"},
            {"type": "or", "elements": [{"type": "regex", "pattern": "[ab]+"}, {"type": "grammar", "grammar": EBNF}]},
            {"type": "tag", "begin": "<x>", "content": {"type": "any_text"}, "end": "</x>"},
        ],
    },
}  # fmt: skip
ACCEPTED: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"response_format": {"type": "json_object"}}, ['{"a": [1, null]}', "{}"], ["[]", "1", '{"a"}', ""]),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "strict": True, "schema": PERSON}}},
        ['{"name": "x"}', '{\n  "name": "x",\n  "age": 3\n}'],
        ['{"age": 3}', '{"name": 3}', '{"name": "x", "age": "3"}'],
    ),
    ({"structured_outputs": {"json": json.dumps(PERSON)}}, ['{"name":"é"}'], ["{}"]),
    ({"structured_outputs": {"json": PERSON, "disable_any_whitespace": True}}, ['{"name":"x"}'], ['{"name": "x"}']),
    (
        {"structured_outputs": {"json": PERSON}},
        ['{\n\t\t"name": "x"\n}', '{\r\n    "name" :  "x" \r\n}', '{' + "\n" + " " * 40 + '"name":"x"}'],
        ['{"name":\n\n"x"}', '{"name":     "x"}', '{\n' + " " * 41 + '"name":"x"}'],
    ),
    ({"structured_outputs": {"json": PERSON, "whitespace_pattern": "[ ]{1,2}"}}, ['{ "name":  "x"}'], ['{"name":\n"x"}']),
    ({"structured_outputs": {"json": PERSON}}, ['{"name":"x","b":1}'], []),
    ({"structured_outputs": {"json": PERSON, "disable_additional_properties": True}}, ['{"name":"x"}'], ['{"name":"x","b":1}']),
    ({"structured_outputs": {"regex": r"\d{3}-[a-c]+"}}, ["123-abc"], ["123-d", "12-a", "x123-a", "123-ax"]),
    ({"structured_outputs": {"choice": ["red", 'a "quoted"\n', "grün"]}}, ["red", 'a "quoted"\n', "grün"], ["re", "redd", "blue"]),
    ({"structured_outputs": {"grammar": EBNF}}, ["yes", "no12"], ["no", "yes1"]),
    ({"structured_outputs": {"grammar": 'start: "a" b+\nb: /[0-9]/ | "z"'}}, ["a1z"], ["a", "1"]),
    ({"structured_outputs": {"grammar": 'start: "f(" %json {"type": "string", "format": "date"} ")"'}}, ['f("2024-02-29")'], ['f("2023-02-29")']),
    ({"structured_outputs": {"json_object": True}}, ["{}"], ["[]"]),
    ({"structured_outputs": {"structural_tag": json.dumps(TAGS)}}, ['hi <call>{"name":"x"}</call> bye', "free"], ["<call>{}</call>", "<call>x"]),
    ({"response_format": TAGS}, ['<call>{"name":"x"}</call>'], ["<call>[]</call>"]),
    ({"response_format": TREE}, ["go:ab<x>any < text</x>", "go:no7<x></x>"], ["go:c<x></x>", "go:a<x>y", "ab<x></x>"]),
    ({"guided_json": PERSON}, ['{"name":"x"}'], ["{}"]),
    ({"guided_json": PERSON, "guided_whitespace_pattern": "_"}, ['{_"name":_"x"}'], ['{"name": "x"}']),
    ({"guided_regex": "a|b"}, ["a", "b"], ["c", "ab"]),
    ({"guided_choice": ["x", "y"]}, ["x"], ["z"]),
    ({"guided_grammar": EBNF}, ["no1"], ["maybe"]),
    ({"guided_json_object": True}, ["{}"], ["[]"]),
    ({"structural_tag": TAGS}, ["free"], ["<call>{}</call>"]),
]  # fmt: skip


@pytest.mark.parametrize(("body", "good", "bad"), ACCEPTED, ids=lambda value: str(value)[:50])
def test_what_a_request_asks_for(
    checker: GrammarChecker, vocabulary: Any, body: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    grammar = asked(body, checker)
    assert {text: allows(vocabulary, grammar, text) for text in good} == dict.fromkeys(good, True)
    assert {text: allows(vocabulary, grammar, text) for text in bad} == dict.fromkeys(bad, False)


def test_free_text() -> None:
    for body in (
        {},
        {"response_format": {"type": "text"}},
        {"structured_outputs": None, "guided_json": None, "guided_json_object": False},
        {"guided_decoding_backend": "outlines"},
    ):
        assert asked(body, None) == ""


SCHEMA_FAULTS: list[tuple[Any, str]] = [
    ({"not": {"type": "string"}}, "'not'"),
    ({"if": {"type": "string"}, "then": {"minLength": 1}}, "'if'"),
    ({"type": "array", "uniqueItems": True}, "'uniqueItems'"),
    ({"type": "array", "contains": {"type": "integer"}}, "'contains'"),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "'dependentRequired'"),
    ({"type": "object", "properties": {"x": {"unevaluatedItems": False}}}, "'unevaluatedItems'"),
    ({"type": "object", "minProperties": 2}, "'minProperties'"),
    ({"oneOf": [{"type": "string"}, {"minLength": 3}]}, "'oneOf'"),
    ({"type": "string", "format": "zip-code"}, "'format'"),
    ({"type": "string", "pattern": "(?=a)b"}, "'pattern'"),
    ({"type": "string", "pattern": r"(a)\1"}, "'pattern'"),
    ({"patternProperties": {"(": {}}}, "'patternProperties'"),
    ({"type": "nope"}, "'type'"),
    ({"propertyNames": {"pattern": "a"}, "properties": {"b": {}}}, "'propertyNames'"),
    ({"propertyNames": {"not": {}}}, "'propertyNames'"),
    ({"propertyNames": False}, "'propertyNames'"),
    ({"propertyNames": {"$ref": "#/$defs/a"}, "$defs": {"a": False}}, "'propertyNames'"),
    ({"propertyNames": {"pattern": "a", "maxLength": 3}}, "'propertyNames'"),
    ({"propertyNames": {"pattern": "("}}, "'pattern'"),
    ({"propertyNames": {"minLength": "1"}}, "'minLength'"),
    ({"enum": []}, "'enum'"),
    ({"enum": list(range(json_schema.MAX_ENUM + 1))}, "'enum'"),
    ({"anyOf": [{"const": i} for i in range(json_schema.MAX_BRANCHES + 1)]}, "'anyOf'"),
    ({"type": "integer", "multipleOf": 999983}, "'multipleOf'"),
    ({"type": "integer", "multipleOf": 0}, "'multipleOf'"),
    ({"type": "integer", "allOf": [{"multipleOf": 4093}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"multipleOf": 4091}}}, "'multipleOf'"),
    ({"type": "integer", "minimum": "5"}, "'minimum'"),
    ({"type": "integer", "exclusiveMinimum": True}, "'exclusiveMinimum'"),
    ({"type": "string", "maxLength": 10**9}, "'maxLength'"),
    ({"type": "array", "minItems": -1}, "'minItems'"),
    ({"type": "object", "required": "a"}, "'required'"),
    ({"type": "object", "properties": []}, "'properties'"),
    ({"$ref": "https://example.org/a.json"}, "'$ref'"),
    ({"$ref": "#/$defs/none"}, "'$ref'"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}}, "'$ref'"),
    ({"$dynamicRef": "#a"}, "'$dynamicRef'"),
    ({"properties": {"a": {"$id": "x"}}}, "'$id'"),
    ({"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}, "'x-guidance'"),
    ({"properties": {"a": 3}}, "must be an object"),
    ([], "must be an object"),
    ({"type": "string", "const": 3}, "nsatisfiable"),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, "nsatisfiable"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "name"), SCHEMA_FAULTS, ids=lambda value: str(value)[:60])
def test_a_schema_that_cannot_be_honoured_is_refused_by_the_keyword(
    checker: GrammarChecker, schema: Any, name: str
) -> None:
    with pytest.raises(UserError) as caught:
        asked({"guided_json": schema}, checker)
    assert (caught.value.status, caught.value.code, caught.value.param) == (
        400,
        "unsupported_schema",
        "guided_json",
    )
    assert name in caught.value.message


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        # json-schema.org's test suite, draft2020-12/optional/format
        ({"format": "date"}, ["2020-02-29", "1963-06-19"], ["2021-02-29", "2100-02-29", "1963-13-01", "1963-06-1", "0000-01-01"]),
        ({"format": "time"}, ["08:30:06Z", "08:30:06.283185-08:00"], ["24:00:00Z", "08:60:00Z", "08:30:06", "22:59:60Z"]),
        ({"format": "hostname"}, ["www.example.com", "a", "a-b.c"], ["-a", "a-", "xn--X", "a..b", "a_b", "x" * 64]),
        # RFC 9562, appendix A
        ({"format": "uuid4"}, ["919108f7-52d1-4320-9bac-f847db4148a8"], ["017f22e2-79b0-7cc3-98c4-dc0c0c07398f"]),
        ({"format": "uuid7"}, ["017f22e2-79b0-7cc3-98c4-dc0c0c07398f"], ["919108f7-52d1-4320-9bac-f847db4148a8"]),
        ({"format": "ipvanyaddress"}, ["127.0.0.1", "::1"], ["localhost", "1.2.3"]),
        ({"format": "password"}, ["", "x y"], []),
        ({"type": "string", "pattern": "^\\d$"}, ["7"], ["৪", "x"]),  # ECMA 262: ASCII digits alone
    ],
)  # fmt: skip
def test_stricter_than_the_library(
    checker: GrammarChecker, vocabulary: Any, schema: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    grammar = asked({"guided_json": {"type": "string", **schema}}, checker)
    assert [text for text in good if not allows(vocabulary, grammar, json.dumps(text))] == []
    assert [text for text in bad if allows(vocabulary, grammar, json.dumps(text, ensure_ascii=False))] == []


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def test_bounds_of_schemas() -> None:
    json_schema.checked(nested(json_schema.MAX_DEPTH), lambda pattern: "")
    wide = {"type": "object", "properties": {f"p{i}": {} for i in range(json_schema.MAX_NODES)}}
    for schema, message in (
        (nested(json_schema.MAX_DEPTH + 1), "nested deeper"),
        (wide, "nodes"),
        ({"description": "x" * json_schema.MAX_BYTES}, "larger than"),
    ):
        with pytest.raises(json_schema.SchemaError, match=message):
            json_schema.checked(schema, lambda pattern: "")


def test_references_to_each_other_take_no_time() -> None:
    """Each definition has references to all others: what is looked at to tell oneOf's branches apart is counted."""
    names = [f"d{i}" for i in range(30)]
    defs = {
        name: {"type": "object", "properties": {other: {"$ref": f"#/$defs/{other}"} for other in names}} for name in names
    }  # fmt: skip
    schema = {"oneOf": [{"$ref": "#/$defs/d0"}, {"$ref": "#/$defs/d1"}], "$defs": defs}
    with pytest.raises(json_schema.SchemaError, match="'oneOf'"):
        json_schema.checked(schema, lambda pattern: "")


OTHER_FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"structured_outputs": {"regex": "(a"}}, "invalid_grammar", "structured_outputs.regex"),
    ({"structured_outputs": {"regex": "a\0"}}, "invalid_grammar", "structured_outputs.regex"),
    ({"structured_outputs": {"regex": "(" * 150 + ")" * 150}}, "invalid_grammar", "structured_outputs.regex"),
    ({"structured_outputs": {"regex": "x" * 1025}}, "invalid_value", "structured_outputs.regex"),
    ({"structured_outputs": {"grammar": 'start: "a" nope'}}, "invalid_grammar", "structured_outputs.grammar"),
    ({"structured_outputs": {"grammar": 'root ::= "a" nope'}}, "invalid_grammar", "structured_outputs.grammar"),
    ({"structured_outputs": {"grammar": "start: <|no_such_token|>"}}, "invalid_grammar", "structured_outputs.grammar"),
    ({"structured_outputs": {"grammar": '{"grammars": []}'}}, "invalid_grammar", "structured_outputs.grammar"),
    ({"structured_outputs": {"grammar": 'start: x\nx[temperature=0.5]: "a"'}}, "invalid_grammar", "structured_outputs.grammar"),
    ({"structured_outputs": {"grammar": 'start: %json {"not": {}}'}}, "unsupported_schema", "structured_outputs.grammar"),
    ({"structured_outputs": {"grammar": "start: %json {"}}, "invalid_grammar", "structured_outputs.grammar"),
    ({"structured_outputs": {"grammar": "start: r0" + "".join(f"\nr{i}: r{i + 1}" for i in range(1000))}}, "invalid_grammar", "structured_outputs.grammar"),
    ({"structured_outputs": {"grammar": "start: R\nR: " + " | ".join(["~/a/"] * 17)}}, "invalid_grammar", "structured_outputs.grammar"),
    ({"structured_outputs": {"choice": []}}, "invalid_value", "structured_outputs.choice"),
    ({"structured_outputs": {"choice": [1]}}, "invalid_value", "structured_outputs.choice"),
    ({"structured_outputs": {"choice": ["a"] * 1025}}, "invalid_value", "structured_outputs.choice"),
    ({"structured_outputs": {"json": "{"}}, "invalid_value", "structured_outputs.json"),
    ({"structured_outputs": {"json": "[" * 40}}, "invalid_value", "structured_outputs.json"),
    ({"structured_outputs": {}}, "invalid_value", "structured_outputs"),
    ({"structured_outputs": {"json_object": False}}, "invalid_value", "structured_outputs"),
    ({"structured_outputs": {"jsno": {}}}, "invalid_value", "structured_outputs.jsno"),
    ({"structured_outputs": {"json": {}, "regex": "a"}}, "invalid_value", "structured_outputs.regex"),
    ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, "invalid_value", "structured_outputs.regex"),
    ({"response_format": {"type": "json_schema"}}, "invalid_value", "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "invalid_value", "response_format.json_schema"),
    ({"response_format": {}}, "invalid_value", "response_format.type"),
    ({"response_format": {"type": "structural_tag"}}, "invalid_grammar", "response_format"),
    ({"structural_tag": {**TAGS, "triggers": ["<other>"]}}, "invalid_grammar", "structural_tag"),
    ({"structural_tag": {"format": {"type": "qwen_xml_parameter"}}}, "invalid_grammar", "structural_tag"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "code", "param"), OTHER_FAULTS, ids=lambda value: str(value)[:60])
def test_what_is_wrong_is_named(checker: GrammarChecker, body: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(UserError) as caught:
        asked(body, checker)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)
    assert "\n" not in caught.value.message and len(caught.value.message) < 500


def test_a_process_that_must_not_compile_hands_the_request_on() -> None:
    with pytest.raises(ChildNeeded):
        asked({"guided_regex": "a"}, None)


@pytest.mark.parametrize(
    ("begin", "end", "special"),
    [("<think>", "</think>", {}), ("", "</think>", {}), ("<|im_start|>", "<|im_end|>", SPECIAL)],
)  # fmt: skip
@pytest.mark.parametrize(
    "answer", [grammars.of_schema(PERSON, COMPACT), grammars.of_regex(r"\{.*\}"), 'start: "{" /[^}]*/ "}"']
)
def test_thinking_before_the_answer(
    vocabulary: Any, begin: str, end: str, special: dict[str, int], answer: str
) -> None:
    grammar = grammars.after_reasoning(answer, begin, end, special)
    json_text = '{"name":"x"}'
    assert allows(vocabulary, grammar, f"{begin}hmm\n\n< a > {end}\n\n{json_text}")
    assert allows(vocabulary, grammar, f"{begin}{end}{json_text}")
    assert allows(vocabulary, grammar, json_text) is (begin != "")
    assert not allows(vocabulary, grammar, f"{begin}hmm{end}\n\nSure")
    assert not allows(vocabulary, grammar, f"{begin}hmm {json_text}")


def test_special_tokens_in_marks_are_tokens() -> None:
    special = {"<|im_start|>": 1, "<|im_end|>": 2, "[x]": 7, "[x]y": 8}
    assert grammars.lark_literal('<|im_start|>a"<|im_end|>', special) == '<[1]> "a\\"" <[2]>'
    assert grammars.lark_literal("[x]y[x]", special) == "<[8]> <[7]>"


def test_a_structural_tag_with_a_special_token(checker: GrammarChecker, vocabulary: Any) -> None:
    tag = {
        "structures": [{"begin": "<|im_start|>f:", "schema": PERSON, "end": "<|im_end|>"}],
        "triggers": ["<|im_start|>"],
    }
    grammar = structural_tag.grammar_of(tag, COMPACT, checker.special)
    checker.check(grammar)
    assert allows(vocabulary, grammar, 'text <|im_start|>f:{"name":"x"}<|im_end|> more')
    assert not allows(vocabulary, grammar, 'text <|im_start|>g:{"name":"x"}<|im_end|>')


def test_tags_that_must_come(vocabulary: Any) -> None:
    call = {"type": "tag", "begin": "<f>", "content": {"type": "regex", "pattern": "[0-9]"}, "end": "</f>"}
    one = {
        "type": "triggered_tags",
        "triggers": ["<f>"],
        "tags": [call],
        "at_least_one": True,
        "stop_after_first": True,
    }
    listed = {"type": "tags_with_separator", "tags": [call], "separator": ", ", "at_least_one": True}
    first, second = (structural_tag.grammar_of({"format": form}, COMPACT, {}) for form in (one, listed))
    assert allows(vocabulary, first, "so: <f>1</f>") and not allows(vocabulary, first, "so: ")
    assert not allows(vocabulary, first, "<f>1</f>, <f>2</f>")
    assert allows(vocabulary, second, "<f>1</f>, <f>2</f>") and not allows(
        vocabulary, second, "<f>1</f><f>2</f>"
    )


def test_a_mark_that_is_too_long_is_refused() -> None:
    with pytest.raises(GrammarError, match="at most"):
        structural_tag.grammar_of({"format": {"type": "const_string", "value": "x" * 257}}, COMPACT, {})


def test_the_server_s_own_wishes_for_json(vocabulary: llguidance.LLTokenizer) -> None:
    """`--structured-outputs-config`: vLLM's names, for every request."""
    special = Tokenizer(FOLDER).special
    body = {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}}
    free = asked(body, GrammarChecker(FOLDER, special))
    compact = asked(body, GrammarChecker(FOLDER, special, compact=True))
    closed = asked(body, GrammarChecker(FOLDER, special, closed=True))
    for text, by_free, by_compact, by_closed in (
        ('{"name":"x"}', True, True, True),
        ('{"name": "x"}', True, False, True),
        ('{"name":"x","b":1}', True, True, False),
    ):
        said = [allows(vocabulary, grammar, text) for grammar in (free, compact, closed)]
        assert said == [by_free, by_compact, by_closed], text
