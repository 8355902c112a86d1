"""best_of: the n sequences with the highest log probability per token, as OpenAI's reference of completions says."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import ScriptedEngine, Setup, Site

from vsrv.messages import FinishReason, Generate, LogProbs, Step, TokenOutput

# (token ids, log probability of each) by seed: sums -2, -6, -3, -1.5, means -1, -1, -0.75, -1.5
SEQUENCES = {
    10: ([30, 31], [-1.0, -1.0]),
    11: ([40, 41, 42, 43, 44, 45], [-2.0, -1.5, -0.5, -0.5, -1.0, -0.5]),
    12: ([50, 51, 52, 53], [-0.5, -1.0, -0.5, -1.0]),
    13: ([60], [-1.5]),
}


class SeededEngine(ScriptedEngine):
    async def _answer(self, frame: Generate) -> None:
        seed = frame.params.seed
        assert seed is not None and frame.params.logprobs is not None
        ids, values = SEQUENCES[seed]
        k = frame.params.logprobs
        columns = [[token, *range(k)] for token in ids]
        table = [[value, *(-0.1 * (j + 1) for j in range(k))] for value in values]
        rows = LogProbs(
            k,
            array("I", [cell for row in columns for cell in row]),
            array("f", [cell for row in table for cell in row]),
            array("I", [k + 1] * len(ids)),
        )
        self._take(Step((TokenOutput(frame.seq_id, array("I", ids), FinishReason.LENGTH, None, 0, rows),)))


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    made = Site(folder, Setup(engine=SeededEngine))
    yield made
    made.stop()


def choices_of(site: Site, **fields: Any) -> Any:
    body = {"prompt": [5, 6], "max_tokens": 8, "seed": 10, "return_token_ids": True, **fields}
    status, answer = site.post("/v1/completions", body)
    assert status == 200, answer
    return answer


@pytest.mark.parametrize(
    ("n", "best_of", "seeds"),
    [(1, 4, [12]), (2, 3, [12, 10]), (3, 4, [12, 10, 11]), (4, 4, [10, 11, 12, 13])],
)
def test_the_best_by_token_are_told_in_order(site: Site, n: int, best_of: int, seeds: list[int]) -> None:
    answer = choices_of(site, n=n, best_of=best_of, **({"logprobs": 1} if n == best_of else {}))
    choices = answer["choices"]
    assert [choice["index"] for choice in choices] == list(range(n))
    assert [choice["token_ids"] for choice in choices] == [SEQUENCES[seed][0] for seed in seeds]
    assert [choice["text"] for choice in choices] == [site.tokenizer.decode(SEQUENCES[s][0]) for s in seeds]
    made = [len(ids) for ids, _ in list(SEQUENCES.values())[:best_of]]
    assert answer["usage"]["completion_tokens"] == sum(made)  # all that were made are counted
    assert answer["usage"]["prompt_tokens"] == 2


def test_log_probabilities_are_told_only_where_asked(site: Site) -> None:
    assert choices_of(site, best_of=4)["choices"][0]["logprobs"] is None
    told = choices_of(site, best_of=4, logprobs=2)["choices"][0]["logprobs"]
    assert told["token_logprobs"] == [-0.5, -1.0, -0.5, -1.0]


def test_each_prompt_of_a_batch_has_its_own_best(site: Site) -> None:
    answer = choices_of(site, prompt=[[5, 6], [7, 8, 9]], best_of=4, n=2, echo=True)
    choices = answer["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [choice["prompt_token_ids"] for choice in choices] == [[5, 6], [5, 6], [7, 8, 9], [7, 8, 9]]
    first, second = SEQUENCES[12][0], SEQUENCES[10][0]
    assert [choice["token_ids"] for choice in choices] == [first, second] * 2
    assert choices[2]["text"] == site.tokenizer.decode([7, 8, 9]) + site.tokenizer.decode(first)
