"""Beam search against transformers' generate, against every possible sequence, and over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from served import ScriptedEngine, Setup, Site

from vsrv.api.beam_search import Beam, Search
from vsrv.messages import FinishReason, Generate, LogProbs, Step, TokenOutput

Distribution = Callable[[tuple[int, ...]], list[float]]  # tokens so far → log probability of every token


def table_of(values: list[float], k: int) -> LogProbs:
    """One row as the engine sends it: the likeliest token, then the k best."""
    best = sorted(range(len(values)), key=lambda token: -values[token])[:k]
    ids = array("I", [best[0], *best])
    return LogProbs(k, ids, array("f", [values[token] for token in ids]), array("I", [1]))


def found(search: Search, distribution: Distribution, k: int) -> list[tuple[list[int], float]]:
    """Run a search to its end → (tokens, score), best first."""
    while not search.done:
        tables = [
            table_of(distribution(tuple(step.token for step in beam.steps())), k) for beam in search.running
        ]
        search.advance(tables)
    return [([step.token for step in beam.steps()], search.score(beam)) for beam in search.best()]


def drawn(seed: int, vocabulary: int) -> Distribution:
    """Random log probabilities that depend on every token before."""

    def distribution(tokens: tuple[int, ...]) -> list[float]:
        generator = torch.Generator().manual_seed(hash((seed, *tokens)) % 2**62)
        return torch.log_softmax(2 * torch.randn(vocabulary, generator=generator), 0).tolist()

    return distribution


@pytest.mark.parametrize("width", [2, 5])
def test_without_an_end_token_it_finds_what_transformers_finds(width: int) -> None:
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, eos_token_id=None, bos_token_id=None, pad_token_id=0,
        initializer_range=0.6,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    prompt = [5, 17, 42]
    expected = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=width,
        num_return_sequences=width,
        max_new_tokens=9,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )

    @torch.no_grad()
    def distribution(tokens: tuple[int, ...]) -> list[float]:
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, -1]
        return torch.log_softmax(logits.float(), -1).tolist()

    beams = found(Search(width, frozenset(), 1.0, 9), distribution, 2 * width)
    assert [tokens for tokens, _ in beams] == expected.sequences[:, len(prompt) :].tolist()
    assert [score for _, score in beams] == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)


def everything(distribution: Distribution, ends: frozenset[int], most: int, size: int) -> Iterator[Any]:
    """(tokens, log probability) of every sequence that ends by an end token or is cut at `most`."""
    for length in range(1, most + 1):
        for tokens in itertools.product(range(size), repeat=length):
            if any(token in ends for token in tokens[:-1]) or (length < most and tokens[-1] not in ends):
                continue
            yield list(tokens), sum(distribution(tokens[:i])[token] for i, token in enumerate(tokens))


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.5, -1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_search_wide_enough_finds_the_best_of_all_sequences(seed: int, penalty: float) -> None:
    size, most, ends = 4, 4, frozenset({1})
    distribution = drawn(seed, size)
    width = size**most
    scored = [
        (tokens, logprob / len(tokens) ** penalty)
        for tokens, logprob in everything(distribution, ends, most, size)
    ]
    scored.sort(key=lambda item: -item[1])
    beams = found(Search(width, ends, penalty, most), distribution, size)
    assert [tokens for tokens, _ in beams] == [tokens for tokens, _ in scored]
    assert [score for _, score in beams] == pytest.approx([score for _, score in scored], abs=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 1.0, -0.5])
def test_stopping_early_changes_nothing(penalty: float) -> None:
    early = 0
    for seed in range(30):
        distribution, ends = drawn(seed, 12), frozenset({0, 3})
        whole = Search(3, ends, penalty, 12)
        while whole.running and whole.running[0].length < 12:
            whole.advance(
                [table_of(distribution(tuple(s.token for s in beam.steps())), 6) for beam in whole.running]
            )
        search = Search(3, ends, penalty, 12)
        stopped = found(search, distribution, 6)
        early += search.running[0].length < 12
        cut = [beam for beam in whole.running if beam.length == 12]
        best = sorted([*whole.finished, *cut], key=whole.score, reverse=True)[:3]
        assert [tokens for tokens, _ in stopped] == [[s.token for s in beam.steps()] for beam in best]
    assert early > 3  # the case is there at all


def test_a_beam_knows_its_steps() -> None:
    table = table_of([-1.0, -2.0], 2)
    beam = Beam(Beam(Beam(), 4, -1.0, 1, table), 7, -3.0, 2, table)
    assert [step.token for step in beam.steps()] == [4, 7] and Beam().steps() == []


class DrawnEngine(ScriptedEngine):
    """Gives tables of `drawn` for whatever was asked, one token at a time, as if from a model."""

    in_flight = most_in_flight = 0

    async def _answer(self, frame: Generate) -> None:
        assert frame.params.max_tokens == 1 and frame.params.logprobs is not None
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        values = drawn(1, self.tokenizer.vocab_size)(tuple(frame.prompt_token_ids))
        values[2] += 3.0  # ends come often
        rows = table_of(values, frame.params.logprobs)
        self.in_flight -= 1
        ids = array("I", [rows.token_ids[0]])
        self._take(Step((TokenOutput(frame.seq_id, ids, FinishReason.LENGTH, None, 0, rows),)))


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    made = Site(folder, Setup(engine=DrawnEngine))
    yield made
    made.stop()


BODY = {"prompt": [5, 6], "use_beam_search": True, "n": 3, "max_tokens": 6, "return_token_ids": True}


def test_over_http_it_is_the_same_search(site: Site) -> None:
    size = site.tokenizer.vocab_size

    def distribution(tokens: tuple[int, ...]) -> list[float]:
        values = drawn(1, size)((5, 6, *tokens))
        values[2] += 3.0
        return values

    expected = found(Search(3, frozenset({2}), 0.7, 6), distribution, 6)
    status, answer = site.post("/v1/completions", {**BODY, "length_penalty": 0.7, "logprobs": 2})
    assert status == 200, answer
    choices = answer["choices"]
    assert [choice["token_ids"] for choice in choices] == [tokens for tokens, _ in expected]
    for choice, (tokens, score) in zip(choices, expected, strict=True):
        assert choice["finish_reason"] == ("stop" if tokens[-1] == 2 else "length")
        assert choice["stop_reason"] is None
        rows = choice["logprobs"]["token_logprobs"]
        assert sum(rows) / len(tokens) ** 0.7 == pytest.approx(score, abs=1e-4)
        assert all(2 <= len(top) <= 3 for top in choice["logprobs"]["top_logprobs"])
        shown = tokens[:-1] if tokens[-1] == 2 else tokens
        assert choice["text"] == site.tokenizer.decode(shown, True)
    assert answer["usage"]["completion_tokens"] == sum(len(tokens) for tokens, _ in expected)
    assert answer["usage"]["prompt_tokens"] == 2


def test_chat_and_streams_give_the_beams_in_one_piece_each(site: Site) -> None:
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "use_beam_search": True,
        "n": 2,
        "max_tokens": 4,
        "temperature": 0,
    }
    whole = site.post("/v1/chat/completions", body)[1]["choices"]
    assert [choice["index"] for choice in whole] == [0, 1]
    status, _, data = site.request("POST", "/v1/chat/completions", {**body, "stream": True})
    assert status == 200 and data.endswith(b"data: [DONE]\n\n")
    assert data.count(b'"finish_reason":"length"') + data.count(b'"finish_reason":"stop"') == 2


def test_a_batch_uses_no_more_places_than_it_was_given(site: Site) -> None:
    engine: Any = site.engine
    engine.most_in_flight = 0
    status, answer = site.post(
        "/v1/completions", {**BODY, "prompt": [[5, 6], [7, 8], [9], [11, 12]], "max_tokens": 5}
    )
    assert status == 200 and [choice["index"] for choice in answer["choices"]] == list(range(12))
    alone = site.post("/v1/completions", {**BODY, "prompt": [9], "max_tokens": 5})[1]["choices"]
    assert [c["token_ids"] for c in answer["choices"][6:9]] == [c["token_ids"] for c in alone]
    assert 1 < engine.most_in_flight <= 9  # 8 places and one ahead
    assert site.admission.sequences == 0


def test_no_tokens_are_asked_for(site: Site) -> None:
    engine: Any = site.engine

    async def nothing(frame: Generate) -> None:
        assert frame.params.max_tokens == 0
        site.engine._take(Step((TokenOutput(frame.seq_id, array("I"), FinishReason.LENGTH, None, 0),)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_answer", nothing)
        answer = site.post("/v1/completions", {**BODY, "max_tokens": 0})[1]
    assert [c["text"] for c in answer["choices"]] == ["", "", ""]
    assert answer["usage"]["completion_tokens"] == 0


def test_a_client_that_leaves_ends_the_search(site: Site) -> None:
    engine: Any = site.engine
    asked: list[int] = []

    async def silent(frame: Generate) -> None:
        asked.append(frame.seq_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_answer", silent)
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
        body = json.dumps({**BODY, "stream": True})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.read(1) == b":"  # a comment: the search is on its way
        response.close()
        connection.close()
        end = time.monotonic() + 5
        while site.admission.sequences and time.monotonic() < end:
            time.sleep(0.01)
    assert asked and site.admission.sequences == 0 and set(asked) <= set(engine.aborted)


def test_a_search_ends_with_its_deadline(site: Site) -> None:
    engine: Any = site.engine

    async def silent(frame: Generate) -> None:
        return

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_answer", silent)
        status, _, data = site.request("POST", "/v1/completions", BODY, {"X-Request-Timeout": "0.1"})
    assert (status, json.loads(data)["error"]["code"]) == (504, "request_timeout")
    assert site.admission.sequences == 0
