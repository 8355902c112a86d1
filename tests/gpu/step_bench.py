"""Whole decode steps of the Qwen3-8B shape through the engine, over the time that their bytes need at the copy rate."""

from __future__ import annotations

import gc
import tempfile
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clock import host_clock, in_words
from networks import QWEN3_8B, TINY, make_engine, write_config
from target import Case, Context, Target, timed_replays_ms

from vsrv.engine.engine import Engine
from vsrv.messages import Failed, Generate, SamplingParams

_WARM_STEPS = 6  # a size is captured at its third use


@dataclass
class Bench:
    """One engine for all cases: 16 GB of weights are made once."""

    engine: Engine | None = None
    copy_rate: float = 0.0
    next_id: int = 1
    folder: Any = field(default_factory=tempfile.TemporaryDirectory)

    def opened(self, target: Target) -> Engine:
        if self.engine is None:
            self.copy_rate = target.copy_rate()
            sizes: dict[str, Any] = dict(blocks=64 * 72, seqs=64, budget=8192, max_len=1152)
            if target.tiny:
                sizes = dict(blocks=16, seqs=2, budget=64, max_len=64)
            folder = write_config(Path(self.folder.name), TINY if target.tiny else QWEN3_8B)
            self.engine = make_engine(target, folder, lag=1, graphs=True, dummy=True, **sizes)
        return self.engine

    def start(self, target: Target, batch: int, length: int) -> list[int]:
        """`batch` sequences whose prompts are computed and that decode from now on, in every step."""
        engine = self.opened(target)
        vocabulary = engine._runner.model.spec.vocab_size
        ids = list(range(self.next_id, self.next_id + batch))
        self.next_id += batch
        for seq_id in ids:
            prompt = array("I", [(seq_id * 7919 + place * 104729) % vocabulary for place in range(length)])
            engine.add(Generate(seq_id, prompt, SamplingParams(10**6, temperature=0.6, ignore_eos=True)))
        begun: set[int] = set()
        while len(begun) < batch:
            begun |= {output.seq_id for output in checked(engine)}
        return ids

    def end(self, ids: list[int]) -> None:
        assert self.engine is not None
        for seq_id in ids:
            self.engine.abort(seq_id)
        while self.engine.has_work():
            self.engine.step()


def checked(engine: Engine) -> list[Any]:
    outputs = engine.step()
    failed = [output for output in outputs if isinstance(output, Failed)]
    assert not failed, f"the engine failed: {failed[0].message} (trace above)"
    return outputs


def bytes_of_step(engine: Engine) -> int:
    """Weights that a decode step reads once, and K and V of all running sequences."""
    model = engine._runner.model
    weights = model.weight_bytes
    if not model.spec.tied:
        weights -= model._weights.embedding.packed.nbytes  # a few rows of it
    spec = model.spec
    kv = 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * 2
    return int(weights + kv * sum(sequence.num_computed_tokens for sequence in engine.scheduler.running))


def step_case(bench: Bench, batch: int, graphs: bool) -> Case:
    def run(context: Context) -> str:
        target = context.target
        count, length, steps = (min(batch, 2), 20, 3) if target.tiny else (batch, 1000, 30)
        engine = bench.opened(target)
        runner = engine._runner
        kept = runner.graphs
        runner.graphs = kept if graphs else None
        ids = bench.start(target, count, length)
        try:
            for _ in range(_WARM_STEPS):
                checked(engine)
            milliseconds, words = _timed_steps(target, engine, steps)
            floor = bytes_of_step(engine) / bench.copy_rate * 1e3
            name = f"decode step, Qwen3-8B shape, batch {batch}, {'graphs' if graphs else 'eager'}, over its bytes"
            bars = (1.3, 1.15) if graphs else (None, None)
            context.out.figure(name, milliseconds / floor, "x", *bars, lower=True)
            context.out.figure(
                f"decode step, batch {batch}, {'graphs' if graphs else 'eager'}", milliseconds, "ms"
            )
            if graphs:
                device = _replay_ms(target, runner.graphs, count)
                context.out.figure(
                    f"decode step, batch {batch}, the graph alone over its bytes", device / floor, "x"
                )
            context.out.note(f"host, batch {batch}, {'graphs' if graphs else 'eager'}: {words}")
            return f"{milliseconds:.3f} ms, its bytes take {floor:.3f} ms"
        finally:
            bench.end(ids)
            runner.graphs = kept

    return Case(f"step batch {batch} {'graphs' if graphs else 'eager'}", run)


def _timed_steps(target: Target, engine: Engine, steps: int) -> tuple[float, str]:
    """Milliseconds of one step of a full pipeline, garbage collection kept out; where the host's time went."""
    gc.collect()
    gc.disable()
    try:
        with host_clock(engine) as sums:
            target.finish()
            began = time.perf_counter()
            for _ in range(steps):
                checked(engine)
            target.finish()
            seconds = time.perf_counter() - began
    finally:
        gc.enable()
    return seconds * 1e3 / steps, in_words(sums, steps)


def _replay_ms(target: Target, graphs: Any, count: int) -> float:
    """A captured step once more, on its last inputs: what it writes it has written before."""
    size = min(size for size in graphs._graphs if size >= count)
    replay = graphs._graphs[size].replay
    if target.tiny:
        return target.time_ms([replay])
    return timed_replays_ms(replay)


def step_cases(tiny: bool) -> list[Case]:
    bench = Bench()
    return [
        step_case(bench, batch, graphs) for batch, graphs in ((1, True), (64, True), (1, False), (64, False))
    ]
