"""The sampling kernels in the block simulator against the numpy specification, and through the compiler of the GPU."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import simulator
import torch
from sampling_table import SAMPLINGS
from simulated import SimulatedDevice, SimulatedLaunch, memory

from vsrv.kernels import reference
from vsrv.kernels.cuda import sampling
from vsrv.kernels.cuda.sampler import Sampler, SamplingKernels, make_sampling
from vsrv.kernels.cuda.sampling_state import MAX_BIAS, CudaSamplingState
from vsrv.kernels.cuda.source import parse_arch
from vsrv.messages import SamplingParams

POISON = -(2**31) + 12345


def small(**options: int) -> SamplingKernels:
    """Few threads and bins: the simulator runs about a million operations a second."""
    sizes = dict(threads=32, digit_bits=6, capacity=64, adjust_threads=32, chunk=64) | options
    return make_sampling(simulator, **sizes)


class Bench:
    """A sampler, a state and the logits' buffer for rows of one batch; every output starts poisoned."""

    def __init__(
        self,
        vocab: int,
        max_slots: int = 12,
        kernels: SamplingKernels | None = None,
        seed: int = 0,
        padding: int = 0,
        num_multiprocessors: int = 1,
    ) -> None:
        self.vocab, self.padding = vocab, padding
        self.device, self.launch = (
            SimulatedDevice(num_multiprocessors=num_multiprocessors),
            SimulatedLaunch(seed),
        )
        self.state = CudaSamplingState(self.device, max_slots, vocab)
        self.sampler = Sampler(kernels or small(), self.device, self.launch, vocab)

    def tensor(self, rows: np.ndarray) -> torch.Tensor:
        """Rows with a stride that is a multiple of 4; what lies between them is NaN."""
        stride = -(-self.vocab // 4) * 4 + self.padding
        held = self.device.zeros((len(rows), stride), "float32")
        held.fill_(float("nan"))
        held[:, : self.vocab] = torch.from_numpy(rows)
        return held[:, : self.vocab]

    def sample(self, rows: np.ndarray, slots: list[int], mask: np.ndarray | None = None) -> list[int]:
        logits = self.tensor(rows)
        bits = None
        if mask is not None:
            words = -(-self.vocab // 32)
            packed = np.packbits(
                np.pad(mask, ((0, 0), (0, words * 32 - self.vocab))), axis=1, bitorder="little"
            )
            bits = torch.from_numpy(packed.view(np.int32).copy())
        out = torch.full((len(slots),), POISON, dtype=torch.int32)
        self.sampler.sample(logits, torch.tensor(slots, dtype=torch.int32), self.state, bits, out)
        np.testing.assert_array_equal(logits.numpy(), rows, "logits are read again for logprobs")
        return out.tolist()


@pytest.mark.parametrize("options", SAMPLINGS, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_sampling_equals_the_specification(options: dict[str, Any], masked: bool) -> None:
    vocab, rows, slots = 101, 3, [7, 0, 11]
    rng = np.random.default_rng(5)
    bench = Bench(vocab)
    params = SamplingParams(50, **options)
    prompts = [rng.integers(0, vocab, 6).tolist() for _ in range(rows)]
    outputs = [rng.integers(0, 14, 5 * row).tolist() for row in range(rows)]  # as after a preemption
    for row in range(rows):
        bench.state.assign(slots[row], params, 1000 + row, prompts[row], outputs[row])
    for _ in range(3):
        logits = (rng.normal(size=(rows, vocab)) * 3).astype(np.float32)
        mask = rng.random((rows, vocab)) < 0.5 if masked else None
        if mask is not None:
            mask[:, 3] = True
        ids = bench.sample(logits, slots, mask)
        for row in range(rows):
            own = None if mask is None else mask[row]
            expected = reference.sample(logits[row], params, 1000 + row, prompts[row], outputs[row], own)
            assert ids[row] == expected
            outputs[row].append(expected)
            assert int(bench.state.last_token[slots[row]]) == expected
    names = {name for name, _ in bench.launch.launches}
    assert ("adjust_logits" in names) == (masked or bench.state.has_adjusted)


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {}, {"top_k": 5, "top_p": 0.8, "min_p": 0.1}], ids=str
)
def test_a_row_without_an_allowed_token_gives_one_all_the_same(options: dict[str, Any]) -> None:
    """The engine finds it out by its own check; the neighbours' tokens are what they are."""
    vocab, slots = 101, [7, 0]
    bench, alone = Bench(vocab), Bench(vocab)
    for row, slot in enumerate(slots):
        for each in (bench, alone):
            each.state.assign(slot, SamplingParams(50, **options), row, [1], [])
    logits = np.random.default_rng(5).normal(size=(2, vocab)).astype(np.float32)
    mask = np.ones((2, vocab), bool)
    mask[0] = False
    ids = bench.sample(logits, slots, mask)
    assert 0 <= ids[0] < vocab and ids[1] == alone.sample(logits, slots)[1]


def expected_row(logits: np.ndarray, params: SamplingParams, seed: int) -> int:
    with np.errstate(invalid="ignore", divide="ignore"):
        return reference.sample(logits, params, seed, [], [])


def rows_of_all_kinds(vocab: int) -> np.ndarray:
    """Peaked, flat, with ties, of one value, nearly all impossible, tiny differences at a large offset, huge range."""
    rng = np.random.default_rng(vocab)
    rows = rng.normal(size=(7, vocab)).astype(np.float32)
    rows[0] *= 6
    rows[2] = rows[2].round()
    rows[3] = -1.5
    rows[4, rng.permutation(vocab)[3:]] = -np.inf
    rows[5] = 1000 + rows[5].round(2) / 8
    rows[6] = rows[6] * 500
    return rows


EDGES: list[dict[str, Any]] = [
    dict(top_k=1),
    dict(top_k=5000),
    dict(top_k=40),
    dict(top_k=100, top_p=0.999),
    dict(top_p=1e-9),
    dict(top_p=0.5),
    dict(top_p=0.9999),
    dict(min_p=1.0),
    dict(min_p=1e-6, top_p=0.99),
    dict(min_p=0.3, top_k=90),
    dict(),
    dict(temperature=1e-4, top_p=0.9),
    dict(temperature=0.0),
]


@pytest.mark.parametrize("options", EDGES, ids=str)
def test_edges_with_and_without_room_for_candidates(options: dict[str, Any]) -> None:
    """capacity 32 holds next to nothing: rows take the passes over the whole vocabulary; 128 holds most selections."""
    vocab = 150
    rows = rows_of_all_kinds(vocab)
    params = SamplingParams(9, **({"temperature": 1.7} | options))
    expected = [expected_row(row, params, 30 + i) for i, row in enumerate(rows)]
    for capacity in (32, 128):
        bench = Bench(vocab, kernels=small(capacity=capacity), seed=capacity, padding=4)
        for slot in range(len(rows)):
            bench.state.assign(slot, params, 30 + slot, [], [])
        assert bench.sample(rows, list(range(len(rows)))) == expected


@pytest.mark.parametrize("vocab", [5, 33, 64, 1023])
def test_any_vocabulary(vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    bench = Bench(vocab, num_multiprocessors=9)
    options: list[dict[str, Any]] = [
        dict(temperature=0.0),
        dict(),
        dict(top_k=4, top_p=0.9),
        dict(logit_bias=((vocab - 1, 3.0),)),
    ]
    rows = rng.normal(size=(4, vocab)).astype(np.float32) * 2
    params = [SamplingParams(9, **given) for given in options]
    for slot in range(4):
        bench.state.assign(slot, params[slot], slot, [], [])
    assert bench.sample(rows, [0, 1, 2, 3]) == [expected_row(rows[i], params[i], i) for i in range(4)]
    if vocab > 64:
        assert bench.launch.launches[-1][1] == (4, 2, 1), "two blocks to a row"


def test_the_same_bits_for_any_launch_shape() -> None:
    """Threads, bins, candidates, blocks for a row, order of threads: tokens and everything that the slots remember are equal."""
    vocab, rows = 203, 5
    rng = np.random.default_rng(1)
    steps = (rng.normal(size=(2, rows, vocab)) * 2).round(1).astype(np.float32)
    params = [
        SamplingParams(9, temperature=0.0, frequency_penalty=0.5),
        SamplingParams(9),
        SamplingParams(9, top_k=40, top_p=0.8),
        SamplingParams(9, top_p=0.97, repetition_penalty=1.2),
        SamplingParams(9, temperature=0.3, bad_words=((7,),)),
    ]
    shapes = [
        (small(), 1, 0),
        (small(threads=64, digit_bits=8, capacity=64, chunk=96), 16, 1),
        (small(threads=128, digit_bits=9, capacity=512, adjust_threads=64), 32, 2),
    ]
    results = []
    for kernels, multiprocessors, seed in shapes:
        bench = Bench(vocab, kernels=kernels, seed=seed, num_multiprocessors=multiprocessors)
        for slot in range(rows):
            bench.state.assign(slot, params[slot], 7, [1, 2, 3], [4, 4])
        ids = [bench.sample(step, list(range(rows))) for step in steps]
        held = bench.state
        results.append((ids, *(t.tolist() for t in (held.slots, held.counts, held.last_token))))
    assert results[0] == results[1] == results[2]
    assert {grid for name, grid in bench.launch.launches if name == "sample_tokens"} == {(5, 6, 1)}


def test_noise_belongs_to_the_request() -> None:
    """Alone, in a batch, in another slot: the same token; padded rows and slots beyond the state change nothing."""
    vocab, rng = 64, np.random.default_rng(3)
    row = rng.normal(size=vocab).astype(np.float32)
    params = SamplingParams(9, top_p=0.95)
    alone = Bench(vocab, max_slots=1)
    alone.state.assign(0, params, 77, [], [])
    token = alone.sample(row[None], [0])[0]
    assert token == expected_row(row, params, 77)
    many = Bench(vocab, seed=9)
    many.state.assign(4, params, 77, [], [])
    many.state.assign(2, SamplingParams(9, presence_penalty=1.0), 78, [], [])
    before = many.state.slots.clone()
    ids = many.sample(np.stack([row + 5, row, row, row]), [2, -1, 4, 12])
    assert ids[2] == token and ids[1] == ids[3] == POISON
    changed = (many.state.slots != before).any(1).nonzero().flatten().tolist()
    assert changed == [2, 4]
    assert int(many.state.last_token[4]) == token and int(many.state.last_token.count_nonzero()) <= 2


def test_what_a_step_writes() -> None:
    """Counts of penalised slots alone, the newest tokens in a ring, and steps: twelve tokens that a bias dictates."""
    vocab = 40
    bench = Bench(vocab)
    bench.state.assign(1, SamplingParams(99, temperature=0.0, frequency_penalty=0.01), 0, [3, 5], [7] * 60)
    bench.state.assign(2, SamplingParams(99, temperature=0.0), 0, [3, 5], [7] * 60)
    for token in range(12):
        rows = np.zeros((2, vocab), np.float32)
        rows[:, token] = 9.0
        assert bench.sample(rows, [1, 2]) == [token, token]
    counts = memory(bench.state.counts[1], np.uint32)
    expected = np.zeros(vocab, np.uint32)
    expected[:12] = 1
    expected[7] += 60
    expected[[3, 5]] |= 1 << 31
    np.testing.assert_array_equal(counts, expected)
    assert int(bench.state.counts[2].count_nonzero()) == 0
    for slot in (1, 2):
        ring = bench.state.slots[slot, 32:]
        assert [int(ring[n % 64]) for n in range(8, 72)] == [7] * 52 + list(range(12))
        assert int(bench.state.slots[slot, 10]) == 72


def test_a_slot_forgets_its_former_owner() -> None:
    bench = Bench(20, max_slots=2)
    logits = np.zeros((1, 20), np.float32)
    logits[0, 4] = 1.0
    heavy = SamplingParams(
        9,
        temperature=0.0,
        frequency_penalty=2.0,
        logit_bias=((6, 50.0),),
        allowed_token_ids=(6,),
        bad_words=((4,),),
        min_tokens=5,
        stop_token_ids=(4,),
    )
    plain = SamplingParams(9, temperature=0.0)
    for params, expected in (
        (heavy, 6),
        (plain, 4),
        (dataclasses.replace(plain, presence_penalty=0.5), 4),
        (dataclasses.replace(plain, min_tokens=3), 4),
        (dataclasses.replace(plain, bad_words=((9,),), logit_bias=((1, 0.5),)), 4),
        (dataclasses.replace(plain, allowed_token_ids=(2, 9)), 2),
    ):
        bench.state.assign(0, params, 0, [4], [])
        assert bench.sample(logits, [0]) == [expected]
        bench.state.release(0)
    assert not bench.state.has_adjusted


def test_an_ordinary_sequence_costs_one_upload() -> None:
    bench = Bench(1000)
    bench.state.assign(0, SamplingParams(9, top_p=0.9, eos_token_id=2, stop_token_ids=(5,)), 1, [1] * 500, [])
    assert (bench.device.num_uploads, bench.device.uploaded_bytes) == (1, 384)
    bench.state.assign(0, SamplingParams(9), 1, [1], [8, 9])
    assert bench.device.num_uploads == 3 and int(bench.state.last_token[0]) == 9


def test_what_does_not_fit_is_refused() -> None:
    for shape in (dict(capacity=31), dict(digit_bits=12), dict(digit_bits=5), dict(chunk=48)):
        with pytest.raises(ValueError, match="bins"):
            small(**shape)
    bench = Bench(30, max_slots=2)
    biases = tuple((token, 1.0) for token in range(MAX_BIAS + 1))
    for params in (
        SamplingParams(9, logit_bias=biases),
        SamplingParams(9, stop_token_ids=(1,) * 129),
        SamplingParams(9, bad_words=((1,),) * 1025),
        SamplingParams(9, bad_words=((1,) * 66,)),
    ):
        with pytest.raises(ValueError, match="slot holds"):
            bench.state.assign(0, params, 0, [], [])
    for slot in (-1, 2):
        with pytest.raises(ValueError, match="out of range"):
            bench.state.assign(slot, SamplingParams(9), 0, [], [])
    slots, out = torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    wide = bench.device.zeros((4, 36), "float32")
    for logits in (
        wide[:1, :29],
        wide[:1, 1:31],
        wide.view(-1)[:124].view(4, 31)[:, :30],
        wide.view(-1)[:60].view(30, 2).t(),
    ):
        with pytest.raises(ValueError, match="rows of logits|vocabulary"):
            bench.sampler.sample(logits, slots, bench.state, None, out)
    with pytest.raises(ValueError, match="state"):
        other = CudaSamplingState(bench.device, 1, 31)
        bench.sampler.sample(wide[:1, :30], slots, other, None, out)
    assert not bench.launch.launches


def logprobs_of(bench: Bench, rows: np.ndarray, chosen: list[int], k: int) -> tuple[Any, Any, Any]:
    ids, ranks = (
        torch.full(shape, POISON, dtype=torch.int32) for shape in ((len(rows), k + 1), (len(rows),))
    )
    values = torch.full((len(rows), k + 1), float("nan"))
    bench.sampler.logprobs(bench.tensor(rows), torch.tensor(chosen, dtype=torch.int32), k, ids, values, ranks)
    return ids, values, ranks


@pytest.mark.parametrize(("vocab", "k"), [(5, 5), (101, 0), (101, 1), (301, 20), (301, 60)])
def test_logprobs(vocab: int, k: int) -> None:
    """60 are more than there are threads, and nearly as many as there is room for candidates; 20 with two warps."""
    kernels = small(threads=64 if k == 20 else 32)
    rng = np.random.default_rng(vocab)
    rows = (rng.normal(size=(4, vocab)) * 5).round(1).astype(np.float32)  # rounding makes ties
    rows[1] = 2.5
    rows[2, 1:] = -np.inf
    rows[3] *= 100
    chosen = [int(rng.integers(0, vocab)), vocab - 1, 1, int(rows[3].argmax())]
    ids, values, ranks = logprobs_of(Bench(vocab, kernels=kernels, padding=4), rows, chosen, k)
    for row in range(4):
        expected_ids, expected_values, rank = reference.logprobs(rows[row], chosen[row], k)
        assert ids[row].tolist() == expected_ids
        np.testing.assert_allclose(values[row].numpy(), expected_values, rtol=1e-5, atol=1e-5)
        assert int(ranks[row]) == rank


def test_logprobs_beyond_the_vocabulary() -> None:
    """k above V fills V columns; a padded row (chosen below 0) is left alone."""
    rows = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    ids, values, ranks = logprobs_of(Bench(6), rows, [3, -1], 9)
    assert ids[0, :7].tolist() == reference.logprobs(rows[0], 3, 6)[0]
    assert (ids[0, 7:] == POISON).all() and values[0, 7:].isnan().all()
    assert (ids[1] == POISON).all() and values[1].isnan().all() and int(ranks[1]) == POISON
    with pytest.raises(ValueError, match="logprobs"):
        logprobs_of(Bench(2000), np.zeros((1, 2000), np.float32), [0], 65)


def test_noise_is_accurate_where_it_wins() -> None:
    """Against float64, with log2 and the reciprocal as wrong as the PTX ISA allows the GPU's to be (2^-22, 1 ulp)."""
    extremes = [0, 1, 2, 3, 1 << 8, (1 << 30) - 1, 1 << 30, 3 << 30, 2**32 - 129, 2**32 - 1]
    words = np.array(extremes + np.random.default_rng(0).integers(0, 2**32, 400).tolist(), np.uint64)
    u = (words.astype(np.float64) + 0.5) / 2**32
    expected = -np.log(-np.log1p(-u))
    for error in (-(2.0**-22), 0.0, 2.0**-22):
        rough = SimpleNamespace(**vars(simulator))
        rough.log2 = lambda x, e=error: np.float32(
            np.log2(np.float64(x)) + e * max(1, abs(np.log2(np.float64(x))))
        )
        rough.reciprocal = lambda x, e=error: np.float32(1 / np.float64(x) * (1 + e / 4))
        value = sampling._noise(rough).value
        pairs = [value(np.float32(2500.125), np.float32(3.0), np.uint32(word)) for word in words]
        noise = np.array([float(high) + float(low) - 3.0 * 2500.125 for high, low in pairs])
        np.testing.assert_allclose(noise, expected, rtol=3e-7, atol=3e-6)
    assert expected.max() > 22.8


@pytest.fixture(scope="module")
def compiled() -> SamplingKernels:
    """One set for every architecture: its device functions are typed and lowered once."""
    from vsrv.kernels.cuda import intrinsics

    return make_sampling(intrinsics)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_compiled_kernels_are_lean(compiled: SamplingKernels, arch: str) -> None:
    """1024 threads leave 64 registers; nothing spills, nothing is computed in 64-bit floats, nothing is called."""
    from vsrv.kernels.cuda.compiler import cubin_of, ptx_of

    for source in (compiled.adjust, compiled.sample, compiled.logprobs):
        ptx = ptx_of(source, parse_arch(arch))
        assert f".target {arch}" in ptx and f".entry {source.name}(" in ptx
        assert not re.search(r"\.f64\b|\bcall\b", ptx)
        cubin, report = cubin_of(ptx, parse_arch(arch), source.max_registers)
        assert report.spill_bytes == report.stack_bytes == 0
        assert report.registers * source.threads <= 65536
        assert source.shared_bytes <= 48 * 1024 and len(cubin) < 160 * 1024
