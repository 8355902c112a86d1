"""Whether a checkpoint has every tensor that its model needs, seen from the headers of its files: nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vsrv.kernels import PackedLinear
from vsrv.models.decoder import Linear
from vsrv.models.loading import decoder_weights, unexpected
from vsrv.models.spec import ModelSpec
from vsrv.models.weights import read_shapes

_NOTHING = PackedLinear(None, 0, None, 0, 0, 0, "", 0)
_MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Verified:
    """What the headers say. `problems` is empty if the weights can be loaded."""

    num_tensors: int
    num_bytes: int
    problems: tuple[str, ...]


class HeaderReader:
    """Answers as a `Reader` does, and notes which tensors are missing or have another shape."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._shapes = shapes
        self.missing: list[str] = []
        self.misshapen: list[str] = []
        self.asked: set[str] = set()

    def linear(
        self, names: tuple[str, ...], sizes: tuple[int, ...], k: int, bias: bool, axis: int | None
    ) -> Linear:
        for name, size in zip(names, sizes, strict=True):
            self._ask(f"{name}.weight", (size, k))
            if bias:
                self._ask(f"{name}.bias", (size,))
        return Linear(_NOTHING, axis)

    def norm(self, name: str, size: int) -> torch.Tensor:
        self._ask(f"{name}.weight", (size,))
        return torch.empty(0)

    def _ask(self, name: str, shape: tuple[int, ...]) -> None:
        self.asked.add(name)
        found = self._shapes.get(name)
        if found is None:
            self.missing.append(name)
        elif found != shape:
            self.misshapen.append(f"{name} {list(found)} instead of {list(shape)}")


def verify_decoder(folder: Path, spec: ModelSpec) -> Verified:
    """Compare the checkpoint in `folder` with what `spec` asks for. Raises ConfigError if its files cannot be read."""
    shapes, num_bytes = read_shapes(folder)
    reader = HeaderReader(shapes)
    decoder_weights(reader, spec, lambda fraction: None)
    extra = unexpected(sorted(set(shapes) - reader.asked), spec)
    problems = [
        f"{what}: {_listed(names)}"
        for what, names in (
            ("tensors are missing", reader.missing),
            ("tensors have another shape than config.json says", reader.misshapen),
            (f"tensors that {spec.architecture} does not have", extra),
        )
        if names
    ]
    return Verified(len(shapes), num_bytes, tuple(problems))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(names[:_MAX_SHOWN]) + more
