"""The prepare child: templates, long tokenising and large bodies, one request at a time, in a process that can be killed.

Frames on the socket, both ways: u32 length, u32 id, u8 kind, payload. See prepare_client.py for the other end.
"""

from __future__ import annotations

import json
import resource
import signal
import socket
import struct
import traceback
from pathlib import Path
from typing import Any

from vsrv.api.prepare import Preparer
from vsrv.api.schema import ModelFacts, SamplingDefaults
from vsrv.errors import EXIT_CONFIG, ConfigError, UserError
from vsrv.text.grammar import GrammarChecker
from vsrv.text.template import (
    ChatTemplate,
    load_template_source,
    load_tool_template_source,
    tokenizer_config,
)
from vsrv.text.tokenizer import Tokenizer

HEADER = struct.Struct("<IIB")
INIT, PREPARE, RESULT, REFUSED, BROKEN = 1, 2, 3, 4, 5
DIALECTS = (
    "chat",
    "completions",
    "tokenize",
    "messages",
    "count_tokens",
    "responses",
    "input_tokens",
    "embeddings",
    "rerank",
    "score",
)
_MEMORY_BYTES = 4 << 30  # of address space: far above an honest request, far below the host


def main(fd: int) -> int:
    """Serve until the socket ends; returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    sock = socket.socket(fileno=fd)
    preparer: Preparer | None = None
    while (frame := _receive(sock)) is not None:
        number, kind, payload = frame
        if kind == INIT:
            try:
                preparer = _build(json.loads(payload))
            except ConfigError as error:
                _send(sock, number, BROKEN, str(error).encode())
                return EXIT_CONFIG
            _send(sock, number, RESULT, b"")
        else:
            answer_kind, answer = _answer(preparer, payload)
            _send(sock, number, answer_kind, answer)
    return 0


def build_preparer(
    folder: Path,
    chat_template: str | None,
    facts: ModelFacts,
    tokenizer: Tokenizer,
    checker: GrammarChecker | None = None,
) -> Preparer:
    """A Preparer for a model folder; with `checker` it prepares requests with grammars too. Raises ConfigError."""
    source = load_template_source(folder, chat_template)
    template = None
    if source is not None:
        config, own = tokenizer_config(folder), load_tool_template_source(folder, chat_template)
        template = ChatTemplate(source, config, None if own is None else ChatTemplate(own, config))
    return Preparer(tokenizer, template, facts, checker)


def facts_of(table: dict[str, Any]) -> ModelFacts:
    """JSON form → ModelFacts."""
    defaults = SamplingDefaults(**table.pop("defaults"))
    for name in ("served_names", "extra_stop_ids", "tasks", "matryoshka"):
        table[name] = tuple(table[name])
    return ModelFacts(defaults=defaults, **table)


def _build(settings: dict[str, Any]) -> Preparer:
    folder = Path(settings["folder"])
    tokenizer = Tokenizer(folder)
    facts = facts_of(settings["facts"])
    checker = GrammarChecker(folder, tokenizer.marks, facts.compact_json, facts.closed_objects)
    return build_preparer(folder, settings["chat_template"], facts, tokenizer, checker)


def _answer(preparer: Preparer | None, payload: bytes) -> tuple[int, bytes]:
    """payload: one byte that names the dialect, then the body."""
    if preparer is None:
        raise RuntimeError("PREPARE before INIT")
    try:
        return RESULT, preparer.prepare(DIALECTS[payload[0]], payload[1:]).to_frame()
    except UserError as error:
        return _refusal(error)
    except MemoryError:
        return _refusal(
            UserError(413, "request_too_large", "the request needs too much memory to prepare", None)
        )
    except Exception:  # a fault of ours costs its own request; a new child would cost everybody a second
        traceback.print_exc()
        return _refusal(UserError(500, "internal_error", "internal error; the log has it", None))


def _refusal(error: UserError) -> tuple[int, bytes]:
    table = {"status": error.status, "code": error.code, "message": error.message, "param": error.param}
    return REFUSED, json.dumps(table).encode()


def _receive(sock: socket.socket) -> tuple[int, int, bytes] | None:
    head = _exactly(sock, HEADER.size)
    if head is None:
        return None
    length, number, kind = HEADER.unpack(head)
    payload = _exactly(sock, length)
    return None if payload is None else (number, kind, payload)


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        piece = sock.recv(min(1 << 20, size - len(parts)))
        if not piece:
            return None
        parts += piece
    return bytes(parts)


def _send(sock: socket.socket, number: int, kind: int, payload: bytes) -> None:
    sock.sendall(HEADER.pack(len(payload), number, kind) + payload)
