"""From the start of the engine's process to its first token: the real worker on a socket, a checkpoint of the Qwen3-0.6B shape, warm caches."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from array import array
from dataclasses import asdict
from pathlib import Path
from typing import Any

from networks import QWEN3_06B, TINY, write_config, write_weights
from target import Case, Context

from vsrv import boot
from vsrv.config import EngineConfig
from vsrv.frames import FrameReader, encode
from vsrv.messages import Failed, Generate, Hello, Loading, Ready, SamplingParams, Step

_PATIENCE = 120.0


class Worker:
    """The engine's process as the front starts it."""

    def __init__(self, config: EngineConfig) -> None:
        self.began = time.monotonic()
        ours, theirs = socket.socketpair()
        command = [*boot.child_command("_engine"), "--fd", str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        ours.settimeout(_PATIENCE)
        self._socket, self._reader, self._frames = ours, FrameReader(), list[Any]()
        self.send(Hello(asdict(config)))

    def send(self, frame: Any) -> None:
        self._socket.sendall(encode(frame))

    def next(self) -> tuple[float, Any]:
        """Seconds since the start, and the next frame."""
        while not self._frames:
            data = self._socket.recv(1 << 20)
            assert data, f"the engine ended with status {self.process.wait()}"
            self._frames += self._reader.feed(data)
        frame = self._frames.pop(0)
        assert not isinstance(frame, Failed), f"the engine says: {frame.message}"
        return time.monotonic() - self.began, frame

    def close(self) -> None:
        self._socket.close()  # the end of the socket is its end
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _first_token(config: EngineConfig) -> tuple[float, dict[str, float]]:
    """Seconds to the first token, and when each phase began."""
    worker = Worker(config)
    phases: dict[str, float] = {}
    try:
        while True:
            seconds, frame = worker.next()
            if isinstance(frame, Loading):
                phases.setdefault(frame.phase, seconds)
            elif isinstance(frame, Ready):
                phases["ready"] = seconds
                worker.send(
                    Generate(1, array("I", [1, 2, 3, 4]), SamplingParams(1, temperature=0.0, ignore_eos=True))
                )
            elif isinstance(frame, Step) and any(len(output.token_ids) for output in frame.outputs):
                return seconds, phases
    finally:
        worker.close()


def start(context: Context) -> str:
    tiny = context.target.tiny
    with tempfile.TemporaryDirectory() as name:
        folder = write_config(Path(name), TINY if tiny else QWEN3_06B)
        write_weights(folder)
        config = EngineConfig(
            str(folder), device="cpu" if tiny else "cuda", max_model_len=64 if tiny else 4096
        )
        first, _ = _first_token(config)  # makes the caches warm
        seconds, phases = _first_token(config)
    context.out.figure("process start to first token, Qwen3-0.6B shape", seconds, "s", 12, 8, lower=True)
    context.out.note("start: " + ", ".join(f"{phase} at {at:.2f} s" for phase, at in phases.items()))
    return f"{seconds:.2f} s, the run before {first:.2f} s"


def start_cases(tiny: bool) -> list[Case]:
    return [Case("start to first token", start)]
