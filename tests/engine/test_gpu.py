"""The GPU's part of the engine, as far as it can be shown without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from vsrv.engine import gpu


def test_a_step_has_run_before_it_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded lazily must be there when the capture begins; the replay is the captured graph's."""
    happened: list[str] = []

    @contextmanager
    def capturing(graph: object, pool: object) -> Iterator[None]:
        happened.append(f"begin in {pool}")
        yield
        happened.append("end")

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "the pool")
    monkeypatch.setattr(
        torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: happened.append("replay"))
    )
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    capture = gpu.capturer()
    replay = capture(lambda: happened.append("step"))
    replay()
    assert happened == ["step", "begin in the pool", "step", "end", "replay"]
