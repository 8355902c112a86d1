"""The client commands against a scripted server: framing, errors, conversations, batches that fail, wait, end and go on."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsrv import cli
from vsrv.client import batch
from vsrv.client.chat import Chat, Conversation, loaded, saved
from vsrv.client.http import ProtocolError, Reply, RequestFailed, Target, failure, unreachable
from vsrv.client.session import Piece, Screen, Session
from vsrv.client.window import Window
from vsrv.errors import ConfigError

# addresses


def plain() -> ssl.SSLError:
    """What OpenSSL says where no TLS is spoken."""
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    error.reason = "WRONG_VERSION_NUMBER"
    return error


def untrusted() -> ssl.SSLCertVerificationError:
    """What OpenSSL says of a certificate whose authority it does not know."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "unable to get local issuer certificate"
    return error


@pytest.mark.parametrize(
    "url, expected",
    [
        ("http://host:8000", ("host", 8000, "")),
        ("host:1", ("host", 1, "")),
        ("http://host/v1", ("host", 80, "")),
        ("https://host/proxy/v1/", ("host", 443, "/proxy")),
        ("http://[::1]:9", ("::1", 9, "")),
    ],
)
def test_addresses_as_people_give_them(url: str, expected: tuple[str, int, str]) -> None:
    target = Target.of(url)
    assert (target.host, target.port, target.prefix) == expected
    assert (target.tls is not None) == url.startswith("https")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('h', 80)"), "no server answers at h:80 (Connection refused); check --url"),
        (socket.gaierror(-2, "Name or service not known"), "no server answers at h:80 (Name or service not known); check --url"),
        (plain(), "no TLS with h:80 (WRONG_VERSION_NUMBER); check --url: http or https?"),
        (untrusted(), "--ca-file FILE"),
        (OSError("Multiple exceptions"), "(Multiple exceptions)"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_server_that_is_not_there(error: OSError, message: str) -> None:
    assert message in str(unreachable(Target.of("http://h"), error))


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "http://host:port", "http://host:99999"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match="--url"):
        Target.of(url)


# framing


def reply_of(headers: dict[str, str], data: bytes, cuts: list[int]) -> Reply:
    """A reply whose body arrives in pieces; the connection ends behind it."""
    reader = asyncio.StreamReader(limit=1 << 24)

    async def feed() -> None:
        at = 0
        for cut in cuts:
            reader.feed_data(data[at : at + cut])
            at += cut
            await asyncio.sleep(0)
        reader.feed_data(data[at:])
        reader.feed_eof()

    made = Reply(200, headers, reader)
    feeding.append(asyncio.get_running_loop().create_task(feed()))
    return made


feeding: list[asyncio.Task[None]] = []
framings = st.sampled_from(["chunked", "length", "close"])


@given(
    st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"data: ", "é".encode(), b"0\r\n\r\n"]), max_size=40),
    st.lists(st.integers(1, 9), max_size=30),
    st.lists(st.integers(1, 9), max_size=30),
    framings,
)
def test_a_body_is_the_same_in_any_framing_and_any_cut(
    parts: list[bytes], chunks: list[int], cuts: list[int], framing: str
) -> None:
    text = b"".join(parts)
    data, headers = text, {}
    if framing == "chunked":
        pieces, at = [], 0
        for size in [*chunks, len(text)]:
            pieces.append(text[at : at + size])
            at += size
        framed = [b"%x;x=y\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece]
        data, headers = b"".join(framed) + b"0\r\nTrailer: 1\r\n\r\n", {"transfer-encoding": "chunked"}
    elif framing == "length":
        headers = {"content-length": str(len(text))}

    async def read() -> tuple[bytes, list[bytes]]:
        lines = [line async for line in reply_of(headers, data, cuts).lines()]
        return await reply_of(headers, data, cuts).body(), lines

    body, lines = asyncio.run(read())
    assert body == text
    expected = [line.removesuffix(b"\r") for line in text.split(b"\n")]
    # what is behind the last newline is a line only if there is something
    assert lines == (expected[:-1] if not text.split(b"\n")[-1] else [*expected[:-1], text.split(b"\n")[-1]])


@pytest.mark.parametrize(
    "headers, data",
    [
        ({"content-length": "5"}, b"four"), ({"transfer-encoding": "chunked"}, b"4\r\nfour\r\n"),
        ({"transfer-encoding": "chunked"}, b"5\r\nfour"), ({"transfer-encoding": "chunked"}, b"x\r\nfour\r\n0\r\n\r\n"),
        ({"transfer-encoding": "chunked"}, b"ffffffffff\r\n"), ({"transfer-encoding": "chunked"}, b""),
    ],
)  # fmt: skip
def test_an_answer_that_is_cut_is_no_answer(headers: dict[str, str], data: bytes) -> None:
    async def read() -> bytes:
        return await reply_of(headers, data, []).body()

    with pytest.raises(ProtocolError):
        asyncio.run(read())


@pytest.mark.parametrize(
    "table, code, message",
    [
        ({"error": {"message": "no", "type": "invalid_request_error", "code": "x"}}, "x", "no"),  # OpenAI
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
            "overloaded_error",
            "busy",
        ),
        ({"error": "plain"}, "", "plain"),
        ({"message": "vLLM's old form"}, "", "vLLM's old form"),
    ],
)
def test_errors_of_several_servers(table: dict[str, Any], code: str, message: str) -> None:
    made = failure(503, {"retry-after": "1.5", "x-should-retry": "false"}, table)
    assert (made.code, made.message, made.retry_after_s, made.may_retry) == (code, message, 1.5, False)
    assert failure(503, {"retry-after": "Wed, 25 Nov 2026 12:00:00 GMT"}, table).retry_after_s is None


