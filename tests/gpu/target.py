"""Where kernels run: a GPU, or the simulator with tiny shapes. Parts of the script see only this."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from report import Recorder

from vsrv.engine import gpu
from vsrv.engine.graphs import Capture
from vsrv.engine.placement import Host, Placement
from vsrv.kernels import Kernels
from vsrv.kernels.cuda.device import Device, Kernel, Loader
from vsrv.kernels.cuda.operations import SamplingVariant, cuda_kernels
from vsrv.kernels.cuda.source import KernelSpec

_RISING_S = 0.2
SMALL_SAMPLING = SamplingVariant(threads=32, digit_bits=6, capacity=64, adjust_threads=32, chunk=64)


class Traced:
    """A loaded kernel that leaves its name behind; with `blocking` it waits, so that an error belongs to the launch that made it."""

    def __init__(self, kernel: Kernel, name: str, target: Target) -> None:
        self._kernel, self._name, self._target = kernel, name, target

    def __call__(self, grid: tuple[int, int, int], *arguments: Any) -> None:
        self._target.launched.append(self._name)
        self._kernel(grid, *arguments)
        if self._target.blocking:
            self._target.finish()


class TracedLoader:
    def __init__(self, loader: Loader, target: Target) -> None:
        self._loader, self._target = loader, target

    def load(self, spec: KernelSpec) -> Traced:
        return self.load_all([spec])[0]

    def load_all(self, specs: Sequence[KernelSpec]) -> list[Traced]:
        loaded = self._loader.load_all(specs)
        return [
            Traced(kernel, spec.describe().name, self._target)
            for spec, kernel in zip(specs, loaded, strict=True)
        ]


class Target:
    """One device. `tiny`: nothing here takes time to be large; figures mean nothing then."""

    def __init__(self, name: str, device: Device, loader: Loader, tiny: bool) -> None:
        self.torch_device, self.device, self.tiny = name, device, tiny
        self.blocking = False  # wait after each launch
        self.launched: deque[str] = deque(maxlen=6)
        self.loader = TracedLoader(loader, self)

    def kernels(self) -> Kernels:
        """A table of its own buffers; machine code is shared by all of them."""
        if self.tiny:
            kernels = cuda_kernels(self.device, self.loader, SMALL_SAMPLING)
            return replace(gpu.with_products(kernels, _host_products()), device="cpu")
        return gpu.with_products(cuda_kernels(self.device, self.loader), gpu.TorchProducts("cuda"))

    def placement(self) -> Placement:
        return Host() if self.tiny else gpu.Gpu()

    def capture(self) -> Capture:
        return _recorded if self.tiny else gpu.capturer()

    def finish(self) -> None:
        """Wait; an error of a launched kernel comes out here."""
        if not self.tiny and not torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()

    def is_lost(self) -> bool:
        """Whether nothing more can be done in this process: a kernel's fault ends the context."""
        if self.tiny:
            return False
        try:
            return int(torch.ones(2, device="cuda").sum()) != 2
        except RuntimeError:
            return True

    def clean(self) -> None:
        """Between cases: engines and graphs are cycles, and must neither keep their memory nor be ended by chance during a capture."""
        gc.collect()
        if not self.tiny:
            torch.cuda.empty_cache()

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.torch_device).manual_seed(seed)

    def time_ms(self, calls: Sequence[Callable[[], Any]]) -> float:
        """Median milliseconds of one call. The calls (each on its own buffers) run back to back, replayed as a graph on a GPU."""
        if self.tiny:
            return _host_time_ms(calls)
        for call in calls:
            call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        return timed_replays_ms(graph.replay) / len(calls)

    def copy_rate(self) -> float:
        """Bytes a second of a large copy, read and written ones counted."""
        size = 1 << 16 if self.tiny else 2 << 30
        source = torch.empty(size, dtype=torch.uint8, device=self.torch_device).random_(0, 255)
        target = torch.empty_like(source)
        return 2 * size / self.time_ms([lambda: target.copy_(source)]) * 1e3


