"""The unmodified `openai` package against the demo model: sync, async, stream helpers, raw responses, errors."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from started import Server

QUESTION: Any = [{"role": "user", "content": "How do I switch on TLS?"}]


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


@pytest.fixture
def expected(client: openai.OpenAI) -> str:
    answer = client.chat.completions.create(model="demo", messages=QUESTION, temperature=0)
    return answer.choices[0].message.content or ""


def test_the_stream_helper_gathers_the_whole_answer(client: openai.OpenAI, expected: str) -> None:
    deltas, kinds = [], []
    with client.chat.completions.stream(
        model="demo", messages=QUESTION, temperature=0, stream_options={"include_usage": True}
    ) as stream:
        for event in stream:
            kinds.append(event.type)
            if event.type == "content.delta":
                deltas.append(event.delta)
        final = stream.get_final_completion()
    assert "".join(deltas) == expected == final.choices[0].message.content
    assert kinds.count("content.done") == 1 and "chunk" in kinds
    assert final.usage is not None and final.usage.completion_tokens > 0
    assert final.choices[0].finish_reason == "stop" and final.system_fingerprint


def test_the_stream_helper_gathers_log_probabilities(client: openai.OpenAI) -> None:
    options: Any = {
        "model": "demo",
        "messages": QUESTION,
        "temperature": 0,
        "logprobs": True,
    }
    whole = client.chat.completions.create(**options, top_logprobs=2).choices[0].logprobs
    with client.chat.completions.stream(**options, top_logprobs=2) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion().choices[0].logprobs
    assert "logprobs.content.delta" in kinds and whole is not None and final is not None
    assert whole.content and final.content == whole.content
    for row in whole.content:
        assert [top.logprob for top in row.top_logprobs] == sorted(
            (top.logprob for top in row.top_logprobs), reverse=True
        )
        assert row.token == row.top_logprobs[0].token  # greedy


def test_async_requests_beside_each_other(server: Server, expected: str) -> None:
    async def ask(client: openai.AsyncOpenAI, streamed: bool) -> str:
        if not streamed:
            answer = await client.chat.completions.create(model="demo", messages=QUESTION, temperature=0)
            return answer.choices[0].message.content or ""
        pieces = []
        stream = await client.chat.completions.create(
            model="demo", messages=QUESTION, temperature=0, stream=True
        )
        async for chunk in stream:
            pieces += [choice.delta.content or "" for choice in chunk.choices]
        return "".join(pieces)

    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
            helper = client.chat.completions.stream(model="demo", messages=QUESTION, temperature=0)
            async with helper as stream:
                final = await stream.get_final_completion()
            texts = await asyncio.gather(*(ask(client, index % 2 == 0) for index in range(6)))
            return [*texts, final.choices[0].message.content or ""]

    assert asyncio.run(run()) == [expected] * 7


def test_completions_whole_and_streamed(client: openai.OpenAI) -> None:
    options: Any = {"model": "demo", "prompt": ["Use --port", "TLS is"], "temperature": 0, "max_tokens": 10}
    whole = client.completions.create(**options, logprobs=2, echo=True)
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.choices[0].text.startswith("Use --port") and whole.choices[1].text.startswith("TLS is")
    rows = whole.choices[0].logprobs
    assert rows is not None and rows.tokens and rows.text_offset and rows.token_logprobs
    assert len(rows.tokens) == len(rows.text_offset) == len(rows.token_logprobs)
    pieces = ["", ""]
    for chunk in client.completions.create(**options, echo=True, stream=True):
        for choice in chunk.choices:
            pieces[choice.index] += choice.text
    assert pieces == [choice.text for choice in whole.choices]


def test_best_of_and_beams(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="demo", prompt="The option --", temperature=1.5, top_p=1, seed=3, max_tokens=8, n=2, best_of=5
    )
    assert len(answer.choices) == 2 and answer.usage is not None
    assert answer.usage.completion_tokens > sum(len(c.text) > 0 for c in answer.choices)
    greedy = client.completions.create(
        model="demo", prompt="The option --", temperature=0, max_tokens=8, logprobs=0
    )
    beams = client.completions.create(
        model="demo",
        prompt="The option --",
        temperature=0,
        max_tokens=8,
        logprobs=0,
        n=4,
        extra_body={"use_beam_search": True, "length_penalty": 0},
    )

    def total(choice: Any) -> float:
        return sum(choice.logprobs.token_logprobs)

    totals = [total(choice) for choice in beams.choices]
    assert totals == sorted(totals, reverse=True) and len({choice.text for choice in beams.choices}) == 4
    assert totals[0] >= total(greedy.choices[0]) - 1e-3


def test_raw_responses_and_request_ids(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="demo", messages=QUESTION, max_tokens=2, extra_headers={"X-Request-Id": "mine-1"}
    )
    assert raw.headers["x-request-id"] == "mine-1" and raw.parse().id == "chatcmpl-mine-1"
    assert raw.parse()._request_id == "mine-1"
    with client.chat.completions.with_streaming_response.create(
        model="demo", messages=QUESTION, max_tokens=2, stream=True
    ) as streamed:
        lines = [line for line in streamed.iter_lines() if line]
    assert lines[-1] == "data: [DONE]" and all(line.startswith("data: ") for line in lines)


def test_errors_are_the_classes_that_callers_catch(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-none", messages=QUESTION)
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="demo", prompt="word " * 30000)
    assert long.value.code == "context_length_exceeded" and "context length" in long.value.message
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="demo", messages=QUESTION, temperature=3)
    assert wrong.value.param == "temperature" and wrong.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/none")


def test_the_fields_that_clients_send_besides(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="demo",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hello!"}], "name": "alice"},
        ],
        max_completion_tokens=4,
        user="u",
        metadata={"a": "b"},
        store=True,
        service_tier="auto",
        safety_identifier="s",
        prompt_cache_key="k",
        seed=5,
        n=2,
        temperature=1,
        stop=["\n\n\n"],
        logit_bias={"5": -100},
        extra_body={"top_k": 20, "min_p": 0.05, "repetition_penalty": 1.05, "return_token_ids": True},
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    again = client.chat.completions.create(model="demo", messages=QUESTION, max_tokens=1)
    assert again.system_fingerprint == answer.system_fingerprint


def test_cached_tokens_are_told(client: openai.OpenAI) -> None:
    long: Any = [{"role": "user", "content": "Please tell me all about certificates. " * 12}]
    first = client.chat.completions.create(
        model="demo", messages=long, max_tokens=1, extra_body={"cache_salt": "a1"}
    )
    second = client.chat.completions.create(
        model="demo", messages=long, max_tokens=1, extra_body={"cache_salt": "a1"}
    )
    apart = client.chat.completions.create(
        model="demo", messages=long, max_tokens=1, extra_body={"cache_salt": "b2"}
    )

    def cached(answer: Any) -> int:
        return int(answer.usage.prompt_tokens_details.cached_tokens)

    assert (cached(first), cached(apart)) == (0, 0) and cached(second) >= 64
