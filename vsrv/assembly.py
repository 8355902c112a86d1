"""The App and everything that it is made of, from a configuration, a model folder and an engine that is ready.

Imported late, in a thread, while the engine loads: it brings the api folder and the tokenizer with it.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

from vsrv.api.admission import Admission, AdmissionLimits
from vsrv.api.app import App
from vsrv.api.auth import KeyPolicy, Keys
from vsrv.api.chunks import ChatStyle
from vsrv.api.cors import Cors
from vsrv.api.fairness import EngineRoom
from vsrv.api.parts import ApiOptions, Parts
from vsrv.api.schema import ModelFacts
from vsrv.config import ServeConfig
from vsrv.engine_client import EngineClient
from vsrv.listening import asks_for_certificates
from vsrv.log import Log
from vsrv.messages import Ready
from vsrv.metrics import Metrics
from vsrv.model_facts import fingerprint, model_facts
from vsrv.prepare_client import PrepareClient
from vsrv.prepare_worker import build_preparer
from vsrv.text.template import tokenizer_info
from vsrv.text.tokenizer import Tokenizer


class Assembly:
    """What needs no engine is built at once (0.3 s with its imports, in a thread); `finish` makes the App once the engine is ready."""

    def __init__(self, config: ServeConfig, folder: Path) -> None:
        """Raises ConfigError."""
        self._config = config
        self._folder = folder
        self._text_folder = config.text_folder(folder)
        self._tokenizer = Tokenizer(self._text_folder)

    async def finish(self, engine: EngineClient, prepare: PrepareClient, log: Log) -> App:
        """The App, which watches its key file from now on. Raises ConfigError."""
        get, ready = self._config.get, engine.ready
        assert ready is not None
        facts = self._facts(ready, log)
        preparer = build_preparer(self._text_folder, get("chat-template"), facts, self._tokenizer)
        await prepare.configure(facts, preparer)
        log.event("info", f"chat: {preparer.described}; see --tool-call-parser and --reasoning-parser")
        parts = self._parts(engine, prepare, facts, log)
        app = App(parts, self._options())
        app.watch_keys()
        if parts.keys.knows_certificates and not asks_for_certificates(self._config):
            log.event(
                "warning",
                f"{get('api-key-file')} names client certificates, which nobody is asked for: "
                "give --ssl-ca-certs and --ssl-cert-reqs 1 or 2",
            )
        return app

    def _facts(self, ready: Ready, log: Log) -> ModelFacts:
        facts = model_facts(
            self._config,
            self._folder,
            self._tokenizer,
            ready.vocab_size,
            ready.max_model_len,
            lambda line: log.event("warning", line),
        )
        return replace(
            facts,
            tasks=ready.tasks,
            embedding_size=ready.embedding_size,
            is_matryoshka=ready.is_matryoshka,
            matryoshka=ready.matryoshka,
        )

    def _parts(self, engine: EngineClient, prepare: PrepareClient, facts: ModelFacts, log: Log) -> Parts:
        get = self._config.get
        policy = KeyPolicy(get("prefix-cache-scope"), get("metrics-auth") == "key")
        key_file = Path(get("api-key-file")) if get("api-key-file") else None
        hides_tenants = get("metrics-auth") == "key" or bool(get("metrics-port"))
        metrics = Metrics(facts.served_names[0], hides_tenants)
        return Parts(
            engine=engine,
            prepare=prepare,
            tokenizer=self._tokenizer,
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
            admission=self._admission(engine, facts, metrics),
        )

    def _admission(self, engine: EngineClient, facts: ModelFacts, metrics: Metrics) -> Admission:
        get, ready = self._config.get, engine.ready
        assert ready is not None
        room = EngineRoom(ready.max_num_seqs, ready.max_num_batched_tokens)
        # a place of the queue is one sequence, or a group of inputs of which vectors are made
        ahead = room.spare if "generate" in facts.tasks else room.slots
        limits = AdmissionLimits(
            get("max-num-queued-reqs"),
            get("max-num-queued-tokens"),
            get("max-num-queued-bytes"),
            get("queue-timeout"),
        )
        return Admission(
            limits, metrics, room, lambda: engine.beat is not None and engine.beat.num_waiting > ahead
        )

    def _options(self) -> ApiOptions:
        get = self._config.get
        tells_tokenizer = get("enable-tokenizer-info-endpoint")
        return ApiOptions(
            style=ChatStyle(
                get("response-role"), get("enable-prompt-tokens-details"), get("enable-force-include-usage")
            ),
            keep_alive_interval_s=get("sse-keep-alive-interval"),
            tokens_as_ids=get("return-tokens-as-token-ids"),
            log_requests=get("enable-log-requests") and not get("disable-uvicorn-access-log"),
            quiet_paths=frozenset(get("disable-access-log-for-endpoints").split(",")),
            metrics_enabled=not get("disable-log-stats"),
            metrics_on_own_port=bool(get("metrics-port")),
            request_timeout_s=get("request-timeout"),
            logged_prompt_characters=get("max-log-len") if get("log-prompts") else 0,
            fingerprint=fingerprint(self._config, self._folder),
            created=int((self._folder / "config.json").stat().st_mtime),
            has_openapi=not get("disable-fastapi-docs"),
            tokenizer_info=tokenizer_info(self._text_folder, get("chat-template"))
            if tells_tokenizer
            else None,
            root_path=get("root-path").rstrip("/"),
        )
