"""Tools and thinking through the whole server with the real `openai` client. The model is small and random: whatever is right is the
server's doing. Its tokenizer has Qwen3's marks, its template is in Qwen3's manner."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jsonschema
import openai
import pytest
import tokenizers
import torch
import transformers
from pydantic import BaseModel, ConfigDict, Field
from started import Server, serving
from tool_template import QWEN_LIKE

import vsrv.demo

MARKS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
HELLO: list[Any] = [{"role": "user", "content": "How is the weather?"}]


def save_model(folder: Path) -> None:
    demo = Path(vsrv.demo.__file__).parent
    made = tokenizers.Tokenizer.from_file(str(demo / "tokenizer.json"))
    made.add_tokens(MARKS)
    made.save(str(folder / "tokenizer.json"))
    config = json.loads((demo / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": QWEN_LIKE}))
    shape = transformers.Qwen3Config(
        vocab_size=made.get_vocab_size(), hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=4096, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(3)
    transformers.Qwen3ForCausalLM(shape).to(torch.bfloat16).save_pretrained(folder)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("random-model")
    save_model(folder)
    with serving(str(folder), "--enable-auto-tool-choice", "--served-model-name", "m") as started:
        yield started


@pytest.fixture
def client(served: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


class Weather(BaseModel):
    """How it is outside."""

    model_config = ConfigDict(extra="forbid")
    city: str = Field(max_length=12)
    unit: Literal["c", "f"]
    days: int = Field(ge=1, le=9)


TOOL: Any = openai.pydantic_function_tool(Weather, name="get_weather")
OTHER: Any = {
    "type": "function",
    "function": {
        "name": "now",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
CLOSED = {"chat_template_kwargs": {"enable_thinking": False}}
OPENED = {"chat_template_kwargs": {"thinking_opened": True}}


def test_parse_of_required_calls(client: openai.OpenAI) -> None:
    for seed in range(3):
        answer = client.chat.completions.parse(
            model="m", messages=HELLO, tools=[TOOL], tool_choice="required", seed=seed, max_tokens=300,
            parallel_tool_calls=False, extra_body=CLOSED,
        )  # fmt: skip
        choice = answer.choices[0]
        assert choice.finish_reason == "tool_calls" and choice.message.content is None
        calls = choice.message.tool_calls or []
        assert len(calls) == 1 and isinstance(calls[0].function.parsed_arguments, Weather)


def test_streams_are_the_whole_answer(client: openai.OpenAI) -> None:
    asked: Any = {"model": "m", "messages": HELLO, "tools": [TOOL, OTHER], "tool_choice": NAMED, "seed": 11, "max_tokens": 300,
                  "extra_body": CLOSED}  # fmt: skip
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].finish_reason == "stop"
    with client.chat.completions.stream(**asked) as stream:
        deltas = [
            event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta"
        ]
        final = stream.get_final_completion().choices[0]
    for choice in (whole.choices[0], final):
        call = (choice.message.tool_calls or [])[0]
        assert call.function.name == "get_weather"
        assert call.function.arguments == "".join(deltas)
        jsonschema.validate(json.loads(call.function.arguments), TOOL["function"]["parameters"])
    assert len(deltas) > 3 and final.finish_reason == "stop" and final.message.content is None


def test_several_answers_with_calls(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model="m", messages=HELLO, tools=[TOOL, OTHER], tool_choice="required", n=3, seed=5, max_tokens=400,
        logprobs=True, extra_body={**CLOSED, "return_token_ids": True},
    )  # fmt: skip
    for choice in whole.choices:
        for call in choice.message.tool_calls or []:
            if choice.finish_reason == "tool_calls":
                json.loads(call.function.arguments)
        assert choice.message.tool_calls and choice.logprobs is not None
        assert choice.model_extra is not None
        assert len(choice.logprobs.content or []) == len(choice.model_extra["token_ids"])


def test_the_loop_of_call_and_result(client: openai.OpenAI) -> None:
    messages = list(HELLO)
    first = client.chat.completions.create(
        model="m",
        messages=messages,
        tools=[TOOL],
        tool_choice="required",
        seed=1,
        max_tokens=300,
        extra_body=CLOSED,
    )
    messages.append(first.choices[0].message)
    calls = first.choices[0].message.tool_calls or []
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in calls]
    last = client.chat.completions.create(
        model="m",
        messages=messages,
        tools=[TOOL],
        tool_choice="none",
        seed=1,
        max_tokens=20,
        extra_body=CLOSED,
    )
    assert last.choices[0].message.content and last.choices[0].message.tool_calls is None
    assert last.usage is not None and first.usage is not None
    assert last.usage.prompt_tokens > first.usage.prompt_tokens + 10


@pytest.mark.parametrize("budget", [0, 1, 17])
def test_a_thinking_budget(client: openai.OpenAI, budget: int) -> None:
    asked: Any = {"model": "m", "messages": HELLO, "seed": 4, "max_tokens": 60, "logprobs": True}
    extra = {**OPENED, "thinking_token_budget": budget, "ignore_eos": True}
    whole = client.chat.completions.create(**asked, extra_body=extra)
    choice, usage = whole.choices[0], whole.usage
    assert usage is not None and usage.completion_tokens == 60 and choice.finish_reason == "length"
    assert usage.completion_tokens_details is not None
    thought = usage.completion_tokens_details.reasoning_tokens or 0
    assert thought <= budget
    assert bool((choice.message.model_extra or {})["reasoning"]) is (budget > 0)
    assert choice.message.content
    assert choice.logprobs is not None and len(choice.logprobs.content or []) == 60
    assert [row.token for row in choice.logprobs.content or []][thought] == "</think>"


def test_what_is_asked_of_the_answer_is_not_asked_of_the_thinking(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}}
    extra = {**OPENED, "thinking_token_budget": 12}
    answer = client.chat.completions.create(
        model="m", messages=HELLO, response_format=form, seed=9, max_tokens=200, extra_body=extra
    )
    message = answer.choices[0].message
    assert (message.model_extra or {})["reasoning"] and answer.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(message.content or ""), schema)
    called = client.chat.completions.create(
        model="m", messages=HELLO, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, seed=9, max_tokens=300,
        extra_body=extra,
    ).choices[0]  # fmt: skip
    assert (called.message.model_extra or {})["reasoning"] and called.message.content is None
    assert called.finish_reason == "tool_calls"
    jsonschema.validate(
        json.loads((called.message.tool_calls or [])[0].function.arguments), TOOL["function"]["parameters"]
    )


def test_an_answer_or_a_call_each_to_its_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}}
    for seed in range(2):
        choice = client.chat.completions.create(
            model="m", messages=HELLO, response_format=form, tools=[TOOL], seed=seed, max_tokens=300, extra_body=CLOSED,
            parallel_tool_calls=False,
        ).choices[0]  # fmt: skip
        if choice.finish_reason == "stop":
            jsonschema.validate(json.loads(choice.message.content or ""), schema)
        else:
            assert choice.finish_reason == "tool_calls"
            jsonschema.validate(
                json.loads((choice.message.tool_calls or [])[0].function.arguments),
                TOOL["function"]["parameters"],
            )
