"""`sample` and `logprobs` of Kernels on one GPU: which kernels to launch with what, and the scratch that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vsrv.kernels.cuda.adjusting import make_adjust
from vsrv.kernels.cuda.device import Device, Launch
from vsrv.kernels.cuda.logprobs import make_logprobs
from vsrv.kernels.cuda.sampling import MAX_PARTS, make_sample
from vsrv.kernels.cuda.sampling_state import CudaSamplingState
from vsrv.kernels.cuda.source import KernelSource


@dataclass(frozen=True, slots=True)
class SamplingKernels:
    """One specialisation of the three kernels."""

    adjust: KernelSource
    sample: KernelSource
    logprobs: KernelSource
    chunk: int
    capacity: int


def make_sampling(
    ops: Any,
    threads: int = 1024,
    digit_bits: int = 11,
    capacity: int = 3840,
    adjust_threads: int = 256,
    chunk: int = 4096,
) -> SamplingKernels:
    """The defaults are for large vocabularies, and keep a block's shared memory within the 48 KB that need no permission; tests take
    others, and get the same bits. Raises ValueError."""
    if not (threads <= capacity and 6 <= digit_bits <= 11 and chunk % 32 == 0):
        raise ValueError(
            "a block's candidates must hold one of each thread, its bins make 2 to 64 groups of 32"
        )
    adjust = make_adjust(ops, adjust_threads, chunk)
    sample = make_sample(ops, threads, digit_bits, capacity)
    logprobs = make_logprobs(ops, threads, digit_bits, capacity)
    return SamplingKernels(adjust, sample, logprobs, chunk, capacity)


class Sampler:
    """`sample` and `logprobs` of Kernels on one GPU. Owned by the engine thread.

    Scratch for `max_rows` rows is taken at once and grows with larger batches: sampling is launched, never captured in a graph. One
    stream only: calls share the scratch.
    """

    def __init__(
        self, kernels: SamplingKernels, device: Device, launch: Launch, vocab_size: int, max_rows: int = 0
    ) -> None:
        self._kernels, self._device, self._launch = kernels, device, launch
        self._vocab_size, self._rows = vocab_size, 0
        self._scratch_stride = -(-vocab_size // 4) * 4
        self._grow(max(1, max_rows))

    def sample(self, logits: Any, slots: Any, state: CudaSamplingState, mask: Any, out_ids: Any) -> None:
        """logits f32 [R, V] · slots i32 [R], below 0 skips the row · mask u32 [R, ceil(V/32)] or None → out_ids i32 [R], and the slots."""
        rows, stride = self._checked(logits)
        if state.vocab_size != self._vocab_size:
            raise ValueError(
                f"a sampling state of {state.vocab_size} tokens for logits of {self._vocab_size}"
            )
        if rows == 0:
            return
        self._grow(rows)
        adjusted = 2 if mask is not None else int(state.has_adjusted)
        if adjusted:
            self._adjust(logits, rows, stride, slots, state, mask)
        parts = max(1, min(MAX_PARTS, self._device.num_multiprocessors // rows))
        part_size = -(-self._vocab_size // (4 * parts)) * 4
        arguments = (
            logits,
            stride,
            self._scratch,
            self._scratch_stride,
            adjusted,
            self._vocab_size,
            slots,
            state.max_slots,
            state.slots,
            state.counts,
            state.last_token,
            self._partial,
            self._tickets,
            part_size,
            out_ids,
        )
        self._launch(self._kernels.sample, (rows, -(-self._vocab_size // part_size), 1), arguments)

    def logprobs(
        self, logits: Any, chosen: Any, k: int, out_ids: Any, out_values: Any, out_ranks: Any
    ) -> None:
        """logits f32 [R, V] · chosen i32 [R] → out_ids i32, out_values f32 [R, k+1], out_ranks i32 [R]; columns behind V are left."""
        rows, stride = self._checked(logits)
        best = min(k, self._vocab_size)
        if best > self._kernels.capacity:
            raise ValueError(f"{best} logprobs; at most {self._kernels.capacity}")
        out_stride = out_ids.stride()[0]
        if out_values.stride()[0] != out_stride:
            raise ValueError("ids and values of logprobs have rows of different length")
        if rows == 0:
            return
        arguments = (
            logits,
            stride,
            self._vocab_size,
            chosen,
            best,
            out_ids,
            out_values,
            out_stride,
            out_ranks,
        )
        self._launch(self._kernels.logprobs, (rows, 1, 1), arguments)

    def _checked(self, logits: Any) -> tuple[int, int]:
        """Rows and row stride. Raises ValueError where 16-byte loads would fault."""
        rows, vocabulary = logits.shape
        stride = logits.stride()[0]
        if vocabulary != self._vocab_size:
            raise ValueError(f"logits of {vocabulary} tokens for a vocabulary of {self._vocab_size}")
        if stride % 4 or stride < vocabulary or logits.stride()[1] != 1 or logits.data_ptr() % 16:
            raise ValueError("rows of logits must be contiguous and start at multiples of 16 bytes")
        return rows, stride

    def _adjust(
        self, logits: Any, rows: int, stride: int, slots: Any, state: CudaSamplingState, mask: Any
    ) -> None:
        arguments = (
            logits,
            stride,
            self._vocab_size,
            slots,
            state.max_slots,
            state.slots,
            state.lists,
            state.allowed,
            state.counts,
            state.allowed if mask is None else mask,
            0 if mask is None else mask.stride()[0],
            int(mask is not None),
            self._scratch,
            self._scratch_stride,
        )
        chunks = -(-self._vocab_size // self._kernels.chunk)
        self._launch(self._kernels.adjust, (chunks, rows, 1), arguments)

    def _grow(self, rows: int) -> None:
        if rows > self._rows:
            self._rows = rows
            self._scratch = self._device.zeros((rows, self._scratch_stride), "float32")
            self._partial = self._device.zeros((rows, MAX_PARTS, 4), "int32")
            self._tickets = self._device.zeros((rows,), "int32")
