"""slowhttptest (Debian's package of that name) in its three modes: 1000 connections, and the service is there all the time.

.venv/bin/python -m pytest -q -s -m slow tests/blackbox/test_slowhttptest.py
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from started import Server, start

CONNECTIONS, RATE = 1000, 200
MODES = {  # options, path, the longest that our server lets such a client be
    "slow head": (["-H", "-i", "5", "-l", "40"], "/livez", 11.0),
    "slow body": (
        ["-B", "-i", "5", "-s", "100000", "-f", "application/json", "-l", "50"],
        "/v1/completions",
        31.0,
    ),
    "slow read": (
        ["-X", "-w", "10", "-y", "20", "-n", "5", "-z", "32", "-k", "3", "-l", "40"],
        "/metrics",
        None,
    ),
}


def probe(server: Server, times: list[float], ended: threading.Event) -> None:
    """Times of /livez, each over its own connection; a failure is infinite."""
    while not ended.wait(0.05):
        began = time.monotonic()
        try:
            status = server.get("/livez")[0]
        except OSError:
            status = 0
        times.append(time.monotonic() - began if status == 200 else float("inf"))


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("mode", MODES)
def test_the_service_stays_available(tmp_path: Path, mode: str) -> None:
    program = shutil.which("slowhttptest")
    if program is None:
        pytest.skip("slowhttptest is not installed: apt-get install slowhttptest")
    options, path, patience = MODES[mode]
    server = start("--max-connections", "2048")
    try:
        server.wait_ready()
        times: list[float] = []
        ended = threading.Event()
        prober = threading.Thread(target=probe, args=(server, times, ended))
        prober.start()
        command = [
            program,
            *options,
            "-c",
            str(CONNECTIONS),
            "-r",
            str(RATE),
            "-p",
            "3",
            "-u",
            server.url + path,
        ]
        try:
            done = subprocess.run(
                [*command, "-g", "-o", str(tmp_path / "figures")], capture_output=True, text=True, timeout=120
            )
        finally:
            ended.set()
            prober.join()
        assert server.get("/readyz")[0] == 200
    finally:
        assert server.stop() == 0
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "figures.csv").open() as file:
        rows = list(csv.DictReader(file))
    connected = [int(row["Connected"]) for row in rows]
    available = [int(row["Service Available"]) > 0 for row in rows[1:]]
    times.sort()
    print(
        f"slowhttptest, {mode}: at most {max(connected)} connections, service available in {sum(available)} of {len(available)} "
        f"seconds, {len(times)} probes beside them, p99 {times[len(times) * 99 // 100] * 1000:.0f} ms, slowest {times[-1] * 1000:.0f} ms"
    )
    assert max(connected) > CONNECTIONS // 2, "the attack did not take place"
    assert all(available) and times[-1] < 3
    if patience is not None:
        begun = max(
            int(row["Seconds"]) for row in rows if int(row["Pending"]) > 0 or int(row["Connected"]) > 0
        )
        assert begun <= CONNECTIONS / RATE + patience + 5, "connections outlived their time limit"