# a scripted server


class Site(ThreadingHTTPServer):
    """Answers POST by `script`: custom answers by the text of the prompt, as (status, headers), and keeps count."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked: list[dict[str, Any]] = []
        self.script: dict[str, list[tuple[int, dict[str, str]]]] = {}
        self.hold = threading.Event()
        self.hold.set()
        self.lock, self.running, self.most = threading.Lock(), 0, 0
        self.room = 1 << 30  # requests at once; more are refused


class Handler(BaseHTTPRequestHandler):
    server: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.send(200, json.dumps({"data": [{"id": "first"}, {"id": "second"}]}).encode(), {})

    def do_POST(self) -> None:
        site, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = str(body.get("prompt") or body["messages"][-1]["content"])
        with site.lock:
            site.asked.append({"path": self.path, **body})
            site.running += 1
            site.most = max(site.most, site.running)
            status, headers = (site.script.get(prompt) or [(200, {})]).pop(0)
            if site.running > site.room:
                status = 503
        site.hold.wait(30)
        time.sleep(0.005)
        with site.lock:
            site.running -= 1
        if status == 0:  # no answer at all
            self.close_connection = True
            return
        if status != 200:
            error = {"error": {"message": "scripted", "code": "busy"}}
            return self.send(status, json.dumps(error).encode(), headers)
        if body.get("stream"):
            return self.send(200, stream(prompt), {"Content-Type": "text/event-stream"})
        self.send(200, json.dumps({"choices": [{"text": prompt}]}).encode(), {"X-Request-Id": "r-1"})


def stream(prompt: str) -> bytes:
    """OpenAI's events of an answer that says what was asked, in two pieces, with reasoning before it."""
    half = len(prompt) // 2
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, {"reasoning_content": "hm"}]
    deltas += [{"content": prompt[:half]}, {"content": prompt[half:]}]
    events = [{"choices": [{"index": 0, "delta": delta, "text": delta.get("content")}]} for delta in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    events.append({"choices": [], "usage": {"completion_tokens": 7}})
    if prompt == "break":
        events = [events[2], {"error": {"message": "the engine ended", "code": "engine_dead"}}]
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return (": keep-alive\n\n" + "".join(lines) + "data: [DONE]\n\n").encode()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.hold.set()
        made.shutdown()
        thread.join()


# conversations


class Desk:
    """A chat whose input is a list of lines; what it shows and tells is kept."""

    def __init__(self, site: Site, *lines: str) -> None:
        self.out, self.told = io.StringIO(), []
        rest = list(lines)

        def ask(prompt: str) -> str:
            if not rest:
                raise EOFError
            return rest.pop(0)

        self.session = Session.of(site.url, None, None, "", [])
        self.chat = Chat(self.session, Screen(self.out), ask, self.told.append)
        assert self.chat.run() == 0


def test_a_conversation_is_sent_as_a_whole(site: Site) -> None:
    desk = Desk(
        site,
        "/system be brief",
        "one",
        '/params temperature=0.5 stop=["x"]',
        "two\\",
        "lines",
        '"""',
        "a",
        "",
        "b",
        '"""',
        "//slash",
    )
    assert desk.out.getvalue() == "one\ntwo\nlines\na\n\nb\n/slash\n"
    assert [len(body["messages"]) for body in site.asked] == [2, 4, 6, 8]
    assert site.asked[-1]["messages"][:3] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "one"},
    ]
    assert [m["content"] for m in site.asked[-1]["messages"][3::2]] == ["two\nlines", "a\n\nb", "/slash"]
    assert site.asked[0]["model"] == "first" and "temperature" not in site.asked[0]
    assert (site.asked[1]["temperature"], site.asked[1]["stop"]) == (0.5, ["x"])


