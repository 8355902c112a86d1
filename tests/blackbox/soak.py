"""A long soak: mixed requests for a given time against a server that this program starts, and what it has gained in memory and descriptors.

    .venv/bin/python tests/blackbox/soak.py --minutes 120

On the loopback interface only. Every interval a line with requests by outcome, resident memory and descriptors of front, engine and prepare
child. The first quarter of the time, at most ten minutes, is warm-up. Exit status 1: an answer that was not the expected one, more than
1 MB per 1000 requests in any process, or descriptors that are not given back. Ends what it started, by process id.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path[:0] = [str(Path(__file__).resolve().parent)]
from started import Server, start  # noqa: E402

_KB_PER_1000 = 1024
_AT_ONCE = 8


async def exchange(port: int, head: str, body: bytes = b"", leave_after: int | None = None) -> bytes:
    """One request on its own connection; with `leave_after`, the client resets when so many bytes have come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"{head}\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    got = b""
    try:
        while part := await asyncio.wait_for(reader.read(65536), 120):
            got += part
            if leave_after is not None and len(got) >= leave_after:
                writer.transport.abort()
                break
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return got


def post(path: str, **fields: object) -> tuple[str, bytes]:
    return f"POST {path} HTTP/1.1\r\nContent-Type: application/json", json.dumps(fields).encode()


def words(dice: random.Random, count: int) -> str:
    return " ".join(
        dice.choice(("which", "option", "limits", "TLS", "key", "🙂", "東京", "queue")) for _ in range(count)
    )


@dataclass
class Kinds:
    """Each kind sends one request and tells whether the answer was the expected one."""

    port: int
    dice: random.Random = field(default_factory=lambda: random.Random(1))

    async def probe(self) -> bool:
        return b" 200 " in (await exchange(self.port, "GET /readyz HTTP/1.1"))[:20]

    async def scrape(self) -> bool:
        return b"vllm:num_requests_running" in await exchange(self.port, "GET /metrics HTTP/1.1")

    async def chat(self) -> bool:
        messages = [{"role": "user", "content": words(self.dice, self.dice.randint(1, 60))}]
        request = post("/v1/chat/completions", messages=messages, max_tokens=16, n=self.dice.randint(1, 2))
        return b'"usage"' in await exchange(self.port, *request)

    async def stream(self) -> bool:
        request = post("/v1/completions", prompt=words(self.dice, 20), max_tokens=24, stream=True, logprobs=2)
        return b"data: [DONE]" in await exchange(self.port, *request)

    async def leave(self) -> bool:
        request = post(
            "/v1/completions", prompt=words(self.dice, 9), max_tokens=900, stream=True, ignore_eos=True
        )
        return bool(await exchange(self.port, *request, leave_after=self.dice.randint(1, 4000)))

    async def large(self) -> bool:  # always as large, so that warm-up sees the most memory that one takes
        request = post("/v1/completions", prompt="x y " * 200_000)
        return b"context_length_exceeded" in await exchange(self.port, *request)

    async def wrong(self) -> bool:
        request = post(
            "/v1/completions",
            prompt=[[-1], [10**9]][self.dice.randint(0, 1)],
            temperature=self.dice.choice((0, 9)),
        )
        return b" 400 " in (await exchange(self.port, *request))[:20]

    async def malformed(self) -> bool:
        return b" 400 " in (await exchange(self.port, "GET /a b HTTP/1.1"))[:20]

    async def unknown(self) -> bool:
        return b" 404 " in (await exchange(self.port, f"GET /{self.dice.random()} HTTP/1.1"))[:20]

    def all(self) -> dict[str, tuple[int, Callable[[], Awaitable[bool]]]]:
        """Name → (share, what it does)."""
        return {
            "probe": (20, self.probe),
            "scrape": (5, self.scrape),
            "chat": (20, self.chat),
            "stream": (20, self.stream),
            "leave": (15, self.leave),
            "large": (1, self.large),
            "wrong": (10, self.wrong),
            "malformed": (5, self.malformed),
            "unknown": (4, self.unknown),
        }


