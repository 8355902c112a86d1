"""Every field that OpenAI's clients and vLLM 0.32's requests have is honoured, harmless, or refused with a reason.

The names come from the openai package's own parameter types and from vLLM's protocol (vllm/entrypoints/openai/chat_completion/protocol.py,
completion/protocol.py, sampling_params.py); what an honoured field does is tested where that is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import openai.types
import openai.types.chat
import pytest
from served import Setup, Site, save_tokenizer

from vsrv.api.request_fields import KNOWN

HELLO = [{"role": "user", "content": "hi"}]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
OK = (200, None)
UNSUPPORTED = (400, "unsupported_parameter")
INVALID = (400, "invalid_value")

# (field, value, what becomes of it); both routes where none is named
TABLE: list[Any] = [
    ("model", "m", OK), ("model", "alias", OK), ("model", "", OK), ("model", None, OK), ("model", "other", (404, "model_not_found")),
    ("stream", False, OK), ("stream", None, OK), ("stream", "yes", INVALID),
    ("stream_options", None, OK), ("stream_options", {"include_usage": True}, INVALID),
    ("temperature", 0, OK), ("temperature", 2, OK), ("temperature", 2.01, INVALID), ("temperature", -0.1, INVALID), ("temperature", None, OK),
    ("top_p", 1, OK), ("top_p", 0, INVALID), ("top_p", 1.1, INVALID), ("top_k", 0, OK), ("top_k", -1, OK), ("top_k", -2, INVALID),
    ("min_p", 0.5, OK), ("min_p", 1.5, INVALID), ("frequency_penalty", -2, OK), ("frequency_penalty", 2.5, INVALID),
    ("presence_penalty", 2, OK), ("presence_penalty", -2.5, INVALID), ("repetition_penalty", 1.1, OK), ("repetition_penalty", 0, INVALID),
    ("n", 2, OK), ("n", None, OK), ("n", 0, INVALID), ("n", 16385, INVALID),
    ("best_of", 1, OK), ("best_of", 3, OK, COMPLETIONS), ("best_of", 3, UNSUPPORTED, CHAT), ("best_of", 0, INVALID),
    ("use_beam_search", False, OK), ("length_penalty", 1.0, OK), ("length_penalty", 100, INVALID),
    ("seed", -1, OK), ("seed", 2**63 - 1, OK), ("seed", 1.5, INVALID),
    ("stop", "x", OK), ("stop", ["a", "b", "c", "d", "e"], OK), ("stop", [], OK), ("stop", [""], INVALID), ("stop", None, OK),
    ("stop_token_ids", [1], OK), ("stop_token_ids", [10**6], INVALID), ("include_stop_str_in_output", True, OK), ("ignore_eos", True, OK),
    ("min_tokens", 1, OK), ("min_tokens", -1, INVALID), ("max_tokens", 0, OK), ("max_tokens", 5, OK), ("max_tokens", None, OK), ("max_tokens", -1, INVALID),
    ("max_completion_tokens", 5, OK, CHAT), ("max_completion_tokens", None, OK, CHAT),
    ("logit_bias", {"5": 101}, OK), ("logit_bias", {"hello": 1}, INVALID), ("allowed_token_ids", [5], OK), ("allowed_token_ids", [], INVALID),
    ("allowed_token_ids", [5] * 16385, INVALID),
    ("bad_words", ["x"], OK), ("bad_words", [""], INVALID), ("skip_special_tokens", False, OK), ("spaces_between_special_tokens", False, OK),
    ("truncate_prompt_tokens", 1, OK), ("truncate_prompt_tokens", -1, OK), ("truncate_prompt_tokens", -2, INVALID),
    ("truncate_prompt_tokens", 201, INVALID), ("truncation_side", "right", OK), ("truncation_side", None, OK), ("truncation_side", "middle", INVALID),
    ("prompt_logprobs", 0, OK), ("prompt_logprobs", 21, INVALID), ("logprob_token_ids", [1], UNSUPPORTED), ("logprob_token_ids", None, OK),
    ("priority", 5, OK), ("request_id", "abc", OK), ("request_id", "a b", INVALID), ("session_id", "s", OK), ("user", "u", OK),
    ("return_token_ids", True, OK), ("return_tokens_as_token_ids", True, OK), ("cache_salt", "x", OK), ("cache_salt", "", INVALID),
    ("repetition_detection", {"min_count": 2}, UNSUPPORTED), ("stream_interval", 4, OK), ("stream_interval", 0, INVALID),
    ("kv_transfer_params", {"a": 1}, UNSUPPORTED), ("ec_transfer_params", {"a": 1}, UNSUPPORTED), ("vllm_xargs", {"a": 1}, UNSUPPORTED),
    ("vllm_xargs", {}, OK), ("watermarking", True, UNSUPPORTED), ("routed_experts_prompt_start", 1, UNSUPPORTED),
    ("mm_payload", {"a": 1}, UNSUPPORTED), ("return_mm_kwargs", True, UNSUPPORTED), ("return_token_offsets", True, UNSUPPORTED),
    ("prompt_embeds", "aGk=", UNSUPPORTED),
    # chat
    ("logprobs", True, OK, CHAT), ("top_logprobs", 2, INVALID, CHAT), ("top_logprobs", -1, INVALID, CHAT), ("echo", True, UNSUPPORTED, CHAT),
    ("reasoning_effort", "low", OK, CHAT), ("reasoning_effort", "huge", INVALID, CHAT),
    ("add_generation_prompt", False, OK, CHAT), ("continue_final_message", True, OK, CHAT),
    ("add_special_tokens", True, OK), ("chat_template", "{{ 1 }}", UNSUPPORTED, CHAT),
    ("chat_template_kwargs", {"enable_thinking": False}, OK, CHAT), ("chat_template_kwargs", {"tokenize": True}, INVALID, CHAT),
    ("return_prompt_text", True, OK, CHAT), ("media_io_kwargs", {"a": 1}, UNSUPPORTED, CHAT), ("mm_processor_kwargs", {"a": 1}, UNSUPPORTED, CHAT),
    ("documents", [], OK), ("documents", None, OK), ("documents", [{"text": "x"}], UNSUPPORTED),  # the template here shows none
    ("store", True, OK, CHAT), ("metadata", {"a": "b"}, OK, CHAT), ("service_tier", "auto", OK, CHAT), ("verbosity", "low", OK, CHAT),
    ("modalities", ["text"], OK, CHAT), ("modalities", ["text", "audio"], UNSUPPORTED, CHAT), ("audio", {"voice": "x", "format": "wav"}, UNSUPPORTED, CHAT),
    ("prediction", {"type": "content", "content": "x"}, OK, CHAT), ("web_search_options", {}, UNSUPPORTED, CHAT),
    ("safety_identifier", "s", OK, CHAT), ("prompt_cache_key", "k", OK, CHAT), ("prompt_cache_retention", "24h", OK, CHAT),
    ("prompt_cache_options", {}, OK, CHAT), ("moderation", {}, OK, CHAT),
    # completions
    ("prompt", "", INVALID, COMPLETIONS), ("prompt", [], INVALID, COMPLETIONS), ("prompt", ["a", "b"], OK, COMPLETIONS), ("prompt", [5, 6], OK, COMPLETIONS),
    ("prompt", [[5], [6, 7]], OK, COMPLETIONS), ("prompt", [-1], INVALID, COMPLETIONS), ("logprobs", 0, OK, COMPLETIONS),
    ("logprobs", 21, INVALID, COMPLETIONS), ("echo", True, OK, COMPLETIONS), ("suffix", "", OK, COMPLETIONS), ("suffix", "x", UNSUPPORTED, COMPLETIONS),
    # nobody's
    ("temprature", 0.5, OK), ("nvext", {"a": 1}, OK),
]  # fmt: skip
# tested with tools, reasoning and structured outputs
ELSEWHERE = set(
    """messages tools tool_choice parallel_tool_calls functions function_call include_reasoning thinking_token_budget response_format
    structured_outputs guided_json guided_regex guided_choice guided_grammar""".split()
)
VLLM = """model stream stream_options temperature top_p top_k min_p frequency_penalty presence_penalty repetition_penalty n use_beam_search
    length_penalty seed stop stop_token_ids include_stop_str_in_output ignore_eos min_tokens max_tokens logit_bias allowed_token_ids bad_words
    skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens truncation_side prompt_logprobs logprob_token_ids response_format
    structured_outputs priority request_id session_id user return_token_ids return_tokens_as_token_ids cache_salt thinking_token_budget
    repetition_detection stream_interval kv_transfer_params ec_transfer_params vllm_xargs watermarking routed_experts_prompt_start mm_payload
    return_mm_kwargs return_token_offsets messages max_completion_tokens logprobs top_logprobs tools tool_choice parallel_tool_calls
    reasoning_effort include_reasoning echo add_generation_prompt continue_final_message add_special_tokens documents chat_template
    chat_template_kwargs return_prompt_text media_io_kwargs mm_processor_kwargs prompt suffix prompt_embeds""".split()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("surface")
    save_tokenizer(folder)
    made = Site(folder)
    yield made
    made.stop()


CASES = [(path, *row[:3]) for row in TABLE for path in (row[3:] or (CHAT, COMPLETIONS))]


@pytest.mark.parametrize(
    ("path", "field", "value", "outcome"), CASES, ids=[f"{c[0]}-{c[1]}-{c[2]}"[:70] for c in CASES]
)
def test_what_becomes_of_a_field(site: Site, path: str, field: str, value: Any, outcome: Any) -> None:
    base: dict[str, Any] = {"messages": HELLO} if path == CHAT else {"prompt": "hi there"}
    status, answer = site.post(path, {**base, "max_tokens": 4, "temperature": 0.5, field: value})
    expected, code = outcome
    assert status == expected, answer
    if code is not None:
        error = answer["error"]
        assert (error["code"], error["param"]) == (code, field) and len(error["message"]) > len(field) + 10


def test_every_field_of_the_clients_is_in_the_table() -> None:
    tested = {row[0] for row in TABLE} | ELSEWHERE
    types = (
        openai.types.chat.completion_create_params.CompletionCreateParamsStreaming,
        openai.types.completion_create_params.CompletionCreateParamsStreaming,
    )
    names = {name for kind in types for name in get_type_hints(kind)} | set(VLLM)
    assert not names - tested
    assert not names - KNOWN


def test_stream_options(site: Site) -> None:
    def events(**options: Any) -> list[Any]:
        body = {"messages": HELLO, "stream": True, "max_tokens": 3, "stream_options": options}
        status, _, data = site.request("POST", CHAT, body)
        assert status == 200
        return [json.loads(line[6:]) for line in data.decode().split("\n\n") if line.startswith("data: {")]

    plain, usage, running = (
        events(),
        events(include_usage=True),
        events(include_usage=True, continuous_usage_stats=True),
    )
    assert not any("usage" in event for event in plain)
    assert [("usage" in event, event["choices"] == []) for event in usage][-2:] == [
        (False, False),
        (True, True),
    ]
    assert [event["usage"]["completion_tokens"] for event in running] == [1, 1, 2, 3, 3]
    assert not any("usage" in event for event in events(continuous_usage_stats=True))
    status, answer = site.post(
        CHAT, {"messages": HELLO, "stream": True, "stream_options": {"include_usage": 1}}
    )
    assert (status, answer["error"]["param"]) == (400, "stream_options.include_usage")


def test_the_k_best_are_told_sorted_whatever_was_sampled(site: Site) -> None:
    """The scripted engine samples the (k + 1)-th: it is the entry's own token and takes nobody's place."""
    answer = site.post(CHAT, {"messages": HELLO, "logprobs": True, "top_logprobs": 3, "max_tokens": 4})[1]
    rows = answer["choices"][0]["logprobs"]["content"]
    assert len(rows) == 4
    for row in rows:
        values = [top["logprob"] for top in row["top_logprobs"]]
        assert values == sorted(values, reverse=True) == [-0.25, -0.5, -0.75]
        assert row["logprob"] == -1.5 and bytes(row["bytes"]).decode() == row["token"]


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool", "function", "critic"])
@pytest.mark.parametrize(
    "content",
    ["hi", None, "", [{"type": "text", "text": "hi"}], [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}], []],
    ids=str,
)  # fmt: skip
def test_roles_and_content(site: Site, role: str, content: Any) -> None:
    message = {"role": role, "content": content, **({"tool_call_id": "c"} if role == "tool" else {})}
    status, answer = site.post(
        CHAT, {"messages": [*HELLO, message], "max_tokens": 2, "return_prompt_text": True}
    )
    assert status == 200, answer
    told = {"developer": "system", "function": "tool"}.get(role, role)
    text = "\n".join(part["text"] for part in content) if isinstance(content, list) else content or ""
    assert f"<|im_start|>{told}\n{text}<|im_end|>" in answer["prompt_text"]


@pytest.mark.parametrize(
    "content", [1, {"type": "text"}, ["plain"], [{"type": "text"}], [{"text": "x"}]], ids=str
)
def test_content_that_is_none(site: Site, content: Any) -> None:
    status, answer = site.post(CHAT, {"messages": [{"role": "user", "content": content}]})
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (
        400,
        "invalid_value",
        "messages[0].content",
    )


DOCUMENTS = "{% for d in documents or [] %}[{{ d.title }}: {{ d.text }}]{% endfor %}{{ messages[0].content }}"


def test_documents_reach_a_template_that_shows_them(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    site = Site(tmp_path, Setup(template=DOCUMENTS))
    try:
        body = {"messages": HELLO, "max_tokens": 1, "return_prompt_text": True, "return_token_ids": True}
        shown = [{"title": "a", "text": "b <|im_end|>"}, {"title": "c", "text": "d"}]
        answer = site.post(CHAT, {**body, "documents": shown})[1]
        assert answer["prompt_text"] == "[a: b <|im_end|>][c: d]hi"
        assert 2 not in answer["prompt_token_ids"]  # a client's text is no control token
        for wrong in ([{}], ["text"], [{"text": 1}], [{str(i): "x" for i in range(17)}]):
            status, refused = site.post(CHAT, {**body, "documents": wrong})
            assert (status, refused["error"]["code"]) == (400, "invalid_value")
            assert refused["error"]["param"] == "documents[0]"
        status, refused = site.post(CHAT, {**body, "documents": shown * 129})
        assert (status, refused["error"]["param"]) == (400, "documents")
    finally:
        site.stop()


def test_the_priority_header_wins(site: Site) -> None:
    """vllm: "X-Vllm-Priority" overrides the field."""
    for given, expected in (("7", 7), ("-3", -3)):
        body = {"prompt": "hi", "max_tokens": 1, "priority": 1}
        status, _, _ = site.request("POST", COMPLETIONS, body, {"X-Vllm-Priority": given})
        assert status == 200 and site.engine.generates[-1].priority == expected
    for wrong in ("x", "1.5", str(2**40), ""):
        status, _, data = site.request("POST", COMPLETIONS, {"prompt": "hi"}, {"X-Vllm-Priority": wrong})
        error = json.loads(data)["error"]
        assert (status, error["code"], error["param"]) == (400, "invalid_value", "X-Vllm-Priority")
