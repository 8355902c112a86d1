"""Composition root of the front process: bind first, load after, serve, drain.

The socket listens before anything heavy is imported. Until the App is there, a small one answers probes and says `model_loading`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsrv import boot
from vsrv.api.refusals import error_response
from vsrv.config import ServeConfig, is_loopback
from vsrv.errors import ConfigError, EngineError, UserError
from vsrv.http.forwarded import TrustedProxies
from vsrv.http.server import HttpServer
from vsrv.http.values import Limits, Request, Response, StreamingResponse
from vsrv.listening import (
    asks_for_certificates,
    check_exposure,
    has_keys,
    listen,
    listen_for_metrics,
    raise_file_limit,
    tls_files,
    tls_keeper,
)
from vsrv.log import Log, complain
from vsrv.option_values import sampling_value
from vsrv.options import SAMPLING
from vsrv.stats_line import StatsLine
from vsrv.systemd import Notifier, inherited_socket

if TYPE_CHECKING:
    from vsrv.api.app import App
    from vsrv.api.schema import ModelFacts, SamplingDefaults
    from vsrv.engine_client import EngineClient
    from vsrv.http.tls import TlsFiles, TlsKeeper
    from vsrv.hub import HubOptions
    from vsrv.prepare_client import PrepareClient
    from vsrv.supervisor import Supervisor

EXIT_CONFIG = 78
_TICK_S = 1.0  # between two looks at certificates, state and the service manager
_WARN_EVERY_S = 86400.0
_HANDOVER_S = 0.5  # for requests on their way when the socket is handed over
_PROBES = frozenset(("/livez", "/readyz", "/health", "/ping", "/metrics", "/version", "/load"))
Reread = Callable[[], ServeConfig]
# options by which answers of the same model differ: they enter system_fingerprint
_SHAPE_ANSWERS = (
    "dtype",
    "seed",
    "device",
    "hf-overrides",
    "generation-config",
    "override-generation-config",
    "chat-template",
    "default-chat-template-kwargs",
)
_DEMO_NAME = "demo"
_FIRST_TRY = {  # a request for each kind of model, shown at start
    "generate": ("/v1/chat/completions", '{"messages": [{"role": "user", "content": "Hello!"}]}'),
    "embed": ("/v1/embeddings", '{"input": "Hello!"}'),
    "score": ("/v1/rerank", '{"query": "greeting", "documents": ["Hello!", "Good bye!"]}'),
}


def run(config: ServeConfig, reread: Reread | None = None) -> int:
    """Serve until a signal ends it; returns the exit status. `reread` makes the configuration anew on SIGHUP.

    Raises ConfigError before the port is bound.
    """
    boot.dump_stacks_on_signal()
    choose_gpu(config, os.environ)
    tls = tls_keeper(config)
    trusted = TrustedProxies(config.get("forwarded-allow-ips"))
    notifier = Notifier(os.environ)
    given = inherited_socket(os.environ)
    if given is not None:
        check_exposure(config, given)
    sock = given or listen(config)
    raise_file_limit(config.get("max-connections"))
    try:
        return asyncio.run(
            Front(config, sock, Surroundings(tls, trusted, notifier, reread, given is not None)).run()
        )
    finally:
        sock.close()
        notifier.close()
        if config.get("uds") and given is None:
            Path(config.get("uds")).unlink(missing_ok=True)


def choose_gpu(config: ServeConfig, environ: MutableMapping[str, str]) -> None:
    """--device-ids, for this process and its children, before anything looks for a GPU."""
    if config.get("device-ids") is not None:
        environ["CUDA_VISIBLE_DEVICES"] = config.get("device-ids")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the front gets from outside, beside its configuration and its socket."""

    tls: TlsKeeper | None
    trusted: TrustedProxies
    notifier: Notifier
    reread: Reread | None = None
    is_inherited: bool = False  # the socket is systemd's: connections may wait in it for the next server


@dataclass(slots=True)
class Loaded:
    """What loading has made so far; the small app reads it."""

    phase: str = "start"
    app: App | None = None


