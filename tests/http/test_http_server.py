"""Raw bytes against the real server: what is accepted, what is refused and closed, and what happens when a client leaves."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vsrv.errors import ConfigError, UserError
from vsrv.http.route import AuthClass, Route, Router, split_target
from vsrv.http.server import HttpServer
from vsrv.http.tls import TlsFiles, server_context
from vsrv.http.values import Limits, Request, Response, StreamingResponse

Reply = Response | StreamingResponse


def error_body(error: UserError, request_id: str, path: str) -> Response:
    return Response(error.status, [("content-type", "text/plain")], error.message.encode())


async def echo(request: Request) -> Reply:
    body = await request.body()
    text = f"{request.method} {request.path} {sorted(request.query.items())} {len(body)} {bytes(body[:50])!r}"
    return Response(200, [("content-type", "text/plain")], text.encode())


class Served:
    """A running server on a free port."""

    def __init__(
        self,
        app: Callable[[Request], Awaitable[Reply]],
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.logged: list[str] = []
        self.server = HttpServer(
            app, limits or Limits(), error_body, lambda level, text: self.logged.append(text), "/proxy"
        )
        self.tls = tls

    async def __aenter__(self) -> Served:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        self.port = sock.getsockname()[1]
        await self.server.start(sock, self.tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()

    async def raw(self, data: bytes, limit_s: float = 5.0, close: bool = False) -> bytes:
        """Send bytes, read until the server closes (or `limit_s`)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        if close:
            writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(-1), limit_s)
        finally:
            writer.close()


GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
ACCEPTED = {
    "plain": (GET + b"\r\n", b"GET / [] 0"),
    "one empty line before": (b"\r\n" + GET + b"\r\n", b"GET / [] 0"),
    "percent-decoded path": (
        b"GET /a%2Fb%20c?x=1&y=%41 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /a/b c [('x', '1'), ('y', 'A')]",
    ),
    "root path": (b"GET /proxy/v1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"GET /v1 []"),
    "absolute form": (b"GET http://a/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"GET /x []"),
    "HTTP/1.0 probe without Host": (b"GET / HTTP/1.0\r\n\r\n", b"GET / []"),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"OPTIONS *"),
    "content length": (
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / [] 3 b'abc'",
    ),
    "chunked": (
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
        b"POST / [] 13 b'abc0123456789'",
    ),
    "trailers are dropped": (
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nAuthorization: x\r\n\r\n",
        b"POST / [] 1",
    ),
    "ipv6 host": (b"GET / HTTP/1.1\r\nHost: [::1]:8000\r\nConnection: close\r\n\r\n", b"GET / []"),
}
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
REFUSED = {
    "length and coding": (
        400,
        POST
        + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    "coding in 1.0": (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "length list": (400, POST + b"Content-Length: 3, 3\r\n\r\nabc"),
    "two lengths": (400, POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    "signed length": (400, POST + b"Content-Length: +3\r\n\r\nabc"),
    "leading zero": (400, POST + b"Content-Length: 03\r\n\r\nabc"),
    "twenty digits": (413, POST + b"Content-Length: 99999999999999999999\r\n\r\n"),
    "folded header": (400, POST + b"X: a\r\n b\r\n\r\n"),
    "folded coding": (400, POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    "bare LF": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "bare LF in headers": (400, b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
    "host with path": (400, b"GET / HTTP/1.1\r\nHost: x/health?\r\n\r\n"),
    "host list": (400, b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    "empty host": (400, b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    "other authority": (400, b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "target without slash": (400, b"GET x HTTP/1.1\r\nHost: a\r\n\r\n"),
    "fragment": (400, b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n"),
    "backslash": (400, b"GET /\\a HTTP/1.1\r\nHost: a\r\n\r\n"),
    "dot segments": (400, b"GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "encoded dots": (400, b"GET /a/%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "encoded NUL": (400, b"GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "version 1.2": (505, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    "version 2.0": (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    "lower-case method": (501, b"get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "unknown coding": (501, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    "underscore header": (400, b"GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\n"),
    "space before colon": (400, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    "non-ASCII value": (400, "GET / HTTP/1.1\r\nHost: a\r\nX: é\r\n\r\n".encode()),
    "NUL in value": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    "two spaces": (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "many headers": (431, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 120 + b"\r\n"),
    "large head": (431, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40000 + b"\r\n\r\n"),
    "long target": (414, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    "chunk extension": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\n\r\n"),
    "bare LF chunk": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n"),
    "chunk too long": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n"),
    "chunk size 0x1": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n"),
    "huge chunk size": (400, POST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n"),
    "TLS hello": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
}


def test_nothing_waits_for_a_delayed_ack() -> None:
    """Accepted sockets send at once, though their listener was made without a protocol number, which is where asyncio does not see to it."""

    async def run() -> int:
        async with Served(echo) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            (connection,) = served.server.connections
            assert connection._transport is not None
            sock = connection._transport.get_extra_info("socket")
            writer.close()
            return int(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    assert asyncio.run(run()) == 1


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    data, expected = ACCEPTED[name]

    async def check() -> None:
        async with Served(echo) as served:
            answer = await served.raw(data)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
            assert expected in answer.partition(b"\r\n\r\n")[2]
            assert b"x-request-id: " in answer and b"server: vsrv" in answer
            pieces = await asyncio.gather(*(served_in_pieces(served, data, size) for size in (1, 7)))
            assert all(expected in piece for piece in pieces)

    asyncio.run(check())


async def served_in_pieces(served: Served, data: bytes, size: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    for start in range(0, len(data), size):
        writer.write(data[start : start + size])
        await asyncio.sleep(0)
    try:
        return await asyncio.wait_for(reader.read(-1), 5)
    finally:
        writer.close()


@pytest.mark.parametrize("name", REFUSED)
def test_refused_and_closed(name: str) -> None:
    status, data = REFUSED[name]

    async def check() -> None:
        async with Served(echo) as served:
            answer = await served.raw(data)  # returns only because the server closes
            assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
            assert answer.count(b"HTTP/1.1 ") == 1, "a second response: what followed was taken for a request"
            assert b"connection: close" in answer.lower()

    asyncio.run(check())


def test_keep_alive_pipelining_and_head() -> None:
    async def check() -> None:
        async with Served(echo) as served:
            one = b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"
            two = b"HEAD /2 HTTP/1.1\r\nHost: a\r\n\r\n"
            three = b"GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: my-id.1\r\n\r\n"
            answer = await served.raw(one + two + three)
            assert answer.count(b"HTTP/1.1 200 OK") == 3
            assert answer.index(b"POST /1") < answer.index(b"GET /3") and b"HEAD /2" not in answer
            assert b"x-request-id: my-id.1" in answer and b"keep-alive: timeout=120" in answer

    asyncio.run(check())


def test_expect_100_continue_and_early_413() -> None:
    async def check() -> None:
        async with Served(echo, Limits(max_body_bytes=10)) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
            writer.write(b"abc")
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            writer.close()
            answer = await served.raw(
                POST + b"Content-Length: 11\r\n\r\n"
            )  # refused before a byte of the body came
            assert answer.startswith(b"HTTP/1.1 413")
            chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"6\r\nabcdef\r\n" * 2
            assert (await served.raw(chunked)).startswith(b"HTTP/1.1 413")

    asyncio.run(check())


@pytest.mark.parametrize("where", ["app", "body", "stream", "blocked"])
def test_a_client_that_leaves_cancels_its_request(where: str) -> None:
    events: list[str] = []

    async def chunks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * (1 << 20 if where == "blocked" else 10)
                await asyncio.sleep(0 if where == "blocked" else 0.01)
        finally:
            events.append("ended")

    async def app(request: Request) -> Reply:
        events.append("began")
        try:
            if where == "body":
                await request.body()
            if where == "app":
                await asyncio.sleep(60)
        except asyncio.CancelledError:
            events.append("ended")
            raise
        return StreamingResponse(200, [], chunks())

    async def check() -> None:
        async with Served(app) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(POST + b"Content-Length: 5\r\n\r\n" + (b"ab" if where == "body" else b"abcde"))
            while "began" not in events:
                await asyncio.sleep(0.005)
            if where in ("stream", "blocked"):
                await reader.readexactly(100)
            await asyncio.sleep(0.05)
            writer.transport.abort()
            for _ in range(400):
                if "ended" in events:
                    break
                await asyncio.sleep(0.005)
            assert events == ["began", "ended"]
            assert not served.server.connections

    asyncio.run(check())


def test_a_slow_reader_holds_the_stream_back_and_is_dropped() -> None:
    sent = [0]

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            sent[0] += 1
            yield b"x" * 65536

    async def app(request: Request) -> Reply:
        return StreamingResponse(200, [], chunks())

    async def check() -> None:
        async with Served(app, Limits(write_timeout_s=0.3)) as served:
            _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(GET + b"\r\n")
            for _ in range(400):
                if served.logged:
                    break
                await asyncio.sleep(0.01)
            assert "does not read" in served.logged[0]
            assert sent[0] < 400, "chunks were made without bound"
            writer.close()

    asyncio.run(check())


def test_phase_timeouts() -> None:
    async def check() -> None:
        async with Served(echo, Limits(head_timeout_s=0.2, body_timeout_s=0.2, idle_timeout_s=0.2)) as served:
            assert (await served.raw(b"GET / HTTP/1.1\r\nHo")).startswith(b"HTTP/1.1 408")
            assert await served.raw(b"") == b""
            assert (await served.raw(POST + b"Content-Length: 5\r\n\r\nab")).startswith(b"HTTP/1.1 408")
            answer = await served.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")  # kept alive, then closed as idle
            assert answer.startswith(b"HTTP/1.1 200")

    asyncio.run(check())


def test_errors_of_the_app_are_told_in_fixed_words() -> None:
    async def app(request: Request) -> Reply:
        raise ValueError("secret at 0x7f00")

    async def check() -> None:
        async with Served(app) as served:
            answer = await served.raw(GET + b"\r\n")
            assert answer.startswith(b"HTTP/1.1 500") and b"secret" not in answer and b"0x7f" not in answer
            assert "secret" in served.logged[0]

    asyncio.run(check())


def test_drain_finishes_what_runs_and_closes_the_rest() -> None:
    release = asyncio.Event()

    async def app(request: Request) -> Reply:
        if request.path == "/slow":
            await release.wait()
        return Response(200, [], b"done")

    async def check() -> None:
        async with Served(app) as served:
            idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", served.port)
            slow = asyncio.create_task(served.raw(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"))
            while not any(c.task for c in served.server.connections):
                await asyncio.sleep(0.005)
            drain = asyncio.create_task(served.server.drain(5))
            assert await asyncio.wait_for(idle_reader.read(), 2) == b""
            idle_writer.close()
            late = await served.raw(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"connection: close" in late and b"done" in late
            release.set()
            assert b"done" in await slow
            await asyncio.wait_for(drain, 2)

    asyncio.run(check())


def test_tls(tmp_path: Path) -> None:
    def certificate(name: str) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = datetime.datetime.now(datetime.UTC)
        built = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(1)
            .not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False).sign(key, hashes.SHA256())
        )  # fmt: skip
        (tmp_path / f"{name}.crt").write_bytes(built.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        locked = serialization.BestAvailableEncryption(b"pass")
        for suffix, how in (("key", plain), ("locked", locked)):
            data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
            (tmp_path / f"{name}.{suffix}").write_bytes(data)
        return key

    certificate("a")
    certificate("b")
    a, key, locked = str(tmp_path / "a.crt"), str(tmp_path / "a.key"), str(tmp_path / "a.locked")
    for files, words in (
        (TlsFiles(a, str(tmp_path / "b.key")), "is not the key"),
        (TlsFiles(a, locked), "--ssl-keyfile-password"),
        (TlsFiles(a, locked, "wrong"), "--ssl-keyfile-password"),
        (TlsFiles("/none.crt", key), "--ssl-certfile /none.crt"),
        (TlsFiles(key, key), "PEM"),
        (TlsFiles(a, key, ciphers="NOPE"), "--ssl-ciphers"),
        (TlsFiles(a, key, ca_certs="/none"), "--ssl-ca-certs"),
    ):
        with pytest.raises(ConfigError, match=words):
            server_context(files)

    async def check() -> None:
        async with Served(echo, tls=server_context(TlsFiles(a, locked, "pass"))) as served:
            context = ssl.create_default_context(cafile=a)
            reader, writer = await asyncio.open_connection("localhost", served.port, ssl=context)
            writer.write(GET + b"\r\n")
            assert b"200 OK" in await reader.read(-1)
            assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
            writer.close()
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.load_verify_locations(a)
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            old.set_ciphers("AES128-SHA:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("localhost", served.port, ssl=old)

    asyncio.run(check())


async def _never(request: Request, placeholders: dict[str, str]) -> Response:
    raise AssertionError("not called")


def test_routes() -> None:
    router = Router(
        (
            Route(("GET",), "/v1/models", AuthClass.INFERENCE, _never),
            Route(("GET",), "/v1/models/{model:path}", AuthClass.INFERENCE, _never),
            Route(("POST",), "/v1/models", AuthClass.ADMIN, _never),
        )
    )
    route, placeholders, _ = router.find("GET", "/v1/models/org/name")
    assert route is router.routes[1] and placeholders == {"model": "org/name"}
    assert router.find("HEAD", "/v1/models")[0] is router.routes[0]
    assert router.find("POST", "/v1/models")[0] is router.routes[2]
    assert router.find("DELETE", "/v1/models") == (None, {}, ("GET", "HEAD", "POST", "OPTIONS"))
    assert router.find("GET", "/v1/model") == (None, {}, ())
    with pytest.raises(TypeError, match="auth class"):
        Router((Route(("GET",), "/x", None, _never),))  # type: ignore[arg-type]
    assert split_target("/llm/v1?a=b%20c&d", "/llm") == ("/v1", {"a": "b c", "d": ""})
    assert split_target("/llmx", "/llm")[0] == "/llmx"
