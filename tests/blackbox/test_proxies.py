"""Two instances behind nginx and behind HAProxy, with the configurations of the README, which are the ones that run here."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from proxies import Load, Proxy, completion, post, proxy
from started import Server, start

from vsrv.certificates import CertificateWish, make

both = pytest.mark.parametrize("name", ["nginx", "haproxy"])
TRUSTING = ("--forwarded-allow-ips", "127.0.0.1")


@pytest.fixture(scope="module")
def instances(server: Server) -> Iterator[list[Server]]:
    """The server that all tests share, and one that may come to harm."""
    if server.process is None:
        pytest.skip("the log of an instance is looked at, and VSRV_URL names one that is not ours")
    pair = [server, start(*TRUSTING)]
    try:
        yield pair
    finally:
        if pair[1].process is not None and pair[1].process.poll() is None:
            pair[1].stop()


@pytest.fixture
def front(name: str, instances: list[Server], tmp_path: Path) -> Iterator[Proxy]:
    ended = instances[1]
    if ended.process is not None and ended.process.poll() is not None:  # the test before has killed it
        instances[1] = start(*TRUSTING, port=ended.port)
    for server in instances:
        server.wait_ready()
    with proxy(name, tmp_path / "proxy", [server.port for server in instances]) as running:
        yield running


def served(instances: list[Server], session: str) -> list[int]:
    """How many of a session's requests each instance has logged."""
    return [server.log().count(f" request_id={session}-") for server in instances]


@both
def test_sessions_stay_where_their_prompts_are_cached(
    name: str, front: Proxy, instances: list[Server]
) -> None:
    used: set[int] = set()
    for session in range(8):
        prompt = [(300 if name == "nginx" else 200) + session] * 70
        for turn in range(2):
            with closing(front.connection()) as connection:
                response = post(
                    connection,
                    completion(2, prompt=prompt),
                    X_Session_Id=f"{name}{session}",
                    X_Request_Id=f"{name}{session}-{turn}",
                    X_Forwarded_For="203.0.113.9",
                )
                answer = json.loads(response.read())
            cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            assert (cached > 0) == (turn > 0)
        counts = served(instances, f"{name}{session}")
        assert sorted(counts) == [0, 2]
        used.add(counts.index(2))
    assert used == {0, 1}, "all sessions are on one instance"
    assert not any("203.0.113.9" in server.log() for server in instances), (
        "an address that the client made up"
    )


@both
def test_streams_come_as_they_are_made_and_end_with_their_client(
    name: str, front: Proxy, instances: list[Server]
) -> None:
    with (
        closing(front.connection()) as connection,
        post(connection, completion(400, stream=True)) as response,
    ):
        first = response.readline()
        assert first.startswith(b"data: {") and sum(load(server) for server in instances) == 1, (
            "it is buffered"
        )
    end = time.monotonic() + 5
    while sum(load(server) for server in instances):
        assert time.monotonic() < end, "the client has gone and its request goes on"
        time.sleep(0.01)


def load(server: Server) -> int:
    return int(json.loads(server.get("/load")[1])["server_load"])


@pytest.mark.parametrize("name", ["nginx", pytest.param("haproxy", marks=pytest.mark.slow)])
def test_one_of_two_is_killed_under_load(name: str, front: Proxy, instances: list[Server]) -> None:
    """No request fails that had not begun: neither those of the moment nor those that come while the instance is gone.

    HAProxy 2.6 does not send a request again where the instance answers it with a reset, which a killed one does with what it has not read.
    """
    clients = Load(front, insists=name == "haproxy")
    try:
        wait_until(lambda: clients.outcomes["answered"] > 20)
        victim = instances[1]
        assert victim.process is not None
        victim.process.kill()
        victim.process.wait()
        before = clients.outcomes["answered"]
        wait_until(lambda: clients.outcomes["answered"] > before + 40)
    finally:
        clients.end()
    print(f"{name}: one of two instances killed: {dict(clients.outcomes)}")
    assert clients.failures == [] and clients.outcomes["asked again"] <= 2
    assert clients.outcomes["cut after its beginning"] <= 3, "more than the streams that there were"


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.slow
@both
def test_what_the_proxy_adds_to_the_first_token(name: str, front: Proxy, instances: list[Server]) -> None:
    """Alternating with the same request to an instance itself, 200 of each; the bar is 5 ms."""
    direct = http.client.HTTPConnection("127.0.0.1", instances[0].port, timeout=30)
    times: dict[str, list[float]] = {"direct": [], "proxied": []}
    with closing(direct), closing(front.connection()) as proxied:
        for number in range(210):
            for kind, connection in (("direct", direct), ("proxied", proxied)):
                began = time.perf_counter()
                with post(connection, completion(2, stream=True), X_Session_Id=f"{name}-first") as response:
                    assert response.readline().startswith(b"data: {")
                    if number >= 10:
                        times[kind].append(time.perf_counter() - began)
                    response.read()
    more = {}
    for share in (10, 50, 90):
        direct_ms, proxied_ms = (statistics.quantiles(times[kind], n=100)[share - 1] * 1e3 for kind in times)
        more[share] = proxied_ms - direct_ms
        print(
            f"{name}: first token, p{share}: {direct_ms:.2f} ms, through the proxy {more[share]:.2f} ms later"
        )
    assert more[10] < 5  # what else the machine does weighs least there


@pytest.mark.slow
@both
def test_one_of_two_drains_under_load(name: str, front: Proxy, instances: list[Server]) -> None:
    """SIGTERM: what runs is finished, what comes goes to the other one, and nobody notices."""
    clients = Load(front)
    try:
        wait_until(lambda: clients.outcomes["answered"] > 20)
        assert instances[1].stop() == 0
        before = clients.outcomes["answered"]
        wait_until(lambda: clients.outcomes["answered"] > before + 40)
    finally:
        clients.end()
    print(f"{name}: one of two instances drained: {dict(clients.outcomes)}")
    assert clients.failures == [] and set(clients.outcomes) == {"answered"}


@pytest.mark.slow
@both
def test_tls_behind_the_proxy_too(name: str, tmp_path: Path) -> None:
    made = make(CertificateWish(tmp_path / "own"))
    files = ("--ssl-certfile", str(made.certificate), "--ssl-keyfile", str(made.key))
    server = start(*files)
    try:
        with proxy(name, tmp_path / "proxy", [server.port, server.port], behind=made.ca) as running:
            wait_until(lambda: answers(running))
        other = make(CertificateWish(tmp_path / "other"))
        with proxy(name, tmp_path / "wrong", [server.port, server.port], behind=other.ca) as running:
            assert not answers(running), "the instance's certificate is not looked at"
    finally:
        assert server.stop() == 0


def answers(front: Proxy) -> bool:
    with closing(front.connection()) as connection:
        connection.request("GET", "/readyz")
        with connection.getresponse() as response:
            return response.status == 200
