"""An App with a scripted engine behind the real HTTP server, in a thread of its own; and its tokenizer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from array import array
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import tokenizers

from vsrv.api.admission import Admission, AdmissionLimits
from vsrv.api.app import App
from vsrv.api.auth import KeyPolicy, Keys
from vsrv.api.chunks import ChatStyle
from vsrv.api.cors import Cors
from vsrv.api.fairness import EngineRoom
from vsrv.api.parts import ApiOptions, Parts
from vsrv.api.prepare import Prepared, Preparer
from vsrv.api.refusals import error_response
from vsrv.api.schema import ModelFacts
from vsrv.engine_client import EngineClient
from vsrv.http.server import HttpServer
from vsrv.http.values import Limits
from vsrv.log import Log
from vsrv.messages import (
    Abort,
    Embed,
    Failed,
    FinishReason,
    Frame,
    Generate,
    LogProbs,
    Pooled,
    Ready,
    Step,
    TokenOutput,
)
from vsrv.metrics import Metrics
from vsrv.text.grammar import GrammarChecker
from vsrv.text.template import ChatTemplate
from vsrv.text.tokenizer import Tokenizer

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    "Hello, the quick brown fox jumps over the lazy dog.",
    "stop here and there",
    "naïve café 東京 🙂 emoji",
    "0123456789 " * 3,
]


def save_tokenizer(folder: Path) -> None:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(TEXTS * 3, trainer)
    made.save(str(folder / "tokenizer.json"))


def vector_of(frame: Embed) -> list[float]:
    """What the scripted engine makes of an input: three numbers that differ between inputs, token types and wishes."""
    ids = frame.token_ids.tolist()
    vector = [float(ids[0]), float(sum(ids)) / 7, float(frame.second_from)]
    if not frame.raw:
        length = sum(value * value for value in vector) ** 0.5
        vector = [value / length for value in vector]
    return vector[: frame.dimensions or None]


class ScriptedEngine(EngineClient):
    """Answers every Generate with the tokens of `reply`, one for each step, unless told to do something else."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(30.0, lambda line: None)
        self.tokenizer = tokenizer
        self.reply = "Hello, the quick fox."
        self.mode = "reply"
        self.generates: list[Generate] = []
        self.aborted: list[int] = []
        self.embeds: list[Embed] = []
        self.ready = Ready(tokenizer.vocab_size, 200, 8, 64, 32, 10, 20, "float32", "cpu", "Fake")

    def _send(self, frame: Frame) -> None:
        if isinstance(frame, Abort):
            self.aborted.append(frame.seq_id)
        if isinstance(frame, Generate):
            self.generates.append(frame)
            asyncio.get_running_loop().create_task(self._answer(frame))
        if isinstance(frame, Embed):
            self.embeds.append(frame)
            asyncio.get_running_loop().create_task(self._pool(frame))

    async def _pool(self, frame: Embed) -> None:
        """A vector out of the ids alone: see `vector_of`."""
        await asyncio.sleep(0)
        if self.mode == "refuse":
            self._take(Failed(frame.seq_id, "context_length_exceeded", "too long"))
        elif self.mode == "die":
            self._end_all()
        elif self.mode != "hang":
            self._take(Pooled(frame.seq_id, array("f", vector_of(frame))))

    async def _answer(self, frame: Generate) -> None:
        params = frame.params
        ids = [*self.tokenizer.encode(self.reply, False), 2][: params.max_tokens]
        prompt = None
        if params.prompt_logprobs is not None:
            rest = frame.prompt_token_ids[1:]
            k = params.prompt_logprobs
            prompt = LogProbs(
                k,
                array("I", [(t + c) % 300 if c else t for t in rest for c in range(k + 1)]),
                array("f", [-0.5] * len(rest) * (k + 1)),
                array("I", [1] * len(rest)),
            )
        if self.mode == "refuse":
            self._take(Failed(frame.seq_id, "context_length_exceeded", "too long"))
            return
        if params.max_tokens == 0:
            self._take(
                Step((TokenOutput(frame.seq_id, array("I"), FinishReason.LENGTH, None, 0, None, prompt),))
            )
        for index, token in enumerate(ids):
            await asyncio.sleep(0)
            if self.mode == "die" and index == 2:
                self._end_all()
                return
            if self.mode == "hang" and index == 2:
                return
            reason = (
                FinishReason.STOP
                if token == 2
                else FinishReason.LENGTH
                if index + 1 == params.max_tokens
                else FinishReason.NONE
            )
            rows = None
            if params.logprobs is not None:
                k = params.logprobs
                tops = [token, *[(token + 1 + j) % 300 for j in range(k)]]
                rows = LogProbs(
                    k,
                    array("I", tops),
                    array("f", [-1.5, *[-0.25 * (j + 1) for j in range(k)]]),
                    array("I", [k + 1]),
                )
            cached = 32 if index == 0 else None
            self._take(
                Step(
                    (
                        TokenOutput(
                            frame.seq_id,
                            array("I", [token]),
                            reason,
                            None,
                            cached,
                            rows,
                            prompt if index == 0 else None,
                        ),
                    )
                )
            )