def figures(server: Server) -> dict[str, tuple[int, int]]:
    """Process → (resident kB, descriptors)."""
    assert server.process is not None
    root = psutil.Process(server.process.pid)
    found = {"front": root}
    for child in root.children():
        found["engine" if "_engine" in child.cmdline() else "prepare"] = child
    return {name: (p.memory_info().rss // 1024, p.num_fds()) for name, p in found.items()}


@dataclass
class Soak:
    """One run. `outcomes` counts (kind, as expected)."""

    server: Server
    seconds: float
    interval_s: float
    outcomes: Counter[tuple[str, bool]] = field(default_factory=Counter)

    async def run(self) -> int:
        began = time.monotonic()
        warm_s = min(600.0, self.seconds / 4)
        clients = [asyncio.create_task(self._client(began + self.seconds)) for _ in range(_AT_ONCE)]
        base: dict[str, tuple[int, int]] = {}
        at_base = 0
        while any(not client.done() for client in clients):
            await asyncio.wait(clients, timeout=self.interval_s)
            now, elapsed = figures(self.server), time.monotonic() - began
            if not base and elapsed >= warm_s:
                base, at_base = now, self.outcomes.total()
            self._report(elapsed, now)
        await asyncio.gather(*clients)
        await asyncio.sleep(3)  # for the last aborts and closing connections
        return self._verdict(base, figures(self.server), self.outcomes.total() - at_base)

    async def _client(self, end: float) -> None:
        kinds, dice = Kinds(self.server.port).all(), random.Random(id(self))
        names, weights = list(kinds), [share for share, _ in kinds.values()]
        while time.monotonic() < end:
            name = dice.choices(names, weights)[0]
            try:
                good = await kinds[name][1]()
            except (OSError, TimeoutError):
                good = False
            self.outcomes[name, good] += 1

    def _report(self, elapsed: float, now: dict[str, tuple[int, int]]) -> None:
        bad = sum(count for (_, good), count in self.outcomes.items() if not good)
        state = ", ".join(f"{name} {kb / 1024:.0f} MB {fds} fds" for name, (kb, fds) in now.items())
        print(
            f"{elapsed:7.0f} s  {self.outcomes.total():8d} requests, {bad} not as expected; {state}",
            flush=True,
        )

    def _verdict(self, base: dict[str, tuple[int, int]], last: dict[str, tuple[int, int]], count: int) -> int:
        faults = [
            f"{n} answers of kind {name} not as expected"
            for (name, good), n in self.outcomes.items()
            if not good
        ]
        if not base or count == 0 or set(base) != set(last):
            faults.append("too short, or a process is missing")
        for name in base.keys() & last.keys():
            grown = (last[name][0] - base[name][0]) * 1000 / max(1, count)
            more = last[name][1] - base[name][1]
            print(f"{name}: {grown:+.0f} kB per 1000 of {count} requests, {more:+d} descriptors", flush=True)
            if grown > _KB_PER_1000:
                faults.append(f"{name} grows by {grown:.0f} kB per 1000 requests")
            if more > 2:
                faults.append(f"{name} has {more} more descriptors")
        if "Traceback" in self.server.log():
            faults.append(f"a traceback in {self.server.log_path}")
        print("good" if not faults else "\n".join(faults), flush=True)
        return 1 if faults else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--interval", type=float, default=30.0, help="seconds between two lines")
    options = parser.parse_args()
    server = start(
        "--disable-uvicorn-access-log", "--kv-cache-memory-bytes", "64M"
    )  # soon touched as a whole
    try:
        server.wait_ready()
        status = asyncio.run(Soak(server, options.minutes * 60, options.interval).run())
        return server.stop() or status
    finally:
        assert server.process is not None
        if server.process.poll() is None:
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()


if __name__ == "__main__":
    sys.exit(main())
