"""What a server goes through in its life: killed, stopped, drained, starved and besieged. Each test prints its figure (`-s` shows it).

Everything is on the loopback interface, bounded in time, and ended by process id. The long ones: `pytest -m slow tests/blackbox/test_chaos.py -s`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from started import Server, start
from test_serve_lifecycle import alive, engine_of, parent

from vsrv.certificates import CertificateWish, make
from vsrv.keyfile import KeyFile, KeyRecord, hashed, id_in, new_secret, write_key_file


@dataclass
class Answer:
    """One request over its own connection."""

    status: int = 0
    head: str = ""
    events: list[str] = field(default_factory=list)
    body: str = ""
    ended_s: float = 0.0

    @property
    def is_whole(self) -> bool:
        return self.status == 200 and self.events[-1:] == ["[DONE]"] and "error" not in self.events[-2]

    @property
    def error_code(self) -> str:
        """Of a well-formed error event that is followed by [DONE]."""
        if self.events[-1:] != ["[DONE]"]:
            return "broken stream"
        return str(json.loads(self.events[-2]).get("error", {}).get("code", ""))


async def ask(
    port: int,
    body: dict[str, object] | None,
    path: str = "/v1/completions",
    first: asyncio.Event | None = None,
) -> Answer:
    """POST `body` (or GET); sets `first` when the first event is there."""
    data = b"" if body is None else json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    method = b"GET" if body is None else b"POST"
    writer.write(
        b"%b %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (method, path.encode(), len(data), data)
    )
    raw = bytearray()
    try:
        while part := await reader.read(65536):
            raw += part
            if first is not None and b"data: " in raw:
                first.set()
    except ConnectionError:
        pass  # what came until then is the answer; a broken stream is seen by its missing end
    finally:
        writer.close()
    head, _, rest = bytes(raw).partition(b"\r\n\r\n")
    answer = Answer(
        int(head.split(b" ")[1]) if head else 0, head.decode().lower(), body=rest.decode(errors="replace")
    )
    answer.events = [line[6:].strip() for line in answer.body.split("\n") if line.startswith("data: ")]
    answer.ended_s = time.monotonic()
    return answer


def streaming(tokens: int) -> dict[str, object]:
    return {"prompt": "hello", "max_tokens": tokens, "ignore_eos": True, "stream": True}


async def running(port: int, count: int, tokens: int) -> list[asyncio.Task[Answer]]:
    """`count` streams, each with its first token out."""
    firsts = [asyncio.Event() for _ in range(count)]
    tasks = [asyncio.create_task(ask(port, streaming(tokens), first=first)) for first in firsts]
    await asyncio.wait_for(asyncio.gather(*(first.wait() for first in firsts)), 60)
    return tasks


async def until(condition: Callable[[], object], limit_s: float) -> float:
    """Seconds until `condition` holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, "it did not happen in time"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


def children(server: Server) -> list[int]:
    assert server.process is not None
    return [int(p) for p in os.listdir("/proc") if p.isdigit() and parent(int(p)) == server.process.pid]


@pytest.fixture
def chaotic(request: pytest.FixtureRequest) -> object:
    """Starts servers, waits until they are ready, and sees to it that none is left."""
    started: list[Server] = []

    def begin(*arguments: str, **more: object) -> Server:
        server = start(*arguments, **more)  # type: ignore[arg-type]
        started.append(server)
        server.wait_ready()
        return server

    yield begin
    for server in started:
        assert server.process is not None
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


Begin = Callable[..., Server]


@pytest.mark.slow
def test_kill_9_of_the_engine_under_streams(chaotic: Begin) -> None:
    server = chaotic()

    async def main() -> None:
        tasks = await running(server.port, 16, 900)
        killed = time.monotonic()
        os.kill(engine_of(server), signal.SIGKILL)
        answers = await asyncio.wait_for(asyncio.gather(*tasks), 10)
        assert [answer.error_code for answer in answers] == ["engine_dead"] * 16
        told = max(answer.ended_s for answer in answers) - killed
        refused = await ask(server.port, streaming(4))
        assert refused.status == 503 and "retry-after" in refused.head
        back = await until(lambda: server.get("/readyz")[0] == 200, 60)
        assert (await ask(server.port, streaming(4))).is_whole
        print(
            f"kill -9 of the engine: 16 of 16 streams told within {told * 1000:.0f} ms, ready again after {back:.1f} s"
        )

    asyncio.run(main())
    assert server.stop() == 0