class LocalPrepare:
    def __init__(self, preparer: Preparer) -> None:
        self.preparer = preparer
        self.delay_s = 0.0  # the requests of others come first

    async def prepare(self, dialect: str, body: bytes, tenant: str = "") -> Prepared:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return Prepared.from_frame(self.preparer.prepare(dialect, body).to_frame())


@dataclass(frozen=True)
class Setup:
    """What differs between sites."""

    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    key_file: Path | None = None
    policy: KeyPolicy = KeyPolicy()  # noqa: RUF009
    limits: AdmissionLimits = AdmissionLimits(4, 1000)  # noqa: RUF009
    room: EngineRoom = EngineRoom(8, 64)  # noqa: RUF009
    keep_alive_s: float = 0.05
    request_timeout_s: float = 0.0
    logged_prompt_characters: int = 0
    log_format: str = "json"
    template: str = TEMPLATE
    engine: type[ScriptedEngine] = ScriptedEngine
    facts: dict[str, Any] = field(default_factory=dict)  # that differ from the usual ones of the model


class Site:
    """A served App in a thread of its own, so that real blocking clients can talk to it."""

    def __init__(self, folder: Path, setup: Setup = Setup()) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.tokenizer = Tokenizer(folder)
        self.lines: list[str] = []
        self.clients = contextlib.ExitStack()  # closed before the server is
        self.call(self._start(folder, setup))

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    async def _start(self, folder: Path, setup: Setup) -> None:
        self.engine = setup.engine(self.tokenizer)
        facts = replace(ModelFacts(("m", "alias"), 200, self.tokenizer.vocab_size, 20, 2), **setup.facts)
        metrics = Metrics("m", setup.policy.metrics_need_key)
        checker = GrammarChecker(folder, self.tokenizer.marks)
        preparer = Preparer(self.tokenizer, ChatTemplate(setup.template, {}), facts, checker)
        self.admission = Admission(setup.limits, metrics, setup.room)
        log = Log("debug", setup.log_format, _Lines(self.lines))  # type: ignore[arg-type]
        self.prepare = LocalPrepare(preparer)
        parts = Parts(
            self.engine,
            self.prepare,
            self.tokenizer,
            facts,
            Keys(setup.keys, b"secret", setup.key_file, setup.policy, log.event),
            Cors(setup.origins),
            metrics,
            log,
            self.admission,
        )
        self.app = App(
            parts,
            ApiOptions(
                ChatStyle("assistant", True, False),
                keep_alive_interval_s=setup.keep_alive_s,
                fingerprint="fp",
                request_timeout_s=setup.request_timeout_s,
                logged_prompt_characters=setup.logged_prompt_characters,
            ),
        )
        self.server = HttpServer(
            self.app, Limits(), error_response, lambda level, text: self.lines.append(text)
        )
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        self.port = sock.getsockname()[1]
        await self.server.start(sock)

    def stop(self) -> None:
        self.clients.close()
        self.call(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        data = body if isinstance(body, bytes | None) else orjson.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        result = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        connection.close()
        return result

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        status, _, data = self.request("POST", path, body, headers)
        return status, json.loads(data)


class _Lines:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def write(self, text: str) -> None:
        self._lines.append(text)

    def flush(self) -> None:
        return

    def fileno(self) -> int:
        raise OSError("no descriptor")
