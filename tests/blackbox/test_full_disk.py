"""A disk without room: a log that cannot be written costs lines and nothing else, a cache that cannot be written is told in one line."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from started import Server, free_port


def serve(port: int, **more: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vsrv", "serve", "--port", str(port)]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("VSRV_") or k == "VSRV_CACHE_DIR"}
    return subprocess.Popen(command, env={**environ, **more.pop("env", {})}, **more)  # type: ignore[arg-type, call-overload, no-any-return, dict-item]


def test_no_request_fails_because_the_log_is_on_a_full_disk() -> None:
    """/dev/full refuses every write with ENOSPC (full(4))."""
    port = free_port()
    with open("/dev/full", "wb") as full:
        process = serve(port, stdout=full, stderr=full)
    server = Server(f"http://127.0.0.1:{port}", process, None)
    try:
        server.wait_ready()
        statuses = [server.post("/v1/completions", {"prompt": "a", "max_tokens": 2})[0] for _ in range(50)]
        assert statuses == [200] * 50
        assert server.post("/v1/completions", {"prompt": 3})[0] == 400
        process.send_signal(signal.SIGHUP)
        assert server.get("/health")[0] == 200
    finally:
        assert server.stop() == 0


@pytest.mark.slow
def test_a_cache_folder_on_a_full_disk_is_told_in_a_line(tmp_path: Path) -> None:
    process = serve(
        free_port(),
        stderr=subprocess.PIPE,
        env={"VSRV_CACHE_DIR": str(tmp_path / "cache")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    try:
        _, told = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 78
    assert b"no room in the cache folder" in told and b"VSRV_CACHE_DIR" in told and b"Traceback" not in told
