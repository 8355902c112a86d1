"""Every bound of the guard at its last good and its first bad value: a limit that is off by one is another limit."""

from __future__ import annotations

import pytest

from vsrv.errors import UserError
from vsrv.http.guard import ChunkScanner, check_head, head_end
from vsrv.http.values import Limits

SMALL = Limits(max_head_bytes=200, max_headers=4, max_target_bytes=64)
LINE = 64 + 32  # a request line: the target, and room for method and version


def status_of(data: bytes) -> int:
    """200 for a whole good head, 100 for one that may become good, else the status of the refusal."""
    try:
        end = head_end(data, SMALL)
        if end < 0:
            return 100
        assert end == data.index(b"\r\n\r\n") + 4, "the body begins behind the blank line"
        check_head(data[:end], SMALL)
    except UserError as error:
        return error.status
    return 200


def head(line_bytes: int = 20, fields: tuple[bytes, ...] = (b"Host: a",)) -> bytes:
    line = b"GET /" + b"a" * (line_bytes - len(b"GET / HTTP/1.1")) + b" HTTP/1.1"
    return b"\r\n".join([line, *fields, b"", b""])


def padded(size: int) -> bytes:
    """A good head of exactly `size` bytes."""
    bare = head(fields=(b"Host: a", b"X: "))
    return head(fields=(b"Host: a", b"X: " + b"x" * (size - len(bare))))


@pytest.mark.parametrize(
    "data, expected",
    [
        (head(LINE), 200), (head(LINE + 1), 414),
        (head(LINE)[:LINE], 100), (head(LINE + 1)[: LINE + 1], 414),  # before its end has come
        (padded(200), 200), (padded(201), 431), (padded(300)[:200], 100), (padded(300)[:201], 431),
        (padded(200) + b"body" * 100, 200),
        (head(fields=(b"Host: a", b"B: b", b"C: c", b"D: d")), 200),
        (head(fields=(b"Host: a", b"B: b", b"C: c", b"D: d", b"E: e")), 431),
        (head(fields=(b"Host: a:65535",)), 200), (head(fields=(b"Host: a:65536",)), 400), (head(fields=(b"Host: a:0",)), 200),
        (head(fields=(b"Host: a", b"Content-Length: " + b"9" * 19)), 200),
        (head(fields=(b"Host: a", b"Content-Length: 1" + b"0" * 19)), 413),
        (head(fields=(b"Host: a", b"Content-Length: 0" + b"0" * 19)), 400),
        (b"\n" + head(), 400), (b"G\nET", 400), (head()[:-4] + b"\n\r\n\r\n", 400), (b"\r" + head(), 400),
        (head() + b"\n", 200),  # what is behind the head is not the head's
        (head()[:-1], 100), (head()[:-2], 100), (b"", 100),
    ],
)  # fmt: skip
def test_heads(data: bytes, expected: int) -> None:
    assert status_of(data) == expected


def scanned(data: bytes) -> tuple[int, ChunkScanner]:
    scanner = ChunkScanner()
    try:
        scanner.feed(data)
    except UserError as error:
        return error.status, scanner
    return 200, scanner


def body(*trailers: bytes) -> bytes:
    return b"1\r\nx\r\n0\r\n" + b"".join(trailer + b"\r\n" for trailer in trailers) + b"\r\n"


SIZE = b"T: " + b"x" * (8192 - 5)  # with CR LF 8192 bytes


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"fffffff0\r\n", 200), (b"0fffffff0\r\n", 400), (b"0fffffff0", 200), (b"0fffffff0\r0", 400),
        (body(*[b"T: 1"] * 100), 200), (body(*[b"T: 1"] * 101), 431),
        (body(SIZE), 431), (body(SIZE[:-2]), 200), (body(b"A: b", SIZE[:-8]), 200), (body(b"A: b", SIZE[:-7]), 431),
        (b"1\r\nx\r\n" * 1040, 200), (b"1\r\nx\r\n" * 1041, 400),  # 1024 + 1040 // 64
        (b"40\r\n" + b"x" * 64 + b"\r\n" + b"1\r\nx\r\n" * 1040, 200), (b"40\r\n" + b"x" * 64 + b"\r\n" + b"1\r\nx\r\n" * 1041, 400),
        (b"1\r\nxy\r\n", 400), (b"2\r\nx\r\n1\r\n", 400), (b"1\nx\r\n", 400), (b"1\r\nx\n", 400), (b"\r\n", 400), (b"0\r\n\r\n", 200),
    ],
)  # fmt: skip
def test_chunks(data: bytes, expected: int) -> None:
    assert scanned(data)[0] == expected


def test_what_chunks_announce() -> None:
    status, scanner = scanned(b"5\r\nhello\r\nff\r\nabc")
    assert (status, scanner.announced, scanner.finished) == (200, 5 + 255, False)
    scanner = ChunkScanner()
    assert scanner.feed(b"3\r\nabc\r\n0\r\nT: x\r\n\r\nGET / HTTP/1.1") == (19, b"abc")
    assert scanner.finished and scanner.announced == 3
    assert scanner.feed(b"more") == (0, b"")
