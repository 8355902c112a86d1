"""The key file: which keys there are, whose they are and what they may do. Holds hashes, never a key.

TOML, or JSON with the same structure when the name ends in .json:

    [tenants.acme]                     # optional: what all keys of a tenant may use together
    weight = 2.0
    tokens_per_minute = 200000
    [[keys]]
    id = "acme-1"
    hash = "sha256:…"                  # or "scrypt:N:R:P:SALT:HASH", all hexadecimal but N, R and P
    tenant = "acme"
    scopes = ["inference", "metrics"]
    expires = 2027-01-01T00:00:00Z
    [keys.limits]
    requests_per_minute = 600
    [[keys]]
    id = "billing"
    client_cert = "CN=billing"         # instead of a hash: this client certificate needs no key; beside one: the key needs it, too

Everything is bounded and checked, because a mistake in this file must keep the old keys and say why. Used by the front and by `vsrv keys`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from vsrv.errors import ConfigError
from vsrv.files import replacing

SCOPES = ("inference", "metrics", "admin")
KEY_PREFIX = "vsrv-"  # lets secret scanners find a leaked key
MAX_FILE_BYTES, MAX_KEYS = 4 << 20, 4096
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HEX = re.compile(r"(?:[0-9a-f]{2})+")
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 14, 8, 1  # OWASP's second choice: 16 MiB and about 40 ms
_MAX_SCRYPT_BYTES = 64 << 20
_MAX_LIMIT = 10**12
_KEY_FIELDS = {
    "id",
    "hash",
    "client_cert",
    "tenant",
    "scopes",
    "expires",
    "limits",
    "revoked",
    "created",
    "note",
}
_CERTIFICATE_NAME = re.compile(r"(?:CN=|URI:|email:|DNS:)\S(?:.*\S)?|SHA256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a key or a tenant may use; None is no limit. `max_priority` is how far below 0, that is before others, requests may go."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None
    max_priority: int | None = None


NO_LIMITS = RateLimits()


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key, or one client certificate. `hash` is as in the file, empty where the certificate alone is asked for;
    `client_cert` is one of a PeerCertificate's names, empty where none is; `expires` is aware of its time zone."""

    id: str
    hash: str = field(repr=False)
    tenant: str
    scopes: tuple[str, ...] = ("inference",)
    expires: datetime | None = None
    limits: RateLimits = NO_LIMITS
    revoked: bool = False
    created: datetime | None = None
    note: str = ""
    client_cert: str = ""

    def state(self, now: datetime) -> str:
        """ "active", "expired" or "revoked"."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """What all keys of a tenant share. `weight` is its share of a busy server."""

    limits: RateLimits = NO_LIMITS
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A checked key file."""

    keys: tuple[KeyRecord, ...] = ()
    tenants: Mapping[str, TenantRecord] = field(default_factory=dict)

    def find(self, key_id: str) -> KeyRecord:
        """Raises ConfigError for an id that is not there."""
        for key in self.keys:
            if key.id == key_id:
                return key
        raise ConfigError(f"no key with the id {key_id}")


# hashes


def new_secret(key_id: str) -> str:
    """A new key of 256 random bits. Its id is part of it, so that a holder can tell which one it is."""
    return f"{KEY_PREFIX}{key_id}.{secrets.token_urlsafe(32)}"


def id_in(key: str) -> str:
    """The id that a key claims; empty when it has none."""
    name, dot, _ = key.removeprefix(KEY_PREFIX).partition(".")
    return name if dot else ""


def hashed(key: str, slow: bool = False) -> str:
    """The file's form of a key. SHA-256 is right for keys of full entropy, scrypt (`slow`) for those that a person chose."""
    if not slow:
        return "sha256:" + hashlib.sha256(key.encode()).hexdigest()
    salt = secrets.token_bytes(16)
    return (
        f"scrypt:{_SCRYPT_N}:{_SCRYPT_R}:{_SCRYPT_P}:{salt.hex()}:"
        + _scrypt(key, salt, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P, 32).hex()
    )


def matches(key: str, stored: str) -> bool:
    """Whether `stored` is the hash of `key`, in time that does not depend on how much of it is right."""
    kind, _, rest = stored.partition(":")
    if kind == "sha256":
        return hmac.compare_digest(hashlib.sha256(key.encode()).digest(), bytes.fromhex(rest))
    n, r, p, salt, digest = rest.split(":")
    expected = bytes.fromhex(digest)
    made = _scrypt(key, bytes.fromhex(salt), int(n), int(r), int(p), len(expected))
    return hmac.compare_digest(made, expected)


def _scrypt(key: str, salt: bytes, n: int, r: int, p: int, length: int) -> bytes:
    return hashlib.scrypt(key.encode(), salt=salt, n=n, r=r, p=p, maxmem=2 * _MAX_SCRYPT_BYTES, dklen=length)


