"""/v1/responses without a server: bodies → chat bodies, parts → events and responses of OpenAI's SDK.

Expected values are of OpenAI's API reference, of the types in its SDK, and of what Codex sends and reads (codex-rs/codex-api/src/sse/responses.rs,
codex-rs/protocol/src/models.rs).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from vsrv.api.generation import Part
from vsrv.api.life import Usage
from vsrv.api.responses import usage_object
from vsrv.api.responses_events import ResponseEvents
from vsrv.api.responses_tools import custom_arguments, custom_input, flat_name
from vsrv.api.schema import ModelFacts
from vsrv.api.translation import AS_SENT, PLAIN, Style, Translated, carried
from vsrv.api.translators import TRANSLATORS
from vsrv.errors import UserError
from vsrv.text.tools import ToolCallDelta

FACTS = ModelFacts(("m",), 200, 1000, 20, 2)
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
USAGE = usage_object(Usage(30, 5, 12, 2), True)
SHELL = {
    "type": "function",
    "name": "shell",
    "description": "runs",
    "parameters": {"type": "object"},
    "strict": False,
}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "edits",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
MCP = {
    "type": "namespace",
    "name": "mcp__files",
    "description": "of a disk",
    "tools": [{"type": "function", "name": "read", "parameters": {"type": "object"}}],
}


def translated(body: dict[str, Any], style: Style = AS_SENT) -> Translated:
    translator = TRANSLATORS["responses"]
    return translator.to_chat(translator.fields(body, FACTS), FACTS, style)


def chat(**body: Any) -> dict[str, Any]:
    return translated({"input": "hi", **body}).chat


def said(role: str, *texts: str, kind: str = "input_text") -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text} for text in texts]}


def turns(body: dict[str, Any], style: Style = AS_SENT) -> list[Any]:
    """Messages as (role, texts, other fields)."""
    return [
        (
            m["role"],
            [part["text"] for part in m["content"]],
            {name: value for name, value in m.items() if name not in ("role", "content")},
        )
        for m in translated(body, style).chat["messages"]
    ]


def call(name: str, arguments: str, call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_text_input_and_instructions() -> None:
    assert turns({"input": "hello", "instructions": "be brief"}) == [
        ("system", ["be brief"], {}),
        ("user", ["hello"], {}),
    ]


def test_a_conversation_as_codex_sends_it() -> None:
    """Its items have no ids; reasoning comes back sealed, output is a text or a list of parts."""
    body = {
        "instructions": "You are Codex.",
        "input": [
            said("developer", "<permissions>"),
            said("user", "# AGENTS.md"),
            said("user", "fix it"),
            {"type": "reasoning", "summary": [], "encrypted_content": carried("first look")},
            {**said("assistant", "Looking.", kind="output_text"), "phase": "commentary"},
            {"type": "function_call", "name": "shell", "arguments": '{"command":["ls"]}', "call_id": "c1"},
            {
                "type": "function_call",
                "name": "read",
                "namespace": "mcp__files",
                "arguments": "{}",
                "call_id": "c2",
            },
            {"type": "function_call_output", "call_id": "c1", "output": "a.py"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": "x = 1"}],
            },
            {
                "type": "custom_tool_call",
                "name": "apply_patch",
                "input": '*** "x"',
                "call_id": "c3",
                "status": "completed",
            },
            {"type": "custom_tool_call_output", "call_id": "c3", "output": "done"},
            {"type": "web_search_call", "status": "completed", "action": {"type": "search"}},
            {"type": "ghost_snapshot", "ghost_commit": {}},
            {"role": "user", "content": "thanks"},
        ],
        "tools": [SHELL, PATCH, MCP, {"type": "web_search"}, {"type": "image_generation"}],
    }
    assert turns(body) == [
        ("system", ["You are Codex.", "<permissions>"], {}),
        ("user", ["# AGENTS.md"], {}),
        ("user", ["fix it"], {}),
        (
            "assistant",
            ["Looking."],
            {
                "reasoning_content": "first look",
                "tool_calls": [
                    call("shell", '{"command":["ls"]}', "c1"),
                    call("mcp__files__read", "{}", "c2"),
                ],
            },
        ),
        ("tool", ["a.py"], {"tool_call_id": "c1", "name": "shell"}),
        ("tool", ["x = 1"], {"tool_call_id": "c2", "name": "mcp__files__read"}),
        ("assistant", [], {"tool_calls": [call("apply_patch", '{"input":"*** \\"x\\""}', "c3")]}),
        ("tool", ["done"], {"tool_call_id": "c3", "name": "apply_patch"}),
        ("user", ["thanks"], {}),
    ]
    made = translated(body)
    assert [tool["function"]["name"] for tool in made.chat["tools"]] == [
        "shell",
        "apply_patch",
        "mcp__files__read",
    ]
    assert "start: /.+/" in made.chat["tools"][1]["function"]["description"]
    assert made.ignored == (
        "tools[3] (web_search)",
        "tools[4] (image_generation)",
        "input[11] (web_search_call)",
        "input[12] (ghost_snapshot)",
    )
    assert [tool["type"] for tool in made.told["tools"]] == ["function", "custom", "namespace"]


def test_in_plain_form_sides_take_turns() -> None:
    """What templates that want one system message and alternating roles can take."""
    items = [said("user", "a"), said("developer", "late"), said("user", "b")]
    assert turns({"input": items}, PLAIN) == [("user", ["a", "late", "b"], {})]
    assert [role for role, _, _ in turns({"input": items})] == ["user", "system", "user"]


@pytest.mark.parametrize("nothing", ["", [], [said("developer", "x")]])
def test_no_input_is_an_empty_message(nothing: Any) -> None:
    assert turns({"input": nothing})[-1] == ("user", [""], {})


@pytest.mark.parametrize(
    ("namespace", "expected"),
    [
        (None, "f"),
        ("", "f"),
        ("functions", "f"),  # what Codex means where it names none (codex-rs/protocol/src/tool_name.rs)
        ("mcp__x", "mcp__x__f"),
        ("mcp__x__", "mcp__x__f"),
    ],
)
def test_names_in_a_namespace(namespace: str | None, expected: str) -> None:
    assert flat_name(namespace, "f") == expected


def test_text_format_reasoning_and_limits() -> None:
    schema = {"type": "object"}
    form = {"type": "json_schema", "name": "out", "schema": schema, "strict": True}
    body = chat(
        text={"format": form, "verbosity": "low"},
        reasoning={"effort": "high", "summary": "auto"},
        max_output_tokens=1 << 40,
        temperature=0.3,
        top_p=0.5,
        stream=True,
        top_logprobs=3,
        include=["message.output_text.logprobs"],
        parallel_tool_calls=False,
        tools=[SHELL],
        store=False,
        background=False,
        metadata={"a": "b"},
    )
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "out", "schema": schema, "strict": True},
    }
    names = (
        "verbosity",
        "reasoning_effort",
        "max_tokens",
        "temperature",
        "top_p",
        "stream",
        "top_logprobs",
        "logprobs",
    )
    assert [body[name] for name in names] == ["low", "high", 200, 0.3, 0.5, True, 3, True]
    assert body["parallel_tool_calls"] is False
    assert chat(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("asked", "expected", "names"),
    [
        ("auto", "auto", ["shell", "apply_patch", "mcp__files__read"]),
        ("required", "required", ["shell", "apply_patch", "mcp__files__read"]),
        ({"type": "function", "name": "shell"}, "shell", ["shell", "apply_patch", "mcp__files__read"]),
        (
            {"type": "custom", "name": "apply_patch"},
            "apply_patch",
            ["shell", "apply_patch", "mcp__files__read"],
        ),
        (
            {"type": "function", "name": "read", "namespace": "mcp__files"},
            "mcp__files__read",
            ["shell", "apply_patch", "mcp__files__read"],
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "shell"}]},
            "required",
            ["shell"],
        ),
    ],
)
def test_tool_choice(asked: Any, expected: str, names: list[str]) -> None:
    body = chat(tools=[SHELL, PATCH, MCP], tool_choice=asked)
    made = body["tool_choice"]
    assert (made if isinstance(made, str) else made["function"]["name"]) == expected
    assert [tool["function"]["name"] for tool in body["tools"]] == names


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"input": None}, "invalid_value", "input"),
        ({"input": 3}, "invalid_value", "input"),
        ({"input": [3]}, "invalid_value", "input[0]"),
        ({"input": [{"role": "tool", "content": "x"}]}, "invalid_value", "input[0].role"),
        ({"input": [{"type": "message", "role": "user"}]}, "invalid_value", "input[0].content"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "unsupported_parameter", "input[0]"),
        (
            {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
            "invalid_value",
            "input[0].call_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "unsupported_parameter",
            "input[0].content[0]",
        ),
        ({"store": True}, "unsupported_parameter", "store"),
        ({"previous_response_id": "resp_1"}, "unsupported_parameter", "previous_response_id"),
        ({"conversation": "c"}, "unsupported_parameter", "conversation"),
        ({"background": True}, "unsupported_parameter", "background"),
        ({"prompt": {"id": "x"}}, "unsupported_parameter", "prompt"),
        ({"metadata": {"a": 1}}, "invalid_value", "metadata"),
        ({"metadata": {str(i): "x" for i in range(17)}}, "invalid_value", "metadata"),
        ({"include": [1]}, "invalid_value", "include"),
        ({"truncation": "some"}, "invalid_value", "truncation"),
        ({"text": {"format": {"type": "xml"}}}, "invalid_value", "text.format.type"),
        ({"reasoning": {"effort": "huge"}}, "invalid_value", "reasoning.effort"),
        ({"tools": [{"type": "function"}]}, "invalid_value", "tools[0].name"),
        ({"tools": [SHELL, SHELL]}, "invalid_value", "tools[1].name"),
        ({"tools": [{"name": "x"}]}, "invalid_value", "tools[0].type"),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        (
            {"tools": [SHELL], "tool_choice": {"type": "function", "name": "g"}},
            "invalid_value",
            "tool_choice.name",
        ),
        ({"tools": [SHELL], "tool_choice": {"type": "web_search"}}, "unsupported_parameter", "tool_choice"),
        ({"top_logprobs": 21}, "invalid_value", "top_logprobs"),
        ({"max_output_tokens": -1}, "invalid_value", "max_output_tokens"),
    ],
)
def test_refusals_name_the_field(body: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(UserError) as caught:
        chat(**body)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


# answers

BASE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "output": [],
    "usage": None,
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}


def events(parts: list[Part], **body: Any) -> list[dict[str, Any]]:
    told = translated({"input": "x", "tools": [SHELL, PATCH, MCP], **body}).told
    renderer = ResponseEvents({**BASE, "tools": told["tools"]}, told, "1")
    made = renderer.begin()
    for part in parts:
        made += renderer.feed(part, [])
    made += renderer.end(parts[-1], USAGE)
    return [json.loads(json.dumps(event)) for event in made]


def calls(*deltas: ToolCallDelta, reason: str | None = None) -> Part:
    return Part(0, "", (1,), tool_calls=deltas, finish_reason=reason)


PARTS = [
    Part(0, "", (1,), reasoning="I should "),
    Part(0, "", (1,), reasoning="look."),
    Part(0, "Let me ", (1,)),
    Part(0, "look.", (1,)),
    calls(ToolCallDelta(0, "call_a", "shell")),
    calls(ToolCallDelta(0, arguments='{"command":'), ToolCallDelta(0, arguments='["ls"]}')),
    calls(ToolCallDelta(1, "call_b", "apply_patch"), ToolCallDelta(1, arguments='{"input": "*** x')),
    calls(ToolCallDelta(1, arguments='\\n"}')),
    calls(ToolCallDelta(2, "call_c", "mcp__files__read"), ToolCallDelta(2, arguments="{}")),
    calls(reason="tool_calls"),
]
ITEM = ["response.output_item.added", "response.output_item.done"]


def wrapped(*inner: str) -> list[str]:
    return [ITEM[0], *inner, ITEM[1]]


def test_a_stream_is_made_of_the_events_of_the_sdk_in_order() -> None:
    made = events(PARTS)
    for event in made:
        assert EVENT.validate_python(event).type == event["type"]
    assert [event["type"] for event in made] == [
        "response.created",
        "response.in_progress",
        *wrapped(
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
        ),
        *wrapped(
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
        ),
        *wrapped(
            "response.function_call_arguments.delta",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
        ),
        *wrapped("response.custom_tool_call_input.delta", "response.custom_tool_call_input.done"),
        *wrapped("response.function_call_arguments.delta", "response.function_call_arguments.done"),
        "response.completed",
    ]
    assert [event["sequence_number"] for event in made] == list(range(len(made)))


def test_ids_and_indices_are_the_same_in_every_event_of_an_item_and_in_the_response() -> None:
    made = events(PARTS)
    output = made[-1]["response"]["output"]
    added = [event for event in made if event["type"] == ITEM[0]]
    done = [event for event in made if event["type"] == ITEM[1]]
    assert [event["item"] for event in done] == output
    assert [event["output_index"] for event in added] == list(range(5))
    assert [event["item"]["id"] for event in added] == [item["id"] for item in output]
    assert [item["id"].split("_")[0] for item in output] == ["rs", "msg", "fc", "ctc", "fc"]
    for event in made:
        if "item_id" in event:
            assert event["item_id"] == output[event["output_index"]]["id"]


def test_the_response_has_what_was_streamed() -> None:
    response = Response.model_validate(events(PARTS)[-1]["response"])
    reasoning, message, shell, patch, read = response.output
    assert reasoning.type == "reasoning" and reasoning.content is not None
    assert reasoning.content[0].text == "I should look." and reasoning.summary == []
    assert message.type == "message" and response.output_text == "Let me look."
    assert shell.type == "function_call" and (shell.call_id, shell.name) == ("call_a", "shell")
    assert shell.arguments == '{"command":["ls"]}' and shell.namespace is None
    assert patch.type == "custom_tool_call" and (patch.name, patch.input) == ("apply_patch", "*** x\n")
    # Codex finds a tool by both: https://github.com/butterbase-ai/butterbase/pull/134 tried the four forms
    assert read.type == "function_call" and (read.namespace, read.name) == ("mcp__files", "read")
    assert response.status == "completed" and response.usage is not None
    assert response.usage.model_dump(exclude_none=True) == {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 12, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 35,
    }


def test_a_bare_name_finds_its_namespace_where_there_is_only_one() -> None:
    """github.com/router-for-me/CLIProxyAPI/issues/4106: models leave it out."""
    bare = calls(ToolCallDelta(0, "c", "read"), ToolCallDelta(0, arguments="{}"), reason="tool_calls")
    item = events([bare])[-1]["response"]["output"][0]
    assert (item["namespace"], item["name"]) == ("mcp__files", "read")
    item = events([bare], tools=[MCP, {**MCP, "name": "mcp__web"}])[-1]["response"]["output"][0]
    assert item["name"] == "read" and "namespace" not in item


def test_reasoning_goes_where_a_summary_is_asked_for() -> None:
    made = events([*PARTS[:3], Part(0, "", (), finish_reason="stop")], reasoning={"summary": "auto"})
    for event in made:
        EVENT.validate_python(event)
    assert [event["type"] for event in made[2:9]] == wrapped(
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
    )
    item = made[-1]["response"]["output"][0]
    assert item["summary"] == [{"type": "summary_text", "text": "I should look."}] and "content" not in item


def test_sealed_reasoning_comes_back_as_it_was() -> None:
    """Codex sends no reasoning text, only encrypted_content, with the next request."""
    made = events(
        [*PARTS[:2], Part(0, "", (), finish_reason="stop")], include=["reasoning.encrypted_content"]
    )
    item = made[-1]["response"]["output"][0]
    sent = {"type": "reasoning", "summary": [], "encrypted_content": item["encrypted_content"]}
    last = turns({"input": [said("user", "x"), sent, said("assistant", "y", kind="output_text")]})[-1]
    assert last == ("assistant", ["y"], {"reasoning_content": "I should look."})
    assert "encrypted_content" not in events(PARTS)[-1]["response"]["output"][0]


def test_an_answer_that_was_cut_is_incomplete() -> None:
    made = events([*PARTS[:3], Part(0, "lo", (1,), finish_reason="length")])
    assert made[-1]["type"] == "response.incomplete"
    response = Response.model_validate(made[-1]["response"])
    assert response.status == "incomplete" and response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert [item["status"] for item in made[-1]["response"]["output"]] == ["completed", "incomplete"]


def test_an_answer_that_says_nothing_has_an_empty_message() -> None:
    response = Response.model_validate(events([Part(0, "", (), finish_reason="stop")])[-1]["response"])
    assert response.output_text == "" and [item.type for item in response.output] == ["message"]


def test_a_failure_ends_the_stream_with_its_event() -> None:
    told = translated({"input": "x"}).told
    renderer = ResponseEvents(dict(BASE), told, "1")
    renderer.begin()
    renderer.feed(PARTS[2], [])
    event = json.loads(json.dumps(renderer.failed(UserError(503, "engine_dead", "the engine is gone"))))
    parsed = EVENT.validate_python(event)
    assert parsed.type == "response.failed" and parsed.response.error.code == "server_error"
    assert "engine_dead" in parsed.response.error.message and parsed.response.status == "failed"


@pytest.mark.parametrize("text", ["", "*** Begin\n\tx", '"quoted" \\ 🙂'])
def test_custom_input_both_ways(text: str) -> None:
    assert custom_input(custom_arguments(text)) == text


@pytest.mark.parametrize("raw", ["not json", "[1]", '{"other": 1}', '{"input": 3}'])
def test_custom_input_of_another_form_is_taken_as_it_is(raw: str) -> None:
    assert custom_input(raw) == raw
