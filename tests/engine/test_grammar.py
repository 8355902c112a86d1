"""Constrained sequences in a real engine: every output follows its grammar, whatever else the engine does, and its troubles are its own."""

from __future__ import annotations

import json
import re
import shutil
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import llguidance
import numpy as np
import pytest
import torch
import transformers

from vsrv import demo, models
from vsrv.engine.blocks import BlockPool
from vsrv.engine.engine import Engine
from vsrv.engine.grammar import Grammars
from vsrv.engine.runner import ModelRunner
from vsrv.engine.scheduler import Scheduler, SchedulerLimits
from vsrv.engine.sequence import Sequence
from vsrv.kernels import Kernels
from vsrv.messages import GRAMMAR_LIMITS, Failed, FinishReason, Generate, SamplingParams, TokenOutput

VOCABULARY = int(json.loads((demo.model_path() / "config.json").read_text())["vocab_size"])
END, OTHER_END = 2, 0  # <|im_end|>, <|endoftext|>
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["a", "b", 3, None]},
        "sizes": {"type": "array", "items": {"type": "integer", "minimum": -5, "maximum": 99}, "maxItems": 4},
    },
    "required": ["name", "kind", "sizes"],
    "additionalProperties": False,
}
JSON = llguidance.LLMatcher.grammar_from_json_schema(
    json.dumps(SCHEMA), overrides={"whitespace_flexible": False}
)
DIGITS = "start: /[0-9]{3,9}/"
Make = Callable[..., Engine]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network with the demo model's tokenizer."""
    folder = tmp_path_factory.mktemp("lettered")
    config = transformers.Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=END,
        tie_word_embeddings=True,
    )
    torch.manual_seed(2)
    transformers.Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    shutil.copy(demo.model_path() / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="module")
def grammars(folder: Path) -> Iterator[Grammars]:
    made = Grammars(folder, VOCABULARY)
    yield made
    made.close()


@pytest.fixture(scope="module")
def make(kernels: Kernels, folder: Path, grammars: Grammars) -> Make:
    spec = models.read_spec(folder, {})
    options = models.LoadOptions("auto", "auto", 0, 512)
    model = models.load_model(folder, spec, kernels, options, lambda fraction: None)

    def make(lag: int = 0, blocks: int = 64, seqs: int = 8, budget: int = 64, cache: bool = True) -> Engine:
        pool = BlockPool(blocks, kernels.block_size, cache)
        limits = SchedulerLimits(seqs, budget, min(512, blocks * kernels.block_size))
        runner = ModelRunner(model, kernels, blocks, seqs)
        return Engine(runner, Scheduler(limits, pool), kernels.block_size, lag, 0, grammars)

    return make


@pytest.fixture(scope="module")
def spelled(folder: Path) -> Callable[[list[int]], str]:
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True))


def frame(seq_id: int, grammar: str, **params: Any) -> Generate:
    params = {"max_tokens": 120, "eos_token_id": END, "seed": seq_id, **params}
    prompt = array("I", [5 + seq_id % 7, *range(20, 40 + 3 * (seq_id % 5))])
    return Generate(seq_id, prompt, SamplingParams(grammar=grammar, **params))


def starved(fuel: int) -> llguidance.LLParserLimits:
    return llguidance.LLParserLimits(
        **{**GRAMMAR_LIMITS, "step_lexer_fuel": fuel, "initial_lexer_fuel": 1_000_000}
    )


class Ended:
    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.outputs: list[TokenOutput] = []
        self.end: FinishReason | Failed | None = None

    @property
    def text_ids(self) -> list[int]:
        return [token for token in self.tokens if token not in (END, OTHER_END)]


def run(engine: Engine, frames: list[Generate], abort: int | None = None) -> dict[int, Ended]:
    """Generate all of them together. The engine's invariants hold at every step, and each sequence ends once."""
    ended = {item.seq_id: Ended() for item in frames}
    for item in frames:
        engine.add(item)
    if abort is not None:
        engine.abort(abort)
    while engine.has_work():
        for output in engine.step():
            result = ended[output.seq_id]
            assert result.end is None, "something came after the end"
            if isinstance(output, Failed):
                result.end = output
                continue
            result.tokens += output.token_ids
            result.outputs.append(output)
            if output.finish_reason is not FinishReason.NONE:
                result.end = output.finish_reason
        engine.check()
    assert all(result.end is not None for result in ended.values())
    assert engine.scheduler.pool.num_free == engine.scheduler.pool.num_blocks
    return ended


def mixture() -> list[Generate]:
    """Constrained and free sequences side by side, with everything that shapes sampling."""
    frames = [
        frame(i, JSON, temperature=(1.0, 0.7, 1.5)[i % 3], logprobs=2 if i % 4 == 0 else None)
        for i in range(8)
    ]
    frames += [frame(10 + i, "", max_tokens=40, ignore_eos=True) for i in range(3)]
    frames += [frame(20, DIGITS, temperature=0.0), frame(21, DIGITS, top_k=5, repetition_penalty=1.2)]
    frames += [frame(22, "start: /(?s:.*)/", max_tokens=20), frame(23, JSON, max_tokens=6)]
    return frames


