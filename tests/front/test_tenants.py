"""Keys, limits, the queue and the log line through the real HTTP server, with the real openai client and a scripted engine."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
from served import Setup, Site

from vsrv.api.admission import AdmissionLimits
from vsrv.api.auth import KeyPolicy
from vsrv.api.fairness import EngineRoom
from vsrv.errors import EngineError
from vsrv.keyfile import KeyFile, KeyRecord, RateLimits, TenantRecord, hashed, write_key_file

HELLO = [{"role": "user", "content": "hi"}]
PROMPT = {"prompt": "hello there", "max_tokens": 4}


@contextlib.contextmanager
def running(folder: Path, **changes: Any) -> Iterator[Site]:
    site = Site(folder, Setup(**changes))
    try:
        yield site
        until(
            lambda: site.admission.sequences == 0 and site.admission.tokens == 0 and site.admission.bytes == 0
        )
    finally:
        site.stop()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.002)


def client(site: Site, key: str = "none", retries: int = 0) -> openai.OpenAI:
    made = openai.OpenAI(base_url=f"http://127.0.0.1:{site.port}/v1", api_key=key, max_retries=retries)
    return site.clients.enter_context(made)


def keyed(*records: KeyRecord, tenants: dict[str, TenantRecord] | None = None, path: Path) -> Path:
    write_key_file(path, KeyFile(records, tenants or {}))
    return path


def record(name: str, **changes: Any) -> KeyRecord:
    return KeyRecord(**{"id": name, "hash": hashed(f"secret-of-{name}"), "tenant": name, **changes})


def opened(site: Site, body: dict[str, Any], key: str = "") -> socket.socket:
    """A request whose answer nobody reads yet."""
    data = orjson.dumps(body)
    connection = site.clients.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=5))
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nx-api-key: {key}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    connection.sendall(head.encode() + data)
    return connection


def answer(connection: socket.socket) -> tuple[int, bytes]:
    import http.client

    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return response.status, response.read()


def request_lines(site: Site) -> list[dict[str, Any]]:
    return [
        line
        for text in site.lines
        if text.startswith("{") and (line := json.loads(text))["message"] == "request"
    ]


# keys


def test_the_openai_client_sees_401_and_403_as_what_they_are(folder: Path, tmp_path: Path) -> None:
    path = keyed(record("web"), record("probe", scopes=("metrics",)), path=tmp_path / "k.toml")
    with running(folder, key_file=path, policy=KeyPolicy(metrics_need_key=True)) as site:
        good = client(site, "secret-of-web")
        assert good.completions.create(model="m", **PROMPT).choices
        with pytest.raises(openai.AuthenticationError) as unknown:
            client(site, "secret-of-nobody").models.list()
        assert (
            unknown.value.code == "invalid_api_key"
            and "x-ratelimit-limit-requests" not in unknown.value.response.headers
        )
        with pytest.raises(openai.PermissionDeniedError) as denied:
            client(site, "secret-of-probe").models.list()
        assert denied.value.code == "insufficient_scope" and denied.value.type == "permission_error"
        assert site.request("GET", "/metrics")[0] == 401
        assert site.request("GET", "/metrics", None, {"x-api-key": "secret-of-web"})[0] == 403
        assert site.request("GET", "/metrics", None, {"Authorization": "Bearer secret-of-probe"})[0] == 200
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            assert site.request(method, "/v1/nothing")[0] == 401, "a path must not be told before a key"
        assert site.request("GET", "/v1/nothing", None, {"x-api-key": "secret-of-web"})[0] == 404
        for probe in ("/livez", "/readyz", "/health"):
            assert site.request("GET", probe)[0] == 200
        text = "".join(site.lines)
        assert "secret-of" not in text and '"key_id": "web"' in text


def test_keys_are_swapped_under_load_and_nobody_fails(folder: Path, tmp_path: Path) -> None:
    """100 reloads, every second one of a broken file, while a client works: not one request is lost."""
    path = keyed(record("a"), path=tmp_path / "k.json")
    with running(folder, key_file=path) as site:
        stop, statuses = threading.Event(), []

        def work() -> None:
            while not stop.is_set():
                statuses.append(
                    site.request("POST", "/v1/completions", PROMPT, {"x-api-key": "secret-of-a"})[0]
                )

        worker = threading.Thread(target=work)
        worker.start()
        reloaded = 0
        for number in range(100):
            if number % 2:
                path.write_text('{"keys": [')
            else:
                keyed(record("a"), record(f"b{number}"), path=path)
            reloaded += site.call(called(site.app.reload))
        keyed(record("b"), path=path)
        stop.set()
        worker.join()
        assert reloaded == 50 and set(statuses) == {200} and len(statuses) > 20
        assert site.call(called(site.app.reload)) is True
        assert site.request("POST", "/v1/completions", PROMPT, {"x-api-key": "secret-of-a"})[0] == 401
        assert site.request("POST", "/v1/completions", PROMPT, {"x-api-key": "secret-of-b"})[0] == 200


async def called(function: Callable[[], Any]) -> Any:
    return function()


def test_prompt_caches_are_shared_by_the_keys_of_a_tenant_only(folder: Path, tmp_path: Path) -> None:
    path = keyed(record("a", tenant="t"), record("b", tenant="t"), record("c"), path=tmp_path / "k.toml")
    for scope, same in (("tenant", 1), ("key", 2), ("shared", 0)):
        with running(folder, key_file=path, policy=KeyPolicy(cache_scope=scope)) as site:
            for name in "abc":
                site.request("POST", "/v1/completions", PROMPT, {"x-api-key": f"secret-of-{name}"})
            assert len({generate.cache_salt for generate in site.engine.generates}) == same + 1


# limits of a caller: 429


def test_requests_a_minute(folder: Path, tmp_path: Path) -> None:
    limits = RateLimits(requests_per_minute=2)
    with running(
        folder, key_file=keyed(record("a", limits=limits), record("b"), path=tmp_path / "k.toml")
    ) as site:
        ours = client(site, "secret-of-a")
        raw = ours.completions.with_raw_response.create(model="m", **PROMPT)
        assert (
            raw.headers["x-ratelimit-limit-requests"] == "2"
            and raw.headers["x-ratelimit-remaining-requests"] == "1"
        )
        assert re.fullmatch(r"(29|30)(\.\d+)?s", raw.headers["x-ratelimit-reset-requests"])
        stream = ours.completions.create(model="m", stream=True, **PROMPT)
        assert stream.response.headers["x-ratelimit-remaining-requests"] == "0" and list(stream)
        with pytest.raises(openai.RateLimitError) as error:
            ours.chat.completions.create(model="m", messages=HELLO)
        assert error.value.code == "rate_limit_exceeded" and error.value.type == "rate_limit_error"
        assert 28 <= int(error.value.response.headers["retry-after"]) <= 30
        assert error.value.response.headers["x-ratelimit-remaining-requests"] == "0"
        assert ours.models.list().data, "what does not generate is not counted"
        assert client(site, "secret-of-b").completions.create(model="m", **PROMPT).choices, (
            "another key is not concerned"
        )
        assert len(site.engine.generates) == 3


def test_a_client_that_retries_gets_through(folder: Path, tmp_path: Path) -> None:
    """The client waits as long as Retry-After says and its second try succeeds."""
    limits = RateLimits(requests_per_minute=60)
    with running(folder, key_file=keyed(record("a", limits=limits), path=tmp_path / "k.toml")) as site:
        limiter = site.app._parts.limiter
        caller = site.call(site.app._parts.keys.identify(headers_with("secret-of-a"), route_class()))
        for _ in range(60):
            limiter.enter(caller).close()
        began = time.monotonic()
        assert client(site, "secret-of-a", retries=1).completions.create(model="m", **PROMPT).choices
        assert 0.5 < time.monotonic() - began < 5
        assert [line["status"] for line in request_lines(site)] == [429, 200]


def headers_with(key: str) -> Any:
    from vsrv.http.values import Headers

    return Headers([("x-api-key", key)])


def route_class() -> Any:
    from vsrv.http.route import AuthClass

    return AuthClass.INFERENCE


def test_tokens_a_minute_of_a_tenant(folder: Path, tmp_path: Path) -> None:
    tenants = {"t": TenantRecord(RateLimits(tokens_per_minute=20))}
    path = keyed(record("a", tenant="t"), record("b", tenant="t"), tenants=tenants, path=tmp_path / "k.toml")
    with running(folder, key_file=path) as site:
        first = client(site, "secret-of-a").completions.with_raw_response.create(
            model="m", prompt=[40] * 12, max_tokens=6
        )
        assert first.headers["x-ratelimit-limit-tokens"] == "20"
        assert first.headers["x-ratelimit-remaining-tokens"] == str(20 - 12 - 6)
        with pytest.raises(openai.RateLimitError) as error:
            client(site, "secret-of-b").completions.create(model="m", prompt=[40] * 12)
        assert "tenant t" in error.value.message and "2 of its 20" in error.value.message
        with pytest.raises(openai.RateLimitError) as error:
            client(site, "secret-of-b", retries=3).completions.create(model="m", prompt=[40] * 21)
        assert (
            error.value.code == "prompt_above_limit"
            and error.value.response.headers["x-should-retry"] == "false"
        )
        assert len(request_lines(site)) == 3, "the client must not try again what can never succeed"


def test_requests_at_once(folder: Path, tmp_path: Path) -> None:
    path = keyed(record("a", limits=RateLimits(max_concurrent=1)), path=tmp_path / "k.toml")
    with running(folder, key_file=path) as site:
        site.engine.mode = "hang"
        first = opened(site, PROMPT, "secret-of-a")
        until(lambda: len(site.engine.generates) == 1)
        status, headers, _ = site.request("POST", "/v1/completions", PROMPT, {"x-api-key": "secret-of-a"})
        assert status == 429 and headers["retry-after"] == "1"
        first.close()
        until(lambda: bool(site.engine.aborted))
        site.engine.mode = "reply"
        assert site.request("POST", "/v1/completions", PROMPT, {"x-api-key": "secret-of-a"})[0] == 200


def test_priority_is_bounded_by_the_key(folder: Path, tmp_path: Path) -> None:
    path = keyed(record("a", limits=RateLimits(max_priority=2)), record("b"), path=tmp_path / "k.toml")
    with running(folder, key_file=path) as site:
        for name in "ab":
            for priority in (-9, 5):
                body = {**PROMPT, "priority": priority}
                assert (
                    site.request("POST", "/v1/completions", body, {"x-api-key": f"secret-of-{name}"})[0]
                    == 200
                )
        assert [generate.priority for generate in site.engine.generates] == [-2, 5, 0, 5]


# limits of the server: 503


def test_a_full_server_says_503_and_when_to_come_back(folder: Path) -> None:
    with running(folder, room=EngineRoom(1, 64)) as site:
        site.engine.mode = "hang"
        held = [opened(site, PROMPT) for _ in range(2)]
        until(
            lambda: len(site.engine.generates) == 2
        )  # a lone tenant has one more than the engine computes at once
        held += [opened(site, PROMPT) for _ in range(2)]
        until(lambda: site.admission.sequences == 4)
        assert len(site.engine.generates) == 2
        with pytest.raises(openai.InternalServerError) as error:
            client(site).completions.create(model="m", **PROMPT)
        assert error.value.status_code == 503 and error.value.code == "server_overloaded"
        assert 1 <= int(error.value.response.headers["retry-after"]) <= 120
        held[2].close()
        held[3].close()
        until(lambda: site.admission.sequences == 2)
        held[0].close()
        held[1].close()
        until(lambda: site.admission.sequences == 0)
        assert len(site.engine.generates) == 2, "who left while waiting never reached the engine"
        site.engine.mode = "reply"
        assert site.post("/v1/completions", PROMPT)[0] == 200
        assert 'vllm:admission_rejections_total{model_name="m",reason="max_num_queued_reqs"} 1.0' in metrics(
            site
        )


def test_bodies_in_memory_are_bounded(folder: Path) -> None:
    with running(folder, limits=AdmissionLimits(100, 10_000, max_queued_bytes=40)) as site:
        began = socket.create_connection(("127.0.0.1", site.port), timeout=5)
        began.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n\r\n")
        until(lambda: site.admission.bytes == 33)
        status, headers, _ = site.request("POST", "/v1/completions", PROMPT)
        assert status == 503 and "retry-after" in headers
        began.sendall(orjson.dumps(PROMPT)[:33].ljust(33))
        began.close()
        until(lambda: site.admission.bytes == 0)
        assert site.request("POST", "/v1/completions", PROMPT)[0] == 200


def test_chunked_bodies_count_as_they_arrive(folder: Path) -> None:
    """Many small ones of unknown length fit; one that grows beyond the bound is refused while it arrives."""
    head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with running(folder, limits=AdmissionLimits(100, 10_000, max_queued_bytes=290_000)) as site:
        ends = [
            site.clients.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=5))
            for _ in range(4)
        ]
        for end in ends:
            end.sendall(head)
        until(lambda: site.admission.bytes == 4 * 65536)
        ends[0].sendall(b"186a0\r\n" + b" " * 100_000)
        assert answer(ends[0])[0] == 503
        ends[0].close()
        until(lambda: site.admission.bytes == 3 * 65536)
        ends[1].sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(orjson.dumps(PROMPT)), orjson.dumps(PROMPT)))
        assert answer(ends[1])[0] == 200
        until(lambda: site.admission.bytes == 2 * 65536)
        for end in ends:
            end.close()
        until(lambda: site.admission.bytes == 0)


def test_a_request_that_the_server_refuses_is_not_the_callers_use(folder: Path, tmp_path: Path) -> None:
    keys = keyed(record("a", limits=RateLimits(requests_per_minute=2)), path=tmp_path / "k.toml")
    site_limits = AdmissionLimits(100, 10_000, max_queued_bytes=40)
    with running(folder, key_file=keys, limits=site_limits) as site:
        held = site.admission.hold(33)
        for _ in range(3):
            status, headers, _ = site.request("POST", "/v1/completions", PROMPT, {"x-api-key": "secret-of-a"})
            assert status == 503 and headers["x-ratelimit-remaining-requests"] == "2"
        held.close()
        site.admission._limits = AdmissionLimits(100, 10_000)
        raw = client(site, "secret-of-a").completions.with_raw_response.create(model="m", **PROMPT)
        assert raw.headers["x-ratelimit-remaining-requests"] == "1"


@pytest.mark.parametrize("keep_alive_s, stream", [(30.0, False), (30.0, True), (0.0, True)])
def test_queue_timeout_has_its_status_as_long_as_nothing_was_sent(
    folder: Path, keep_alive_s: float, stream: bool
) -> None:
    limits = AdmissionLimits(10, 1000, queue_timeout_s=0.05)
    with running(folder, room=EngineRoom(1, 64), limits=limits, keep_alive_s=keep_alive_s) as site:
        site.engine.mode = "hang"
        held = [opened(site, PROMPT) for _ in range(2)]
        until(lambda: len(site.engine.generates) == 2)
        status, headers, data = site.request("POST", "/v1/completions", {**PROMPT, "stream": stream})
        assert (
            status == 503
            and json.loads(data)["error"]["code"] == "queue_timeout"
            and "retry-after" in headers
        )
        for connection in held:
            connection.close()


def test_a_long_wait_is_filled_with_comments_and_ends_with_an_event(folder: Path) -> None:
    limits = AdmissionLimits(10, 1000, queue_timeout_s=0.2)
    with running(folder, room=EngineRoom(1, 64), limits=limits, keep_alive_s=0.03) as site:
        site.engine.mode = "hang"
        held = [opened(site, PROMPT) for _ in range(2)]
        until(lambda: len(site.engine.generates) == 2)
        status, _, data = site.request("POST", "/v1/completions", {**PROMPT, "stream": True})
        events = data.decode().split("\n\n")
        assert status == 200 and events[0] == ": keep-alive" and events[-2] == "data: [DONE]"
        assert json.loads(events[-3][6:])["error"]["code"] == "queue_timeout"
        for connection in held:
            connection.close()
        line = next(line for line in request_lines(site) if line.get("error") == "queue_timeout")
        assert line["status"] == 200 and "queue_s" not in line and line["finish_reason"] == "error"


def test_a_tenant_finds_a_place_in_a_queue_that_another_has_filled(folder: Path, tmp_path: Path) -> None:
    path = keyed(record("flood"), record("other"), path=tmp_path / "k.toml")
    with running(folder, key_file=path, room=EngineRoom(1, 64)) as site:
        site.engine.mode = "hang"
        held: list[socket.socket] = []
        for number in range(4):  # one after the other: which one is the newest matters here
            held.append(opened(site, PROMPT, "secret-of-flood"))
            until(lambda: site.admission.sequences == number + 1)  # noqa: B023
        status, _, _ = site.request("POST", "/v1/completions", PROMPT, {"x-api-key": "secret-of-flood"})
        assert status == 503
        site.engine.mode = "reply"
        mine = opened(site, PROMPT, "secret-of-other")
        status, data = answer(held[3])  # the newest of the flood gives way
        assert status == 503 and json.loads(data)["error"]["code"] == "server_overloaded"
        held[0].close()  # places come free: the other is before what is left of the flood
        held[1].close()
        assert answer(mine)[0] == 200
        for connection in held:
            connection.close()


def test_choices_wait_one_by_one(folder: Path) -> None:
    with running(folder, room=EngineRoom(2, 64), limits=AdmissionLimits(100, 1000)) as site:
        status, whole = site.post("/v1/completions", {**PROMPT, "n": 20, "temperature": 1})
        assert status == 200 and len(whole["choices"]) == 20 == len(site.engine.generates)
        assert len({choice["text"] for choice in whole["choices"]}) == 1
        status, _, data = site.request(
            "POST", "/v1/completions", {**PROMPT, "n": 20, "temperature": 1, "stream": True}
        )
        assert status == 200 and data.decode().count('"finish_reason":"length"') == 20


def test_a_client_that_does_not_read_holds_no_place(folder: Path) -> None:
    """The engine is done with the sequence; what waits in the front must not keep others out."""
    with running(folder, room=EngineRoom(1, 64), limits=AdmissionLimits(100, 5000)) as site:
        site.engine.reply = "0123456789 " * 15
        body = {"prompt": "x", "max_tokens": 150, "stream": True, "logprobs": 20, "return_token_ids": True}
        lazy = []
        for _ in range(2):
            data = orjson.dumps(body)
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            connection.connect(("127.0.0.1", site.port))
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data) + data
            )
            lazy.append(connection)
        until(lambda: len(site.engine.generates) == 2)
        assert site.post("/v1/completions", PROMPT)[0] == 200
        for connection in lazy:
            connection.close()


# timeouts


def test_a_request_ends_when_its_time_is_over(folder: Path) -> None:
    with running(folder, request_timeout_s=0.25) as site:
        site.engine.mode = "hang"
        with pytest.raises(openai.InternalServerError) as error:
            client(site, retries=3).completions.create(model="m", **PROMPT)
        assert error.value.status_code == 504 and error.value.code == "request_timeout"
        assert len(site.engine.generates) == 1 == len(site.engine.aborted), "it must not be tried again"
        with pytest.raises(openai.APIError, match="took longer"):
            list(client(site).completions.create(model="m", stream=True, **PROMPT))
        assert len(site.engine.aborted) == 2
        until(lambda: len(request_lines(site)) == 2)
        assert [line["error"] for line in request_lines(site)] == ["request_timeout"] * 2
        assert 'vsrv_request_aborts_total{reason="request_timeout"} 2.0' in metrics(site)


def test_a_client_may_ask_for_less_time_but_not_for_more(folder: Path) -> None:
    with running(folder, request_timeout_s=0.1) as site:
        site.engine.mode = "hang"
        for wanted in ("0.05", "100"):
            began = time.monotonic()
            assert site.request("POST", "/v1/completions", PROMPT, {"X-Request-Timeout": wanted})[0] == 504
            assert time.monotonic() - began < 2
        for wrong in ("0", "-1", "nan", "inf", "1e9", "soon", ""):
            status, _, data = site.request("POST", "/v1/completions", PROMPT, {"X-Request-Timeout": wrong})
            assert (status, json.loads(data)["error"]["param"]) == (400, "X-Request-Timeout"), wrong


def test_time_runs_out_before_a_request_is_prepared(folder: Path) -> None:
    with running(folder) as site:
        site.prepare.delay_s = 30.0
        for path in ("/v1/completions", "/v1/messages/count_tokens", "/tokenize"):
            status, _, data = site.request("POST", path, PROMPT, {"X-Request-Timeout": "0.1"})
            assert (status, b"took longer" in data) == (504, True), path
        assert not site.engine.generates
        until(lambda: site.admission.bytes == 0)


def test_time_runs_out_in_the_queue_too(folder: Path) -> None:
    with running(folder, room=EngineRoom(1, 64)) as site:
        site.engine.mode = "hang"
        held = [opened(site, PROMPT) for _ in range(2)]
        until(lambda: len(site.engine.generates) == 2)
        assert site.request("POST", "/v1/completions", PROMPT, {"X-Request-Timeout": "0.05"})[0] == 504
        assert len(site.engine.generates) == 2 and site.admission.sequences == 2
        for connection in held:
            connection.close()


# error texts, log lines, ids


def test_no_error_tells_what_is_inside(folder: Path) -> None:
    """Rule R8: addresses, paths, tracebacks and the words of libraries stay in the log."""
    with running(folder) as site:
        bodies = [
            b"",
            b"{",
            b'{"a": NaN}',
            b"[" * 100,
            b'"x"',
            b"\xff\xfe",
            b'{"prompt": {}}',
            b'{"prompt": "x", "stop": [1]}',
        ]
        bodies += [
            b'{"prompt": "x", "logit_bias": {"a": "b"}}',
            b'{"prompt": "x", "n": 1e400}',
            b'{"prompt": [1, "a"]}',
        ]
        seen = [site.request("POST", "/v1/completions", body) for body in bodies]

        async def broken(dialect: str, body: bytes, tenant: str) -> Any:
            raise RuntimeError("<_io.BytesIO object at 0x7f0123456789> in /usr/lib/python3/secret.py")

        site.app._parts.prepare.prepare = broken  # type: ignore[method-assign]
        seen.append(site.request("POST", "/v1/completions", PROMPT))
        assert seen[-1][0] == 500
        for status, _, data in seen:
            error = json.loads(data)["error"]
            assert (
                set(error) == {"message", "type", "param", "code"} and error["code"] and 400 <= status <= 500
            )
            assert not re.search(
                r"0x[0-9a-f]{6,}|Traceback|/usr|\.py|object at|orjson|Error\(", error["message"]
            )
        assert any("/usr/lib/python3/secret.py" in line for line in site.lines), "the log must have it"


def test_engine_errors_outside_the_table_are_closed(folder: Path) -> None:
    with running(folder) as site:

        def submit(*rest: Any) -> Any:
            raise EngineError("cuda_fault", "device-side assert at 0x7f0123456789")

        site.engine.submit = submit  # type: ignore[method-assign]
        status, answered = site.post("/v1/completions", PROMPT)
        assert (
            status == 500
            and answered["error"]["code"] == "internal_error"
            and "0x" not in answered["error"]["message"]
        )
        _, _, data = site.request("POST", "/v1/completions", {**PROMPT, "stream": True})
        assert b"0x7f" not in data


def test_the_line_of_a_request(folder: Path, tmp_path: Path) -> None:
    path = keyed(record("web", tenant="acme"), path=tmp_path / "k.toml")
    with running(folder, key_file=path) as site:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        headers = {"x-api-key": "secret-of-web", "X-Request-Id": "my.id:1", "traceparent": trace}
        status, sent, data = site.request("POST", "/v1/completions", PROMPT, headers)
        assert status == 200 and sent["x-request-id"] == "my.id:1"
        (line,) = request_lines(site)
        expected = {
            "request_id": "my.id:1", "key_id": "web", "tenant": "acme", "route": "/v1/completions", "status": 200, "method": "POST",
            "finish_reason": "length", "completion_tokens": 4, "cached_tokens": 32, "traceparent": trace, "bytes_out": len(data),
            "bytes_in": len(orjson.dumps(PROMPT)),
        }  # fmt: skip
        assert {name: line[name] for name in expected} == expected
        assert 0 <= line["queue_s"] <= line["ttft_s"] <= line["total_s"] and "prompt" not in line
        site.request("POST", "/v1/completions", {**PROMPT, "stream": True}, headers)
        assert request_lines(site)[1]["bytes_out"] > len(data)
        for wrong in ("a b", "x" * 129, '"', "a;b"):
            _, sent, _ = site.request("GET", "/version", None, {"X-Request-Id": wrong})
            assert re.fullmatch("[0-9a-f]{32}", sent["x-request-id"]) or sent["x-request-id"] == "-"
        for wrong in (
            "",
            "00-" + "0" * 32 + "-b7ad6b7169203331-01",
            trace.upper(),
            trace + "-x",
            trace.replace("00-", "ff-", 1),
        ):
            site.request("GET", "/version", None, {"traceparent": wrong})
            assert "traceparent" not in request_lines(site)[-1]


def test_prompts_are_logged_only_if_asked_for_and_escaped(folder: Path) -> None:
    evil = 'words\x1b[2J\nstatus=200 "quoted" and much more of it'
    with running(folder, logged_prompt_characters=30, log_format="text") as site:
        site.post("/v1/completions", {**PROMPT, "prompt": evil})
        (line,) = [text for text in site.lines if "request" in text]
        assert line.count("\n") == 1 and "\x1b" not in line and "much more" not in line
        assert 'prompt="words' in line and " status=200" in line.replace("nstatus=200", "")
    with running(folder) as site:
        site.post("/v1/completions", {**PROMPT, "prompt": evil})
        assert "words" not in "".join(site.lines)


# metrics


def metrics(site: Site, accept: str = "text/plain") -> str:
    return site.request("GET", "/metrics", None, {"Accept": accept})[2].decode()


def test_tenants_are_counted_where_only_a_key_can_read_it(folder: Path, tmp_path: Path) -> None:
    path = keyed(record("a", tenant="t", scopes=("inference", "metrics")), path=tmp_path / "k.toml")
    key = {"x-api-key": "secret-of-a"}
    with running(folder, key_file=path, policy=KeyPolicy(metrics_need_key=True)) as site:
        site.request("POST", "/v1/completions", PROMPT, key)
        text = site.request("GET", "/metrics", None, key)[2].decode()
        assert 'vsrv_tenant_requests_total{status="200",tenant="t"} 1.0' in text
        assert 'vsrv_tenant_tokens_total{kind="generation",tenant="t"} 4.0' in text
        assert 'vsrv_tenant_tokens_total{kind="prompt",tenant="t"}' in text and "secret" not in text
    with running(folder, key_file=path) as site:
        site.request("POST", "/v1/completions", PROMPT, key)
        assert "tenant" not in metrics(site)


def test_the_queue_is_told_to_autoscalers(folder: Path) -> None:
    with running(folder, room=EngineRoom(1, 64)) as site:
        site.engine.mode = "hang"
        held = [opened(site, PROMPT) for _ in range(4)]
        until(lambda: site.admission.sequences == 4)
        text = metrics(site)
        assert 'vllm:num_requests_waiting{engine="0",model_name="m"} 2.0' in text
        assert 'vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 2.0' in text
        assert "vsrv_queue_requests 2.0" in text and re.search(r"vsrv_queue_age_seconds 0\.\d+", text)
        for connection in held:
            connection.close()
        until(lambda: site.admission.sequences == 0)
        assert "vsrv_queue_age_seconds 0.0" in metrics(site)
        assert 'vsrv_request_aborts_total{reason="disconnect"} 4.0' in metrics(site)
