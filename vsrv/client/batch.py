"""`vsrv run-batch`: a file of requests in OpenAI's batch form in, a file of results out.

A result is written as soon as it is there, so that a run that was ended goes on where it stopped: requests with a good result in the output file are not
sent again, failed ones are. Results are in the order in which they came.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from vsrv.client.http import ProtocolError, Target, failure
from vsrv.client.window import Window
from vsrv.errors import ConfigError

_MAX_LINE_BYTES = 32 << 20  # the server's limit of a body
_MAX_ID = 512
_RETRIED = (408, 429, 500, 502, 503, 504)
_FULL = (429, 503)  # asks for fewer requests at once
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 120.0
_MAX_CONCURRENCY = 4096


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What `vsrv run-batch` was asked for. `max_retries` is of each request."""

    input: Path
    output: Path
    concurrency: int = 16
    max_retries: int = 8

    def check(self) -> None:
        """Raises ConfigError."""
        if not 1 <= self.concurrency <= _MAX_CONCURRENCY:
            raise ConfigError(f"--concurrency must be from 1 to {_MAX_CONCURRENCY}")
        if not 0 <= self.max_retries <= 1000:
            raise ConfigError("--max-retries must be from 0 to 1000")
        if self.input.exists() and self.output.exists() and self.output.samefile(self.input):
            raise ConfigError("the output file is the input file")


@dataclass(frozen=True, slots=True)
class Item:
    """One request: `body` is JSON as it goes out."""

    custom_id: str
    path: str
    body: bytes


@dataclass(slots=True)
class Counts:
    """How far a run is."""

    total: int
    kept: int = 0  # good results of an earlier run
    good: int = 0
    failed: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> int:
        return self.kept + self.good + self.failed


def items(path: Path) -> Iterator[Item]:
    """The requests of a batch file, checked one by one; empty lines are passed over. Raises ConfigError naming the line."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > _MAX_LINE_BYTES:
                    raise ConfigError(f"{path}:{number}: longer than {_MAX_LINE_BYTES} bytes")
                if line.strip():
                    try:
                        yield parsed(line)
                    except ValueError as error:
                        raise ConfigError(f"{path}:{number}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def parsed(line: bytes) -> Item:
    """One line of a batch file. Raises ValueError that says what is wrong with it."""
    try:
        table = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(table, dict):
        raise ValueError("expected an object with custom_id, method, url and body")
    custom_id, url, body = table.get("custom_id"), table.get("url"), table.get("body")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= _MAX_ID:
        raise ValueError(f"custom_id must be a text of 1 to {_MAX_ID} characters")
    if table.get("method") != "POST":
        raise ValueError("method must be POST")
    if (
        not isinstance(url, str)
        or not url.startswith("/v1/")
        or not url.isprintable()
        or " " in url
        or not url.isascii()
    ):
        raise ValueError("url must be a path such as /v1/chat/completions")
    if not isinstance(body, dict):
        raise ValueError("body must be an object")
    if body.get("stream"):
        raise ValueError("stream cannot be had in a batch")
    return Item(custom_id, url, json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass"))


def checked(path: Path) -> int:
    """Read a whole batch file once before anything is sent → number of requests. Raises ConfigError."""
    seen: set[str] = set()
    for item in items(path):
        if item.custom_id in seen:
            raise ConfigError(f"{path}: two requests have the custom_id {item.custom_id!r}")
        seen.add(item.custom_id)
    if not seen:
        raise ConfigError(f"{path}: no requests in it")
    return len(seen)


def resumed(path: Path) -> set[str]:
    """What an output file has of an earlier run: keeps its good results and returns their ids. Failed and torn lines are dropped."""
    if not path.exists():
        return set()
    done: set[str] = set()
    kept = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with path.open("rb") as old, kept.open("wb") as new:
            for line in old:
                custom_id = _good_id(line)
                if custom_id is not None and custom_id not in done:
                    done.add(custom_id)
                    new.write(line)
            new.flush()
            os.fsync(new.fileno())
        kept.replace(path)
    except OSError as error:
        kept.unlink(missing_ok=True)
        raise ConfigError(f"{path}: {error.strerror}") from None
    return done


def _good_id(line: bytes) -> str | None:
    if not line.endswith(b"\n"):
        return None  # a run was killed while it wrote this one
    try:
        table = json.loads(line)
        good = table["error"] is None and table["response"]["status_code"] == 200
        return str(table["custom_id"]) if good else None
    except (ValueError, KeyError, TypeError):
        return None


def result_line(item: Item, status: int, body: Any, request_id: str) -> str:
    """A result in OpenAI's form: the server's answer, error bodies included."""
    return _line(item, {"status_code": status, "request_id": request_id, "body": body}, None)


def error_line(item: Item, code: str, message: str) -> str:
    """A result without an answer."""
    return _line(item, None, {"code": code, "message": message})


def _line(item: Item, response: dict[str, Any] | None, error: dict[str, str] | None) -> str:
    table = {"id": f"batch_req_{uuid.uuid4().hex}", "custom_id": item.custom_id}
    return json.dumps({**table, "response": response, "error": error}, ensure_ascii=False) + "\n"


def pause_s(tries: int, wanted_s: float | None, draw: Callable[[], float] = random.random) -> float:
    """How long to wait before try number `tries` + 1: as the server says, else twice as long each time; a little more, so that not all
    come back at once."""
    base = min(_FIRST_PAUSE_S * 2 ** min(tries, 10), 30.0) if wanted_s is None else wanted_s
    return min(base * (1 + 0.25 * draw()), _LONGEST_PAUSE_S)


class Runner:
    """One run. Owned by the event loop."""

    def __init__(self, target: Target, options: BatchOptions, out: TextIO, counts: Counts) -> None:
        self._target = target
        self._options = options
        self._out = out
        self._window = Window(options.concurrency)
        self.counts = counts

    async def run(self, done: set[str], show: Callable[[Counts], None]) -> None:
        """Send what has no result yet, as many at once as may be and as the server takes."""
        pending = iter(item for item in items(self._options.input) if item.custom_id not in done)

        async def worker() -> None:
            for (
                item
            ) in pending:  # shared: the event loop takes them one by one, and the file is never in memory
                is_good, line = await self._result(item)
                self._out.write(line)
                self._out.flush()
                self.counts.good += is_good
                self.counts.failed += not is_good
                show(self.counts)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._options.concurrency, self.counts.total - self.counts.kept)):
                group.create_task(worker())

    async def _result(self, item: Item) -> tuple[bool, str]:
        """(whether it is a good one, its line). Tries again what may go better later."""
        tries = 0
        while True:
            wait_s: float | None = None
            ticket = await self._window.enter()
            try:
                status, body, headers = await self._sent(item)
            except (OSError, ProtocolError) as error:
                line, again = error_line(item, "connection_error", f"{error}"), True
            else:
                line = result_line(item, status, body, headers.get("x-request-id", ""))
                if status == 200:
                    self._window.answered()
                    return True, line
                if status in _FULL:
                    self._window.refused(ticket)
                fault = failure(status, headers, body if isinstance(body, dict) else {})
                wait_s, again = fault.retry_after_s, status in _RETRIED and fault.may_retry
            finally:
                await self._window.leave()
            if not again or tries >= self._options.max_retries:
                return False, line
            await asyncio.sleep(pause_s(tries, wait_s))
            tries += 1

    async def _sent(self, item: Item) -> tuple[int, Any, dict[str, str]]:
        async with self._target.request("POST", item.path, item.body) as reply:
            data = await reply.body()
        try:
            body = json.loads(data)
        except ValueError:
            body = data[:10_000].decode(errors="replace")
        return reply.status, body, dict(reply.headers)


class Progress:
    """How far the run is: a bar on a terminal, elsewhere a line for each tenth."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._told = -1.0

    def show(self, counts: Counts) -> None:
        """After each result; a terminal sees at most ten a second."""
        now, is_last = time.monotonic(), counts.ended == counts.total
        if self._is_terminal:
            if is_last or now - self._told > 0.1:
                self._told = now
                self._out.write(f"\r\x1b[K{bar(counts, now)}" + ("\n" if is_last else ""))
                self._out.flush()
            return
        tenth = counts.ended * 10 // counts.total
        if tenth > self._told:
            self._told = tenth
            print(bar(counts, now), file=self._out, flush=True)


