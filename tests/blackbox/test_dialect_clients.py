"""The demo model by way of the unmodified clients of Anthropic's messages and OpenAI's responses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import anthropic
import jsonschema
import openai
import pydantic
import pytest
from started import Server, start

QUESTION = "How do I switch on TLS?"
TURN: Any = [{"role": "user", "content": QUESTION}]


@pytest.fixture
def claude(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def gpt(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def greedy(gpt: openai.OpenAI) -> str:
    answer = gpt.chat.completions.create(model="", messages=TURN, temperature=0, max_tokens=60)
    return answer.choices[0].message.content or ""


def test_every_dialect_says_the_same(claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
    expected = greedy(gpt)
    model = gpt.models.list().data[0].id
    exact: Any = {"temperature": 0}
    message = claude.messages.create(model=model, max_tokens=60, messages=TURN, extra_body=exact)
    assert [block.text for block in message.content if block.type == "text"] == [expected]
    with claude.messages.stream(model=model, max_tokens=60, messages=TURN, extra_body=exact) as stream:
        assert "".join(stream.text_stream) == expected
        final = stream.get_final_message()
    assert (
        final.stop_reason == message.stop_reason and final.usage.output_tokens == message.usage.output_tokens
    )
    response = gpt.responses.create(model=model, input=QUESTION, temperature=0, max_output_tokens=60)
    assert response.output_text == expected and response.to_dict()["store"] is False
    with gpt.responses.stream(model=model, input=QUESTION, temperature=0, max_output_tokens=60) as events:
        pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(pieces) == expected == events.get_final_response().output_text


def test_usage_adds_up_and_count_tokens_agrees(claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
    counted = claude.messages.count_tokens(model="", messages=TURN).input_tokens
    usage = claude.messages.create(model="", max_tokens=4, messages=TURN).usage
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted
    response = gpt.responses.create(model="", input=QUESTION, max_output_tokens=4)
    assert response.usage is not None and response.usage.input_tokens == counted
    assert response.usage.total_tokens == counted + response.usage.output_tokens
    assert response.status == "incomplete" and response.usage.output_tokens == 4


def test_async_clients_and_many_at_once(server: Server) -> None:
    async def ask() -> list[str]:
        async with (
            anthropic.AsyncAnthropic(base_url=server.url, api_key="none") as claude,
            openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none") as gpt,
        ):
            exact: Any = {"temperature": 0}
            messages = [
                claude.messages.create(model="", max_tokens=16, messages=TURN, extra_body=exact)
                for _ in range(3)
            ]
            responses = [
                gpt.responses.create(model="", input=QUESTION, max_output_tokens=16, temperature=0)
                for _ in range(3)
            ]
            said = [message.content[0].text for message in await asyncio.gather(*messages)]  # type: ignore[union-attr]
            return said + [response.output_text for response in await asyncio.gather(*responses)]

    answers = asyncio.run(ask())
    assert len(answers) == 6 and len(set(answers)) == 1 and answers[0]


def test_a_conversation_goes_on(claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
    """What the clients hand out as an answer is what they send back in the next request."""
    first = claude.messages.create(model="", max_tokens=30, messages=TURN)
    messages: Any = [
        *TURN,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": "And keys?"},
    ]
    assert claude.messages.create(model="", max_tokens=8, messages=messages).content
    answer = gpt.responses.create(model="", input=QUESTION, max_output_tokens=30)
    items: Any = [*TURN, *answer.output, {"role": "user", "content": "And keys?"}]
    assert gpt.responses.create(model="", input=items, max_output_tokens=8).output_text


class Flag(pydantic.BaseModel):
    name: Literal["ssl-certfile", "port"]  # free text would be as long as the demo model likes
    needs_value: bool


def test_answers_of_a_given_form(claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
    """The clients' own parse helpers raise unless the text is what the schema allows."""
    response = gpt.responses.parse(
        model="", input=QUESTION, text_format=Flag, max_output_tokens=200, temperature=0
    )
    assert isinstance(response.output_parsed, Flag) and response.text is not None
    assert response.text.format is not None and response.text.format.type == "json_schema"
    message = claude.messages.parse(model="", messages=TURN, output_format=Flag, max_tokens=200)
    assert isinstance(message.parsed_output, Flag)


TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}{% endfor %}"
    '<tool_call>{"name": …, "arguments": …}</tool_call><|im_end|>\n{% endif %}'
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}"
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SCHEMA: Any = {
    "type": "object",
    "properties": {"count": {"type": "integer", "minimum": 0, "maximum": 9}, "unit": {"enum": ["s", "ms"]}},
    "required": ["count", "unit"],
    "additionalProperties": False,
}


@pytest.mark.slow
def test_forced_calls_follow_their_schema(tmp_path: Path) -> None:
    """A model that knows nothing of tools, held by the grammar."""
    template = tmp_path / "tools.jinja"
    template.write_text(TEMPLATE)
    server = start("--chat-template", str(template), "--max-model-len", "1024")
    try:
        server.wait_ready()
        with (
            anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as claude,
            openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as gpt,
        ):
            tools: Any = [{"name": "wait", "input_schema": SCHEMA}]
            asked: Any = {"model": "", "max_tokens": 100, "messages": TURN, "tools": tools}
            for choice in ({"type": "any"}, {"type": "tool", "name": "wait"}):
                with claude.messages.stream(**asked, tool_choice=choice) as stream:
                    message: Any = stream.get_final_message()
                assert message.stop_reason == "tool_use"
                jsonschema.validate(message.content[-1].input, SCHEMA)
            own: Any = [{"type": "function", "name": "wait", "parameters": SCHEMA, "strict": True}]
            response = gpt.responses.create(model="", input=QUESTION, tools=own, tool_choice="required")
            calls = [item for item in response.output if item.type == "function_call"]
            assert calls and response.status == "completed"
            for call in calls:
                jsonschema.validate(json.loads(call.arguments), SCHEMA)
    finally:
        server.stop()


def test_errors_reach_both_clients(claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        claude.messages.create(model="claude-opus", max_tokens=4, messages=TURN)
    assert missing.value.type == "not_found_error" and missing.value.request_id
    long: Any = [{"role": "user", "content": "word " * 20000}]
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        claude.messages.create(model="", max_tokens=4, messages=long)
    with pytest.raises(openai.BadRequestError) as kept:
        gpt.responses.create(model="", input="x", store=True)
    assert kept.value.param == "store"
