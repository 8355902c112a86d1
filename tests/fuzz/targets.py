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
from vsrv.api.structured import Constraint, compiled
from vsrv.errors import ConfigError, FrameError, UserError
from vsrv.frames import FrameReader, encode
from vsrv.http.connection import Connection
from vsrv.http.forwarded import TrustedProxies
from vsrv.http.guard import ChunkScanner
from vsrv.http.values import Limits
from vsrv.keyfile import parse
from vsrv.messages import Abort, Failed, Stop
from vsrv.prepare_worker import DIALECTS
from vsrv.text.grammar import GrammarChecker, JsonStyle
from vsrv.text.reasoning import FORMATS as REASONING_FORMATS
from vsrv.text.reasoning import ReasoningSplitter
from vsrv.text.template import ChatTemplate
from vsrv.text.tokenizer import Tokenizer
from vsrv.text.tools import FORMATS as TOOL_FORMATS
from vsrv.text.tools import ToolScanner

LIMITS = Limits(max_head_bytes=2048, max_headers=20, max_target_bytes=512, max_body_bytes=4096)
INSIDE = re.compile(r"0x[0-9a-f]{6,}|Traceback|object at|\.py\b|site-packages|orjson|<class")
TOOLS = {"f": {"a": "integer", "b": "string", "c": "object"}}
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
    dialect = DIALECTS[data[0] % len(DIALECTS)] if data else "chat"
    try:
        prepared = preparer().prepare(dialect, data[1:])
    except UserError as error:
        check_fault(error)
        return
    for ids in prepared.prompts:
        assert all(0 <= token < 400 for token in ids)
    for limit in prepared.limits:
        assert 0 <= limit <= 2000  # 0 is for those who want the prompt's log probabilities alone


def constraint(data: bytes) -> None:
    """What an answer must look like: the first byte says of which kind, the rest is its text. It is compiled, or refused by name."""
    kind = ("json", "regex", "grammar", "structural_tag")[data[0] % 4 if data else 0]
    asked = Constraint(kind, data[1:].decode(errors="replace"), "x", JsonStyle())
    try:
        compiled(asked, checker())
    except UserError as error:
        check_fault(error)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@cache
def tokenizer() -> Tokenizer:
    """Of bytes."""
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
    return Tokenizer(folder)


@cache
def checker() -> GrammarChecker:
    marks = tokenizer().marks  # makes the file
    return GrammarChecker(Path(_folder().name), marks)


@cache
def preparer() -> Preparer:
    """With a small template."""
    facts = ModelFacts(("m",), 2000, tokenizer().vocab_size, 20, 2, tool_parser="hermes")
    return Preparer(tokenizer(), ChatTemplate(TEMPLATE, {}), facts, checker())


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


