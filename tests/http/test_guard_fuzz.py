"""Hypothesis against the guard, the chunk scanner and the connection: only refusals come out, no cut changes the meaning, h11 agrees."""

from __future__ import annotations

import time

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from request_table import LIMITS, rows
from test_request_table import SansIo

from vsrv.errors import UserError
from vsrv.http.forwarded import TrustedProxies
from vsrv.http.guard import ChunkScanner, check_head, head_end
from vsrv.http.values import Limits

ROWS = [row.data for row in rows() if len(row.data) < 600]
FAST = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), database=None)
NOISE = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b",", b";", b"0", b"f", b"%", b"/", b"\x80", b"chunked",
     b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"HTTP/1.1"]
) | st.binary(max_size=3)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A row of the table with a few bytes deleted, doubled or put in."""
    data = draw(st.sampled_from(ROWS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 4)))
        data = data[:start] + draw(NOISE) * draw(st.integers(0, 2)) + data[end:]
    return data


def played(pieces: list[bytes]) -> SansIo:
    server = SansIo()
    for piece in pieces:
        server.feed(piece)
    return server


@FAST
@given(mutated() | st.binary(max_size=200), st.lists(st.integers(1, 60), max_size=8))
def test_no_cut_changes_what_is_understood(data: bytes, cuts: list[int]) -> None:
    whole = played([data])
    pieces, rest = [], data
    for size in cuts:
        pieces.append(rest[:size])
        rest = rest[size:]
    for server in (played([*pieces, rest]), played([data[i : i + 1] for i in range(len(data))])):
        assert server.seen == whole.seen
        # a fault may be found with fewer bytes, but never another number of answers behind the good ones
        assert server.closed == whole.closed
        assert [s for s in server.statuses if s != 100][: len(whole.seen)] == [200] * len(whole.seen)


@FAST
@given(mutated())
def test_what_the_guard_lets_through_h11_reads_the_same_way(data: bytes) -> None:
    try:
        end = head_end(data, LIMITS)
        if end < 0:
            return
        check_head(data[:end], LIMITS)
    except UserError as error:
        assert error.status in (400, 413, 414, 417, 431, 501, 505)
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data[:end])
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert data.startswith(event.method + b" " + event.target + b" HTTP/" + event.http_version)
    lines = data[:end].split(b"\r\n")[1:-2]
    assert [(name, value) for name, value in event.headers] == [
        (line.partition(b":")[0].lower(), line.partition(b":")[2].strip(b" \t")) for line in lines
    ]


@FAST
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=12), st.binary(max_size=20), st.integers(1, 50))
def test_chunks_come_out_as_they_went_in(chunks: list[bytes], behind: bytes, step: int) -> None:
    wire = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nX: y\r\n\r\n"
    scanner, data, left, fed = ChunkScanner(), b"", bytearray(), 0
    stream = wire + behind
    while not scanner.finished:
        left += stream[fed : fed + step]
        fed += step
        count, part = scanner.feed(left)
        assert count <= len(left)
        data += part
        del left[:count]
    assert data == b"".join(chunks) and scanner.announced == len(data)
    assert bytes(left) + stream[fed:] == behind


@FAST
@given(
    st.lists(
        NOISE | st.sampled_from([b"3\r\nabc\r\n", b"a\r\n0123456789\r\n", b"0\r\n", b"\r\n"]), max_size=10
    )
)
def test_a_chunked_body_that_is_taken_is_the_one_that_h11_reads(parts: list[bytes]) -> None:
    wire = b"".join(parts)
    scanner = ChunkScanner()
    try:
        count, data = scanner.feed(wire)
    except UserError as error:
        assert error.status in (400, 431)
        return
    if not scanner.finished:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + wire)
    events = []
    while not events or not isinstance(events[-1], h11.EndOfMessage):
        events.append(connection.next_event())
    assert b"".join(bytes(event.data) for event in events if isinstance(event, h11.Data)) == data
    assert connection.trailing_data[0] == wire[count:]


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX:" + b" " * 32000 + b"\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX:" + b" a" * 16000 + b"\x7f\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: " + b"a." * 16000 + b"!\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [" + b":" * 32000 + b"]\r\n\r\n",
        b"GET /" + b"%41" * 10000 + b"% HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://" + b"a" * 32000 + b"\\ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: " + b"," * 32000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 32000 + b"x\r\n\r\n",
    ],
    ids=range(8),
)
def test_hostile_heads_take_no_time(head: bytes) -> None:
    """The first one took hours: three patterns in a row could match the same blanks (cubic time)."""
    began = time.process_time()
    with pytest.raises(UserError):
        check_head(head, Limits(max_head_bytes=1 << 20, max_target_bytes=1 << 20))
    assert time.process_time() - began < 0.1


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        ((), "127.0.0.1", "1.2.3.4", "127.0.0.1"),
        (("127.0.0.1",), "127.0.0.1", None, "127.0.0.1"),
        (("127.0.0.1",), "127.0.0.1", "1.2.3.4", "1.2.3.4"),
        (("127.0.0.1",), "127.0.0.2", "1.2.3.4", "127.0.0.2"),
        (("127.0.0.1",), "::ffff:127.0.0.1", "1.2.3.4", "1.2.3.4"),
        (("10.0.0.0/8",), "10.1.2.3", "6.6.6.6, 1.2.3.4, 10.9.9.9", "1.2.3.4"),
        (("10.0.0.0/8",), "10.1.2.3", "10.0.0.1, 10.9.9.9", "10.0.0.1"),
        (("10.0.0.0/8",), "10.1.2.3", "1.2.3.4, nonsense, 10.9.9.9", "10.9.9.9"),
        (("10.0.0.0/8",), "10.1.2.3", "1.2.3.4:5678", "1.2.3.4"),
        (("10.0.0.0/8",), "10.1.2.3", "[2001:db8::1]:5678", "2001:db8::1"),
        (("10.0.0.0/8",), "10.1.2.3", "2001:db8::1", "2001:db8::1"),
        (("10.0.0.0/8",), "10.1.2.3", "", "10.1.2.3"),
        (("10.0.0.0/8",), "10.1.2.3", "fe80::1%x status=200", "10.1.2.3"),
        (("unix",), "unix", "1.2.3.4", "1.2.3.4"),
        (("127.0.0.1",), "unix", "1.2.3.4", "unix"),
        (("*",), "unix", "6.6.6.6, 1.2.3.4", "6.6.6.6"),
    ],
)  # fmt: skip
def test_forwarded_addresses_are_believed_as_far_as_proxies_are(
    trusted: tuple[str, ...], peer: str, forwarded: str | None, client: str
) -> None:
    assert TrustedProxies(trusted).client(peer, forwarded) == client