class Front:
    """One serving process. Owned by the event loop."""

    def __init__(self, config: ServeConfig, sock: socket.socket, around: Surroundings) -> None:
        self._config = config
        self._newest = (
            config  # what SIGHUP has read last; only what can change while serving is taken from it
        )
        self._socket = sock
        self._local = sock.getsockname()
        self._around = around
        self._tls = around.tls
        self._tls_lock = asyncio.Lock()
        self._notifier = around.notifier
        self._log = Log(config.get("log-level"), config.get("log-format"))
        self._loaded = Loaded()
        self._engine: EngineClient | None = None
        self._supervisor: Supervisor | None = None
        self._prepare: PrepareClient | None = None
        self._reloads: list[Callable[[ServeConfig], None]] = [self._reload_log]  # each may raise ConfigError
        self._reloading: asyncio.Task[None] | None = None
        self._warned = 0.0
        self._began = time.monotonic()
        self._signals = 0
        self._stop = asyncio.Event()
        self._stats = StatsLine(0.0 if config.get("disable-log-stats") else config.get("log-stats-interval"))
        self._settled = asyncio.Event()  # loading has ended, well or not
        limits = Limits(
            max_head_bytes=config.get("h11-max-incomplete-event-size"),
            max_headers=config.get("h11-max-header-count"),
            max_body_bytes=config.get("max-body-bytes"),
            max_connections=config.get("max-connections"),
            idle_timeout_s=config.get("keep-alive-timeout"),
        )
        self._server = HttpServer(
            self._app,
            limits,
            error_response,
            self._log.event,
            config.get("root-path").rstrip("/"),
            around.trusted,
        )
        self._metrics_socket = listen_for_metrics(config)
        self._metrics_server = HttpServer(self._scrape, limits, error_response, self._log.event)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_loop_error)
        await self._server.start(self._socket, self._tls.context if self._tls else None)
        if self._metrics_socket is not None:
            await self._metrics_server.start(self._metrics_socket)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        self._log.event("info", f"listening on {self._address()}")
        if self._tls is not None and self._tls.groups_unset:
            self._log.event("info", f"TLS groups are not limited to Mozilla's: {self._tls.groups_unset}")
        ticking = loop.create_task(self._tick())
        loading = loop.create_task(self._load())
        stopped = loop.create_task(self._stop.wait())
        status = 0
        try:
            await asyncio.wait((loading, stopped), return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                status = await self._serve_until(loading, stopped)
            else:
                loading.cancel()
                await asyncio.wait((loading,))
        finally:
            self._settled.set()
            self._notifier.stopping("shutting down")
            await self._shut_down()
            ticking.cancel()
        return status

    async def _serve_until(self, loading: asyncio.Task[None], stopped: asyncio.Task[bool]) -> int:
        """After loading: wait for a signal, or for an engine that cannot be kept alive. Returns the exit status."""
        try:
            loading.result()
        except ConfigError as error:
            complain("error", str(error))
            return EXIT_CONFIG
        except EngineError as error:
            self._log.event("error", f"{error.message}; exiting with status 1")
            return 1
        assert self._supervisor is not None
        self._notifier.ready("serving")
        watching = asyncio.get_running_loop().create_task(self._supervisor.run())
        await asyncio.wait((stopped, watching), return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            watching.cancel()
            await asyncio.wait((watching,))
            return 0
        self._log.event("error", f"{watching.result()}; telling every client, then exiting with status 1")
        await self._server.drain(2.0)
        return 1

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio would print as a traceback, as one line."""
        self._log.event("error", f"{context['message']}: {context.get('exception')!r}")

    async def _tick(self) -> None:
        """Once a second, and at least twice in the manager's watchdog period: certificates, watchdog, status."""
        pause = min(_TICK_S, self._notifier.watchdog_interval_s or _TICK_S)
        while True:
            self._beat()
            line = self._stats.due(time.monotonic(), self._engine.beat if self._engine is not None else None)
            if line is not None:
                self._log.event("info", line)
            if self._tls is not None:
                self._warn_of_expiry(self._tls)
                if self._config.get("enable-ssl-refresh") and self._tls.has_changed():
                    await self._reload_tls(self._tls, None)
            await asyncio.sleep(pause)

    def _beat(self) -> None:
        """The manager's watchdog sees a loop that turns and an engine that steps, loads or is being restarted."""
        engine, notifier = self._engine, self._notifier
        state = engine.health().state if engine is not None else "loading"
        if state == "loading":
            phase = engine.loading.phase if engine is not None else self._loaded.phase
            notifier.status(f"loading: {phase}")
            notifier.extend_timeout(30.0)  # a large model may take longer than TimeoutStartSec=
        elif engine is not None:
            notifier.status(f"{state}, {engine.num_streams} sequences")
        if state == "draining":
            notifier.extend_timeout(30.0)  # --shutdown-timeout may be longer than TimeoutStopSec=
        if notifier.watchdog_interval_s is not None and state != "stalled":
            notifier.alive()
        notifier.flush()

    # reloading

    def _on_hangup(self) -> None:
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        """SIGHUP: what can change while serving is taken anew; whatever is wrong with it, the old one goes on."""
        if self._loaded.app is not None:
            self._notifier.reloading()
        config = self._newest = await self._reread()
        for reload in self._reloads:
            try:
                reload(config)
            except ConfigError as error:
                self._log.event("error", f"reload: {error}; keeping the old one")
        if self._tls is not None:
            await self._reload_tls(self._tls, tls_files(config) if config.get("ssl-certfile") else None)
        if self._loaded.app is not None:
            self._notifier.ready("serving")

    async def _reread(self) -> ServeConfig:
        """The configuration as it is now, or the last one that was right; keys and certificates are read again with either."""
        if self._around.reread is None:
            return self._newest
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self._around.reread)
        except ConfigError as error:
            self._log.event("error", f"reload: {error}; keeping the old settings")
            return self._newest

    def _reload_log(self, config: ServeConfig) -> None:
        self._log.set_level(config.get("log-level"))
        self._log.event("info", f"reload: log level {config.get('log-level')}")

    async def _reload_tls(self, keeper: TlsKeeper, files: TlsFiles | None) -> None:
        try:
            async with self._tls_lock:  # a signal and a change that is seen may come together
                await asyncio.get_running_loop().run_in_executor(None, keeper.reload, files)
        except ConfigError as error:
            self._log.event("error", f"{error}; keeping the old certificate")
            return
        self._server.tls = keeper.context
        until = time.strftime("%Y-%m-%d", time.gmtime(keeper.not_after))
        self._log.event("info", f"new connections get the new certificate, valid until {until}")
        self._warned = 0.0

    def _warn_of_expiry(self, keeper: TlsKeeper) -> None:
        now = time.monotonic()
        if self._warned and now - self._warned < _WARN_EVERY_S:
            return
        self._warned = now
        if (warning := keeper.warning(time.time())) is not None:
            self._log.event("warning", warning)

    @property
    def certificate_not_after(self) -> float | None:
        """Unix time at which the certificate ends, for metrics; None without TLS."""
        return None if self._tls is None else self._tls.not_after

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals > 1:
            self._log.event("warning", "second signal: stopping at once")
        self._stop.set()

    async def _shut_down(self) -> None:
        engine = self._engine
        if engine is not None and not engine.ended.is_set() and engine.ready is not None and self._signals:
            if self._around.is_inherited:
                # the socket waits for the next server; what has been sent on open connections is still served
                self._server.stop_accepting()
                await asyncio.sleep(_HANDOVER_S)
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
        folder = await _in_thread(self._resolve)
        from vsrv.engine_client import EngineClient
        from vsrv.supervisor import RestartPolicy, Supervisor

        self._engine = engine = EngineClient(config.get("engine-stall-timeout"), self._engine_line)
        policy = RestartPolicy(
            config.get("engine-max-restarts"), load_timeout_s=config.get("engine-load-timeout")
        )
        self._supervisor = Supervisor(engine, config.engine(folder), policy, self._log.event)
        await engine.start(config.engine(folder))
        try:
            build = await loop.run_in_executor(None, functools.partial(_prepare_parts, config, folder))
        except ConfigError:
            await self._wait_for_spec(engine)
            raise
        from vsrv.prepare_client import PrepareClient

        self._prepare = PrepareClient(
            config.text_folder(folder),
            config.get("chat-template"),
            config.get("prepare-timeout"),
            self._engine_line,
        )
        await self._prepare.start()
        await self._wait_for_engine(engine, self._supervisor)
        assert engine.ready is not None
        self._loaded.app = app = await build(engine, self._prepare, self._log)
        self._settled.set()
        self._reloads.append(functools.partial(_reload_keys, app))
        app.metrics.certificate_expiry = lambda: self.certificate_not_after
        self._supervisor.on_stall = app.metrics.engine_stalled
        self._supervisor.on_restart = app.metrics.engine_restarted
        for line in engine.ready.budget:
            self._log.event("info", line)
        self._announce()

    def _resolve(self) -> Path:
        config, model = self._config, self._config.get("model")
        if model is None:
            from vsrv import demo

            return demo.model_path()
        from vsrv import hub

        return hub.resolve(model, hub_options(config), lambda line: self._log.event("info", line))

    async def _wait_for_spec(self, engine: EngineClient) -> None:
        """Raises ConfigError if the engine refuses the model: that explains more than what its other files lack."""
        while engine.loading.phase in ("start", "config") and not engine.ended.is_set():
            await asyncio.sleep(0.05)
        if engine.failure is not None:
            raise ConfigError(engine.failure)

    async def _wait_for_engine(self, engine: EngineClient, supervisor: Supervisor) -> None:
        """Raises ConfigError when it cannot load, EngineError when it came to a standstill."""
        loaded, phase = asyncio.get_running_loop().create_task(supervisor.loaded()), ""
        try:
            while not loaded.done():
                await asyncio.wait((loaded,), timeout=0.2)
                if engine.loading.phase != phase:
                    phase = engine.loading.phase
                    self._log.event("info", f"loading: {phase} {engine.loading.detail}".rstrip())
        finally:
            loaded.cancel()
        if loaded.result():
            return
        if supervisor.num_stalls:
            raise EngineError("engine_stalled", supervisor.why_load_stalled())
        raise ConfigError(engine.failure or "the engine ended while it was loading; its messages are above")

    def _engine_line(self, line: str) -> None:
        self._log.event("warning", line)

    def _announce(self) -> None:
        name = self._loaded.app.facts.served_names[0] if self._loaded.app else ""
        seconds = time.monotonic() - self._began
        self._log.event("info", f"ready in {seconds:.1f} s: {name} at {self._address()}")
        if self._socket.family != socket.AF_UNIX:
            key = " -H 'Authorization: Bearer KEY'" if has_keys(self._config) else ""
            task = self._loaded.app.facts.tasks[0] if self._loaded.app else "generate"
            path, body = _FIRST_TRY[task]
            self._log.event(
                "info",
                f"try: curl {self._address()}{path}{key} -H 'Content-Type: application/json' -d '{body}'",
            )
        is_open = self._socket.family != socket.AF_UNIX and not is_loopback(self._local[0])
        if is_open and not has_keys(self._config):
            self._log.event(
                "warning", "everybody who reaches this port may use the model (--allow-unauthenticated)"
            )

    def _address(self) -> str:
        if self._socket.family == socket.AF_UNIX:
            return f"unix:{self._local}"
        host, port = self._local[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{shown}:{port}"

    # requests

    async def _app(self, request: Request) -> Response | StreamingResponse:
        if self._loaded.app is None and self._around.is_inherited and request.path not in _PROBES:
            # nobody else could take it meanwhile: behind a socket unit a restart is a pause
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.get("queue-timeout") or None):
                    await self._settled.wait()
        if self._loaded.app is not None:
            return await self._loaded.app(request)
        return _loading_answer(request, self._loaded.phase, self._engine, time.monotonic() - self._began)

    async def _scrape(self, request: Request) -> Response | StreamingResponse:
        if self._loaded.app is not None:
            return await self._loaded.app.scrape(request)
        return _loading_answer(request, self._loaded.phase, self._engine, time.monotonic() - self._began)


def hub_options(config: ServeConfig) -> HubOptions:
    """Where a hub id comes from."""
    from vsrv.hub import HubOptions

    return HubOptions(config.get("revision"), config.get("download-dir"), config.get("hf-token"))


def _reload_keys(app: App, config: ServeConfig) -> None:
    """The key file again; what is wrong with it is logged by the keys themselves, which stay."""
    app.reload()


def _in_thread(function: Callable[[], Path]) -> asyncio.Future[Path]:
    """As run_in_executor, but in a daemon thread: a download that hangs does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Path] = loop.create_future()

    def deliver(result: Path | None, error: BaseException | None) -> None:
        if future.done():
            return  # cancelled meanwhile
        if error is not None:
            future.set_exception(error)
        elif result is not None:
            future.set_result(result)

    def work() -> None:
        result: Path | None = None
        error: BaseException | None = None
        try:
            result = function()
        except BaseException as fault:  # it is raised again where the future is awaited
            error = fault
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(deliver, result, error)

    threading.Thread(target=work, daemon=True).start()
    return future


def _loading_answer(request: Request, phase: str, engine: EngineClient | None, elapsed_s: float) -> Response:
    """Before the App: /livez lives, everything else says what is being done."""
    if request.path == "/livez":
        return Response(200, [("content-type", "text/plain")], b"ok\n")
    fraction = 0.0
    if engine is not None:
        phase, fraction = engine.loading.phase, engine.loading.fraction
    done = f", {fraction:.0%} done" if fraction else ""
    message = f"the model is loading ({phase}{done}, {elapsed_s:.0f} s so far); try again soon"
    return error_response(UserError(503, "model_loading", message, None, 2.0), request.id, request.path)


def _prepare_parts(config: ServeConfig, folder: Path) -> Callable[[EngineClient, PrepareClient, Log], Any]:
    """Import and build what needs no engine (about 0.3 s, in a thread); returns what finishes the App once it is ready."""
    from vsrv.api.admission import Admission, AdmissionLimits
    from vsrv.api.app import App
    from vsrv.api.auth import KeyPolicy, Keys
    from vsrv.api.chat import ChatStyle
    from vsrv.api.cors import Cors
    from vsrv.api.fairness import EngineRoom
    from vsrv.api.parts import ApiOptions, Parts
    from vsrv.metrics import Metrics
    from vsrv.prepare_worker import build_preparer
    from vsrv.text.template import tokenizer_info
    from vsrv.text.tokenizer import Tokenizer

    get = config.get
    text_folder = config.text_folder(folder)
    tokenizer = Tokenizer(text_folder)
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
        ready = engine.ready
        facts = replace(
            facts,
            tasks=ready.tasks,
            embedding_size=ready.embedding_size,
            is_matryoshka=ready.is_matryoshka,
            matryoshka=ready.matryoshka,
        )
        preparer = build_preparer(text_folder, get("chat-template"), facts, tokenizer)
        await prepare.configure(facts, preparer)
        log.event("info", f"chat: {preparer.described}; see --tool-call-parser and --reasoning-parser")
        metrics = Metrics(facts.served_names[0], get("metrics-auth") == "key" or bool(get("metrics-port")))
        room = EngineRoom(engine.ready.max_num_seqs, engine.ready.max_num_batched_tokens)
        # a place of the queue is one sequence, or a group of inputs of which vectors are made
        ahead = room.spare if "generate" in facts.tasks else room.slots
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
                lambda: engine.beat is not None and engine.beat.num_waiting > ahead,
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
                has_openapi=not get("disable-fastapi-docs"),
                tokenizer_info=tokenizer_info(text_folder, get("chat-template"))
                if get("enable-tokenizer-info-endpoint")
                else None,
                root_path=get("root-path").rstrip("/"),
            ),
        )
        app.watch_keys()
        if parts.keys.knows_certificates and not asks_for_certificates(config):
            log.event(
                "warning",
                f"{key_file} names client certificates, which nobody is asked for: "
                "give --ssl-ca-certs and --ssl-cert-reqs 1 or 2",
            )
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
    eos_text = special_token_text(tokenizer_config(config.text_folder(folder)), "eos_token")
    eos = tokenizer.token_to_id(eos_text) if eos_text else None
    listed = generation.get("eos_token_id", _json(folder / "config.json").get("eos_token_id"))
    ids = [
        i
        for i in (listed if isinstance(listed, list) else [listed])
        if isinstance(i, int) and 0 <= i < vocab_size
    ]
    if eos is None and ids:
        eos = ids[0]
    model, structured = get("model"), get("structured-outputs-config")
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
        tool_parser=get("tool-call-parser"),
        reasoning_parser=get("reasoning-parser"),
        tool_strict_level=get("tool-strict-level"),
        any_name=get("any-model-name"),
        hide_unused_tools=get("exclude-tools-when-tool-choice-none"),
        compact_json=structured.get("disable_any_whitespace", False),
        closed_objects=structured.get("disable_additional_properties", False),
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


def _fingerprint(config: ServeConfig, folder: Path) -> str | None:
    """Changes when version, model or the settings that change answers do; the same after a restart. See --fingerprint-mode."""
    import hashlib

    import vsrv

    files = ("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja")
    facts = [vsrv.__version__, *(str(config.get(name)) for name in _SHAPE_ANSWERS)]
    facts += [(folder / name).read_text() for name in files if (folder / name).is_file()]
    facts += [str(sorted((p.name, p.stat().st_size) for p in folder.glob("*.safetensors")))]
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]
    modes = {
        "full": f"vsrv-{vsrv.__version__}-{digest}",
        "hash": digest,
        "custom": config.get("fingerprint-value"),
    }
    return modes.get(config.get("fingerprint-mode"))
