"""The engine process on a socketpair: loading, steps, aborts, its end with the socket, and a front that does not read."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy
import pytest
import torch

from vsrv.boot import child_command
from vsrv.config import EngineConfig
from vsrv.engine.worker import merged, refusal
from vsrv.errors import ConfigError
from vsrv.frames import FrameReader, encode
from vsrv.messages import (
    Abort,
    Beat,
    Failed,
    FinishReason,
    Frame,
    Generate,
    Hello,
    Loading,
    LogProbs,
    Ready,
    SamplingParams,
    Step,
    Stop,
    TokenOutput,
)


class Worker:
    def __init__(self, config: EngineConfig) -> None:
        self.socket, theirs = socket.socketpair()
        command = [*child_command("_engine"), "--fd", str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
        theirs.close()
        self.socket.settimeout(60)
        self.reader = FrameReader()
        self.frames: list[Frame] = []
        self.send(Hello(asdict(config)))

    def send(self, frame: Frame) -> None:
        self.socket.sendall(encode(frame))

    def until(self, kind: type, seq_id: int | None = None) -> Frame:
        """Read on to the next frame of a kind (for Step: one that ends `seq_id`)."""
        while True:
            for position, frame in enumerate(self.frames):
                ends = isinstance(frame, Step) and any(
                    o.seq_id == seq_id and o.finish_reason for o in frame.outputs
                )
                if isinstance(frame, kind) and (seq_id is None or ends):
                    self.seen = self.frames[: position + 1]
                    del self.frames[: position + 1]
                    return frame
            data = self.socket.recv(1 << 16)
            assert data, self.process.stderr.read().decode() if self.process.stderr else ""
            self.frames += self.reader.feed(data)


@pytest.fixture
def worker(tiny_folder: Path) -> Iterator[Worker]:
    started = Worker(EngineConfig(str(tiny_folder), max_num_seqs=4, num_threads=1))
    yield started
    started.socket.close()
    assert started.process.wait(10) == 0
    assert started.process.stderr is not None
    started.process.stderr.close()


def test_a_life_of_requests(worker: Worker) -> None:
    ready = worker.until(Ready)
    phases = [frame.phase for frame in worker.seen if isinstance(frame, Loading)]
    assert phases[0] == "config" and phases[-1] == "warmup" and "weights" in phases
    assert isinstance(ready, Ready) and (ready.vocab_size, ready.max_model_len, ready.max_num_seqs) == (
        150,
        512,
        4,
    )
    assert any("KV cache" in line for line in ready.budget)
    worker.send(Generate(1, array("I", [3, 4, 5]), SamplingParams(max_tokens=5, ignore_eos=True)))
    worker.until(Step, 1)
    tokens = [
        t
        for frame in worker.seen
        if isinstance(frame, Step)
        for o in frame.outputs
        if o.seq_id == 1
        for t in o.token_ids
    ]
    assert len(tokens) == 5
    worker.send(Generate(2, array("I", [3, 4, 5]), SamplingParams(max_tokens=400, ignore_eos=True)))
    worker.send(Abort(2))
    step = worker.until(Step, 2)
    assert isinstance(step, Step) and [o.finish_reason for o in step.outputs if o.seq_id == 2] == [
        FinishReason.ABORT
    ]
    worker.send(Generate(3, array("I", [999]), SamplingParams(max_tokens=1)))
    failed = worker.until(Failed)
    assert isinstance(failed, Failed) and failed.code == "invalid_token_id"
    beat = worker.until(Beat)
    assert isinstance(beat, Beat) and beat.step > 0 and beat.counters["generation_tokens"] >= 5
    assert sum(beat.iteration_tokens) == beat.step
    # every token but a sequence's last one goes through a step
    assert beat.counters["computed_tokens"] >= beat.counters["generation_tokens"]


def test_a_front_that_does_not_read_loses_nothing(worker: Worker) -> None:
    worker.until(Ready)
    worker.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    params = SamplingParams(max_tokens=450, ignore_eos=True, temperature=1.0, seed=1, logprobs=20)
    for seq_id in range(1, 5):
        worker.send(Generate(seq_id, array("I", [3, seq_id]), params))
    time.sleep(1.0)  # the engine works on while its socket is full
    counts = {seq_id: [0, 0] for seq_id in range(1, 5)}
    ended = set()
    while len(ended) < 4:
        frame = worker.until(Step)
        assert isinstance(frame, Step)
        for output in frame.outputs:
            counts[output.seq_id][0] += len(output.token_ids)
            counts[output.seq_id][1] += output.logprobs.num_positions if output.logprobs else 0
            if output.finish_reason:
                ended.add(output.seq_id)
    assert counts == {seq_id: [450, 450] for seq_id in range(1, 5)}


def test_stop_and_config_errors(tiny_folder: Path) -> None:
    stopped = Worker(EngineConfig(str(tiny_folder), num_threads=1))
    stopped.until(Ready)
    stopped.send(Stop())
    assert stopped.process.wait(10) == 0
    broken = Worker(EngineConfig(str(tiny_folder), max_model_len=100000))
    failed = broken.until(Failed)
    assert isinstance(failed, Failed) and failed.seq_id == 0 and "--max-model-len" in failed.message
    assert broken.process.wait(10) == 78
    for started in (stopped, broken):
        started.socket.close()
        assert started.process.stderr is not None
        assert b"Traceback" not in started.process.stderr.read()
        started.process.stderr.close()


@pytest.mark.parametrize("allocate", [torch.empty, numpy.empty], ids=["torch", "numpy"])
def test_memory_that_ends_while_loading_is_told_with_what_helps(allocate: Callable[[int], object]) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        allocate(1 << 46)
    told = refusal(caught.value, "some/model")
    assert (
        told.startswith("memory does not suffice to load some/model (") and "--kv-cache-memory-bytes" in told
    )
    assert "\n" not in told


def test_what_stops_a_load_is_told_or_is_a_fault() -> None:
    assert refusal(ConfigError("no such folder"), "m") == "no such folder"
    assert "VSRV_CACHE_DIR" in refusal(OSError(errno.ENOSPC, "No space left on device"), "m")
    assert refusal(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "m")
    assert not refusal(RuntimeError("shapes differ"), "m") and not refusal(OSError(errno.EIO, "x"), "m")


def test_ctrl_c_is_the_fronts_business(worker: Worker) -> None:
    worker.until(Ready)
    os.kill(worker.process.pid, signal.SIGINT)
    worker.send(Generate(1, array("I", [3]), SamplingParams(max_tokens=2, ignore_eos=True)))
    worker.until(Step, 1)


def test_merged_outputs_keep_everything() -> None:
    rows = LogProbs(0, array("I", [4]), array("f", [-1.0]), array("I", [1]))
    more = LogProbs(0, array("I", [5]), array("f", [-2.0]), array("I", [2]))
    first = TokenOutput(1, array("I", [4]), num_cached_tokens=32, logprobs=rows)
    second = TokenOutput(1, array("I", [5]), FinishReason.STOP, 5, logprobs=more)
    both = merged(first, second)
    assert both == TokenOutput(
        1,
        array("I", [4, 5]),
        FinishReason.STOP,
        5,
        32,
        LogProbs(0, array("I", [4, 5]), array("f", [-1.0, -2.0]), array("I", [1, 2])),
    )
    assert merged(first, Failed(1, "x", "y")) == Failed(1, "x", "y")
