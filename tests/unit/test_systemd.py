"""sd_notify, the watchdog and socket activation against a manager of our own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vsrv.systemd import Notifier, inherited_socket


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)

    def read(self) -> list[dict[str, str]]:
        messages = []
        while True:
            try:
                data = self.socket.recv(4096).decode()
            except BlockingIOError:
                return messages
            messages.append(dict(line.split("=", 1) for line in data.split("\n")))


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = f"@vsrv-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    made = Manager(name)
    yield made
    made.socket.close()


def test_every_message_in_its_form(manager: Manager) -> None:
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier(environ)
    assert environ == {}, "a child would speak for the service"
    assert notifier.watchdog_interval_s == 1.5
    notifier.status("two\nlines")
    notifier.ready("serving")
    notifier.extend_timeout(1.5)
    notifier.reloading()
    notifier.stopping("bye")
    notifier.alive()
    notifier.flush()
    messages = manager.read()
    assert messages[:3] == [
        {"STATUS": "two lines"},
        {"READY": "1", "STATUS": "serving"},
        {"EXTEND_TIMEOUT_USEC": "1500000"},
    ]
    assert messages[3]["RELOADING"] == "1" and int(messages[3]["MONOTONIC_USEC"]) > 0
    assert messages[4:] == [{"STOPPING": "1", "STATUS": "bye"}, {"WATCHDOG": "1"}]
    notifier.close()


def test_a_manager_that_does_not_read_blocks_nothing_and_misses_no_state(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    for _ in range(10_000):  # a datagram socket holds some hundred
        notifier.alive()
    notifier.ready("serving")
    for _ in range(100):
        notifier.alive()
    beats = manager.read()
    assert 0 < len(beats) < 10_000 and all(message == {"WATCHDOG": "1"} for message in beats)
    notifier.flush()
    assert manager.read() == [{"READY": "1", "STATUS": "serving"}], "READY is told late, stale beats never"
    notifier.close()


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}, {"WATCHDOG_USEC": "1000000"}):
        notifier = Notifier(environ)
        notifier.ready("serving")
        notifier.stopping("bye")
        notifier.close()
        assert notifier.watchdog_interval_s is None
    other = Notifier({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"})
    assert other.watchdog_interval_s is None, "the watchdog of another process"
    other.close()


SHOW = """
import os, sys
from vsrv.errors import ConfigError
from vsrv.systemd import inherited_socket
try:
    sock = inherited_socket(os.environ)
except ConfigError as error:
    print(error)
else:
    print(None if sock is None else (sock.getsockname()[1], sock.get_inheritable()))
    if sock: sock.close()
print([name for name in os.environ if name.startswith("LISTEN_")])
"""


def shown(sock: socket.socket | None, variables: str) -> str:
    """What a process says that gets `sock` as descriptor 3 and these variables; $$ is its process id."""
    root = Path(__file__).resolve().parents[2]
    redirect = f"3<&{sock.fileno()}" if sock is not None else ""
    process = subprocess.run(
        ["bash", "-c", f'export {variables}; exec "$0" -c "$1" {redirect}', sys.executable, SHOW],
        capture_output=True,
        text=True,
        timeout=30,
        pass_fds=[sock.fileno()] if sock is not None else [],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True,
    )
    return process.stdout


def test_socket_activation() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, socket.socket() as idle:
        port = sock.getsockname()[1]
        assert shown(sock, "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=x") == f"({port}, False)\n[]\n"
        assert shown(sock, "LISTEN_PID=1 LISTEN_FDS=1") == "None\n[]\n", "meant for another process"
        assert "systemd passes 2 sockets" in shown(sock, "LISTEN_PID=$$ LISTEN_FDS=2")
        assert "does not listen" in shown(idle, "LISTEN_PID=$$ LISTEN_FDS=1")
        assert "no socket" in shown(None, "LISTEN_PID=$$ LISTEN_FDS=1")
    assert inherited_socket({}) is None