# reading


def read_key_file(path: Path) -> KeyFile:
    """Raises ConfigError, which names the key and the field but never shows a hash."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        command = f"vsrv keys new --api-key-file {path}"
        raise ConfigError(f"{path}: {error.strerror}; make one with `{command}`", command) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or 'cannot be read'}") from None
    if mode & stat.S_IWOTH:
        raise ConfigError(f"{path} may be written by everybody, who could add keys: chmod o-w {path}")
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        return parse(data, is_json=path.suffix == ".json")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse(data: bytes, is_json: bool = False) -> KeyFile:
    """Bytes of a key file → its checked contents. Raises ConfigError and nothing else."""
    try:
        text = data.decode()
        table = json.loads(text) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if is_json else "TOML"
        # what a parser says may quote the line, and the line may hold a key that was written here by mistake
        where = re.search(r"line (\d+)", str(error))
        raise ConfigError(f"is not valid {kind}{f' (line {where[1]})' if where else ''}") from None
    if not isinstance(table, dict):
        raise ConfigError("expected a table with `keys` and `tenants`")
    _known(table, {"keys", "tenants"}, "the file")
    listed, named = table.get("keys", []), table.get("tenants", {})
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ConfigError(f"`keys` must be a list of at most {MAX_KEYS} tables")
    if not isinstance(named, dict) or len(named) > MAX_KEYS:
        raise ConfigError(f"`tenants` must be a table of at most {MAX_KEYS} tables")
    keys = tuple(_key(entry, f"key {index + 1}") for index, entry in enumerate(listed))
    seen: set[str] = set()
    for key in keys:
        if key.id in seen:
            raise ConfigError(f"two keys have the id {key.id}")
        seen.add(key.id)
        alone = "" if key.hash else key.client_cert
        if alone in seen:
            raise ConfigError(f"key {key.id}: another one has the client_cert {alone}")
        if alone:
            seen.add(alone)  # no id looks like it
    return KeyFile(keys, {_name(name, "tenant"): _tenant(entry, name) for name, entry in named.items()})


def _key(entry: Any, where: str) -> KeyRecord:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected a table")
    key_id = _name(entry.get("id"), f"{where}: id")
    where = f"key {key_id}"
    _known(entry, _KEY_FIELDS, where)
    revoked, note = entry.get("revoked", False), entry.get("note", "")
    if not isinstance(revoked, bool):
        raise ConfigError(f"{where}: revoked must be true or false")
    if not isinstance(note, str) or len(note) > 500 or not note.isprintable():
        raise ConfigError(f"{where}: note must be one line of at most 500 characters")
    return KeyRecord(
        id=key_id,
        hash="" if "client_cert" in entry and "hash" not in entry else _hash(entry.get("hash"), where),
        tenant=_name(entry.get("tenant", key_id), f"{where}: tenant"),
        scopes=_scopes(entry.get("scopes", ["inference"]), where),
        expires=_moment(entry.get("expires"), f"{where}: expires"),
        limits=_limits(entry.get("limits", {}), f"{where}: limits"),
        revoked=revoked,
        created=_moment(entry.get("created"), f"{where}: created"),
        note=note,
        client_cert=certificate_name(entry["client_cert"], where) if "client_cert" in entry else "",
    )


def certificate_name(value: Any, where: str) -> str:
    """The form of a client certificate's name that servers compare; a fingerprint also as openssl shows it. Raises ConfigError."""
    text = value if isinstance(value, str) and len(value) <= 500 and value.isprintable() else ""
    kind, _, rest = text.partition(":")
    if kind.upper() == "SHA256":
        text = "SHA256:" + rest.replace(":", "").lower()
    elif kind == "DNS":
        text = text.lower().replace("dns:", "DNS:", 1)
    if not _CERTIFICATE_NAME.fullmatch(text):
        raise ConfigError(
            f"{where}: client_cert must be CN=NAME, URI:NAME, DNS:NAME, email:NAME or SHA256:FINGERPRINT"
        )
    return text


def _tenant(entry: Any, name: str) -> TenantRecord:
    where = f"tenant {name}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected a table")
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0.01 <= weight <= 1000:
        raise ConfigError(f"{where}: weight must be from 0.01 to 1000")
    limits = {name: value for name, value in entry.items() if name != "weight"}
    return TenantRecord(_limits(limits, where), float(weight))


def _known(table: Mapping[str, Any], names: set[str], where: str) -> None:
    for name in table:
        if name not in names:
            raise ConfigError(f"{where}: unknown field {name[:60]!r}; there are {', '.join(sorted(names))}")


def _name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ConfigError(f"{where} must be 1 to 64 letters, digits, - and _")
    return value


