"""The sampling kernels in the block simulator against the numpy specification, and through the compiler of the GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import simulator
import torch
from simulated import SimulatedDevice, SimulatedLaunch

from vsrv.kernels import reference
from vsrv.kernels.cuda.sampling import Sampler, SamplingKernels, make_sampling
from vsrv.kernels.cuda.sampling_state import CudaSamplingState
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


# The table of tests/kernels/test_cpu.py, where the CPU's kernels run it
SAMPLINGS: list[dict[str, Any]] = [
    dict(temperature=0.0),
    dict(temperature=0.0, repetition_penalty=1.3, frequency_penalty=0.4, presence_penalty=0.3),
    dict(temperature=1.0),
    dict(temperature=0.6, top_k=7),
    dict(temperature=1.3, top_p=0.7),
    dict(temperature=0.9, min_p=0.1),
    dict(temperature=1.1, top_k=30, top_p=0.9, min_p=0.01, repetition_penalty=1.1),
    dict(temperature=0.01),
    dict(temperature=1.0, allowed_token_ids=(3, 40, 90), logit_bias=((3, 5.0), (7, 90.0))),
    dict(temperature=0.8, logit_bias=((9, -100.0), (11, 4.0)), bad_words=((11,), (5, 12), (1, 2, 3, 4))),
    dict(temperature=1.0, min_tokens=9, stop_token_ids=(1, 2), eos_token_id=0, top_k=3),
    dict(temperature=1.0, presence_penalty=-1.5, frequency_penalty=2.0, top_p=0.95),
]


@pytest.mark.parametrize("options", SAMPLINGS, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_sampling_equals_the_specification(options: dict[str, Any], masked: bool) -> None:
    vocab, rows, slots = 101, 4, [7, 0, 3, 11]
    rng = np.random.default_rng(5)
    bench = Bench(vocab)
    params = SamplingParams(50, **options)
    prompts = [rng.integers(0, vocab, 6).tolist() for _ in range(rows)]
    outputs = [rng.integers(0, 14, 3 * row).tolist() for row in range(rows)]  # as after a preemption
    for row in range(rows):
        bench.state.assign(slots[row], params, 1000 + row, prompts[row], outputs[row])
    for _ in range(4):
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
