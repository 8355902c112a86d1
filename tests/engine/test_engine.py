"""Whatever the engine does with a request — batch it, cut it, cache it, push it out — its tokens stay the same, bit for bit."""

from __future__ import annotations

import random
from array import array

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vsrv.engine.blocks import BlockPool
from vsrv.engine.engine import Engine
from vsrv.engine.sequence import Sequence
from vsrv.messages import Failed, FinishReason, Generate, SamplingParams, TokenOutput


def generate(seq_id: int, prompt: list[int], salt: str = "", priority: int = 0, **params: object) -> Generate:
    params.setdefault("max_tokens", 8)
    params.setdefault("temperature", 0.0)
    return Generate(seq_id, array("I", prompt), SamplingParams(**params), salt, priority=priority)  # type: ignore[arg-type]


class Result:
    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.outputs: list[TokenOutput] = []
        self.end: FinishReason | Failed | None = None


def run(
    engine: Engine, frames: list[Generate], at_once: int = 100, aborts: dict[int, int] | None = None
) -> dict[int, Result]:
    """Feed frames, `at_once` before each step; aborts maps step → sequence id. Checks invariants and single ends all the way."""
    results = {frame.seq_id: Result() for frame in frames}
    waiting, steps = list(frames), 0
    while waiting or engine.has_work():
        for frame in waiting[:at_once]:
            engine.add(frame)
        waiting = waiting[at_once:]
        if aborts and steps in aborts:
            engine.abort(aborts[steps])
        for output in engine.step():
            result = results[output.seq_id]
            assert result.end is None, "something came after the end"
            if isinstance(output, Failed):
                result.end = output
                continue
            result.outputs.append(output)
            result.tokens += output.token_ids
            if output.finish_reason is not FinishReason.NONE:
                result.end = output.finish_reason
        engine.check()
        steps += 1
        assert steps < 5000, "the engine makes no progress"
    assert all(result.end is not None for result in results.values())
    assert engine.scheduler.pool.num_free == engine.scheduler.pool.num_blocks
    return results


def workload(seed: int) -> list[Generate]:
    rng = random.Random(seed)
    frames = []
    for i in range(14):
        prompt = [rng.randrange(3, 150) for _ in range(rng.choice((1, 5, 31, 32, 33, 64, 100, 130)))]
        if i % 3 == 0:
            prompt = list(range(3, 100)) + prompt
        frames.append(
            generate(
                i,
                prompt,
                max_tokens=rng.choice((1, 3, 20, 60)),
                temperature=rng.choice((0.0, 0.8, 1.3)),
                seed=i,
                top_p=rng.choice((1.0, 0.9)),
                top_k=rng.choice((0, 20)),
                min_p=rng.choice((0.0, 0.05)),
                repetition_penalty=rng.choice((1.0, 1.2)),
                presence_penalty=rng.choice((0.0, 0.5)),
                logit_bias=((7, 2.0),) if i % 4 == 0 else (),
                bad_words=((9,), (8, 10)) if i % 5 == 0 else (),
                min_tokens=1,
                eos_token_id=2,
                ignore_eos=i % 2 == 0,
                logprobs=rng.choice((None, 0, 3)),
                prompt_logprobs=rng.choice((None, None, 2)),
            )
        )
    return frames


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(lag=1),
        dict(budget=7),
        dict(budget=7, lag=1),
        dict(blocks=9),
        dict(blocks=9, lag=1),
        dict(cache=False),
        dict(seqs=3, lag=1),
        dict(policy="priority", blocks=10),
        dict(threshold=16, lag=1),
    ],
    ids=str,
)
@pytest.mark.parametrize("at_once", [1, 100])
def test_tokens_and_logprobs_do_not_depend_on_company(
    make_engine, options: dict[str, int], at_once: int
) -> None:
    frames = workload(3)
    alone = {}
    for frame in frames:
        alone.update(run(make_engine(cache=False, budget=512), [frame]))
    engine = make_engine(**options)
    together = run(engine, frames, at_once)
    for i, frame in enumerate(frames):
        assert together[i].tokens == alone[i].tokens
        assert together[i].end == alone[i].end
        for kind in ("logprobs", "prompt_logprobs"):
            a = [getattr(o, kind) for o in alone[i].outputs if getattr(o, kind) is not None]
            b = [getattr(o, kind) for o in together[i].outputs if getattr(o, kind) is not None]
            assert a == b, (kind, frame.params)
    if options.get("blocks") == 9:
        assert engine.scheduler.num_preemptions > 0
    if not options and at_once == 1:
        assert engine.scheduler.prefix_hits > 0


