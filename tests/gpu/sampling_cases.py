"""Sampling and log probabilities on the device against the numpy specification, small and at 152k tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sampling_table import SAMPLINGS
from target import Case, Context, Target, seeded

from vsrv.kernels import Kernels, KernelShapes, reference
from vsrv.kernels.interface import HeadShape
from vsrv.messages import SamplingParams

POISON = -(2**31) + 12345
NEAR = 1e-4  # of the winner: float32 noise and float64 noise may choose differently between two this close
Floats = NDArray[np.float64]


def gumbel(seed: int, step: int, vocabulary: int) -> Floats:
    """reference.gumbel for all tokens at once: 152k in some milliseconds instead of half a second."""
    quads = np.arange(-(-vocabulary // 4), dtype=np.uint64)
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    k0, k1 = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32 & 0xFFFFFFFF)
    c0, c1 = quads, np.full_like(quads, step)
    c2, c3 = np.zeros_like(quads), np.zeros_like(quads)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & low, (p0 >> shift) ^ c3 ^ k1, p0 & low
        k0, k1 = k0 + np.uint64(0x9E3779B9) & low, k1 + np.uint64(0xBB67AE85) & low
    words = np.stack((c0, c1, c2, c3), 1).reshape(-1)[:vocabulary]
    return np.asarray(-np.log(-np.log1p(-(words.astype(np.float64) + 0.5) / 2**32)))


def filtered(x: Floats, params: SamplingParams) -> Floats:
    """reference.filtered with a sort instead of a comparison of all pairs."""
    x = x / params.temperature
    if params.min_p > 0:
        x = np.where(x < x.max() + np.log(params.min_p), -np.inf, x)
    if 0 < params.top_k < len(x):
        x = np.where(x < np.partition(x, -params.top_k)[-params.top_k], -np.inf, x)
    if params.top_p < 1:
        weights = np.exp(x - x.max())
        weights /= weights.sum()
        order = np.argsort(-x, kind="stable")
        rising = -x[order]
        before = np.concatenate(([0.0], np.cumsum(weights[order])))
        above = before[
            np.searchsorted(rising, rising, "left")
        ]  # of all strictly larger ones: equal logits stand together
        x = x.copy()
        x[order[above >= params.top_p]] = -np.inf
    return x


def choose(
    logits: NDArray[np.float32],
    params: SamplingParams,
    seed: int,
    prompt: list[int],
    output: list[int],
    mask: Any,
) -> tuple[int, float]:
    """The token, and by how much it wins: what reference.sample does, for any vocabulary."""
    x = reference.processed_logits(logits, params, prompt, output, mask)
    if params.temperature > 0:
        x = filtered(x, params) + gumbel(seed, len(output), len(x))
    best = int(x.argmax())
    return best, float(x[best] - np.delete(x, best).max()) if len(x) > 1 else np.inf


def check_references(context: Context) -> str:
    """The fast references above are the specification's: same noise, same tokens."""
    random = seeded()
    seed = int(random.integers(2**63))
    np.testing.assert_array_equal(gumbel(seed, 7, 101), reference.gumbel(seed, 7, 101))
    for options in SAMPLINGS:
        params = SamplingParams(50, **options)
        for _ in range(20):
            logits = (random.normal(size=101) * 3).round(1).astype(np.float32)
            assert choose(logits, params, seed, [5], [7, 7], None)[0] == reference.sample(
                logits, params, seed, [5], [7, 7]
            )
    return f"{20 * len(SAMPLINGS)} rows"


