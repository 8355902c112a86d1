"""Structured outputs through the whole server, as the real `openai` client asks for them and as vLLM's documentation does.

Shapes: https://platform.openai.com/docs/guides/structured-outputs, https://docs.vllm.ai/en/latest/features/structured_outputs/.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from enum import Enum
from typing import Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field
from started import Server

ASK = [{"role": "user", "content": "How do I switch on TLS?"}]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Circle(Closed):
    kind: Literal["circle"]
    radius: int = Field(ge=1, le=99)


class Square(Closed):
    kind: Literal["square"]
    side: int = Field(ge=1, le=99)


class Drawing(Closed):
    title: str = Field(max_length=20)
    colour: Colour
    shape: Circle | Square
    layers: list[Literal[1, 2, 3]] = Field(max_length=3)
    note: Literal["short", "long"] | None


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    fields = {"max_tokens": 200, "temperature": 1.0, "seed": 5, **fields}
    return client.chat.completions.create(model="", messages=ASK, **fields).choices  # type: ignore[call-overload]


def test_parse_with_a_pydantic_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="",
        messages=ASK,
        response_format=Drawing,
        max_tokens=400,
        seed=1,  # type: ignore[arg-type]
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "stop" and isinstance(choice.message.parsed, Drawing)


def test_the_stream_helper_gives_the_same_object(client: openai.OpenAI) -> None:
    whole = client.chat.completions.parse(
        model="",
        messages=ASK,
        response_format=Drawing,
        max_tokens=400,
        seed=2,  # type: ignore[arg-type]
    )
    with client.chat.completions.stream(
        model="",
        messages=ASK,
        response_format=Drawing,
        max_tokens=400,
        seed=2,  # type: ignore[arg-type]
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == whole.choices[0].message.parsed
    assert {"content.delta", "content.done"} <= kinds


def test_every_choice_follows_the_schema(client: openai.OpenAI) -> None:
    schema = Drawing.model_json_schema()
    form = {"type": "json_schema", "json_schema": {"name": "drawing", "schema": schema, "strict": True}}
    choices = ask(client, n=4, response_format=form, logprobs=True, top_logprobs=2, max_tokens=400)
    assert len(choices) == 4
    for choice in choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), schema)
        assert "".join(row.token for row in choice.logprobs.content).startswith(choice.message.content[:5])


def test_json_mode_and_length(client: openai.OpenAI) -> None:
    for seed in range(3):
        choice = ask(client, response_format={"type": "json_object"}, seed=seed, max_tokens=60)[0]
        assert choice.message.content.startswith("{")
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)
        else:
            assert choice.finish_reason == "length"
    assert ask(client, response_format={"type": "json_object"}, max_tokens=1)[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("extra", "pattern"),
    [
        ({"structured_outputs": {"choice": ["positive", "negative"]}}, "positive|negative"),
        ({"structured_outputs": {"regex": r"\w{2,8}@\w{2,8}\.com"}}, r"\w{2,8}@\w{2,8}\.com"),
        ({"structured_outputs": {"grammar": 'root ::= "SELECT " col " FROM t"\ncol ::= "a" | "b"'}}, "SELECT [ab] FROM t"),
        ({"structured_outputs": {"grammar": 'start: "x" /[0-9]{2}/'}}, "x[0-9]{2}"),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"guided_regex": "[a-c]{5}"}, "[a-c]{5}"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_vllm_forms(client: openai.OpenAI, extra: dict[str, Any], pattern: str, stream: bool) -> None:
    if stream:
        chunks = list(
            client.chat.completions.create(
                model="", messages=ASK, max_tokens=60, stream=True, extra_body=extra
            )  # type: ignore[call-overload]
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        reason = [c.choices[0].finish_reason for c in chunks if c.choices][-1]
    else:
        choice = ask(client, max_tokens=60, extra_body=extra)[0]
        text, reason = choice.message.content, choice.finish_reason
    assert re.fullmatch(pattern, text) and reason == "stop"


def test_a_stop_string_cuts_the_constrained_text(client: openai.OpenAI) -> None:
    choice = ask(client, stop=["5"], extra_body={"structured_outputs": {"regex": "[0-9]{2}5[0-9]{2}"}})[0]
    assert choice.finish_reason == "stop" and re.fullmatch("[0-46-9]{0,2}", choice.message.content)


def test_completions_take_constraints_too(client: openai.OpenAI) -> None:
    """Small ones are prepared in the front otherwise; a grammar is compiled where it can be stopped."""
    answer = client.completions.create(
        model="", prompt=["a", "b"], max_tokens=30, extra_body={"structured_outputs": {"regex": "[xyz]{4}"}}
    )
    assert [bool(re.fullmatch("[xyz]{4}", choice.text)) for choice in answer.choices] == [True, True]


def test_refusals_are_told_before_anything_is_generated(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, extra_body={"guided_json": {"type": "array", "uniqueItems": True}}, stream=True)
    assert caught.value.code == "unsupported_schema" and caught.value.param == "guided_json"
    assert "uniqueItems" in caught.value.message


def test_what_leaves_no_token_is_an_error_of_its_own(client: openai.OpenAI) -> None:
    body = {"structured_outputs": {"regex": "[0-9]+"}, "allowed_token_ids": [500]}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, extra_body=body)
    assert caught.value.code == "grammar_conflict" and caught.value.param is not None
    assert ask(client)[0].message.content


def test_many_at_once_with_free_neighbours(client: openai.OpenAI) -> None:
    free = ask(client, max_tokens=24)[0].message.content
    results: dict[int, str] = {}

    def work(number: int) -> None:
        extra = {} if number % 3 == 0 else {"structured_outputs": {"regex": f"[a-f]{{{number + 1}}}"}}
        results[number] = ask(client, max_tokens=24, extra_body=extra)[0].message.content

    threads = [threading.Thread(target=work, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, text in results.items():
        assert text == free if number % 3 == 0 else re.fullmatch(f"[a-f]{{{number + 1}}}", text)
    assert len(results) == 9
