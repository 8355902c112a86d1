"""Behind a socket unit: a restart under load is a pause and loses no request; systemd's own activation; credentials; journal priorities."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_manager import Manager
from started import READY_S, free_port

QUESTION = json.dumps({"messages": [{"role": "user", "content": "Which port?"}], "max_tokens": 3}).encode()


class Load:
    """Clients that ask again and again, each request on a connection of its own or, for every second client, on the last one."""

    def __init__(self, port: int, num_clients: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self.statuses: list[int] = []
        self.failures: list[str] = []
        self.longest_s = 0.0
        self._threads = [threading.Thread(target=self._run, args=(i % 2 == 1,)) for i in range(num_clients)]
        for thread in self._threads:
            thread.start()

    def _run(self, keeps: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=READY_S)
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                connection.request(
                    "POST", "/v1/chat/completions", QUESTION, {"Content-Type": "application/json"}
                )
                response = connection.getresponse()
                response.read()
                self.statuses.append(response.status)
                if not keeps:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            self.longest_s = max(self.longest_s, time.monotonic() - began)
        connection.close()

    def wait_for(self, number: int, limit_s: float = 30.0) -> None:
        """Until so many requests have ended."""
        end = time.monotonic() + limit_s
        while len(self.statuses) + len(self.failures) < number:
            assert time.monotonic() < end, (self.statuses, self.failures)
            time.sleep(0.02)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(READY_S)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


def test_a_restart_under_load_loses_no_request(manager: Manager) -> None:
    manager.start()
    manager.wait_for("READY", limit_s=READY_S)
    load = Load(manager.port, 4)
    load.wait_for(12)
    assert manager.process is not None
    manager.process.send_signal(signal.SIGTERM)
    manager.wait_for("STOPPING")
    assert manager.process.wait(30) == 0
    before = len(load.statuses)
    manager.start()
    manager.wait_for("READY", limit_s=READY_S)
    load.wait_for(before + 12)
    load.stop()
    print(f"{len(load.statuses)} requests, the longest {load.longest_s:.1f} s, {len(load.failures)} lost")
    assert not load.failures and set(load.statuses) == {200}, (
        load.failures,
        load.statuses,
        manager.log.read_text(),
    )
    assert manager.stop() == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd is not installed")
def test_systemd_starts_it_with_its_socket(tmp_path: Path) -> None:
    """The first connection starts the server and is answered by it; so is a request of before it was ready."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "tls.crt").write_text("\n")  # what the unit puts there when there is no certificate
    key = subprocess.run(
        [sys.executable, "-m", "vsrv", "keys", "new", "--api-key-file", str(credentials / "keys.toml")],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    port, log = free_port(), tmp_path / "log"
    names = [n for n in ("PATH", "HOME", "PYTHONPATH", "VSRV_CACHE_DIR", "XDG_CACHE_HOME") if n in os.environ]
    passed = [f"-E{name}" for name in names] + [f"-ECREDENTIALS_DIRECTORY={credentials}"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", *passed, sys.executable, "-m", "vsrv", "serve"],
            stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        end = time.monotonic() + 10
        while True:
            try:
                sock = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                assert time.monotonic() < end
                time.sleep(0.02)
        sock.settimeout(READY_S)
        sock.sendall(f"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 200"), log.read_text()
        sock.close()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/v1/models")
        assert connection.getresponse().status == 401, "the credential's keys are in force"
        connection.close()
    finally:
        process.send_signal(signal.SIGTERM)  # systemd-socket-activate has become the server
        assert process.wait(30) == 0, log.read_text()


def test_lines_for_the_journal_have_priorities(tmp_path: Path) -> None:
    """sd-daemon(3): `<N>` in front of a line; only where stderr is the journal's stream, as JOURNAL_STREAM says."""
    theirs, ours = socket.socketpair()
    status = os.fstat(ours.fileno())
    environ = os.environ | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    command = [sys.executable, "-m", "vsrv", "serve", str(tmp_path / "none"), "--port", "0"]
    done = subprocess.run(command, stderr=ours.fileno(), stdout=subprocess.DEVNULL, env=environ, timeout=60, check=False)  # fmt: skip
    ours.close()
    lines = b"".join(iter(lambda: theirs.recv(65536), b"")).decode().splitlines()
    theirs.close()
    assert done.returncode == 78
    assert any(re.match(r"<6>info +listening on http://", line) for line in lines), lines
    assert any(re.match(r"<3>", line) and "no such folder" in line for line in lines), lines
    assert all(re.match(r"<[0-7]>", line) for line in lines), lines