def timed_replays_ms(replay: Callable[[], Any]) -> float:
    """Median milliseconds of a replay on the GPU, once its clocks have risen: an idle card needs some tenths of a second for that."""
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < _RISING_S:
        replay()
        torch.cuda.synchronize()
        count += 1
    rounds = min(max(15, count), 300)
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for begin, end in marks:
        begin.record()
        replay()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in marks)


def _host_time_ms(calls: Sequence[Callable[[], Any]]) -> float:
    began = time.perf_counter()
    for call in calls:
        call()
    return max((time.perf_counter() - began) * 1e3 / len(calls), 1e-6)


def _recorded(step: Callable[[], None]) -> Callable[[], None]:
    """A graph's promise without a GPU: the step ran once, and runs again on the same buffers when it is replayed."""
    step()
    return step


def _host_products() -> gpu.TorchProducts:
    class HostProducts(gpu.TorchProducts):
        """torch's CPU has no product of 16-bit matrices with an unrounded result."""

        def wide(self, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
            out.copy_(x.float() @ weight.float())

    return HostProducts("cpu")


def open_gpu() -> Target:
    """The current CUDA device. Raises ConfigError that says what is missing."""
    from report import say

    from vsrv.kernels.cuda.launcher import Launcher

    device = gpu.TorchDevice()
    return Target("cuda", device, Launcher(device, lambda line: say(f"  {line}")), tiny=False)


def open_simulator() -> Target:
    from simulated import SimulatedDevice, SimulatedLoader

    return Target("cpu", SimulatedDevice("sm_90a", num_multiprocessors=2), SimulatedLoader(1), tiny=True)


@dataclass(frozen=True)
class Context:
    """What a case is given."""

    target: Target
    out: Recorder
    until: float = math.inf  # of the monotonic clock: when the part's time ends

    def seconds(self, most: float) -> float:
        """How long something that can stop early may take; a little in any case, since a part may run over its time once."""
        return min(most, max(10.0, self.until - time.monotonic()))


@dataclass(frozen=True)
class Case:
    """`run` returns what it has found in a few words, or raises."""

    name: str
    run: Callable[[Context], str]


@dataclass(frozen=True)
class Errors:
    """How far `got` is from `expected`, f64: as a whole, in the worst row, in the worst value (of the largest)."""

    whole: float
    row: float
    value: float

    def __str__(self) -> str:
        return f"error {self.whole:.1e}, worst row {self.row:.1e}, worst value {self.value:.1e}"


def errors(got: torch.Tensor, expected: torch.Tensor) -> Errors:
    """Rows [N, …]. NaN or infinity in `got` never passes."""
    rows = got.shape[0]
    got, expected = got.double().reshape(rows, -1), expected.double().reshape(rows, -1)
    if not torch.isfinite(got).all():
        bad = torch.nonzero(~torch.isfinite(got))
        raise AssertionError(
            f"{len(bad)} values are not finite or were not written, first at {bad[0].tolist()}"
        )
    away = got - expected
    whole = float(away.norm() / expected.norm())
    row = float((away.norm(dim=1) / expected.norm(dim=1)).max())
    return Errors(whole, row, float(away.abs().max() / expected.abs().max()))


def seeded() -> np.random.Generator:
    """numpy's generator, from the seed that torch was given for this case."""
    return np.random.default_rng(int(torch.randint(2**31, (1,))))


# Rounding of the 16-bit type, of weights P that are 16 bits as well, and room for sums in another order; a wrong token or tile is far above.
LIMITS = {"bfloat16": Errors(8e-3, 1.6e-2, 3e-2), "float16": Errors(1.2e-3, 3e-3, 6e-3)}


def held(found: Errors, dtype: str) -> str:
    """The errors in words. Raises AssertionError above the limits of the type."""
    limit = LIMITS[dtype]
    if not (found.whole <= limit.whole and found.row <= limit.row and found.value <= limit.value):
        raise AssertionError(f"{found}; limits {limit.whole:.1e}, {limit.row:.1e}, {limit.value:.1e}")
    return str(found)


def same_bits(what: str, first: torch.Tensor, second: torch.Tensor) -> None:
    a, b = first.contiguous().view(torch.uint8), second.contiguous().view(torch.uint8)
    if not torch.equal(a, b):
        raise AssertionError(f"{what}: {int((a != b).sum())} of {a.numel()} bytes differ")
