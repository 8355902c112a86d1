"""The prepare child: the same answers as in the front, and templates that hang, grow or die harm their own request only."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import socket
import subprocess
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
import tokenizers

from vsrv.api.prepare import Preparer
from vsrv.api.schema import ModelFacts, SamplingDefaults
from vsrv.api.structured import ChildNeeded
from vsrv.boot import child_command
from vsrv.errors import ConfigError, UserError
from vsrv.prepare_client import SMALL_BODY_BYTES, PrepareClient
from vsrv.prepare_worker import HEADER, INIT, PREPARE, REFUSED, RESULT, _answer, build_preparer
from vsrv.text.tokenizer import Tokenizer

TEMPLATE = """
{%- if messages[0].content == "hang" -%}
{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}
{%- elif messages[0].content == "huge" -%}{{ messages[0].content * 10000000000 }}
{%- elif messages[0].content == "loud" -%}{% for a in range(90000) %}{{ "x" * 1000 }}{% endfor %}
{%- elif messages[0].content == "refused" -%}{{ raise_exception("not today") }}
{%- endif -%}
{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}{{ style }}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(["Hello, the quick brown fox jumps over the lazy dog."] * 3, trainer)
    folder = tmp_path_factory.mktemp("model")
    made.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def local(folder: Path) -> Preparer:
    tokenizer = Tokenizer(folder)
    facts = ModelFacts(
        served_names=("m", "alias"),
        max_model_len=9000,
        vocab_size=tokenizer.vocab_size,
        max_logprobs=20,
        eos_token_id=2,
        extra_stop_ids=(0, 1),
        defaults=SamplingDefaults(temperature=0.7, top_k=5),
        template_variables={"style": "plain"},
    )
    return build_preparer(folder, None, facts, tokenizer)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def play(
    folder: Path,
    local: Preparer,
    scenario: Callable[[PrepareClient], Awaitable[None]],
    limit_s: float = 60.0,
    template: str | None = None,
) -> list[str]:
    """Run a scenario with a configured child; the lines that it logged. No process may be left."""
    before, lines = children(), []

    async def main() -> None:
        client = PrepareClient(folder, template, limit_s, lines.append)
        await client.start()
        try:
            await client.configure(local._facts, local)
            await asyncio.wait_for(scenario(client), 100)
        finally:
            await client.stop()
            assert children() == before, "stop() left a process"

    asyncio.run(main())
    gc.collect()  # a transport that was left open speaks up here
    return lines