def test_kill_9_of_the_front_under_streams(chaotic: Begin) -> None:
    server = chaotic()
    assert server.process is not None
    pids = children(server)
    os.kill(engine_of(server), signal.SIGSTOP)  # the worst case: a child that can neither read nor leave

    async def main() -> None:
        began = time.monotonic()
        os.kill(server.process.pid, signal.SIGKILL)  # type: ignore[union-attr]
        server.process.wait()  # type: ignore[union-attr]
        gone = await until(lambda: not any(alive(pid) for pid in pids), 2.0)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", server.port))
            sock.listen()
        bound = time.monotonic() - began
        print(
            f"kill -9 of the front: {len(pids)} children gone after {gone * 1000:.0f} ms, port free after {bound * 1000:.0f} ms"
        )

    asyncio.run(main())


@pytest.mark.slow
def test_an_engine_that_hangs_is_seen_and_replaced(chaotic: Begin) -> None:
    server = chaotic("--engine-stall-timeout", "2")

    async def main() -> None:
        tasks = await running(server.port, 8, 900)
        os.kill(engine_of(server), signal.SIGSTOP)
        seen = await until(lambda: server.get("/health")[0] == 503, 4.0)
        reason = server.get("/health")[1].decode()
        assert "no engine step for" in reason or "restarted" in reason, reason
        assert server.get("/livez")[0] == 200
        answers = await asyncio.wait_for(asyncio.gather(*tasks), 10)
        assert {answer.error_code for answer in answers} == {"engine_dead"}
        back = await until(lambda: server.get("/health")[0] == 200, 60)
        assert (await ask(server.port, streaming(4))).is_whole
        assert (
            "stacks of engine and front follow" in server.log() and "most recent call first" in server.log()
        )
        print(
            f"SIGSTOP of the engine: /health says so after {seen:.1f} s (timeout 2 s), well again {back:.1f} s later"
        )

    asyncio.run(main())
    assert server.stop() == 0


@pytest.mark.slow
def test_sigterm_under_64_streams(chaotic: Begin) -> None:
    server = chaotic()
    assert server.process is not None

    async def main() -> None:
        tasks = await running(server.port, 64, 150)
        server.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        began = time.monotonic()
        ready = Answer()
        while ready.status != 503 and time.monotonic() - began < 2:
            ready = await ask(server.port, None, "/readyz")
        refused_after = time.monotonic() - began
        late = await ask(server.port, streaming(4))
        assert late.status == 503 and "connection: close" in late.head and "retry-after" in late.head
        answers = await asyncio.wait_for(asyncio.gather(*tasks), 30)
        whole = sum(answer.is_whole for answer in answers)
        assert whole == 64, [a.error_code for a in answers]
        status = await asyncio.get_running_loop().run_in_executor(None, server.process.wait, 20)  # type: ignore[union-attr]
        assert status == 0
        print(
            f"SIGTERM under 64 streams: {whole} of 64 finished, /readyz 503 after {refused_after * 1000:.0f} ms, "
            f"exit 0 after {time.monotonic() - began:.1f} s"
        )

    asyncio.run(main())


@pytest.mark.parametrize("how", [pytest.param("timeout", marks=pytest.mark.slow), "second signal"])
def test_what_is_not_finished_in_time_ends_well_formed(chaotic: Begin, how: str) -> None:
    server = chaotic("--shutdown-timeout", "0.5" if how == "timeout" else "60")
    assert server.process is not None

    async def main() -> None:
        tasks = await running(server.port, 8, 1900)
        whole = asyncio.create_task(ask(server.port, {**streaming(1900), "stream": False}))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        if how == "second signal":
            await asyncio.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        answers = await asyncio.wait_for(asyncio.gather(*tasks), 15)
        assert {answer.error_code for answer in answers} == {"server_shutdown"}
        cut = await asyncio.wait_for(whole, 5)
        assert cut.status == 503 and "server_shutdown" in cut.body
        status = await asyncio.get_running_loop().run_in_executor(None, server.process.wait, 10)  # type: ignore[union-attr]
        assert status == 0
        print(
            f"drain ended by {how}: 8 of 8 streams got an error event and [DONE], exit 0 after {time.monotonic() - began:.1f} s"
        )

    asyncio.run(main())


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_running_out_of_file_descriptors(chaotic: Begin) -> None:
    limited = ("bash", "-c", 'ulimit -n 100; exec "$0" "$@"', sys.executable, "-m", "vsrv")
    server = chaotic(program=limited)
    assert server.process is not None
    pid = server.process.pid

    async def main() -> None:
        before = cpu_seconds(pid)
        held = [
            socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)
        ]  # the backlog takes them
        await asyncio.sleep(3)
        busy = (cpu_seconds(pid) - before) / 3
        assert busy < 0.2, f"{busy:.0%} of a core while nothing can be accepted"
        for sock in held:
            sock.close()
        back = await until(lambda: server.get("/livez")[0] == 200, 5)
        assert (await ask(server.port, streaming(4))).is_whole
        assert "closing idle ones" in server.log() and "Traceback" not in server.log()
        print(
            f"100 file descriptors, 300 connections: {busy:.1%} of a core meanwhile, served again after {back * 1000:.0f} ms"
        )

    asyncio.run(main())
    assert server.stop() == 0


