"""langchain-openai and litellm, unmodified, against the demo model (both are in the extra test-full)."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from started import Server

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
QUESTION = "How do I switch on TLS?"


@pytest.fixture(autouse=True, scope="module")
def what_the_frameworks_leave_open() -> Iterator[None]:
    """They keep their connections until they are collected; that is no fault of a test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        litellm = sys.modules.get("litellm")
        if litellm is not None:
            litellm.in_memory_llm_clients_cache.flush_cache()
        gc.collect()


@pytest.fixture
def expected(server: Server) -> str:
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    answer: Any = server.post("/v1/chat/completions", body)[1]
    return str(answer["choices"][0]["message"]["content"])


@pytest.fixture
def langchain(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    return pytest.importorskip("langchain_openai")


def test_langchain_chat(server: Server, langchain: Any, expected: str) -> None:
    chat = langchain.ChatOpenAI(
        base_url=server.url + "/v1", api_key="none", model="demo", temperature=0, stream_usage=True
    )
    answer = chat.invoke(QUESTION)
    assert answer.content == expected and answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["finish_reason"] == "stop"
    pieces = list(chat.stream(QUESTION))
    assert "".join(piece.content for piece in pieces) == expected
    whole = pieces[0]
    for piece in pieces[1:]:
        whole = whole + piece
    assert whole.usage_metadata == answer.usage_metadata
    batch = chat.batch([QUESTION, "Hello!", QUESTION])
    assert batch[0].content == batch[2].content == expected


def test_langchain_log_probabilities_and_limits(server: Server, langchain: Any) -> None:
    chat = langchain.ChatOpenAI(
        base_url=server.url + "/v1", api_key="none", model="demo", temperature=0, max_completion_tokens=5, logprobs=True, top_logprobs=2
    )  # fmt: skip
    answer = chat.invoke([("system", "Be brief."), ("human", QUESTION)])
    assert answer.response_metadata["finish_reason"] == "length"
    assert len(answer.response_metadata["logprobs"]["content"]) == 5


def test_langchain_completions(server: Server, langchain: Any) -> None:
    model = langchain.OpenAI(
        base_url=server.url + "/v1", api_key="none", model="demo", temperature=0.9, max_tokens=6, n=2, best_of=3
    )  # fmt: skip
    result = model.generate(["Use --port", "TLS is"])
    assert [len(generations) for generations in result.generations] == [2, 2]
    assert result.llm_output["token_usage"]["completion_tokens"] > 0
    plain = langchain.OpenAI(
        base_url=server.url + "/v1", api_key="none", model="demo", temperature=0, max_tokens=6
    )
    assert "".join(plain.stream("Use --port")) == plain.invoke("Use --port")


@pytest.fixture
def litellm() -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no download of a price list
    return pytest.importorskip("litellm")


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_litellm_chat(server: Server, litellm: Any, expected: str, provider: str) -> None:
    options = {
        "model": f"{provider}/demo",
        "api_base": server.url + "/v1",
        "api_key": "none",
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "num_retries": 0,
    }
    answer = litellm.completion(**options)
    assert answer.choices[0].message.content == expected and answer.choices[0].finish_reason == "stop"
    chunks = list(litellm.completion(**options, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens


def test_litellm_maps_errors(server: Server, litellm: Any) -> None:
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(
            model="hosted_vllm/demo",
            api_base=server.url + "/v1",
            api_key="none",
            messages=[{"role": "user", "content": "word " * 30000}],
            num_retries=0,
        )


def test_litellm_text_completion(server: Server, litellm: Any) -> None:
    answer = litellm.text_completion(
        model="text-completion-openai/demo", api_base=server.url + "/v1", api_key="none", prompt="Use --port", max_tokens=5, temperature=0
    )  # fmt: skip
    body = {"prompt": "Use --port", "max_tokens": 5, "temperature": 0}
    plain: Any = server.post("/v1/completions", body)[1]
    assert answer.choices[0].text == plain["choices"][0]["text"]
