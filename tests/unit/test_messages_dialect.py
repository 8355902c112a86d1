"""/v1/messages without a server: bodies → chat bodies, parts → events and messages of Anthropic's SDK.

Expected values are of Anthropic's API reference (messages, streaming) and of the types in its SDK.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from vsrv.api.generation import Part
from vsrv.api.life import Usage
from vsrv.api.messages_anthropic import MessageEvents, folded, usage_object
from vsrv.api.schema import ModelFacts
from vsrv.api.translation import AS_SENT, PLAIN, Style, Translated, carried, uncarried
from vsrv.api.translators import TRANSLATORS
from vsrv.errors import UserError
from vsrv.text.tools import ToolCallDelta

FACTS = ModelFacts(("m",), 200, 1000, 20, 2)
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
USAGE = usage_object(Usage(30, 5, 12, 2), True)
WEATHER = {"name": "get_weather", "description": "of a place", "input_schema": {"type": "object"}}


def translated(body: dict[str, Any], style: Style = AS_SENT, dialect: str = "messages") -> Translated:
    translator = TRANSLATORS[dialect]
    return translator.to_chat(translator.fields(body, FACTS), FACTS, style)


def chat(**body: Any) -> dict[str, Any]:
    return translated({"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **body}).chat


def text(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": t} for t in texts]


def test_a_conversation_with_tools_and_thinking() -> None:
    """The order of blocks is the one of the reference's tool-use guide: thinking, text, tool_use; then tool_result first."""
    body = {
        "max_tokens": 64000,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=fa690;"},
            {"type": "text", "text": "You are a tool.", "cache_control": {"type": "ephemeral"}},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "redacted_thinking", "data": "zz"},
                    {"type": "text", "text": "Let me look."},
                    {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Köln"}},
                    {"type": "tool_use", "id": "toolu_2", "name": "get_weather", "input": {}},
                    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_2",
                        "content": text("no city"),
                        "is_error": True,
                    },
                    {"type": "text", "text": "and?"},
                ],
            },
        ],
    }
    made = translated(body)
    assert made.chat["messages"] == [
        {"role": "system", "content": text("You are a tool.")},
        {"role": "user", "content": text("a", "b")},
        {
            "role": "assistant",
            "content": text("Let me look."),
            "reasoning_content": "hm",
            "tool_calls": [
                {
                    "id": "toolu_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city":"Köln"}'},
                },
                {"id": "toolu_2", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": text("rain"), "name": "get_weather"},
        {
            "role": "tool",
            "tool_call_id": "toolu_2",
            "content": text("The tool call failed.", "no city"),
            "name": "get_weather",
        },
        {"role": "user", "content": text("and?")},
    ]
    assert made.chat["max_tokens"] == 200, "a limit above the context means all that the context has"
    assert made.ignored == (
        "messages[1].content[1] (redacted_thinking)",
        "messages[1].content[5] (server_tool_use)",
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        (
            {"type": "tool", "name": "get_weather"},
            {"type": "function", "function": {"name": "get_weather"}},
        ),
    ],
)
def test_tool_choice(asked: dict[str, Any], expected: Any) -> None:
    body = chat(tools=[WEATHER], tool_choice={**asked, "disable_parallel_tool_use": True})
    assert body["tool_choice"] == expected and body["parallel_tool_calls"] is False
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "of a place",
                "parameters": {"type": "object"},
            },
        }
    ]


def test_tools_of_the_server_are_read_over() -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search"}, {**WEATHER, "type": "custom"}]
    made = translated({"max_tokens": 1, "messages": [{"role": "user", "content": "x"}], "tools": tools})
    assert [tool["function"]["name"] for tool in made.chat["tools"]] == ["get_weather"]
    assert made.ignored == ("tools[0] (web_search_20250305)",)


def test_a_deferred_tool_is_shown_when_it_has_been_found() -> None:
    """The reference, tool search: deferred tools are loaded where a tool_reference names them."""
    tools = [WEATHER, {**WEATHER, "name": "rare", "defer_loading": True}]
    found = [{"type": "tool_reference", "tool_name": "rare"}]
    result = {"type": "tool_result", "tool_use_id": "t", "content": found}
    hello = {"role": "user", "content": "x"}
    assert [t["function"]["name"] for t in chat(tools=tools)["tools"]] == ["get_weather"]
    body = chat(tools=tools, messages=[hello, {"role": "user", "content": [result]}])
    assert [t["function"]["name"] for t in body["tools"]] == ["get_weather", "rare"]


@pytest.mark.parametrize(
    ("thinking", "variables", "budget"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, {"enable_thinking": True}, 1024),
        ({"type": "disabled"}, {"enable_thinking": False}, None),
        ({"type": "adaptive", "display": "summarized"}, None, None),
    ],
)
def test_thinking(thinking: dict[str, Any], variables: Any, budget: int | None) -> None:
    body = chat(thinking=thinking)
    assert body.get("chat_template_kwargs") == variables and body.get("thinking_token_budget") == budget


