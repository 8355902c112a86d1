"""Who is asking: API keys as hashes, compared in constant time (rule R2), from options and from a key file that may change.

A key of full entropy has a SHA-256 hash and is compared with all of them. A key that a person chose has a scrypt hash; it is found by the id
that it starts with, so that a wrong key costs one derivation at most, and that runs in a thread.

A verified client certificate whose name is in the key file stands for a key. A key that is sent decides all the same: a proxy shows its own
certificate and passes the keys of many. An entry with both takes the key with that certificate only (as RFC 8705 binds tokens).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from vsrv.errors import ConfigError, UserError
from vsrv.http.route import AuthClass
from vsrv.http.values import Headers, PeerCertificate
from vsrv.keyfile import (
    NO_LIMITS,
    KeyFile,
    KeyRecord,
    RateLimits,
    TenantRecord,
    hashed,
    id_in,
    matches,
    read_key_file,
)

LogLine = Callable[[str, str], None]
_MAX_KEY_CHARACTERS = 512
_MAX_VERIFIED = 4096  # digests of scrypt keys that were right, so that only their first use is slow
_MAX_DERIVATIONS = 4  # at once and waiting; each takes 16 MiB and 40 ms
_WATCH_INTERVAL_S = 2.0
_OPTION_SCOPES = ("inference", "metrics")
_PLACEHOLDER = "EMPTY"  # vLLM's manual tells clients that insist on a key to send this one
_NEEDED = {AuthClass.INFERENCE: "inference", AuthClass.METRICS: "metrics", AuthClass.ADMIN: "admin"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. Ids go into logs, metrics and cache salts; they tell nothing about the key. All empty: anybody."""

    key_id: str = ""
    tenant: str = ""
    key_limits: RateLimits = NO_LIMITS
    tenant_limits: RateLimits = NO_LIMITS
    weight: float = 1.0
    has_ceiling: bool = False

    def priority(self, wanted: int) -> int:
        """What of a wanted priority (smaller is sooner) this caller may have. Without others to pass there is no ceiling."""
        if not self.has_ceiling:
            return wanted
        given = [limits.max_priority for limits in (self.key_limits, self.tenant_limits)]
        return max(wanted, -min((limit for limit in given if limit is not None), default=0))


ANYBODY = Caller()


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """Server-wide choices: what is asked of whom, and who shares cached prompts ("tenant", "key" or "shared")."""

    cache_scope: str = "tenant"
    metrics_need_key: bool = False


@dataclass(frozen=True, slots=True)
class _Table:
    """All keys at one moment; replaced as a whole. The key file is `loaded`; `lone_key`: there is one key, given by an option."""

    loaded: KeyFile
    digests: tuple[tuple[bytes, KeyRecord], ...]
    slow: Mapping[str, KeyRecord]
    by_certificate: Mapping[str, KeyRecord]
    lone_key: bool


@dataclass(slots=True)
class _Derivations:
    """scrypt results: keys by SHA-256 that were right, with the hash they were right for."""

    verified: OrderedDict[bytes, str] = field(default_factory=OrderedDict)
    running: int = 0


