"""CPU or GPU: the one place where the engine chooses, and everything that it needs of either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vsrv import kernels as kernel_package
from vsrv.config import EngineConfig
from vsrv.engine import gpu
from vsrv.engine.graphs import Capture
from vsrv.engine.memory import Room, host_room, lower_priority
from vsrv.engine.placement import Host, Placement
from vsrv.kernels import Kernels


@dataclass(frozen=True, slots=True)
class Opened:
    """A device that is ready for a model. `capture` is there where decode steps can be replayed; `lag` is its own default."""

    name: str
    kernels: Kernels
    placement: Placement
    room: Room
    capture: Capture | None
    lag: int
    caution: str = ""  # to be shown at start


def choose(config: EngineConfig) -> str:
    """ "cuda" or "cpu": what was asked for, else a GPU if there is one that the kernels are made for."""
    if config.device != "auto":
        return config.device
    return "cuda" if gpu.is_available() else "cpu"


def are_compiled(name: str) -> bool:
    """Whether opening the device will find its kernels compiled; the GPU's are compiled by `Kernels.prepare`, which tells its progress."""
    return name != "cpu" or kernel_package.is_compiled("cpu")


def open_device(name: str, config: EngineConfig, progress: Callable[[str], None]) -> Opened:
    """Load the kernels and look at the memory. Raises ConfigError that says what is missing."""
    if name == "cuda":
        device = gpu.TorchDevice()
        kernels = gpu.load_kernels(device, progress)
        room = gpu.memory_room(config.gpu_memory_utilization)
        capture = None if config.enforce_eager else gpu.capturer()
        return Opened(name, kernels, gpu.Gpu(), room, capture, 1, gpu.caution(device))
    lower_priority()
    kernels = kernel_package.load(name, config.num_threads)
    torch.set_num_threads(kernels.num_threads)
    return Opened(name, kernels, Host(), host_room(kernels.num_threads), None, 0)
