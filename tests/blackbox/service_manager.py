"""A stand-in for systemd's manager: it keeps the listening socket and hears what the service says."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


class Manager:
    """What systemd is to a service: keeps the listening socket, starts it, reads its notifications."""

    def __init__(self, folder: Path) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.path = str(folder / "notify")
        self.notify.bind(self.path)
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("VSRV_", "VLLM_"))}
        environ |= {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": "1000000"}
        command = (
            f'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" -m vsrv serve "$@" 3<&{self.listener.fileno()}'
        )
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", command, sys.executable, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environ,
                pass_fds=[self.listener.fileno()],
            )

    def wait_for(self, name: str, value: str = "1", limit_s: float = 10.0) -> list[dict[str, str]]:
        """Messages up to the one that says name=value."""
        messages: list[dict[str, str]] = []
        end = time.monotonic() + limit_s
        while not messages or messages[-1].get(name) != value:
            self.notify.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = self.notify.recv(4096).decode()
            except TimeoutError:
                raise AssertionError(f"no {name}={value}: {messages[-5:]}\n{self.log.read_text()}") from None
            messages.append(dict(line.split("=", 1) for line in data.split("\n")))
        return messages

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def get(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        status = connection.getresponse().status
        connection.close()
        return status

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.listener.close()
        self.notify.close()
