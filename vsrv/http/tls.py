"""Server-side TLS on the standard library: TLS 1.2 and 1.3, AEAD suites, ALPN http/1.1, client certificates if asked."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from vsrv.errors import ConfigError

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
    for option, path in (("--ssl-certfile", files.certfile), ("--ssl-keyfile", files.keyfile)):
        _readable(option, path)
    try:
        context.set_ciphers(files.ciphers or _CIPHERS)
    except ssl.SSLError:
        raise ConfigError(f"--ssl-ciphers {files.ciphers}: OpenSSL knows no such cipher") from None
    try:
        # the callable keeps OpenSSL from asking on the terminal
        context.load_cert_chain(files.certfile, files.keyfile, lambda: files.password or "")
    except ssl.SSLError as error:
        raise ConfigError(_chain_problem(files, error)) from None
    if files.ca_certs:
        _readable("--ssl-ca-certs", files.ca_certs)
        try:
            context.load_verify_locations(files.ca_certs)
        except ssl.SSLError:
            raise ConfigError(f"--ssl-ca-certs {files.ca_certs}: no certificates in PEM form") from None
        context.verify_mode = ssl.VerifyMode(files.cert_reqs)
    return context


def _readable(option: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            return
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}") from None


def _chain_problem(files: TlsFiles, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"--ssl-keyfile {files.keyfile} is not the key of --ssl-certfile {files.certfile}"
    if "ENCRYPTED" in Path(files.keyfile).read_text(errors="replace"):
        return f"--ssl-keyfile {files.keyfile} is encrypted: --ssl-keyfile-password is missing or wrong"
    return f"--ssl-certfile {files.certfile} or --ssl-keyfile {files.keyfile} is not in PEM form"
