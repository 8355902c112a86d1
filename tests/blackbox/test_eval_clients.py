"""Requests as lm-evaluation-harness 0.4.13 and guidellm 0.8.1 send them, and what these read from the answers.

Sources: lm_eval/models/openai_completions.py (LocalCompletionsAPI: _create_payload, parse_logprobs, parse_generations) and
guidellm's OpenAI HTTP backend (text and chat completions handlers).
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from started import Server

import vsrv.demo

DEMO = Path(vsrv.demo.__file__).parent
CONTEXTS = ["How do I switch on TLS?", "The option --max-model-len", "a"]
ENDINGS = [" Use --ssl-certfile and --ssl-keyfile.", " bounds the length of a sequence", " b c"]


@functools.cache
def demo_model() -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32).eval()


def reference(tokens: list[int], start: int) -> tuple[float, bool]:
    """Log likelihood of tokens[start:] and whether each is the likeliest, by transformers."""
    with torch.no_grad():
        rows = torch.log_softmax(demo_model()(torch.tensor([tokens])).logits[0], -1)
    places = range(start, len(tokens))
    logprob = sum(float(rows[place - 1, tokens[place]]) for place in places)
    return logprob, all(int(rows[place - 1].argmax()) == tokens[place] for place in places)


def read_by_the_harness(answer: Any, context_lengths: list[int]) -> list[tuple[float, bool]]:
    """What LocalCompletionsAPI.parse_logprobs makes of an answer: the last token is the generated one, and is left out."""
    results = []
    choices = sorted(answer["choices"], key=lambda choice: choice["index"])
    for choice, length in zip(choices, context_lengths, strict=True):
        values = choice["logprobs"]["token_logprobs"][length:-1]
        tops = choice["logprobs"]["top_logprobs"][length:-1]
        greedy = all(value == max(top.values()) for value, top in zip(values, tops, strict=True))
        results.append((sum(values), greedy))
    return results


def tokens_of(server: Server, text: str) -> list[int]:
    status, answer = server.post("/tokenize", {"prompt": text})
    assert status == 200
    tokens: Any = answer["tokens"]
    return list(tokens)


def test_log_likelihoods_as_lm_evaluation_harness_asks_for_them(server: Server) -> None:
    contexts = [tokens_of(server, text) for text in CONTEXTS]
    wholes = [context + tokens_of(server, ending) for context, ending in zip(contexts, ENDINGS, strict=True)]
    body = {
        "model": "demo",
        "prompt": wholes,
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": 1,
        "seed": 1234,
        "echo": True,
    }
    status, answer = server.post("/v1/completions", body)
    assert status == 200, answer
    found = read_by_the_harness(answer, [len(context) for context in contexts])
    for (logprob, greedy), whole, context in zip(found, wholes, contexts, strict=True):
        expected, likeliest = reference(whole, len(context))
        assert logprob == pytest.approx(
            expected, abs=0.02 * len(whole)
        )  # the server computes in bfloat16 weights
        assert greedy == likeliest


def test_log_likelihoods_of_the_prompt_alone(server: Server) -> None:
    """max_tokens 0: the same without the generated token, as OpenAI's API allows."""
    tokens = tokens_of(server, CONTEXTS[0] + ENDINGS[0])
    body = {"prompt": [tokens], "max_tokens": 0, "logprobs": 1, "echo": True, "temperature": 0}
    status, answer = server.post("/v1/completions", body)
    choices: Any = answer["choices"]
    rows = choices[0]["logprobs"]
    assert status == 200 and rows["token_logprobs"][0] is None and rows["top_logprobs"][0] is None
    assert len(rows["token_logprobs"]) == len(tokens) == len(rows["tokens"]) == len(rows["text_offset"])
    assert choices[0]["text"] == CONTEXTS[0] + ENDINGS[0] == "".join(rows["tokens"])
    assert sum(rows["token_logprobs"][1:]) == pytest.approx(reference(tokens, 1)[0], abs=0.02 * len(tokens))
    usage: Any = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (len(tokens), 0)


def test_generations_as_lm_evaluation_harness_asks_for_them(server: Server) -> None:
    body = {
        "prompt": [tokens_of(server, text) for text in CONTEXTS],
        "model": "demo",
        "max_tokens": 8,
        "temperature": 0,
        "stop": ["\n\n", "<|im_end|>"],
        "seed": 1234,
    }
    status, answer = server.post("/v1/completions", body)
    choices: Any = answer["choices"]
    assert status == 200 and [choice["index"] for choice in choices] == [0, 1, 2]
    alone = [server.post("/v1/completions", {**body, "prompt": [p]})[1]["choices"] for p in body["prompt"]]  # type: ignore[union-attr]
    assert [c["text"] for c in choices] == [a[0]["text"] for a in alone]  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("/v1/completions", {"prompt": "Tell me about certificates."}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Tell me about TLS."}]}]},
        ),
    ],
)
def test_streams_as_guidellm_asks_for_them(server: Server, path: str, prompt: dict[str, Any]) -> None:
    limit = "max_completion_tokens" if "chat" in path else "max_tokens"
    body = {
        "model": "demo",
        **prompt,
        limit: 12,
        "stop": None,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    assert server.get("/health")[0] == 200
    status, data, headers = server.request("POST", path, json.dumps(body).encode())
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    events = [line[6:] for line in data.decode().split("\n\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    usages = [json.loads(event)["usage"] for event in events[:-1]]
    counts = [usage["completion_tokens"] for usage in usages]
    assert counts == sorted(counts) and counts[-1] == 12
    assert all(
        usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] for usage in usages
    )
    assert len({usage["prompt_tokens"] for usage in usages}) == 1
