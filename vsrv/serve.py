"""Composition root of the front process: bind first, load after, serve, drain.

The socket listens before anything heavy is imported. Until the App is there, a small one answers probes and says `model_loading`.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import secrets
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsrv.config import ServeConfig, is_loopback, sampling_value
from vsrv.errors import ConfigError, UserError
from vsrv.http.server import HttpServer
from vsrv.http.values import Limits, Request, Response, StreamingResponse
from vsrv.log import Log
from vsrv.options import SAMPLING

if TYPE_CHECKING:
    from vsrv.api.app import App
    from vsrv.api.schema import ModelFacts, SamplingDefaults
    from vsrv.engine_client import EngineClient
    from vsrv.prepare_client import PrepareClient

EXIT_CONFIG = 78
_DEMO_NAME = "demo"


def run(config: ServeConfig) -> int:
    """Serve until a signal ends it; returns the exit status. Raises ConfigError before the port is bound."""
    tls = _tls(config)
    sock = _listen(config)
    try:
        return asyncio.run(Front(config, sock, tls).run())
    finally:
        sock.close()
        if config.get("uds"):
            Path(config.get("uds")).unlink(missing_ok=True)


def _listen(config: ServeConfig) -> socket.socket:
    """A bound, listening socket. Raises ConfigError naming --port, --host or --uds."""
    path = config.get("uds")
    if path:
        sock = socket.socket(socket.AF_UNIX)
        try:
            if Path(path).is_socket():
                Path(path).unlink()  # left behind by a server that was killed
            mask = os.umask(0o177)
            try:
                sock.bind(path)
            finally:
                os.umask(mask)
        except OSError as error:
            raise ConfigError(f"--uds {path}: {error.strerror}") from None
    else:
        host, port = config.get("host").strip("[]"), config.get("port")
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except socket.gaierror:
            raise ConfigError(f"--host {host} is no address of this machine") from None
        except OSError as error:
            hint = (
                "another program uses it; choose another --port or stop that one"
                if error.errno == 98
                else error.strerror
            )
            raise ConfigError(f"cannot listen on --host {host} --port {port}: {hint}") from None
    sock.listen(2048)
    sock.setblocking(False)
    return sock


def _listen_for_metrics(config: ServeConfig) -> socket.socket | None:
    """The listening socket of --metrics-port, if there is one. Raises ConfigError."""
    host, port = config.get("host").strip("[]"), config.get("metrics-port")
    if not port:
        return None
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=16)
    except OSError as error:
        raise ConfigError(f"cannot listen on --host {host} --metrics-port {port}: {error.strerror}") from None
    sock.setblocking(False)
    return sock


def _tls(config: ServeConfig) -> ssl.SSLContext | None:
    if not config.get("ssl-certfile"):
        return None
    from vsrv.http.tls import TlsFiles, server_context

    return server_context(
        TlsFiles(
            config.get("ssl-certfile"),
            config.get("ssl-keyfile"),
            config.get("ssl-keyfile-password"),
            config.get("ssl-ca-certs"),
            config.get("ssl-cert-reqs"),
            config.get("ssl-ciphers"),
        )
    )


@dataclass(slots=True)
class Loaded:
    """What loading has made so far; the small app reads it."""

    phase: str = "start"
    app: App | None = None


class Front:
    """One serving process. Owned by the event loop."""

    def __init__(self, config: ServeConfig, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._config = config
        self._socket = sock
        self._tls = tls
        self._log = Log(config.get("log-level"), config.get("log-format"))
        self._loaded = Loaded()
        self._engine: EngineClient | None = None
        self._prepare: PrepareClient | None = None
        self._began = time.monotonic()
        self._signals = 0
        self._stop = asyncio.Event()
        limits = Limits(
            max_head_bytes=config.get("h11-max-incomplete-event-size"),
            max_headers=config.get("h11-max-header-count"),
            max_body_bytes=config.get("max-body-bytes"),
            max_connections=config.get("max-connections"),
            idle_timeout_s=config.get("keep-alive-timeout"),
        )
        self._server = HttpServer(
            self._app, limits, _plain_error, self._log.event, config.get("root-path").rstrip("/")
        )
        self._metrics_socket = _listen_for_metrics(config)
        self._metrics_server = HttpServer(self._scrape, limits, _plain_error, self._log.event)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        await self._server.start(self._socket, self._tls)
        if self._metrics_socket is not None:
            await self._metrics_server.start(self._metrics_socket)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        self._log.event("info", f"listening on {self._address()}")
        loading = loop.create_task(self._load())
        stopped = loop.create_task(self._stop.wait())
        status = 0
        try:
            await asyncio.wait((loading, stopped), return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                status = await self._serve_until(loading, stopped)
            else:
                loading.cancel()
        finally:
            await self._shut_down()
        return status

    async def _serve_until(self, loading: asyncio.Task[None], stopped: asyncio.Task[bool]) -> int:
        """After loading: wait for a signal, or for the engine's end. Returns the exit status."""
        try:
            loading.result()
        except ConfigError as error:
            print(f"vsrv: {error}", file=sys.stderr)
            return EXIT_CONFIG
        assert self._engine is not None
        ended = asyncio.get_running_loop().create_task(self._engine.ended.wait())
        await asyncio.wait((stopped, ended), return_when=asyncio.FIRST_COMPLETED)
        if not stopped.done():
            self._log.event("error", "the engine has ended: telling every client, then exiting with status 1")
            await self._server.drain(2.0)
            return 1
        ended.cancel()
        return 0

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals > 1:
            self._log.event("warning", "second signal: stopping at once")
        self._stop.set()

    async def _shut_down(self) -> None:
        engine = self._engine
        if engine is not None and not engine.ended.is_set() and engine.ready is not None and self._signals:
            engine.draining = True
            running = engine.num_streams
            if running:
                self._log.event(
                    "info",
                    f"draining: {running} sequences may finish within {self._config.get('shutdown-timeout'):g} s",
                )
            drain = asyncio.get_running_loop().create_task(
                self._server.drain(self._config.get("shutdown-timeout"))
            )
            while not drain.done() and self._signals < 2:
                await asyncio.wait((drain,), timeout=0.1)
            drain.cancel()
        if engine is not None:
            await engine.stop()
        if self._prepare is not None:
            await self._prepare.stop()
        await self._server.drain(1.0)  # streams get their error event now that the engine has ended
        await self._server.stop()
        await self._metrics_server.stop()
        self._log.event("info", "stopped")

    # loading

    async def _load(self) -> None:
        """Model folder, children, App. Raises ConfigError."""
        loop = asyncio.get_running_loop()
        config = self._config
        self._loaded.phase = "download" if config.get("model") else "start"
        folder = await loop.run_in_executor(None, self._resolve)
        from vsrv.engine_client import EngineClient

        self._engine = engine = EngineClient(config.get("engine-stall-timeout"), self._engine_line)
        await engine.start(config.engine(folder))
        try:
            build = await loop.run_in_executor(None, functools.partial(_prepare_parts, config, folder))
        except ConfigError:
            await self._wait_for_spec(engine)
            raise
        from vsrv.prepare_client import PrepareClient

        self._prepare = PrepareClient(folder, config.get("chat-template"), 10.0, self._engine_line)
        await self._prepare.start()
        await self._wait_for_engine(engine)
        assert engine.ready is not None
        self._loaded.app = await build(engine, self._prepare, self._log)
        for line in engine.ready.budget:
            self._log.event("info", line)
        self._announce()

    def _resolve(self) -> Path:
        config, model = self._config, self._config.get("model")
        if model is None:
            from vsrv import demo

            return demo.model_path()
        from vsrv import hub

        options = hub.HubOptions(config.get("revision"), config.get("download-dir"), config.get("hf-token"))
        return hub.resolve(model, options, lambda line: self._log.event("info", line))

    async def _wait_for_spec(self, engine: EngineClient) -> None:
        """Raises ConfigError if the engine refuses the model: that explains more than what its other files lack."""
        while engine.loading.phase in ("start", "config") and not engine.ended.is_set():
            await asyncio.sleep(0.05)
        if engine.failure is not None:
            raise ConfigError(engine.failure)

    async def _wait_for_engine(self, engine: EngineClient) -> None:
        loop = asyncio.get_running_loop()
        ready, ended = loop.create_task(engine.became_ready.wait()), loop.create_task(engine.ended.wait())
        phase = ""
        while not ready.done() and not ended.done():
            await asyncio.wait((ready, ended), timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
            if engine.loading.phase != phase:
                phase = engine.loading.phase
                self._log.event("info", f"loading: {phase} {engine.loading.detail}".rstrip())
        ready.cancel()
        if engine.ready is None:
            raise ConfigError(
                engine.failure or "the engine ended while it was loading; its messages are above"
            )
        ended.cancel()

    def _engine_line(self, line: str) -> None:
        self._log.event("warning", line)

    def _announce(self) -> None:
        name = self._loaded.app.facts.served_names[0] if self._loaded.app else ""
        seconds = time.monotonic() - self._began
        self._log.event("info", f"ready in {seconds:.1f} s: {name} at {self._address()}")
        if not self._config.get("uds"):
            key = " -H 'Authorization: Bearer KEY'" if self._needs_key() else ""
            body = '{"messages": [{"role": "user", "content": "Hello!"}]}'
            self._log.event(
                "info",
                f"try: curl {self._address()}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'",
            )
        if (
            not self._needs_key()
            and not self._config.get("uds")
            and not is_loopback(self._config.get("host"))
        ):
            self._log.event(
                "warning", "everybody who reaches this port may use the model (--allow-unauthenticated)"
            )

    def _needs_key(self) -> bool:
        return bool(self._config.get("api-key") or self._config.get("api-key-file"))

    def _address(self) -> str:
        if self._config.get("uds"):
            return f"unix:{self._config.get('uds')}"
        host, port = self._socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{shown}:{port}"

    # requests

    async def _app(self, request: Request) -> Response | StreamingResponse:
        if self._loaded.app is not None:
            return await self._loaded.app(request)
        return _loading_answer(request, self._loaded.phase, self._engine, time.monotonic() - self._began)

    async def _scrape(self, request: Request) -> Response | StreamingResponse:
        if self._loaded.app is not None:
            return await self._loaded.app.scrape(request)
        return _loading_answer(request, self._loaded.phase, self._engine, time.monotonic() - self._began)


def _loading_answer(request: Request, phase: str, engine: EngineClient | None, elapsed_s: float) -> Response:
    """Before the App: /livez lives, everything else says what is being done."""
    if request.path == "/livez":
        return Response(200, [("content-type", "text/plain")], b"ok\n")
    fraction = 0.0
    if engine is not None:
        phase, fraction = engine.loading.phase, engine.loading.fraction
    done = f", {fraction:.0%} done" if fraction else ""
    message = f"the model is loading ({phase}{done}, {elapsed_s:.0f} s so far); try again soon"
    return _plain_error(UserError(503, "model_loading", message, None, 2.0), request.id)


def _plain_error(error: UserError, request_id: str) -> Response:
    """OpenAI's error body with the standard library's JSON: nothing of the api folder is loaded yet when it is first needed."""
    headers = [("content-type", "application/json")]
    if error.retry_after_s is not None:
        headers.append(("retry-after", str(max(1, round(error.retry_after_s)))))
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    table = {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}
    return Response(error.status, headers, json.dumps(table).encode())


def _prepare_parts(config: ServeConfig, folder: Path) -> Callable[[EngineClient, PrepareClient, Log], Any]:
    """Import and build what needs no engine (about 0.3 s, in a thread); returns what finishes the App once it is ready."""
    from vsrv.api.admission import Admission, AdmissionLimits
    from vsrv.api.app import ApiOptions, App, Parts
    from vsrv.api.auth import KeyPolicy, Keys
    from vsrv.api.chat import ChatStyle
    from vsrv.api.cors import Cors
    from vsrv.api.fairness import EngineRoom
    from vsrv.metrics import Metrics
    from vsrv.prepare_worker import build_preparer
    from vsrv.text.tokenizer import Tokenizer

    get = config.get
    tokenizer = Tokenizer(folder)
    policy = KeyPolicy(get("prefix-cache-scope"), get("metrics-auth") == "key")
    key_file = Path(get("api-key-file")) if get("api-key-file") else None

    async def finish(engine: EngineClient, prepare: PrepareClient, log: Log) -> App:
        assert engine.ready is not None
        facts = model_facts(
            config,
            folder,
            tokenizer,
            engine.ready.vocab_size,
            engine.ready.max_model_len,
            functools.partial(log.event, "warning"),
        )
        await prepare.configure(
            facts,
            build_preparer(
                folder, None if get("chat-template") is None else get("chat-template"), facts, tokenizer
            ),
        )
        metrics = Metrics(facts.served_names[0], get("metrics-auth") == "key" or bool(get("metrics-port")))
        room = EngineRoom(engine.ready.max_num_seqs, engine.ready.max_num_batched_tokens)
        parts = Parts(
            engine=engine,
            prepare=prepare,
            tokenizer=tokenizer,
            facts=facts,
            keys=Keys(get("api-key"), secrets.token_bytes(32), key_file, policy, log.event),
            cors=Cors(
                get("allowed-origins"),
                get("allowed-methods"),
                get("allowed-headers"),
                get("allow-credentials"),
            ),
            metrics=metrics,
            log=log,
            admission=Admission(
                AdmissionLimits(
                    get("max-num-queued-reqs"),
                    get("max-num-queued-tokens"),
                    get("max-num-queued-bytes"),
                    get("queue-timeout"),
                ),
                metrics,
                room,
                lambda: engine.beat is not None and engine.beat.num_waiting > room.spare,
            ),
        )
        style = ChatStyle(
            get("response-role"), get("enable-prompt-tokens-details"), get("enable-force-include-usage")
        )
        app = App(
            parts,
            ApiOptions(
                style=style,
                keep_alive_interval_s=get("sse-keep-alive-interval"),
                tokens_as_ids=get("return-tokens-as-token-ids"),
                log_requests=get("enable-log-requests") and not get("disable-uvicorn-access-log"),
                quiet_paths=frozenset(get("disable-access-log-for-endpoints").split(",")),
                metrics_enabled=not get("disable-log-stats"),
                metrics_on_own_port=bool(get("metrics-port")),
                request_timeout_s=get("request-timeout"),
                logged_prompt_characters=get("max-log-len") if get("log-prompts") else 0,
                fingerprint=_fingerprint(config, folder),
                created=int((folder / "config.json").stat().st_mtime),
            ),
        )
        app.watch_keys()
        return app

    return finish


def model_facts(
    config: ServeConfig,
    folder: Path,
    tokenizer: Any,
    vocab_size: int,
    max_model_len: int,
    warn: Callable[[str], None],
) -> ModelFacts:
    """What requests are checked against, from options and the model folder. Raises ConfigError."""
    from vsrv.api.schema import ModelFacts
    from vsrv.text.template import special_token_text, tokenizer_config

    get = config.get
    generation = _generation_config(config, folder)
    eos_text = special_token_text(tokenizer_config(folder), "eos_token")
    eos = tokenizer.token_to_id(eos_text) if eos_text else None
    listed = generation.get("eos_token_id", _json(folder / "config.json").get("eos_token_id"))
    ids = [
        i
        for i in (listed if isinstance(listed, list) else [listed])
        if isinstance(i, int) and 0 <= i < vocab_size
    ]
    if eos is None and ids:
        eos = ids[0]
    model = get("model")
    names = get("served-model-name") or (_DEMO_NAME if model is None else model.rstrip("/"),)
    return ModelFacts(
        served_names=names,
        max_model_len=max_model_len,
        vocab_size=vocab_size,
        max_logprobs=get("max-logprobs"),
        eos_token_id=eos,
        extra_stop_ids=tuple(i for i in ids if i != eos),
        defaults=_sampling_defaults(config, generation, warn),
        max_n=get("max-n-sequences"),
        max_prompts=get("max-completion-prompts"),
        template_variables=get("default-chat-template-kwargs"),
        response_role=get("response-role"),
        content_format=get("chat-template-content-format"),
    )


def _generation_config(config: ServeConfig, folder: Path) -> dict[str, Any]:
    source = config.get("generation-config")
    if source == "auto":
        return _json(folder / "generation_config.json")
    if source == "vllm":
        table = _json(folder / "generation_config.json")
        return {"eos_token_id": table["eos_token_id"]} if "eos_token_id" in table else {}
    path = Path(source) / "generation_config.json"
    if not path.is_file():
        raise ConfigError(
            f"--generation-config {source}: no generation_config.json there; or use auto or vllm"
        )
    return _json(path)


def _sampling_defaults(
    config: ServeConfig, generation: dict[str, Any], warn: Callable[[str], None]
) -> SamplingDefaults:
    """The model's own file is somebody else's: what is wrong in it is told and left out. A chosen folder has to be right.

    `max_new_tokens` of the model's file is only what a chat that does not say gets; given by the operator it is a cap.
    """
    from vsrv.api.schema import SamplingDefaults

    chosen = config.get("generation-config") != "auto"
    values: dict[str, Any] = {}
    for name in SAMPLING:
        try:
            if generation.get(name) is not None:
                values[name] = sampling_value(name, generation[name])
        except ValueError as error:
            if chosen:
                raise ConfigError(f"--generation-config {config.get('generation-config')}: {error}") from None
            warn(f"ignoring a value of generation_config.json: {error}")
    override = config.get("override-generation-config")
    values |= {name: sampling_value(name, value) for name, value in override.items()}
    limit = values.pop("max_new_tokens", None)
    is_cap = chosen or "max_new_tokens" in override
    return SamplingDefaults(**values, max_tokens=limit, max_tokens_cap=limit if is_cap else None)


def _json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    return table if isinstance(table, dict) else {}


def _fingerprint(config: ServeConfig, folder: Path) -> str:
    """Changes when version, model or the settings that change answers do; the same after a restart."""
    import hashlib

    import vsrv

    facts = [
        vsrv.__version__,
        config.get("dtype"),
        (folder / "config.json").read_text(),
        str(config.get("seed")),
    ]
    facts += [str(sorted((p.name, p.stat().st_size) for p in folder.glob("*.safetensors")))]
    return "vsrv-" + hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]
