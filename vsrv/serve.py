"""Composition root of the front process: bind first, load after, serve, drain.

The socket listens before anything heavy is imported. Until the App is there, a small one answers probes and says `model_loading`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsrv import boot
from vsrv.api.refusals import error_response
from vsrv.config import ServeConfig, is_loopback
from vsrv.errors import EXIT_CONFIG, ConfigError, EngineError, UserError
from vsrv.http.forwarded import TrustedProxies
from vsrv.http.server import HttpServer
from vsrv.http.values import Limits, Request, Response, StreamingResponse
from vsrv.listening import (
    check_exposure,
    has_keys,
    listen,
    listen_for_metrics,
    raise_file_limit,
    tls_files,
    tls_keeper,
)
from vsrv.log import Log, complain
from vsrv.stats_line import StatsLine
from vsrv.systemd import Notifier, inherited_socket

if TYPE_CHECKING:
    from vsrv.api.app import App
    from vsrv.assembly import Assembly
    from vsrv.engine_client import EngineClient
    from vsrv.http.tls import TlsFiles, TlsKeeper
    from vsrv.prepare_client import PrepareClient
    from vsrv.supervisor import Supervisor

_TICK_S = 1.0  # between two looks at certificates, state and the service manager
_WARN_EVERY_S = 86400.0
_HANDOVER_S = 0.5  # for requests on their way when the socket is handed over
_PROBES = frozenset(("/livez", "/readyz", "/health", "/ping", "/metrics", "/version", "/load"))
Reread = Callable[[], ServeConfig]
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
            assembly = await loop.run_in_executor(None, functools.partial(_assembled, config, folder))
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
        self._loaded.app = app = await assembly.finish(engine, self._prepare, self._log)
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

        return hub.resolve(model, hub.options_of(config), lambda line: self._log.event("info", line))

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
            url = self._address(self._tls.name if self._tls else "") + path
            self._log.event("info", f"try: curl {url}{key} -H 'Content-Type: application/json' -d '{body}'")
        is_open = self._socket.family != socket.AF_UNIX and not is_loopback(self._local[0])
        if is_open and not has_keys(self._config):
            self._log.event(
                "warning", "everybody who reaches this port may use the model (--allow-unauthenticated)"
            )

    def _address(self, name: str = "") -> str:
        """As a URL; with `name` in the place of the address, which no certificate may have."""
        if self._socket.family == socket.AF_UNIX:
            return f"unix:{self._local}"
        host, port = self._local[:2]
        host = name or host
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


def _assembled(config: ServeConfig, folder: Path) -> Assembly:
    from vsrv.assembly import Assembly

    return Assembly(config, folder)


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
