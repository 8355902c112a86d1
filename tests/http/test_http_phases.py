"""What depends on time and on the order of packets: bodies nobody reads, slow senders and readers, ends of connections, many connections."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from test_http_server import GET, POST, Served, echo

from vsrv.http.values import Limits, Request, Response, StreamingResponse


async def ignores(request: Request) -> Response:
    """An application that answers from the head alone."""
    if request.path == "/nothing":
        return Response(204, [])
    return Response(401, [], b"no key")


async def until(condition: object, limit_s: float = 5.0) -> None:
    end = asyncio.get_running_loop().time() + limit_s
    while not condition():  # type: ignore[operator]
        assert asyncio.get_running_loop().time() < end, "it did not happen in time"
        await asyncio.sleep(0.005)


def test_an_unread_body_is_read_over_or_the_connection_closes() -> None:
    async def check() -> None:
        async with Served(ignores) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(POST + b"Content-Length: 6\r\n\r\nab")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"401" in head and b"keep-alive: timeout" in head
            assert await reader.readexactly(6) == b"no key"
            writer.write(b"cdef" + GET + b"\r\n")  # the rest of the body, then a request: no "cdefGET"
            assert (await reader.read()).startswith(b"HTTP/1.1 401")
            writer.close()
            large = await served.raw(POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100000)
            assert b"connection: close" in large and b"keep-alive" not in large
            assert large.endswith(b"no key"), "the answer was lost in a reset"

    asyncio.run(check())


def test_a_client_that_waits_for_100_is_not_kept_after_another_answer() -> None:
    async def check() -> None:
        async with Served(ignores) as served:
            answer = await served.raw(POST + b"Expect: 100-continue\r\nContent-Length: 30\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 401") and b"connection: close" in answer

    asyncio.run(check())


def test_204_has_no_length_and_1_0_no_keep_alive() -> None:
    async def check() -> None:
        async with Served(ignores) as served:
            answer = await served.raw(b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 204 No Content\r\n") and b"content-length" not in answer
            assert b"keep-alive" not in answer
            old = await served.raw(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert b"connection: close" in old.lower() and b"keep-alive: " not in old

    asyncio.run(check())


def test_http_1_0_gets_a_stream_without_chunks() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one,"
        yield b"two"

    async def app(request: Request) -> StreamingResponse:
        return StreamingResponse(200, [], parts())

    async def check() -> None:
        async with Served(app) as served:
            answer = await served.raw(b"GET / HTTP/1.0\r\n\r\n")
            assert answer.endswith(b"\r\n\r\none,two") and b"chunked" not in answer
            answer = await served.raw(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert answer.endswith(b"\r\n\r\n"), "HEAD has no body"

    asyncio.run(check())


def test_a_large_body_is_held_once() -> None:
    """A further copy would be a pause of the event loop, ten milliseconds and more for every stream."""
    size, peaks = 20 << 20, list[int]()

    async def measures(request: Request) -> Response:
        body = await request.body()
        peaks.append(tracemalloc.get_traced_memory()[1])
        assert len(body) == size
        return Response(200, [], b"ok")

    async def check() -> None:
        async with Served(measures) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(POST + b"Content-Length: %d\r\n\r\n" % size)
            piece = bytes(1 << 20)
            for _ in range(size // len(piece)):
                writer.write(piece)
                await writer.drain()
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            writer.close()

    tracemalloc.start()
    try:
        asyncio.run(check())
    finally:
        tracemalloc.stop()
    assert peaks[0] < size * 1.4, (
        f"{peaks[0] / size:.2f} times the body"
    )  # an array that grows has an eighth to spare


@pytest.mark.parametrize("interval_s", [0.02, 0.3])
def test_a_body_that_trickles_is_ended(interval_s: float) -> None:
    """Byte by byte, quicker than the timeout between two arrivals, but far below the mean rate."""

    async def check() -> None:
        limits = Limits(body_timeout_s=0.25, min_body_rate=10000)
        async with Served(echo, limits) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(POST + b"Content-Length: 100000\r\n\r\n")
            answer = asyncio.create_task(reader.read())
            for _ in range(100):
                if answer.done():
                    break
                writer.write(b"x")
                await asyncio.sleep(interval_s)
            assert (await asyncio.wait_for(answer, 3)).startswith(b"HTTP/1.1 408")
            writer.close()

    asyncio.run(check())


def test_a_chunked_body_is_refused_when_its_size_is_announced() -> None:
    async def check() -> None:
        async with Served(echo, Limits(max_body_bytes=1000)) as served:
            chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n"
            assert (await served.raw(chunked + b"3e9\r\n")).startswith(b"HTTP/1.1 413")
            answer = await served.raw(chunked + b"1f4\r\n" + b"a" * 500 + b"\r\n1f5\r\n")
            assert answer.startswith(b"HTTP/1.1 413"), "nothing of the second chunk was needed"

    asyncio.run(check())


def test_a_large_answer_waits_for_its_reader_and_then_ends() -> None:
    async def app(request: Request) -> Response:
        return Response(200, [], b"x" * (30 << 20))

    async def check() -> None:
        async with Served(app, Limits(write_timeout_s=0.3)) as served:
            _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(GET + b"\r\n")
            await until(lambda: served.server.connections)
            connection = next(iter(served.server.connections))
            await until(lambda: connection.unsent)
            assert connection.unsent < 1 << 20, "the whole answer waits in memory"
            await until(lambda: not served.server.connections)
            assert "does not read" in served.logged[0]
            writer.close()

    asyncio.run(check())


def test_a_small_answer_that_is_never_read_does_not_hold_the_connection() -> None:
    """Many pipelined answers fill the buffers; closing would wait for the last byte to go out."""

    async def app(request: Request) -> Response:
        return Response(200, [], b"x" * 60000)

    async def check() -> None:
        async with Served(
            app, Limits(write_timeout_s=0.3, idle_timeout_s=0.3, linger_timeout_s=0.2)
        ) as served:
            sock = socket.create_connection(("127.0.0.1", served.port))
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
            await until(lambda: served.server.connections)
            await until(lambda: not served.server.connections)
            sock.close()

    asyncio.run(check())


def test_a_client_that_is_gone_when_its_answer_ends_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the last write and the shutdown of our side its reset has come: shutdown(2) says ENOTCONN."""

    async def check() -> None:
        loop = asyncio.get_running_loop()
        faults: list[object] = []
        loop.set_exception_handler(lambda _, context: faults.append(context))
        async with Served(echo) as served:
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            await until(lambda: served.server.connections)
            connection = next(iter(served.server.connections))

            def not_connected() -> None:
                raise OSError(107, "Transport endpoint is not connected")

            monkeypatch.setattr(connection._transport, "write_eof", not_connected)
            writer.write(GET + b"\r\n")
            await until(lambda: not served.server.connections)
            writer.close()
        assert not faults

    asyncio.run(check())


