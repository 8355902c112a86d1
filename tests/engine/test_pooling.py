"""Engines that make vectors: every Embed has one end, and a decoder's vectors are those of transformers however it is cut into steps."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
import torch
import transformers

from vsrv import models
from vsrv.engine.blocks import BlockPool
from vsrv.engine.encoding import EncoderEngine, EncoderLimits, Network
from vsrv.engine.engine import Output
from vsrv.engine.placement import Host
from vsrv.engine.pooling import PoolingEngine, PoolingRunner
from vsrv.engine.scheduler import Scheduler, SchedulerLimits
from vsrv.kernels import Kernels
from vsrv.messages import Embed, Failed, FinishReason, Generate, Pooled, SamplingParams, TokenOutput
from vsrv.models.bert import load_encoder
from vsrv.models.encoder import EncoderSpec
from vsrv.models.pooling import Pooler

LENGTHS = (5, 90, 1, 33, 140, 32, 12, 90)


@pytest.fixture(scope="module")
def texts() -> list[list[int]]:
    torch.manual_seed(7)
    made = [torch.randint(3, 150, (length,)).tolist() for length in LENGTHS]
    made[-1][:64] = made[1][:64]  # a prefix that two of them share
    return made


@pytest.fixture(scope="module")
def expected(tiny_folder: Path, texts: list[list[int]]) -> list[torch.Tensor]:
    network = transformers.Qwen3Model.from_pretrained(tiny_folder, dtype=torch.float32).eval()
    with torch.no_grad():
        last = [network(torch.tensor([ids])).last_hidden_state[0, -1] for ids in texts]
    return [vector / vector.norm() for vector in last]


def decoder_engine(
    folder: Path, kernels: Kernels, budget: int = 64, seqs: int = 4, blocks: int = 24
) -> PoolingEngine:
    spec = models.read_any(folder, {}, "pooling", {})
    assert isinstance(spec, models.PoolingModelSpec) and spec.pooling is not None
    assert isinstance(spec.network, models.ModelSpec)
    options = models.LoadOptions("float32", "auto", 0, 512)
    model = models.load_model(folder, spec.network, kernels, options, lambda fraction: None)
    limits = SchedulerLimits(seqs, budget, 512)
    scheduler = Scheduler(limits, BlockPool(blocks, kernels.block_size, True))
    runner = PoolingRunner(model, kernels, blocks, Host())
    return PoolingEngine(runner, Pooler(folder, spec.pooling, "cpu"), scheduler, kernels.block_size)


def encoder_engine(folder: Path, kernels: Kernels, budget: int = 256) -> EncoderEngine:
    config = transformers.BertConfig(
        vocab_size=150, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder)
    spec = models.read_any(folder, {}, "auto", {})
    assert isinstance(spec, models.PoolingModelSpec) and spec.pooling is not None
    assert isinstance(spec.network, EncoderSpec)
    loaded = load_encoder(folder, spec.network, kernels, "float32", None, lambda fraction: None)
    network = Network(loaded, Pooler(folder, spec.pooling, "cpu"), None)
    return EncoderEngine(network, EncoderLimits(4, budget, 200), Host())


def frames_of(texts: list[list[int]]) -> list[Embed]:
    return [Embed(i + 1, array("I", ids), len(ids)) for i, ids in enumerate(texts)]


def run(engine: PoolingEngine | EncoderEngine) -> dict[int, Output]:
    """Step until there is nothing to do; no sequence may have two ends."""
    ends: dict[int, Output] = {}
    while engine.has_work():
        for output in engine.step():
            assert output.seq_id not in ends, "a second end"
            ends[output.seq_id] = output
        if isinstance(engine, PoolingEngine):
            engine.check()
    return ends


@pytest.mark.parametrize(("budget", "seqs", "blocks"), [(512, 8, 24), (40, 3, 24), (64, 8, 8)])
def test_a_decoders_vectors_are_those_of_transformers(
    budget: int, seqs: int, blocks: int, tiny_folder: Path, kernels: Kernels,
    texts: list[list[int]], expected: list[torch.Tensor],
) -> None:  # fmt: skip
    """In whole prompts, in chunks beside each other, with shared prefixes, and with too few blocks for all."""
    engine = decoder_engine(tiny_folder, kernels, budget, seqs, blocks)
    for frame in frames_of(texts):
        engine.add(frame)
    ends = run(engine)
    for index, vector in enumerate(expected):
        end = ends[index + 1]
        assert isinstance(end, Pooled)
        assert torch.allclose(torch.tensor(end.values), vector, atol=1e-4)
    assert engine.finished == {"stop": len(texts)}
    again = Embed(99, array("I", texts[1]), len(texts[1]), dimensions=8)
    engine.add(again)
    (end,) = run(engine).values()
    assert isinstance(end, Pooled)
    short = expected[1][:8] / expected[1][:8].norm()
    assert torch.allclose(torch.tensor(end.values), short, atol=1e-4)
    if blocks == 24:
        assert engine.scheduler.prefix_hits >= 64


def test_a_decoder_that_was_saved_without_its_head_is_the_same(
    tiny_folder: Path, kernels: Kernels, tmp_path: Path, texts: list[list[int]], expected: list[torch.Tensor]
) -> None:
    network = transformers.Qwen3Model.from_pretrained(tiny_folder, dtype=torch.float32)
    network.save_pretrained(tmp_path)
    spec = models.read_any(tmp_path, {}, "auto", {})
    assert isinstance(spec, models.PoolingModelSpec) and spec.task == "embed"
    engine = decoder_engine(tmp_path, kernels)
    engine.add(frames_of(texts)[0])
    (end,) = run(engine).values()
    assert isinstance(end, Pooled) and torch.allclose(torch.tensor(end.values), expected[0], atol=1e-4)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_every_embed_has_one_end(kind: str, tiny_folder: Path, kernels: Kernels, tmp_path: Path) -> None:
    engine: PoolingEngine | EncoderEngine
    if kind == "encoder":
        engine = encoder_engine(tmp_path, kernels)
    else:
        engine = decoder_engine(tiny_folder, kernels)
    wrong = {
        1: (Embed(1, array("I"), 0), "empty_prompt"),
        2: (Embed(2, array("I", [5] * 513), 513), "context_length_exceeded"),
        3: (Embed(3, array("I", [150]), 1), "invalid_token_id"),
        4: (Generate(4, array("I", [5]), SamplingParams(max_tokens=1)), "task_not_supported"),
    }
    for frame, _ in wrong.values():
        engine.add(frame)
    for number in (10, 11, 12):
        engine.add(Embed(number, array("I", [5, number]), 2))
    engine.add(Embed(12, array("I", [5]), 1))  # its number is in use
    engine.abort(11)
    engine.abort(77)
    outputs = []
    while engine.has_work():
        outputs += engine.step()
    for number, (_, code) in wrong.items():
        assert [(o.seq_id, o.code) for o in outputs if isinstance(o, Failed) and o.seq_id == number] == [
            (number, code)
        ]
    assert [o.finish_reason for o in outputs if isinstance(o, TokenOutput)] == [FinishReason.ABORT]
    assert sorted(o.seq_id for o in outputs if isinstance(o, Pooled)) == [10, 12]
    assert [o.code for o in outputs if isinstance(o, Failed) and o.seq_id == 12] == ["duplicate_id"]


def test_a_generating_engine_refuses_to_embed(make_engine: object) -> None:
    engine = make_engine()  # type: ignore[operator]
    engine.add(Embed(1, array("I", [5]), 1))
    (end,) = engine.step()
    assert isinstance(end, Failed) and end.code == "task_not_supported"


def test_a_batch_that_fails_ends_alone(
    tmp_path: Path, kernels: Kernels, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = encoder_engine(tmp_path, kernels)
    broken = True
    pool = engine._network._pooler.pool

    def sometimes(*arguments: object) -> torch.Tensor:
        if broken:
            raise RuntimeError("out of luck")
        return pool(*arguments)

    monkeypatch.setattr(engine._network._pooler, "pool", sometimes)
    for number in (1, 2):
        engine.add(Embed(number, array("I", [5, 6]), 2))
    assert [(o.seq_id, o.code) for o in run(engine).values()] == [(1, "engine_error"), (2, "engine_error")]
    assert "out of luck" in capsys.readouterr().err
    broken = False
    engine.add(Embed(3, array("I", [5, 6]), 2))
    assert isinstance(run(engine)[3], Pooled)


def test_an_aborted_batch_is_given_up_between_two_layers(tmp_path: Path, kernels: Kernels) -> None:
    engine = encoder_engine(tmp_path, kernels)
    engine.add(Embed(1, array("I", [5] * 100), 100))
    engine._start()
    assert engine._running is not None
    next(engine._running)
    assert engine.queues() == (1, 0)
    engine.abort(1)
    engine.add(Embed(2, array("I", [6]), 1))
    ends = run(engine)
    assert isinstance(ends[1], TokenOutput) and isinstance(ends[2], Pooled)
    assert engine.computed_tokens == 1
