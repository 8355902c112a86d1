"""The wall clock may be set at any time: no deadline, limit or pause follows it."""

from __future__ import annotations

import ast
import itertools
import time
from pathlib import Path

import pytest
from served import Setup, Site, save_tokenizer

from vsrv.api.admission import AdmissionLimits
from vsrv.keyfile import KeyFile, KeyRecord, RateLimits, hashed, write_key_file

PACKAGE = Path(__file__).resolve().parents[2] / "vsrv"
MEASURING = [
    *sorted(path.relative_to(PACKAGE) for path in (PACKAGE / "engine").glob("*.py")),
    *map(
        Path,
        "api/admission.py api/fairness.py api/generation.py api/intake.py api/limits.py api/sse.py engine_client.py http/protocol.py "
        "http/server.py prepare_client.py prepare_worker.py supervisor.py systemd.py".split(),
    ),
]
WALL = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "datetime.utcnow"}


@pytest.mark.parametrize("path", MEASURING, ids=str)
def test_modules_with_deadlines_do_not_ask_for_the_time_of_day(path: Path) -> None:
    tree = ast.parse((PACKAGE / path).read_text())
    attributes = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not attributes & WALL


def test_a_clock_that_jumps_by_days_ends_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the time of day is a day before or after the last one, beside limits of seconds."""
    save_tokenizer(tmp_path)
    limits = RateLimits(requests_per_minute=40, tokens_per_minute=100_000)
    file = tmp_path / "keys.toml"
    write_key_file(file, KeyFile((KeyRecord("a", hashed("secret"), "a", limits=limits),)))
    real, days = time.time, itertools.cycle((86400.0, -86400.0))
    queue = AdmissionLimits(4, 1000, queue_timeout_s=5.0)
    site = Site(tmp_path, Setup(key_file=file, request_timeout_s=5.0, limits=queue))
    try:
        monkeypatch.setattr(time, "time", lambda: real() + next(days))
        for count in range(12):
            body = {"prompt": "hello", "max_tokens": 8, "stream": count % 2 == 1}
            status, headers, data = site.request("POST", "/v1/completions", body, {"x-api-key": "secret"})
            assert status == 200 and b"error" not in data
        left = int(headers["x-ratelimit-remaining-requests"])
        assert 28 <= left < 38, "an allowance was filled up or taken away"
        monkeypatch.undo()
    finally:
        site.stop()
