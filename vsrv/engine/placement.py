"""Where a step's arrays live: the seam between the runner and a device's memory. `Host` is the CPU; `gpu.py` has the other one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from vsrv.engine.batch import Batch
from vsrv.kernels import AttentionMetadata

_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Inputs:
    """A batch on the device: ids i32 [T] (also those that the step in flight has sampled), logits_index i64 [R], slots i32 [R]."""

    ids: torch.Tensor
    attention: AttentionMetadata
    logits_index: torch.Tensor
    slots: torch.Tensor


Fetched = Callable[[], list[torch.Tensor]]  # waits, then gives host tensors


class Placement(Protocol):
    """Owned by the engine thread; everything happens in the order of the calls."""

    def kv_blocks(self, count: int, size: int) -> torch.Tensor:
        """Zeroed KV blocks u8 [count, size] on a boundary that the kernels can load from."""

    def place(self, batch: Batch, last_token: torch.Tensor) -> Inputs:
        """Copy a batch to the device; ids that are still there are taken from last_token i32 [slots]."""

    def upload(self, target: torch.Tensor, values: torch.Tensor) -> None:
        """Copy host values of the same shape and type to the device in stream order."""

    def fetch(self, tensors: list[torch.Tensor]) -> Fetched:
        """Start copying results to the host; the returned function waits for them."""

    def check(self) -> None:
        """Raises if the device cannot go on after a step that raised."""


class Host:
    """The CPU: everything is there already."""

    def kv_blocks(self, count: int, size: int) -> torch.Tensor:
        # numpy asks for zero pages, which take no memory and no time until they are used; torch.zeros would write them all (6 GB: 2 to 10 s)
        raw = np.zeros(count * size + _PAGE_BYTES, np.uint8)
        start = -raw.ctypes.data % _PAGE_BYTES
        return torch.from_numpy(raw[start : start + count * size].reshape(count, size))

    def place(self, batch: Batch, last_token: torch.Tensor) -> Inputs:
        ids = batch.input_ids
        if len(batch.pending):
            ids[batch.pending] = last_token[batch.pending_slots]
        return Inputs(ids, batch.attention, batch.logits_index, batch.slots)

    def upload(self, target: torch.Tensor, values: torch.Tensor) -> None:
        target.copy_(values)

    def fetch(self, tensors: list[torch.Tensor]) -> Fetched:
        return lambda: tensors

    def check(self) -> None:
        """Memory and processor are as they were."""
