"""The engine process: one socket to the front, one loop. Reads frames, steps, writes what happened; ends with the socket.

A slow front never blocks a step: what the socket does not take is kept, and outputs of the same sequence are merged meanwhile.
"""

from __future__ import annotations

import errno
import gc
import select
import signal
import socket
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from vsrv import boot, models
from vsrv.config import EngineConfig
from vsrv.engine import devices
from vsrv.engine.blocks import BlockPool
from vsrv.engine.devices import Opened
from vsrv.engine.engine import Engine, Output
from vsrv.engine.grammar import Grammars
from vsrv.engine.load_pooling import load_pooling
from vsrv.engine.memory import Budget, plan_memory
from vsrv.engine.runner import ModelRunner
from vsrv.engine.scheduler import Scheduler, SchedulerLimits
from vsrv.engine.sequence import merge_logprobs
from vsrv.errors import EXIT_CONFIG, ConfigError
from vsrv.frames import FrameReader, encode
from vsrv.messages import (
    Abort,
    Beat,
    Embed,
    Failed,
    Frame,
    Generate,
    Hello,
    Loading,
    Ready,
    SamplingParams,
    Step,
    Stop,
    TokenOutput,
)
from vsrv.models.spec import ModelSpec

BEAT_INTERVAL_S = 0.5
_COMPILE_POLL_S = (
    0.002  # how often to look for a grammar when nothing else is to do; most take less than this
)
_READ_BYTES = 1 << 20
_MAX_OUTBOX_BYTES = (
    64 << 20
)  # a front that is this far behind makes the engine wait instead of filling memory
# in the words of torch on a GPU, torch on a CPU, and the kernel
_NO_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WARMUP_ID = 2**64 - 1  # no front ever sends it


class FrontSocket:
    """Frames in, frames out, never blocking on output. Owned by the engine thread."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._reader = FrameReader()
        self._outbox = bytearray()
        self._waiting: dict[int, Output] = {}  # merged by sequence while the socket is full

    def read(self, wait_s: float) -> list[Frame] | None:
        """Frames that have arrived, after at most `wait_s` of waiting for the first; None when the front is gone."""
        writers = [self._socket] if self._outbox else []
        readable, writable, _ = select.select([self._socket], writers, [], wait_s)
        if writable:
            self.flush()
        if not readable:
            return []
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except ConnectionError:
            return None
        return self._reader.feed(data) if data else None

    def send(self, frame: Frame) -> None:
        self._outbox += encode(frame)
        self.flush()

    def send_outputs(self, outputs: list[Output]) -> None:
        """One Step frame for all sequences, now or merged with later ones when the front reads again."""
        for output in outputs:
            before = self._waiting.get(output.seq_id)
            self._waiting[output.seq_id] = output if before is None else merged(before, output)
        self.flush()

    def flush(self) -> None:
        while True:
            if not self._outbox and self._waiting:
                self._outbox += self._drained()
            if not self._outbox:
                return
            try:
                sent = self._socket.send(self._outbox)
            except BlockingIOError:
                return
            except ConnectionError:
                self._outbox.clear()  # the next read tells that the front is gone
                return
            del self._outbox[:sent]

    @property
    def is_behind(self) -> bool:
        return len(self._outbox) > _MAX_OUTBOX_BYTES

    def _drained(self) -> bytes:
        waiting, self._waiting = list(self._waiting.values()), {}
        tokens = tuple(output for output in waiting if isinstance(output, TokenOutput))
        others = [encode(output) for output in waiting if not isinstance(output, TokenOutput)]
        return (encode(Step(tokens)) if tokens else b"") + b"".join(others)


def merged(first: Output, second: Output) -> Output:
    """Two outputs of one sequence as one; a failure or a vector ends the sequence whatever came before it."""
    if not isinstance(first, TokenOutput) or not isinstance(second, TokenOutput):
        return second if isinstance(first, TokenOutput) else first
    rows = [part for part in (first.logprobs, second.logprobs) if part is not None]
    return TokenOutput(
        first.seq_id,
        first.token_ids + second.token_ids,
        second.finish_reason,
        second.stop_token_id,
        first.num_cached_tokens if first.num_cached_tokens is not None else second.num_cached_tokens,
        merge_logprobs(rows),
        first.prompt_logprobs or second.prompt_logprobs,
    )


def main(fd: int) -> int:
    """Run the engine process on an inherited socket; returns the exit status."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the front decides what it means
    front = FrontSocket(fd)
    config = _receive_hello(front)
    if config is None:
        return 0
    try:
        engine, ready = load(config, front)
    except (ConfigError, OSError, MemoryError, RuntimeError) as error:
        told = refusal(error, config.model)
        if not told:
            raise
        front.send(Failed(0, "config_error", told))
        return EXIT_CONFIG
    front.send(ready)
    gc.collect()
    gc.freeze()  # the model's objects live as long as the process: later collections need not walk them
    return serve_forever(engine, front)


