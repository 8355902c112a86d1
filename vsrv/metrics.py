"""Prometheus metrics: vLLM's names, which public dashboards query, and vsrv's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics

from vsrv.log import RequestRecord
from vsrv.messages import Beat, Ready

_TTFT = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
    640,
)
_ITL = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10)
_LATENCY = (
    0.01,
    0.05,
    0.1,
    0.3,
    0.5,
    0.8,
    1,
    1.5,
    2,
    2.5,
    5,
    10,
    15,
    20,
    30,
    40,
    50,
    60,
    120,
    240,
    480,
    960,
    1920,
)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
_FINISHED = ("stop", "length", "abort", "error")


class Metrics:
    """Owned by the front's event loop. Engine counters are read from its newest Beat when a scrape comes."""

    def __init__(self, model_name: str) -> None:
        self._labels = {"model_name": model_name, "engine": "0"}
        self.registry = prometheus_client.CollectorRegistry()
        self.beat: Beat | None = None
        self.ready: Ready | None = None
        names = list(self._labels)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Any:
            made = prometheus_client.Histogram(name, text, names, buckets=buckets, registry=self.registry)
            return made.labels(**self._labels)

        self._ttft = histogram("vllm:time_to_first_token_seconds", "Arrival to first token", _TTFT)
        self._itl = histogram("vllm:inter_token_latency_seconds", "Gap between outputs of a sequence", _ITL)
        self._e2e = histogram("vllm:e2e_request_latency_seconds", "Arrival to last token", _LATENCY)
        self._prompt = histogram("vllm:request_prompt_tokens", "Prompt length", _TOKENS)
        self._generated = histogram("vllm:request_generation_tokens", "Output length", _TOKENS)
        self._max_tokens = histogram("vllm:request_params_max_tokens", "Requested max_tokens", _TOKENS)
        self._n = histogram("vllm:request_params_n", "Requested n", (1, 2, 5, 10, 20))
        self._rejected = prometheus_client.Counter(
            "vllm:admission_rejections",
            "Requests refused because of load",
            ["model_name", "reason"],
            registry=self.registry,
        )
        self._responses = prometheus_client.Counter(
            "vsrv:http_responses", "Answers by route and status", ["path", "status"], registry=self.registry
        )
        self.registry.register(_EngineCollector(self))
        prometheus_client.ProcessCollector(registry=self.registry)

    @property
    def labels(self) -> dict[str, str]:
        return self._labels

    def first_token(self, ttft_s: float) -> None:
        self._ttft.observe(ttft_s)

    def inter_token(self, seconds: float) -> None:
        self._itl.observe(seconds)

    def rejected(self, reason: str) -> None:
        self._rejected.labels(model_name=self._labels["model_name"], reason=reason).inc()

    def request_finished(self, record: RequestRecord, route: str) -> None:
        """`route` is the pattern, never the client's path: it bounds the number of series."""
        self._responses.labels(path=route, status=str(record.status)).inc()
        if record.prompt_tokens and record.status == 200:
            self._e2e.observe(record.total_s)
            self._prompt.observe(record.prompt_tokens)
            self._generated.observe(record.completion_tokens)
            self._max_tokens.observe(record.max_tokens)
            self._n.observe(record.n)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Text exposition, OpenMetrics if the scraper asks for it → (body, content type)."""
        if "application/openmetrics-text" in accept:
            text: bytes = openmetrics.generate_latest(self.registry)  # type: ignore[no-untyped-call]
            return text, openmetrics.CONTENT_TYPE_LATEST
        return prometheus_client.generate_latest(self.registry), "text/plain; version=0.0.4; charset=utf-8"


class _EngineCollector:
    """Queues, cache and token counters out of the newest Beat; zeros before the first."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        beat = self._metrics.beat or Beat(0, 0, 0, 0.0)
        names, values = list(self._metrics.labels), list(self._metrics.labels.values())
        for name, text, value in (
            ("vllm:num_requests_running", "Sequences in the batch", beat.num_running),
            ("vllm:num_requests_waiting", "Sequences that wait", beat.num_waiting),
            ("vllm:kv_cache_usage_perc", "Used share of KV blocks, 0 to 1", beat.kv_usage),
            ("vsrv:engine_steps", "Finished engine steps", beat.step),
        ):
            gauge = GaugeMetricFamily(name, text, labels=names)
            gauge.add_metric(values, float(value))
            yield gauge
        for name, key, text in (
            ("vllm:prompt_tokens", "prompt_tokens", "Prompt tokens of started sequences"),
            ("vllm:generation_tokens", "generation_tokens", "Produced tokens"),
            ("vllm:prefix_cache_queries", "prefix_cache_queries", "Tokens looked up in the prefix cache"),
            ("vllm:prefix_cache_hits", "prefix_cache_hits", "Tokens found in the prefix cache"),
            ("vllm:num_preemptions", "preemptions", "Sequences pushed out for memory"),
        ):
            counter = CounterMetricFamily(name, text, labels=names)
            counter.add_metric(values, beat.counters.get(key, 0.0))
            yield counter
        finished = CounterMetricFamily(
            "vllm:request_success", "Ended sequences", labels=[*names, "finished_reason"]
        )
        for reason in _FINISHED:
            finished.add_metric([*values, reason], beat.counters.get(f"finished_{reason}", 0.0))
        yield finished
        ready = self._metrics.ready
        if ready is not None:
            info = GaugeMetricFamily(
                "vllm:cache_config_info",
                "Sizes of the KV cache",
                labels=["engine", "block_size", "num_gpu_blocks", "cache_dtype"],
            )
            info.add_metric(["0", str(ready.block_size), str(ready.num_blocks), ready.dtype], 1.0)
            yield info