def test_requests_of_one_step_share_a_prefix_that_is_being_computed(make_engine) -> None:
    prompt = list(range(3, 131))
    engine = make_engine(budget=512)
    results = run(engine, [generate(i, prompt, temperature=1.0, seed=i) for i in range(4)])
    cached = [results[i].outputs[0].num_cached_tokens for i in range(4)]
    assert cached == [0, 96, 96, 96]  # the last token's block is computed by each: its logits are needed


def test_tenants_never_share_cached_prompts(make_engine) -> None:
    prompt = list(range(3, 131))
    engine = make_engine(budget=512)
    run(engine, [generate(1, prompt, salt="a")])
    assert run(engine, [generate(2, prompt, salt="b")])[2].outputs[0].num_cached_tokens == 0
    assert run(engine, [generate(3, prompt, salt="a")])[3].outputs[0].num_cached_tokens == 96


def test_a_hit_never_covers_the_last_prompt_token(make_engine) -> None:
    prompt = list(range(3, 67))  # two whole blocks
    engine = make_engine(budget=512)
    run(engine, [generate(1, prompt)])
    assert run(engine, [generate(2, prompt)])[2].outputs[0].num_cached_tokens == 32


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("step", range(6))
def test_abort_in_every_state_ends_once_and_frees(make_engine, lag: int, step: int) -> None:
    frames = [generate(i, list(range(3, 100)), max_tokens=30, ignore_eos=True) for i in range(3)]
    results = run(make_engine(lag=lag, budget=40, seqs=2), frames, aborts={step: 1})
    assert results[1].end is FinishReason.ABORT
    assert results[0].end is FinishReason.LENGTH and len(results[0].tokens) == 30
    assert results[2].tokens == results[0].tokens


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_random_adds_and_aborts_keep_the_invariants(make_engine_for_hypothesis, seed: int) -> None:
    rng = random.Random(seed)
    engine = make_engine_for_hypothesis(
        lag=rng.randint(0, 1),
        blocks=rng.choice((6, 9, 20)),
        seqs=rng.choice((1, 3, 8)),
        budget=rng.choice((5, 32, 128)),
    )
    frames = [
        generate(
            i,
            [rng.randrange(3, 150) for _ in range(rng.randint(1, 150))],
            max_tokens=rng.randint(1, 40),
            temperature=1.0,
            seed=i,
        )
        for i in range(rng.randint(1, 10))
    ]
    aborts = {rng.randint(0, 30): rng.randrange(len(frames)) for _ in range(rng.randint(0, 4))}
    run(engine, frames, rng.randint(1, 4), aborts)


@pytest.fixture(scope="module")
def make_engine_for_hypothesis(kernels, model):
    """Function-scoped fixtures and hypothesis do not mix; engines are made fresh by the call anyway."""
    from vsrv.engine.runner import ModelRunner
    from vsrv.engine.scheduler import Scheduler, SchedulerLimits

    def make(lag: int, blocks: int, seqs: int, budget: int) -> Engine:
        runner = ModelRunner(model, kernels, blocks, seqs)
        limits = SchedulerLimits(seqs, budget, min(512, blocks * 32))
        return Engine(runner, Scheduler(limits, BlockPool(blocks, 32, True)), 32, lag, 0)

    return make


def test_what_can_never_run_is_refused_and_disturbs_nobody(make_engine) -> None:
    engine = make_engine(blocks=4)
    frames = [
        generate(1, []),
        generate(2, list(range(3, 140))),
        generate(3, [150]),
        generate(4, [5], stop_token_ids=(150,)),
        generate(5, [5], logit_bias=((4000, 1.0),)),
        generate(6, [5, 6]),
    ]
    results = run(engine, frames)
    codes = [results[i].end.code for i in range(1, 6)]  # type: ignore[union-attr]
    assert codes == [
        "empty_prompt",
        "context_length_exceeded",
        "invalid_token_id",
        "invalid_token_id",
        "invalid_token_id",
    ]
    assert len(results[6].tokens) == 8


def test_a_failing_step_ends_its_batch_and_the_engine_goes_on(make_engine, monkeypatch, capsys) -> None:
    engine = make_engine(seqs=2)
    forward, calls = engine._runner.forward, []

    def flaky(batch: object) -> torch.Tensor:
        calls.append(batch)
        if len(calls) == 2:
            raise RuntimeError("device fault")
        return forward(batch)

    monkeypatch.setattr(engine._runner, "forward", flaky)
    results = run(engine, [generate(i, [3, 4, 5], ignore_eos=True) for i in range(3)])
    assert [isinstance(results[i].end, Failed) for i in range(3)] == [True, True, False]
    assert "device fault" in capsys.readouterr().err