def _scopes(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or any(item not in SCOPES for item in value):
        raise ConfigError(f"{where}: scopes must be a list of some of {', '.join(SCOPES)}")
    return tuple(dict.fromkeys(value))


def _moment(value: Any, where: str) -> datetime | None:
    """TOML's date and time, or ISO 8601 text; UTC where no offset is given."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ConfigError(f"{where} must be a date, such as 2027-01-01T00:00:00Z") from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if value is not None and not isinstance(value, datetime):
        raise ConfigError(f"{where} must be a date, such as 2027-01-01T00:00:00Z")
    return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def _limits(table: Any, where: str) -> RateLimits:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table")
    _known(table, {limit.name for limit in fields(RateLimits)}, where)
    for name, value in table.items():
        least = 0 if name == "max_priority" else 1
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MAX_LIMIT:
            raise ConfigError(f"{where}: {name} must be an integer from {least} to {_MAX_LIMIT}")
    return RateLimits(**table)


def _hash(value: Any, where: str) -> str:
    parts = value.split(":") if isinstance(value, str) and len(value) <= 500 else [""]
    if parts[0] == "sha256" and len(parts) == 2 and len(parts[1]) == 64 and _HEX.fullmatch(parts[1]):
        return ":".join(parts)
    if parts[0] == "scrypt" and len(parts) == 6 and _is_scrypt(parts):
        return ":".join(parts)
    raise ConfigError(
        f"{where}: hash must be sha256:HEX or scrypt:N:R:P:SALT:HASH as `vsrv keys new` writes it"
    )


def _is_scrypt(parts: list[str]) -> bool:
    """Bounds that OpenSSL accepts and that keep one wrong key from costing much."""
    if not all(re.fullmatch(r"[1-9][0-9]{0,6}", number) for number in parts[1:4]):
        return False
    n, r, p = (int(number) for number in parts[1:4])
    cheap = (
        n >= 2
        and n & (n - 1) == 0
        and 128 * n * r <= _MAX_SCRYPT_BYTES
        and p <= 4
        and n.bit_length() <= 16 * r
    )
    return cheap and all(_HEX.fullmatch(text) and 16 <= len(text) <= 128 for text in parts[4:])


# writing


def write_key_file(path: Path, contents: KeyFile) -> None:
    """Replace the file in one step, so that a server that reads it meanwhile sees the old or the new one. Raises ConfigError."""
    text = _as_json(contents) if path.suffix == ".json" else _as_toml(contents)
    if parse(text.encode(), is_json=path.suffix == ".json") != contents:
        raise ConfigError("the new key file does not read back as it was meant; nothing was written")
    target = path.resolve()
    try:
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o600
        with replacing(target, 0o600) as file:
            os.fchmod(file.fileno(), mode)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def _key_table(key: KeyRecord) -> dict[str, Any]:
    """A key as a file shows it: what has its default is left out."""
    table: dict[str, Any] = {"id": key.id}
    for name in ("hash", "client_cert"):
        if getattr(key, name):
            table[name] = getattr(key, name)
    table |= {"tenant": key.tenant, "scopes": list(key.scopes)}
    for name in ("created", "expires"):
        moment: datetime | None = getattr(key, name)
        if moment is not None:
            table[name] = moment.isoformat()
    if key.revoked:
        table["revoked"] = True
    if key.note:
        table["note"] = key.note
    limits = _limit_table(key.limits)
    return {**table, "limits": limits} if limits else table


def _limit_table(limits: RateLimits) -> dict[str, int]:
    given = {limit.name: getattr(limits, limit.name) for limit in fields(limits)}
    return {name: value for name, value in given.items() if value is not None}


def _tenant_table(tenant: TenantRecord) -> dict[str, Any]:
    return {"weight": tenant.weight, **_limit_table(tenant.limits)}


def _as_json(contents: KeyFile) -> str:
    tenants = {name: _tenant_table(tenant) for name, tenant in contents.tenants.items()}
    return (
        json.dumps({"tenants": tenants, "keys": [_key_table(key) for key in contents.keys]}, indent=2) + "\n"
    )


def _as_toml(contents: KeyFile) -> str:
    lines = ["# Keys of vsrv, written by `vsrv keys`, which does not keep comments: use `note`.", ""]
    for name, tenant in contents.tenants.items():
        lines += [f"[tenants.{name}]", *_toml_lines(_tenant_table(tenant)), ""]
    for key in contents.keys:
        table = _key_table(key)
        limits = table.pop("limits", None)
        lines += ["[[keys]]", *_toml_lines(table)]
        lines += ["[keys.limits]", *_toml_lines(limits)] if limits else []
        lines.append("")
    return "\n".join(lines)


def _toml_lines(table: Mapping[str, Any]) -> list[str]:
    """Values of this file are written alike in JSON and TOML, as long as no control character is in a text (`note` has none)."""
    return [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in table.items()]
