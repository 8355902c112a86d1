"""Tool calls in text: every sample, in every cut, gives the same content, names and arguments; faults lose nothing."""

from __future__ import annotations

import itertools
import json
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tool_samples import PROPERTIES, SAMPLES, Sample

from vsrv.text.tool_bodies import parameter_types
from vsrv.text.tools import FORMATS, ToolScanner, detect_format

DEFS = {"Level": {"enum": [1, 7]}}
TOOLS = {name: parameter_types({"properties": p, "$defs": DEFS}) for name, p in PROPERTIES.items()}


def scan(form: str, pieces: list[str], parallel: bool = True) -> tuple[str, list[tuple[str, str]]]:
    """What a client has after joining all deltas, with the promises about deltas checked on the way."""
    scanner = ToolScanner(FORMATS[form], TOOLS, parallel)
    content, names, ids, arguments = "", [], [], []
    for scanned in [*(scanner.feed(piece) for piece in pieces), scanner.finish()]:
        content += scanned.text
        for delta in scanned.calls:
            if delta.name or delta.id:
                assert delta.index == len(names) and delta.name and delta.id and delta.arguments == ""
                names.append(delta.name)
                ids.append(delta.id)
                arguments.append([])
            else:
                assert delta.index == len(names) - 1 and delta.arguments
                arguments[-1].append(delta.arguments)
    assert len(set(ids)) == len(ids) == scanner.num_calls
    return content, [(name, "".join(pieces)) for name, pieces in zip(names, arguments, strict=True)]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: f"{s.form}-{s.output[:30]!r}")
def test_every_sample_in_every_cut(sample: Sample) -> None:
    text, expected = sample.output, (sample.content, sample.calls)
    assert scan(sample.form, [text]) == expected
    assert scan(sample.form, list(text)) == expected
    for cut in range(1, len(text)):
        assert scan(sample.form, [text[:cut], text[cut:]]) == expected, f"cut at {cut}"
    chance = random.Random(text)
    for _ in range(30):
        cuts = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(2, 9)))
        edges = [0, *cuts, len(text)]
        pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
        assert scan(sample.form, pieces) == expected, pieces


@pytest.mark.parametrize(
    "sample", [s for s in SAMPLES if len(s.calls) > 1], ids=lambda s: f"{s.form}-{s.output[:30]!r}"
)
def test_without_parallel_calls_the_first_comes_alone(sample: Sample) -> None:
    assert scan(sample.form, list(sample.output), parallel=False) == (sample.content, sample.calls[:1])


FRAGMENTS = st.sampled_from(
    [
        "<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<function=get_weather>",
        "</function>", "<parameter=city>", "</parameter>", '{"name": "searchTool"', ', "arguments": {', '"parameters": ',
        "[get_weather(", "city=", "'", '"', "\\", "{", "}", "[", "]", "(", ")", ",", ";", ":", "\n", " ", "x", "é😀", "1", "null", "<",
        '"arguments": {}, "name": "f"}',
    ]
)  # fmt: skip


@given(st.sampled_from(sorted(FORMATS)), st.lists(FRAGMENTS, max_size=25), st.integers(0, 200))
def test_any_text_is_read_the_same_in_any_cut(form: str, fragments: list[str], cut: int) -> None:
    text = "".join(fragments)
    whole = scan(form, [text])
    assert scan(form, list(text)) == whole
    assert scan(form, [text[:cut], text[cut:]]) == whole
    if not whole[1]:
        assert whole[0] == text, "text without calls passes as it is"


@pytest.mark.parametrize(
    ("form", "before", "after", "escaped"),
    [
        ("hermes", '<tool_call>{"name": "f", "arguments": {"t": "', '"}}</tool_call>', True),
        ("llama3_json", '{"name": "searchTool", "parameters": {"query": "', '"}}', True),
        ("mistral", '[TOOL_CALLS]f{"t": "', '"}', True),
        ("pythonic", "[get_weather(city='", "')]", False),
        (
            "qwen3_coder",
            "<tool_call>\n<function=f>\n<parameter=t>\n",
            "\n</parameter>\n</function>\n</tool_call>",
            False,
        ),
    ],
)
def test_a_megabyte_of_arguments(form: str, before: str, after: str, escaped: bool) -> None:
    value = 'é <tag> {"a": [1]} \u2028' * 50_000
    written = json.dumps(value, ensure_ascii=False)[1:-1] if escaped else value
    text = before + written + after
    pieces = [text[i : i + 1000] for i in range(0, len(text), 1000)]
    whole = scan(form, [text])
    assert scan(form, pieces) == whole
    assert whole[0] == "" and next(iter(json.loads(whole[1][0][1]).values())) == value


HOSTILE = [
    ("hermes", "<tool_call>"), ("hermes", '<tool_call>{"name": '), ("hermes", '<tool_call>{"name": "f", "arguments": {"a": ['),
    ("hermes", '<tool_call>{"name"   '), ("llama3_json", "{"), ("llama3_json", '{"name": "searchTool", "type": "'),
    ("mistral", "[TOOL_CALLS]"), ("mistral", "[TOOL_CALLS]a["), ("pythonic", "["), ("pythonic", "[get_weather("),
    ("pythonic", "[get_weather(city='x'), "), ("pythonic", "[get_weather(city=[['''\\"), ("qwen3_coder", "<function="),
    ("qwen3_coder", "<function=f><parameter=a>\n</"), ("qwen3_coder", "\n"), ("qwen3_coder", "<function=f>\n<parameter=a>1</parameter>"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("form", "unit"), HOSTILE)
def test_time_grows_with_the_text_and_no_faster(form: str, unit: str) -> None:
    def seconds(length: int, size: int) -> float:
        text = (unit * (length // len(unit) + 1))[:length]
        pieces = [text[i : i + size] for i in range(0, length, size)]
        best = 9e9
        for _ in range(3):
            start = time.process_time()
            scan(form, pieces)
            best = min(best, time.process_time() - start)
        return best

    for size in (5, 1 << 30):
        small, large = seconds(20_000, size), seconds(160_000, size)
        assert large < 24 * small + 0.02, (
            f"8 times the text took {large / small:.1f} times as long in pieces of {size}"
        )


def test_templates_name_their_format() -> None:
    """Excerpts of the templates of the models named."""
    assert (
        detect_format('<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}')
        == "hermes"
    )  # Qwen3
    assert (
        detect_format("<tool_call>\\n<function=example_function_name>\\n<parameter=example_parameter_1>")
        == "qwen3_coder"
    )
    assert (
        detect_format('Respond in the format {"name": function name, "parameters": dictionary of')
        == "llama3_json"
    )  # Llama 3.1
    assert detect_format('{{- "[TOOL_CALLS] [" }}') == "mistral"  # Mistral Nemo
    assert (
        detect_format("[func_name1(params_name1=params_value1, params_name2=params_value2...)]") == "pythonic"
    )  # Llama 4
    assert detect_format("<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>") == ""  # GLM 4.5
    assert detect_format("{{ message.content }}") == ""