async def probes(port: int, seconds: float) -> list[float]:
    """Times of /livez, each over its own connection."""
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        answer = await asyncio.wait_for(ask(port, None, "/livez"), 5)
        assert answer.status == 200
        times.append(time.monotonic() - began)
        await asyncio.sleep(0.02)
    return sorted(times)


@pytest.mark.slow
def test_probes_beside_256_streams_and_a_large_body(chaotic: Begin) -> None:
    server = chaotic()
    body = json.dumps({"prompt": "x y " * 5_000_000, "max_tokens": 1}).encode()

    async def main() -> None:
        tasks = await running(server.port, 32, 900)
        firsts = [asyncio.Event() for _ in range(224)]  # most of them wait in the queue
        tasks += [asyncio.create_task(ask(server.port, streaming(900), first=first)) for first in firsts]
        await until(lambda: json.loads(server.get("/load")[1])["server_load"] >= 256, 30)
        # by a thread that only waits, else the pauses would be our own
        large = asyncio.create_task(asyncio.to_thread(server.request, "POST", "/v1/completions", body))
        times = await probes(server.port, 10)
        status = (await asyncio.wait_for(large, 60))[0]
        p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
        print(
            f"256 streams and a body of 20 MB (answered {status}): {len(times)} probes, "
            f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, slowest {times[-1] * 1000:.0f} ms"
        )
        assert not any(task.done() and not task.result().is_whole for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: json.loads(server.get("/load")[1])["server_load"] == 0, 5)
        assert status == 400 and p99 < 0.05

    asyncio.run(main())
    assert server.stop() == 0


def descriptors(server: Server) -> int:
    assert server.process is not None
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def load_of(server: Server) -> int:
    return int(json.loads(server.get("/load")[1])["server_load"])


def posted(body: dict[str, object]) -> bytes:
    data = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


STORM = {
    "half a head": b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nX: ",
    "half a body": b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n{",
    "queued or decoding": posted({"prompt": "hello", "max_tokens": 900, "ignore_eos": True, "stream": True}),
    "queued or in prefill": posted(
        {"prompt": list(range(300, 400)) * 15, "max_tokens": 200, "ignore_eos": True}
    ),
    "answered and unread": b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 5,
}


def gauge(server: Server, name: str) -> float:
    """The only sample of a gauge."""
    lines = server.get("/metrics")[1].decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))


