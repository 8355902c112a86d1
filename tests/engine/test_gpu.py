"""The GPU's part of the engine, as far as it can be shown without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from vsrv.engine import gpu


class Scripted:
    """torch.cuda as a capture uses it, writing down what happens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.happened: list[str] = []
        self.current = "main"
        for name in ("Stream", "CUDAGraph", "stream", "current_stream", "graph_pool_handle", "synchronize"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def graph_pool_handle(self) -> str:
        return "the pool"

    def Stream(self) -> Any:
        return self

    def current_stream(self) -> Any:
        return self

    def wait_stream(self, other: object) -> None:
        self.happened.append("wait")

    def synchronize(self) -> None:
        self.happened.append("synchronize")

    @contextmanager
    def stream(self, stream: object) -> Iterator[None]:
        self.current = "side"
        try:
            yield
        finally:
            self.current = "main"

    def CUDAGraph(self) -> Any:
        return self

    def capture_begin(self, pool: str, capture_error_mode: str) -> None:
        self.happened.append(f"begin in {pool} on {self.current}")

    def capture_end(self) -> None:
        self.happened.append("end")

    def replay(self) -> None:
        self.happened.append("replay")


def test_a_step_has_run_before_it_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded lazily must be there when the capture begins; the replay is the captured graph's."""
    cuda = Scripted(monkeypatch)
    gpu.capturer()(lambda: cuda.happened.append(f"step on {cuda.current}"))()
    assert cuda.happened == [
        "wait", "step on side", "synchronize", "begin in the pool on side", "step on side", "end", "wait", "replay",
    ]  # fmt: skip


def test_a_capture_that_fails_ends_and_gives_the_stream_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Scripted(monkeypatch)
    steps: list[int] = []

    def step() -> None:
        steps.append(1)
        if len(steps) == 2:
            raise torch.OutOfMemoryError("no memory in the pool")

    with pytest.raises(torch.OutOfMemoryError):
        gpu.capturer()(step)
    assert cuda.current == "main" and cuda.happened[-1] == "end" and "replay" not in cuda.happened