def test_commands(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    desk = Desk(
        site, "/help", "one", "/usage", "/model second", "two", f"/save {file}", "/undo", "/retry", "/reset", "three", f"/load {file}",
        "four", "/params a=1", "/params a=", "/nothing", "/model third", "/load /nowhere/x", "/params =3", "/save", "/qu", "never",
    )  # fmt: skip
    contents = [[m["content"] for m in body["messages"] if m["role"] == "user"] for body in site.asked]
    assert contents == [["one"], ["one", "two"], ["one"], ["three"], ["one", "two", "four"]]
    assert site.asked[1]["model"] == "second"
    told = "\n".join(desk.told)
    for words in (
        "/params [NAME=VALUE ...]",
        '{"completion_tokens": 7}',
        "* second",
        "(taken back: two)",
        "a=1",
        "(the server's defaults)",
    ):
        assert words in told
    for words in (
        "no command /nothing",
        "no model third; there are first, second",
        "/nowhere/x: No such file",
        "'=3'",
        "which file?",
    ):
        assert words in told
    conversation, params = loaded(file.read_text())
    assert [m["role"] for m in conversation.messages] == ["user", "assistant"] * 2 and params == {}


def test_what_failed_is_taken_back_and_what_came_is_kept(site: Site) -> None:
    site.script["no"] = [(503, {}), (200, {})]
    desk = Desk(site, "no", "break", "yes")
    assert any("503 busy: scripted" in text for text in desk.told)
    assert any("engine_dead: the engine ended" in text for text in desk.told)
    assert [m["content"] for m in site.asked[-1]["messages"]] == ["break", "br", "yes"]


messages = st.lists(
    st.builds(
        lambda role, text: {"role": role, "content": text},
        st.sampled_from(["user", "assistant"]),
        st.text(max_size=20),
    ),
    max_size=6,
)


@given(messages, st.text(max_size=10))
def test_what_is_saved_is_what_is_loaded(said: list[dict[str, str]], system: str) -> None:
    conversation = Conversation(list(said))
    conversation.set_system(system)
    session = Session(Target("h", 1), "m", {"temperature": 0.1})
    again, params = loaded(saved(conversation, session))
    assert again.messages == conversation.messages and params == session.params
    again.reset()
    assert again.messages == ([{"role": "system", "content": system}] if system else [])


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"role": "tool", "content": ""}]', '{"messages": 3}', '[{"role": "user"}]',
                                  '[{"role": "user", "content": ""}, {"role": "system", "content": ""}]'])  # fmt: skip
def test_what_cannot_be_loaded(text: str) -> None:
    with pytest.raises(ConfigError):
        loaded(text)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_answer_cannot_steer_the_terminal() -> None:
    evil, out, pipe = "a\x1b]0;title\x07\x9b2J\tb\r\nü", Terminal(), io.StringIO()
    for screen in (Screen(out), Screen(pipe)):
        screen.write(Piece(reasoning="thinking\x1b[2J"))
        screen.write(Piece(text=evil))
    shown = out.getvalue().removeprefix("\x1b[2m").replace("\x1b[0m", "")
    assert shown == "thinking\ufffd[2J\na\ufffd]0;title\ufffd\ufffd2J\tb\ufffd\nü"
    assert pipe.getvalue() == evil, "in a pipe the text is exact, and nothing but the answer"


# batches


def line(custom_id: str, prompt: str = "p", **changes: Any) -> str:
    table = {"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": {"prompt": prompt}}
    return json.dumps({**table, **changes}) + "\n"


