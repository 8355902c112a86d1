"""`vsrv check` and the server that then starts agree."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from started import Server


def test_the_budget_that_is_told_is_the_one_that_is_taken(server: Server) -> None:
    if server.process is None:
        pytest.skip("a server given by VSRV_URL has no log here")
    command = [sys.executable, "-m", "vsrv", "check", "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 78, "its port is in use"
    lines = done.stdout.splitlines()
    refused = next(line for line in lines if line.startswith("error"))
    assert f"port {server.port} is in use by process {server.process.pid}" in refused
    budget = [line.strip() for line in lines[lines.index("memory:") + 1 : -2]]
    assert len(budget) == 6
    for line in budget:
        assert line in server.log(), line
    status, body, _ = server.get("/v1/models")
    length = json.loads(body)["data"][0]["max_model_len"]
    assert status == 200 and f"max_model_len  {length:>10,}" in budget[4]
