"""schemathesis on /openapi.json of a running server: no failure of its own checks.

`python -m pytest -m slow tests/blackbox/test_schemathesis.py`; needs schemathesis (in the extra test-full).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from started import start

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("keyed", [False, True])
def test_schemathesis_finds_no_failure(tmp_path: Path, keyed: bool) -> None:
    pytest.importorskip("schemathesis")
    key = ("--api-key", "secret") if keyed else ()
    header = ("-H", "Authorization: Bearer secret") if keyed else ()
    server = start("--max-model-len", "256", "--max-n-sequences", "4", *key)
    try:
        server.wait_ready()
        run = subprocess.run(
            [
                sys.executable,
                "-c",
                "from schemathesis.cli import schemathesis; schemathesis()",
                "--config-file",
                str(CONFIG),
                "run",
                server.url + "/openapi.json",
                *header,
                "--phases",
                "fuzzing" if keyed else "examples,coverage,fuzzing",
                "--max-examples",
                "15" if keyed else "25",
                "--request-timeout",
                "120",
                "--continue-on-failure",
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=1700,
        )
        assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
        assert server.get("/health")[0] == 200
    finally:
        server.stop()
