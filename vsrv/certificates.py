"""`vsrv cert`: a certificate authority of one's own and a server or client certificate signed by it, for development and closed networks."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vsrv.errors import ConfigError
from vsrv.files import replacing

_CA_DAYS = 3650
_CLOCKS = datetime.timedelta(hours=1)  # a client's clock may be behind ours


@dataclass(frozen=True, slots=True)
class CertificateWish:
    """What to make in `folder`. `names` are DNS names and addresses; `client` makes a client certificate with that name instead."""

    folder: Path
    names: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")
    days: int = 365
    client: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class MadeFiles:
    """Paths of what was written, and of the authority that signed it."""

    ca: Path
    certificate: Path
    key: Path
    is_new_ca: bool


def make(wish: CertificateWish) -> MadeFiles:
    """Write ca.pem and ca.key unless they are there, then a certificate and its key. Raises ConfigError."""
    try:
        wish.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ca_path, ca_key_path = wish.folder / "ca.pem", wish.folder / "ca.key"
        is_new = not ca_path.exists() and not ca_key_path.exists()
        ca, ca_key = _new_ca(ca_path, ca_key_path) if is_new else _read_ca(ca_path, ca_key_path)
        stem = "server" if wish.client is None else "client"
        path, key_path = wish.folder / f"{stem}.pem", wish.folder / f"{stem}.key"
        for existing in (path, key_path):
            if existing.exists() and not wish.force:
                raise ConfigError(f"{existing} is there already; --force replaces it, the authority stays")
        certificate, key = _issue(wish, ca, ca_key)
        # the key first: a server that watches the folder sees the pair complete when the certificate comes
        _write(key_path, _pem_of_key(key), 0o600)
        _write(path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    except OSError as error:
        raise ConfigError(f"--out {wish.folder}: {error.strerror}") from None
    return MadeFiles(ca_path, path, key_path, is_new)


def _new_ca(path: Path, key_path: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named("vsrv development CA")
    built = _builder(name, name, key.public_key(), _CA_DAYS)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    built = built.add_extension(_usage(signs_certificates=True), critical=True)
    certificate = built.sign(key, hashes.SHA256())
    _write(key_path, _pem_of_key(key), 0o600)
    _write(path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return certificate, key


def _read_ca(path: Path, key_path: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"{path} and {key_path} are no authority of vsrv cert: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        raise ConfigError(f"{key_path} is not the key of {path}")
    return certificate, key


def _issue(
    wish: CertificateWish, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    built = _builder(_named(wish.client or wish.names[0]), ca.subject, key.public_key(), wish.days)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if wish.client is None else ExtendedKeyUsageOID.CLIENT_AUTH
    if wish.client is None:  # RFC 9110 section 4.3.4: clients look at these names only
        built = built.add_extension(x509.SubjectAlternativeName(_names(wish.names)), critical=False)
    built = built.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    built = built.add_extension(_usage(signs_certificates=False), critical=True)
    built = built.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    built = built.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
    )
    return built.sign(ca_key, hashes.SHA256()), key


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _named(name: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    except ValueError:
        raise ConfigError(f"{name!r} is no name for a certificate: 1 to 64 characters") from None


def _names(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        with contextlib.suppress(ValueError):
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
            continue
        try:
            found.append(x509.DNSName(name))
        except ValueError:
            raise ConfigError(f"--name {name}: write international names in their xn-- form") from None
    return found


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """In one step: a key is never readable for others."""
    with replacing(path, mode) as file:
        file.write(data)
