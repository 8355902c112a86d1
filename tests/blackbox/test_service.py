"""The server as a service: sd_notify, watchdog, socket activation, SIGHUP; on a Unix socket and behind a proxy."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_manager import Manager
from started import READY_S, start


@pytest.fixture
def manager() -> Iterator[Manager]:
    with tempfile.TemporaryDirectory() as folder:
        made = Manager(Path(folder))
        try:
            yield made
        finally:
            made.close()


def test_as_a_socket_activated_notify_service(manager: Manager) -> None:
    config = manager.log.with_name("v.toml")
    config.write_text('log-level = "info"\n')
    manager.start("--config", str(config))
    before = manager.wait_for("READY", limit_s=READY_S)
    assert any(message.get("STATUS", "").startswith("loading: ") for message in before)
    assert any("EXTEND_TIMEOUT_USEC" in message for message in before)
    assert manager.get("/readyz") == 200
    began = time.monotonic()
    for _ in range(3):
        manager.wait_for("WATCHDOG")
    assert time.monotonic() - began < 2.5, "half of the period and no more"
    assert manager.process is not None
    assert "GET" not in manager.log.read_text(), "probes are not logged"
    manager.get("/v1/models")
    assert "path=/v1/models" in manager.log.read_text()
    config.write_text('log-level = "error"\n')
    manager.process.send_signal(signal.SIGHUP)
    assert "MONOTONIC_USEC" in manager.wait_for("RELOADING")[-1]
    manager.wait_for("READY")
    logged = manager.log.read_text()
    manager.get("/v1/models")
    assert manager.log.read_text() == logged, "the new level is not in force"
    config.write_text("log-level = 3\n")
    manager.process.send_signal(signal.SIGHUP)
    manager.wait_for("READY")
    assert "keeping the old settings" in manager.log.read_text()
    manager.process.send_signal(signal.SIGTERM)
    manager.wait_for("STOPPING")
    assert manager.process.wait(20) == 0
    # the manager holds the socket: a request that comes between two services waits for the next one
    waiting = socket.create_connection(("127.0.0.1", manager.port))
    waiting.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
    manager.start()
    waiting.settimeout(20)
    assert waiting.recv(100).startswith(b"HTTP/1.1 200")
    waiting.close()
    assert manager.stop() == 0


def test_an_open_socket_of_systemd_needs_keys(manager: Manager) -> None:
    manager.listener.close()
    manager.listener = socket.create_server(("0.0.0.0", 0))
    manager.start()
    assert manager.process is not None and manager.process.wait(20) == 78
    assert "--allow-unauthenticated" in manager.log.read_text()


def test_unix_socket_root_path_and_trusted_proxy(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = start("--uds", path, "--root-path", "/llm/", "--forwarded-allow-ips", "unix,10.0.0.0/8")
    assert server.process is not None

    def asked(request: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(path)
            sock.sendall(request)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    try:
        end = time.monotonic() + 20
        while not os.path.exists(path):
            assert time.monotonic() < end, server.log()
            time.sleep(0.02)
        assert os.stat(path).st_mode & 0o777 == 0o600
        forwarded = b"X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.1.1.1"
        while True:
            answer = asked(b"GET /llm/v1/models HTTP/1.0\r\n" + forwarded + b"\r\n\r\n")
            if answer.startswith(b"HTTP/1.1 200"):
                break
            assert answer.startswith(b"HTTP/1.1 503") and time.monotonic() < end + READY_S, answer
            time.sleep(0.1)
        for target in (b"/", b"*", b"/llm"):
            answer = asked(b"OPTIONS " + target + b" HTTP/1.0\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 204") and b"allow: " in answer, answer
        assert asked(b"HEAD /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
        answer = asked(b"DELETE /llm/v1/models HTTP/1.0\r\n\r\n")
        assert (
            answer.startswith(b"HTTP/1.1 405")
            and b"allow: GET, HEAD, OPTIONS" in answer
            and b'"error"' in answer
        )
        assert "client=192.0.2.7" in server.log()
    finally:
        assert server.stop() == 0
    assert not os.path.exists(path)


def test_sigterm_during_a_download_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        server = start("some/model", env={"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"})
        assert server.process is not None
        silent.settimeout(30)
        connection, _ = silent.accept()  # it asks, and nobody will answer
        assert server.get("/readyz")[0] == 503
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 3
        connection.close()


@pytest.mark.slow
def test_sigterm_at_any_moment_of_loading() -> None:
    statuses = []
    for step in range(16):
        server = start()
        assert server.process is not None
        time.sleep(0.1 + step * 0.15)
        statuses.append(server.stop())
    # before Python has come to the handler, the signal ends it as it ends any process
    assert set(statuses) <= {0, -signal.SIGTERM} and statuses[4:] == [0] * 12, statuses
    print(f"SIGTERM 0.1 to 2.4 s after the start: exit statuses {statuses}")