def test_stops_limits_and_minimum(make_engine) -> None:
    prompt = [3, 4, 5, 6]
    free = run(make_engine(), [generate(1, prompt, max_tokens=12)])[1].tokens
    stop = free[3]
    cut = free.index(stop)
    by_stop = run(make_engine(), [generate(1, prompt, max_tokens=12, stop_token_ids=(stop,))])[1]
    assert by_stop.tokens == free[: cut + 1] and by_stop.end is FinishReason.STOP
    assert by_stop.outputs[-1].stop_token_id == stop
    by_eos = run(make_engine(), [generate(1, prompt, max_tokens=12, eos_token_id=stop)])[1]
    assert by_eos.tokens == free[: cut + 1] and by_eos.outputs[-1].stop_token_id is None
    ignored = run(make_engine(), [generate(1, prompt, max_tokens=12, eos_token_id=stop, ignore_eos=True)])[1]
    assert ignored.tokens == free and ignored.end is FinishReason.LENGTH
    later = run(make_engine(), [generate(1, prompt, max_tokens=12, eos_token_id=stop, min_tokens=cut + 3)])[1]
    assert len(later.tokens) >= cut + 3 and stop not in later.tokens[: cut + 3]
    only = run(make_engine(), [generate(1, prompt, allowed_token_ids=(11, 13))])[1]
    assert set(only.tokens) <= {11, 13}
    none = run(make_engine(), [generate(1, prompt, max_tokens=0, prompt_logprobs=1)])[1]
    assert none.tokens == [] and none.end is FinishReason.LENGTH
    assert none.outputs[0].prompt_logprobs.num_positions == 3
    full = run(make_engine(blocks=2), [generate(1, prompt, max_tokens=500, ignore_eos=True)])[1]
    assert len(full.tokens) == 64 - 4 and full.end is FinishReason.LENGTH


def test_priority_goes_first(make_engine) -> None:
    engine = make_engine(seqs=1, policy="priority")
    order = []
    for frame in [
        generate(i, [3, 4], priority=p, max_tokens=2, ignore_eos=True) for i, p in enumerate((5, 1, 3))
    ]:
        engine.add(frame)
    while engine.has_work():
        order += [o.seq_id for o in engine.step() if o.finish_reason is not FinishReason.NONE]
    assert order == [1, 2, 0]


def test_block_names_depend_on_everything_before_them() -> None:
    pool = BlockPool(16, 4, True)

    def sequence(ids: list[int], salt: str = "") -> Sequence:
        return Sequence.of(generate(1, ids, salt), 1, 0)

    first = sequence([1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert pool.grow(first, 9)
    first.num_computed_tokens = 9
    assert len(pool.register(first)) == 2
    assert pool.match_prefix(sequence([1, 2, 3, 4, 5, 6, 7, 8, 1])) == first.block_table[:2].tolist()
    assert pool.match_prefix(sequence([1, 2, 3, 0, 5, 6, 7, 8, 1])) == []
    assert pool.match_prefix(sequence([1, 2, 3, 4, 5, 6, 7, 8, 1], "other")) == []
    pool.release(first.block_table)
    pool.check([])
    # the end of a chain is evicted before its beginning
    other = sequence(list(range(60)))
    assert pool.grow(other, 14 * 4 + 4)
    assert pool.match_prefix(sequence([1, 2, 3, 4, 5])) == first.block_table[:1].tolist()


@pytest.mark.parametrize("lag", [0, 1])
def test_a_long_prompt_leaves_half_of_a_step_to_others(make_engine, lag: int) -> None:
    """Twelve steps of a long prompt: a short one that comes behind it has its first token at once, and alone it takes the whole step."""
    engine = make_engine(lag=lag, budget=32)
    engine.add(generate(1, [5] * 384, max_tokens=1))
    engine.step()
    assert engine.scheduler.running[0].num_computed_tokens == 32
    engine.add(generate(2, [7, 8, 9], max_tokens=1))
    heard = []
    for _ in range(2 + lag):
        heard += [output.seq_id for output in engine.step()]
    assert 2 in heard, "the short prompt waits for the long one"
    assert 1 not in heard
    while engine.has_work():
        engine.step()
