"""What the App and the groups of routes are made of, and the choices of the server that shape answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from vsrv.api.admission import Admission
from vsrv.api.auth import Keys
from vsrv.api.chunks import ChatStyle
from vsrv.api.cors import Cors
from vsrv.api.limits import RateLimiter
from vsrv.api.prepare import Prepared
from vsrv.api.schema import ModelFacts
from vsrv.engine_client import EngineClient
from vsrv.log import Log
from vsrv.metrics import Metrics
from vsrv.text.tokenizer import Tokenizer


class Prepares(Protocol):
    async def prepare(self, dialect: str, body: bytes | bytearray, tenant: str = "") -> Prepared: ...


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """Server-wide choices that shape answers."""

    style: ChatStyle
    keep_alive_interval_s: float = 15.0
    tokens_as_ids: bool = False
    log_requests: bool = True
    quiet_paths: frozenset[str] = frozenset()
    metrics_enabled: bool = True
    metrics_on_own_port: bool = False
    request_timeout_s: float = 0.0  # 0 = none
    logged_prompt_characters: int = 0  # prompts are logged only where somebody asked for it
    fingerprint: str | None = ""
    has_openapi: bool = True
    tokenizer_info: Mapping[str, Any] | None = None  # None: not to be told
    created: int = 0
    root_path: str = ""  # a proxy's prefix, told in /openapi.json


@dataclass(frozen=True, slots=True)
class Parts:
    """What the App is made of."""

    engine: EngineClient
    prepare: Prepares
    tokenizer: Tokenizer
    facts: ModelFacts
    keys: Keys
    cors: Cors
    metrics: Metrics
    log: Log
    admission: Admission
    limiter: RateLimiter = field(default_factory=RateLimiter)
