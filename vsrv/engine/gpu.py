"""One CUDA GPU as the engine sees it: memory and streams (torch), matrix products (cuBLAS), and how a step's arrays get there and back.

Host and device meet without waiting: inputs go through pinned memory in stream order, results come back through pinned memory with an
event. Owned by the engine thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vsrv import kernels as kernel_package
from vsrv.engine.batch import Batch
from vsrv.engine.graphs import Capture
from vsrv.engine.memory import Room
from vsrv.engine.placement import Fetched, Inputs
from vsrv.errors import ConfigError
from vsrv.kernels import Kernels, PackedLinear
from vsrv.kernels.cuda.source import Arch

VERIFIED: frozenset[str] = frozenset()  # architectures on which tests/gpu.sh has passed
_MIN_CAPABILITY = (8, 0)  # bf16 tensor cores and cp.async
_MAX_NUM_SEQS = 256
_MAX_BATCHED_TOKENS = 8192
_MAX_ENCODER_TOKENS = 16384
_RESERVE_BYTES = 768 << 20  # cuBLAS workspaces, captured graphs and what the allocator rounds up


def is_available() -> bool:
    """Whether this process can use a GPU that the kernels are made for."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= _MIN_CAPABILITY


class TorchDevice:
    """`vsrv.kernels.cuda.device.Device` on the current CUDA device."""

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise ConfigError(
                "--device cuda: torch finds no usable GPU (is the driver installed, and is this a CUDA build of torch? "
                f"torch {torch.__version__}); use --device cpu"
            )
        capability = torch.cuda.get_device_capability()
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        if capability < _MIN_CAPABILITY:
            raise ConfigError(
                f"--device cuda: {properties.name} has compute capability {capability[0]}.{capability[1]}, the kernels need 8.0"
            )
        torch.zeros(1, device="cuda")  # makes the context that cuda.bindings will find
        # sums of split products stay fp32: the default rounds them to 16 bits and costs greedy parity between batch sizes
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        self.name = properties.name
        self.arch = Arch(*capability, specific=capability >= (9, 0))
        self.num_multiprocessors = properties.multi_processor_count

    def zeros(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        return torch.zeros(shape, dtype=getattr(torch, dtype), device="cuda")

    def upload(self, target: torch.Tensor, values: NDArray[Any]) -> None:
        pinned = torch.from_numpy(values.reshape(-1).view(np.uint8)).pin_memory()
        target.view(-1).view(torch.uint8).copy_(pinned, non_blocking=True)

    def stream(self) -> int:
        return int(torch.cuda.current_stream().cuda_stream)


class TorchProducts:
    """Matrix products and row reads by torch, for a device whose kernels bring none. Weights are [N, K] in the model's own type."""

    def __init__(self, device: str) -> None:
        self._device = device

    def pack(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: str) -> PackedLinear:
        """weight [N, K] on the host, bias [N] or None → both on the device."""
        kind: torch.dtype = getattr(torch, dtype)
        placed = weight.to(self._device, kind)
        return self._packed(placed, None if bias is None else bias.to(self._device, kind), dtype)

    def random(self, n: int, k: int, dtype: str, seed: int) -> PackedLinear:
        """Seeded normal weights of deviation 1/sqrt(k)."""
        generator = torch.Generator(self._device).manual_seed(seed)
        weight = torch.empty(n, k, dtype=getattr(torch, dtype), device=self._device)
        return self._packed(weight.normal_(0.0, k**-0.5, generator=generator), None, dtype)

    def _packed(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: str) -> PackedLinear:
        n, k = weight.shape
        address = 0 if bias is None else bias.data_ptr()
        return PackedLinear(weight, weight.data_ptr(), bias, address, k, n, dtype, weight.nbytes)

    def linear(self, x: torch.Tensor, packed: PackedLinear, out: torch.Tensor) -> None:
        """out [T, N] = x [T, K] @ weight.T (+ bias); float32 `out` takes the accumulator unrounded."""
        weight = packed.storage.t()
        if out.dtype is not x.dtype:
            self.wide(x, weight, out)
        elif packed.bias is None:
            torch.mm(x, weight, out=out)
        else:
            torch.addmm(packed.bias, x, weight, out=out)

    def wide(self, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
        torch.mm(x, weight, out_dtype=torch.float32, out=out)

    def embedding(self, ids: torch.Tensor, packed: PackedLinear, out: torch.Tensor) -> None:
        torch.index_select(packed.storage, 0, ids, out=out)


def load_kernels(device: TorchDevice, progress: Callable[[str], None]) -> Kernels:
    """The GPU's kernels with cuBLAS products. Raises ConfigError that says what is missing."""
    return with_products(kernel_package.load_cuda(device, progress), TorchProducts("cuda"))


def with_products(kernels: Kernels, products: TorchProducts) -> Kernels:
    """Kernels completed by torch's matrix products."""
    return replace(
        kernels,
        pack_linear=products.pack,
        random_linear=products.random,
        linear=products.linear,
        embedding=products.embedding,
    )


def memory_room(utilization: float) -> Room:
    """What --gpu-memory-utilization leaves of the GPU, measured: other processes and this one's context count as used."""
    free, total = torch.cuda.mem_get_info()
    usable = int(total * utilization) - (total - free)
    if usable <= 0:
        raise ConfigError(
            f"--gpu-memory-utilization {utilization:g}: {(total - free) / 2**30:.1f} of {total / 2**30:.1f} GiB are in use already; "
            "end what uses the GPU, or raise it"
        )
    name = torch.cuda.get_device_properties(torch.cuda.current_device()).name
    return Room(
        usable, 1.0, _MAX_NUM_SEQS, _MAX_BATCHED_TOKENS, True, _RESERVE_BYTES, name, _MAX_ENCODER_TOKENS
    )


def caution(device: TorchDevice) -> str:
    """What must be said at start about kernels that no GPU of this architecture has shown to be right; empty once one has."""
    name = device.arch.name
    if name in VERIFIED:
        return ""
    return f"the kernels for {name} are compiled and simulated but have not run on such a GPU yet: run tests/gpu.sh, or use --device cpu"


def capturer() -> Capture:
    """Records steps as CUDA graphs. They share one memory pool, since only one of them runs at a time.

    A step runs once on the capturing stream before it is recorded: cuBLAS may pick a kernel for this size that no step has used yet, and
    neither a lazy load nor a new workspace belongs into a capture. `torch.cuda.graph` is not used: where a capture fails it leaves the
    thread on the capturing stream, and it empties the caches of pinned memory each time.
    """
    pool, side = torch.cuda.graph_pool_handle(), torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def capture(step: Callable[[], None]) -> Callable[[], None]:
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(side):
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                step()
            except BaseException:
                with contextlib.suppress(
                    RuntimeError
                ):  # the capture is lost; what broke it is what must be told
                    graph.capture_end()
                raise
            graph.capture_end()
        torch.cuda.current_stream().wait_stream(side)
        return graph.replay

    return capture


class Gpu:
    """`Placement` on the current CUDA device."""

    def kv_blocks(self, count: int, size: int) -> torch.Tensor:
        return torch.zeros((count, size), dtype=torch.uint8, device="cuda")

    def place(self, batch: Batch, last_token: torch.Tensor) -> Inputs:
        """One copy for all arrays of the step."""
        meta = batch.attention
        arrays = [
            batch.input_ids, meta.positions, meta.slot_mapping, meta.cu_seqlens_q, meta.seq_lens, meta.block_tables,
            batch.slots, batch.logits_index.int(), batch.pending.int(), batch.pending_slots.int(),
        ]  # fmt: skip
        packed = torch.cat([array.reshape(-1) for array in arrays]).pin_memory().to("cuda", non_blocking=True)
        placed, at = [], 0
        for array in arrays:
            placed.append(packed[at : at + array.numel()].view(array.shape))
            at += array.numel()
        ids, positions, slot_mapping, offsets, lengths, tables, slots, index, pending, pending_slots = placed
        if len(batch.pending):
            ids.index_copy_(0, pending.long(), last_token.index_select(0, pending_slots))
        attention = replace(
            meta,
            positions=positions,
            slot_mapping=slot_mapping,
            block_tables=tables,
            cu_seqlens_q=offsets,
            seq_lens=lengths,
        )
        return Inputs(ids, attention, index, slots)

    def upload(self, target: torch.Tensor, values: torch.Tensor) -> None:
        target.copy_(values.pin_memory(), non_blocking=True)

    def fetch(self, tensors: list[torch.Tensor]) -> Fetched:
        host = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
        for target, source in zip(host, tensors, strict=True):
            target.copy_(source, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()

        def wait() -> list[torch.Tensor]:
            done.synchronize()
            return host

        return wait

    def check(self) -> None:
        torch.cuda.synchronize()  # a lost context raises here, and again at every later call