def refusal(error: Exception, model: str) -> str:
    """What the operator is told of what stopped a load and can be mended; empty for a fault of vsrv's own."""
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return f"no room in the cache folder {boot.cache_dir()}: {error.strerror}; make room or set VSRV_CACHE_DIR"
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        reason = str(error).partition("\n")[0] or "none is left"
        return (
            f"memory does not suffice to load {model} ({reason}); `vsrv check` shows what is needed, "
            "and --max-model-len, --max-num-seqs or --kv-cache-memory-bytes make it less"
        )
    return ""


def _receive_hello(front: FrontSocket) -> EngineConfig | None:
    while True:
        frames = front.read(60.0)
        if frames is None:
            return None
        for frame in frames:
            if isinstance(frame, Hello):
                return EngineConfig(**frame.config)


def load(config: EngineConfig, front: FrontSocket) -> tuple[Working, Ready]:
    """Config → an engine that has worked once. Raises ConfigError."""
    front.send(Loading("config"))
    spec = models.read_any(Path(config.model), config.hf_overrides, config.runner, config.pooler_config)
    if isinstance(spec, models.PoolingModelSpec):
        return load_pooling(config, spec, _open(config, front), front.send)
    return load_generating(config, spec, front)


def _open(config: EngineConfig, front: FrontSocket) -> Opened:
    name = devices.choose(config)
    compiling = (
        "" if devices.are_compiled(name) else "(compiling them for this processor: once, about a minute)"
    )
    front.send(Loading("kernels", detail=compiling))
    return devices.open_device(name, config, lambda line: front.send(Loading("kernels", detail=line)))


