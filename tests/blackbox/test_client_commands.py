"""`vsrv chat`, `complete` and `run-batch` as processes, in a terminal and in pipes, against the demo model."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from started import Server

VSRV = [sys.executable, "-m", "vsrv"]


def vsrv(server: Server, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    stdin: dict[str, object] = {"stdin": subprocess.DEVNULL} if text is None else {"input": text}
    return subprocess.run(
        [*VSRV, *words, "--url", server.url],
        capture_output=True,
        text=True,
        timeout=60,
        **stdin,  # type: ignore[call-overload]
    )


class Terminal:
    """A command in a pseudo-terminal. `shown` is all that it has written, without carriage returns."""

    def __init__(self, *words: str) -> None:
        ours, theirs = pty.openpty()
        self._ours = ours
        environ = {**os.environ, "TERM": "dumb"}
        self.process = subprocess.Popen(
            [*VSRV, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
        )
        os.close(theirs)
        self.shown = ""

    def until(self, pattern: str, limit_s: float = 30.0) -> None:
        """Wait for something new that fits; what was before it does not count any more."""
        end = time.monotonic() + limit_s
        while (match := re.search(pattern, self.shown)) is None:
            assert time.monotonic() < end, f"no {pattern!r} in {self.shown!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # the end of a terminal
                    self.shown += os.read(self._ours, 65536).decode(errors="replace").replace("\r", "")
        self.shown = self.shown[match.end() :]

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal(server: Server) -> Iterator[Terminal]:
    made = Terminal("chat", "--url", server.url, "--temperature", "0", "--param", "seed=1")
    yield made
    made.close()


def test_a_conversation_in_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    terminal.until(r"demo at 127\.0\.0\.1:\d+\. /help lists commands\.\n> ")
    terminal.type("Which option sets the port?\n")
    terminal.until(r"--port[^>]*> ")
    terminal.type(f"/save {tmp_path}/talk.json\n")
    terminal.until(r"\(2 messages in .*\)\n> ")
    said = json.loads((tmp_path / "talk.json").read_text())
    assert [m["role"] for m in said["messages"]] == ["user", "assistant"] and "--port" in said["messages"][1][
        "content"
    ]
    assert said["params"] == {"seed": 1, "temperature": 0.0}
    terminal.type("\x04")  # Ctrl-D
    assert terminal.process.wait(10) == 0


def test_interrupting_an_answer_keeps_the_conversation(terminal: Terminal, server: Server) -> None:
    terminal.until("> ")
    terminal.type("/params ignore_eos=true max_tokens=2000\n")
    terminal.until("max_tokens=2000\n> ")
    terminal.type("Hello\n")
    terminal.until(r"Hello\n.*\w")  # it has begun to answer
    os.killpg(terminal.process.pid, signal.SIGINT)
    terminal.until(r"\(stopped\)\n> ")
    end = time.monotonic() + 5
    while json.loads(server.get("/load")[1])["server_load"]:
        assert time.monotonic() < end, "the server goes on with an answer that nobody waits for"
        time.sleep(0.02)
    terminal.type("/params ignore_eos= max_tokens=3\n")
    terminal.until("max_tokens=3\n> ")
    terminal.type("and now\n")
    terminal.until(r"\(cut off[^\n]*\n> ")
    terminal.type("/quit\n")
    assert terminal.process.wait(10) == 0


def test_one_answer_in_a_pipe(server: Server) -> None:
    asked = vsrv(server, "chat", "--temperature", "0", text="Which option sets the port?\n")
    assert asked.returncode == 0 and "--port" in asked.stdout and asked.stderr == ""
    same = vsrv(server, "chat", "Which option sets the port?", "--temperature", "0", text="")
    assert same.stdout == asked.stdout
    refused = vsrv(server, "chat", "x", "--param", "temperature=9")
    assert refused.returncode == 1 and "temperature" in refused.stderr and refused.stdout == ""


def test_a_completion_is_exact(server: Server) -> None:
    body = {"prompt": "The server\n", "max_tokens": 12, "temperature": 0}
    _, answer = server.post("/v1/completions", body)
    expected = answer["choices"][0]["text"]  # type: ignore[index]
    flags = ("--max-tokens", "12", "--temperature", "0")
    piped = vsrv(server, "complete", *flags, text="The server\n")
    assert piped.returncode == 0 and piped.stdout == expected
    assert vsrv(server, "complete", "The server\n", "--echo", *flags).stdout == "The server\n" + expected


def test_a_batch_that_is_killed_goes_on(server: Server, tmp_path: Path) -> None:
    """kill -9 in the middle, then the same command: every request has one good result, and none is lost."""
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12, "temperature": 0}
    rows = [
        {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number in range(40)
    ]
    given.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["run-batch", "-i", str(given), "-o", str(out), "--url", server.url, "--concurrency", "4"]
    process = subprocess.Popen([*VSRV, *words], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 30
    while not out.exists() or out.read_bytes().count(b"\n") < 5:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    begun = out.read_bytes().count(b"\n")
    assert begun < 40, "it was too quick to be interrupted"
    again = subprocess.run([*VSRV, *words], capture_output=True, text=True, timeout=60)
    assert again.returncode == 0 and f"{begun} of 40 have a result" in again.stderr
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(row["custom_id"] for row in results) == sorted(row["custom_id"] for row in rows)
    answers = {row["response"]["body"]["choices"][0]["message"]["content"] for row in results}
    assert len(answers) == 1, "the same request, greedy"


def own_batch(folder: Path, *words: str) -> tuple[Path, list[str]]:
    """(output file, words of run-batch) for one request to a server of its own."""
    given, out = folder / "in.jsonl", folder / "out.jsonl"
    body = {"prompt": "x", "max_tokens": 3}
    given.write_text(
        json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}) + "\n"
    )
    return out, ["run-batch", "-i", str(given), "-o", str(out), "--max-num-seqs", "2", *words]


def test_a_batch_with_a_server_of_its_own(pyz: Path, tmp_path: Path) -> None:
    """From the archive, which its server has to find again."""
    out, words = own_batch(tmp_path, "--api-key", "key-of-the-batch")
    command = [sys.executable, "-P", str(pyz), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["response"]["status_code"] == 200


def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    out, words = own_batch(tmp_path, "--no-such-flag")
    done = subprocess.run([*VSRV, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 78 and "--no-such-flag" in done.stderr and not out.exists()


@pytest.mark.slow
def test_a_batch_that_is_killed_leaves_no_server(tmp_path: Path) -> None:
    _, words = own_batch(tmp_path)
    process = subprocess.Popen([*VSRV, *words], stderr=subprocess.DEVNULL)
    end, tree = time.monotonic() + 60, []
    while len(tree) < 2:  # the server and at least its engine
        assert time.monotonic() < end and process.poll() is None
        tree = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.01)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(tree, timeout=10)
    assert not alive
