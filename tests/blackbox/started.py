"""A started `vsrv serve` as a user would start it, on a free port, with the embedded demo model.

`VSRV_URL=http://host:port` runs the tests that need no own process against a server that is already up.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

READY_S = 250.0  # kernels may have to be compiled once on a fresh machine, about a minute of one core


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Server:
    """One running server process. `process` is None for a server given by VSRV_URL."""

    url: str
    process: subprocess.Popen[bytes] | None
    log_path: Path | None

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes, dict[str, str]]:
        return self.request("GET", path, None, headers)

    def post(
        self, path: str, body: object, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, object]]:
        status, data, _ = self.request("POST", path, json.dumps(body).encode(), headers)
        return status, json.loads(data)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> tuple[int, bytes, dict[str, str]]:
        request = urllib.request.Request(self.url + path, body, headers or {}, method=method)
        if body is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as response:
                return response.status, response.read(), {k.lower(): v for k, v in response.headers.items()}
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), {k.lower(): v for k, v in error.headers.items()}

    def wait_ready(self, limit_s: float = READY_S, context: ssl.SSLContext | None = None) -> None:
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            try:
                if self.request("GET", "/readyz", None, context=context)[0] == 200:
                    return
            except (urllib.error.URLError, ConnectionError):
                pass  # not listening yet: the next round tells
            if self.process is not None and self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"server not ready; its log:\n{self.log()}")

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path else ""

    def stop(self, signum: int = signal.SIGTERM, limit_s: float = 20.0) -> int:
        assert self.process is not None
        self.process.send_signal(signum)
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"no exit after signal {signum}; log:\n{self.log()}") from None


def start(
    *arguments: str,
    program: tuple[str, ...] = (sys.executable, "-m", "vsrv"),
    env: dict[str, str] | None = None,
    port: int | None = None,
) -> Server:
    """Start `vsrv serve ARGUMENTS` on a free port, or on `port`; does not wait until it is ready."""
    port = port or free_port()
    handle, name = tempfile.mkstemp(prefix="vsrv-test-", suffix=".log")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("VSRV_", "VLLM_"))}
    environ.update(env or {})
    with os.fdopen(handle, "wb") as log:
        process = subprocess.Popen(
            [*program, "serve", *arguments, "--port", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environ,
        )
    scheme = "https" if "--ssl-certfile" in arguments else "http"
    return Server(f"{scheme}://127.0.0.1:{port}", process, Path(name))


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    """`vsrv serve ARGUMENTS` while the context lasts: ready at its beginning, stopped well at its end unless a test has ended it."""
    server = start(*arguments)
    try:
        server.wait_ready()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            assert server.stop() == 0, server.log()