class Bench:
    """A table of kernels with a sampling state, and logits on a padded stride; every output starts poisoned."""

    def __init__(self, target: Target, vocabulary: int, max_slots: int) -> None:
        self.target, self.vocabulary = target, vocabulary
        self.kernels: Kernels = target.kernels()
        self.kernels.prepare(
            KernelShapes("bfloat16", 64, 64, "silu", False, (HeadShape(1, 1, 64, 0.125),), 4, 16)
        )
        self.state = self.kernels.new_sampling_state(max_slots, vocabulary)
        target.blocking = True

    def placed(self, rows: NDArray[np.float32]) -> torch.Tensor:
        stride = -(-self.vocabulary // 4) * 4
        logits = torch.full((len(rows), stride), float("nan"), device=self.target.torch_device)[
            :, : self.vocabulary
        ]
        logits.copy_(torch.from_numpy(rows))
        return logits

    def sample(
        self, rows: NDArray[np.float32], slots: list[int], mask: NDArray[np.bool_] | None
    ) -> list[int]:
        logits, device = self.placed(rows), self.target.torch_device
        bits = None
        if mask is not None:
            words = -(-self.vocabulary // 32) * 32
            packed = np.packbits(
                np.pad(mask, ((0, 0), (0, words - self.vocabulary))), axis=1, bitorder="little"
            )
            bits = torch.from_numpy(packed.view(np.int32).copy()).to(device)
        out = torch.full((len(slots) + 1,), POISON, dtype=torch.int32, device=device)
        self.kernels.sample(
            logits, torch.tensor(slots, dtype=torch.int32, device=device), self.state, bits, out[:-1]
        )
        self.target.finish()
        np.testing.assert_array_equal(logits.cpu().numpy(), rows, "logits are read again for logprobs")
        assert int(out[-1]) == POISON, "wrote behind the last row"
        assert [int(self.state.last_token[slot]) for slot in slots] == out[:-1].tolist(), (
            "slots forget their tokens"
        )
        return [int(token) for token in out[:-1]]


def sampling_case(vocabulary: int, options: dict[str, Any], rows: int, steps: int, masked: bool) -> Case:
    def run(context: Context) -> str:
        random = seeded()
        bench, alone = (Bench(context.target, vocabulary, rows + 3) for _ in range(2))
        params = SamplingParams(50, **options)
        slots = [(row * 5 + 2) % (rows + 3) for row in range(rows)]
        if len(set(slots)) < rows:
            slots = list(range(rows))
        prompts = [random.integers(0, vocabulary, 6).tolist() for _ in range(rows)]
        outputs = [random.integers(0, 14, row % 7).tolist() for row in range(rows)]  # as after a preemption
        for row in range(rows):
            bench.state.assign(slots[row], params, 1000 + row, prompts[row], outputs[row])
        alone.state.assign(1, params, 1000, prompts[0], outputs[0])
        near = 0
        for step in range(steps):
            logits = (random.normal(size=(rows, vocabulary)) * 3).astype(np.float32)
            mask = random.random((rows, vocabulary)) < 0.5 if masked else None
            if mask is not None:
                mask[:, 3] = True
            ids = bench.sample(logits, slots, mask)
            single = alone.sample(logits[:1], [1], None if mask is None else mask[:1])
            assert single[0] == ids[0], f"step {step}: row 0 alone gives {single[0]}, in a batch {ids[0]}"
            for row in range(rows):
                own = None if mask is None else mask[row]
                token, lead = choose(logits[row], params, 1000 + row, prompts[row], outputs[row], own)
                if ids[row] != token:
                    assert lead < NEAR, (
                        f"step {step} row {row}: {ids[row]}, the reference {token} leads by {lead:.2e}"
                    )
                    near += 1
                outputs[row].append(ids[row])
        return f"{rows * steps} rows as the reference" + (
            f", {near} of them nearly equal choices" if near else ""
        )

    return Case(f"sample V{vocabulary} {options} mask {masked}", run)


def logprobs_case(vocabulary: int, k: int, rows: int) -> Case:
    def run(context: Context) -> str:
        bench = Bench(context.target, vocabulary, 4)
        random, device = seeded(), context.target.torch_device
        values = (
            (random.normal(size=(rows, vocabulary)) * 5).round(1).astype(np.float32)
        )  # rounding makes ties
        chosen = random.integers(0, vocabulary, rows).astype(np.int32)
        ids = torch.full((rows + 1, k + 1), POISON, dtype=torch.int32, device=device)
        found = torch.full((rows + 1, k + 1), float("nan"), device=device)
        ranks = torch.full((rows + 1,), POISON, dtype=torch.int32, device=device)
        placed = torch.from_numpy(chosen).to(device)
        bench.kernels.logprobs(bench.placed(values), placed, k, ids[:rows], found[:rows], ranks[:rows])
        context.target.finish()
        worst = 0.0
        for row in range(rows):
            expected_ids, expected, rank = reference.logprobs(values[row], int(chosen[row]), k)
            assert ids[row].tolist() == expected_ids, f"row {row}: {ids[row].tolist()}, not {expected_ids}"
            assert int(ranks[row]) == rank, f"row {row}: rank {int(ranks[row])}, not {rank}"
            away = np.abs(found[row].cpu().numpy() - np.array(expected))
            assert (away <= 1e-5 + 1e-5 * np.abs(expected)).all(), (
                f"row {row}: values differ by {away.max():.1e}"
            )
            worst = max(worst, float(away.max()))
        assert int(ranks[rows]) == POISON and torch.isnan(found[rows]).all(), "wrote behind the last row"
        return f"ids and ranks equal, values within {worst:.1e}"

    return Case(f"logprobs V{vocabulary} k{k} x {rows}", run)


def sampling_cases(tiny: bool) -> list[Case]:
    if tiny:
        few = [SAMPLINGS[index] for index in (0, 6, 9)]
        cases = [sampling_case(101, options, 2, 2, masked) for options in few for masked in (False, True)]
        return [Case("references", check_references), *cases, logprobs_case(101, 3, 2)]
    large = 151936
    cases = [Case("references", check_references)]
    cases += [sampling_case(101, options, 6, 12, masked) for options in SAMPLINGS for masked in (False, True)]
    cases += [
        logprobs_case(vocabulary, k, rows)
        for vocabulary, k, rows in ((5, 5, 7), (101, 0, 7), (1000, 20, 7), (large, 5, 64))
    ]
    cases += [sampling_case(large, options, 8, 2, index % 3 == 2) for index, options in enumerate(SAMPLINGS)]
    cases.append(sampling_case(large, SAMPLINGS[6], 64, 1, False))
    return cases
