"""Server-side TLS on the standard library: TLS 1.2 and 1.3, AEAD suites, ALPN http/1.1, client certificates if asked."""

from __future__ import annotations

import hashlib
import math
import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsrv.errors import ConfigError
from vsrv.http.tls_groups import choose_groups, preset_groups
from vsrv.http.values import PeerCertificate
from vsrv.options import EXPIRY_WARN_DAYS

if TYPE_CHECKING:
    from cryptography import x509

# TLS 1.3 suites are all AEAD; for 1.2 ephemeral keys and AEAD only (Mozilla's intermediate set without DHE).
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths and settings as given by the --ssl-* options. cert_reqs: 0 none, 1 optional, 2 required."""

    certfile: str
    keyfile: str
    password: str | None = None
    ca_certs: str | None = None
    cert_reqs: int = 0
    ciphers: str | None = None


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """A context for the listening socket. Raises ConfigError naming the option that is wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    choose_groups(context)
    for option, path in (("--ssl-certfile", files.certfile), ("--ssl-keyfile", files.keyfile)):
        _readable(option, path)
    try:
        context.set_ciphers(files.ciphers or _CIPHERS)
    except ssl.SSLError:
        raise ConfigError(f"--ssl-ciphers {files.ciphers}: OpenSSL knows no such cipher") from None
    try:
        # the callable keeps OpenSSL from asking on the terminal
        context.load_cert_chain(files.certfile, files.keyfile, lambda: files.password or "")
    except OSError as error:  # ssl.SSLError is one
        raise _chain_problem(files, error) from None
    if files.ca_certs:
        _readable("--ssl-ca-certs", files.ca_certs)
        try:
            context.load_verify_locations(files.ca_certs)
        except OSError:
            raise ConfigError(
                f"--ssl-ca-certs {files.ca_certs}: no certificates in PEM form", "--ssl-ca-certs FILE"
            ) from None
        context.verify_mode = ssl.VerifyMode(files.cert_reqs)
    return context


Fingerprint = tuple[tuple[str, int, int, int, int] | None, ...]


class TlsKeeper:
    """The newest good context. New files are tried beside it: whatever is wrong with them, the old one goes on.

    Files are looked at by resolved path, inode, size and time, so that a new file, a renamed one, and a symbolic link or folder that is
    switched (as Kubernetes and certbot do) all count as a change.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Raises ConfigError naming the option that is wrong."""
        self._files = files
        self._tried = _fingerprint(files)
        self._pending: Fingerprint | None = None
        self.groups_unset = preset_groups()  # why OpenSSL's own list of groups stays; empty as a rule
        self.context = server_context(files)
        self.not_after = not_after(files.certfile)

    def has_changed(self) -> bool:
        """Whether files differ from the ones tried last, and are the same as at the call before: whoever writes them has finished."""
        now = _fingerprint(self._files)
        if now == self._tried or now != self._pending:
            self._pending = now
            return False
        return True

    def reload(self, files: TlsFiles | None = None) -> None:
        """Try the files as they are now. Raises ConfigError, and changes nothing, if they are not a certificate to go on with."""
        files = files or self._files
        self._tried, self._pending = _fingerprint(files), None
        context, end = server_context(files), not_after(files.certfile)
        if end < time.time() < self.not_after:
            raise ConfigError(f"--ssl-certfile {files.certfile} has expired; the one in use has not")
        self._files, self.context, self.not_after = files, context, end

    def warning(self, now: float) -> str | None:
        """What should be said of the certificate's end at Unix time `now`."""
        days = (self.not_after - now) / 86400
        if days < 0:
            return f"the certificate {self._files.certfile} has expired: clients refuse it"
        if days < EXPIRY_WARN_DAYS:
            return f"the certificate {self._files.certfile} expires in {math.floor(days)} days"
        return None

    @property
    def name(self) -> str:
        """The first name in the certificate that a client could ask for; empty if it has only wildcards or cannot be read any more."""
        try:
            return next((name for name in certificate_names(self._files.certfile) if "*" not in name), "")
        except ConfigError:
            return ""


