"""Whether a checkpoint has every tensor that its model needs, seen from the headers of its files: nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vsrv.kernels import PackedLinear
from vsrv.models import bert, loading
from vsrv.models.decoder import Linear
from vsrv.models.encoder import EncoderSpec
from vsrv.models.spec import ModelSpec
from vsrv.models.weights import read_shapes, saved_name

_NOTHING = PackedLinear(None, 0, None, 0, 0, 0, "", 0)
_MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Verified:
    """What the headers say. `problems` is empty if the weights can be loaded."""

    num_tensors: int
    num_bytes: int
    problems: tuple[str, ...]


class HeaderReader:
    """Answers as a `Reader` does, and notes which tensors are missing or have another shape. `base` as `Checkpoint` has it."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], base: str) -> None:
        self._shapes = shapes
        self._base = base
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

    def has(self, name: str) -> bool:
        return self._saved(name) in self._shapes

    def table(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        self._ask(name, shape)
        return torch.empty(0)

    def _saved(self, name: str) -> str:
        return saved_name(name, self._base, self._shapes)

    def _ask(self, name: str, shape: tuple[int, ...]) -> None:
        name = self._saved(name)
        self.asked.add(name)
        found = self._shapes.get(name)
        if found is None:
            self.missing.append(name)
        elif found != shape:
            self.misshapen.append(f"{name} {list(found)} instead of {list(shape)}")


def verify_weights(folder: Path, spec: ModelSpec | EncoderSpec) -> Verified:
    """Compare the checkpoint in `folder` with what `spec` asks for. Raises ConfigError if its files cannot be read."""
    shapes, num_bytes = read_shapes(folder)
    if isinstance(spec, EncoderSpec):
        reader = HeaderReader(shapes, bert.ENCODERS[spec.architecture].base)
        bert.encoder_weights(reader, spec, torch.float32, lambda fraction: None)
        ignored = bert.ignored_of(spec)
    else:
        reader = HeaderReader(shapes, loading.DECODER_BASE)
        loading.decoder_weights(reader, spec, lambda fraction: None)
        ignored = loading.ignored_of(spec)
    extra = loading.unexpected(sorted(set(shapes) - reader.asked), ignored)
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
