"""What untrusted bytes reach, as functions of bytes for a fuzzer: each returns, or breaks with an exception that is a bug.

`fuzz.py` drives them by atheris; tests/unit/test_fuzz_targets.py runs each over its seeds and their mutations.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vsrv.api.prepare import Preparer
from vsrv.api.schema import ModelFacts
from vsrv.errors import ConfigError, FrameError, UserError
from vsrv.http.connection import Connection
from vsrv.http.forwarded import TrustedProxies
from vsrv.http.guard import ChunkScanner
from vsrv.http.values import Limits
from vsrv.keyfile import parse
from vsrv.messages import Abort, Failed, FrameReader, Stop, encode
from vsrv.text.grammar import GrammarChecker
from vsrv.text.template import ChatTemplate
from vsrv.text.tokenizer import Tokenizer

DIALECTS = ("chat", "completions", "tokenize")
LIMITS = Limits(max_head_bytes=2048, max_headers=20, max_target_bytes=512, max_body_bytes=4096)
INSIDE = re.compile(r"0x[0-9a-f]{6,}|Traceback|object at|\.py\b|site-packages|orjson|<class")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}{{ style }}"


def check_fault(error: UserError) -> None:
    """A refusal blames the client, and tells it nothing of the inside (rule R8)."""
    assert 400 <= error.status < 500 or error.status in (501, 505), error
    assert error.message and len(error.message) < 1000 and not INSIDE.search(error.message), error


def requests(data: bytes) -> list[tuple[str, str, bytes]] | None:
    """(method, path, body) of the requests that a connection takes out of `data`; None behind a fault."""
    connection, seen = Connection(LIMITS, ""), []
    connection.receive(data)
    try:
        while (head := connection.next_head()) is not None:
            body = b""
            connection.check_body(LIMITS.max_body_bytes)
            while part := connection.take_body():
                body += part
                connection.check_body(LIMITS.max_body_bytes)
            if not connection.body_complete:
                break
            seen.append((head.method, head.path, body))
            connection.send_head(204, [], None, True)
            connection.send_end()
            if not connection.start_next():
                break
    except UserError as error:
        check_fault(error)
        return None
    return seen


def connection(data: bytes) -> None:
    """Any bytes on a connection; what it takes, it takes again from the same bytes."""
    seen = requests(data)
    assert seen is None or seen == requests(data)


def chunks(data: bytes) -> None:
    """The chunk scanner finds the same whole and in two pieces; the first byte says where they part."""
    cut, wire = (data[0] if data else 0), data[1:]
    found = []
    for pieces in ((wire,), (wire[:cut], wire[cut:])):
        scanner, taken = ChunkScanner(), b""
        used = 0
        try:
            for piece in pieces:
                count, part = scanner.feed(piece)
                used, taken = used + count, taken + part
        except UserError as error:
            check_fault(error)
            found.append(None)
            continue
        assert len(taken) <= scanner.announced
        found.append((used, taken, scanner.finished))
    assert found[0] == found[1]


def request(data: bytes) -> None:
    """A body, whose first byte says which route it is for."""
    dialect = DIALECTS[data[0] % 3] if data else "chat"
    try:
        prepared = preparer().prepare(dialect, data[1:])
    except UserError as error:
        check_fault(error)
        return
    for ids in prepared.prompts:
        assert all(0 <= token < 400 for token in ids)
    for limit in prepared.limits:
        assert 0 <= limit <= 200  # 0 is for those who want the prompt's log probabilities alone


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@cache
def preparer() -> Preparer:
    """Of a tokenizer of bytes and a small template."""
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        special_tokens=["<|im_start|>", "<|im_end|>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([], trainer)
    folder = Path(_folder().name)
    made.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer(folder)
    facts = ModelFacts(("m",), 200, tokenizer.vocab_size, 20, 2)
    return Preparer(tokenizer, ChatTemplate(TEMPLATE, {}), facts, GrammarChecker(folder, tokenizer.special))


def key_file(data: bytes) -> None:
    """A key file, as JSON if the first byte is odd."""
    try:
        parse(data[1:], is_json=bool(data and data[0] % 2))
    except ConfigError as error:
        assert str(error) and "Traceback" not in str(error)


def frames(data: bytes) -> None:
    """What the other process sends."""
    reader = FrameReader()
    try:
        for start in range(0, len(data), 7):
            reader.feed(data[start : start + 7])
    except FrameError as error:
        assert str(error)


def forwarded(data: bytes) -> None:
    """X-Forwarded-For behind a trusted proxy."""
    client = TrustedProxies(("10.0.0.0/8",)).client("10.0.0.1", data.decode("latin-1"))
    assert client.isprintable()


@dataclass(frozen=True)
class Target:
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


HEAD = b"POST /v1/completions?a=b HTTP/1.1\r\nHost: a:80\r\nContent-Type: application/json\r\n"
KEYS = (
    b'[[keys]]\nid = "a"\nhash = "sha256:' + b"a" * 64 + b'"\ntenant = "t"\nexpires = 2030-01-01T00:00:00Z\n'
    b'scopes = ["inference"]\nlimits = {requests_per_minute = 3}\n[tenants.t]\nweight = 2\n'
)
TARGETS = {
    "connection": Target(
        connection,
        (
            HEAD + b"Content-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
        ),
    ),
    "chunks": Target(chunks, (b"\x045\r\nhello\r\na\r\n0123456789\r\n0\r\nX: y\r\n\r\nrest",)),
    "request": Target(
        request,
        (
            b'\0{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"stop":["x"],"n":2}',
            b'\1{"prompt":["a",[1,2]],"max_tokens":3,"temperature":0.5,"logit_bias":{"3":-1},"logprobs":2,"seed":7}',
            b'\2{"prompt":"hello","add_special_tokens":false,"return_token_strs":true}',
        ),
    ),
    "key_file": Target(
        key_file, (b"\0" + KEYS, b'\1{"keys":[{"id":"a","hash":"sha256:' + b"b" * 64 + b'"}]}')
    ),
    "frames": Target(frames, (encode(Abort(7)) + encode(Failed(3, "c", "m")) + encode(Stop()),)),
    "forwarded": Target(forwarded, (b"1.2.3.4, 10.0.0.7", b"[::1]:80,unknown, 10.1.1.1:99")),
}