def not_after(certfile: str) -> float:
    """Unix time at which the first certificate of a PEM file ends. Raises ConfigError."""
    return validity(certfile)[1]


def validity(certfile: str) -> tuple[float, float]:
    """Unix times at which the first certificate of a PEM file begins and ends. Raises ConfigError."""
    first = _first_certificate(certfile)
    return first.not_valid_before_utc.timestamp(), first.not_valid_after_utc.timestamp()


def _first_certificate(certfile: str) -> x509.Certificate:
    """Raises ConfigError."""
    from cryptography import x509  # 60 ms: only servers with TLS pay them

    try:
        return x509.load_pem_x509_certificates(Path(certfile).read_bytes())[0]
    except (OSError, ValueError) as error:
        raise ConfigError(f"--ssl-certfile {certfile}: {error}") from None


_ALTERNATIVE = ("URI", "email", "DNS")  # as ssl spells them, the most specific first


def peer_certificate(connection: ssl.SSLObject | None) -> PeerCertificate | None:
    """Who the client is by the certificate that it showed and that was verified; None without one."""
    shown: dict[str, Any] | None = None if connection is None else connection.getpeercert()
    whole = None if connection is None else connection.getpeercert(binary_form=True)
    if not shown or whole is None:  # ssl gives an empty table for what it has not verified
        return None
    names = ["SHA256:" + hashlib.sha256(whole).hexdigest()]
    alternatives = [pair for pair in shown.get("subjectAltName", ()) if isinstance(pair[1], str)]
    for kind in _ALTERNATIVE:
        values = (value for found, value in alternatives if found == kind)
        names += [f"{kind}:{value.lower() if kind == 'DNS' else value}" for value in values]
    common = [value for part in shown.get("subject", ()) for name, value in part if name == "commonName"]
    if len(common) == 1:  # of two nobody could say which one is meant
        names.append(f"CN={common[0]}")
    return PeerCertificate(tuple(names))


def certificate_names(certfile: str) -> list[str]:
    """DNS names and addresses that the first certificate of a PEM file is for: clients look at nothing else (RFC 9110 section 4.3.4).

    Raises ConfigError.
    """
    from cryptography import x509

    try:
        extensions = _first_certificate(certfile).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    except ValueError as error:  # extensions are read when they are asked for
        raise ConfigError(f"--ssl-certfile {certfile}: {error}") from None
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def _fingerprint(files: TlsFiles) -> Fingerprint:
    found: list[tuple[str, int, int, int, int] | None] = []
    for path in (files.certfile, files.keyfile, files.ca_certs):
        try:
            status = os.stat(path) if path else None
        except OSError:
            status = None
        if path is None or status is None:
            found.append(None)
        else:
            found.append(
                (os.path.realpath(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            )
    return tuple(found)


def _readable(option: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            return
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}", f"{option} FILE") from None


def _chain_problem(files: TlsFiles, error: OSError) -> ConfigError:
    pair = f"--ssl-certfile {files.certfile} or --ssl-keyfile {files.keyfile}"
    if not isinstance(error, ssl.SSLError):  # a file went away between two looks
        return ConfigError(f"{pair}: {error.strerror}")
    if error.reason == "KEY_VALUES_MISMATCH":
        return ConfigError(f"--ssl-keyfile {files.keyfile} is not the key of --ssl-certfile {files.certfile}")
    try:
        is_encrypted = "ENCRYPTED" in Path(files.keyfile).read_text(errors="replace")
    except OSError:
        is_encrypted = False
    if is_encrypted:
        return ConfigError(
            f"--ssl-keyfile {files.keyfile} is encrypted: --ssl-keyfile-password is missing or wrong",
            "--ssl-keyfile-password TEXT",
        )
    return ConfigError(f"{pair} is not in PEM form")
