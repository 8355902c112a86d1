"""Where the host's time of a step goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vsrv.engine import batch
from vsrv.engine.engine import Engine

Seconds = dict[str, float]


@contextmanager
def host_clock(engine: Engine) -> Iterator[Seconds]:
    """Sums of seconds by activity while the block runs. `wait` is the reading of results, which waits for the device."""
    sums: Seconds = {}
    places = [
        ("schedule", engine.scheduler, "schedule"),
        ("build", batch, "build"),
        ("launch", engine._runner, "forward"),
        ("sample", engine._runner, "sample"),
        ("wait + process", engine, "_process"),
    ]
    before = [(owner, name, owner.__dict__.get(name)) for _, owner, name in places]
    for label, owner, name in places:
        sums[label] = 0.0
        setattr(owner, name, _timed(getattr(owner, name), sums, label))
    try:
        yield sums
    finally:
        for owner, name, original in before:
            if original is None:
                delattr(owner, name)  # the class has it
            else:
                setattr(owner, name, original)


def _timed(function: Callable[..., Any], sums: Seconds, label: str) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            sums[label] += time.perf_counter() - began

    return timed


def in_words(sums: Seconds, steps: int) -> str:
    return ", ".join(f"{label} {seconds / steps * 1e6:.0f} us" for label, seconds in sums.items())
