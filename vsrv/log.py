"""One line for each event, as text or JSON. Control characters are escaped (rule R7); prompt text is never logged."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, TextIO

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3}  # sd-daemon(3)


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What is known of a request at its end; goes into the log line and the metrics. Seconds are None where nothing was generated."""

    request_id: str
    key_id: str
    method: str
    path: str
    status: int
    client: str
    total_s: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    max_tokens: int = 0
    n: int = 1
    ttft_s: float | None = None
    finish_reason: str = ""


class Log:
    """Writes to stderr. Under systemd each line carries its priority."""

    def __init__(self, level: str, form: str, stream: TextIO | None = None) -> None:
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
            line = json.dumps(
                {"time": round(time.time(), 3), "level": level, "message": message, **fields}, default=str
            )
        else:
            pairs = "".join(f" {name}={value}" for name, value in fields.items() if value not in (None, ""))
            clock = "" if self._journal else time.strftime("%Y-%m-%d %H:%M:%S ")
            line = f"{clock}{level:<7} {escaped(message + pairs)}"
        prefix = f"<{_PRIORITY[level]}>" if self._journal else ""
        self._stream.write(f"{prefix}{line}\n")
        self._stream.flush()

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
            for name in ("prompt_tokens", "completion_tokens", "cached_tokens", "max_tokens", "n"):
                fields.pop(name)
        self.event("info", "request", **fields)


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