@pytest.fixture(scope="module")
def alone(make: Make) -> dict[int, Ended]:
    results: dict[int, Ended] = {}
    for item in mixture():
        results.update(run(make(cache=False, budget=512), [item]))
    return results


@pytest.mark.parametrize(
    "options",
    [dict(), dict(lag=1), dict(budget=7, lag=1), dict(blocks=10), dict(blocks=10, lag=1), dict(seqs=3, lag=1)],
    ids=str,
)  # fmt: skip
def test_tokens_do_not_depend_on_company(
    make: Make, alone: dict[int, Ended], options: dict[str, int]
) -> None:
    engine = make(**options)
    together = run(engine, mixture())
    for seq_id, expected in alone.items():
        assert (together[seq_id].tokens, together[seq_id].end) == (expected.tokens, expected.end)
    assert (engine.scheduler.num_preemptions > 0) is ("blocks" in options)


def test_outputs_follow_their_grammars(alone: dict[int, Ended], spelled: Callable[[list[int]], str]) -> None:
    complete = 0
    for item in mixture():
        result, grammar = alone[item.seq_id], item.params.grammar
        text = spelled(result.text_ids)
        if grammar == JSON and result.end is FinishReason.STOP:
            jsonschema.validate(json.loads(text), SCHEMA)
            complete += 1
        elif grammar == DIGITS:
            assert result.end is FinishReason.STOP and re.fullmatch("[0-9]{3,9}", text)
        elif grammar == JSON:
            assert result.end is FinishReason.LENGTH and len(result.tokens) == item.params.max_tokens
    assert complete >= 6
    assert alone[23].end is FinishReason.LENGTH  # cut by max_tokens, and nothing pretends otherwise


def test_logprobs_are_those_of_the_free_model(make: Make, alone: dict[int, Ended]) -> None:
    """As without a grammar: of raw logits, so that a token which the mask forced has a rank beyond the best."""
    rows = [output.logprobs for output in alone[0].outputs]
    assert all(
        row is not None and row.token_ids[0] == o.token_ids[0]
        for row, o in zip(rows, alone[0].outputs, strict=True)
    )
    assert max(row.ranks[0] for row in rows if row is not None) > 10


def test_a_complete_grammar_ends_the_sequence(make: Make) -> None:
    """With the last token that it allows, which is no end token; where more may follow, only the end token ends it."""
    results = run(
        make(),
        [frame(1, 'start: "<|"'), frame(2, "start: /[ab]{2}/", ignore_eos=True), frame(3, 'start: "x"?')],
    )
    assert all(result.end is FinishReason.STOP for result in results.values())
    assert END not in results[1].tokens + results[2].tokens
    assert results[3].tokens[-1:] == [END] or len(results[3].tokens) == 1


def test_the_end_token_comes_only_where_the_grammar_may_end(make: Make) -> None:
    loved = ((END, 100.0), (OTHER_END, 100.0))
    results = run(
        make(),
        [
            frame(1, DIGITS, logit_bias=loved),
            frame(2, DIGITS, logit_bias=loved, stop_token_ids=(OTHER_END,), ignore_eos=True),
            frame(3, DIGITS, logit_bias=loved, ignore_eos=True),
            frame(4, DIGITS, logit_bias=loved, min_tokens=6, top_k=1),
        ],
    )
    for seq_id, last in ((1, END), (2, OTHER_END)):
        ids = results[seq_id].tokens
        assert ids[-1] == last and not {END, OTHER_END} & set(ids[:-1])
    assert not {END, OTHER_END} & set(results[3].tokens) and results[3].end is FinishReason.STOP
    assert results[2].outputs[-1].stop_token_id == OTHER_END
    assert len(results[4].tokens) > 6 or not {END, OTHER_END} & set(results[4].tokens)


@pytest.mark.parametrize("lag", [0, 1])
def test_parameters_that_leave_no_token_end_that_sequence_alone(make: Make, lag: int) -> None:
    conflicts = [
        frame(1, DIGITS, allowed_token_ids=(500, 501)),  # no digits
        frame(2, 'start: "q"', bad_words=((83,),), temperature=0.0),
        frame(3, DIGITS, allowed_token_ids=(500,), temperature=0.7, top_p=0.9, min_p=0.1, top_k=3),
    ]
    free = frame(9, "", max_tokens=10, ignore_eos=True)
    results = run(make(lag=lag), [*conflicts, free])
    for item in conflicts:
        end = results[item.seq_id].end
        assert isinstance(end, Failed) and end.code == "grammar_conflict"
    assert results[9].tokens == run(make(), [free])[9].tokens


