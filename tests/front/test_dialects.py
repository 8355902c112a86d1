"""/v1/messages and /v1/responses with a scripted engine behind the real HTTP server, by way of the unmodified SDKs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from served import Setup, Site

REPLY = "Hello, the quick fox."
HELLO: Any = [{"role": "user", "content": "hi"}]
FIXTURES = sorted((Path(__file__).parent / "requests").glob("*.json"))
# Refuses what Mistral's template refuses: instructions after the beginning, and two messages of one side in a row.
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('system must be first') }}{% endif %}"
    "{% if not loop.first and m.role != 'tool' and m.role == loop.previtem.role %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def started(folder: Path, setup: Setup = Setup()) -> Iterator[Site]:  # noqa: B008
    site = Site(folder, setup)
    yield site
    site.stop()
    assert site.admission.sequences == 0 and site.admission.tokens == 0, (
        "an ended request still holds its place"
    )


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    yield from started(folder)


@pytest.fixture
def keyed(folder: Path) -> Iterator[Site]:
    yield from started(folder, Setup(keys=("secret-key",)))


def claude(site: Site, **options: Any) -> anthropic.Anthropic:
    options = {"api_key": "none", "max_retries": 0, **options}
    return site.clients.enter_context(
        anthropic.Anthropic(base_url=f"http://127.0.0.1:{site.port}", **options)
    )


def gpt(site: Site) -> openai.OpenAI:
    url = f"http://127.0.0.1:{site.port}/v1"
    return site.clients.enter_context(openai.OpenAI(base_url=url, api_key="none", max_retries=0))


def sse(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    made = []
    for block in data.decode().strip().split("\n\n"):
        if not block.startswith(":"):
            name, _, value = block.partition("\n")
            assert name.startswith("event: ") and value.startswith("data: "), block
            made.append((name[7:], json.loads(value[6:])))
            assert made[-1][0] == made[-1][1]["type"]
    return made


# agents: tools and thinking, with a template in the manner of Qwen3's and a reply as such a model writes it

AGENT = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n{% endif %}'
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALLS = (
    "<think>\nI should look.\n</think>\n\nOne moment.\n"
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "apply_patch", "arguments": {"input": "*** x\\n"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "mcp__files__read", "arguments": {}}\n</tool_call>'
)
SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string"}}}
OWN_TOOLS: Any = [
    {"name": name, "description": "x", "input_schema": SCHEMA}
    for name in ("get_weather", "apply_patch", "mcp__files__read")
]
GPT_TOOLS: Any = [
    {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False},
    {"type": "custom", "name": "apply_patch", "description": "edits"},
    {
        "type": "namespace",
        "name": "mcp__files",
        "description": "x",
        "tools": [{"type": "function", "name": "read", "parameters": {"type": "object"}}],
    },
    {"type": "web_search"},
]


@pytest.fixture
def agent(folder: Path) -> Iterator[Site]:
    for site in started(folder, Setup(template=AGENT, facts={"max_model_len": 4000})):
        site.engine.reply = CALLS
        yield site


def prompt_of(site: Site) -> str:
    return site.tokenizer.decode(site.engine.generates[-1].prompt_token_ids.tolist(), False)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_loop_with_anthropic_s_client(agent: Site, streamed: bool) -> None:
    client = claude(agent)
    asked: Any = {"model": "m", "max_tokens": 999, "tools": OWN_TOOLS, "messages": HELLO}
    if streamed:
        with client.messages.stream(**asked) as stream:
            message: Any = stream.get_final_message()
    else:
        message = client.messages.create(**asked)
    assert [block.type for block in message.content] == [
        "thinking",
        "text",
        "tool_use",
        "tool_use",
        "tool_use",
    ]
    assert message.content[0].thinking == "I should look." and message.content[0].signature
    assert message.content[1].text.strip() == "One moment."
    assert [(block.name, block.input) for block in message.content[2:]] == [
        ("get_weather", {"city": "Köln"}),
        ("apply_patch", {"input": "*** x\n"}),
        ("mcp__files__read", {}),
    ]
    assert message.stop_reason == "tool_use" and message.usage.output_tokens_details.thinking_tokens > 0
    results: Any = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "rain"} for block in message.content[2:]
    ]
    agent.engine.reply = "It rains."
    again: Any = [
        *HELLO,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": results},
    ]
    last: Any = client.messages.create(**{**asked, "messages": again})
    assert last.content[0].text == "It rains." and last.stop_reason == "end_turn"
    assert "<think>I should look.</think>One moment." in prompt_of(agent) and "Köln" in prompt_of(agent)
    assert prompt_of(agent).count("<|im_start|>tool\nrain") == 3


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_loop_with_openai_s_client(agent: Site, streamed: bool) -> None:
    client = gpt(agent)
    sealed: Any = ["reasoning.encrypted_content"]
    asked: Any = {"model": "m", "tools": GPT_TOOLS, "input": "hi", "include": sealed, "store": False}
    if streamed:
        with client.responses.stream(**asked) as stream:
            response: Any = stream.until_done().get_final_response()
    else:
        response = client.responses.create(**asked)
    reasoning, message, weather, patch, read = response.output
    assert reasoning.content[0].text == "I should look." and reasoning.encrypted_content
    assert message.content[0].text.strip() == "One moment." == response.output_text.strip()
    assert (weather.type, weather.name, json.loads(weather.arguments)) == (
        "function_call",
        "get_weather",
        {"city": "Köln"},
    )
    assert (patch.type, patch.name, patch.input) == ("custom_tool_call", "apply_patch", "*** x\n")
    assert (read.type, read.namespace, read.name, read.arguments) == (
        "function_call",
        "mcp__files",
        "read",
        "{}",
    )
    assert response.usage.output_tokens_details.reasoning_tokens > 0
    kinds = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
    outputs: Any = [
        {"type": kinds[item.type], "call_id": item.call_id, "output": "rain"}
        for item in (weather, patch, read)
    ]
    # as Codex sends it: no ids, no reasoning text
    thought = {"type": "reasoning", "summary": [], "encrypted_content": reasoning.encrypted_content}
    agent.engine.reply = "It rains."
    again: Any = [*HELLO, thought, message, weather, patch, read, *outputs]
    last = client.responses.create(**{**asked, "input": again})
    assert last.output_text == "It rains."
    assert "<think>I should look.</think>One moment." in prompt_of(agent) and "Köln" in prompt_of(agent)
    assert prompt_of(agent).count("<|im_start|>tool\nrain") == 3


def test_streamed_and_whole_answers_of_an_agent_are_the_same(agent: Site) -> None:
    body = {"input": "hi", "tools": GPT_TOOLS, "reasoning": {"summary": "auto"}}
    _, whole = agent.post("/v1/responses", body)
    events = sse(agent.request("POST", "/v1/responses", {**body, "stream": True})[2])
    streamed = events[-1][1]["response"]

    def told(response: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {name: value for name, value in item.items() if name not in ("id", "call_id")}
            for item in response["output"]
        ]

    assert told(streamed) == told(whole) and len(whole["output"]) == 5
    assert whole["output"][0]["summary"][0]["text"] == "I should look."
    for name, event in events:
        if name == "response.output_item.done":
            assert event["item"] == streamed["output"][event["output_index"]]


# Anthropic's


def test_messages_whole_and_streamed_agree(site: Site) -> None:
    client = claude(site)
    whole = client.messages.create(model="m", max_tokens=50, messages=HELLO)
    assert [block.model_dump(exclude_none=True) for block in whole.content] == [
        {"type": "text", "text": REPLY}
    ]
    assert (whole.stop_reason, whole.stop_sequence, whole.model, whole.role) == (
        "end_turn",
        None,
        "m",
        "assistant",
    )
    assert whole.id.startswith("msg_") and whole._request_id
    prompt = len(site.engine.generates[0].prompt_token_ids)
    assert whole.usage.cache_read_input_tokens == 32 and whole.usage.input_tokens == prompt - 32
    with client.messages.stream(model="m", max_tokens=50, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == REPLY and final.content[0].model_dump() == whole.content[0].model_dump()
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.usage.input_tokens == whole.usage.input_tokens and final.stop_reason == "end_turn"


def test_messages_async(site: Site) -> None:
    async def ask() -> tuple[str, str]:
        url = f"http://127.0.0.1:{site.port}"
        async with anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0) as client:
            whole = await client.messages.create(model="m", max_tokens=50, messages=HELLO)
            pieces = []
            stream = await client.messages.create(model="m", max_tokens=50, messages=HELLO, stream=True)
            async for event in stream:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    pieces.append(event.delta.text)  # noqa: PERF401
            return whole.content[0].text, "".join(pieces)  # type: ignore[union-attr]

    assert asyncio.run(ask()) == (REPLY, REPLY)


def test_a_stop_sequence_and_a_limit_are_told(site: Site) -> None:
    client = claude(site)
    stopped = client.messages.create(
        model="m", max_tokens=50, messages=HELLO, stop_sequences=["quick", "zzz"]
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "quick")
    assert stopped.content[0].text == "Hello, the "  # type: ignore[union-attr]
    cut = client.messages.create(model="m", max_tokens=2, messages=HELLO)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 2)


def test_max_tokens_above_the_context_is_all_that_there_is(site: Site) -> None:
    list(claude(site).messages.create(model="m", max_tokens=64000, messages=HELLO, stream=True))
    sent = site.engine.generates[0]
    assert sent.params.max_tokens == 200 - len(sent.prompt_token_ids)


def test_count_tokens_is_what_the_prompt_has(site: Site) -> None:
    client = claude(site)
    counted = client.messages.count_tokens(model="m", system="be brief", messages=HELLO)
    client.messages.create(model="m", max_tokens=3, system="be brief", messages=HELLO)
    assert counted.input_tokens == len(site.engine.generates[0].prompt_token_ids)
    assert counted._request_id


def test_an_answer_begun_by_the_client_is_continued(site: Site) -> None:
    messages: Any = [*HELLO, {"role": "assistant", "content": "Hello, the"}]
    claude(site).messages.create(model="m", max_tokens=3, messages=messages)
    prompt = site.tokenizer.decode(site.engine.generates[0].prompt_token_ids.tolist(), False)
    assert prompt.endswith("<|im_start|>assistant\nHello, the")


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
def test_both_ways_to_show_a_key(keyed: Site, header: str) -> None:
    key = (
        {"api_key": "secret-key"} if header == "x-api-key" else {"api_key": None, "auth_token": "secret-key"}
    )
    assert claude(keyed, **key).messages.create(model="m", max_tokens=3, messages=HELLO).type == "message"


@pytest.mark.parametrize(
    ("expected", "kind", "code", "body"),
    [
        (anthropic.NotFoundError, "not_found_error", "model_not_found", {"model": "claude-x"}),
        (anthropic.BadRequestError, "invalid_request_error", "invalid_value", {"max_tokens": -3}),
        (
            anthropic.BadRequestError,
            "invalid_request_error",
            "invalid_value",
            {"extra_body": {"temperature": 9}},
        ),
        (anthropic.BadRequestError, "invalid_request_error", "invalid_value", {"extra_body": {"top_k": "x"}}),
        (
            anthropic.BadRequestError,
            "invalid_request_error",
            "unsupported_parameter",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "x"}}]}
                ]
            },
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_the_sdk_s_classes(
    site: Site,
    expected: type[anthropic.APIStatusError],
    kind: str,
    code: str,
    body: dict[str, Any],
    stream: bool,
) -> None:
    asked = {"model": "m", "max_tokens": 5, "messages": HELLO, **body}
    with pytest.raises(expected) as caught:
        claude(site).messages.create(stream=stream, **asked)
    error = caught.value
    assert (error.type, error.error_code) == (kind, code) and error.request_id
    assert isinstance(error.body, dict) and error.body["request_id"] == error.request_id
    assert error.api_message


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_claude_code_looks_for(site: Site) -> None:
    """github.com/anthropics/claude-code: it compacts on "prompt is too long: N tokens > M maximum"."""
    long: Any = [{"role": "user", "content": "The quick brown fox. " * 60}]
    with pytest.raises(
        anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 200 maximum"
    ) as caught:
        claude(site).messages.create(model="m", max_tokens=5, messages=long)
    assert caught.value.error_code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("GET", "/v1/messages", None, 405, "invalid_request_error"),
        ("PUT", "/v1/messages/count_tokens", {}, 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", {}, 404, "not_found_error"),
        ("POST", "/v1/messages", b"{", 400, "invalid_request_error"),
        ("POST", "/v1/messages", b"", 400, "invalid_request_error"),
        ("POST", "/v1/messages", b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", 400, "invalid_request_error"),
    ],
)
def test_every_refusal_on_the_path_has_anthropic_s_form(
    site: Site, method: str, path: str, body: Any, status: int, kind: str
) -> None:
    got, headers, data = site.request(method, path, body)
    table = json.loads(data)
    assert (got, table["type"], table["error"]["type"]) == (status, "error", kind)
    assert (
        table["request_id"] == headers["request-id"] == headers["x-request-id"] and table["error"]["message"]
    )


def test_a_body_above_the_limit(site: Site) -> None:
    announced = {"Content-Length": str(33 << 20)}
    status, headers, data = site.request("POST", "/v1/messages", b"{", announced)
    assert (
        status == 413 and json.loads(data)["error"]["type"] == "request_too_large" and headers["request-id"]
    )


def test_refusals_without_a_key_and_by_media_type(keyed: Site) -> None:
    with pytest.raises(anthropic.AuthenticationError) as caught:
        claude(keyed, api_key="wrong").messages.create(model="m", max_tokens=3, messages=HELLO)
    assert caught.value.type == "authentication_error" and caught.value.error_code == "invalid_api_key"
    key = {"x-api-key": "secret-key"}
    for path, status in (("/v1/messages", 415), ("/v1/messages/nothing", 404)):
        got, _, data = keyed.request("POST", path, b"x", {**key, "Content-Type": "text/plain"})
        assert got == status and json.loads(data)["type"] == "error"
    assert (
        json.loads(keyed.request("POST", "/v1/messages/nothing", {})[2])["error"]["type"]
        == "authentication_error"
    )


def test_a_stream_that_fails_raises_in_the_sdk(site: Site) -> None:
    site.engine.mode = "die"
    with pytest.raises(anthropic.APIStatusError) as caught:
        list(claude(site).messages.create(model="m", max_tokens=50, messages=HELLO, stream=True))
    assert isinstance(caught.value.body, dict) and caught.value.body["type"] == "error"
    assert caught.value.error_code == "engine_dead"
    with pytest.raises(anthropic.ServiceUnavailableError) as later:  # and so does everything after it
        claude(site).messages.create(model="m", max_tokens=50, messages=HELLO)
    assert later.value.type == "overloaded_error"


def test_a_stream_that_fails_ends_with_an_error_event(site: Site) -> None:
    site.engine.mode = "die"
    body = {"model": "m", "max_tokens": 50, "messages": HELLO, "stream": True}
    events = sse(site.request("POST", "/v1/messages", body)[2])
    assert events[0][0] == "message_start" and events[-1][0] == "error"
    assert events[-1][1]["error"]["details"]["error_code"] == "engine_dead"


def test_a_fault_is_told_in_the_form_of_the_path(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*arguments: Any) -> Any:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(site.app._intake, "prepare", broken)
    status, _, data = site.request("POST", "/v1/messages", {})
    table = json.loads(data)
    assert (status, table["type"], table["error"]["type"]) == (
        500,
        "error",
        "api_error",
    ) and b"secret" not in data
    assert "error" in json.loads(site.request("POST", "/v1/responses", {})[2])


def test_silence_is_filled_with_pings(site: Site) -> None:
    site.engine.mode = "hang"
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    body = {"model": "m", "max_tokens": 50, "messages": HELLO, "stream": True}
    connection.request("POST", "/v1/messages", json.dumps(body), {"Content-Type": "application/json"})
    answer, seen = connection.getresponse(), b""
    while seen.count(b'event: ping\ndata: {"type":"ping"}\n\n') < 2:
        seen += answer.readline()
    connection.close()
    assert b": keep-alive" not in seen and b"event: message_start" in seen


def test_models_for_anthropic_s_client(site: Site) -> None:
    client = claude(site)
    models = list(client.models.list())
    assert [(model.id, model.type, model.max_input_tokens) for model in models] == [
        ("m", "model", 200),
        ("alias", "model", 200),
    ]
    assert client.models.retrieve("alias").display_name == "alias"
    assert [model.object for model in gpt(site).models.list()] == ["model", "model"]


# OpenAI's responses


def test_responses_whole_and_streamed_agree(site: Site) -> None:
    client = gpt(site)
    whole = client.responses.create(
        model="m", input="hi", instructions="be brief", metadata={"a": "b"}, temperature=0.5
    )
    assert whole.output_text == REPLY and whole.status == "completed" and whole.id.startswith("resp_")
    assert whole.instructions == "be brief" and whole.metadata == {"a": "b"} and whole.temperature == 0.5
    assert whole.to_dict()["store"] is False
    prompt = len(site.engine.generates[0].prompt_token_ids)
    assert whole.usage is not None and whole.usage.input_tokens == prompt
    assert whole.usage.input_tokens_details.cached_tokens == 32
    with client.responses.stream(model="m", input="hi") as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(pieces) == REPLY == final.output_text and final.usage is not None
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.output[0].to_dict().keys() == whole.output[0].to_dict().keys()


def test_responses_logprobs(site: Site) -> None:
    include: Any = ["message.output_text.logprobs"]
    answer = gpt(site).responses.create(model="m", input="hi", include=include, top_logprobs=2)
    content = answer.output[0].content[0]  # type: ignore[union-attr]
    assert "".join(row.token for row in content.logprobs) == REPLY  # type: ignore[union-attr]
    assert all(len(row.top_logprobs) == 2 for row in content.logprobs)  # type: ignore[union-attr]


def test_responses_cut_by_the_limit(site: Site) -> None:
    answer = gpt(site).responses.create(model="m", input="hi", max_output_tokens=2)
    assert answer.status == "incomplete" and answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens" and answer.max_output_tokens == 2
    _, _, data = site.request(
        "POST", "/v1/responses", {"input": "hi", "max_output_tokens": 2, "stream": True}
    )
    assert sse(data)[-1][0] == "response.incomplete"


def test_input_tokens_is_what_the_prompt_has(site: Site) -> None:
    client = gpt(site)
    counted = client.responses.input_tokens.count(model="m", input="hi", instructions="be brief")
    client.responses.create(model="m", input="hi", instructions="be brief")
    assert counted.input_tokens == len(site.engine.generates[0].prompt_token_ids)
    assert counted.object == "response.input_tokens"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ],
)
def test_what_needs_a_memory_is_refused(site: Site, body: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        gpt(site).responses.create(**{"model": "m", "input": "x", **body})
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)


def test_nothing_is_kept(site: Site) -> None:
    client = gpt(site)
    made = client.responses.create(model="m", input="hi")
    for ask in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError, match="vsrv keeps no responses"):
            ask(made.id)


def test_a_failed_stream_ends_with_response_failed(site: Site) -> None:
    site.engine.mode = "die"
    _, _, data = site.request("POST", "/v1/responses", {"input": "hi", "stream": True})
    events = sse(data)
    assert [name for name, _ in events[:2]] == ["response.created", "response.in_progress"]
    name, last = events[-1]
    assert name == "response.failed" and last["response"]["status"] == "failed"
    assert "engine_dead" in last["response"]["error"]["message"]
    assert [event["sequence_number"] for _, event in events] == list(range(len(events)))


def test_responses_errors_keep_openai_s_form(site: Site) -> None:
    status, table = site.post("/v1/responses", {"input": "The quick brown fox. " * 60})
    assert status == 400 and table["error"]["code"] == "context_length_exceeded"
    assert table["error"]["param"] == "input"
    with pytest.raises(openai.NotFoundError):
        gpt(site).responses.create(model="x", input="hi")


# both


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
@pytest.mark.parametrize("strict", [False, True])
def test_requests_as_agents_send_them(folder: Path, path: Path, strict: bool) -> None:
    """Shapes from public sources, named in each file. Also with a template that refuses more than one system message."""
    request = json.loads(path.read_text())
    facts = {"max_model_len": 4000}
    for site in started(folder, Setup(template=STRICT, facts=facts) if strict else Setup(facts=facts)):
        if "tools" in request["body"]:  # the scripted model has no format for calls
            request["body"]["tool_choice"] = {"type": "none"} if "messages" in request["path"] else "none"
        status, _, data = site.request("POST", request["path"], request["body"], request["headers"])
        assert status == 200, data
        if request["body"]["stream"]:
            last = "message_stop" if "messages" in request["path"] else "response.completed"
            assert sse(data)[-1][0] == last
        else:
            assert json.loads(data)["status"] in ("completed", "incomplete")


def test_what_is_read_over_is_one_line_in_the_log(site: Site) -> None:
    body = {
        "max_tokens": 3,
        "messages": HELLO,
        "future": 1,
        "tools": [{"type": "web_search_20250305", "name": "w"}],
    }
    assert site.post("/v1/messages", body)[0] == 200
    lines = [line for line in site.lines if "unknown request fields" in line]
    assert len(lines) == 1 and "future" in lines[0] and "web_search_20250305" in lines[0]