def test_an_answer_that_cannot_be_written_ends_its_connection() -> None:
    async def app(request: Request) -> Response:
        return Response(200, [("x-bad", "a\r\nset-cookie: b")], b"")

    async def check() -> None:
        async with Served(app) as served:
            assert await served.raw(GET + b"\r\n") == b"", "a header was split"
            assert "could not be sent" in served.logged[0]

    asyncio.run(check())


def test_nothing_behind_a_broken_chunk_is_read() -> None:
    """The application comes late; meanwhile bytes arrive that would complete the body, had it been well-formed."""
    gate = asyncio.Event()
    bodies: list[bytes] = []

    async def app(request: Request) -> Response:
        await gate.wait()
        bodies.append(await request.body())
        return Response(200, [], b"")

    async def check() -> None:
        async with Served(app) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n")
            await until(lambda: any(c.task for c in served.server.connections))
            connection = next(iter(served.server.connections))
            await until(lambda: connection._body_fault)
            for piece in (b"\r\n", b"0\r\n\r\n", b"x" * 2_000_000):
                writer.write(piece)
                await asyncio.sleep(0.02)
            assert connection._connection.buffered < 1 << 20, "garbage is kept without bound"
            gate.set()
            assert (await reader.read()).startswith(b"HTTP/1.1 400") and not bodies
            writer.close()

    asyncio.run(check())


def test_a_refusal_has_date_and_id_and_a_line_in_the_log() -> None:
    async def check() -> None:
        async with Served(echo) as served:
            answer = await served.raw(b"GET / HTTP/1.1\r\n\r\n")
            assert b"\r\ndate: " in answer and b"\r\nx-request-id: " in answer
            assert "400" in served.logged[0] and "127.0.0.1" in served.logged[0]

    asyncio.run(check())


def test_more_connections_than_allowed_are_told_so() -> None:
    async def check() -> None:
        async with Served(echo, Limits(max_connections=3)) as served:
            held = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(3)]
            await until(lambda: len(served.server.connections) == 3)
            answer = await served.raw(GET + b"\r\n")
            assert answer.startswith(b"HTTP/1.1 503") and b"connection: close" in answer
            held[0][1].write(GET + b"\r\n")
            assert (await held[0][0].read()).startswith(b"HTTP/1.1 200"), "those that were there are served"
            for _, writer in held:
                writer.close()
            await until(lambda: not served.server.connections)
            assert (await served.raw(GET + b"\r\n")).startswith(b"HTTP/1.1 200")

    asyncio.run(check())


def test_half_a_handshake_ends() -> None:
    async def check() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        async with Served(echo, Limits(handshake_timeout_s=0.2), context) as served:
            assert await served.raw(b"") == b""
            assert await served.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == b"", "plain HTTP on a TLS port"
            assert not served.server._arriving and not served.server.connections

    asyncio.run(check())