class Keys:
    """The keys that are accepted; none at all means that everybody is the same anonymous caller. Owned by the event loop."""

    def __init__(
        self,
        keys: Iterable[str],
        secret: bytes,
        path: Path | None = None,
        policy: KeyPolicy | None = None,
        log: LogLine = lambda level, message: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises ConfigError when the key file cannot be used: at the start there are no old keys to keep."""
        self._secret = secret
        self._path = path
        self._policy = policy or KeyPolicy()
        self._log = log
        self._clock = clock
        self._given = tuple(_from_option(key) for key in keys)
        self._derivations = _Derivations()
        self._version = None if path is None else _version(path)
        self._table = self._build(KeyFile() if path is None else read_key_file(path))

    @property
    def required(self) -> bool:
        """Whether a key must be sent. An empty key file lets nobody in rather than everybody."""
        return bool(self._given) or self._path is not None

    @property
    def knows_certificates(self) -> bool:
        """Whether the key file has entries that only a client certificate can satisfy."""
        return any(key.client_cert for key in self._table.loaded.keys)

    @property
    def required_for_metrics(self) -> bool:
        return self.required and self._policy.metrics_need_key

    async def identify(
        self, headers: Headers, auth: AuthClass, certificate: PeerCertificate | None = None
    ) -> Caller:
        """Who sent a request. Raises UserError 401 where a key is needed and missing or wrong, 403 when it lacks the scope."""
        scope = _NEEDED.get(auth)
        if not self.required or scope is None or (scope == "metrics" and not self._policy.metrics_need_key):
            return ANYBODY
        names = () if certificate is None else certificate.names
        key = presented(headers)
        by_name = (self._table.by_certificate.get(name) for name in names)
        record = next((found for found in by_name if found), None)
        if key and (record is None or key != _PLACEHOLDER):
            record = await self._find(key)
        state = None if record is None else record.state(datetime.fromtimestamp(self._clock(), UTC))
        if record is None or state == "revoked":  # a revoked key is no key
            raise _unknown_key()
        if state == "expired":
            raise UserError(401, "expired_api_key", f"the API key {record.id} has expired")
        if record.client_cert and record.client_cert not in names:
            message = f"the API key {record.id} is bound to a client certificate, which was not shown"
            raise UserError(401, "client_certificate_required", message)
        if scope not in record.scopes:
            raise UserError(403, "insufficient_scope", f"the API key {record.id} may not be used for {scope}")
        return self._caller(record)

    def cache_salt(self, caller: Caller, salt: str) -> str:
        """Salt of the first KV block, from the caller and the server's own secret: tenants never share cached prompts
        (rule R21), and a client's cache_salt can only divide its own further."""
        scope = self._policy.cache_scope
        owner = {"tenant": caller.tenant, "key": caller.key_id, "shared": ""}[scope]
        name = f"{scope}:{len(owner)}:{owner}{salt}".encode()
        return hmac.new(self._secret, name, hashlib.sha256).hexdigest()

    # reload

    def reload(self) -> bool:
        """Read the key file again; on any error the old keys stay and the log says why. True when the new ones are in force."""
        if self._path is None:
            return False
        version = _version(self._path)
        try:
            contents = read_key_file(self._path)
        except ConfigError as error:
            self._refuse(error, version)
            return False
        self._accept(contents, version)
        return True

    async def watch(self, interval_s: float = _WATCH_INTERVAL_S) -> None:
        """Reload whenever the file changes, until cancelled. Reading and parsing happen in a thread."""
        path, loop = self._path, asyncio.get_running_loop()
        if path is None:
            return
        while True:
            await asyncio.sleep(interval_s)
            version = await loop.run_in_executor(None, _version, path)
            if version == self._version:
                continue
            try:
                contents = await loop.run_in_executor(None, read_key_file, path)
            except ConfigError as error:
                self._refuse(error, version)
                continue
            self._accept(contents, version)

    def _accept(self, contents: KeyFile, version: tuple[int, ...]) -> None:
        self._version = version
        self._table = self._build(contents)
        self._log("info", f"keys reloaded: {len(contents.keys)} in {self._path}")

    def _refuse(self, error: ConfigError, version: tuple[int, ...]) -> None:
        self._version = version  # say it once for each state of the file
        self._log("error", f"the old keys stay in force: {error}")

    def _build(self, contents: KeyFile) -> _Table:
        records = [*self._given, *contents.keys]
        fast = tuple(
            (bytes.fromhex(r.hash.removeprefix("sha256:")), r)
            for r in records
            if r.hash.startswith("sha256:")
        )
        slow = {record.id: record for record in contents.keys if record.hash.startswith("scrypt:")}
        named = {key.client_cert: key for key in contents.keys if key.client_cert and not key.hash}
        return _Table(contents, fast, slow, named, self._path is None and len(self._given) == 1)

    # one request

    async def _find(self, key: str) -> KeyRecord | None:
        given = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
        found: KeyRecord | None = None
        for digest, record in self._table.digests:  # no early exit: timing must not tell which key is near
            if hmac.compare_digest(digest, given):
                found = record
        if found is not None or not key:
            return found
        candidate = self._table.slow.get(id_in(key))
        if candidate is not None and await self._verified(key, given, candidate.hash):
            return candidate
        return None

    async def _verified(self, key: str, digest: bytes, stored: str) -> bool:
        """Whether a key fits its scrypt hash. Raises UserError 503 when too many others are being checked."""
        state = self._derivations
        if state.verified.get(digest) == stored:
            state.verified.move_to_end(digest)
            return True
        if state.running >= _MAX_DERIVATIONS:
            raise UserError(
                503, "server_overloaded", "too many keys are being checked; try again soon", None, 1.0
            )
        state.running += 1
        try:
            right = await asyncio.get_running_loop().run_in_executor(None, matches, key, stored)
        finally:
            state.running -= 1
        if right:
            state.verified[digest] = stored
            if len(state.verified) > _MAX_VERIFIED:
                state.verified.popitem(last=False)
        return right

    def _caller(self, record: KeyRecord) -> Caller:
        tenant = self._table.loaded.tenants.get(record.tenant, TenantRecord())
        return Caller(
            record.id,
            record.tenant,
            record.limits,
            tenant.limits,
            tenant.weight,
            has_ceiling=not self._table.lone_key,
        )


def presented(headers: Headers) -> str:
    """The key that a request shows: Authorization: Bearer, else x-api-key; empty when there is none."""
    scheme, _, token = (headers.get("authorization") or "").strip().partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else ""
    key = key or (headers.get("x-api-key") or "").strip()
    return key if len(key) <= _MAX_KEY_CHARACTERS else ""


def _unknown_key() -> UserError:
    return UserError(
        401,
        "invalid_api_key",
        "a valid API key is needed: send Authorization: Bearer KEY or x-api-key: KEY",
    )


def _from_option(key: str) -> KeyRecord:
    """A key of --api-key or the environment: its own tenant, named after its hash."""
    stored = hashed(key)
    name = "key-" + stored.removeprefix("sha256:")[:12]
    return replace(KeyRecord(name, stored, name), scopes=_OPTION_SCOPES)


def _version(path: Path) -> tuple[int, ...]:
    """Changes when the file does, also when a symbolic link on the way is swapped (Kubernetes does that)."""
    try:
        status = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode
