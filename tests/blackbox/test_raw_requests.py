"""The table of raw requests against `vsrv serve`: every refusal has its status, OpenAI's error body, and the end of the connection behind it."""

from __future__ import annotations

import asyncio
import json

import pytest
from request_table import SMUGGLED, Row, rows
from started import Server

REFUSED = [row for row in rows() if row.kind in ("400", "414", "417", "431", "501", "505") and not row.seen]


async def refused(port: int, row: Row) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(row.data.replace(b"POST /x ", b"POST /v1/completions ") + SMUGGLED)
        answer = await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + row.kind.encode() + b" "), f"{row.id}: {answer[:200]!r}"
    assert b"connection: close" in head.lower() and answer.count(b"HTTP/1.1 ") == 1, f"{row.id}: {answer!r}"
    error = json.loads(body)["error"]  # a second response would not parse
    assert set(error) == {"message", "type", "param", "code"} and error["message"], row.id
    assert error["type"] == ("server_error" if row.kind[0] == "5" else "invalid_request_error"), row.id


def test_every_refusal_of_the_table(server: Server) -> None:
    async def main() -> None:
        gate = asyncio.Semaphore(32)

        async def one(row: Row) -> None:
            async with gate:
                await refused(server.port, row)

        await asyncio.gather(*(one(row) for row in REFUSED))

    asyncio.run(main())
    assert len(REFUSED) > 250 and server.get("/livez")[0] == 200
    print(f"{len(REFUSED)} refusals of vsrv serve: all as expected")


PATHS = (
    "/livez",
    "/readyz",
    "/health",
    "/ping",
    "/load",
    "/version",
    "/metrics",
    "/v1/models",
    "/v1/models/demo",
    "/v1/x",
)


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_its_body(server: Server, path: str) -> None:
    status, body, headers = server.get(path)
    status_of_head, nothing, headers_of_head = server.request("HEAD", path, None)
    assert (status_of_head, nothing) == (status, b"")
    changing = {"date", "x-request-id"} | ({"content-length"} if path in ("/metrics", "/v1/x") else set())
    assert {k: v for k, v in headers.items() if k not in changing} == {
        k: v for k, v in headers_of_head.items() if k not in changing
    }
    assert int(headers["content-length"]) == len(body)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/v1/models", "GET, HEAD, OPTIONS"),
        ("GET", "/v1/completions", "POST, OPTIONS"),
        ("PATCH", "/ping", "GET, HEAD, POST, OPTIONS"),
    ],
)
def test_405_names_what_is_allowed_in_openai_s_error_body(
    server: Server, method: str, path: str, allow: str
) -> None:
    status, body, headers = server.request(method, path, None)
    assert status == 405 and set(headers["allow"].split(", ")) == set(allow.split(", "))
    assert json.loads(body)["error"]["code"] == "method_not_allowed"
    status, body, headers = server.request("OPTIONS", path, None)
    assert (status, body) == (204, b"") and set(headers["allow"].split(", ")) == set(allow.split(", "))