def test_what_the_request_says_itself_wins_over_thinking() -> None:
    body = chat(thinking={"type": "disabled"}, chat_template_kwargs={"enable_thinking": True, "x": 1})
    assert body["chat_template_kwargs"] == {"enable_thinking": True, "x": 1}


def test_sampling_stops_effort_and_format() -> None:
    schema = {"type": "object", "properties": {}}
    body = chat(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop_sequences=["END"],
        stream=True,
        seed=7,
        output_config={"effort": "high", "format": {"type": "json_schema", "schema": schema}},
    )
    names = ("temperature", "top_p", "top_k", "stop", "stream", "seed", "reasoning_effort")
    assert [body[name] for name in names] == [0.5, 0.9, 40, ["END"], True, 7, "high"]
    assert body["response_format"]["json_schema"] == {"name": "output", "schema": schema, "strict": True}


def test_turns_of_one_role_are_combined_and_late_instructions_stay_in_place() -> None:
    messages = [
        {"role": "system", "content": "first"},
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "system", "content": "late"},
        {"role": "user", "content": "c"},
    ]
    body = {"max_tokens": 1, "system": "top", "messages": messages}
    made = [(m["role"], [p["text"] for p in m["content"]]) for m in translated(body).chat["messages"]]
    assert made == [
        ("system", ["top", "first"]),
        ("user", ["a", "b"]),
        ("system", ["late"]),
        ("user", ["c"]),
    ]
    plain = [(m["role"], [p["text"] for p in m["content"]]) for m in translated(body, PLAIN).chat["messages"]]
    assert plain == [("system", ["top", "first"]), ("user", ["a", "b", "late", "c"])]


def test_a_message_without_content_is_an_empty_one() -> None:
    assert chat(messages=[{"role": "user", "content": []}])["messages"] == [{"role": "user", "content": []}]


