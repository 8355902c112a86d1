"""Embeddings, rankings and scores behind the real HTTP server, with a scripted engine: shapes, refusals, limits, ends."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from served import Setup, Site, vector_of

from vsrv.api.admission import AdmissionLimits
from vsrv.api.auth import KeyPolicy
from vsrv.api.embeddings import cosine
from vsrv.api.pooling import grouped
from vsrv.api.pooling_fields import MAX_INPUTS
from vsrv.keyfile import KeyFile, KeyRecord, RateLimits, TenantRecord, hashed, write_key_file
from vsrv.messages import Embed

EMBEDS = {"tasks": ("embed",), "embedding_size": 3}
MATRYOSHKA = {**EMBEDS, "is_matryoshka": True}
SCORES = {"tasks": ("score",), "embedding_size": 1}
Start = Callable[..., Site]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    sites: list[Site] = []

    def started(facts: dict[str, Any] = EMBEDS, **setup: Any) -> Site:
        sites.append(Site(folder, Setup(facts=facts, **setup)))
        return sites[-1]

    yield started
    for site in sites:
        site.stop()
        assert site.admission.sequences == 0 and site.admission.tokens == 0 and site.admission.bytes == 0


def expected_of(site: Site, text: str, **changes: Any) -> list[float]:
    ids = site.tokenizer.encode(text, True)
    vector = vector_of(Embed(0, ids, len(ids), **changes))
    return list(struct.unpack(f"<{len(vector)}f", struct.pack(f"<{len(vector)}f", *vector)))


def refusal(site: Site, path: str, body: Any) -> tuple[int, str, str | None]:
    status, answer = site.post(path, body)
    assert status >= 400, answer
    return status, answer["error"]["code"], answer["error"]["param"]


def test_the_openai_client_gets_its_vectors_in_order_and_both_formats_agree(start: Start) -> None:
    """openai-python asks for base64 unless told otherwise, and unpacks little-endian float32."""
    site = start()
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{site.port}/v1", api_key="none", max_retries=0)
    texts = ["Hello dog " * 9, "a", "stop here", "a", "0123456789 01"]
    answer = client.embeddings.create(model="m", input=texts, user="me")
    plain = client.embeddings.create(model="alias", input=texts, encoding_format="float")
    for index, text in enumerate(texts):
        assert answer.data[index].index == index and answer.data[index].object == "embedding"
        assert answer.data[index].embedding == plain.data[index].embedding == expected_of(site, text)
    count = sum(len(site.tokenizer.encode(text, True)) for text in texts)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == count
    assert (answer.object, answer.model) == ("list", "m")
    assert [len(frame.token_ids) for frame in site.engine.embeds[:5]] == sorted(
        len(site.tokenizer.encode(text, True)) for text in texts
    ), "inputs of one length meet in the engine"


def test_the_wire_has_vllms_shape(start: Start) -> None:
    """../vllm-endpoints.md is measured from `vllm serve`: ids, nulls and usage."""
    site = start()
    status, answer = site.post("/v1/embeddings", {"input": "a", "request_id": "mine"})
    assert status == 200 and answer["id"] == "embd-mine" and isinstance(answer["created"], int)
    assert list(answer) == ["id", "object", "created", "model", "data", "usage"]
    usage = {"prompt_tokens": 1, "total_tokens": 1, "completion_tokens": 0}
    assert answer["usage"] == {**usage, "prompt_tokens_details": None, "completion_tokens_details": None}
    _, coded = site.post("/v1/embeddings", {"input": "a", "encoding_format": "base64"})
    raw = base64.b64decode(coded["data"][0]["embedding"])
    assert list(struct.unpack("<3f", raw)) == answer["data"][0]["embedding"]


def test_token_arrays_are_taken_as_they_are(start: Start) -> None:
    """LangChain's OpenAIEmbeddings sends them."""
    site = start()
    ids = site.tokenizer.encode("Hello dog", True).tolist()
    by_text = site.post("/v1/embeddings", {"input": "Hello dog"})[1]["data"]
    assert site.post("/v1/embeddings", {"input": ids})[1]["data"] == by_text
    assert (
        site.post("/v1/embeddings", {"input": [ids, "Hello dog"]})[1]["data"][1]["embedding"]
        == by_text[0]["embedding"]
    )
    for bad in ([-1], [10**6], [True], [1.5], [[1], [-1]]):
        assert refusal(site, "/v1/embeddings", {"input": bad}) == (400, "invalid_value", "input")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "invalid_value", "input"),
        ({"input": ""}, "invalid_value", "input"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": ["a", ""]}, "invalid_value", "input"),
        ({"input": ["a", None]}, "invalid_value", "input"),
        ({"input": {"text": "a"}}, "invalid_value", "input"),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, "invalid_value", "input"),
        ({"input": "a", "dimensions": 2}, "invalid_value", "dimensions"),
        ({"input": "a", "dimensions": 0}, "invalid_value", "dimensions"),
        ({"input": "a", "encoding_format": "bytes"}, "invalid_value", "encoding_format"),
        ({"input": "a", "truncate_prompt_tokens": 201}, "invalid_value", "truncate_prompt_tokens"),
        ({"input": "a b c " * 200}, "context_length_exceeded", "input"),
        ({"input": "a" * 5000}, "context_length_exceeded", "input"),
        ({"input": [5] * 201}, "context_length_exceeded", "input"),
        ({"messages": [{"role": "user", "content": "a"}]}, "unsupported_parameter", "messages"),
        ({"input": "a", "normalize": False}, "unsupported_parameter", "normalize"),
        ({"input": "a", "embed_dtype": "float16"}, "unsupported_parameter", "embed_dtype"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(body: Any, code: str, param: str, start: Start) -> None:
    assert refusal(start(), "/v1/embeddings", body) == (400, code, param)


def test_long_inputs_are_cut_where_asked(start: Start) -> None:
    site = start()
    text = "0 1 2 3 4 5 6 7 8 9 " * 40
    whole = site.tokenizer.encode(text, True)
    for fields, expected in (
        ({"truncate_prompt_tokens": -1}, whole[:200]),
        ({"truncate_prompt_tokens": 3}, whole[:3]),
        ({"truncate_prompt_tokens": 3, "truncation_side": "left"}, whole[-3:]),
    ):
        for given in (text, whole.tolist()):
            status, answer = site.post("/v1/embeddings", {"input": given, **fields})
            assert status == 200 and answer["usage"]["prompt_tokens"] == len(expected)
            assert site.engine.embeds[-1].token_ids == expected


def test_vectors_are_shortened_only_by_models_made_for_it(start: Start) -> None:
    plain, any_length = start(), start(MATRYOSHKA)
    assert plain.post("/v1/embeddings", {"input": "a", "dimensions": 3})[0] == 200, "its own length"
    answer = any_length.post("/v1/embeddings", {"input": "a", "dimensions": 2})[1]
    assert answer["data"][0]["embedding"] == expected_of(any_length, "a", dimensions=2)
    assert refusal(any_length, "/v1/embeddings", {"input": "a", "dimensions": 4})[1:] == (
        "invalid_value",
        "dimensions",
    )
    listed = start({**MATRYOSHKA, "matryoshka": (1,)})
    assert listed.post("/v1/embeddings", {"input": "a", "dimensions": 1})[0] == 200
    assert refusal(listed, "/v1/embeddings", {"input": "a", "dimensions": 2})[2] == "dimensions"
    raw = any_length.post("/v1/embeddings", {"input": "ab", "use_activation": False})[1]
    assert raw["data"][0]["embedding"] == expected_of(any_length, "ab", raw=True)


def test_each_model_answers_its_own_routes_only(start: Start) -> None:
    generates, embeds, scores = start({}), start(), start(SCORES)
    bodies = {
        "/v1/embeddings": {"input": "a"},
        "/v1/rerank": {"query": "a", "documents": ["b"]},
        "/v1/score": {"text_1": "a", "text_2": "b"},
        "/v1/completions": {"prompt": "a"},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
        "/tokenize": {"prompt": "a"},
    }
    served = {
        path: [site.post(path, body)[0] for site in (generates, embeds, scores)]
        for path, body in bodies.items()
    }
    assert served == {
        "/v1/embeddings": [404, 200, 404],
        "/v1/rerank": [404, 200, 200],
        "/v1/score": [404, 200, 200],
        "/v1/completions": [200, 404, 404],
        "/v1/chat/completions": [200, 404, 404],
        "/tokenize": [200, 200, 200],
    }
    assert refusal(generates, "/v1/embeddings", {"input": "a"}) == (404, "task_not_supported", "model")
    assert refusal(embeds, "/v1/embeddings", {"input": "a", "model": "no"}) == (
        404,
        "model_not_found",
        "model",
    )


def test_rankings_are_sorted_cut_and_repeat_the_documents(start: Start) -> None:
    """The shape of Jina's and Cohere's answers, which vLLM has too."""
    site = start(SCORES)
    documents = ["Hello dog", {"text": "a"}, "0123456789 0123456789", "stop"]
    texts = ["Hello dog", "a", "0123456789 0123456789", "stop"]
    body = {"query": "the fox", "documents": documents, "use_activation": False}
    answers = [site.post(path, body)[1] for path in ("/rerank", "/v1/rerank", "/v2/rerank")]
    assert answers[0]["results"] == answers[1]["results"] == answers[2]["results"]
    results = answers[0]["results"]
    assert [result["document"] for result in results] == [
        {"text": texts[result["index"]]} for result in results
    ]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True) and len(results) == 4
    assert set(answers[0]["usage"]) == {"prompt_tokens", "total_tokens"} and answers[0]["id"].startswith(
        "score-"
    )
    best = site.post("/rerank", {**body, "top_n": 2, "return_documents": False})[1]["results"]
    assert best == [{k: r[k] for k in ("index", "relevance_score")} for r in results[:2]]
    pair = site.engine.embeds[0]
    query, document = site.tokenizer.encode("the fox", False), site.tokenizer.encode(texts[1], False)
    assert pair.token_ids == query + document  # this tokenizer puts no special tokens around them


