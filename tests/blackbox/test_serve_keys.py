"""A started server with a key file: keys come and go while it runs, tenants do not share cached prompts, metrics have their own port."""

from __future__ import annotations

import http.client
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from started import READY_S, Server, free_port, start

from vsrv.certificates import CertificateWish, make

LONG = {"prompt": list(range(300, 400)), "max_tokens": 2, "temperature": 0}


def keys(file: Path, *words: str) -> str:
    command = [sys.executable, "-m", "vsrv", "keys", words[0], "--api-key-file", str(file), *words[1:]]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path, dict[str, str], int]]:
    file, port = tmp_path_factory.mktemp("keys") / "keys.toml", free_port()
    made = {
        "a1": keys(file, "new", "--id", "a1", "--tenant", "acme"),
        "a2": keys(file, "new", "--id", "a2", "--tenant", "acme"),
        "b": keys(file, "new", "--id", "b", "--scopes", "inference,metrics"),
    }
    server = start("--api-key-file", str(file), "--metrics-port", str(port), "--metrics-auth", "key")
    try:
        server.wait_ready()
        yield server, file, made, port
    finally:
        assert server.stop() == 0


def cached(server: Server, key: str) -> int:
    status, answer = server.post("/v1/completions", LONG, {"Authorization": f"Bearer {key}"})
    assert status == 200, answer
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])  # type: ignore[index, call-overload]


def test_tenants_do_not_share_cached_prompts_and_keys_of_one_do(
    served: tuple[Server, Path, dict[str, str], int],
) -> None:
    server, _, made, _ = served
    assert cached(server, made["a1"]) == 0
    assert cached(server, made["a1"]) > 0
    assert cached(server, made["a2"]) > 0
    assert cached(server, made["b"]) == 0, "another tenant's prompt was found in the cache"


def test_keys_change_while_the_server_runs(served: tuple[Server, Path, dict[str, str], int]) -> None:
    server, file, made, _ = served
    assert server.get("/v1/models")[0] == 401 and server.get("/nothing")[0] == 401
    fresh = keys(file, "new", "--id", "fresh")
    wait_for(server, fresh, 200)
    keys(file, "revoke", "fresh")
    wait_for(server, fresh, 401)
    good = file.read_text()
    file.write_text("[[keys]\n")
    time.sleep(2.5)
    assert server.get("/v1/models", {"x-api-key": made["a1"]})[0] == 200, (
        "a broken file must keep the old keys"
    )
    assert "the old keys stay in force" in server.log()
    file.write_text(good)
    for key in (*made.values(), fresh):
        assert key not in server.log()


def wait_for(server: Server, key: str, status: int) -> None:
    end = time.monotonic() + 10
    while server.get("/v1/models", {"x-api-key": key})[0] != status:
        assert time.monotonic() < end, "the change did not arrive"
        time.sleep(0.1)


def test_metrics_have_their_own_port_and_key(served: tuple[Server, Path, dict[str, str], int]) -> None:
    server, _, made, port = served
    assert server.get("/metrics", {"x-api-key": made["b"]})[0] == 404
    scraped = Server(f"http://127.0.0.1:{port}", None, None)
    assert scraped.get("/metrics")[0] == 401 and scraped.get("/metrics", {"x-api-key": made["a1"]})[0] == 403
    assert scraped.get("/v1/models", {"x-api-key": made["a1"]})[0] == 404
    status, text, _ = scraped.get("/metrics", {"Authorization": f"Bearer {made['b']}"})
    assert status == 200 and b'vsrv_tenant_requests_total{status="200",tenant="acme"}' in text
    assert b"vllm:num_requests_running{" in text


def test_a_hangup_takes_what_is_right_and_keeps_what_is_broken(tmp_path: Path) -> None:
    """A broken key file holds back neither the log level nor the certificate, a missing certificate neither keys nor log level."""
    file, config, lost = tmp_path / "keys.toml", tmp_path / "v.toml", tmp_path / "lost.key"
    first = keys(file, "new", "--id", "first")
    made = make(CertificateWish(tmp_path / "certs"))
    config.write_text('log-level = "info"\n')
    own = make(CertificateWish(tmp_path / "certs", client="billing"))
    keys(file, "new", "--id", "bill", "--tenant", "acme", "--client-cert", "CN=billing")
    tls = ("--ssl-certfile", str(made.certificate), "--ssl-keyfile", str(made.key))
    tls += ("--ssl-ca-certs", str(made.ca), "--ssl-cert-reqs", "1")
    server = start("--config", str(config), "--api-key-file", str(file), *tls, "--no-enable-ssl-refresh")
    context = ssl.create_default_context(cafile=str(made.ca))

    def status_of(key: str, shown: ssl.SSLContext = context) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection("localhost", server.port, context=shown, timeout=10)
        connection.request("GET", "/v1/models", headers={"x-api-key": key} if key else {})
        assert isinstance(connection.sock, ssl.SSLSocket)
        seen = connection.sock.getpeercert(True)
        status = connection.getresponse().status
        connection.close()
        assert seen is not None
        return status, seen

    def is_ready() -> bool:
        try:
            return status_of(first)[0] == 200
        except OSError:
            return False

    def hang_up(words: str) -> None:
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: words in server.log(), 10)

    try:
        wait_until(is_ready, READY_S)
        old = status_of(first)[1]
        with_certificate = ssl.create_default_context(cafile=str(made.ca))
        with_certificate.load_cert_chain(own.certificate, own.key)
        assert status_of("", with_certificate)[0] == 200 and status_of("")[0] == 401
        assert " key_id=bill " in server.log() and " tenant=acme " in server.log()
        file.write_text("[[keys]\n")
        config.write_text('log-level = "warning"\n')
        make(CertificateWish(tmp_path / "certs", force=True))
        context.load_verify_locations(str(made.ca))
        hang_up("the old keys stay in force")
        wait_until(lambda: status_of(first)[1] != old, 10)
        log = server.log()
        assert status_of(first)[0] == 200 and server.log() == log, "a line of a request at level warning"
        file.unlink()
        second = keys(file, "new", "--id", "second")
        config.write_text('log-level = "info"\n')
        made.key.rename(lost)
        hang_up("keeping the old certificate")
        wait_until(lambda: status_of(second)[0] == 200, 10)
        assert status_of(first)[0] == 401 and "path=/v1/models" in server.log()[len(log) :]
        config.write_text("log-level = 3\n")  # nothing of it is right, but keys and certificate are
        lost.rename(made.key)
        keys(file, "revoke", "second")
        hang_up("keeping the old settings")
        wait_until(lambda: status_of(second)[0] == 401, 10)
    finally:
        assert server.stop() == 0


def wait_until(condition: Callable[[], bool], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
