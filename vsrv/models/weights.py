"""Safetensors files → tensors by name. Never pickle: other formats are refused by name (rule R19)."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from vsrv import boot
from vsrv.errors import ConfigError, UnsupportedModelError
from vsrv.models.mapped import MappedTensors

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf")


def saved_name(name: str, base: str, known: Container[str]) -> str:
    """How a tensor is called in a checkpoint that has the names `known`: `base` in front of a name may be lacking."""
    short = name.removeprefix(base)
    return short if name not in known and short in known else name


class Checkpoint:
    """The tensors of a model folder, read one at a time; pages of a file are only mapped while a tensor is copied out.

    Names that begin with `base` may lack it: that is how a network is saved that has no head.
    """

    def __init__(self, folder: Path, base: str = "") -> None:
        self.folder = folder
        self._base = base
        self._file_of = _tensor_files(folder)
        self._open: dict[str, Any] = {}
        self._unread = set(self._file_of)

    def __contains__(self, name: str) -> bool:
        return self._saved(name) in self._file_of

    def _saved(self, name: str) -> str:
        return saved_name(name, self._base, self._file_of)

    def tensor(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """The tensor `name`, checked against `shape`. Raises ConfigError naming it."""
        name_here = self._saved(name)
        file = self._file_of.get(name_here)
        if file is None:
            raise ConfigError(f"{self.folder}: tensor {name} {list(shape)} is missing from the checkpoint")
        if file not in self._open:
            self._open.clear()  # one mapped file at a time bounds the resident memory
            self._open[file] = _open(self.folder / file)
        tensor: torch.Tensor = self._open[file].get_tensor(name_here)
        if tuple(tensor.shape) != shape:
            raise ConfigError(
                f"{self.folder}: tensor {name} has shape {list(tensor.shape)}, config.json says {list(shape)}"
            )
        self._unread.discard(name_here)
        return tensor

    def unread(self) -> Iterator[str]:
        """Names that nothing asked for."""
        return iter(sorted(self._unread))

    def close(self) -> None:
        self._open.clear()


def read_shapes(folder: Path) -> tuple[dict[str, tuple[int, ...]], int]:
    """(shape of every tensor, bytes of all files), from the headers of the files alone. Raises ConfigError; so does a file that is
    shorter or longer than its header says."""
    file_of = _tensor_files(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(set(file_of.values())):
        opened = _open(folder / file)
        for name in opened.keys():  # noqa: SIM118 - it is no mapping
            if file_of.get(name) == file:
                shapes[name] = _shape(opened, name)
    return shapes, sum(_num_bytes(folder / file) for file in set(file_of.values()))


def _open(path: Path) -> Any:
    try:
        view = boot.embedded(path)
        if view is not None:
            return MappedTensors(view)
        return safe_open(str(path), "pt")
    except FileNotFoundError:
        raise ConfigError(f"{path} is named by the index but missing: the download is incomplete") from None
    except (SafetensorError, ValueError, OSError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}; the file is damaged or its download incomplete: get it again"
        ) from error


def _shape(opened: Any, name: str) -> tuple[int, ...]:
    return (
        opened.shape(name) if isinstance(opened, MappedTensors) else tuple(opened.get_slice(name).get_shape())
    )


def _num_bytes(path: Path) -> int:
    view = boot.embedded(path)
    return path.stat().st_size if view is None else len(view)


def _tensor_files(folder: Path) -> dict[str, str]:
    """Tensor name → file name, from the index or from the single file."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            table = {
                str(name): str(file) for name, file in json.loads(index.read_text())["weight_map"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"cannot read {index}: {error}") from error
        for file in set(table.values()):
            if "/" in file or "\\" in file:
                raise ConfigError(f"{index} names the file {file!r} outside of the model folder")
        return table
    whole = folder / "model.safetensors"
    if whole.is_file() or boot.embedded(whole) is not None:
        names = _open(whole).keys()
        return {name: "model.safetensors" for name in names}
    other = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
    if other:
        raise UnsupportedModelError(
            f"{folder} holds {other[0]} but no model.safetensors; vsrv reads safetensors only: convert the weights first"
        )
    raise ConfigError(f"{folder} has neither model.safetensors nor model.safetensors.index.json")
