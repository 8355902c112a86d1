"""Every row of requests.txt over the connection without I/O, in every cut, and over a real server: 100 % as expected, nothing smuggled."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

import pytest
from request_table import LIMITS, SMUGGLED, Row, rows

from vsrv.errors import UserError
from vsrv.http.connection import Connection, Head
from vsrv.http.server import HttpServer
from vsrv.http.values import Request, Response

ROWS = rows()


class SansIo:
    """A server of one connection without a socket: the order of calls that protocol.py makes."""

    def __init__(self) -> None:
        self.connection = Connection(LIMITS, "")
        self.seen: list[str] = []
        self.statuses: list[int] = []
        self.closed = False
        self.head: Head | None = None
        self.size = 0

    def feed(self, data: bytes) -> None:
        if self.closed:
            return
        self.connection.receive(data)
        try:
            while self._advance():
                continue
        except UserError as error:
            self.statuses.append(error.status)
            self.closed = True

    def _advance(self) -> bool:
        connection = self.connection
        if self.head is None:
            self.head = connection.next_head()
            if self.head is None:
                return False
            self.size = 0
            connection.check_body(LIMITS.max_body_bytes)
        while body := connection.take_body():
            self.size += len(body)
        connection.check_body(LIMITS.max_body_bytes)
        if not connection.body_complete:
            if self.head.expects_continue and connection.informational():
                self.statuses.append(100)
            return False
        head, self.head = self.head, None
        self.seen.append(f"{head.method} {head.path} {self.size}")
        self.statuses.append(200)
        assert connection.send_head(200, [], 0, True) + connection.send_end()
        self.closed = not connection.start_next()
        return not self.closed


def check(row: Row, seen: list[str], statuses: list[int], closed: bool, how: str) -> None:
    assert "GET /smuggled 0" not in seen, f"{row.id} ({how}): a smuggled request was served"
    assert (seen, statuses, closed) == (list(row.seen), row.statuses, row.ends), f"{row.id} ({how})"


def test_the_table_is_what_it_says() -> None:
    assert len(ROWS) >= 250
    assert len({row.id for row in ROWS}) == len(ROWS) == len({row.data for row in ROWS})
    kinds = Counter(row.kind for row in ROWS)
    assert set(kinds) == {
        "keep",
        "close",
        "wait",
        "continue",
        "400",
        "413",
        "414",
        "417",
        "431",
        "501",
        "505",
    }
    print(f"{len(ROWS)} rows: {dict(kinds)}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_without_io(row: Row) -> None:
    cuts: list[tuple[str, list[bytes]]] = [("whole", [row.data])]
    if len(row.data) < 4000:
        cuts.append(("bytes", [row.data[i : i + 1] for i in range(len(row.data))]))
    if len(row.data) < 300:
        cuts += [(f"cut at {i}", [row.data[:i], row.data[i:]]) for i in range(1, len(row.data))]
    for how, pieces in cuts:
        server = SansIo()
        for piece in pieces:
            server.feed(piece)
        if row.kind not in ("wait", "continue", "keep"):
            server.feed(SMUGGLED)
        elif row.kind == "keep":
            server.feed(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            assert server.seen.pop() == "GET /next 0" and server.statuses.pop() == 200, f"{row.id} ({how})"
        check(row, server.seen, server.statuses, server.closed, how)


class Recorder:
    """A real server that remembers what its application saw of each connection (told apart by the client's address)."""

    def __init__(self) -> None:
        self.seen: dict[str, list[str]] = {}
        self.logged: list[str] = []
        self.server = HttpServer(self.app, LIMITS, self.error_body, self.log)

    async def app(self, request: Request) -> Response:
        body = await request.body()
        self.seen.setdefault(request.client, []).append(f"{request.method} {request.path} {len(body)}")
        return Response(200, [], b"")

    def error_body(self, error: UserError, request_id: str, path: str) -> Response:
        return Response(error.status, [], b"")

    def log(self, level: str, text: str) -> None:
        self.logged.append(text)


def statuses(answer: bytes) -> list[int]:
    """Every response here is a head alone."""
    heads = answer.split(b"\r\n\r\n")
    assert heads[-1] == b"", answer
    return [int(head.split(b" ", 2)[1]) for head in heads[:-1]]


async def over_a_socket(recorder: Recorder, port: int, number: int, row: Row, step: int) -> None:
    address = (
        f"127.{step % 200 + 1}.{number // 250}.{number % 250 + 1}"  # its own loopback address tells the row
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        tail = SMUGGLED if row.ends else b""
        if row.kind == "keep":
            tail = b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        data = row.data + tail
        size = step if len(data) < 4000 else max(step, 997)
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await asyncio.sleep(0)
        if row.kind in ("wait", "continue"):
            answer = b""
            while len(statuses(answer or b"")) < len(row.statuses):
                answer += await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.2)
            closed = False
        else:
            answer = await asyncio.wait_for(reader.read(-1), 10)
            closed = True
    finally:
        writer.close()
    seen, found = recorder.seen.get(address, []), statuses(answer)
    if row.kind == "keep":
        assert seen[-1:] == ["GET /next 0"] and found[-1:] == [200], f"{row.id} (socket, {step})"
        seen, found, closed = seen[:-1], found[:-1], False
    check(row, seen, found, closed, f"socket, pieces of {step}")


@pytest.mark.parametrize("step", [1 << 20, 7, 1])
def test_over_a_real_server(step: int) -> None:
    async def main() -> None:
        recorder = Recorder()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            await recorder.server.start(sock)
            port = sock.getsockname()[1]
            gate = asyncio.Semaphore(64)

            async def one(number: int, row: Row) -> None:
                async with gate:
                    await over_a_socket(recorder, port, number, row, step)

            await asyncio.gather(*(one(n, row) for n, row in enumerate(ROWS)))
            await recorder.server.stop()
        assert not [text for text in recorder.logged if "failed" in text]
        print(f"{len(ROWS)} rows over a socket in pieces of {step}: all as expected, no second response")

    asyncio.run(main())
