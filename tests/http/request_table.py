"""Reads requests.txt: rows of raw requests with their expected class."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vsrv.http.values import Limits

LIMITS = Limits(max_body_bytes=65536, head_timeout_s=60, linger_timeout_s=60)  # no timer on a slow machine
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
_MACROS = {
    "{G}": "GET / HTTP/1.1¶Host: a¶",
    "{P}": "POST /x HTTP/1.1¶Host: a¶",
    "{C}": "Transfer-Encoding: chunked¶¶",
    "{S}": "GET /smuggled HTTP/1.1¶Host: a¶¶",
}


@dataclass(frozen=True)
class Row:
    """One row. `kind`: "keep", "close", "wait", "continue" or a status."""

    source: str
    kind: str
    seen: tuple[str, ...]
    name: str
    data: bytes

    @property
    def id(self) -> str:
        return f"{self.source} {self.name}"

    @property
    def statuses(self) -> list[int]:
        """Of every response that must come, in order."""
        extra = [100] if self.kind == "continue" else [int(self.kind)] if self.kind.isdigit() else []
        return [200] * len(self.seen) + extra

    @property
    def ends(self) -> bool:
        """Whether the server closes."""
        return self.kind == "close" or self.kind.isdigit()


def rows() -> list[Row]:
    lines = Path(__file__).with_name("requests.txt").read_text(encoding="utf-8").split("\n")
    return [_row(line) for line in lines if line and not line.startswith("#")]


def _row(line: str) -> Row:
    source, kind, seen, name, data = line.split(" | ", 4)
    expected = () if seen == "-" else tuple(_expanded(seen).split(", "))
    return Row(source, kind, expected, name, _expanded(data).encode("latin-1"))


def _expanded(text: str) -> str:
    for macro, meaning in _MACROS.items():
        text = text.replace(macro, meaning)
    text = re.sub(r"\{([^{}]*)\*(\d+)\}", lambda match: match[1] * int(match[2]), text)
    return text.replace("¶", "\r\n").encode("ascii").decode("unicode_escape")
