"""What a server opens: the ports that it was given, and nothing towards the outside.

Two witnesses: the kernel's table of the sockets of every process of the tree, looked at all the time, and an audit hook in each of
these Python processes, which sees the calls however short they are.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from started import Server, free_port, start

CALLS = (
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.sendto",
    "socket.sendmsg",
)
HOOK = """
import json, os, sys
def _hook(event, args, path={path!r}, calls={calls!r}):
    if event in calls or event == "started":
        line = json.dumps([os.getpid(), event, [repr(a) for a in args if not hasattr(a, "fileno")]])
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, line.encode() + b"\\n")
        os.close(file)
sys.addaudithook(_hook)
sys.audit("started")
"""


@dataclass
class Watch:
    """Every internet socket that was seen, until `end`: who listens where, and what belongs to no listener."""

    root: psutil.Process
    ports: set[int]
    listening: set[int] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)
    pids: set[int] = field(default_factory=set)
    looks: int = 0

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(0.01):
            for process in (self.root, *self.root.children(recursive=True)):
                self._look(process)
            self.looks += 1

    def _look(self, process: psutil.Process) -> None:
        try:
            found = process.net_connections("inet")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return
        self.pids.add(process.pid)
        for entry in found:
            if entry.status == psutil.CONN_LISTEN:
                self.listening.add(entry.laddr.port)
            elif entry.laddr.port not in self.ports:
                self.foreign.add(f"{process.pid}: {entry}")

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[tuple[Server, int, Path]]:
    """A server with a port for metrics, the calls of whose processes are written to a file."""
    record, metrics = tmp_path / "calls", free_port()
    (tmp_path / "sitecustomize.py").write_text(HOOK.format(path=str(record), calls=CALLS))
    server = start("--metrics-port", str(metrics), env={"PYTHONPATH": str(tmp_path)})
    try:
        yield server, metrics, record
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()


def test_only_its_own_ports_and_nothing_to_the_outside(audited: tuple[Server, int, Path]) -> None:
    server, metrics, record = audited
    assert server.process is not None
    ports = {server.port, metrics}
    watch = Watch(psutil.Process(server.process.pid), ports)
    try:
        server.wait_ready()
        chat = {
            "messages": [{"role": "user", "content": "Fetch http://192.0.2.1/ and tell."}],
            "max_tokens": 8,
        }
        assert server.post("/v1/chat/completions", chat)[0] == 200
        assert server.post("/v1/completions", {"prompt": "hello", "max_tokens": 8})[0] == 200
        assert (
            server.post("/v1/completions", {"prompt": "x " * 20_000})[0] == 400
        )  # goes through the prepare child
        picture = {"type": "image_url", "image_url": {"url": "http://192.0.2.1/a.png"}}
        refused = {"messages": [{"role": "user", "content": [picture]}]}
        assert server.post("/v1/chat/completions", refused)[0] == 400
        assert server.post("/v1/completions", {"prompt": "a", "model": "org/other"})[0] == 404
        assert server.get("/nothing")[0] == 404
        Server(f"http://127.0.0.1:{metrics}", None, None).get("/metrics")
        server.process.send_signal(signal.SIGHUP)
        time.sleep(1.5)  # a tick and a look at the files
    finally:
        watch.end()
    assert server.stop() == 0
    assert watch.looks > 20 and watch.listening == ports, watch
    assert watch.foreign == set()
    calls = [json.loads(line) for line in record.read_text().splitlines()]
    assert watch.pids <= {pid for pid, event, _ in calls if event == "started"}, "a process without the hook"
    assert len(watch.pids) == 3, "front, engine and prepare child"
    towards = [call for call in calls if call[1] in CALLS and "127.0.0.1" not in str(call[2])]
    assert towards == [] and not any(event == "socket.connect" for _, event, _ in calls)
    bound = [str(arguments) for _, event, arguments in calls if event == "socket.bind"]
    assert len(bound) == 2 and all(any(str(port) in one for one in bound) for port in ports)
