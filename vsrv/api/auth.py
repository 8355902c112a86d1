"""Who is asking: API keys as SHA-256 digests, compared in constant time over all keys (rule R2)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from vsrv.errors import UserError
from vsrv.http.route import AuthClass
from vsrv.http.values import Headers

_OPEN = (AuthClass.PUBLIC, AuthClass.PROBE, AuthClass.METRICS)


@dataclass(frozen=True, slots=True)
class Tenant:
    """The owner of a request. `id` goes into logs and cache salts; it tells nothing about the key."""

    id: str


class Keys:
    """The keys that are accepted; none means that everybody is the same anonymous tenant."""

    def __init__(self, keys: Iterable[str], secret: bytes) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._secret = secret

    @property
    def required(self) -> bool:
        return bool(self._digests)

    def identify(self, headers: Headers, auth: AuthClass) -> Tenant:
        """The tenant of a request. Raises UserError 401 where a key is needed and not there, or wrong."""
        if not self._digests or auth in _OPEN:
            return Tenant("")
        given = hashlib.sha256(_presented(headers).encode()).digest()
        found = -1
        for index, digest in enumerate(
            self._digests
        ):  # no early exit: timing must not tell which key is near
            if hmac.compare_digest(digest, given):
                found = index
        if found < 0:
            raise UserError(
                401,
                "invalid_api_key",
                "a valid API key is needed: send Authorization: Bearer KEY or x-api-key: KEY",
            )
        return Tenant("key-" + self._digests[found].hex()[:12])

    def cache_salt(self, tenant: Tenant, salt: str) -> str:
        """Salt of the first KV block, from the tenant and the server's own secret: tenants never share cached prompts
        (rule R21), and a client's cache_salt can only divide its own further."""
        name = f"{len(tenant.id)}:{tenant.id}{salt}".encode()
        return hmac.new(self._secret, name, hashlib.sha256).hexdigest()


def _presented(headers: Headers) -> str:
    scheme, _, token = (headers.get("authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return (headers.get("x-api-key") or "").strip()
