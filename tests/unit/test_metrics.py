"""What `promtool check metrics` would say, said by prometheus_client's own parser and promtool's rules; and the names that dashboards query."""

from __future__ import annotations

import asyncio
import math
import re
import shutil
import subprocess
from collections.abc import Iterable

import prometheus_client
import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from vsrv.log import RequestRecord
from vsrv.messages import Beat, Ready
from vsrv.metrics import OTHER, Metrics, QueueState

RECORD = RequestRecord(
    "id", "k", "POST", "/v1/completions", 200, "1.2.3.4", 1.0, "t", "/v1/completions", 100, 20, 32, 50, 1, 0.1, 0.2, "stop"
)  # fmt: skip
# promtool's list of abbreviated and non-base units (prometheus/util/promlint)
BAD_UNITS = set(
    "s ms us ns sec b kb mb gb tb pb m h d milliseconds microseconds nanoseconds minutes hours days kilobytes megabytes percent".split()
)
DASHBOARD = """vllm:num_requests_running vllm:num_requests_waiting vllm:num_requests_waiting_by_reason vllm:kv_cache_usage_perc vllm:prompt_tokens_total
vllm:generation_tokens_total vllm:request_success_total vllm:time_to_first_token_seconds vllm:inter_token_latency_seconds
vllm:e2e_request_latency_seconds vllm:request_queue_time_seconds vllm:request_prefill_time_seconds vllm:request_decode_time_seconds
vllm:request_inference_time_seconds vllm:request_time_per_output_token_seconds vllm:request_prompt_tokens vllm:request_generation_tokens
vllm:request_params_n vllm:request_params_max_tokens vllm:prefix_cache_queries_total vllm:prefix_cache_hits_total vllm:num_preemptions_total
vllm:prompt_tokens_cached_total vllm:request_prefill_kv_computed_tokens vllm:admission_rejections_total vllm:cache_config_info
vllm:iteration_tokens_total""".split()
ODD = "vllm:iteration_tokens_total"  # vLLM's histogram with a counter's name


class Times:
    arrival, granted, first_token, last_token = 10.0, 10.1, 10.2, 11.0


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics("org/model")
    counters = {"generation_tokens": 7.0, "finished_stop": 3.0, "computed_tokens": 20_040.0}
    made.beat = Beat(9, 2, 1, 0.25, counters, (2, 5, *[0] * 11, 1))
    made.ready = Ready(400, 200, 8, 64, 32, 10, 20, "float32", "cpu", "Fake")
    made.queue = QueueState(5, 600, 7000, 1.5)
    made.certificate_expiry = lambda: 2_000_000_000.0
    made.request_finished(RECORD)
    made.generation_finished(RECORD, Times)
    made.rejected("max_num_queued_reqs")
    made.first_token(0.1)
    made.inter_token(0.01)
    made.engine_stalled()
    made.engine_restarted()
    return made


def text_of(metrics: Metrics) -> str:
    return asyncio.run(metrics.exposition(""))[0].decode()


OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def test_the_pieces_are_the_librarys_text(metrics: Metrics) -> None:
    def still(text: bytes) -> list[str]:
        return [
            line
            for line in text.decode().splitlines()
            if not re.match(r"process_|vsrv_certificate_expiry_s", line)
        ]

    assert still(text_of(metrics).encode()) == still(prometheus_client.generate_latest(metrics.registry))
    whole = openmetrics.generate_latest(metrics.registry)  # type: ignore[no-untyped-call]
    assert still(asyncio.run(metrics.exposition(OPENMETRICS))[0]) == still(whole)


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_a_scrape_lets_others_go_between_families(metrics: Metrics, accept: str) -> None:
    """Turns of the event loop beside one scrape: as many as there are families."""

    async def main() -> int:
        scrape, turns = asyncio.create_task(metrics.exposition(accept)), 0
        while not scrape.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(main()) > 40


def test_a_flood_of_scrapes_shares_what_is_not_begun_yet(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered, real = [], metrics.registry.collect
    monkeypatch.setattr(metrics.registry, "collect", lambda: rendered.append(1) or real())

    async def main() -> None:
        first = asyncio.create_task(metrics.exposition(""))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # it has begun
        metrics.engine_restarted()
        flood = [asyncio.create_task(metrics.exposition("")) for _ in range(100)]
        await asyncio.sleep(0)
        flood[0].cancel()  # whoever leaves leaves the others their answer
        texts = {(await task)[0] for task in flood[1:]}
        assert len(texts) == 1 and b"vsrv_engine_restarts_total 2.0" in texts.pop()
        assert (await first)[0].startswith(b"# HELP")

    asyncio.run(main())
    assert len(rendered) == 2


def test_the_text_is_strictly_well_formed(metrics: Metrics) -> None:
    text = text_of(metrics)
    assert problems(text) == []
    families = list(parse(text))
    assert len(families) > 40
    body, kind = asyncio.run(metrics.exposition(OPENMETRICS))
    assert kind.startswith("application/openmetrics-text") and body.endswith(b"# EOF\n")
    assert {f.name for f in parse_openmetrics(body.decode())} >= {"vllm:prompt_tokens", "vsrv_engine_steps"}


def problems(text: str) -> list[str]:
    """promtool's lint and the format's own rules. The colon in vLLM's names is the one thing that promtool dislikes and dashboards need."""
    found: list[str] = []
    declared: dict[str, str] = {}
    helped: set[str] = set()
    current = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            found += [f"HELP twice: {name}"] if name in helped else []
            found += (
                [f"no help text: {name}"]
                if len(line.split(" ", 3)) < 4 or not line.split(" ", 3)[3].strip()
                else []
            )
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            found += [f"TYPE twice: {name}"] if name in declared else []
            found += [f"TYPE before HELP: {name}"] if name not in helped else []
            declared[name], current = kind, name
            found += name_problems(name, kind)
        elif not re.match(rf"{re.escape(current)}(_bucket|_sum|_count)?[{{ ]", line):
            found.append(f"a sample outside its family: {line[:80]}")
    found += sample_problems(parse(text))
    return found


def name_problems(name: str, kind: str) -> list[str]:
    base = name.removeprefix("vllm:")
    words = set(base.split("_"))
    found = [] if re.fullmatch(r"[a-z][a-z0-9_]*", base) else [f"not snake_case, or a colon: {name}"]
    if (kind == "counter") != base.endswith("_total") and name != ODD:
        found.append(f"{kind} without or with _total: {name}")
    found += [f"ends like a histogram's part: {name}"] if re.search(r"_(count|sum|bucket)$", base) else []
    found += (
        [f"has its type in its name: {name}"] if words & {"gauge", "counter", "histogram", "summary"} else []
    )
    found += [f"unit {unit}: {name}" for unit in words & BAD_UNITS]
    return found


def sample_problems(families: Iterable[Metric]) -> list[str]:
    found: list[str] = []
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for family in families:
        buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            found += [f"sample twice: {sample.name}{labels}"] if (sample.name, labels) in seen else []
            seen.add((sample.name, labels))
            found += [f"not finite: {sample}"] if not math.isfinite(sample.value) else []
            found += (
                [f"le or quantile on a {family.type}: {sample.name}"]
                if ({"le", "quantile"} & set(sample.labels) and family.type not in ("histogram", "summary"))
                else []
            )
            if sample.name.endswith("_bucket"):
                rest = tuple(pair for pair in labels if pair[0] != "le")
                buckets.setdefault(rest, []).append((float(sample.labels["le"]), sample.value))
        for rows in buckets.values():
            found += [f"buckets out of order: {family.name}"] if rows != sorted(rows) else []
            found += [f"no +Inf: {family.name}"] if rows[-1][0] != math.inf else []
    return found


@pytest.mark.parametrize(
    "text, problem",
    [
        ("# HELP a b\n# TYPE a gauge\na 1\na 2\n", "sample twice"), ("# TYPE a gauge\na 1\n", "TYPE before HELP"),
        ("# HELP a b\n# TYPE a counter\na 1\n", "without or with _total"), ("# HELP a_total b\n# TYPE a_total gauge\na_total 1\n", "without or with"),
        ("# HELP aB b\n# TYPE aB gauge\naB 1\n", "snake_case"), ("# HELP x:a b\n# TYPE x:a gauge\nx:a 1\n", "colon"),
        ("# HELP a_ms b\n# TYPE a_ms gauge\na_ms 1\n", "unit ms"),
        ("# HELP a b\n# TYPE a gauge\na NaN\n", "not finite"), ("# HELP a b\n# TYPE a gauge\nb 1\n", "outside its family"),
        ("# HELP a \n# TYPE a gauge\na 1\n", "no help text"),
        ("# HELP a b\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_count 1\na_sum 1\n", "no +Inf"),
        ("# HELP a b\n# TYPE a gauge\n# HELP a b\n# TYPE a gauge\na 1\n", "twice"),
    ],
)  # fmt: skip
def test_the_check_itself_finds_what_is_wrong(text: str, problem: str) -> None:
    assert any(problem in found for found in problems(text)), problems(text)


@pytest.mark.parametrize("name", DASHBOARD)
def test_names_and_labels_of_public_dashboards(metrics: Metrics, name: str) -> None:
    families = {s.name: f for f in parse(text_of(metrics)) for s in f.samples}
    sample_name = name if name in families else f"{name}_count"
    labels = [s.labels for s in families[sample_name].samples if s.name == sample_name]
    for table in labels:
        assert table.get("model_name", "org/model") == "org/model" and table.get("engine", "0") == "0"
        assert "model_name" in table or name == "vllm:cache_config_info"
        assert "engine" in table or name == "vllm:admission_rejections_total"


def test_promtool_objects_to_vllms_names_and_nothing_else(metrics: Metrics) -> None:
    """`promtool check metrics` (Debian: prometheus) of the names that have to stay, because every vLLM dashboard queries them."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    command = [promtool, "check", "metrics"]
    done = subprocess.run(command, input=text_of(metrics), capture_output=True, text=True, timeout=60)
    said = (done.stdout + done.stderr).strip().splitlines()
    odd = f'{ODD} non-counter metrics should not have "_total" suffix'
    colon = re.compile(r"vllm:\w+ metric names should not contain ':'")
    assert said and [line for line in said if line != odd and not colon.fullmatch(line)] == []


def value(metrics: Metrics, name: str, **labels: str) -> float:
    for family in parse(text_of(metrics)):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    raise AssertionError(f"no sample {name}{labels}")


def test_values(metrics: Metrics) -> None:
    assert value(metrics, "vllm:num_requests_waiting") == 6  # in front of the engine and in it
    assert value(metrics, "vllm:num_requests_waiting_by_reason", reason="deferred") == 1
    steps = {le: value(metrics, f"{ODD}_bucket", le=le) for le in ("1.0", "8.0", "16384.0", "+Inf")}
    assert steps == {"1.0": 2, "8.0": 7, "16384.0": 7, "+Inf": 8}
    assert (value(metrics, f"{ODD}_sum"), value(metrics, f"{ODD}_count")) == (20_040, 8)
    assert value(metrics, "vllm:request_queue_time_seconds_sum") == pytest.approx(0.1)
    assert value(metrics, "vllm:request_prefill_time_seconds_sum") == pytest.approx(0.1)
    assert value(metrics, "vllm:request_decode_time_seconds_sum") == pytest.approx(0.8)
    assert value(metrics, "vllm:request_inference_time_seconds_sum") == pytest.approx(0.9)
    assert value(metrics, "vllm:request_time_per_output_token_seconds_sum") == pytest.approx(0.8 / 19)
    assert value(metrics, "vllm:request_prefill_kv_computed_tokens_sum") == 68
    assert value(metrics, "vllm:prompt_tokens_cached_total") == 32
    assert value(metrics, "vllm:request_success_total", finished_reason="stop") == 3
    assert value(metrics, "vsrv_certificate_expiry_timestamp_seconds") == 2_000_000_000
    assert value(metrics, "vsrv_engine_stalls_total") == value(metrics, "vsrv_engine_restarts_total") == 1
    assert (value(metrics, "vsrv_queue_age_seconds"), value(metrics, "vsrv_queue_bytes")) == (1.5, 7000)
    assert value(metrics, "vsrv_tenant_tokens_total", tenant="t", kind="prompt") == 100


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_many_samples_of_one_family_are_rendered_in_turns(accept: str) -> None:
    """One turn of the event loop for 64 samples at most; together they are one family again."""
    metrics, turns = Metrics("m"), [0]
    for number in range(90):
        for status in (200, 429):
            record = RequestRecord("i", "k", "GET", "/", status, "c", 0.1, f"tenant-{number}")
            metrics.request_finished(record)

    async def main() -> str:
        async def count() -> None:
            while True:
                turns[0] += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        body = (await metrics.exposition(accept))[0].decode()
        counting.cancel()
        return body

    body = asyncio.run(main())
    families = list(metrics.registry.collect())
    assert turns[0] >= sum(max(1, -(-len(family.samples) // 64)) for family in families) > len(families) + 4
    reader = parse_openmetrics if accept else parse
    read = {family.name: family for family in reader(body)}
    assert len(read["vsrv_tenant_requests"].samples) == 180
    assert len(read["vsrv_tenant_tokens"].samples) == 270
    assert body.count("# TYPE vsrv_tenant_tokens") == 1


def test_tenants_cannot_fill_a_prometheus(metrics: Metrics) -> None:
    for number in range(1000):
        metrics.request_finished(RequestRecord("i", "k", "GET", "/", 200, "c", 0.1, f"tenant-{number}"))
    tenants = {s.labels["tenant"] for f in parse(text_of(metrics)) for s in f.samples if "tenant" in s.labels}
    assert len(tenants) == 101 and OTHER in tenants and "t" in tenants
    assert value(metrics, "vsrv_tenant_requests_total", tenant=OTHER) == 901
    hidden = Metrics("m", tenant_series=False)
    hidden.request_finished(RECORD)
    assert "tenant" not in text_of(hidden)