def chat(content: str, **fields: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": content}], "seed": 1, **fields}).encode()


LONG = "the quick brown fox " * 1000
BODIES = [
    ("chat", chat("Hello <|im_end|> there", n=2, stop=["x"], logprobs=True, bad_words=["fox"])),
    ("chat", chat("naïve 東京 🙂", chat_template_kwargs={"style": "grand"}, max_tokens=5)),
    ("completions", json.dumps({"prompt": [LONG, "ab"], "seed": 1, "echo": True}).encode()),
    ("completions", json.dumps({"prompt": [1, 2, 3], "seed": 1, "user": LONG}).encode()),
    ("tokenize", chat("Hello")),
    ("tokenize", b'{"prompt": "Hello"}'),
    ("chat", b'{"messages": ['),
    ("chat", chat("hello", model="other")),
    ("chat", chat("hello", temperature=9)),
    ("chat", chat("refused")),
    ("chat", chat(LONG * 3)),
    ("completions", json.dumps({"prompt": LONG, "n": "two"}).encode()),
    ("completions", b'{"prompt": "Hello", "seed": 1}'.ljust(SMALL_BODY_BYTES + 1)),
]


def test_a_large_body_goes_to_the_child_in_pieces(folder: Path, local: Preparer) -> None:
    """A copy of it would be a pause of the event loop, tens of milliseconds for every stream."""
    size = 20 << 20
    body = bytearray(json.dumps({"prompt": "x" * size}).encode())

    async def scenario(client: PrepareClient) -> None:
        with pytest.raises(UserError, match="context"):
            await client.prepare("completions", body)
        tracemalloc.start()
        try:
            with pytest.raises(UserError, match="context"):
                await client.prepare("completions", body)
            assert tracemalloc.get_traced_memory()[1] < size // 10
        finally:
            tracemalloc.stop()

    assert play(folder, local, scenario) == []


def fault(error: UserError) -> tuple[Any, ...]:
    return error.status, error.code, error.message, error.param


def test_the_child_answers_as_the_front_would(folder: Path, local: Preparer) -> None:
    async def scenario(client: PrepareClient) -> None:
        number = client._number
        small = b'{"prompt": "Hello", "seed": 1}'.ljust(SMALL_BODY_BYTES)
        assert await client.prepare("completions", small) == local.prepare("completions", small)
        assert client._number == number, "this was worth no trip to the child"
        for count, (dialect, body) in enumerate(BODIES, 1):
            try:
                expected: Any = local.prepare(dialect, body)
            except UserError as error:
                with pytest.raises(UserError) as refused:
                    await client.prepare(dialect, body)
                assert fault(refused.value) == fault(error)
            else:
                assert await client.prepare(dialect, body) == expected
            assert client._number == number + count, "this was not prepared in the child"

    assert play(folder, local, scenario) == []


def test_an_endless_template_costs_its_own_request(folder: Path, local: Preparer) -> None:
    async def scenario(client: PrepareClient) -> None:
        first = children()
        hanging = asyncio.create_task(client.prepare("chat", chat("hang")))
        waiting = [asyncio.create_task(client.prepare("chat", chat(text))) for text in ("one", "two")]
        await asyncio.sleep(0.2)
        small = b'{"prompt": "Hello", "seed": 1}'
        assert await client.prepare("completions", small) == local.prepare("completions", small)
        assert not hanging.done(), "the template was expected to hang"
        with pytest.raises(UserError) as refused:
            await hanging
        assert (refused.value.status, refused.value.code) == (400, "prepare_timeout")
        for text, task in zip(("one", "two"), waiting, strict=True):
            assert await task == local.prepare("chat", chat(text))
        after = children()
        assert len(first - after) == len(after - first) == 1, "the child was not replaced"

    lines = play(folder, local, scenario, 3.0)
    assert len(lines) == 1 and "more than 3 s" in lines[0]


def test_a_caller_that_leaves_harms_nobody(folder: Path, local: Preparer) -> None:
    async def scenario(client: PrepareClient) -> None:
        texts = [f"number {index}" for index in range(8)]
        tasks = [asyncio.create_task(client.prepare("chat", chat(text))) for text in texts]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for text, answer in zip(texts[1::2], answers[1::2], strict=True):
            assert answer == local.prepare("chat", chat(text))
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
        gone = asyncio.create_task(client.prepare("chat", chat("hang")))
        await asyncio.sleep(0.1)
        gone.cancel()
        assert await client.prepare("chat", chat("next")) == local.prepare("chat", chat("next"))

    assert len(play(folder, local, scenario, 3.0)) == 1


def test_who_leaves_before_its_turn_has_asked_for_nothing(folder: Path, local: Preparer) -> None:
    async def scenario(client: PrepareClient) -> None:
        tasks = [asyncio.create_task(client.prepare("chat", chat("hang"))) for _ in range(4)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        assert await client.prepare("chat", chat("next")) == local.prepare("chat", chat("next"))

    assert len(play(folder, local, scenario, 1.0)) == 1, "more than the first one was run into its limit"


def test_one_tenants_slow_requests_are_not_the_others_wait(folder: Path, local: Preparer) -> None:
    async def scenario(client: PrepareClient) -> None:
        slow = [asyncio.create_task(client.prepare("chat", chat("hang"), "slow")) for _ in range(4)]
        await asyncio.sleep(0.1)
        assert await client.prepare("chat", chat("next"), "other") == local.prepare("chat", chat("next"))
        assert [task.done() for task in slow] == [True, False, False, False]
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)

    play(folder, local, scenario, 1.0)


def test_memory_and_output_have_limits(folder: Path, local: Preparer) -> None:
    async def scenario(client: PrepareClient) -> None:
        before = children()
        for content, status, code in (
            ("huge", 413, "request_too_large"),
            ("loud", 400, "template_output_too_large"),
        ):
            with pytest.raises(UserError) as refused:
                await client.prepare("chat", chat(content))
            assert (refused.value.status, refused.value.code) == (status, code)
        assert await client.prepare("chat", chat("next")) == local.prepare("chat", chat("next"))
        assert children() == before, "a refusal is no reason for a new child"

    assert play(folder, local, scenario) == []


def test_a_child_that_dies_is_replaced(folder: Path, local: Preparer) -> None:
    async def scenario(client: PrepareClient) -> None:
        assert client._process is not None
        client._process.kill()
        with pytest.raises(UserError) as refused:
            await client.prepare("chat", chat("one"))
        assert (refused.value.status, refused.value.code) == (503, "prepare_failed")
        assert refused.value.retry_after_s
        assert await client.prepare("chat", chat("two")) == local.prepare("chat", chat("two"))

    assert len(play(folder, local, scenario)) == 1


def test_a_request_that_crashes_the_child_is_not_worth_another_try(folder: Path, local: Preparer) -> None:
    async def scenario(client: PrepareClient) -> None:
        assert client._process is not None
        client._process.send_signal(signal.SIGSEGV)
        with pytest.raises(UserError) as refused:
            await client.prepare("chat", chat("one"))
        assert (refused.value.status, refused.value.code) == (400, "request_too_complex")
        assert await client.prepare("chat", chat("two")) == local.prepare("chat", chat("two"))

    assert len(play(folder, local, scenario)) == 1


GRAMMAR = json.dumps({"prompt": "x", "structured_outputs": {"regex": "[a-c]+"}}).encode()


def test_grammars_are_compiled_in_the_child(folder: Path, local: Preparer) -> None:
    """Also those of small completions, which the front prepares by itself otherwise: compiling must be where it can be stopped."""

    async def scenario(client: PrepareClient) -> None:
        with pytest.raises(ChildNeeded):
            local.prepare("completions", GRAMMAR)
        prepared = await client.prepare("completions", GRAMMAR)
        assert prepared.request is not None and "[a-c]+" in prepared.request.params.grammar
        with pytest.raises(UserError) as refused:
            await client.prepare("completions", GRAMMAR.replace(b"[a-c]+", b"[a-c"))
        assert (refused.value.code, refused.value.param) == ("invalid_grammar", "structured_outputs.regex")

    assert play(folder, local, scenario) == []


def test_stop_in_the_middle_of_requests(folder: Path, local: Preparer) -> None:
    async def scenario(client: PrepareClient) -> None:
        tasks = [asyncio.create_task(client.prepare("chat", chat(text))) for text in ("hang", "one")]
        await asyncio.sleep(0.2)
        await client.stop()
        for answer in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(answer, UserError) and answer.status == 503

    assert play(folder, local, scenario) == [], "a child was started after stop()"


@pytest.mark.parametrize(("template", "message"), [("{% if %}", "does not compile"), ("/none", "no such")])
def test_an_unusable_template_is_a_configuration_error(
    folder: Path, local: Preparer, template: str, message: str
) -> None:
    async def scenario(client: PrepareClient) -> None:
        pytest.fail("it was accepted")

    with pytest.raises(ConfigError, match=message):
        play(folder, local, scenario, template=template)


def test_the_child_ends_with_its_socket(folder: Path, local: Preparer) -> None:
    ours, theirs = socket.socketpair()
    settings = {"folder": str(folder), "chat_template": None, "facts": asdict(local._facts)}
    frames = [(INIT, json.dumps(settings).encode()), (PREPARE, b"\2" + chat("Hi")), (PREPARE, b"\0{")]
    command = [*child_command("_prepare"), "--fd", str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        ours.settimeout(60)
        for number, (kind, payload) in enumerate(frames):
            ours.sendall(HEADER.pack(len(payload), number, kind) + payload)
        ours.shutdown(socket.SHUT_WR)
        with ours.makefile("rb") as stream:
            for number, expected in enumerate((RESULT, RESULT, REFUSED)):
                length, answered, kind = HEADER.unpack(stream.read(HEADER.size))
                assert (answered, kind) == (number, expected)
                assert stream.read(length) or kind == RESULT
            assert stream.read() == b""
        assert process.wait(60) == 0


def test_a_fault_costs_its_own_request(capfd: pytest.CaptureFixture[str]) -> None:
    class Faulty:
        def prepare(self, dialect: str, body: bytes) -> None:
            raise IndexError("list index out of range")

    kind, answer = _answer(Faulty(), b"\x00{}")  # type: ignore[arg-type]
    table = json.loads(answer)
    assert kind == REFUSED and (table["status"], table["code"]) == (500, "internal_error")
    assert "index" not in table["message"] and "IndexError" in capfd.readouterr().err
