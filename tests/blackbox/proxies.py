"""nginx and HAProxy as the README has them, started on free ports in front of instances; and clients that keep asking."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from started import free_port

from vsrv.certificates import CertificateWish, make

README = Path(__file__).resolve().parents[2] / "README.md"
PROGRAMS = {"nginx": "/usr/sbin/nginx", "haproxy": "/usr/sbin/haproxy"}
FIRST, SECOND = "127.0.0.1:8001", "127.0.0.1:8002"  # of the README


def block(language: str, number: int = 0) -> str:
    """A code block of the README."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.M | re.S)[number]


def replaced(text: str, changes: dict[str, str]) -> str:
    """Ports and paths of the test's own; each must be there."""
    for old, new in changes.items():
        assert old in text, f"the README has no {old} any more"
        text = text.replace(old, new)
    return text


def nginx_file(folder: Path, port: int, instances: list[int], behind: Path | None) -> Path:
    """README block → a whole nginx.conf. `behind`: the authority of instances that speak TLS."""
    changes = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/vsrv.crt": str(folder / "server.pem"),
        "/etc/ssl/vsrv.key": str(folder / "server.key"),
        FIRST: f"127.0.0.1:{instances[0]}",
        SECOND: f"127.0.0.1:{instances[1]}",
    }
    site = replaced(block("nginx"), changes)
    if behind is not None:
        tls = replaced(block("nginx", 1), {"/etc/ssl/vsrv-ca.pem": str(behind)})
        site = replaced(site, {"proxy_pass http://vsrv;": f"proxy_pass https://vsrv;\n{tls}"})
    root = "user root;\n" if os.geteuid() == 0 else ""  # to read the test's folder
    kinds = "client_body proxy fastcgi uwsgi scgi".split()
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    main = f"{root}daemon off;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
    path = folder / "nginx.conf"
    path.write_text(f"{main}http {{\naccess_log off;\n{temporary}{site}}}\n")
    return path


def haproxy_file(folder: Path, port: int, instances: list[int], behind: Path | None) -> Path:
    """README block → haproxy.cfg."""
    (folder / "both.pem").write_bytes(
        (folder / "server.pem").read_bytes() + (folder / "server.key").read_bytes()
    )
    changes = {
        "bind :443": f"bind 127.0.0.1:{port}",
        "/etc/ssl/vsrv.pem": str(folder / "both.pem"),
        FIRST: f"127.0.0.1:{instances[0]}",
        SECOND: f"127.0.0.1:{instances[1]}",
    }
    text = block("haproxy")
    if behind is not None:
        words = re.search(r"# TLS behind, too: (.*)", text)
        assert words is not None
        tls = replaced(words[1], {"/etc/ssl/vsrv-ca.pem": str(behind)})
        text = text.replace("check inter 1s", f"{tls} check inter 1s")
    path = folder / "haproxy.cfg"
    path.write_text(replaced(text, changes))
    return path


@contextmanager
def proxy(name: str, folder: Path, instances: list[int], behind: Path | None = None) -> Iterator[Proxy]:
    """A running proxy with TLS in front of two instances, given by their ports. Skips where the program is not installed."""
    program = PROGRAMS[name] if Path(PROGRAMS[name]).exists() else shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    folder.mkdir()
    make(CertificateWish(folder))
    port = free_port()
    made = {"nginx": nginx_file, "haproxy": haproxy_file}[name](folder, port, instances, behind)
    command = {"nginx": ["-c", str(made)], "haproxy": ["-db", "-f", str(made)]}[name]
    with (folder / "proxy.log").open("wb") as log:
        process = subprocess.Popen([program, *command], stdout=log, stderr=log)
    running = Proxy(port, folder)
    try:
        end = time.monotonic() + 10
        while not running.listens():
            assert process.poll() is None and time.monotonic() < end, running.log()
            time.sleep(0.02)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@dataclass(frozen=True)
class Proxy:
    """Where a proxy listens."""

    port: int
    folder: Path

    def listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def log(self) -> str:
        return (self.folder / "proxy.log").read_text(errors="replace")

    def connection(self) -> http.client.HTTPSConnection:
        import ssl

        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        return http.client.HTTPSConnection("localhost", self.port, context=context, timeout=30)


def completion(max_tokens: int, stream: bool = False, prompt: object = "a") -> bytes:
    body = {
        "prompt": prompt,
        "max_tokens": max_tokens,
        "stream": stream,
        "ignore_eos": True,
        "temperature": 0,
    }
    return json.dumps(body).encode()


def post(connection: http.client.HTTPConnection, body: bytes, **headers: str) -> http.client.HTTPResponse:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json", **given})
    return connection.getresponse()


@dataclass
class Load:
    """Clients of a proxy that ask again and again, one half for streams, one for whole answers, until `end`.

    With `insists` they take a kept connection that ends without an answer for no failure and ask again, as RFC 9112 section 9.3.1 lets
    them and OpenAI's clients do.
    """

    target: Proxy
    insists: bool = False
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(6)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self, number: int) -> None:
        streams, connection = number % 2 == 0, self.target.connection()
        while not self._ended.is_set():
            begun = False
            try:
                response = post(connection, completion(24, streams), X_Session_Id=f"s{number}")
                begun = response.status == 200
                data = response.read()
                whole = data.rstrip().endswith(b"data: [DONE]") if streams else b'"usage"' in data
                if begun and whole and b'"error"' not in data:
                    self.outcomes["answered"] += 1
                    continue
                problem = f"{response.status} {data[-200:]!r}"
            except (OSError, http.client.HTTPException) as error:
                problem = repr(error)
                if self.insists and not begun and isinstance(error, http.client.RemoteDisconnected):
                    self.outcomes["asked again"] += 1
                    connection.close()
                    continue
            connection.close()
            self.outcomes["cut after its beginning" if begun else "failed"] += 1
            if not begun:
                self.failures.append(problem)
        connection.close()