def test_the_ids_of_the_test_above(folder: Path) -> None:
    made = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    assert made.decode([83]) == "q" and not set(made.decode([500]) + made.decode([501])) & set("0123456789")


def test_a_grammar_that_cannot_be_compiled_ends_its_sequence_alone(make: Make) -> None:
    results = run(make(), [frame(1, "start: nope"), frame(2, "start: nope"), frame(3, DIGITS)])
    for seq_id in (1, 2):
        end = results[seq_id].end
        assert isinstance(end, Failed) and end.code == "invalid_grammar"
    assert results[3].end is FinishReason.STOP


def test_a_grammar_that_becomes_too_complex_ends_its_sequence_alone(make: Make, grammars: Grammars) -> None:
    hungry = "start: /(([a-z]{1,20}[0-9]?){1,20}x?){3,9}/"
    before, grammars._limits = grammars._limits, starved(40)
    try:
        run(make(), [frame(3, DIGITS)])
        results = run(make(), [frame(1, hungry), frame(3, DIGITS)])
    finally:
        grammars._limits = before
    end = results[1].end
    assert isinstance(end, Failed) and end.code in ("grammar_too_complex", "invalid_grammar")
    assert results[3].end is FinishReason.STOP


@pytest.mark.parametrize("lag", [0, 1])
def test_what_copies_of_a_grammar_use_up_together_is_nobody_s_end(
    make: Make, grammars: Grammars, lag: int
) -> None:
    """Copies share the states of their lexer, and so their limit: who meets it goes on with a matcher of its own."""
    grammar = "start: /[a-z ]*e[a-z ]{9}t[a-z ]*/"
    frames = [frame(i, grammar, max_tokens=40) for i in range(6)]
    expected = run(make(), frames)
    grammars._cache.clear()
    few = llguidance.LLParserLimits(**{**GRAMMAR_LIMITS, "max_lexer_states": 400})
    grammars._keep(grammar, llguidance.LLMatcher(grammars._tokenizer, grammar, log_level=0, limits=few))
    together = run(make(lag=lag), frames)
    assert {i: (r.tokens, r.end) for i, r in together.items()} == {
        i: (r.tokens, r.end) for i, r in expected.items()
    }
    assert grammar not in grammars._cache  # the worn one is not given out again


def test_a_shared_grammar_is_replaced_in_time(
    make: Make, grammars: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsrv.engine.grammar._MAX_SHARED_TOKENS", 5)
    compiled = grammars.num_compiled
    for _ in range(2):
        run(make(), [frame(1, 'start: "only" /[a-c]{7}/')])
    assert grammars.num_compiled == compiled + 2


def test_abort_while_the_grammar_is_compiled(make: Make) -> None:
    results = run(make(), [frame(1, 'start: "one" /[a-f]{7}/'), frame(2, 'start: "one" /[a-f]{7}/')], abort=1)
    assert results[1].end is FinishReason.ABORT and results[1].tokens == []
    assert results[2].end is FinishReason.STOP


def test_an_engine_without_a_tokenizer_refuses_grammars(make: Make, tmp_path: Path) -> None:
    engine = make()
    engine.grammars = Grammars(tmp_path, VOCABULARY)
    result = run(engine, [frame(1, DIGITS), frame(2, "", max_tokens=3, ignore_eos=True)])
    end = result[1].end
    assert isinstance(end, Failed) and end.code == "invalid_grammar" and result[2].end is FinishReason.LENGTH
    engine.grammars.close()


def test_the_cache_of_grammars_is_bounded(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsrv.engine.grammar._MAX_CACHED", 3)
    for i in range(5):
        grammars._keep(f"g{i}", object())
    assert list(grammars._cache)[-3:] == ["g2", "g3", "g4"] and len(grammars._cache) == 3
    grammars._cache.clear()


def test_masks_are_words_of_32_tokens(grammars: Grammars) -> None:
    """Bit i % 32 of word i // 32 is token i: the format of `Kernels.sample`."""
    constrained = Sequence.of(frame(1, 'start: "q" | "z"'), 1, 0)
    constrained.matcher = llguidance.LLMatcher(grammars._tokenizer, constrained.params.grammar)
    free = Sequence.of(frame(2, ""), 2, 0)
    masks = grammars.masks([free, constrained])
    assert masks is not None and tuple(masks.shape) == (2, VOCABULARY // 32)
    bits = np.unpackbits(masks.numpy().view(np.uint8), axis=1, bitorder="little")
    assert bits[0].all() and np.flatnonzero(bits[1]).tolist() == [83, 92]
    assert grammars.masks([free]) is None


def test_lag_1_leaves_no_step_empty(make: Make) -> None:
    """30 tokens are 30 steps, and one more to read the last."""
    engine = make(lag=1)
    engine.add(frame(1, "", max_tokens=30, ignore_eos=True))
    calls = 0
    while engine.has_work():
        engine.step()
        calls += 1
    assert calls == 31