@pytest.mark.slow
def test_a_storm_of_500_clients_that_leave(chaotic: Begin) -> None:
    server = chaotic()

    async def client(data: bytes) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        await leaving.wait()
        writer.transport.abort()

    leaving = asyncio.Event()

    states = ("vllm:num_requests_running", "vllm:num_requests_waiting")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = descriptors(server)
        kinds = list(STORM.values())
        tasks = [asyncio.create_task(client(kinds[n % len(kinds)])) for n in range(500)]
        await asyncio.sleep(1.5)
        running, waiting = [await loop.run_in_executor(None, gauge, server, name) for name in states]
        assert running > 0 and waiting > 0, "nobody was where the storm is to hit"
        leaving.set()
        await asyncio.gather(*tasks)
        began = time.monotonic()
        await until(lambda: load_of(server) == 0, 5)
        freed = time.monotonic() - began
        closed = await until(lambda: descriptors(server) <= before + 1, 5)
        await until(lambda: not any(gauge(server, name) for name in (*states, "vllm:kv_cache_usage_perc")), 3)
        assert (await ask(server.port, streaming(4))).is_whole
        assert "Traceback" not in server.log() and "failed" not in server.log()
        print(
            f"500 clients left in {len(kinds)} states, {running:.0f} sequences running and {waiting:.0f} waiting: "
            f"no sequence after {freed * 1000:.0f} ms, no descriptor after {closed * 1000:.0f} ms"
        )

    asyncio.run(main())
    assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_memory_and_descriptors_over_5000_mixed_requests(chaotic: Begin) -> None:
    server = chaotic("--disable-uvicorn-access-log")
    assert server.process is not None
    pid = server.process.pid

    async def mixed(number: int) -> None:
        kind = number % 10
        if kind < 3:
            assert (await ask(server.port, None, "/livez")).status == 200
        elif kind < 5:
            assert (await ask(server.port, None, "/v1/models")).status == 200
        elif kind < 7:
            assert (await ask(server.port, {"prompt": f"x{number}", "max_tokens": 2})).status == 200
        elif kind == 7:
            assert (await ask(server.port, {"prompt": 5})).status == 400
        elif kind == 8:
            assert (await ask(server.port, streaming(3))).is_whole
        else:  # leaves in the middle
            task = asyncio.create_task(ask(server.port, streaming(200)))
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def batch(first: int, count: int) -> None:
        gate = asyncio.Semaphore(8)

        async def one(number: int) -> None:
            async with gate:
                await mixed(number)

        await asyncio.gather(*(one(number) for number in range(first, first + count)))
        await until(lambda: load_of(server) == 0, 10)

    async def main() -> None:
        await batch(0, 1000)
        before, files, figures = resident_kb(pid), descriptors(server), []
        for round_ in range(1, 6):
            await batch(round_ * 1000, 1000)
            figures.append(resident_kb(pid) - before)
        grown = figures[-1] / 5
        print(
            f"5000 mixed requests after 1000: front +{grown:.0f} kB per 1000 (at each 1000: {figures}), descriptors {files} to {descriptors(server)}"
        )
        assert grown < 1024 and descriptors(server) <= files + 1

    asyncio.run(main())
    assert server.stop() == 0


class Attacker(asyncio.Protocol):
    """One connection of slowloris: sends `piece` at every beat, reads nothing if `deaf`."""

    def __init__(self, begin: bytes, piece: bytes, deaf: bool) -> None:
        self.begin, self.piece, self.deaf = begin, piece, deaf
        self.ended: float | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.deaf:
            transport.pause_reading()
        transport.write(self.begin)

    def beat(self) -> None:
        if self.transport is not None and self.piece:
            self.transport.write(self.piece)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended, self.transport = time.monotonic(), None