def test_scores_pair_one_with_many_or_each_with_its_own_under_all_names(start: Start) -> None:
    site = start(SCORES)
    for first, second in (
        ("text_1", "text_2"),
        ("queries", "documents"),
        ("queries", "items"),
        ("data_1", "data_2"),
    ):
        status, answer = site.post("/score", {first: "the fox", second: ["a", "stop"]})
        assert status == 200 and [row["index"] for row in answer["data"]] == [0, 1]
        assert answer["data"][0]["object"] == "score" and answer["object"] == "list"
    one_to_one = site.post("/v1/score", {"text_1": ["the fox", "stop"], "text_2": ["a", "b"]})[1]["data"]
    alone = site.post("/v1/score", {"text_1": "stop", "text_2": "b"})[1]["data"]
    assert one_to_one[1]["score"] == alone[0]["score"]
    for body, param in (
        ({"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_1"),
        ({"text_1": "a"}, "text_1"),
        ({"text_1": "a", "text_2": []}, "text_2"),
        ({"queries": "a", "documents": [1]}, "documents"),
        ({"queries": "a", "documents": "b", "data_1": 3}, "data_1"),
        ({"queries": "a", "documents": "b", "instruction": "find"}, "instruction"),
    ):
        assert refusal(site, "/score", body)[2] == param
    assert refusal(site, "/rerank", {"query": "a", "documents": []})[2] == "documents"
    assert refusal(site, "/rerank", {"query": "a", "documents": [{"image": "x"}]})[2] == "documents"
    assert refusal(site, "/rerank", {"documents": ["a"]})[2] == "query"
    assert (
        refusal(site, "/rerank", {"query": "a", "documents": ["b c " * 200]})[1] == "context_length_exceeded"
    )
    cut = {"query": "a", "documents": ["b c " * 200], "max_tokens_per_doc": 5}
    assert site.post("/rerank", cut)[1]["usage"]["prompt_tokens"] == 6


def test_an_embedding_model_scores_by_the_cosine(start: Start) -> None:
    site = start()
    body = {"query": "Hello", "documents": ["Hello", "0123456789 01", "stop here"]}
    results = site.post("/v1/rerank", body)[1]["results"]
    assert results[0]["index"] == 0 and results[0]["relevance_score"] == pytest.approx(1.0, abs=1e-6)
    a, b = expected_of(site, "Hello"), expected_of(site, "stop here")
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    score = site.post("/score", {"text_1": "Hello", "text_2": "stop here"})[1]["data"][0]["score"]
    assert score == pytest.approx(dot, abs=1e-6)
    assert cosine([3.0, 0.0], [0.0, 2.0]) == 0.0 and cosine([0.0], [1.0]) == 0.0  # type: ignore[arg-type]
    assert cosine([1.0, 2.0], [-2.0, -4.0]) == -1.0  # type: ignore[arg-type]


def test_two_thousand_short_texts_are_few_places_in_the_queue(start: Start) -> None:
    site = start(limits=AdmissionLimits(64, 100_000))
    site.engine.ready = replace(site.engine.ready, max_num_batched_tokens=512)
    texts = [f"{i}" for i in range(MAX_INPUTS)]
    status, answer = site.post("/v1/embeddings", {"input": texts})
    assert status == 200 and [row["index"] for row in answer["data"]] == list(range(MAX_INPUTS))
    assert answer["data"][77]["embedding"] == expected_of(site, "77")


def test_groups_hold_half_a_step_and_every_input_once() -> None:
    lengths = [5, 300, 2, 2, 250, 9, *[1] * 200]
    groups = grouped(lengths, 256)
    assert sorted(i for group in groups for i in group.members) == list(range(len(lengths)))
    for group in groups:
        assert len(group.members) <= 64
        assert len(group.members) == 1 or sum(lengths[i] for i in group.members) <= 256


def test_limits_metrics_and_the_log_count_it_as_any_request(start: Start, tmp_path: Path) -> None:
    limits = RateLimits(tokens_per_minute=20)
    key = KeyRecord(id="k", hash=hashed("s3cret"), tenant="acme", scopes=("inference", "metrics"))
    write_key_file(tmp_path / "keys.toml", KeyFile((key,), {"acme": TenantRecord(limits)}))
    site = start(key_file=tmp_path / "keys.toml", policy=KeyPolicy(metrics_need_key=True))
    bearer = {"Authorization": "Bearer s3cret"}
    assert site.post("/v1/embeddings", {"input": "a"})[0] == 401
    status, _ = site.post("/v1/embeddings", {"input": ["0 1 2 3", "0 1 2"]}, **bearer)
    assert status == 200
    status, headers, data = site.request("POST", "/v1/embeddings", {"input": "0 1 2 3 4 5 6 7"}, bearer)
    assert (
        status == 429
        and json.loads(data)["error"]["code"] == "rate_limit_exceeded"
        and "retry-after" in headers
    )
    line = next(json.loads(text) for text in site.lines if '"status":200' in text.replace(" ", ""))
    assert line["prompt_tokens"] > 0 and line["finish_reason"] == "stop" and line["tenant"] == "acme"
    exposition = site.request("GET", "/metrics", None, bearer)[2].decode()
    assert 'vsrv_tenant_tokens_total{kind="prompt",tenant="acme"}' in exposition
    assert 'vsrv_http_responses_total{path="/v1/embeddings",status="200"} 1.0' in exposition


def test_the_priority_header_wins(start: Start) -> None:
    """vllm: "X-Vllm-Priority" overrides the field, on every route that works for a request."""
    site = start()
    body = {"input": "a", "priority": 1}
    for given, expected in (({}, 1), ({"X-Vllm-Priority": "-3"}, -3)):
        status, _, _ = site.request("POST", "/v1/embeddings", body, given)
        assert status == 200 and site.engine.embeds[-1].priority == expected
    assert refusal(site, "/v1/embeddings", {"input": "a", "priority": 2**31})[2] == "priority"


def test_a_deadline_a_disconnect_and_a_dying_engine_end_it(start: Start) -> None:
    site = start(request_timeout_s=0.2)
    site.engine.mode = "hang"
    assert refusal(site, "/v1/embeddings", {"input": ["a", "b"]})[:2] == (504, "request_timeout")
    assert sorted(site.engine.aborted) == [frame.seq_id for frame in site.engine.embeds]
    site.engine.mode = "refuse"
    assert refusal(site, "/v1/embeddings", {"input": "a"})[:2] == (400, "context_length_exceeded")
    other = start()
    other.engine.mode = "hang"
    with socket.create_connection(("127.0.0.1", other.port)) as gone:
        body = b'{"input": "a"}'
        gone.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        _wait(lambda: bool(other.engine.embeds))
    _wait(lambda: bool(other.engine.aborted))
    other.engine.mode = "die"
    assert refusal(other, "/v1/embeddings", {"input": "a"})[:2] == (503, "engine_dead")


def _wait(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen within five seconds")