def test_a_last_assistant_message_is_continued() -> None:
    body = chat(
        messages=[{"role": "user", "content": "x"}, {"role": "assistant", "content": "The answer is ("}]
    )
    assert body["continue_final_message"] is True and body["add_generation_prompt"] is False


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"messages": None}, "invalid_value", "messages"),
        ({"messages": []}, "invalid_value", "messages"),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}]},
            "invalid_value",
            "messages",
        ),
        ({"max_tokens": None}, "invalid_value", "max_tokens"),
        ({"max_tokens": -1}, "invalid_value", "max_tokens"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "invalid_value", "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, IMAGE]}]},
            "unsupported_parameter",
            "messages[0].content[1]",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "tool_result", "tool_use_id": "t", "content": [IMAGE]}],
                    }
                ]
            },
            "unsupported_parameter",
            "messages[0].content[0].content[0]",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}],
                    }
                ]
            },
            "invalid_value",
            "messages",
        ),
        ({"system": [IMAGE]}, "unsupported_parameter", "system[0]"),
        ({"stop_sequences": ["x"] * 17}, "invalid_value", "stop_sequences"),
        ({"stop_sequences": [""]}, "invalid_value", "stop_sequences"),
        ({"tools": [{"name": "f"}]}, "invalid_value", "tools[0].input_schema"),
        ({"tool_choice": {"type": "any"}}, "invalid_value", "tool_choice"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "g"}},
            "invalid_value",
            "tool_choice.name",
        ),
        ({"tool_choice": {"type": "maybe"}}, "invalid_value", "tool_choice.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10}}, "invalid_value", "thinking.budget_tokens"),
        ({"thinking": {"budget_tokens": 2000}}, "invalid_value", "thinking.type"),
        ({"mcp_servers": [{"type": "url"}]}, "unsupported_parameter", "mcp_servers"),
        ({"container": "c"}, "unsupported_parameter", "container"),
        ({"output_config": {"effort": "huge"}}, "invalid_value", "output_config.effort"),
        ({"output_config": {"format": {"type": "xml"}}}, "invalid_value", "output_config.format"),
        ({"temperature": 3}, "invalid_value", "temperature"),
    ],
)
def test_refusals_name_the_field(body: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(UserError) as caught:
        chat(**body)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


def test_unknown_fields_are_named_for_the_log_and_change_nothing() -> None:
    body = {"max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    made = translated({**body, "future_field": {"a": 1}, "metadata": {"user_id": "u"}})
    assert made.ignored == ("future_field",) and made.chat == translated(body).chat


# answers


def events(parts: list[Part], hide: bool = False) -> list[dict[str, Any]]:
    renderer = MessageEvents("msg_1", "m", hide)
    made = [renderer.begin(USAGE)]
    for part in parts:
        made += renderer.feed(part)
    made += renderer.end(parts[-1], USAGE)
    return [json.loads(json.dumps(event)) for event in made]


PARTS = [
    Part(0, "", (1,), reasoning="I should "),
    Part(0, "", (1,), reasoning="look."),
    Part(0, "Let me ", (1,)),
    Part(0, "look.", (1,)),
    Part(0, "", (1,), tool_calls=(ToolCallDelta(0, "call_a", "get_weather"),)),
    Part(
        0,
        "",
        (1,),
        tool_calls=(ToolCallDelta(0, arguments='{"city":'), ToolCallDelta(0, arguments='"Köln"}')),
    ),
    Part(
        0, "", (1,), tool_calls=(ToolCallDelta(1, "call_b", "get_weather"), ToolCallDelta(1, arguments="{}"))
    ),
    Part(0, "", (1,), finish_reason="tool_calls"),
]


def test_a_stream_is_made_of_the_events_of_the_sdk_in_order() -> None:
    made = events(PARTS)
    for event in made:
        assert EVENT.validate_python(event, strict=True).type == event["type"]
    kinds = [
        (
            event["type"],
            event.get("index"),
            (event.get("content_block") or event.get("delta") or {}).get("type"),
        )
        for event in made
    ]
    start, delta, stop = "content_block_start", "content_block_delta", "content_block_stop"
    assert kinds == [
        ("message_start", None, None),
        (start, 0, "thinking"),
        (delta, 0, "thinking_delta"),
        (delta, 0, "thinking_delta"),
        (delta, 0, "signature_delta"),
        (stop, 0, None),
        (start, 1, "text"),
        (delta, 1, "text_delta"),
        (delta, 1, "text_delta"),
        (stop, 1, None),
        (start, 2, "tool_use"),
        (delta, 2, "input_json_delta"),
        (delta, 2, "input_json_delta"),
        (stop, 2, None),
        (start, 3, "tool_use"),
        (delta, 3, "input_json_delta"),
        (stop, 3, None),
        ("message_delta", None, None),
        ("message_stop", None, None),
    ]


def test_the_whole_message_is_the_fold_of_the_events() -> None:
    message = Message.model_validate(folded(events(PARTS)), strict=True)
    thinking, said, first, second = message.content
    assert thinking.type == "thinking" and thinking.thinking == "I should look." and thinking.signature
    assert said.type == "text" and said.text == "Let me look."
    assert first.type == "tool_use" and (first.id, first.name, first.input) == (
        "call_a",
        "get_weather",
        {"city": "Köln"},
    )
    assert second.type == "tool_use" and second.input == {}
    assert (message.stop_reason, message.stop_sequence) == ("tool_use", None)
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (
        18,
        12,
        0,
    )
    assert usage.output_tokens == 5 and usage.output_tokens_details is not None
    assert usage.output_tokens_details.thinking_tokens == 2


@pytest.mark.parametrize(
    ("reason", "stop", "expected"),
    [
        ("stop", None, ("end_turn", None)),
        ("stop", 2, ("end_turn", None)),  # an end token is no sequence of the request
        ("stop", "END", ("stop_sequence", "END")),
        ("length", None, ("max_tokens", None)),
        ("tool_calls", None, ("tool_use", None)),
    ],
)
def test_stop_reasons(reason: str, stop: str | int | None, expected: tuple[str, str | None]) -> None:
    message = folded(events([Part(0, "x", (1,), finish_reason=reason, stop_reason=stop)]))
    assert (message["stop_reason"], message["stop_sequence"]) == expected


def test_a_call_that_was_asked_for_by_name_is_tool_use() -> None:
    """Chat's finish reason is "stop" then (OpenAI's API reference, tool_choice); here it is tool_use as after any call."""
    calls = (ToolCallDelta(0, "c", "f"), ToolCallDelta(0, arguments="{}"))
    message = folded(events([Part(0, "", (1,), finish_reason="stop", tool_calls=calls)]))
    assert message["stop_reason"] == "tool_use"


def test_hidden_thinking_travels_in_the_signature_and_comes_back() -> None:
    message = folded(events(PARTS, hide=True))
    block = message["content"][0]
    assert block["thinking"] == "" and uncarried(block["signature"]) == "I should look."
    body = chat(messages=[{"role": "user", "content": "x"}, {"role": "assistant", "content": [block]}])
    assert body["messages"][1]["reasoning_content"] == "I should look."


@pytest.mark.parametrize("foreign", ["", "EqQBCgIYAhIM", "vsrv1.!!", "vsrv1._w==", None, 3])
def test_signatures_of_others_carry_nothing(foreign: Any) -> None:
    assert uncarried(foreign) == "" and uncarried(carried("ä🙂")) == "ä🙂"


@pytest.mark.parametrize("arguments", ['{"a": 1', "[1]", "x"])
def test_arguments_that_are_no_object_are_kept(arguments: str) -> None:
    """The form of the reference, fine-grained tool streaming: "wrap it in a JSON object with a reasonable key"."""
    calls = (ToolCallDelta(0, "c", "f"), ToolCallDelta(0, arguments=arguments))
    message = folded(events([Part(0, "", (1,), finish_reason="length", tool_calls=calls)]))
    assert message["content"][0]["input"] == {"INVALID_JSON": arguments}
    assert message["stop_reason"] == "max_tokens"


def test_an_answer_without_text_has_one_empty_block() -> None:
    message = Message.model_validate(folded(events([Part(0, "", (), finish_reason="stop")])))
    assert [block.model_dump(exclude_none=True) for block in message.content] == [
        {"type": "text", "text": ""}
    ]
