"""One line for each event, as text or JSON. Control characters are escaped (rule R7); prompt text only where it was asked for."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, TextIO

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_TOKEN_FIELDS = ("prompt_tokens", "completion_tokens", "cached_tokens", "max_tokens", "n")
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3}  # sd-daemon(3)


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What is known of a request at its end; goes into the log line and the metrics. Seconds are None where nothing was generated.

    `route` is the pattern, never the client's path: it bounds the number of series. `path` is as the client sent it, undecoded.
    """

    request_id: str
    key_id: str
    method: str
    path: str
    status: int
    client: str
    total_s: float
    tenant: str = ""
    route: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    max_tokens: int = 0
    n: int = 1
    queue_s: float | None = None
    ttft_s: float | None = None
    finish_reason: str = ""
    error: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    traceparent: str = ""
    prompt: str = ""


class Log:
    """Writes to stderr. Under systemd each line carries its priority."""

    def __init__(self, level: str, form: str, stream: TextIO | None = None) -> None:
        self.lost_lines = 0
        self._least = _LEVELS[level]
        self._json = form == "json"
        self._stream = sys.stderr if stream is None else stream
        self._journal = _is_journal(self._stream)

    def set_level(self, level: str) -> None:
        """Show lines from `level` on; for a reload while the server runs."""
        self._least = _LEVELS[level]

    def event(self, level: str, message: str, **fields: Any) -> None:
        """One line, if `level` is important enough."""
        if _LEVELS[level] < self._least:
            return
        if self._json:
            record = {"time": round(time.time(), 3), "level": level, "message": message, **fields}
            line = json.dumps(record, default=str).replace("\x7f", "\\u007f")  # the one that JSON lets pass
        else:
            pairs = "".join(f" {name}={shown(v)}" for name, v in fields.items() if v not in (None, ""))
            clock = "" if self._journal else time.strftime("%Y-%m-%d %H:%M:%S ")
            line = f"{clock}{level:<7} {escaped(message + pairs)}"
        prefix = f"<{_PRIORITY[level]}>" if self._journal else ""
        try:
            self._stream.write(f"{prefix}{line}\n")
            self._stream.flush()
        except OSError:  # a full disk or a closed pipe costs lines, never requests
            self.lost_lines += 1

    def request(self, record: RequestRecord) -> None:
        """The line of one request."""
        if _LEVELS["info"] < self._least:
            return
        fields = {
            k: round(v, 4) if isinstance(v, float) else v
            for k, v in asdict(record).items()
            if v not in (None, "")
        }
        if not record.prompt_tokens:
            for name in _TOKEN_FIELDS:
                fields.pop(name)
        self.event("info", "request", **fields)


def complain(level: str, text: str) -> None:
    """A line of the program to whoever started it, where there is no Log: on stderr, with its priority under systemd."""
    prefix = f"<{_PRIORITY[level]}>" if _is_journal(sys.stderr) else ""
    print(f"{prefix}vsrv: {text}", file=sys.stderr)


def shown(value: Any) -> str:
    """A value of a text line: quoted where it could be taken for more than one field."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in ' "=' for c in text) else text


def escaped(text: str) -> str:
    """Control characters as \\xNN, so that one event is one line and no terminal is steered."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _is_journal(stream: TextIO) -> bool:
    """systemd says with JOURNAL_STREAM which device and inode its socket has."""
    expected = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return expected == f"{status.st_dev}:{status.st_ino}"
