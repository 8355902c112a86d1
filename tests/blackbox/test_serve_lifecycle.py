"""Start, stop, keys, TLS and configuration errors, each with a server process of its own."""

from __future__ import annotations

import datetime
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from started import Server, free_port, start

ROOT = Path(__file__).resolve().parent.parent.parent


def test_it_listens_at_once_tells_its_phase_and_drains() -> None:
    began = time.monotonic()
    server = start()
    try:
        while True:
            try:
                status, _, _ = server.get("/livez")
                break
            except urllib.error.URLError:
                assert time.monotonic() - began < 10, server.log()
        assert status == 200
        status, _body, headers = server.get("/readyz")
        if status == 503:  # on a quick machine it can be ready already
            assert "retry-after" in headers
        status, answer = server.post(
            "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}
        )
        assert status in (200, 503)
        if status == 503:
            assert answer["error"]["code"] == "model_loading"  # type: ignore[index]
        server.wait_ready()
        assert server.get("/health")[0] == 200
    finally:
        assert server.stop() == 0


def test_no_child_survives_the_front() -> None:
    server = start()
    assert server.process is not None
    server.wait_ready()
    pids = [p for p in os.listdir("/proc") if p.isdigit() and parent(int(p)) == server.process.pid]
    assert len(pids) >= 2
    server.process.kill()
    server.process.wait()
    end = time.monotonic() + 2
    while time.monotonic() < end and any(alive(int(p)) for p in pids):
        time.sleep(0.02)
    assert not [p for p in pids if alive(int(p))]


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def engine_of(server: Server) -> int:
    """Process id of the child that has torch loaded."""
    assert server.process is not None
    for name in os.listdir("/proc"):
        if name.isdigit() and parent(int(name)) == server.process.pid:
            try:
                if "libtorch" in Path(f"/proc/{name}/maps").read_text():
                    return int(name)
            except OSError:
                continue  # it ended just now
    raise AssertionError("no engine process")


def test_an_engine_that_dies_is_told_and_replaced_until_it_is_too_often() -> None:
    server = start("--engine-max-restarts", "1")
    assert server.process is not None
    server.wait_ready()
    for last in (False, True):
        engine = engine_of(server)
        body = json.dumps({"prompt": "hello", "max_tokens": 900, "ignore_eos": True, "stream": True}).encode()
        request = urllib.request.Request(
            server.url + "/v1/completions", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            assert response.readline().startswith(b"data:")
            os.kill(engine, signal.SIGKILL)
            rest = response.read().decode()
        events = [line[6:] for line in rest.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        assert json.loads(events[-2])["error"]["code"] == "engine_dead"
        if last:
            break
        status, answer = server.post("/v1/completions", {"prompt": "hello", "max_tokens": 4})
        assert status == 503 and answer["error"]["code"] == "engine_restarting"  # type: ignore[index]
        status, reason, headers = server.get("/readyz")
        assert status == 503 and b"restarted (1 of at most 1)" in reason and "retry-after" in headers
        server.wait_ready()
        status, answer = server.post("/v1/completions", {"prompt": "hello", "max_tokens": 4})
        assert status == 200
    assert server.process.wait(20) == 1
    assert "after 1 restarts" in server.log()


def test_keys_guard_every_inference_route() -> None:
    server = start(
        "--api-key", "secret-one", "secret-two", "--api-key", "secret-three", env={"VLLM_API_KEY": "unused"}
    )
    try:
        server.wait_ready()
        for path in ("/v1/models", "/v1/nothing", "/tokenize"):
            status, _, headers = server.get(path)
            assert status == 401 and "www-authenticate" in headers, path
        for key in ("secret-one", "secret-two", "secret-three"):
            assert server.get("/v1/models", {"Authorization": f"Bearer {key}"})[0] == 200
            assert server.get("/v1/models", {"x-api-key": key})[0] == 200
        assert server.get("/v1/models", {"Authorization": "Bearer unused"})[0] == 401
        assert server.get("/health")[0] == 200
        assert "secret-" not in server.log()
    finally:
        assert server.stop() == 0


def test_tls(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    server = start("--ssl-certfile", str(tmp_path / "cert.pem"), "--ssl-keyfile", str(tmp_path / "key.pem"))
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    try:
        end = time.monotonic() + 10
        while True:
            try:
                url = f"https://localhost:{server.port}/livez"
                with urllib.request.urlopen(url, context=context, timeout=5) as response:
                    assert response.status == 200
                break
            except urllib.error.URLError:
                assert time.monotonic() < end, server.log()
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], ["--api-key", "--allow-unauthenticated"]),
        (["--prot", "1"], ["--prot", "--port"]),
        (["--quantization", "awq"], ["quantization"]),
        (["--ssl-certfile", "/nonexistent.pem"], ["ssl-certfile"]),
        (["--port", "0", "./no-such-folder"], ["no-such-folder"]),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(arguments: list[str], words: list[str]) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "vsrv", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert process.returncode in (2, 78), process.stderr
    assert "Traceback" not in process.stderr
    for word in words:
        assert word in process.stderr


def test_a_port_in_use_is_said() -> None:
    first = start()
    try:
        end = time.monotonic() + 10
        while True:
            try:
                first.get("/livez")
                break
            except urllib.error.URLError:
                assert time.monotonic() < end
        process = subprocess.run(
            [sys.executable, "-m", "vsrv", "serve", "--port", str(first.port)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert process.returncode == 78
        assert "--port" in process.stderr and str(first.port) in process.stderr
    finally:
        first.stop()


def test_an_unsupported_model_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["MambaForCausalLM"], "model_type": "mamba"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    process = subprocess.run(
        [sys.executable, "-m", "vsrv", "serve", str(tmp_path), "--port", str(free_port())],
        capture_output=True,
        text=True,
        timeout=60,
    )
    output = process.stdout + process.stderr
    assert process.returncode == 78, output
    assert "MambaForCausalLM" in output and "LlamaForCausalLM" in output
    assert "Traceback" not in output