SLOW_HEAD = b"GET /livez HTTP/1.1\r\nHost: a\r\n"
SLOW_BODY = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
SLOW_READ = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 40  # 660 kB of answers
MODES = {
    "slow head": (SLOW_HEAD, b"X: y\r\n", 400, 16.0),
    "slow body": (SLOW_BODY, b"x", 400, 36.0),
    "slow read": (SLOW_READ, b"", 100, 80.0),
}


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("mode", MODES)
def test_slowloris(chaotic: Begin, mode: str) -> None:
    server = chaotic()
    begin, piece, count, patience = MODES[mode]
    deaf = mode == "slow read"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        quiet = await probes(server.port, 2)
        attackers: list[Attacker] = []
        for _ in range(count):
            attacker = Attacker(begin, piece, deaf)
            sock = socket.socket()
            if deaf:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", server.port))
            await loop.create_connection(lambda made=attacker: made, sock=sock)  # type: ignore[misc]
            attackers.append(attacker)
        began, times = time.monotonic(), []
        while time.monotonic() - began < patience and any(a.ended is None for a in attackers):
            times += await probes(server.port, 1)
            for attacker in attackers:
                attacker.beat()
        if deaf:  # a reset is noticed only by reading
            for attacker in attackers:
                if attacker.transport is not None:
                    attacker.transport.resume_reading()
            await asyncio.sleep(1)
        ended = [a.ended - began for a in attackers if a.ended is not None]
        times.sort()
        p99, calm = times[len(times) * 99 // 100], quiet[len(quiet) * 99 // 100]
        print(
            f"slowloris, {mode}: {len(ended)} of {count} ended by the server, the last after {max(ended, default=0):.0f} s; "
            f"{len(times)} probes beside them all answered, p99 {p99 * 1000:.0f} ms (alone {calm * 1000:.0f} ms)"
        )
        assert len(ended) == count and p99 < 0.25
        for attacker in attackers:
            if attacker.transport is not None:
                attacker.transport.abort()

    asyncio.run(main())
    assert server.stop() == 0


@pytest.mark.slow
def test_sslyze_finds_nothing(tmp_path: Path) -> None:
    """Mozilla's intermediate profile. `VSRV_SSLYZE` names a Python that has sslyze: `python3 -m venv v && v/bin/pip install sslyze`."""
    python = os.environ.get("VSRV_SSLYZE")
    if not python:
        pytest.skip("VSRV_SSLYZE is not set")
    make(CertificateWish(tmp_path, days=300))
    server = start(
        "--ssl-certfile", str(tmp_path / "server.pem"), "--ssl-keyfile", str(tmp_path / "server.key")
    )
    try:
        time.sleep(2)
        arguments = ["--mozilla_config=intermediate", "--certinfo_ca_file", str(tmp_path / "ca.pem")]
        done = subprocess.run(
            [python, "-m", "sslyze", *arguments, f"localhost:{server.port}"],
            capture_output=True,
            text=True,
            timeout=100,
        )
    finally:
        assert server.stop() == 0
    assert "Supplied CA file CA Store (N/A):   OK" in done.stdout, done.stdout + done.stderr
    _, found, verdict = done.stdout.partition("COMPLIANCE AGAINST TLS CONFIGURATION")
    faults = [line.strip() for line in verdict.splitlines() if line.strip().startswith("* ")]
    print(f"sslyze, Mozilla intermediate: {faults}")
    assert found and not faults


@pytest.mark.slow
def test_certificate_swaps_under_load(chaotic: Begin, tmp_path: Path) -> None:
    def renew() -> Path:
        return make(CertificateWish(tmp_path, force=True)).ca

    ca = renew()
    files = ("--ssl-certfile", str(tmp_path / "server.pem"), "--ssl-keyfile", str(tmp_path / "server.key"))
    server = start(*files)
    assert server.process is not None
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False

    def livez() -> int:
        with urllib.request.urlopen(f"{server.url}/livez", context=context, timeout=5) as response:
            return int(response.status)

    def is_up() -> bool:
        try:
            return livez() == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    async def main() -> None:
        await until(is_up, 20)
        loop = asyncio.get_running_loop()
        done, serials, swapping = [0], set(), True

        async def load() -> None:
            while swapping:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", server.port, ssl=context, server_hostname="localhost"
                )
                for _ in range(3):
                    writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
                    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
                    assert head.startswith(b"HTTP/1.1 200")
                    await reader.readexactly(3)
                    done[0] += 1
                serials.add(writer.get_extra_info("ssl_object").getpeercert()["serialNumber"])
                writer.close()
                await asyncio.sleep(0)

        clients = [loop.create_task(load()) for _ in range(4)]
        for number in range(30):
            await loop.run_in_executor(None, renew)
            if number % 2:
                server.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
            await asyncio.sleep(0.4)
        await asyncio.sleep(2.5)  # the last one is found by polling
        swapping = False
        await asyncio.gather(*clients)
        print(
            f"certificate swaps: 30, {len(serials)} certificates seen, {done[0]} requests beside them, 0 failed"
        )
        assert len(serials) >= 15

    try:
        asyncio.run(main())
    finally:
        assert server.stop() == 0


@pytest.mark.slow
def test_key_swaps_under_load(chaotic: Begin, tmp_path: Path) -> None:
    """The keys of others come and go with every reload; who has a good one notices nothing, who has a revoked one does at once."""
    path = tmp_path / "keys.json"

    def put(*held: str) -> None:
        write_key_file(path, KeyFile(tuple(KeyRecord(id_in(key), hashed(key), id_in(key)) for key in held)))

    steady = new_secret("steady")
    put(steady)
    server = chaotic("--api-key-file", str(path))
    assert server.process is not None

    def status_of(key: str) -> int:
        return server.get("/v1/models", {"x-api-key": key})[0]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        statuses, delays, swapping = Counter[int](), [], True

        async def load() -> None:
            while swapping:
                statuses[await loop.run_in_executor(None, status_of, steady)] += 1

        clients = [loop.create_task(load()) for _ in range(4)]
        last = steady
        for number in range(30):
            fresh = new_secret(f"k{number}")
            put(steady, fresh)
            server.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
            delays.append(await until(lambda: status_of(fresh) == 200, 5))  # noqa: B023
            assert last is steady or status_of(last) == 401
            last = fresh
        swapping = False
        await asyncio.gather(*clients)
        print(
            f"key swaps: 30, each in force within {max(delays) * 1000:.0f} ms; {statuses.total()} requests beside them, statuses {dict(statuses)}"
        )
        assert set(statuses) == {200} and statuses.total() > 30 and max(delays) < 2

    asyncio.run(main())
    assert server.stop() == 0