def load_generating(config: EngineConfig, spec: ModelSpec, front: FrontSocket) -> tuple[Engine, Ready]:
    """Config → an engine that has generated a token. Raises ConfigError."""
    folder = Path(config.model)
    device = _open(config, front)
    ops, name = device.kernels, device.name
    options = models.LoadOptions(config.dtype, config.load_format, config.seed, 0)
    dtype = options.resolved_dtype(spec, ops)
    budget = plan_memory(config, spec, ops, dtype, device.room)
    options = models.LoadOptions(config.dtype, config.load_format, config.seed, budget.max_model_len)
    last = [0.0]

    def progress(fraction: float) -> None:
        if fraction - last[0] >= 0.05 or fraction == 1.0:
            last[0] = fraction
            front.send(Loading("weights", fraction, f"{spec.num_parameters / 1e6:,.0f} million parameters"))

    with ThreadPoolExecutor(1) as beside:  # a large vocabulary takes a second
        building = beside.submit(Grammars, Path(config.tokenizer or config.model), spec.vocab_size)
        model = models.load_model(folder, spec, ops, options, progress)
        grammars = building.result()
    front.send(Loading("cache"))
    ops.prepare(model.kernel_shapes(budget.max_num_seqs, budget.max_num_batched_tokens))
    model.reserve(budget.max_num_batched_tokens, budget.max_num_seqs)
    runner = ModelRunner(model, ops, budget.num_blocks, budget.max_num_seqs, device.placement)
    engine = _assemble(config, budget, runner, ops.block_size, device.lag, grammars)
    front.send(Loading("warmup"))
    warm_up(engine, spec.vocab_size)
    if device.capture is not None:
        runner.use_graphs(device.capture, budget.max_num_seqs, -(-budget.max_model_len // ops.block_size))
    ready = Ready(
        vocab_size=spec.vocab_size,
        max_model_len=budget.max_model_len,
        max_num_seqs=budget.max_num_seqs,
        max_num_batched_tokens=budget.max_num_batched_tokens,
        block_size=ops.block_size,
        num_blocks=budget.num_blocks,
        max_logprobs=config.max_logprobs,
        dtype=dtype,
        device=name,
        architecture=spec.architecture,
        budget=(*budget.lines, *([f"CAUTION: {device.caution}"] if device.caution else [])),
    )
    return engine, ready


def _assemble(
    config: EngineConfig,
    budget: Budget,
    runner: ModelRunner,
    block_size: int,
    default_lag: int,
    grammars: Grammars,
) -> Engine:
    limits = SchedulerLimits(
        budget.max_num_seqs,
        budget.max_num_batched_tokens,
        budget.max_model_len,
        config.long_prefill_token_threshold,
        config.scheduling_policy,
    )
    pool = BlockPool(budget.num_blocks, block_size, config.enable_prefix_caching)
    lag = default_lag if config.async_scheduling is None else int(config.async_scheduling)
    return Engine(runner, Scheduler(limits, pool), block_size, lag, config.seed, grammars)


def warm_up(engine: Engine, vocab_size: int) -> None:
    """Generate two tokens through the whole path, with every part of sampling in use. Raises ConfigError if that fails."""
    params = SamplingParams(
        max_tokens=2,
        temperature=0.7,
        top_k=5,
        top_p=0.9,
        min_p=0.01,
        repetition_penalty=1.1,
        ignore_eos=True,
        seed=0,
        logprobs=1,
    )
    ids = array(
        "I", [i % vocab_size for i in range(min(4, engine.scheduler.limits.max_model_len - 2))] or [0]
    )
    engine.add(Generate(_WARMUP_ID, ids, params))
    outputs = []
    while engine.has_work():
        outputs += engine.step()
    failures = [output for output in outputs if isinstance(output, Failed)]
    if failures or not outputs:
        raise ConfigError(
            f"the model could not generate a token: {failures[0].message if failures else 'no output'}"
        )
    engine.scheduler.pool.reset_cache()
    engine.reset_statistics()


class Working(Protocol):
    """What the loop drives: an engine that generates, or one that makes vectors."""

    num_steps: int
    iteration_tokens: list[int]

    @property
    def kv_usage(self) -> float: ...

    @property
    def only_compiles(self) -> bool: ...

    def add(self, frame: Generate | Embed) -> None: ...

    def abort(self, seq_id: int) -> None: ...

    def has_work(self) -> bool: ...

    def step(self) -> list[Output]: ...

    def queues(self) -> tuple[int, int]: ...

    def counters(self) -> dict[str, float]: ...


def serve_forever(engine: Working, front: FrontSocket) -> int:
    """Frames and steps in turn until the socket ends (0) or Stop arrives (0)."""
    last_beat, last_queues = 0.0, (-1, -1)
    while True:
        busy = engine.has_work() and not front.is_behind
        idle = _COMPILE_POLL_S if engine.only_compiles else BEAT_INTERVAL_S
        frames = front.read(0.0 if busy and not engine.only_compiles else idle)
        if frames is None:
            return 0
        for frame in frames:
            if isinstance(frame, Generate | Embed):
                engine.add(frame)
            elif isinstance(frame, Abort):
                engine.abort(frame.seq_id)
            elif isinstance(frame, Stop):
                return 0
        if busy or engine.has_work():
            front.send_outputs(engine.step())
        queues = engine.queues()
        now = time.monotonic()
        if queues != last_queues or now - last_beat >= BEAT_INTERVAL_S:
            last_beat, last_queues = now, queues
            front.send(_beat(engine, queues))


def _beat(engine: Working, queues: tuple[int, int]) -> Beat:
    iterations = tuple(engine.iteration_tokens)
    return Beat(engine.num_steps, *queues, engine.kv_usage, engine.counters(), iterations)
