"""The whole engine on the simulated GPU: scheduler, batches, the GPU's kernels for everything but matrix products, against transformers."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from simulated import SimulatedDevice, SimulatedLoader

from vsrv import models
from vsrv.engine import graphs
from vsrv.engine.blocks import BlockPool
from vsrv.engine.engine import Engine
from vsrv.engine.gpu import TorchProducts, with_products
from vsrv.engine.grammar import Grammars
from vsrv.engine.runner import ModelRunner
from vsrv.engine.scheduler import Scheduler, SchedulerLimits
from vsrv.kernels import Kernels
from vsrv.kernels.cuda.operations import SamplingVariant, cuda_kernels
from vsrv.messages import Failed, Generate, SamplingParams, TokenOutput

VOCABULARY = 98  # no multiple of four: rows of logits are padded


class HostProducts(TorchProducts):
    """torch's CPU has no product of 16-bit matrices with an unrounded result."""

    def wide(self, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(x.float() @ weight.float())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = transformers.Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=48, intermediate_size=64, num_hidden_layers=1, num_attention_heads=3,
        num_key_value_heads=1, head_dim=64, max_position_embeddings=256, eos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(5)
    network = transformers.Qwen3ForCausalLM(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3) if parameter.dim() > 1 else parameter.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("gpu-model")
    network.to(torch.bfloat16).save_pretrained(path)
    letters = [*map(chr, range(33, 127)), "\u0120"]  # ASCII in GPT-2's spelling
    vocabulary = {letter: 3 + i for i, letter in enumerate(letters)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    table = json.loads(made.to_str())
    table["added_tokens"] = [
        {"id": i, "content": f"<|{i}|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i in range(3)
    ]  # fmt: skip
    (path / "tokenizer.json").write_text(json.dumps(table))
    return path


def gpu_kernels(arch: str, seed: int) -> Kernels:
    """The table that a GPU host uses, with launches in the simulator and products on the CPU."""
    small = SamplingVariant(threads=32, digit_bits=6, capacity=64, adjust_threads=32, chunk=64)
    kernels = cuda_kernels(SimulatedDevice(arch, num_multiprocessors=2), SimulatedLoader(seed), small)
    return replace(with_products(kernels, HostProducts("cpu")), device="cpu")


@pytest.fixture(scope="module")
def make_engine(folder: Path) -> Callable[..., Engine]:
    def make(
        lag: int,
        arch: str = "sm_90a",
        blocks: int = 24,
        budget: int = 24,
        seqs: int = 4,
        replays: bool = False,
        grammars: bool = False,
    ) -> Engine:
        kernels = gpu_kernels(arch, lag)
        spec = models.read_spec(folder, {})
        model = models.load_model(
            folder, spec, kernels, models.LoadOptions("auto", "auto", 0, 256), lambda fraction: None
        )
        kernels.prepare(model.kernel_shapes(seqs, budget))
        model.reserve(budget, seqs)
        runner = ModelRunner(model, kernels, blocks, seqs)
        if replays:
            runner.use_graphs(recorded, seqs, 16)
        limits = SchedulerLimits(seqs, budget, min(256, blocks * kernels.block_size))
        return Engine(
            runner,
            Scheduler(limits, BlockPool(blocks, kernels.block_size, True)),
            kernels.block_size,
            lag,
            0,
            Grammars(folder, VOCABULARY) if grammars else None,
        )

    return make


def recorded(step: Callable[[], None]) -> Callable[[], None]:
    """A graph's promise without a GPU: the step ran once, and runs again on the same buffers when it is replayed."""
    step()
    return step


def run(engine: Engine, requests: dict[int, tuple[list[int], SamplingParams]]) -> dict[int, list[int]]:
    for seq_id, (prompt, params) in requests.items():
        engine.add(Generate(seq_id, array("I", prompt), params))
    outputs: dict[int, list[int]] = {seq_id: [] for seq_id in requests}
    while engine.has_work():
        for output in engine.step():
            assert not isinstance(output, Failed), output
            outputs[output.seq_id] += output.token_ids.tolist()
        engine.check()
    return outputs


PROMPTS = {1: list(range(3, 36)), 2: [7], 3: [5, 6, 7] * 6, 4: list(range(3, 24)), 5: [90, 91]}


@pytest.mark.parametrize(("lag", "arch"), [(0, "sm_90a"), (1, "sm_80")])
def test_greedy_tokens_are_those_of_transformers(
    make_engine: Callable[..., Engine], folder: Path, lag: int, arch: str
) -> None:
    """Chunked prefill beside decode, a shared prefix, more sequences than slots; margins below 0.15 may go either way in bf16."""
    engine = make_engine(lag, arch)
    params = SamplingParams(3, temperature=0.0, ignore_eos=True)
    got = run(engine, {seq_id: (prompt, params) for seq_id, prompt in PROMPTS.items()})
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    checked = 0
    for seq_id, prompt in PROMPTS.items():
        assert len(got[seq_id]) == 3
        ids = prompt + got[seq_id]
        with torch.inference_mode():
            logits = network(torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
        for row, token in zip(logits, got[seq_id], strict=True):
            best = row.topk(2)
            if best.values[0] - best.values[1] > 0.15:
                assert token == int(best.indices[0])
                checked += 1
            else:
                assert row[token] > best.values[0] - 0.15
    assert checked >= 8


def test_lag_graphs_preemption_and_batch_change_no_token(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "_NEEDED", 1)
    requests = {  # the first outgrows its block of 16 while the others hold the rest of a pool of four
        1: (
            [5, 6, 7] * 5,
            SamplingParams(4, temperature=0.8, seed=3, top_k=20, ignore_eos=True, frequency_penalty=0.5),
        ),
        2: ([7], SamplingParams(5, temperature=1.0, seed=4, top_p=0.8, ignore_eos=True, min_tokens=3)),
        3: (list(range(3, 31)), SamplingParams(5, temperature=0.0, ignore_eos=True, repetition_penalty=1.2)),
    }
    together = run(make_engine(0), requests)
    replaying = make_engine(1, replays=True)
    assert run(replaying, requests) == together
    assert replaying._runner.graphs is not None and set(replaying._runner.graphs._graphs) >= {1, 4}
    tight = make_engine(1, blocks=4)
    assert run(tight, requests) == together
    assert tight.scheduler.num_preemptions > 0, "the pool was not tight enough to show anything"
    for seq_id in (1, 3):
        assert run(make_engine(0), {seq_id: requests[seq_id]})[seq_id] == together[seq_id]


def test_logprobs_of_output_and_prompt(make_engine: Callable[..., Engine], folder: Path) -> None:
    engine = make_engine(1)
    prompt = PROMPTS[1]
    params = SamplingParams(3, temperature=0.0, ignore_eos=True, logprobs=3, prompt_logprobs=2)
    engine.add(Generate(1, array("I", prompt), params))
    outputs: list[TokenOutput] = []
    while engine.has_work():
        outputs += [output for output in engine.step() if isinstance(output, TokenOutput)]
    ids = prompt + [token for output in outputs for token in output.token_ids]
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        expected = network(torch.tensor([ids])).logits[0].log_softmax(-1)
    rows = outputs[0].prompt_logprobs
    assert rows is not None and rows.num_positions == len(prompt) - 1 and rows.k == 2
    for position in range(len(prompt) - 1):
        assert rows.token_ids[3 * position] == prompt[position + 1]
        assert rows.values[3 * position] == pytest.approx(
            expected[position, prompt[position + 1]].item(), abs=0.15
        )
    for index, output in enumerate(outputs):
        assert output.logprobs is not None and output.logprobs.k == 3
        position = len(prompt) - 1 + index
        for token, value in zip(output.logprobs.token_ids, output.logprobs.values, strict=True):
            assert value == pytest.approx(expected[position, token].item(), abs=0.15)


def test_a_size_that_cannot_be_captured_stays_eager(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(graphs, "_NEEDED", 1)
    attempts: list[int] = []

    def broken(step: Callable[[], None]) -> Callable[[], None]:
        attempts.append(1)
        raise torch.OutOfMemoryError("no memory for a graph")

    engine = make_engine(1)
    engine._runner.use_graphs(broken, 4, 16)
    requests = {1: ([5, 6], SamplingParams(5, temperature=0.0, ignore_eos=True))}
    assert len(run(engine, requests)[1]) == 5
    assert attempts == [1], "the capture was tried again"
    assert "no memory for a graph" in capfd.readouterr().err


def test_grammars_hold_on_every_path(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks go up between the logits of a step and its sampling, with results read at once or one step later, replayed or not."""
    monkeypatch.setattr(graphs, "_NEEDED", 1)
    texts = {1: "start: /[0-9]{2}/", 2: 'start: "ab" | "ac"', 3: ""}
    requests = {
        seq_id: (
            [5 + seq_id, 6, 7],
            SamplingParams(
                3, temperature=1.0, seed=seq_id, eos_token_id=2, ignore_eos=not text, grammar=text
            ),
        )
        for seq_id, text in texts.items()
    }
    results = [
        run(make_engine(lag, replays=replays, grammars=True), requests)
        for lag, replays in ((0, False), (1, True))
    ]
    assert results[0] == results[1]
    spelled = {i: "".join(chr(30 + t) for t in ids if t > 2) for i, ids in results[0].items()}
    assert re.fullmatch("[0-9]{2}", spelled[1]) and spelled[2] in ("ab", "ac") and len(results[0][3]) == 3