def answers(data: bytes) -> None:
    """A model's output in pieces, thinking and calls in it: the first two bytes choose the formats and where it is cut."""
    forms = list(TOOL_FORMATS.values())
    choice, cut = (data[0], data[1]) if len(data) > 1 else (0, 0)
    form, thinking = (
        forms[choice % len(forms)],
        list(REASONING_FORMATS.values())[choice // 8 % len(REASONING_FORMATS)],
    )
    text = data[2:].decode("utf-8", "replace")
    found = []
    for pieces in ((text,), (text[:cut], text[cut:]), tuple(text)):
        splitter, scanner = ReasoningSplitter(thinking, choice > 127, form.opens), ToolScanner(form, TOOLS)
        split = [*map(splitter.feed, pieces), splitter.finish()]
        scanned = [*(scanner.feed(part.content) for part in split), scanner.finish()]
        calls: list[list[str]] = []
        for delta in (delta for part in scanned for delta in part.calls):
            if delta.name:
                calls.append([delta.name, ""])
            else:
                calls[-1][1] += delta.arguments
        found.append(("".join(p.reasoning for p in split), "".join(p.text for p in scanned), calls))
    assert found[0] == found[1] == found[2]
    found[0][1].encode()


@dataclass(frozen=True)
class Target:
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


HEAD = b"POST /v1/completions?a=b HTTP/1.1\r\nHost: a:80\r\nContent-Type: application/json\r\n"
KEYS = (
    b'[[keys]]\nid = "a"\nhash = "sha256:' + b"a" * 64 + b'"\ntenant = "t"\nexpires = 2030-01-01T00:00:00Z\n'
    b'scopes = ["inference"]\nlimits = {requests_per_minute = 3}\n[tenants.t]\nweight = 2\n'
)


def _body(dialect: str, body: bytes) -> bytes:
    """A seed of `request`."""
    return bytes([DIALECTS.index(dialect)]) + body


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
            _body(
                "chat",
                b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"stop":["x"],"n":2}',
            ),
            _body(
                "completions",
                b'{"prompt":["a",[1,2]],"max_tokens":3,"temperature":0.5,"logit_bias":{"3":-1},"logprobs":2,"seed":7}',
            ),
            _body(
                "chat",
                b'{"messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]},'
                b'{"role":"tool","tool_call_id":"a","content":"x"}],"tools":[{"type":"function","function":{"name":"f","strict":true,'
                b'"parameters":{"type":"object","properties":{"a":{"enum":[1]}}}}}],"tool_choice":"required"}',
            ),
            _body("tokenize", b'{"prompt":"hello","add_special_tokens":false,"return_token_strs":true}'),
            _body(
                "messages",
                b'{"max_tokens":9,"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":"a"},{"role":"assistant",'
                b'"content":[{"type":"thinking","thinking":"t","signature":"vsrv1.YQ=="},{"type":"text","text":"b"}]}],"stop_sequences":["x"]}',
            ),
            _body(
                "count_tokens",
                b'{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"thinking":{"type":"disabled"}}',
            ),
            _body(
                "responses",
                b'{"instructions":"i","input":[{"type":"reasoning","summary":[],"encrypted_content":"vsrv1.YQ=="},{"role":"user",'
                b'"content":[{"type":"input_text","text":"a"}]}],"include":["reasoning.encrypted_content"],"text":{"format":{"type":"text"}}}',
            ),
            _body(
                "embeddings", b'{"input":["a",[1,2]],"encoding_format":"base64","truncate_prompt_tokens":-1}'
            ),
            _body("rerank", b'{"query":"q","documents":["a",{"text":"b"}],"top_n":1,"max_tokens_per_doc":3}'),
            _body("score", b'{"queries":["a","b"],"documents":["c","d"],"truncation_side":"left"}'),
        ),
    ),
    "constraint": Target(
        constraint,
        (
            b'\0{"type":"object","properties":{"a":{"enum":[1,"x"]},"b":{"$ref":"#/$defs/c"}},"$defs":{"c":{"type":"string","pattern":"^a+$"}}}',
            b'\0{"oneOf":[{"type":"integer","multipleOf":3,"minimum":0},{"type":"array","items":{"type":"string","format":"date"},"maxItems":2}]}',
            b"\1(a|b)*[c-e]{2,3}\\d",
            b'\2start: a | "b"+\na: /[0-9]+/ ("," /[0-9]+/)*\n',
            b'\2root ::= "yes" | no\nno ::= "no" [0-9]+\n',
            b'\3{"triggers":["<a"],"structures":[{"begin":"<a>","schema":{"type":"integer"},"end":"</a>"}]}',
            b'\3{"format":{"type":"sequence","elements":[{"type":"const_string","value":"x"},{"type":"regex","pattern":"a+"}]}}',
        ),
    ),
    "key_file": Target(
        key_file, (b"\0" + KEYS, b'\1{"keys":[{"id":"a","hash":"sha256:' + b"b" * 64 + b'"}]}')
    ),
    "answers": Target(
        answers,
        (
            b'\x00\x05<think>\nhm\n</think>\n<tool_call>\n{"name": "f", "arguments": {"a": "}\\""}}\n</tool_call> x',
            b'\x01\x09{"name": "f", "parameters": {"a": [1]}}; {"name": "f", "parameters": {}}',
            b'\x02\x09[f(a=1, b=\'x\'), f("""y""", [None, {1: -2.5}])]',
            b'\x03\x09[TOOL_CALLS][{"arguments": {"b": null}, "name": "f"}]',
            b'\x03\x09a[TOOL_CALLS]f[CALL_ID]123456789[ARGS]{"b": 1}',
            b"\x04\x09<tool_call>\n<function=f>\n<parameter=a>\n12\n</parameter>\n<parameter=b>\nx\n</parameter>\n</function>\n</tool_call>",
        ),
    ),
    "frames": Target(frames, (encode(Abort(7)) + encode(Failed(3, "c", "m")) + encode(Stop()),)),
    "forwarded": Target(forwarded, (b"1.2.3.4, 10.0.0.7", b"[::1]:80,unknown, 10.1.1.1:99")),
}
