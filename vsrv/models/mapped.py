"""Safetensors in a part of a file: tensors that share the memory of a map. `safe_open` knows whole files only.

Format: https://huggingface.co/docs/safetensors — 8 bytes little-endian length, a JSON header of names, then the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import prod
from typing import Any

import torch

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_MOST_HEADER_BYTES = 100_000_000  # the format's own bound


class MappedTensors:
    """The tensors of `view`, the bytes of one safetensors file. Raises ValueError when they are none."""

    def __init__(self, view: memoryview) -> None:
        length = int.from_bytes(view[:8], "little")
        if not 2 <= length <= min(_MOST_HEADER_BYTES, len(view) - 8):
            raise ValueError("no safetensors header")
        table = json.loads(bytes(view[8 : 8 + length]))
        table.pop("__metadata__", None)
        self._table: dict[str, dict[str, Any]] = table
        self._data = view[8 + length :]

    def keys(self) -> Iterable[str]:
        return self._table.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._table[name]["shape"])

    def get_tensor(self, name: str) -> torch.Tensor:
        """The tensor `name`, in the memory of the map."""
        row = self._table[name]
        dtype = _DTYPES.get(row["dtype"])
        if dtype is None:
            raise ValueError(f"tensor {name} has the data type {row['dtype']}")
        shape: list[int] = row["shape"]
        start, end = row["data_offsets"]
        if not 0 <= start <= end <= len(self._data) or end - start != prod(shape) * dtype.itemsize:
            raise ValueError(f"tensor {name} lies outside of the file")
        if start == end:
            return torch.empty(shape, dtype=dtype)
        flat: torch.Tensor = torch.frombuffer(self._data[start:end], dtype=dtype)
        return flat.view(shape)
