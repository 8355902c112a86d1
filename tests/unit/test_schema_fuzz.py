"""Request bodies of any form: a checked request, or a UserError of status 4xx that tells nothing of the inside. Never anything else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import TEMPLATE, save_tokenizer

from vsrv.api.prepare import Prepared, Preparer
from vsrv.api.schema import ModelFacts
from vsrv.errors import UserError
from vsrv.text.grammar import GrammarChecker
from vsrv.text.template import ChatTemplate
from vsrv.text.tokenizer import Tokenizer

FIELDS = """model messages prompt stream stream_options n best_of temperature top_p top_k min_p max_tokens max_completion_tokens min_tokens stop
stop_token_ids allowed_token_ids bad_words logit_bias logprobs top_logprobs prompt_logprobs seed priority cache_salt echo suffix tools tool_choice
response_format chat_template chat_template_kwargs truncate_prompt_tokens truncation_side add_special_tokens add_generation_prompt
continue_final_message reasoning_effort ignore_eos skip_special_tokens presence_penalty frequency_penalty repetition_penalty user metadata
return_token_ids include_stop_str_in_output functions role content type text name""".split()
EDGES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63 - 1, -(2**63), 2**64 - 1, 0.0, -0.0, 1.0, 1.5, 1e308, 5e-324, "", "x", "m", "\x00", "🙂" * 5,
    [], {}, [[]], [None], [0], [-1], [399], [400], [2**32], ["x"], [["x"]], {"x": 1}, {"1": 1}, {"-1": 1}, {"1": None}, {"١": 1}, "json", "<|im_end|>",
]  # fmt: skip
values = st.recursive(
    st.sampled_from(EDGES)
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
bodies = st.dictionaries(st.sampled_from(FIELDS), values, max_size=8)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "x"]), "content": values}), max_size=3
)
INSIDE = re.compile(r"0x[0-9a-f]{6,}|Traceback|object at|\.py\b|site-packages|orjson|<class")


@pytest.fixture(scope="module")
def preparer(tmp_path_factory: pytest.TempPathFactory) -> Preparer:
    folder: Path = tmp_path_factory.mktemp("tok")
    save_tokenizer(folder)
    tokenizer = Tokenizer(folder)
    facts = ModelFacts(("m",), 200, tokenizer.vocab_size, 20, 2)
    return Preparer(tokenizer, ChatTemplate(TEMPLATE, {}), facts, GrammarChecker(folder, tokenizer.marks))


def check(preparer: Preparer, dialect: str, body: bytes) -> Prepared | None:
    try:
        prepared = preparer.prepare(dialect, body)
    except UserError as error:
        assert error.status in (400, 404) and error.code and error.message
        assert not INSIDE.search(error.message) and len(error.message) < 1000
        return None
    request = prepared.request
    if request is not None:
        params = request.params
        assert 1 <= request.n <= 64 and len(prepared.prompts) * request.n <= 128
        for ids in prepared.prompts:
            assert len(ids) > 0 and len(ids) + min(1, params.max_tokens) <= 200 and max(ids) < 400
            assert len(ids) + params.max_tokens <= 200
        assert (
            0 <= params.temperature <= 2
            and 0 < params.top_p <= 1
            and 0 <= params.top_k <= 400
            and params.min_tokens <= params.max_tokens
        )
        assert (
            all(0 <= token < 400 for token, _ in params.logit_bias) and -(2**63) <= (params.seed or 0) < 2**63
        )
    again = Prepared.from_frame(prepared.to_frame())  # what the prepare child sends is what it has
    assert again == prepared
    return prepared


common = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(bodies, values)
@common
def test_completions(preparer: Preparer, body: dict[str, Any], prompt: Any) -> None:
    check(preparer, "completions", orjson.dumps({"prompt": "hello", **body}, option=orjson.OPT_NON_STR_KEYS))
    check(preparer, "completions", orjson.dumps({"prompt": prompt}))


@given(bodies, messages)
@common
def test_chat(preparer: Preparer, body: dict[str, Any], given_messages: list[dict[str, Any]]) -> None:
    check(preparer, "chat", orjson.dumps({"messages": [{"role": "user", "content": "hi"}], **body}))
    check(preparer, "chat", orjson.dumps({"messages": given_messages}))


TRANSLATED = """model messages system max_tokens stop_sequences tools tool_choice thinking output_config metadata container input instructions text
reasoning include truncation store max_output_tokens type role content text thinking signature id name input tool_use_id is_error call_id
arguments output summary encrypted_content namespace format schema parameters input_schema budget_tokens display effort mode""".split()
KINDS = st.sampled_from(
    """text tool_use tool_result thinking redacted_thinking image document message function_call function_call_output custom_tool_call
    custom_tool_call_output reasoning item_reference input_text output_text function custom namespace auto any tool enabled json_schema
    allowed_tools""".split()
)
blocks = st.dictionaries(st.sampled_from(TRANSLATED), values | KINDS, max_size=5)
nested = st.dictionaries(
    st.sampled_from(TRANSLATED), values | blocks | st.lists(blocks, max_size=3), max_size=6
)


@given(nested, st.lists(nested, max_size=3))
@common
def test_translated_dialects(preparer: Preparer, body: dict[str, Any], turns: list[dict[str, Any]]) -> None:
    check(preparer, "messages", orjson.dumps({"max_tokens": 3, "messages": turns, **body}))
    for name in ("messages", "count_tokens"):
        hello = [{"role": "user", "content": [{"type": "text", "text": "hi"}, *turns]}]
        check(preparer, name, orjson.dumps({"max_tokens": 3, "messages": hello} | body))
    check(preparer, "responses", orjson.dumps({"input": turns, **body}))
    check(preparer, "responses", orjson.dumps({**body, "input": [{"role": "user", "content": "x"}, *turns]}))


@given(bodies)
@common
def test_tokenize(preparer: Preparer, body: dict[str, Any]) -> None:
    check(preparer, "tokenize", orjson.dumps(body))


@given(st.binary(max_size=120), st.integers(0, 60))
@common
def test_bytes(preparer: Preparer, noise: bytes, at: int) -> None:
    whole = b'{"prompt": "hello", "max_tokens": 3, "stop": ["a"], "n": 2, "seed": 1}'
    check(preparer, "completions", noise)
    check(preparer, "completions", whole[:at] + noise + whole[at:])


@given(st.integers(0, 4000), st.sampled_from(["[", '{"a":']), st.binary(max_size=3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nesting(preparer: Preparer, depth: int, bracket: str, tail: bytes) -> None:
    assert (
        check(
            preparer, "completions", b'{"prompt": "x", "metadata": ' + bracket.encode() * depth + tail + b"}"
        )
        is None
        or depth <= 32
    )


def test_the_fuzz_reaches_what_is_accepted(preparer: Preparer) -> None:
    """A check that refuses everything would pass all of the above."""
    hello = b'[{"role": "user", "content": "hi"}]'
    for name, body in (
        ("messages", b'{"max_tokens": 9, "messages": %b}'),
        ("count_tokens", b'{"messages": %b}'),
        ("responses", b'{"input": %b}'),
    ):
        assert check(preparer, name, body % hello) is not None, name
    assert (
        check(preparer, "completions", b'{"prompt": "hello", "n": 2, "temperature": 1, "max_tokens": 3}')
        is not None
    )
