"""`vsrv keys new|list|revoke|rotate`: changes a key file; a running server takes the change up by itself."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vsrv.errors import ConfigError
from vsrv.keyfile import (
    SCOPES,
    KeyFile,
    KeyRecord,
    RateLimits,
    certificate_name,
    hashed,
    new_secret,
    read_key_file,
    write_key_file,
)

_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_LIMITS = {
    "requests_per_minute": "requests that the key may send in a minute, else 429 (default: no limit)",
    "tokens_per_minute": "tokens of prompts and answers in a minute, else 429 (default: no limit)",
    "max_concurrent": "requests at once, else 429 (default: no limit)",
    "max_priority": "how far below 0, that is before others, `priority` of a request may go (default: no limit)",
}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class NewKey:
    """What `vsrv keys new` was asked for. With `client_cert` there is a key only if `bound`: it needs that certificate, too."""

    key_id: str
    tenant: str
    scopes: tuple[str, ...]
    expires: datetime | None
    limits: RateLimits
    slow_hash: bool
    note: str
    client_cert: str = ""
    bound: bool = False


def run(options: argparse.Namespace) -> int:
    """Run one subcommand, as `add_arguments` has parsed it. Raises ConfigError."""
    if not options.api_key_file:
        raise ConfigError("which file? give --api-key-file FILE or set VSRV_API_KEY_FILE")
    path, now = Path(options.api_key_file), datetime.now(UTC).replace(microsecond=0)
    if options.command == "list":
        print("\n".join(listed(read_key_file(path), now)))
        return 0
    with _locked(path):
        if options.command == "new":
            wanted = NewKey(
                options.id or f"k{os.urandom(4).hex()}",
                options.tenant or "",
                tuple(options.scopes.split(",")),
                moment(options.expires, now),
                RateLimits(
                    options.requests_per_minute,
                    options.tokens_per_minute,
                    options.max_concurrent,
                    options.max_priority,
                ),
                options.scrypt,
                options.note,
                _certificate(options.client_cert),
                options.bound,
            )
            contents, key = with_new(read_key_file(path) if path.exists() else KeyFile(), wanted, now)
            write_key_file(path, contents)
            _show(key, f"{contents.keys[-1].id} is in {path}")
        elif options.command == "rotate":
            overlap = span(options.overlap)
            contents, key = rotated(read_key_file(path), options.id, overlap, now)
            write_key_file(path, contents)
            until = contents.find(options.id).expires
            new = contents.keys[-1]
            end = f"until {new.expires.isoformat()}" if new.expires else "without an end"
            _show(key, f"{new.id} is in {path}, valid {end}; {options.id} works until {until}")
        else:
            write_key_file(path, revoked(read_key_file(path), options.id))
            print(f"{options.id} is revoked; requests that run may finish", file=sys.stderr)
    return 0


def with_new(contents: KeyFile, wanted: NewKey, now: datetime) -> tuple[KeyFile, str]:
    """(contents with one more entry, its key or "" where a certificate stands for one). Raises ConfigError, as for an id that is taken."""
    if wanted.bound and not wanted.client_cert:
        raise ConfigError("--bound needs the --client-cert that the key is bound to")
    key = "" if wanted.client_cert and not wanted.bound else new_secret(wanted.key_id)
    record = KeyRecord(
        id=wanted.key_id,
        hash=hashed(key, wanted.slow_hash) if key else "",
        tenant=wanted.tenant or wanted.key_id,
        scopes=wanted.scopes,
        expires=wanted.expires,
        limits=wanted.limits,
        created=now,
        note=wanted.note,
        client_cert=wanted.client_cert,
    )
    if any(other.id == record.id for other in contents.keys):
        raise ConfigError(f"there is a key with the id {record.id} already; `vsrv keys rotate` replaces it")
    return replace(contents, keys=(*contents.keys, record)), key


def rotated(contents: KeyFile, key_id: str, overlap: timedelta, now: datetime) -> tuple[KeyFile, str]:
    """A new key with the old one's rights, which lives as long from now as the old one was made for; the old one expires after `overlap`.

    Raises ConfigError.
    """
    old = contents.find(key_id)
    if old.state(now) != "active":
        raise ConfigError(f"the key {key_id} is {old.state(now)}: make a new one with `vsrv keys new`")
    if not old.hash:
        raise ConfigError(
            f"{key_id} has no key: a new certificate with the name {old.client_cert} takes over"
        )
    end = now + overlap if old.expires is None else min(now + overlap, old.expires)
    stem = re.sub(r"-r\d+$", "", old.id)
    numbers = [int(m[1]) for k in contents.keys if (m := re.fullmatch(re.escape(stem) + r"-r(\d+)", k.id))]
    new_id = f"{stem}-r{max(numbers, default=1) + 1}"
    key = new_secret(new_id)
    slow = old.hash.startswith("scrypt")
    record = replace(old, id=new_id, hash=hashed(key, slow), created=now, expires=_renewed(old, now))
    kept = tuple(replace(k, expires=end) if k.id == key_id else k for k in contents.keys)
    return replace(contents, keys=(*kept, record)), key


def _renewed(old: KeyRecord, now: datetime) -> datetime | None:
    """A key that was made for 90 days is followed by one for 90 days: a successor without an end would undo what was decided."""
    if old.expires is None or old.created is None:
        return old.expires
    return now + (old.expires - old.created)


def revoked(contents: KeyFile, key_id: str) -> KeyFile:
    """The key stays in the file, so that its id in old logs still means something. Raises ConfigError."""
    contents.find(key_id)
    return replace(
        contents, keys=tuple(replace(k, revoked=True) if k.id == key_id else k for k in contents.keys)
    )


def listed(contents: KeyFile, now: datetime) -> list[str]:
    """A table of all keys without their hashes."""
    rows = [("ID", "TENANT", "STATE", "SCOPES", "EXPIRES", "LIMITS", "CERTIFICATE", "NOTE")]
    for key in contents.keys:
        limits = {name: getattr(key.limits, name) for name in RateLimits.__slots__}
        rows.append(
            (
                key.id,
                key.tenant,
                key.state(now),
                ",".join(key.scopes),
                "never" if key.expires is None else key.expires.isoformat(),
                " ".join(f"{name}={value}" for name, value in limits.items() if value is not None) or "-",
                key.client_cert or "-",
                "".join(c if c.isprintable() else "?" for c in key.note),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def span(text: str) -> timedelta:
    """ "90d" → its length; units s m h d w. Raises ConfigError."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is no length of time such as 24h or 90d")
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def moment(text: str | None, now: datetime) -> datetime | None:
    """A date, or a length of time from now. Raises ConfigError."""
    if text is None:
        return None
    if _SPAN.fullmatch(text):
        return now + span(text)
    try:
        made = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--expires {text}: expected 90d or a date such as 2027-01-01") from None
    return made if made.tzinfo is not None else made.replace(tzinfo=UTC)


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """`parser` with the subcommands of `vsrv keys`."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="new|list|revoke|rotate")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.add_argument(
            "--api-key-file",
            metavar="FILE",
            default=os.environ.get("VSRV_API_KEY_FILE"),
            help="key file, TOML or JSON (default: $VSRV_API_KEY_FILE)",
        )
        return made

    new = add("new", "Make a key, print it once, keep its hash.")
    new.add_argument("--id", help="name of the key in logs (default: random)")
    new.add_argument("--tenant", help="whose key it is (default: its id)")
    new.add_argument(
        "--scopes", default="inference", help=f"some of {','.join(SCOPES)} (default %(default)s)"
    )
    new.add_argument("--expires", metavar="WHEN", help="90d, or a date such as 2027-01-01 (default: never)")
    for name, text in _LIMITS.items():
        new.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=text)
    new.add_argument("--scrypt", action="store_true", help="slow hash: costs 40 ms of CPU when first used")
    new.add_argument(
        "--client-cert",
        metavar="NAME",
        help="no key: the client certificate with this name (CN=…, URI:…, DNS:…, email:…, SHA256:…, or its PEM file) stands for it",
    )
    new.add_argument("--bound", action="store_true", help="a key all the same, which needs that certificate")
    new.add_argument("--note", default="", help="free text for people")
    add("list", "Show all keys, without their hashes.")
    add("revoke", "Make a key useless at once.").add_argument("id", help="which key")
    rotate = add(
        "rotate",
        "Make a successor of a key, for as long as that one was made for; the old one works for a while.",
    )
    rotate.add_argument("id", help="which key")
    rotate.add_argument("--overlap", default="24h", help="how long the old key works (default %(default)s)")
    return parser


def _certificate(given: str | None) -> str:
    """A name as the key file has it; of a PEM file its fingerprint. Raises ConfigError."""
    if given is None:
        return ""
    if not Path(given).is_file():
        return certificate_name(given, "--client-cert")
    try:
        whole = ssl.PEM_cert_to_DER_cert(Path(given).read_text())
    except (OSError, ValueError):
        raise ConfigError(f"--client-cert {given}: not one certificate in PEM form") from None
    return "SHA256:" + hashlib.sha256(whole).hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two `vsrv keys` at once must not lose each other's change. The lock is on the folder, for the file itself is replaced."""
    try:
        descriptor = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"{path.parent}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _show(key: str, message: str) -> None:
    """The key alone goes to stdout, so that it can be piped into a secret store."""
    if not key:
        print(f"{message}, known by its client certificate", file=sys.stderr)
        return
    print(key)
    print(f"{message}. It is shown only once: only its hash is kept.", file=sys.stderr)