def bar(counts: Counts, now: float, width: int = 24) -> str:
    """`[######......] 120 of 480, 3 failed, 12.3/s, 0:29 left`."""
    filled = counts.ended * width // counts.total
    sent, seconds = counts.good + counts.failed, max(now - counts.began, 1e-6)
    text = (
        f"[{'#' * filled}{'.' * (width - filled)}] {counts.ended} of {counts.total}, {counts.failed} failed"
    )
    if sent and counts.ended < counts.total:
        left = round((counts.total - counts.ended) * seconds / sent)
        text += f", {sent / seconds:.1f}/s, {left // 60}:{left % 60:02} left"
    return text


def run(options: BatchOptions, target: Target) -> int:
    """Check the whole input, then send it. Exit status 1 if a request failed, 130 if it was interrupted."""
    options.check()
    total = checked(options.input)
    done = resumed(options.output)
    known = sum(1 for item in items(options.input) if item.custom_id in done) if done else 0
    counts = Counts(total, known)
    if known:
        print(f"{known} of {total} have a result in {options.output} already", file=sys.stderr)
    try:
        out = options.output.open("a", encoding="utf-8", errors="surrogatepass")
    except OSError as error:
        raise ConfigError(f"{options.output}: {error.strerror}") from None
    with out:
        runner = Runner(target, options, out, counts)
        try:
            asyncio.run(runner.run(done, Progress(sys.stderr).show))
        except ExceptionGroup as group:  # of the workers, which fail together
            first = group.exceptions[0]
            told = first if isinstance(first, ConfigError) else ConfigError(f"{options.output}: {first}")
            raise told from None
        except KeyboardInterrupt:
            print(f"\n{counts.ended} of {total} done; the same command goes on from here", file=sys.stderr)
            return 130
    print(
        f"{counts.kept + counts.good} good and {counts.failed} failed results in {options.output}",
        file=sys.stderr,
    )
    return 1 if counts.failed else 0