REFUSED = [
    ("{", "not JSON"), ("[]", "expected an object"), (line(""), "custom_id"), (line("x" * 513), "custom_id"),
    (line("a", method="GET"), "method"), (line("a", url="http://elsewhere/v1/x"), "url"), (line("a", url="/v1/x y"), "url"),
    (line("a", url="/v1/x\r\nHost: b"), "url"), (line("a", body=[]), "body"), (line("a", body={"stream": True}), "stream"),
    (line("same"), "two requests have the custom_id 'same'"), ("[" * 100_000, "not JSON"),
]  # fmt: skip


@pytest.mark.parametrize("bad, message", REFUSED)
def test_nothing_is_sent_of_a_file_with_a_fault(
    site: Site, tmp_path: Path, bad: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text(line("same") + "\n" + bad)
    assert cli.main(["run-batch", "-i", str(given), "-o", str(out), "--url", site.url]) == 78
    told = capsys.readouterr().err
    assert message in told and (f"{given}:3:" in told or "two requests" in told)
    assert not site.asked and not out.exists()


def results(path: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    assert len({row["custom_id"] for row in rows}) == len(rows), "a request has two results"
    return {row["custom_id"]: row for row in rows}


def run_batch(site: Site, tmp_path: Path, *more: str) -> int:
    words = ["-i", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--url", site.url]
    return cli.main(["run-batch", *words, *more])


def test_results_and_failures(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 and 503 are tried again after what Retry-After says; 400 is not, and neither is what the server says it should not."""
    pauses: list[tuple[int, float | None]] = []
    monkeypatch.setattr(batch, "pause_s", lambda tries, wanted: pauses.append((tries, wanted)) or 0.0)
    site.script = {
        "slow": [(429, {"Retry-After": "3"}), (503, {"Retry-After": "1.5"}), (502, {}), (200, {})],
        "bad": [(400, {}), (200, {})],
        "never": [(503, {"x-should-retry": "false"}), (200, {})],
        "full": [(503, {})] * 9,
        "gone": [(0, {})] * 9,
    }
    (tmp_path / "in.jsonl").write_text("".join(line(name, name) for name in ("fine", *site.script)))
    assert run_batch(site, tmp_path, "--max-retries", "3") == 1
    found = results(tmp_path / "out.jsonl")
    statuses = {name: row["response"] and row["response"]["status_code"] for name, row in found.items()}
    assert statuses == {"fine": 200, "slow": 200, "bad": 400, "never": 503, "full": 503, "gone": None}
    assert (
        found["fine"]["response"]["body"] == {"choices": [{"text": "fine"}]}
        and found["fine"]["error"] is None
    )
    assert found["fine"]["response"]["request_id"] == "r-1"
    assert found["bad"]["response"]["body"]["error"]["message"] == "scripted"
    assert found["gone"]["error"]["code"] == "connection_error"
    tries = Counter(body["prompt"] for body in site.asked)
    assert tries == {"fine": 1, "slow": 4, "bad": 1, "never": 1, "full": 4, "gone": 4}
    assert {(0, 3.0), (1, 1.5), (2, None)} <= set(pauses)


def test_what_ended_goes_on(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Good results stay, failed and torn ones are asked for again."""
    names = [f"r{number}" for number in range(6)]
    (tmp_path / "in.jsonl").write_text("".join(line(name, name) for name in names))
    good = batch.result_line(batch.Item("r0", "", b""), 200, {"kept": True}, "x")
    failed = batch.result_line(batch.Item("r1", "", b""), 500, {}, "x")
    lost = batch.error_line(batch.Item("r2", "", b""), "connection_error", "x")
    (tmp_path / "out.jsonl").write_text(good + failed + lost + good.replace("r0", "r3")[:-30])
    assert run_batch(site, tmp_path) == 0
    found = results(tmp_path / "out.jsonl")
    assert set(found) == set(names) and found["r0"]["response"]["body"] == {"kept": True}
    assert sorted(body["prompt"] for body in site.asked) == names[1:]
    assert "1 of 6 have a result" in capsys.readouterr().err
    assert run_batch(site, tmp_path) == 0 and len(site.asked) == 5, "nothing is left to ask"
    assert not list(tmp_path.glob(".out*"))


def test_so_many_at_once_and_no_more(site: Site, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(line(f"r{number}") for number in range(30)))
    assert run_batch(site, tmp_path, "--concurrency", "4") == 0
    assert site.most == 4 and len(results(tmp_path / "out.jsonl")) == 30


def test_a_full_server_is_asked_for_less(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes three at a time refuses many of 16 at first, and a request has few tries: all get through."""
    monkeypatch.setattr(batch, "pause_s", lambda tries, wanted: 0.01)
    site.room = 3
    (tmp_path / "in.jsonl").write_text("".join(line(f"r{number}") for number in range(60)))
    assert run_batch(site, tmp_path, "--concurrency", "16") == 0
    assert len(results(tmp_path / "out.jsonl")) == 60
    assert len(site.asked) < 60 * 2, "most of what was sent had a place"


def test_the_window_halves_once_for_what_is_out_and_grows_by_answers() -> None:
    async def follow() -> list[int]:
        window = Window(8)
        tickets = [await window.enter() for _ in range(8)]
        entering = asyncio.ensure_future(window.enter())
        await asyncio.sleep(0)
        assert not entering.done(), "the window is full"
        for ticket in tickets:
            window.refused(ticket)
        sizes = [window.size]
        for _ in tickets[:4]:
            await window.leave()
        await asyncio.sleep(0)
        assert not entering.done(), "four are still out, and four may be"
        await window.leave()
        window.refused(await entering)
        sizes.append(window.size)
        for _ in range(60):
            window.answered()
        return [*sizes, window.size]

    assert asyncio.run(follow()) == [4, 2, 8]


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "-i FILE and -o FILE"), (["-i", "IN", "-o", "IN", "--url", "http://h"], "is the input file"),
        (["-i", "IN", "-o", "out", "--url", "http://h", "--max-num-seqs", "3"], "--max-num-seqs is for a server of its own"),
        (["-i", "IN", "-o", "out", "--url", "http://h", "--concurrency", "0"], "--concurrency"),
        (["-i", "/nowhere/in", "-o", "out"], "/nowhere/in: No such file"),
        (["-i", "/nowhere/in", "-o", "IN"], "/nowhere/in: No such file"),
        (["-i", "IN", "-o", "out", "--url", "http://127.0.0.1:9"], "no server answers at 127.0.0.1:9"),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_begin(
    tmp_path: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("IN").write_text(line("a"))
    status = 69 if message.startswith("no server") else 78
    assert cli.main(["run-batch", *words]) == status and message in capsys.readouterr().err
    assert not Path("out").exists()


@given(st.integers(0, 10**6), st.none() | st.floats(0, 1e6), st.floats(0, 1))
def test_pauses_are_bounded_and_not_shorter_than_asked_for(
    tries: int, wanted: float | None, drawn: float
) -> None:
    made = batch.pause_s(tries, wanted, lambda: drawn)
    assert 0 <= made <= 120 and (wanted is None or made >= min(wanted, 120))


def test_progress_as_a_bar() -> None:
    counts = batch.Counts(480, kept=100, good=17, failed=3, began=0.0)
    assert batch.bar(counts, 10.0, 12) == "[###.........] 120 of 480, 3 failed, 2.0/s, 3:00 left"
    counts.good = 377
    assert batch.bar(counts, 10.0, 12) == "[############] 480 of 480, 3 failed"


def test_a_batch_waits_while_the_model_loads(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[RequestFailed | None] = [
        RequestFailed(503, "model_loading", "the model is loading", 0.01)
    ] * 3

    async def models(target: Target) -> list[str]:
        fault = answers.pop(0) if answers else None
        if fault is not None:
            raise fault
        return ["m"]

    monkeypatch.setattr(Target, "models", models)
    (tmp_path / "in.jsonl").write_text(line("a"))
    assert run_batch(site, tmp_path) == 0 and not answers
    assert capsys.readouterr().err.count("the model is loading") == 1
    answers.append(RequestFailed(500, "internal_error", "oops"))
    assert run_batch(site, tmp_path) == 78
    told = capsys.readouterr().err
    assert "500 internal_error: oops" in told and "--api-key" not in told


def test_a_refused_model_list_names_the_key(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Target, "models", _refused)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert cli.main(["chat", "hello", "--url", site.url]) == 1
    assert "401 invalid_api_key: no" in capsys.readouterr().err


async def _refused(target: Target) -> list[str]:
    raise RequestFailed(401, "invalid_api_key", "no")
