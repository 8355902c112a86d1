"""`vsrv bench` against a scripted OpenAI server: what it sends, what it counts, and what it says about failures."""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vsrv import cli
from vsrv.bench import Sample, percentile, run, summary
from vsrv.config import BenchOptions
from vsrv.errors import ConfigError

FIRST_S, NEXT_S = 0.03, 0.01


class Site(ThreadingHTTPServer):
    """Streams `max_tokens` chunks. `faults` says by number of the streamed request what goes wrong with it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.streamed: list[dict[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.faults: dict[int, str] = {}
        self.takes_ids = self.chunked = True
        self.gate: threading.Barrier | None = None
        self.lock, self.running, self.most = threading.Lock(), 0, 0


class Handler(BaseHTTPRequestHandler):
    server: Site
    protocol_version = "HTTP/1.1"
    timeout = 30
    counted = 0

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        self.server.heads.append(dict(self.headers))
        if self.path != "/v1/models" or self.server.faults.get(-1):
            return self.whole(401, {"error": {"message": "a key is needed"}})
        self.whole(200, {"data": [{"id": "first"}, {"id": "second"}]})

    def whole(self, status: int, table: dict[str, Any]) -> None:
        data = json.dumps(table).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        site, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        site.heads.append(dict(self.headers))
        if not body.get("stream"):
            return self.whole(200 if site.takes_ids else 400, {"choices": []})
        with site.lock:
            fault = site.faults.get(len(site.streamed), "")
            site.streamed.append({**body, "path": self.path})
            site.running += 1
            self.counted = 1
            site.most = max(site.most, site.running)
        try:
            if fault == "503":
                return self.whole(503, {"error": {"message": "busy"}})
            self.stream(body, fault)
        finally:
            self.leave()

    def leave(self) -> None:
        """The request counts as running until the client knows its end."""
        with self.server.lock:
            self.server.running -= self.counted
            self.counted = 0

    def stream(self, body: dict[str, Any], fault: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if self.server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.server.gate is not None:
            self.server.gate.wait(60)
        chat = "messages" in body
        if chat:
            self.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        for index in range(0 if fault == "nothing" else body["max_tokens"]):
            time.sleep(NEXT_S if index else FIRST_S)
            self.event(
                {"choices": [{"index": 0, **({"delta": {"content": "x"}} if chat else {"text": "x"})}]}
            )
            if fault == "error":
                self.event({"error": {"message": "the engine ended"}})
            if fault in ("error", "cut"):
                return
        details = {"cached_tokens": 4}
        usage = {
            "prompt_tokens": 10,
            "completion_tokens": body["max_tokens"],
            "prompt_tokens_details": details,
        }
        self.event({"choices": [], "usage": usage})
        self.event("[DONE]")
        if self.server.chunked:
            self.leave()
            self.wfile.write(b"0\r\n\r\n")

    def event(self, table: Any) -> None:
        data = (
            b"data: " + (table.encode() if isinstance(table, str) else json.dumps(table).encode()) + b"\n\n"
        )
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if self.server.chunked else data)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def measured(site: Site, folder: Path, **options: Any) -> tuple[int, dict[str, Any]]:
    path = folder / "figures.json"
    table: dict[str, Any] = {"num_requests": 6, "output_tokens": 3, "prompt_tokens": 12, "concurrency": 2}
    status = run(BenchOptions(url=site.url, json_path=str(path), **{**table, **options}))
    return status, json.loads(path.read_text())


@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_run_without_faults(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], api: str, chunked: bool
) -> None:
    site.chunked = chunked
    status, figures = measured(site, tmp_path, api=api, api_key="sk-very-secret")
    assert status == 0 and (figures["requests"], figures["failed"], figures["errors"]) == (6, 0, {})
    assert (figures["model"], figures["api"], figures["concurrency"]) == ("first", api, 2)
    assert (figures["output_tokens"], figures["prompt_tokens"], figures["cached_tokens"]) == (18, 60, 24)
    least = {"ttft_ms": FIRST_S, "e2e_ms": FIRST_S + 2 * NEXT_S, "itl_ms": 0, "tpot_ms": 0}
    for name, seconds in least.items():
        row = figures[name]
        assert seconds * 1e3 < row["p50"] <= row["p90"] <= row["p99"] == row["max"], name
        assert seconds * 1e3 < row["mean"] <= row["max"]
    assert figures["ttft_ms"]["max"] < figures["e2e_ms"]["max"] < figures["wall_s"] * 1e3
    assert figures["output_tokens_per_s"] == pytest.approx(18 / figures["wall_s"], rel=0.1)
    assert figures["requests_per_s"] == pytest.approx(6 / figures["wall_s"], rel=0.1)
    assert len(site.streamed) == 7, "one warm-up and six requests"
    path = "/v1/chat/completions" if api == "chat" else "/v1/completions"
    for body in site.streamed:
        assert (body["path"], body["model"], body["max_tokens"]) == (path, "first", 3)
        assert body["ignore_eos"] is True and body["stream_options"] == {"include_usage": True}
        words = body["messages"][0]["content"].split() if api == "chat" else body["prompt"]
        assert len(words) == 12 and (api == "chat" or all(isinstance(token, int) for token in words))
    assert site.most <= 2 and all(h["Authorization"] == "Bearer sk-very-secret" for h in site.heads)
    printed = capsys.readouterr()
    assert "6 requests, 0 failed, concurrency 2" in printed.out and "ttft" in printed.out
    assert "secret" not in printed.out + printed.err + (tmp_path / "figures.json").read_text()


def test_failures_are_counted_and_told(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.faults = {1: "503", 2: "503", 3: "error", 4: "cut", 5: "nothing"}  # 0 is the warm-up
    status, figures = measured(site, tmp_path, concurrency=1)
    assert status == 1 and (figures["requests"], figures["failed"], figures["output_tokens"]) == (6, 5, 3)
    assert sorted(figures["errors"].values()) == [1, 1, 1, 2]
    told = "\n".join(figures["errors"])
    assert all(text in told for text in ("503", "busy", "the engine ended", "ended early", "no output"))
    assert "error     2 x 503" in capsys.readouterr().out


def test_as_many_requests_at_once_as_asked(site: Site, tmp_path: Path) -> None:
    site.gate = threading.Barrier(3)  # opens only for three at once
    status, figures = measured(site, tmp_path, concurrency=3, warmup=0)
    assert (status, figures["failed"], site.most) == (0, 0, 3)


def test_a_request_rate_waits_for_no_answer(site: Site, tmp_path: Path) -> None:
    site.gate = threading.Barrier(5)
    options = {"num_requests": 5, "concurrency": 1, "warmup": 0, "seed": 3, "request_rate": 50.0}
    status, figures = measured(site, tmp_path, **options)
    assert (status, figures["failed"], figures["request_rate"]) == (0, 0, 50.0)
    arrivals = random.Random(4)
    assert figures["wall_s"] > 0.95 * sum(arrivals.expovariate(50.0) for _ in range(5))
    for rate in (0.0, -1.0):
        with pytest.raises(ConfigError, match="--request-rate"):
            measured(site, tmp_path, request_rate=rate)


@pytest.mark.parametrize("takes_ids", [True, False])
def test_prompts_share_their_beginning(site: Site, tmp_path: Path, takes_ids: bool) -> None:
    site.takes_ids = takes_ids
    assert measured(site, tmp_path, shared_prefix_tokens=8, seed=1)[0] == 0
    prompts = [body["prompt"] if takes_ids else body["prompt"].split() for body in site.streamed]
    assert all(len(prompt) == 12 and prompt[:8] == prompts[0][:8] for prompt in prompts)
    assert len({tuple(prompt[8:]) for prompt in prompts}) == 7
    site.streamed.clear()
    measured(site, tmp_path, shared_prefix_tokens=8, seed=1)
    again = [body["prompt"] if takes_ids else body["prompt"].split() for body in site.streamed]
    assert sorted(again) == sorted(prompts), "the seed gives the same prompts"


@pytest.mark.parametrize("n", [1, 2, 3, 6, 10, 101])
@pytest.mark.parametrize("q", [1, 50, 90, 99, 100])
def test_percentiles_are_nearest_rank(n: int, q: int) -> None:
    values = [float(value) for value in range(1, n + 1)]
    random.Random(n).shuffle(values)
    assert percentile(values, q) == math.ceil(q * n / 100)


def test_figures_of_known_samples() -> None:
    samples = [
        Sample(200, "", 5, 2, 3, 0.5, [0.1, 0.2, 0.4]),
        Sample(200, "", 5, 0, 4, 1.0, [0.3, 0.6]),  # two tokens in one chunk are one gap
        Sample(200, "broken off", 5, 0, 1, 0.2, [0.1]),
        Sample(429, "", 0, 0, 0, 0.1, []),
    ]
    figures = summary(BenchOptions(url="u", concurrency=2), "m", samples, 2.0)
    assert (figures["requests"], figures["failed"]) == (4, 2)
    assert figures["errors"] == {"200 broken off": 1, "429 ": 1}
    assert (figures["output_tokens"], figures["output_tokens_per_s"], figures["requests_per_s"]) == (
        7,
        3.5,
        1.0,
    )
    assert (figures["prompt_tokens"], figures["cached_tokens"], figures["decode_tokens_per_s"]) == (
        10,
        2,
        10.0,
    )
    assert figures["ttft_ms"] == {"mean": 200.0, "p50": 100.0, "p90": 300.0, "p99": 300.0, "max": 300.0}
    assert figures["itl_ms"] == {"mean": 200.0, "p50": 200.0, "p90": 300.0, "p99": 300.0, "max": 300.0}
    assert figures["tpot_ms"]["p50"] == 100.0 and figures["tpot_ms"]["max"] == 150.0
    assert summary(BenchOptions(url="u"), "m", samples[2:], 1.0)["ttft_ms"] is None


def test_a_server_that_cannot_be_measured(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.faults = {-1: "no key"}
    assert cli.main(["bench", "--url", site.url]) == 78
    assert "is --api-key right" in capsys.readouterr().err
    site.faults = {0: "503"}
    assert cli.main(["bench", "--url", site.url]) == 78
    assert "warm-up" in capsys.readouterr().err
    for more in ([], ["--model", "m"], ["--model", "m", "--api", "chat"]):
        assert cli.main(["bench", "--url", "http://127.0.0.1:1", *more]) == 69
        assert "127.0.0.1:1" in capsys.readouterr().err
    assert cli.main(["bench", "--url", "ftp://127.0.0.1"]) == 78
